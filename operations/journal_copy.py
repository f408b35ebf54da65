"""A consistent copy of the journal, for commands that read STATE_DIR while the service may be running."""

from __future__ import annotations

import os
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from anonymizer.errors import ConfigurationError, JournalDamaged, StateUnavailable
from disk.durable_file import mode_of, open_ours, write_durably
from service import exit_codes
from service.settings.declared import Settings
from service.state.facts import EarlierVersion
from service.state.fence import Fence
from service.state.journal import Journal
from service.state.journal_file import WAY_ON
from service.state.trail import told


@dataclass(frozen=True, slots=True)
class Document:
    """What a command makes of settings and STATE_DIR.

    Args:
        command: The command's name, for the audit log.
        make: Makes it.
        path: Where to write it.
        said: Returns what to say of it once it is written.
    """

    command: str
    make: Callable[[Settings], str]
    path: Path
    said: Callable[[str], str]


def write_document(document: Document, settings_of: Callable[[], Settings], say: Callable[[str], None]) -> int:
    """Load settings and write a document; say where it is, or why it is not; return the exit code. The audit log tells it."""
    try:
        settings = settings_of()
        return told(Path(settings.state_dir), document.command, time.time_ns, lambda: _write(document, settings, say))
    except ConfigurationError as error:
        say("\n".join(f"❌ {problem}" for problem in error.problems))
        return exit_codes.CONFIGURATION
    except JournalDamaged as error:
        say(f"❌ {error}")
        return exit_codes.CONFIGURATION
    except StateUnavailable as error:
        say(f"❌ {error}")
        return exit_codes.UNREACHABLE


def _write(document: Document, settings: Settings, say: Callable[[str], None]) -> int:
    content, path = document.make(settings), document.path
    try:
        write_durably(path, content.encode(), mode=mode_of(path, otherwise=settings.output_file_mode))
    except OSError as error:
        say(f"❌ {path} cannot be written ({error.strerror or error})")
        return exit_codes.USAGE
    say(document.said(content))
    return exit_codes.DONE


def has_journal(folder: Path) -> bool:
    """Return whether a STATE_DIR holds a journal. Raises ConfigurationError if it cannot be looked into."""
    try:
        return (folder / "journal.sqlite").is_file()
    except OSError as error:
        raise ConfigurationError(
            f"STATE_DIR {folder} cannot be looked into ({error.strerror or error}): run this as the user that it belongs to"
        ) from None


@contextmanager
def copied_journal(
    folder: Path, *, data_set: str | None = None, address: str = "", earlier_version: EarlierVersion | None = None
) -> Iterator[tuple[Journal, int]]:
    """Yield a copy of a STATE_DIR's journal, and the format version of the original: 0 if there is none. STATE_DIR is not changed.

    Args:
        folder: STATE_DIR, which a service may be using.
        data_set: As of `Journal`.
        address: As of `Journal`.
        earlier_version: As of `Journal`.

    Raises:
        JournalDamaged: It is damaged.
        StateUnavailable: It cannot be read now.
    """
    with tempfile.TemporaryDirectory(prefix="ecg-anonymizer-state-") as copy:
        try:
            # A release is written to the journal, then to the fence, before the next one begins. So the copy contains everything that the
            # fence held before the copy, and the fence then holds everything in the copy except perhaps the last release.
            before = Fence(folder / "fence").read()
            version = _copy(folder / "journal.sqlite", Path(copy))
            journal = Journal(
                Path(copy),
                data_set=data_set,
                address=address,
                earlier_version=earlier_version,
                copied=(before, Fence(folder / "fence").read()),
            )
            with closing(journal):
                yield journal, version
        except (JournalDamaged, StateUnavailable) as error:
            # Name the operator's folder, not the copy, which is gone by the time the message is read.
            raise type(error)(str(error).replace(copy, str(folder))) from None


def _copy(path: Path, to: Path) -> int:
    """Copy a journal into a folder; return its format version, 0 if there is none."""
    try:
        # As in the service, do not open pipes or follow links.
        os.close(open_ours(path, os.O_RDONLY))
    except FileNotFoundError:
        return 0
    except OSError as error:
        raise StateUnavailable(f"{path} cannot be used now ({error.strerror or error})") from None
    try:
        source, copy = sqlite3.connect(f"{path.resolve().as_uri()}?mode=rw", uri=True), sqlite3.connect(to / path.name)
        with closing(source), closing(copy):
            source.backup(copy)
            return int(copy.execute("PRAGMA user_version").fetchone()[0])
    except sqlite3.OperationalError as error:
        raise StateUnavailable(f"{path} cannot be used now ({error})") from None
    except sqlite3.Error as error:
        raise JournalDamaged(f"{path} cannot be used ({error}). {WAY_ON}") from None
