"""The names of outputs in the journal: outputs with a new name or place are matched, removed ones are forgotten."""

from __future__ import annotations

import os
import shlex
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from anonymizer.errors import ConfigurationError
from service.log_event import WARNING, LogEvent
from service.state.journal import Journal
from service.state.set_aside import SetAside
from transport.addresses import canonical_address

_OUTPUT_RENAMED = LogEvent("output_renamed", "Output %s is called %s from now on", "output new_name")


def match_outputs(journal: Journal, set_aside: SetAside, names: Collection[str], *, state_dir: Path) -> None:
    """Rename outputs that the journal knows by another name.

    Earlier versions named an output as its setting spelled it. A folder that was moved along with STATE_DIR is still the same output.

    Args:
        journal: The journal.
        set_aside: The rows that outputs refused.
        names: The names of the enabled outputs.
        state_dir: The folder of the journal.

    Raises:
        SpoolDamaged: A set-aside file is damaged.
        StateUnavailable: The service's own disk cannot be used now.
    """
    new_names = names_now(journal, names, state_dir=state_dir)
    if new_names:
        set_aside.rename_outputs(new_names)
        journal.outputs.rename_outputs(new_names)
    journal.facts.remember_place(os.path.realpath(state_dir))
    for old, new in new_names.items():
        _OUTPUT_RENAMED.log(old, new)


def names_now(journal: Journal, names: Collection[str], *, state_dir: Path) -> dict[str, str]:
    """Return the names of enabled outputs, by other names under which the journal knows them."""
    history = NameHistory(Path(os.path.realpath(state_dir)), journal.facts.place)
    known = {position.name for position in journal.outputs.positions()}
    new_names = {}
    for name in set(names) - known:
        old_names = [old for old in known - set(names) if name in history.current_names(old)]
        if len(old_names) == 1:
            new_names[old_names[0]] = name
    return new_names


@dataclass(frozen=True, slots=True)
class NameHistory:
    """Translates an output's old name to names that it may have now.

    Args:
        state_dir: The real path of STATE_DIR.
        previous_dir: Its real path at the last start; empty if unknown.
    """

    state_dir: Path
    previous_dir: str = ""

    def current_names(self, old_name: str) -> set[str]:
        """Return the names that an output with this old name may have now."""
        kind, _, target = old_name.partition(":")
        if kind not in ("csv", "parquet") or "://" in target:
            return {f"{kind}:{canonical_address(target)}"}
        # A relative path was resolved from the service's working directory: the current one, or the parent of STATE_DIR.
        paths = [base / target for base in (Path.cwd(), self.state_dir.parent)]
        previous_parent = Path(self.previous_dir).parent
        if self.previous_dir and Path(target).is_relative_to(previous_parent):
            paths.append(self.state_dir.parent / Path(target).relative_to(previous_parent))
        return {f"{kind}:{os.path.realpath(path)}" for path in paths}


def forget_removed_outputs(journal: Journal, names: Sequence[str]) -> None:
    """Forget disabled outputs without pending rows. Their set-aside rows stay on disk, with a warning.

    Raises:
        ConfigurationError: One has pending rows. An operator must confirm that it will not get them.
    """
    removed = [position for position in journal.outputs.positions() if position.name not in names]
    waiting = [position for position in removed if position.pending]
    if waiting:
        raise ConfigurationError(
            [
                f"output {position.name} was turned off while {position.pending} released rows wait for it: turn it on again, or run "
                f"scripts/state.py drop-output {shlex.quote(position.name)}"
                for position in waiting
            ]
        )
    for position in removed:
        if position.set_aside:
            WARNING.log(
                f"output {position.name} was turned off; {position.set_aside} rows that it refused stay in STATE_DIR/set_aside, and are no "
                "longer offered to it"
            )
        journal.outputs.drop_output(position.name)
