"""The ledger: a file of JSON Lines that only grows. Written by any number of commands at once, read while they write.

Writers wait for each other with an advisory lock on the ledger itself. Libraries for this were considered: filelock leaves a second file
behind and asks readers for the right to write; portalocker needs pywin32. The two calls below need neither.

A line without a newline at the end of the ledger is what a crash in the middle of a write leaves. `append` adds the newline when the
line is a whole JSON object; otherwise it refuses, and changes nothing: only a person can say what that line was to be.
"""

from __future__ import annotations

import contextlib
import io
import os
import stat
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from scripts.heart_command import STANDARD_INPUT, InvalidEntries, LedgerUnusable, WriteFailed, name_of, read_input, unreadable
from scripts.heart_json import BadJson, Entry, decode, read_lines

LEDGER_NAME = "heart_ledger.jsonl"

#: A write takes milliseconds: whoever holds the lock for longer is stuck or stopped, and a person should know.
LOCK_WAIT_S = 30.0

#: How long to wait between two tries to lock. The system has no call that waits only so long.
LOCK_PAUSE_S = 0.01

#: Which byte Windows locks. Locks there keep readers from the byte itself, so it is the last the call can name.
_WINDOWS_LOCKED_BYTE = 2**31 - 2

#: Only the owner may read a new ledger: before pseudonyms it names sources.
_NEW_LEDGER_MODE = 0o600


def _nothing_more() -> None:
    """Do nothing when the lines are safe."""


def append(path: Path, lines: bytes, *, when_safe: Callable[[], None] = _nothing_more, lock_wait_s: float = LOCK_WAIT_S) -> None:
    """Append whole lines: all of them, as durably as the disk can make them, or none.

    Not promised when the machine or the process is killed during the write: then some of the lines may be there, the last cut off.

    Args:
        path: The ledger; made, for its owner only, if it is not there.
        lines: One or more lines, each with its newline.
        when_safe: Called when the disk has the lines. The last moment at which an exception, such as Ctrl+C, takes them back.
        lock_wait_s: How long to wait for other commands to finish.

    Raises:
        LedgerUnusable: It cannot be opened or locked, or is no regular file.
        InvalidEntries: Its last line was cut off.
        WriteFailed: The disk is full, or another command has held the lock for `lock_wait_s` seconds.
    """
    with _opened_to_append(path) as ledger, _locked(ledger, path, exclusive=True, wait_s=lock_wait_s):
        size = ledger.seek(0, os.SEEK_END)
        newline_owed = _newline_owed(ledger, path)
        try:
            _write_all(ledger, newline_owed + lines)
            os.fsync(ledger.fileno())
            if not size:
                _sync_folder_of(path)
            when_safe()
        except BaseException as error:
            # Also on Ctrl+C: a command that does not end well must have done nothing.
            ledger.truncate(size)
            if isinstance(error, OSError):
                raise WriteFailed(f"cannot write {path}: {error.strerror}; nothing was appended, run it again") from error
            raise


def read_ledger(path: str) -> Iterator[Entry]:
    """Yield the entries of a ledger as it was when reading began, or raise UsageError. `-` is standard input."""
    return read_lines(_numbered_lines(path), name=name_of(path))


def is_same_file(input_path: str, ledger: Path) -> bool:
    """Return whether an input, standard input too, is the ledger itself under any name."""
    try:
        status = os.fstat(sys.stdin.fileno()) if input_path == STANDARD_INPUT else Path(input_path).stat()
        return os.path.samestat(status, ledger.stat())
    except (OSError, ValueError, AttributeError):
        return False


def _numbered_lines(path: str) -> Iterator[tuple[int, bytes]]:
    if path == STANDARD_INPUT:
        yield from enumerate(io.BytesIO(read_input(path)), start=1)
        return
    try:
        with Path(path).open("rb") as ledger:
            yield from _lines_until(ledger, _size_between_writes(ledger, Path(path)))
    except OSError as error:
        raise unreadable(path, error) from error


def _lines_until(ledger: BinaryIO, size: int | None) -> Iterator[tuple[int, bytes]]:
    position = 0
    for number, line in enumerate(ledger, start=1):
        if size is not None and position >= size:
            return
        position += len(line)
        yield number, line


def _size_between_writes(ledger: BinaryIO, path: Path) -> int | None:
    """Return how much of the ledger to read: what is there while nobody writes, so it ends with a whole line.

    What is appended later is not read. None for a pipe, which has no size and no writers that lock.
    """
    if not stat.S_ISREG(os.fstat(ledger.fileno()).st_mode):
        return None
    with _locked(ledger, path, exclusive=False, wait_s=LOCK_WAIT_S):
        return os.fstat(ledger.fileno()).st_size


def _opened_to_append(path: Path) -> io.FileIO:
    try:
        if path.exists() and not path.is_file():
            raise LedgerUnusable(f"{path} is no regular file; name one with --ledger")
        # Unbuffered, so that one write is one call. Path.open takes no opener, which sets the mode before the file has a name.
        return open(path, "a+b", buffering=0, opener=_create_for_owner)
    except OSError as error:
        raise LedgerUnusable(f"cannot write {path}: {error.strerror}; check --ledger, its folder and the permissions") from error


def _create_for_owner(path: str, flags: int) -> int:
    return os.open(path, flags, _NEW_LEDGER_MODE)


def _write_all(ledger: io.FileIO, data: bytes) -> None:
    """Write in one call if the system takes it all, else in as many as it needs: the lock keeps others out meanwhile."""
    rest = memoryview(data)
    while rest:
        rest = rest[ledger.write(rest) :]


def _sync_folder_of(path: Path) -> None:
    """Until the folder is synced, the power may still take the name of a new ledger. Windows has no such call."""
    if os.name != "posix":
        return
    folder = os.open(path.resolve().parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _newline_owed(ledger: io.FileIO, path: Path) -> bytes:
    """Return the newline that the last line lacks, if it lacks one and is otherwise whole; InvalidEntries if it was cut off."""
    number, line = _last_line(ledger)
    if not line or line.endswith(b"\n"):
        return b""
    if not _is_whole(line):
        problem = (
            "the ledger's last line was cut off while it was written; finish it or remove it, and end the ledger with a newline"
        )
        raise InvalidEntries([f"{path}:{number}: {problem}"])
    return b"\n"


def _last_line(ledger: io.FileIO) -> tuple[int, bytes]:
    """Return the last line and its number. Reads all lines only when the last lacks its newline."""
    if not ledger.seek(0, os.SEEK_END):
        return 0, b""
    ledger.seek(-1, os.SEEK_END)
    if ledger.read(1) == b"\n":
        return 0, b"\n"
    ledger.seek(0)
    with open(ledger.fileno(), "rb", closefd=False) as lines:
        ((number, line),) = deque(enumerate(lines, start=1), maxlen=1)
    return number, line


def _is_whole(line: bytes) -> bool:
    try:
        return isinstance(decode(line.decode()), dict)
    except (UnicodeDecodeError, BadJson):
        return False


@contextlib.contextmanager
def _locked(ledger: BinaryIO | io.FileIO, path: Path, *, exclusive: bool, wait_s: float) -> Iterator[None]:
    """Hold the lock: alone to write, together with others to read."""
    give_up_at_s = time.monotonic() + wait_s
    while not _try_to_lock(ledger, path, exclusive=exclusive):
        if time.monotonic() >= give_up_at_s:
            raise WriteFailed(
                f"another command has held {path} locked for {wait_s:g} s; nothing was done, see whether it is stuck"
            )
        time.sleep(LOCK_PAUSE_S)
    try:
        yield
    finally:
        _unlock(ledger)


def _try_to_lock(ledger: BinaryIO | io.FileIO, path: Path, *, exclusive: bool) -> bool:
    try:
        _lock_now(ledger, exclusive=exclusive)
    except (BlockingIOError, PermissionError):
        return False
    except OSError as error:
        raise LedgerUnusable(f"cannot lock {path}: {error.strerror}; keep the ledger on a file system with locks") from error
    return True


if sys.platform == "win32":

    def _lock_now(ledger: BinaryIO | io.FileIO, *, exclusive: bool) -> None:  # noqa: ARG001 - Windows' C library has one kind of lock
        import msvcrt

        ledger.seek(_WINDOWS_LOCKED_BYTE)
        try:
            msvcrt.locking(ledger.fileno(), msvcrt.LK_NBLCK, 1)
        finally:
            ledger.seek(0)

    def _unlock(ledger: BinaryIO | io.FileIO) -> None:
        import msvcrt

        ledger.seek(_WINDOWS_LOCKED_BYTE)
        msvcrt.locking(ledger.fileno(), msvcrt.LK_UNLCK, 1)
        ledger.seek(0)

else:

    def _lock_now(ledger: BinaryIO | io.FileIO, *, exclusive: bool) -> None:
        import fcntl

        fcntl.flock(ledger.fileno(), (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)

    def _unlock(ledger: BinaryIO | io.FileIO) -> None:
        import fcntl

        fcntl.flock(ledger.fileno(), fcntl.LOCK_UN)
