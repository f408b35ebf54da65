"""Time, and being asked to stop: passed in everywhere, so that tests can have their own."""

from __future__ import annotations

import threading
import time
from typing import Protocol


class Stopped(Exception):
    """We were asked to stop while waiting. Caught by the loop; never seen by anybody else."""


class Clock(Protocol):
    """Tells the time and waits."""

    def now_ns(self) -> int:
        """Return nanoseconds since the epoch, UTC."""

    def monotonic_s(self) -> float:
        """Return seconds on a clock that nobody sets."""

    def wait(self, seconds: float) -> None:
        """Let time pass; return early when asked to stop."""

    def is_stopping(self) -> bool:
        """Return whether we were asked to stop."""


class SystemClock:
    """The machine's clock. `stop` takes a lock, so no signal handler may call it: one could interrupt `wait` while that holds it.

    `code_when_stuck` is what the process ends with when it was asked to stop and cannot, such as while a server owes us an answer; None:
    128 and the signal's number.
    """

    def __init__(self) -> None:
        self._stop = threading.Event()
        self.stopped_by: int | None = None
        self.code_when_stuck: int | None = None

    def now_ns(self) -> int:
        """Return nanoseconds since the epoch, UTC."""
        return time.time_ns()

    def monotonic_s(self) -> float:
        """Return seconds on a clock that nobody sets."""
        return time.monotonic()

    def wait(self, seconds: float) -> None:
        """Let time pass; return early when asked to stop."""
        self._stop.wait(max(seconds, 0.0))

    def is_stopping(self) -> bool:
        """Return whether we were asked to stop."""
        return self._stop.is_set()

    def stop(self, signal_number: int) -> None:
        """Ask everybody who waits on this clock to stop."""
        self.stopped_by = signal_number
        self._stop.set()
