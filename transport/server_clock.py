"""The time on a server that reports it only in whole seconds.

Every HTTP answer has a `Date` header: the server's clock, cut to the second. One answer therefore tells the server's time to within a
second and the round trip; several, at different moments, narrow it down. Windows must not be taken for complete early, so what is
returned is never ahead of the server's clock.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

_SECOND_NS = 1_000_000_000

#: How much two clocks may drift apart: bounds are widened by this much of the time that has passed since they were found.
_DRIFT = 100e-6

#: Bounds narrower than this are good enough.
GOOD_ENOUGH_NS = 20_000_000


#: How long bounds stay valid while later answers tell no time.
_FORGOTTEN_NS = 600 * _SECOND_NS


@dataclass(slots=True)
class ServerClock:
    """Bounds of the server's time minus the local monotonic clock, both in nanoseconds."""

    #: Whether answers come, and tell no time.
    is_silent: bool = False
    _least_ns: int | None = None
    _most_ns: int = 0
    _learned_at_ns: int = 0

    def observe(self, date_s: int, *, sent_ns: int, received_ns: int) -> None:
        """Learn from one answer.

        Args:
            date_s: The `Date` header, in seconds since the epoch.
            sent_ns: The local monotonic clock when the request was sent.
            received_ns: The same when the answer's head had arrived.
        """
        least = date_s * _SECOND_NS - received_ns
        most = (date_s + 1) * _SECOND_NS - sent_ns
        if self._least_ns is not None:
            drift = self._drift_ns(received_ns)
            narrowed = max(least, self._least_ns - drift), min(most, self._most_ns + drift)
            # Bounds that cross mean that one of the clocks was set: the old bounds are worthless.
            if narrowed[0] <= narrowed[1]:
                least, most = narrowed
        self._least_ns, self._most_ns, self._learned_at_ns, self.is_silent = least, most, received_ns, False

    def observe_nothing(self, *, received_ns: int) -> None:
        """Learn from an answer that tells no time: what was learned long ago is worthless, the clock may have been set since."""
        if self._least_ns is None or received_ns - self._learned_at_ns > _FORGOTTEN_NS:
            self._least_ns, self.is_silent = None, True

    def now_ns(self, monotonic_ns: int) -> int | None:
        """Return the server's time, never ahead of it, in nanoseconds since the epoch; None where no answer tells it."""
        return None if self._least_ns is None else self._least_ns - self._drift_ns(monotonic_ns) + monotonic_ns

    def next_question_ns(self, monotonic_ns: int) -> int | None:
        """Return when, on the local monotonic clock, another request would halve the bounds; None if they are narrow enough."""
        if self._least_ns is None:
            return monotonic_ns
        if self._most_ns - self._least_ns <= GOOD_ENOUGH_NS:
            return None
        # The answer to a question asked when the middle of the bounds ticks over tells which half is true.
        middle = (self._least_ns + self._most_ns) // 2
        return monotonic_ns + -(monotonic_ns + middle) % _SECOND_NS

    def _drift_ns(self, monotonic_ns: int) -> int:
        """Return how far the clocks may have drifted apart since the bounds were found."""
        return math.ceil((monotonic_ns - self._learned_at_ns) * _DRIFT)
