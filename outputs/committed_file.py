"""A file of which so many bytes are known to be good: what is behind them is what a crash of ours left, or somebody else's.

Nothing of somebody else's is destroyed: it stays beside the file, under a name that shows it.
"""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path


def append(path: Path, length: int, body: bytes) -> int:
    """Bring `body` behind the first `length` bytes, and return the new length once all is on the disk.

    What is there already is ours if it is the beginning of `body`, which a crash broke off; or if it begins with `body`: then that is not
    written again, and what follows is for those that come next to recognise. Anything else is kept beside the file before it is cut off.

    Raises:
        OSError: It could not be written; the file is as long as it was known to be.
    """
    size = path.stat().st_size if path.exists() else 0
    if size < length:
        raise OSError(f"{path.name} is shorter than what was written to it; it was changed by somebody else")
    there = _read(path, length, len(body)) if size > length else b""
    if there != body and not body.startswith(there):
        _keep_tail(path, length)
    try:
        _bring(path, length, b"" if there == body else body)
        if not length:
            sync_folder(path.parent)
    except OSError:
        # Half a line would be there for all to read until the disk has room again.
        with suppress(OSError):
            _cut_back(path, length)
        raise
    return length + len(body)


def move_aside(path: Path) -> None:
    """Rename a file that is not ours, `x.csv`, to `x.csv.previous-1`, or the next number that is free."""
    path.rename(_free_name(path, "previous"))


def sync_folder(folder: Path) -> None:
    """Put new names in a folder on the disk. Until then, the power may still take them."""
    # Windows has no such call and needs none.
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _read(path: Path, start: int, most: int) -> bytes:
    with path.open("rb") as file:
        file.seek(start)
        return file.read(most)


def _bring(path: Path, length: int, missing: bytes) -> None:
    path.touch()
    with path.open("r+b") as file:
        if missing:
            file.truncate(length)
            file.seek(length)
            file.write(missing)
            file.flush()
        # Also what was there: nobody lived to say that it was on the disk.
        os.fsync(file.fileno())


def _keep_tail(path: Path, length: int) -> None:
    """Copy what is behind the first `length` bytes of `x.csv` to `x.csv.tail-1`, or the next number that is free."""
    kept = _free_name(path, "tail")
    try:
        with path.open("rb") as file, kept.open("xb") as tail:
            file.seek(length)
            shutil.copyfileobj(file, tail)
            tail.flush()
            os.fsync(tail.fileno())
        sync_folder(path.parent)
    except OSError:
        with suppress(OSError):
            kept.unlink()
        raise


def _cut_back(path: Path, length: int) -> None:
    if length:
        os.truncate(path, length)
    else:
        path.unlink()


def _free_name(path: Path, what: str) -> Path:
    number = 1
    while (free := path.with_name(f"{path.name}.{what}-{number}")).exists():
        number += 1
    return free
