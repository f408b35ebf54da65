"""Ctrl+C, SIGTERM and SIGHUP: they stop the clock; a process that then hangs is ended."""

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
    "Shutdown timed out after %.0f s waiting for a server or disk; the request is retried at the next start",
    "seconds",
    logging.WARNING,
)
_HANG_UP_IGNORED = LogEvent("hang_up_ignored", "SIGHUP does not stop this process; SIGTERM does")

#: Outputs get five seconds to finish their current write (`service/session.py`); anything that takes longer is abandoned.
LONGEST_STOP_S = 7.0

#: How long the last message may take before the process is ended.
_LAST_MESSAGE_S = 0.5

#: The shortest socket timeout; zero would make the socket non-blocking.
_SHORTEST_S = 0.001

#: Windows has no SIGHUP.
_SIGHUP: int | None = getattr(signal, "SIGHUP", None)


def clock_stopped_by_signals() -> SystemClock:
    """Return a clock that Ctrl+C and SIGTERM stop. A second signal, or a shutdown that takes too long, ends the process immediately.

    Nothing is lost: unfinished work is repeated at the next start, as after a crash. SIGHUP stops the clock only if the process was
    started at a terminal, which is then gone; otherwise it is logged and ignored.
    """
    clock = SystemClock()
    receiver, sender = socket.socketpair()
    sender.setblocking(False)
    # Python's C-level handler writes the signal's number here. It takes no lock, and works while the main thread hangs in a write.
    signal.set_wakeup_fd(sender.fileno(), warn_on_full_buffer=False)
    stopping = {signal.SIGINT, signal.SIGTERM} | ({_SIGHUP} if _SIGHUP and _terminal_is_lost_on(_SIGHUP) else set())
    listener = _SignalListener(clock, receiver, sender, frozenset(stopping))
    threading.Thread(target=listener.listen, name="signals", daemon=True).start()
    for number in stopping | ({_SIGHUP} if _SIGHUP else set()):
        signal.signal(number, _do_nothing)
    return clock


def _do_nothing(_number: int, _frame: FrameType | None) -> None:
    """Leave the signal to the listener: a handler could interrupt the main thread while that holds a lock the handler needs."""


def _terminal_is_lost_on(sighup: int) -> bool:
    """Return whether SIGHUP means that the terminal is gone. Log rotation sends it too, and nohup ignores it."""
    is_ignored = signal.getsignal(sighup) == signal.SIG_IGN
    return not is_ignored and sys.stdin is not None and sys.stdin.isatty()


class _SignalListener:
    """Receives signals in its own thread, and ends the process if it does not exit in time.

    This thread never blocks: another one logs messages.

    Args:
        clock: Stopped by the first signal.
        receiver: The socket on which signal numbers arrive.
        sender: Its other end, which must stay open.
        stopping: The signals that stop the clock.
    """

    def __init__(self, clock: SystemClock, receiver: socket.socket, sender: socket.socket, stopping: frozenset[int]) -> None:
        self._clock = clock
        self._receiver, self._sender = receiver, sender
        self._stopping = stopping
        self._deadline_s: float | None = None
        self._logging_thread: threading.Thread | None = None

    def listen(self) -> None:
        """Never return."""
        while True:
            for number in self._next():
                if number in self._stopping:
                    self._request_stop(number)
                elif number == _SIGHUP:
                    self._log_in_thread(_HANG_UP_IGNORED.log)

    def _next(self) -> bytes:
        """Return the numbers of the next signals; end the process if none comes in time."""
        if self._deadline_s is not None:
            self._receiver.settimeout(max(self._deadline_s - time.monotonic(), _SHORTEST_S))
        try:
            return self._receiver.recv(64)
        except TimeoutError:
            self._end_process()

    def _request_stop(self, number: int) -> None:
        if self._clock.is_stopping():
            # A second signal ends the process immediately.
            os._exit(128 + number)
        self._deadline_s = time.monotonic() + LONGEST_STOP_S
        self._clock.stop(number)
        hurry_log()

    def _end_process(self) -> NoReturn:
        """End the process; log why, if possible."""
        self._log_in_thread(_log_timeout)
        if self._logging_thread is not None:
            self._logging_thread.join(_LAST_MESSAGE_S)
        code = self._clock.code_when_stuck
        os._exit(128 + (self._clock.stopped_by or 0) if code is None else code)

    def _log_in_thread(self, log: Callable[[], None]) -> None:
        """Log from another thread, unless the previous message still hangs."""
        if self._logging_thread is not None and self._logging_thread.is_alive():
            return
        thread = threading.Thread(target=log, daemon=True)
        with suppress(RuntimeError):  # no thread can be started, so nothing is logged
            thread.start()
            self._logging_thread = thread


def _log_timeout() -> None:
    _STOP_OVERDUE.log(LONGEST_STOP_S)
    finish_log()
