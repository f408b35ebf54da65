"""Rows without the cohorts' tag: they belong to no cohort, and only a service with COHORT left empty releases them."""

from __future__ import annotations

import logging
from collections.abc import Callable

from anonymizer.errors import SourceError
from anonymizer.samples import SampleSource
from service.clock import Clock
from service.log_event import LogEvent
from service.state.journal import Journal
from service.telemetry.hub import Telemetry

_ROWS_WITHOUT_COHORT = LogEvent(
    "rows_without_cohort",
    "⚠️ %d rows have no tag %s, so they belong to no cohort and are not released: give them the tag, or run a service for them with COHORT "
    "left empty",
    "rows tag",
    logging.WARNING,
)
_COUNT_POSTPONED = LogEvent(
    "rows_without_cohort_postponed", "Counting rows of no cohort is postponed: %s", "reason", logging.DEBUG
)

_LOOK_EVERY_S = 3600.0


def warn_of_rows_without_cohort(rows: int, tag: str, *, are_served: bool) -> None:
    """Warn of rows without a cohort, unless a service for them has a claim."""
    if rows and not are_served:
        _ROWS_WITHOUT_COHORT.log(rows, tag)


class RowsWithoutCohort:
    """Counts them every hour while streaming: those in the time released since the last count.

    Args:
        source: Counts them.
        journal: Has the stream's position.
        telemetry: Receives the counts.
        clock: The service's clock.
        tag: COHORT_TAG.
        are_served: Returns whether a service for them has a claim.
    """

    def __init__(
        self,
        source: SampleSource,
        journal: Journal,
        telemetry: Telemetry,
        clock: Clock,
        *,
        tag: str,
        are_served: Callable[[], bool],
    ) -> None:
        self._source = source
        self._journal = journal
        self._telemetry = telemetry
        self._clock = clock
        self._tag = tag
        self._are_served = are_served
        self._counted_to_ns = journal.stream_position_ns()
        # The first count is early, so that a wrong tag shows while an operator watches the start.
        self._due_s = clock.monotonic_s() + _FIRST_LOOK_S

    def look_if_due(self) -> None:
        """Count if that is due; if the source does not answer, later."""
        now_s, position_ns = self._clock.monotonic_s(), self._journal.stream_position_ns()
        if now_s < self._due_s or position_ns is None:
            return
        self._due_s = now_s + _LOOK_EVERY_S
        start_ns = self._counted_to_ns if self._counted_to_ns is not None else position_ns - _FIRST_LOOK_NS
        try:
            rows = self._source.rows_beside(start_ns, position_ns).not_requested if start_ns < position_ns else 0
        except SourceError as error:
            _COUNT_POSTPONED.log(error)
            return
        self._counted_to_ns = position_ns
        if rows:
            self._telemetry.rows_beside(without_time=0, not_requested=rows)
        warn_of_rows_without_cohort(rows, self._tag, are_served=self._are_served())


_FIRST_LOOK_S = 60.0
_FIRST_LOOK_NS = 60 * 10**9
