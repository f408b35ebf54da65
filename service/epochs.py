"""Changed settings: what may change between runs, and what must be confirmed by a person."""

from __future__ import annotations

import logging
import os
import shlex
from collections.abc import Collection, Sequence
from pathlib import Path

from anonymizer.errors import ConfigurationError
from service.journal import Epoch, Journal
from service.set_aside import SetAside
from transport.addresses import canonical_address

_LOG = logging.getLogger("ecg_anonymizer")


def continue_or_begin_epoch(journal: Journal, epoch: Epoch, *, accept_new_key: bool, now_ns: int) -> None:
    """See that windows released from now on may be released as `epoch` says, and remember a change.

    A new k, method, window length or filter holds for windows that are not yet released. A new pseudonym key makes new pseudonyms: the same
    wearer then has two, and whoever expects one would not notice.

    Raises:
        ConfigurationError: The pseudonym key is another one and was not confirmed.
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
        _LOG.warning("⚠️ Settings changed since the last release: they hold for windows that are not yet released")


def recognise_outputs(journal: Journal, set_aside: SetAside, names: Collection[str], *, bases: Sequence[Path]) -> None:
    """Let the journal call outputs as they are called now, where it knows them by another spelling, as earlier versions wrote it.

    Args:
        journal: What outputs have taken.
        set_aside: What they refused.
        names: What the outputs that are turned on are called.
        bases: The folders that a relative path may have been meant from.

    Raises:
        SpoolDamaged: What was set aside is damaged.
        StateUnavailable: Our own disk cannot be used now.
    """
    known = {standing.name for standing in journal.outputs.standings()}
    new_names = {}
    for name in set(names) - known:
        alike = [old for old in known - set(names) if is_output(old, name, bases=bases)]
        if len(alike) == 1:
            new_names[alike[0]] = name
    if not new_names:
        return
    set_aside.rename_outputs(new_names)
    journal.outputs.rename_outputs(new_names)
    for old, new in new_names.items():
        _LOG.info("Output %s is called %s from now on", old, new)


def bases_of(state_dir: Path) -> tuple[Path, ...]:
    """Return from which folders an earlier run may have meant a relative path: from where we are, or from beside STATE_DIR."""
    return Path.cwd(), Path(os.path.realpath(state_dir)).parent


def is_output(spelled: str, name: str, *, bases: Sequence[Path]) -> bool:
    """Return whether two names are of one output; a relative path is meant from one of the folders."""
    return bool(_forms(spelled, bases) & _forms(name, bases))


def _forms(name: str, bases: Sequence[Path]) -> set[str]:
    kind, _, target = name.partition(":")
    if kind == "csv":
        return {f"csv:{os.path.realpath(base / target)}" for base in bases}
    return {f"{kind}:{canonical_address(target)}"}


def forget_removed_outputs(journal: Journal, names: Sequence[str]) -> None:
    """Forget outputs that are no longer turned on and have nothing pending.

    Raises:
        ConfigurationError: One of them has; somebody must say that it may be lost to it.
    """
    removed = [standing for standing in journal.outputs.standings() if standing.name not in names]
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
        journal.outputs.drop_output(standing.name)
