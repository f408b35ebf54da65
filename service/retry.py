"""Retries: how long to wait between attempts, and when to give up."""

from __future__ import annotations

import logging
import math
import random
from collections.abc import Callable
from typing import TypeVar

from anonymizer.errors import (
    OutputDenied,
    OutputUnavailable,
    SourceDenied,
    SourceUnavailable,
    StateUnavailable,
    WorkersUnavailable,
)
from service.clock import Clock, Stopped
from service.log_event import LogEvent
from service.telemetry.events import SOURCE, STATE, WORKERS, Events

_T = TypeVar("_T")

_WAITING = LogEvent("waiting", "⏳ %s; trying again in %.1f s", "reason retry_in_seconds", logging.WARNING)

#: The back-off doubles from the first pause to the longest, so that data flows again within 10 s of a server's return
#: (documentation/decisions/013-eight-seconds-at-most.md).
FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 8.0

#: Jitter: a pause is at least this share of its full length, drawn at random, so that many clients do not return at once.
_LEAST_SHARE = 0.5


class RetriesExhausted(Exception):
    """The time limit for retries has passed; carries the last error."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


class Retry:
    """Retries an action while the source, an output or the disk is unavailable. Threads that share a `Retry` wait together.

    Args:
        clock: The clock to wait on.
        budget_s: How long to retry before giving up; None: forever.
        draw: Returns a random number from 0 to 1, for jitter.
        telemetry: Receives the begin and end of waits.
        output: The name of the output; None for the release loop, which waits for the source.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        budget_s: float | None,
        draw: Callable[[], float] = random.random,
        telemetry: Events | None = None,
        output: str | None = None,
    ) -> None:
        self._clock = clock
        self._budget_s = budget_s
        self._draw = draw
        self._telemetry = telemetry or Events()
        self._output = output
        self._due_s = -math.inf

    def for_output(self, name: str) -> Retry:
        """Return the same policy for one output, with a back-off of its own."""
        return Retry(self._clock, budget_s=self._budget_s, draw=self._draw, telemetry=self._telemetry, output=name)

    @property
    def is_endless(self) -> bool:
        """Whether retries never end. Then even denials are retried."""
        return self._budget_s is None

    def until_done(self, action: Callable[[], _T]) -> _T:
        """Return what `action` returns; retry while the source, an output or the service's own disk is unavailable.

        Raises:
            RetriesExhausted: The time limit has passed.
            SourceDenied: Immediately, if retries have a time limit: waiting does not fix a wrong token.
            OutputDenied: Likewise.
            Stopped: The service was asked to stop.
        """
        started_s = self._clock.monotonic_s()
        pause_s = FIRST_PAUSE_S
        waited_for: set[str] = set()
        while True:
            self._wait_until_due()
            try:
                result = action()
            except (SourceUnavailable, OutputUnavailable, StateUnavailable, WorkersUnavailable) as error:
                wait_s = self._pause_s(pause_s, error)
                self._give_up_if_due(error, started_s, wait_s)
                waited_for.add(self._report_wait(error, wait_s))
            else:
                for name in waited_for:
                    self._telemetry.recovered(name)
                return result
            self._due_s = max(self._due_s, self._clock.monotonic_s() + wait_s)
            pause_s = min(pause_s * 2, LONGEST_PAUSE_S)

    def _give_up_if_due(self, error: Exception, started_s: float, wait_s: float) -> None:
        if self._budget_s is None:
            return
        if isinstance(error, SourceDenied | OutputDenied):
            raise error
        if self._clock.monotonic_s() - started_s + wait_s > self._budget_s:
            raise RetriesExhausted(error) from None

    def _report_wait(self, error: Exception, wait_s: float) -> str:
        """Report a wait; return the name of what is unavailable."""
        _WAITING.log(error, wait_s)
        waited_for = self._output or SOURCE
        if isinstance(error, StateUnavailable | WorkersUnavailable):
            waited_for = STATE if isinstance(error, StateUnavailable) else WORKERS
        self._telemetry.waits(waited_for, error, wait_s)
        return waited_for

    def _wait_until_due(self) -> None:
        while (left_s := self._due_s - self._clock.monotonic_s()) > 0:
            self._clock.wait(left_s)
            if self._clock.is_stopping():
                raise Stopped

    def _pause_s(self, pause_s: float, error: Exception) -> float:
        requested_s = getattr(error, "retry_after_s", None)
        drawn_s = pause_s * (_LEAST_SHARE + (1 - _LEAST_SHARE) * self._draw())
        return drawn_s if requested_s is None else max(requested_s, drawn_s)
