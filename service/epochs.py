"""Changed settings: what may change between runs, and what must be confirmed by a person."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from anonymizer.errors import ConfigurationError
from service.journal import Epoch, Journal

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
                f"scripts/state.py drop-output {standing.name}"
                for standing in waiting
            ]
        )
    for standing in removed:
        journal.outputs.drop_output(standing.name)
