"""The ledger: an append-only JSON Lines file. Several commands may write at once, and read meanwhile.

Writers take an advisory lock on the ledger itself.

A crash during a write leaves a last line without a newline. `append` adds the newline if the line is a whole JSON object; otherwise it
refuses and changes nothing: only a person can say what the line should have been.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import stat
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from disk.durable_file import open_or_create, sync_folder
from disk.file_lock import NO_LOCKS, try_to_lock, unlock
from scripts.heartbeat.command import (
    STANDARD_INPUT,
    InvalidEntries,
    LedgerUnusable,
    WriteFailed,
    name_of,
    read_input,
    unreadable,
    warn,
)
from scripts.heartbeat.json_lines import BadJson, Entry, decode, read_lines

LEDGER_NAME = "heart_ledger.jsonl"

#: A write takes milliseconds: a process that holds the lock for longer is stuck or stopped, and the user should know.
LOCK_WAIT_S = 30.0

#: Pause between two attempts to lock: the system has no lock call with a timeout.
LOCK_PAUSE_S = 0.01

#: Only a person can fix these: the ledger's path, permissions or file type.
_FOR_A_PERSON = frozenset(
    {
        errno.EACCES,
        errno.EPERM,
        errno.EROFS,
        errno.ENOENT,
        errno.ENOTDIR,
        errno.EISDIR,
        errno.ELOOP,
        errno.EMLINK,
        errno.EINVAL,
        errno.ENXIO,
        errno.ENAMETOOLONG,
    }
)


def _nothing_more() -> None:
    """Do nothing when the lines are safe."""


def append(path: Path, lines: bytes, *, when_safe: Callable[[], None] = _nothing_more, lock_wait_s: float = LOCK_WAIT_S) -> None:
    """Append whole lines: all of them, as durably as the disk can make them, or none.

    Not promised when the machine or the process is killed during the write: then some of the lines may be there, the last cut off.

    Args:
        path: The ledger; created for its owner only if it does not exist.
        lines: One or more lines, each with its newline.
        when_safe: Called when the lines are on disk. An exception until then, such as Ctrl+C, takes them back.
        lock_wait_s: How long to wait for other commands to finish.

    Raises:
        LedgerUnusable: It cannot be opened or locked, or it is a link or not a regular file.
        InvalidEntries: Its last line was cut off.
        WriteFailed: The disk is full or fails, or another command has held the lock for `lock_wait_s` seconds.
    """
    with _opened_to_append(path) as ledger, locked(ledger, path, exclusive=True, wait_s=lock_wait_s):
        if not _is_at(ledger, path):
            # An erasure put another file in its place while this command waited.
            append(path, lines, when_safe=when_safe, lock_wait_s=lock_wait_s)
            return
        try:
            size = ledger.seek(0, os.SEEK_END)
            newline_owed = _newline_owed(ledger, path)
        except OSError as error:
            raise _write_failed(path, error) from error
        try:
            _write_all(ledger, newline_owed + lines)
            os.fsync(ledger.fileno())
            if not (size or sync_folder(path.resolve().parent)):
                warn(
                    f"warning: the disk cannot make the name of {path} durable, so a power cut may lose the ledger while it is new"
                )
            when_safe()
        except BaseException as error:
            # Also on Ctrl+C: a command that fails must have changed nothing.
            _take_back(ledger, path, size)
            if isinstance(error, OSError):
                raise _write_failed(path, error) from error
            raise


def _is_at(ledger: io.FileIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(ledger.fileno()), path.stat())
    except OSError:
        return False


def _write_failed(path: Path, error: OSError) -> WriteFailed:
    return WriteFailed(f"cannot write {path}: {error.strerror}; nothing was appended, run it again")


def _take_back(ledger: io.FileIO, path: Path, size: int) -> None:
    try:
        ledger.truncate(size)
    except OSError as error:
        raise WriteFailed(
            f"cannot write {path}: {error.strerror}; some lines may have been appended after byte {size} and could not be taken back: "
            "look at them before you run it again"
        ) from error


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
        if error.errno in _FOR_A_PERSON:
            raise unreadable(path, error) from error
        raise WriteFailed(f"cannot read {path}: {error.strerror}; nothing was done, run it again") from error


def _lines_until(ledger: BinaryIO, size: int | None) -> Iterator[tuple[int, bytes]]:
    position = 0
    for number, line in enumerate(ledger, start=1):
        if size is not None and position >= size:
            return
        position += len(line)
        yield number, line


def _size_between_writes(ledger: BinaryIO, path: Path) -> int | None:
    """Return how much of the ledger to read: its size while no command writes, so that it ends with a whole line.

    Later lines are not read. None for a pipe, which has no size and no locking writers.
    """
    if not stat.S_ISREG(os.fstat(ledger.fileno()).st_mode):
        return None
    with locked(ledger, path, exclusive=False, wait_s=LOCK_WAIT_S):
        return os.fstat(ledger.fileno()).st_size


def _opened_to_append(path: Path) -> io.FileIO:
    try:
        if path.exists() and not path.is_file():
            raise LedgerUnusable(f"{path} is not a regular file; name one with --ledger")
        # Only the owner may read a new ledger: before pseudonyms it names sources. Unbuffered, so that one write is one call.
        return io.FileIO(open_or_create(path, flags=os.O_RDWR | os.O_APPEND), "a+b")
    except OSError as error:
        if error.errno in _FOR_A_PERSON:
            raise LedgerUnusable(
                f"cannot write {path}: {error.strerror}; check --ledger, its folder and the permissions"
            ) from error
        raise _write_failed(path, error) from error


def _write_all(ledger: io.FileIO, data: bytes) -> None:
    """Write in as many calls as the system needs: the lock keeps other writers out meanwhile."""
    rest = memoryview(data)
    while rest:
        rest = rest[ledger.write(rest) :]


def _newline_owed(ledger: io.FileIO, path: Path) -> bytes:
    """Return the newline that a whole last line lacks, or nothing; raise InvalidEntries if the line was cut off."""
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
    """Return the last line and its number. Reads the whole file only if the last newline is missing."""
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
def locked(ledger: BinaryIO | io.FileIO, path: Path, *, exclusive: bool, wait_s: float) -> Iterator[None]:
    """Hold the lock: exclusive for writers, shared for readers."""
    give_up_at_s = time.monotonic() + wait_s
    while not _is_locked(ledger, path, exclusive=exclusive):
        if time.monotonic() >= give_up_at_s:
            raise WriteFailed(
                f"another command has held {path} locked for {wait_s:g} s; nothing was done, see whether it is stuck"
            )
        time.sleep(LOCK_PAUSE_S)
    try:
        yield
    finally:
        unlock(ledger.fileno())


def _is_locked(ledger: BinaryIO | io.FileIO, path: Path, *, exclusive: bool) -> bool:
    try:
        return try_to_lock(ledger.fileno(), exclusive=exclusive)
    except OSError as error:
        if error.errno in NO_LOCKS:
            raise LedgerUnusable(f"cannot lock {path}: {error.strerror}; keep the ledger on a file system with locks") from error
        raise WriteFailed(f"cannot lock {path}: {error.strerror}; nothing was done, run it again") from error
