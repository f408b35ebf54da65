"""Changed settings: a change begins a new epoch of releases, and a new pseudonym key needs an operator's confirmation."""

from __future__ import annotations

import json
import logging
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path

from anonymizer.errors import ConfigurationError, StateUnavailable
from disk.durable_file import read_ours
from service.log_event import LogEvent
from service.state.epochs import Epoch
from service.state.journal import Journal

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
    last = journal.epochs.last()
    if last == epoch:
        return
    key_id = epoch.promise.key_id
    if last is not None and last.promise.key_id != key_id and not accept_new_key:
        raise ConfigurationError(
            f"the pseudonym key changed (its id was {last.promise.key_id or 'none'}, now {key_id or 'none'}): the same wearers would "
            "get new ids. Put the old key back, or set ACCEPT_NEW_PSEUDONYM_KEY=true to continue with the new one"
        )
    journal.epochs.begin(epoch, now_ns=now_ns)
    if last is not None:
        _SETTINGS_CHANGED.log()


def last_key_id(folder: Path) -> str:
    """Return the id of the key that a STATE_DIR's last releases were made under; empty if there are none. STATE_DIR is not changed.

    Raises:
        StateUnavailable: It cannot be told.
    """
    path = folder / "journal.sqlite"
    try:
        with tempfile.TemporaryDirectory(prefix="ecg-anonymizer-state-") as copy:
            # Opening the original would leave files in STATE_DIR, owned by the user who runs --check.
            (Path(copy) / path.name).write_bytes(read_ours(path))
            log = path.with_name(f"{path.name}-wal")
            if log.exists():
                (Path(copy) / log.name).write_bytes(read_ours(log))
            with closing(sqlite3.connect(Path(copy) / path.name)) as db:
                found = db.execute("SELECT promise FROM epochs ORDER BY epoch DESC LIMIT 1").fetchone()
        return str(json.loads(found[0])["key_id"]) if found else ""
    except FileNotFoundError:
        return ""
    except (OSError, sqlite3.Error, ValueError, LookupError, TypeError) as error:
        reason = error.strerror if isinstance(error, OSError) else type(error).__name__
        raise StateUnavailable(f"{path} cannot be read ({reason})") from None
