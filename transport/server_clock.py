"""Estimates a server's clock from `Date` headers, which have whole seconds only.

One answer bounds the server's time to a second plus the round trip; answers at different moments narrow the bounds. A window must not
count as complete too early, so the estimate is never ahead of the server's clock.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

_SECOND_NS = 1_000_000_000

#: The drift between the two clocks, as a share of elapsed time: bounds are widened by it.
_DRIFT = 100e-6

#: Bounds narrower than this are good enough.
GOOD_ENOUGH_NS = 20_000_000

#: How long bounds stay valid while later answers have no `Date` header.
_FORGOTTEN_NS = 600 * _SECOND_NS


@dataclass(slots=True)
class ServerClock:
    """Bounds of the server's time minus the local monotonic clock, both in nanoseconds."""

    #: Whether the server answers without a `Date` header.
    is_silent: bool = False
    _least_ns: int | None = None
    _most_ns: int = 0
    _learned_at_ns: int = 0

    def observe(self, date_s: int, *, sent_ns: int, received_ns: int) -> None:
        """Narrow the bounds by one answer.

        Args:
            date_s: The `Date` header, in seconds since the epoch.
            sent_ns: The local monotonic clock when the request was sent.
            received_ns: The local monotonic clock when the answer's headers had arrived.
        """
        least = date_s * _SECOND_NS - received_ns
        most = (date_s + 1) * _SECOND_NS - sent_ns
        if self._least_ns is not None:
            drift = self._drift_ns(received_ns)
            narrowed = max(least, self._least_ns - drift), min(most, self._most_ns + drift)
            # If the bounds cross, one of the clocks was set: drop the old bounds.
            if narrowed[0] <= narrowed[1]:
                least, most = narrowed
        self._least_ns, self._most_ns, self._learned_at_ns, self.is_silent = least, most, received_ns, False

    def observe_no_date(self, *, received_ns: int) -> None:
        """Record an answer without a `Date` header. Old bounds expire: the clock may have been set since."""
        if self._least_ns is None or received_ns - self._learned_at_ns > _FORGOTTEN_NS:
            self._least_ns, self.is_silent = None, True

    def now_ns(self, monotonic_ns: int) -> int | None:
        """Return a lower bound of the server's time, in nanoseconds since the epoch; None if it is unknown."""
        return None if self._least_ns is None else self._least_ns - self._drift_ns(monotonic_ns) + monotonic_ns

    def next_request_ns(self, monotonic_ns: int) -> int | None:
        """Return when, on the local monotonic clock, another request would halve the bounds; None if they are narrow enough."""
        if self._least_ns is None:
            return monotonic_ns
        if self._most_ns - self._least_ns <= GOOD_ENOUGH_NS:
            return None
        # A request sent when the middle of the bounds reaches a full second shows which half is right.
        middle = (self._least_ns + self._most_ns) // 2
        return monotonic_ns + -(monotonic_ns + middle) % _SECOND_NS

    def _drift_ns(self, monotonic_ns: int) -> int:
        """Return how far the clocks may have drifted apart since the bounds were found."""
        return math.ceil((monotonic_ns - self._learned_at_ns) * _DRIFT)
