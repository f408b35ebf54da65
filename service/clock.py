"""Time, and being asked to stop: passed in everywhere, so that tests can have their own."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from types import FrameType
from typing import Protocol

_LOG = logging.getLogger("ecg_anonymizer")

#: Outputs get five seconds to finish what is in hand (`service/session.py`); whatever else takes longer is left behind.
LONGEST_STOP_S = 7.0


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
    """The machine's clock. `stop` may be called from a signal handler.

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


def clock_stopped_by_signals() -> SystemClock:
    """Return a clock that Ctrl+C and SIGTERM stop. Asked a second time, or stuck for too long, the process ends at once.

    Nothing is lost by that: what is on its way is done again at the next start, as after a crash.
    """
    clock = SystemClock()

    def stop(number: int, _frame: FrameType | None) -> None:
        if clock.is_stopping():
            # Whoever asks twice does not want to wait.
            os._exit(128 + number)
        clock.stop(number)
        timer = threading.Timer(LONGEST_STOP_S, _end, (clock, number))
        timer.daemon = True
        timer.start()

    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)
    return clock


def _end(clock: SystemClock, number: int) -> None:
    _LOG.warning(
        "Asked to stop %.0f s ago, and still waiting for an answer: it is asked for again at the next start", LONGEST_STOP_S
    )
    logging.shutdown()
    os._exit(128 + number if clock.code_when_stuck is None else clock.code_when_stuck)
