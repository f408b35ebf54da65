"""A file of which so many bytes are known to be good: what is behind them is what a crash of ours left, or somebody else's.

Nothing of somebody else's is destroyed: it stays beside the file, under a name that shows it. What a link leads to is never touched.
"""

from __future__ import annotations

import hashlib
import logging
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

#: So many bytes before the committed length are known again, or all that were written last if that is less.
_MOST_OF_THE_END = 256


@dataclass(frozen=True, slots=True)
class Committed:
    """What is known to be good of a file.

    Args:
        length: How many bytes, from its beginning.
        end: How many bytes before that were looked at, and their digest; None if an earlier version wrote the file.
    """

    length: int = 0
    end: tuple[int, str] | None = None

    def followed_by(self, body: bytes) -> Committed:
        """Return what is known once `body` stands behind it."""
        return Committed(self.length + len(body), _end_of(body))


def _end_of(content: bytes) -> tuple[int, str]:
    looked_at = content[-_MOST_OF_THE_END:]
    return len(looked_at), hashlib.sha256(looked_at).hexdigest()[:16]


def append(path: Path, committed: Committed, body: bytes, *, mode: int) -> Committed:
    """Bring `body` behind what is committed of a file, and return what is committed then, once all is on the disk.

    What is there already is ours if it is the beginning of `body`, which a crash broke off; or if it begins with `body`: then that is not
    written again, and what follows is for those that come next to recognise. Anything else is kept beside the file before it is cut off.

    Args:
        path: The file; made if it is not there and nothing is known of it.
        committed: What of it is known to be good.
        body: What comes behind that.
        mode: Permissions of files that are made.

    Raises:
        OSError: It could not be written, or is not the file it was; what is committed of it has not changed.
    """
    length = committed.length
    with _opened(path, committed, mode) as file:
        there = _read(file, length, len(body))
        if there != body and not body.startswith(there):
            _keep_tail(file, path, length, mode)
        try:
            _bring(file, length, b"" if there == body else body)
            if not length:
                sync_folder(path.parent)
        except OSError:
            # Half a line would be there for all to read until the disk has room again.
            with suppress(OSError):
                _cut_back(file, path, length)
            raise
    return committed.followed_by(body)


def grown(path: Path, committed: Committed) -> Committed:
    """Return what is committed of a file if all whole lines in it are ours, also those that we do not remember.

    Raises:
        OSError: It cannot be read, or is not the file it was.
    """
    with _opened(path, committed, mode=0) as file:
        content = _read(file, committed.length, os.fstat(file.fileno()).st_size - committed.length)
    lines = content[: content.rfind(b"\n") + 1]
    return committed.followed_by(lines) if lines else committed


def move_aside(path: Path) -> None:
    """Rename a file that is not ours, `x.csv`, to `x.csv.previous-1`, or the next number that is free."""
    kept = path.rename(_free_name(path, "previous"))
    _say_what_was_kept(path, kept)


def _say_what_was_kept(path: Path, kept: Path) -> None:
    _LOG.warning(
        "⚠️ %s held rows that STATE_DIR does not know of; they were moved to %s. If the service wrote them, STATE_DIR is new or an old "
        "copy, and windows may be released again: stop it and put the right STATE_DIR back",
        path.name,
        kept.name,
        extra={"event": ("csv_rows_moved_aside", "file kept_as")},
    )


@contextmanager
def _opened(path: Path, committed: Committed, mode: int) -> Iterator[BinaryIO]:
    """Open a file, and see that it still holds what is committed of it."""
    try:
        descriptor = open_ours(path)
    except FileNotFoundError:
        if committed.length:
            raise _is_shorter(path) from None
        descriptor = create(path, mode)
    # Unbuffered: what a full disk did not take must not be tried again when the file is closed.
    with os.fdopen(descriptor, "r+b", buffering=0) as file:
        if os.fstat(descriptor).st_size < committed.length:
            raise _is_shorter(path)
        if not _is_the_same(file, committed):
            raise OSError(
                f"{path.name} holds something else where our last rows were: it was changed, or is another file of that name"
            )
        yield file


def _is_the_same(file: BinaryIO, committed: Committed) -> bool:
    """Return whether the committed bytes end as they did; of an earlier version's file, whether they end with a line."""
    if not committed.length:
        return True
    looked_at, digest = committed.end or (1, _end_of(b"\n")[1])
    return _end_of(_read(file, committed.length - looked_at, looked_at)) == (looked_at, digest)


def _is_shorter(path: Path) -> OSError:
    return OSError(f"{path.name} is shorter than what was written to it; it was changed by somebody else")


def _read(file: BinaryIO, start: int, most: int) -> bytes:
    file.seek(start)
    parts = []
    # Unbuffered, a read may bring less than was asked for.
    while most and (part := file.read(most)):
        parts.append(part)
        most -= len(part)
    return b"".join(parts)


def _bring(file: BinaryIO, length: int, missing: bytes) -> None:
    if missing:
        file.truncate(length)
        file.seek(length)
        rest = memoryview(missing)
        while rest:
            rest = rest[file.write(rest) :]
    # Also what was there: nobody lived to say that it was on the disk.
    os.fsync(file.fileno())


def _keep_tail(file: BinaryIO, path: Path, length: int, mode: int) -> None:
    """Copy what is behind the first `length` bytes of `x.csv` to `x.csv.tail-1`, or the next number that is free."""
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
    _say_what_was_kept(path, kept)


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
