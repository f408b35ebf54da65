"""Appends to a file whose first bytes are committed. What follows them was left by a crash of the service, or is foreign.

Foreign data is never destroyed: it is kept beside the file, under a name that shows it. Links are never followed.
"""

from __future__ import annotations

import hashlib
import logging
import mmap
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from disk.durable_file import create, open_ours, sync_folder

#: With `extra={"event": (name, fields)}`, as in `service/log_event.py`, which outputs may not import.
_LOG = logging.getLogger("ecg_anonymizer")

#: Bytes before the committed length by which the file is recognised, or fewer if the last write was shorter.
_MOST_END_BYTES = 256


@dataclass(frozen=True, slots=True)
class Committed:
    """The committed part of a file.

    Args:
        length: Its length in bytes, from the start of the file.
        end: Number of bytes at its end that are hashed, and their digest; None if an earlier version wrote the file.
    """

    length: int = 0
    end: tuple[int, str] | None = None

    def followed_by(self, body: bytes | memoryview) -> Committed:
        """Return the committed part after `body` was appended."""
        return Committed(self.length + len(body), _end_of(body))


def _end_of(content: bytes | memoryview) -> tuple[int, str]:
    looked_at = content[-_MOST_END_BYTES:]
    return len(looked_at), hashlib.sha256(looked_at).hexdigest()[:16]


def append(path: Path, committed: Committed, body: bytes | memoryview, *, mode: int) -> Committed:
    """Append `body` after the committed part of a file, and return the new committed part once all of it is on the disk.

    Existing bytes after the committed part belong to the service if they are a prefix of `body` (a crash interrupted the write) or begin
    with `body` (it is not written again; the next appends recognise the rest). Anything else is kept beside the file and then cut off.

    Args:
        path: The file; created if it is missing and nothing of it is committed.
        committed: Its committed part.
        body: The bytes to append.
        mode: Permissions of created files.

    Raises:
        OSError: It could not be written, or it is not the file it was. The committed part has not changed.
    """
    length = committed.length
    with _opened(path, committed, mode) as file:
        there = _read(file, length, len(body))
        if there != body[: len(there)]:
            _keep_tail(file, path, length, mode)
        try:
            _write_and_sync(file, length, b"" if there == body else body)
            if not length:
                sync_folder(path.parent)
            _drop_from_cache(file, length, length + len(body))
        except OSError:
            # Otherwise readers would see half a line until the disk has room again.
            with suppress(OSError):
                _cut_back(file, path, length)
            raise
    return committed.followed_by(body)


def grown(path: Path, committed: Committed) -> Committed:
    """Return the committed part of a file, extended to all its whole lines: the journal forgot what the service appended.

    Raises:
        OSError: It cannot be read, or it is not the file it was.
    """
    with _opened(path, committed, mode=0) as file:
        content = _read(file, committed.length, os.fstat(file.fileno()).st_size - committed.length)
    lines = content[: content.rfind(b"\n") + 1]
    return committed.followed_by(lines) if lines else committed


def move_aside(path: Path) -> None:
    """Rename a foreign file, `x.csv`, to `x.csv.previous-1`, or the next free number."""
    kept = path.rename(_free_name(path, "previous"))
    _warn_of_kept_rows(path, kept)


def _warn_of_kept_rows(path: Path, kept: Path) -> None:
    _LOG.warning(
        "⚠️ %s held rows that STATE_DIR does not know of; they were moved to %s. If the service wrote them, STATE_DIR is new or an old "
        "copy, and windows may be released again: stop it and put the right STATE_DIR back",
        path.name,
        kept.name,
        extra={"event": ("csv_rows_moved_aside", "file kept_as")},
    )


@contextmanager
def _opened(path: Path, committed: Committed, mode: int) -> Iterator[BinaryIO]:
    """Open a file, and check that its committed part still ends as it did."""
    try:
        descriptor = open_ours(path)
    except FileNotFoundError:
        if committed.length:
            raise _is_shorter(path) from None
        descriptor = create(path, mode)
    # Unbuffered: closing the file must not retry what a full disk refused.
    with os.fdopen(descriptor, "r+b", buffering=0) as file:
        if os.fstat(descriptor).st_size < committed.length:
            raise _is_shorter(path)
        if not _is_the_same(file, committed):
            raise OSError(
                f"{path.name} holds something else where our last rows were: it was changed, or is another file of that name"
            )
        yield file


def _is_the_same(file: BinaryIO, committed: Committed) -> bool:
    """Return whether the committed part ends as it did; for a file of an earlier version, whether it ends with a line end."""
    if not committed.length:
        return True
    looked_at, digest = committed.end or (1, _end_of(b"\n")[1])
    return _end_of(_read(file, committed.length - looked_at, looked_at)) == (looked_at, digest)


def _is_shorter(path: Path) -> OSError:
    return OSError(f"{path.name} is shorter than what was written to it; another program changed it")


def _read(file: BinaryIO, start: int, most: int) -> bytes:
    file.seek(start)
    parts = []
    # An unbuffered read may return less than requested.
    while most and (part := file.read(most)):
        parts.append(part)
        most -= len(part)
    return b"".join(parts)


def _write_and_sync(file: BinaryIO, length: int, missing: bytes | memoryview) -> None:
    if missing:
        file.truncate(length)
        file.seek(length)
        rest = memoryview(missing)
        while rest:
            rest = rest[file.write(rest) :]
    # Also if nothing was written: a crash may have come before the sync.
    os.fsync(file.fileno())


def _drop_from_cache(file: BinaryIO, start: int, end: int) -> None:
    """Let the system use the memory that holds these synced bytes for the next file, instead of what belongs to a database beside us.

    The last page stays: the next write continues it.
    """
    end -= end % mmap.PAGESIZE
    if end > start and hasattr(os, "posix_fadvise"):
        with suppress(OSError):
            os.posix_fadvise(file.fileno(), start, end - start, os.POSIX_FADV_DONTNEED)


def _keep_tail(file: BinaryIO, path: Path, length: int, mode: int) -> None:
    """Copy what follows the first `length` bytes of `x.csv` to `x.csv.tail-1`, or the next free number."""
    kept = _free_name(path, "tail")
    descriptor = create(kept, mode)
    try:
        with os.fdopen(descriptor, "wb") as tail:
            file.seek(length)
            shutil.copyfileobj(file, tail)
            tail.flush()
            os.fsync(descriptor)
        sync_folder(path.parent)
    except OSError:
        with suppress(OSError):
            kept.unlink()
        raise
    _warn_of_kept_rows(path, kept)


def _cut_back(file: BinaryIO, path: Path, length: int) -> None:
    if length:
        file.truncate(length)
    else:
        path.unlink()


def _free_name(path: Path, what: str) -> Path:
    number = 1
    while os.path.lexists(free := path.with_name(f"{path.name}.{what}-{number}")):
        number += 1
    return free
