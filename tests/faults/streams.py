"""Standard streams as a process may be given them: terminals, pipes that are not read, and closed ends."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

if sys.platform != "win32":
    import fcntl
    import pty


@contextmanager
def terminal() -> Iterator[tuple[int, int]]:
    """Yield both ends of a terminal: ours, and the process's."""
    ours, its = pty.openpty()
    try:
        yield ours, its
    finally:
        os.close(ours)
        os.close(its)


@contextmanager
def unread_pipe(folder: Path) -> Iterator[int]:
    """Yield the write end of a full pipe that is not read."""
    path = folder / "pipe"
    os.mkfifo(path)
    reading = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    fcntl.fcntl(reading, fcntl.F_SETPIPE_SZ, 4096)
    filling = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
    # Of its own, for what does not block does not for all who share it.
    writing = os.open(path, os.O_WRONLY)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(filling, b"x" * 64)
    os.close(filling)
    try:
        yield writing
    finally:
        os.close(writing)
        os.close(reading)


def closed(*numbers: int) -> dict[str, Any]:
    return {"preexec_fn": lambda: list(map(os.close, numbers))}


def gone_pipe() -> int:
    reading, writing = os.pipe()
    os.close(reading)
    return writing


def gone_terminal() -> int:
    ours, its = pty.openpty()
    os.close(ours)
    return its


#: What a process may be given for its standard output and error.
USELESS: dict[str, Callable[[], dict[str, Any]]] = {
    "no output": lambda: closed(1),
    "no error": lambda: closed(2),
    "nothing at all": lambda: closed(0, 1, 2),
    "a pipe without a reader": lambda: dict.fromkeys(("stdout", "stderr"), gone_pipe()),
    "a terminal that has gone": lambda: dict.fromkeys(("stdin", "stdout", "stderr"), gone_terminal()),
    "a full disk": lambda: dict.fromkeys(("stdout", "stderr"), os.open("/dev/full", os.O_WRONLY)),
}


def close_all(streams: Mapping[str, Any]) -> None:
    """Close our ends of what a process was given."""
    for end in {one for one in streams.values() if isinstance(one, int)}:
        os.close(end)
