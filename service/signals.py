"""Ctrl+C, SIGTERM and SIGHUP: how they stop the clock, and how a process that is stuck ends all the same."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import NoReturn

from service.clock import SystemClock
from service.log_event import LogEvent
from service.telemetry.log_writer import finish_log, hurry_log

_STOP_OVERDUE = LogEvent(
    "stop_overdue",
    "Asked to stop %.0f s ago, and still waiting for an answer: it is asked for again at the next start",
    "seconds",
    logging.WARNING,
)
_HANG_UP_IGNORED = LogEvent("hang_up_ignored", "SIGHUP does not stop this process; SIGTERM does")

#: Outputs get five seconds to finish what is in hand (`service/session.py`); whatever else takes longer is left behind.
LONGEST_STOP_S = 7.0

#: How long the last message may take before the process is ended.
_LAST_MESSAGE_S = 0.5

#: The shortest time-out of the socket; zero would make it non-blocking.
_SHORTEST_S = 0.001

#: Windows has no SIGHUP.
_SIGHUP: int | None = getattr(signal, "SIGHUP", None)


def clock_stopped_by_signals() -> SystemClock:
    """Return a clock that Ctrl+C and SIGTERM stop. Asked a second time, or stuck for too long, the process ends at once.

    Nothing is lost by that: what is on its way is done again at the next start, as after a crash. SIGHUP stops the clock only if the
    process was started at a terminal, which has gone then; else it is logged and ignored.
    """
    clock = SystemClock()
    hearing, telling = socket.socketpair()
    telling.setblocking(False)
    # Python's own handler, in C, writes the signal's number here. That takes no lock, and works while the main thread is stuck in a write.
    signal.set_wakeup_fd(telling.fileno(), warn_on_full_buffer=False)
    stopping = {signal.SIGINT, signal.SIGTERM} | ({_SIGHUP} if _SIGHUP and _hang_up_means_the_end(_SIGHUP) else set())
    listener = _SignalListener(clock, hearing, telling, frozenset(stopping))
    threading.Thread(target=listener.listen, name="signals", daemon=True).start()
    for number in stopping | ({_SIGHUP} if _SIGHUP else set()):
        signal.signal(number, _leave_it_to_the_thread)
    return clock


def _leave_it_to_the_thread(_number: int, _frame: FrameType | None) -> None:
    """Do nothing: a handler runs between any two steps of the main thread, which may hold any lock that the handler would take."""


def _hang_up_means_the_end(sighup: int) -> bool:
    """Return whether SIGHUP tells that our terminal has gone. Programs that rotate logs send it too, and nohup has it ignored."""
    is_ignored = signal.getsignal(sighup) == signal.SIG_IGN
    return not is_ignored and sys.stdin is not None and sys.stdin.isatty()


class _SignalListener:
    """Receives signals in a thread of its own, and ends the process if it does not end by itself in time.

    Nothing here blocks: messages are logged by a further thread.

    Args:
        clock: Stopped by the first signal.
        hearing: Where numbers of signals arrive.
        telling: The other end, which must stay open.
        stopping: Which of them stop the clock.
    """

    def __init__(
        self,
        clock: SystemClock,
        hearing: socket.socket,
        telling: socket.socket,
        stopping: frozenset[int],
    ) -> None:
        self._clock = clock
        self._hearing, self._telling = hearing, telling
        self._stopping = stopping
        self._deadline_s: float | None = None
        self._speaker: threading.Thread | None = None

    def listen(self) -> None:
        """Never return."""
        while True:
            for number in self._next():
                if number in self._stopping:
                    self._asked_to_stop(number)
                elif number == _SIGHUP:
                    self._say(_HANG_UP_IGNORED.log)

    def _next(self) -> bytes:
        """Return the numbers of the next signals; end the process if none comes in time."""
        if self._deadline_s is not None:
            self._hearing.settimeout(max(self._deadline_s - time.monotonic(), _SHORTEST_S))
        try:
            return self._hearing.recv(64)
        except TimeoutError:
            self._end()

    def _asked_to_stop(self, number: int) -> None:
        if self._clock.is_stopping():
            # A second signal means: do not wait any longer.
            os._exit(128 + number)
        self._deadline_s = time.monotonic() + LONGEST_STOP_S
        self._clock.stop(number)
        hurry_log()

    def _end(self) -> NoReturn:
        """End the process; say why if that can be said."""
        self._say(_say_that_it_takes_too_long)
        if self._speaker is not None:
            self._speaker.join(_LAST_MESSAGE_S)
        code = self._clock.code_when_stuck
        os._exit(128 + (self._clock.stopped_by or 0) if code is None else code)

    def _say(self, words: Callable[[], None]) -> None:
        """Log something from another thread, unless the previous message is still stuck."""
        if self._speaker is not None and self._speaker.is_alive():
            return
        speaker = threading.Thread(target=words, daemon=True)
        with suppress(RuntimeError):  # no thread can be started: then nothing is logged
            speaker.start()
            self._speaker = speaker


def _say_that_it_takes_too_long() -> None:
    _STOP_OVERDUE.log(LONGEST_STOP_S)
    finish_log()
