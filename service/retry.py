"""Asking again: how long to wait, how often, and when to give up."""

from __future__ import annotations

import logging
import math
import random
from collections.abc import Callable
from typing import TypeVar

from anonymizer.errors import OutputDenied, OutputUnavailable, SourceDenied, SourceUnavailable, StateUnavailable
from service.clock import Clock, Stopped
from service.telemetry.events import SOURCE, STATE, Events

_T = TypeVar("_T")

_LOG = logging.getLogger(__name__)

#: The first pause; each further one is twice as long, up to the last. Who is on call sees data flow within 10 s of a server's return
#: (documentation/decisions/013-eight-seconds-at-most.md).
FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 8.0

#: A pause is drawn between this share of its length and all of it, so that many clients do not come back at once.
_LEAST_SHARE = 0.5


class OutOfPatience(Exception):
    """The budget is used up; carries the last error."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


class Patience:
    """Repeats what cannot be done now. Whoever shares one, in several threads, waits as long as the one who was told to.

    Args:
        clock: To wait on.
        budget_s: How long to go on without success before giving up; None: for ever.
        draw: Returns a number from 0 to 1; for jitter.
        telemetry: Told who is waited for.
        whose: The name of the output that is waited for; None for the loop, which waits for the source.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        budget_s: float | None,
        draw: Callable[[], float] = random.random,
        telemetry: Events | None = None,
        whose: str | None = None,
    ) -> None:
        self._clock = clock
        self._budget_s = budget_s
        self._draw = draw
        self._telemetry = telemetry or Events()
        self._whose = whose
        self._due_s = -math.inf

    def for_output(self, name: str) -> Patience:
        """Return the same patience with an output, which shares no pause with others."""
        return Patience(self._clock, budget_s=self._budget_s, draw=self._draw, telemetry=self._telemetry, whose=name)

    @property
    def is_endless(self) -> bool:
        """Whether we wait for ever, which makes even a refusal something that may pass."""
        return self._budget_s is None

    def until_done(self, action: Callable[[], _T]) -> _T:
        """Return what `action` returns, asking again for as long as source, output or our own disk is unavailable.

        Raises:
            OutOfPatience: The budget is used up.
            SourceDenied: At once, when patience has an end: waiting does not mend a wrong token.
            OutputDenied: Likewise.
            Stopped: We were asked to stop meanwhile.
        """
        started_s = self._clock.monotonic_s()
        pause_s = FIRST_PAUSE_S
        waited_for: set[str] = set()
        while True:
            self._wait_until_due()
            try:
                result = action()
            except (SourceUnavailable, OutputUnavailable, StateUnavailable) as error:
                if isinstance(error, SourceDenied | OutputDenied) and not self.is_endless:
                    raise
                waited_s = self._clock.monotonic_s() - started_s
                wait_s = self._pause_s(pause_s, error)
                if self._budget_s is not None and waited_s + wait_s > self._budget_s:
                    raise OutOfPatience(error) from None
                _LOG.warning("⏳ %s; trying again in %.1f s", error, wait_s)
                who = STATE if isinstance(error, StateUnavailable) else self._whose or SOURCE
                waited_for.add(who)
                self._telemetry.waits(who, error, wait_s)
            else:
                for who in waited_for:
                    self._telemetry.goes_on(who)
                return result
            self._due_s = max(self._due_s, self._clock.monotonic_s() + wait_s)
            pause_s = min(pause_s * 2, LONGEST_PAUSE_S)

    def _wait_until_due(self) -> None:
        while (left_s := self._due_s - self._clock.monotonic_s()) > 0:
            self._clock.wait(left_s)
            if self._clock.is_stopping():
                raise Stopped

    def _pause_s(self, pause_s: float, error: Exception) -> float:
        asked_s = getattr(error, "retry_after_s", None)
        drawn_s = pause_s * (_LEAST_SHARE + (1 - _LEAST_SHARE) * self._draw())
        return drawn_s if asked_s is None else max(asked_s, drawn_s)
