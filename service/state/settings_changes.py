"""Changed settings: which may change between runs, and which an operator must confirm."""

from __future__ import annotations

import logging
import os
import shlex
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from anonymizer.errors import ConfigurationError
from service.log_event import WARNING, LogEvent
from service.state.journal import Epoch, Journal
from service.state.set_aside import SetAside
from transport.addresses import canonical_address

_SETTINGS_CHANGED = LogEvent(
    "settings_changed",
    "⚠️ Settings changed since the last release: they hold for windows that are not yet released",
    level=logging.WARNING,
)
_OUTPUT_RENAMED = LogEvent("output_renamed", "Output %s is called %s from now on", "output new_name")


def continue_or_begin_epoch(journal: Journal, epoch: Epoch, *, accept_new_key: bool, now_ns: int) -> None:
    """Check that windows may be released under `epoch` from now on, and record a change of settings.

    A new k, method, window length or filter applies to windows that are not yet released. A new pseudonym key gives the same wearer a
    second pseudonym, which readers would not notice.

    Raises:
        ConfigurationError: The pseudonym key changed and was not confirmed.
    """
    last = journal.last_epoch()
    if last == epoch:
        return
    key_id = epoch.promise.key_id
    if last is not None and last.promise.key_id != key_id and not accept_new_key:
        raise ConfigurationError(
            f"the pseudonym key changed (its id was {last.promise.key_id or 'none'}, now {key_id or 'none'}): the same wearers would "
            "get other ids. Put the old key back, or set ACCEPT_NEW_PSEUDONYM_KEY=true to go on with the new one"
        )
    journal.begin_epoch(epoch, now_ns=now_ns)
    if last is not None:
        _SETTINGS_CHANGED.log()


def recognise_outputs(journal: Journal, set_aside: SetAside, names: Collection[str], *, state_dir: Path) -> None:
    """Rename outputs in the journal that it knows by another spelling or place.

    Earlier versions named an output as its setting spelled it. A folder of files that was moved along with STATE_DIR is the same output.

    Args:
        journal: What outputs have taken.
        set_aside: What they refused.
        names: The names of the enabled outputs.
        state_dir: Where the journal is.

    Raises:
        SpoolDamaged: What was set aside is damaged.
        StateUnavailable: The service's own disk cannot be used now.
    """
    here = Path(os.path.realpath(state_dir))
    moves = Moves(here, journal.place)
    known = {standing.name for standing in journal.outputs.positions()}
    new_names = {}
    for name in set(names) - known:
        alike = [old for old in known - set(names) if name in moves.forms(old)]
        if len(alike) == 1:
            new_names[alike[0]] = name
    if new_names:
        set_aside.rename_outputs(new_names)
        journal.outputs.rename_outputs(new_names)
    journal.remember_place(str(here))
    for old, new in new_names.items():
        _OUTPUT_RENAMED.log(old, new)


@dataclass(frozen=True, slots=True)
class Moves:
    """Earlier names that a folder of files may have had.

    Args:
        state_dir: The real path of STATE_DIR.
        was: Its real path at the last start; empty when that is not known.
    """

    state_dir: Path
    was: str = ""

    def forms(self, name: str) -> set[str]:
        """Return the names that an output with this old name may have now."""
        kind, _, target = name.partition(":")
        if kind not in ("csv", "parquet") or "://" in target:
            return {f"{kind}:{canonical_address(target)}"}
        # A relative path was meant from where the service ran: here, or beside STATE_DIR.
        paths = [base / target for base in (Path.cwd(), self.state_dir.parent)]
        before = Path(self.was).parent
        if self.was and Path(target).is_relative_to(before):
            paths.append(self.state_dir.parent / Path(target).relative_to(before))
        return {f"{kind}:{os.path.realpath(path)}" for path in paths}


def forget_removed_outputs(journal: Journal, names: Sequence[str]) -> None:
    """Forget disabled outputs with nothing pending. Rows set aside for them stay on disk, with a warning.

    Raises:
        ConfigurationError: One has pending rows; an operator must confirm that it will not get them.
    """
    removed = [standing for standing in journal.outputs.positions() if standing.name not in names]
    waiting = [standing for standing in removed if standing.pending]
    if waiting:
        raise ConfigurationError(
            [
                f"output {standing.name} was turned off while {standing.pending} released rows wait for it: turn it on again, or run "
                f"scripts/state.py drop-output {shlex.quote(standing.name)}"
                for standing in waiting
            ]
        )
    for standing in removed:
        if standing.set_aside:
            WARNING.log(
                f"output {standing.name} was turned off; {standing.set_aside} rows that it refused stay in STATE_DIR/set_aside, and are no "
                "longer offered to it"
            )
        journal.outputs.drop_output(standing.name)
