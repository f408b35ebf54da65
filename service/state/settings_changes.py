"""Changed settings: a change begins a new epoch of releases, and a new pseudonym key needs an operator's confirmation."""

from __future__ import annotations

import logging

from anonymizer.errors import ConfigurationError
from service.log_event import LogEvent
from service.state.journal import Epoch, Journal

_SETTINGS_CHANGED = LogEvent(
    "settings_changed",
    "⚠️ Settings changed since the last release: they apply to windows that are not yet released",
    level=logging.WARNING,
)


def continue_or_begin_epoch(journal: Journal, epoch: Epoch, *, accept_new_key: bool, now_ns: int) -> None:
    """Check that windows may be released under `epoch` from now on, and record a change of settings.

    A new k, method, window length or filter applies to windows that are not yet released. A new pseudonym key gives every wearer a second
    pseudonym, which readers of the output cannot notice.

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
            "get new ids. Put the old key back, or set ACCEPT_NEW_PSEUDONYM_KEY=true to continue with the new one"
        )
    journal.begin_epoch(epoch, now_ns=now_ns)
    if last is not None:
        _SETTINGS_CHANGED.log()
