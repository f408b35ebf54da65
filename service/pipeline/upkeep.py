"""Periodic tasks of the release loop: count late rows, warn before the source's retention removes rows, keep the journal small."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence

from anonymizer.errors import StateUnavailable
from anonymizer.samples import SampleSource
from anonymizer.windows import NANOSECONDS
from service.clock import Clock
from service.log_event import LogEvent
from service.pipeline.recounts import RECOUNT_EVERY_S, Recounts
from service.state.journal import Journal
from service.time_texts import date_and_time, length_text

_RETENTION_NEAR = LogEvent(
    "retention_near",
    "⚠️ Released up to %s; %s keeps rows for %s, so what is not released within %s is lost",
    "position source kept left",
    logging.WARNING,
)
_UPKEEP_POSTPONED = LogEvent("upkeep_postponed", "Upkeep is postponed: %s", "reason", logging.DEBUG)

#: Journal entries older than this are merged where possible.
MERGED_AFTER_NS = 30 * 24 * 3600 * NANOSECONDS

_MERGE_EVERY_S = 24 * 3600.0

#: The service warns if less than this share of the source's retention is left, and repeats the warning at this interval.
_WARNING_SHARE = 0.5
_WARN_EVERY_S = 600.0


class Upkeep:
    """Runs each task when it is due. The loop calls it often.

    Args:
        source: Knows its retention.
        journal: Knows the stream's position.
        recounts: Counts late rows; None for a source that cannot grow.
        clock: The service's clock.
        most_recounts: How often a window is counted again.
        looks: What else is called as often as this, and knows itself when it is due.
    """

    def __init__(
        self,
        source: SampleSource,
        journal: Journal,
        recounts: Recounts | None,
        clock: Clock,
        *,
        most_recounts: int,
        looks: Sequence[Callable[[], None]] = (),
    ) -> None:
        self._source = source
        self._journal = journal
        self._recounts = recounts
        self._clock = clock
        self._looks = looks
        self._most_recounts = most_recounts if recounts is not None else 0
        self._recounted_s = self._merged_s = self._warned_s = -math.inf

    def __call__(self) -> None:
        """Run the tasks that are due. If the service's own disk is unavailable, they run later; nothing is lost."""
        try:
            self._run_due_tasks(self._clock.monotonic_s())
        except StateUnavailable as error:
            _UPKEEP_POSTPONED.log(error)

    def _run_due_tasks(self, now_s: float) -> None:
        for look in self._looks:
            look()
        if self._recounts is not None and now_s - self._recounted_s >= RECOUNT_EVERY_S:
            self._recounted_s = now_s
            self._recounts.count_due_windows()
        if now_s - self._merged_s >= _MERGE_EVERY_S:
            self._journal.merge_before(self._clock.now_ns() - MERGED_AFTER_NS, recounts=self._most_recounts)
            # Set last, so that after a failure of the disk the next call retries, not one a day later.
            self._merged_s = now_s
        if now_s - self._warned_s >= _WARN_EVERY_S and self._warn_of_retention():
            self._warned_s = now_s

    def _warn_of_retention(self) -> bool:
        """Warn if the source's retention will soon remove rows that the stream has not released; return whether it did."""
        position_ns, kept_since_ns = self._journal.stream_position_ns(), self._source.kept_since_ns()
        if position_ns is None or kept_since_ns is None:
            return False
        left_ns, kept_ns = position_ns - kept_since_ns, self._clock.now_ns() - kept_since_ns
        if left_ns > _WARNING_SHARE * kept_ns:
            return False
        _RETENTION_NEAR.log(
            date_and_time(position_ns),
            self._source.name,
            length_text(kept_ns / NANOSECONDS),
            length_text(max(left_ns, 0) / NANOSECONDS),
        )
        return True
