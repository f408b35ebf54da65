"""The clock and the stop request. Passed to all code that needs them, so that tests can supply their own."""

from __future__ import annotations

import threading
import time
from typing import Protocol


class Stopped(Exception):
    """The service was asked to stop while waiting. The release loop catches it."""


class Clock(Protocol):
    """Tells the time and waits."""

    def now_ns(self) -> int:
        """Return nanoseconds since the epoch, UTC."""

    def monotonic_s(self) -> float:
        """Return seconds on a monotonic clock."""

    def wait(self, seconds: float) -> None:
        """Wait; return early on a stop request."""

    def is_stopping(self) -> bool:
        """Return whether a stop was requested."""


class SystemClock:
    """The machine's clock. `stop` takes a lock, so no signal handler may call it: it could interrupt `wait`, which holds the lock.

    `code_when_stuck` is the exit code of a process that cannot stop when asked, such as while it waits for a server; None: 128 plus the
    signal's number.
    """

    def __init__(self) -> None:
        self._stop = threading.Event()
        self.stopped_by: int | None = None
        self.code_when_stuck: int | None = None

    def now_ns(self) -> int:
        """Return nanoseconds since the epoch, UTC."""
        return time.time_ns()

    def monotonic_s(self) -> float:
        """Return seconds on a monotonic clock."""
        return time.monotonic()

    def wait(self, seconds: float) -> None:
        """Wait; return early on a stop request."""
        self._stop.wait(max(seconds, 0.0))

    def is_stopping(self) -> bool:
        """Return whether a stop was requested."""
        return self._stop.is_set()

    def stop(self, signal_number: int) -> None:
        """Request a stop; wake every thread that waits on this clock."""
        self.stopped_by = signal_number
        self._stop.set()
