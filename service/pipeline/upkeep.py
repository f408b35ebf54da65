"""What the loop does besides releasing: count late rows, warn before the source forgets rows, keep the journal small."""

from __future__ import annotations

import logging
import math

from anonymizer.errors import StateUnavailable
from anonymizer.samples import SampleSource
from anonymizer.windows import NANOSECONDS
from service.clock import Clock
from service.log_event import LogEvent
from service.pipeline.recounts import LOOK_EVERY_S, Recounts
from service.state.journal import Journal
from service.time_texts import date_and_time, length_text

_RETENTION_NEAR = LogEvent(
    "retention_near",
    "⚠️ Released up to %s; %s keeps rows for %s, so what is not released within %s is lost",
    "position source kept left",
    logging.WARNING,
)
_UPKEEP_POSTPONED = LogEvent("upkeep_postponed", "Upkeep is done another time: %s", "reason", logging.DEBUG)

#: Entries of the journal older than this become one where they can.
MERGED_AFTER_NS = 30 * 24 * 3600 * NANOSECONDS

_MERGE_EVERY_S = 24 * 3600.0

#: A person should know when less than this share of the source's retention is left, and again so often.
_ALARM_SHARE = 0.5
_ALARM_EVERY_S = 600.0


class Upkeep:
    """Called again and again; does each of its tasks when its time has come.

    Args:
        source: Knows its retention.
        journal: Knows where the stream is.
        recounts: Counts late rows; None for a source to which nothing is added.
        clock: Ours.
        most_recounts: How often a window is counted again.
    """

    def __init__(
        self, source: SampleSource, journal: Journal, recounts: Recounts | None, clock: Clock, *, most_recounts: int
    ) -> None:
        self._source = source
        self._journal = journal
        self._recounts = recounts
        self._clock = clock
        self._most_recounts = most_recounts if recounts is not None else 0
        self._recounted_s = self._merged_s = self._warned_s = -math.inf

    def __call__(self) -> None:
        """Do what is due. What our own disk does not take now is done another time: nothing is lost by that."""
        try:
            self._do_what_is_due(self._clock.monotonic_s())
        except StateUnavailable as error:
            _UPKEEP_POSTPONED.log(error)

    def _do_what_is_due(self, now_s: float) -> None:
        if self._recounts is not None and now_s - self._recounted_s >= LOOK_EVERY_S:
            self._recounted_s = now_s
            self._recounts.look()
        if now_s - self._merged_s >= _MERGE_EVERY_S:
            self._journal.merge_before(self._clock.now_ns() - MERGED_AFTER_NS, recounts=self._most_recounts)
            # Only now: what the disk did not take is done at the next call, not a day later.
            self._merged_s = now_s
        if now_s - self._warned_s >= _ALARM_EVERY_S and self._is_running_out():
            self._warned_s = now_s

    def _is_running_out(self) -> bool:
        """Return, and say, whether the stream is so far behind that the source will soon have removed what it has not released."""
        position_ns, kept_since_ns = self._journal.stream_position_ns(), self._source.kept_since_ns()
        if position_ns is None or kept_since_ns is None:
            return False
        left_ns, kept_ns = position_ns - kept_since_ns, self._clock.now_ns() - kept_since_ns
        if left_ns > _ALARM_SHARE * kept_ns:
            return False
        _RETENTION_NEAR.log(
            date_and_time(position_ns),
            self._source.name,
            length_text(kept_ns / NANOSECONDS),
            length_text(max(left_ns, 0) / NANOSECONDS),
        )
        return True
