"""A file of which so many bytes are known to be good: what is behind them is what a crash of ours left, or somebody else's.

Nothing of somebody else's is destroyed: it stays beside the file, under a name that shows it. What a link leads to is never touched.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from disk.durable_file import create, open_ours, sync_folder


def append(path: Path, length: int, body: bytes, *, mode: int) -> int:
    """Bring `body` behind the first `length` bytes, and return the new length once all is on the disk.

    What is there already is ours if it is the beginning of `body`, which a crash broke off; or if it begins with `body`: then that is not
    written again, and what follows is for those that come next to recognise. Anything else is kept beside the file before it is cut off.

    Args:
        path: The file; made if it is not there and nothing is known of it.
        length: How many bytes of it are known to be good.
        body: What comes behind them.
        mode: Permissions of files that are made.

    Raises:
        OSError: It could not be written; the file is as long as it was known to be.
    """
    with _opened(path, length, mode) as file:
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
    return length + len(body)


def move_aside(path: Path) -> None:
    """Rename a file that is not ours, `x.csv`, to `x.csv.previous-1`, or the next number that is free."""
    path.rename(_free_name(path, "previous"))


@contextmanager
def _opened(path: Path, length: int, mode: int) -> Iterator[BinaryIO]:
    """Open a file of which `length` bytes are known, and see that it is as long."""
    try:
        descriptor = open_ours(path)
    except FileNotFoundError:
        if length:
            raise _is_shorter(path) from None
        descriptor = create(path, mode)
    # Unbuffered: what a full disk did not take must not be tried again when the file is closed.
    with os.fdopen(descriptor, "r+b", buffering=0) as file:
        if os.fstat(descriptor).st_size < length:
            raise _is_shorter(path)
        yield file


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
