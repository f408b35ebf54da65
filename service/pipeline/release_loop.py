"""The loop of both modes: count the windows that are due, then read, anonymize, verify and release them chunk by chunk."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np

from anonymizer.anonymize import Recipe
from anonymizer.exclusion import Exclusion
from anonymizer.samples import SampleSource
from anonymizer.windows import WindowRange
from service import crash_points
from service.clock import Clock, Stopped
from service.delivery.delivery import Delivery
from service.log_event import WARNING
from service.pipeline.chunks import (
    Chunk,
    FinishedChunk,
    finish_chunk,
    from_full_hour,
    part_of,
    plan_by_hour,
    plan_chunks,
    read_completely,
    without_rows,
)
from service.pipeline.contradictions import Judgement, advice_for
from service.pipeline.read_ahead import NewestWindow, Reading, read_ahead
from service.pipeline.schedule import Schedule, Stream, empty_windows_ahead
from service.retry import Retry
from service.state.journal import Journal, Release, Released
from service.telemetry.hub import Telemetry, Unit


class Work(Protocol):
    """A chunk that is being finished: read, anonymized and verified, here or elsewhere."""

    @property
    def chunk(self) -> Chunk:
        """Which."""

    def wait(self, meanwhile: Callable[[], None]) -> None:
        """Return once it is finished, or there is trouble; call `meanwhile` every so often. Raises Stopped."""

    def finish(self) -> FinishedChunk:
        """Return what became of it. Asked again after an exception, it begins again.

        Raises:
            SourceUnavailable: It could not be read completely now.
            StateUnavailable: It could not be spooled now.
            WorkersUnavailable: There is no process that could do it.
            Stopped: The service was asked to stop meanwhile.
        """


class Workforce(Protocol):
    """Finishes chunks in other processes, several at a time."""

    def in_order(self, chunks: Iterable[Chunk]) -> Iterator[Work]:
        """Yield every chunk, in order, while those behind it are worked on; empty ones are only passed on."""


@dataclass(frozen=True, slots=True)
class _WorkHere:
    """A chunk that this process finishes."""

    reading: Reading
    parts: Parts

    @property
    def chunk(self) -> Chunk:
        return self.reading.chunk

    def wait(self, meanwhile: Callable[[], None]) -> None:
        """Nothing is to be waited for: it was read."""

    def finish(self) -> FinishedChunk:
        """Read, anonymize and verify it."""
        parts = self.parts
        # Asked before the read too: while the list is missing, nothing is read again and again.
        parts.exclusion()
        return finish_chunk(parts.source, self.chunk, parts.recipe, read=self.reading.take, exclusion=parts.exclusion)


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """Everything the loop works with.

    Args:
        source: Already open.
        recipe: How windows are anonymized.
        journal: Knows what was released.
        delivery: Takes released batches; already started.
        telemetry: Receives events.
        retry: How to retry the source.
        clock: Knows whether a stop was requested.
        most_rows: Approximate number of rows per query.
        is_stream: Whether the journal's stream position advances with the windows.
        unit_is_window: Whether each window is reported separately, or each chunk.
        advance: Called after each chunk with its numbers of windows and rows.
        upkeep: Called often; runs periodic tasks.
        give_back_memory: Called after each chunk with more rows than `most_rows`, which is a single large window.
        plans_by_hour: Whether chunks follow whole hours regardless of earlier releases, because files are named after them.
        workforce: Finishes chunks in other processes; None: this process does.
        exclusion: Returns whose rows are not released now; raises StateUnavailable while that is unknown.
        judges_first_chunk: Whether to refuse the run if most sources contradict themselves in most windows of the first chunk.
    """

    source: SampleSource
    recipe: Recipe
    journal: Journal
    delivery: Delivery
    telemetry: Telemetry
    retry: Retry
    clock: Clock
    most_rows: int
    is_stream: bool
    unit_is_window: bool
    advance: Callable[[int, int], None]
    upkeep: Callable[[], None] = lambda: None
    give_back_memory: Callable[[], None] = lambda: None
    plans_by_hour: bool = False
    workforce: Workforce | None = None
    exclusion: Callable[[], Exclusion | None] = lambda: None
    judges_first_chunk: bool = True


def run(schedule: Schedule, parts: Parts) -> None:
    """Release every window of the schedule that was not released before; return at the end, or after a stop request.

    Raises:
        RetriesExhausted: The source did not answer for too long.
        SourceDenied: Only if retries have a time limit.
        SourceRefused: The source has data that cannot be anonymized.
    """
    judgement = Judgement() if parts.judges_first_chunk else None
    try:
        parts.telemetry.phase("working")
        for work in _work_of(schedule, parts, judgement):
            if parts.clock.is_stopping() or not parts.delivery.is_delivering():
                return
            _release(work, parts, judgement)
            if not work.chunk.is_empty:
                judgement = None
            parts.telemetry.reached(work.chunk.windows.end_ns)
    except Stopped:
        return


def _work_of(schedule: Schedule, parts: Parts, judgement: Judgement | None) -> Iterator[Work]:
    """Yield every chunk of the schedule, in order, as work that is finished or in progress."""
    if parts.workforce is not None:
        # Workers process chunks far ahead, so a planned window has not been reached yet.
        yield from parts.workforce.in_order(_chunks_planned(schedule, parts, judgement))
        return
    logged_remarks = set(parts.source.remarks)
    newest = NewestWindow(parts.source, schedule) if isinstance(schedule, Stream) and parts.source.concurrent_reads > 1 else None
    parts.upkeep()
    for windows in schedule:
        parts.telemetry.reached(windows.start_ns)
        if not windows:
            _poll_source(parts, logged_remarks)
            if newest is not None:
                newest.begin()
        empty = _empty_ahead(windows, schedule, parts)
        chunks = _chunks(empty or windows, parts, are_empty=bool(empty), judgement=judgement, newest=newest)
        at_a_time = parts.source.concurrent_reads
        # A stream runs for ever: if its windows are large, it has one of them in memory rather than catch up faster.
        most_rows = (at_a_time + 1) * parts.most_rows if parts.is_stream else math.inf
        readings = read_ahead(chunks, partial(read_completely, parts.source), at_a_time=at_a_time, most_rows=most_rows)
        yield from (_WorkHere(reading, parts) for reading in readings)
        parts.telemetry.reached((empty or windows).end_ns)
        # Afterwards: a window that just fell due does not wait for it.
        if newest is None or newest.leaves_time():
            parts.upkeep()


def _chunks_planned(schedule: Schedule, parts: Parts, judgement: Judgement | None) -> Iterator[Chunk]:
    for windows in schedule:
        parts.upkeep()
        empty = _empty_ahead(windows, schedule, parts)
        yield from _chunks(empty or windows, parts, are_empty=bool(empty), judgement=judgement)


def _poll_source(parts: Parts, logged_remarks: set[str]) -> None:
    """Check that the source answers while no window is due, to notice an outage early; log its new remarks."""
    parts.retry.until_done(parts.source.look)
    for remark in set(parts.source.remarks) - logged_remarks:
        logged_remarks.add(remark)
        WARNING.log(remark)


def _empty_ahead(windows: WindowRange, schedule: Schedule, parts: Parts) -> WindowRange:
    """Return the empty windows before the source's next row, if the source was asked; the schedule continues after them."""
    empty = parts.retry.until_done(lambda: empty_windows_ahead(parts.source, schedule, windows))
    if empty:
        schedule.continue_at(empty.end_ns)
    return empty


def unreleased(windows: WindowRange, released: list[Released]) -> Iterator[WindowRange]:
    """Yield the runs of windows that overlap no released interval, in order."""
    first = 0
    for interval in (one.interval for one in released):
        # The windows from `begin` to `end` touch the interval.
        begin = max(first, (interval.start_ns - windows.start_ns) // windows.length_ns)
        end = min(len(windows), -(-(interval.end_ns - windows.start_ns) // windows.length_ns))
        if begin > first:
            yield windows.part(first, begin)
        first = max(first, end)
    if first < len(windows):
        yield windows.part(first, len(windows))


def _chunks(
    windows: WindowRange,
    parts: Parts,
    *,
    are_empty: bool,
    judgement: Judgement | None,
    newest: NewestWindow | None = None,
) -> Iterator[Chunk]:
    released = parts.retry.until_done(lambda: parts.journal.released_within(windows))
    runs = list(unreleased(windows, released))
    skipped = len(windows) - sum(map(len, runs))
    if skipped:
        parts.telemetry.skipped(skipped, windows, released)
        parts.advance(skipped, 0)
        if judgement is not None:
            judgement.add_good(skipped)
    if parts.plans_by_hour and not are_empty:
        yield from _chunks_by_hour(runs, parts)
        return
    for run_of_windows in runs:
        if are_empty:
            yield without_rows(run_of_windows)
            continue
        if newest is not None and len(run_of_windows) == 1:
            yield Chunk(run_of_windows, *parts.retry.until_done(partial(newest.count, run_of_windows)))
            continue
        counted = parts.retry.until_done(partial(parts.source.count, run_of_windows))
        yield from plan_chunks(run_of_windows, counted, most_rows=parts.most_rows)


def _chunks_by_hour(runs: list[WindowRange], parts: Parts) -> Iterator[Chunk]:
    """Yield chunks planned by whole hours, cut to the runs of windows that were not released."""
    if not runs:
        return
    windows = from_full_hour(WindowRange(runs[0].start_ns, runs[-1].end_ns, runs[0].length_ns))
    counted = parts.retry.until_done(lambda: parts.source.count(windows))
    for chunk in plan_by_hour(windows, counted, most_rows=parts.most_rows):
        yield from filter(None, (part_of(chunk, run_of_windows) for run_of_windows in runs))


def _release(work: Work, parts: Parts, judgement: Judgement | None) -> None:
    chunk = work.chunk
    stream_to_ns = chunk.windows.end_ns if parts.is_stream else None
    if chunk.is_empty:
        _report_empty(chunk.windows, parts)
        _advance_stream(parts, stream_to_ns)
        parts.advance(len(chunk.windows), 0)
        return
    parts.delivery.wait_for_room(lambda: _while_waiting(chunk, parts))
    started_s = parts.clock.monotonic_s()
    # Waiting for a worker is no retry: it does not count against the time for those.
    work.wait(lambda: _while_waiting(chunk, parts))
    finished = parts.retry.until_done(work.finish)
    crash_points.reached(crash_points.AFTER_ANONYMIZE)
    if judgement is not None:
        judgement.add(finished.contradictions, sum(result.counts.read > 0 for result in finished.results))
        judgement.refuse(parts.source)
    _report(finished, parts)
    if finished.spooled is not None:
        parts.delivery.release_spooled(_releases(finished), finished.spooled)
    elif finished.batches:
        parts.delivery.release(finished.batches, stream_to_ns=stream_to_ns, releases=_releases(finished))
    else:
        _advance_stream(parts, stream_to_ns)
    rows = sum(result.counts.read for result in finished.results)
    parts.telemetry.took(parts.clock.monotonic_s() - started_s, rows, len(chunk.windows))
    parts.advance(len(chunk.windows), rows)
    if rows > parts.most_rows:
        parts.give_back_memory()


def _releases(finished: FinishedChunk) -> list[Release]:
    return [Release(result.window, result.counts) for result in finished.results if result.has_batch]


def _while_waiting(chunk: Chunk, parts: Parts) -> None:
    parts.telemetry.reached(chunk.windows.start_ns)
    parts.upkeep()


def _report_empty(windows: WindowRange, parts: Parts) -> None:
    kept_since_ns = parts.source.kept_since_ns()
    expired_ns = 0 if kept_since_ns is None else min(kept_since_ns, windows.end_ns) - windows.start_ns
    expired = max(0, expired_ns) // windows.length_ns
    if expired:
        parts.telemetry.expired(windows.part(0, expired))
    if expired < len(windows):
        parts.telemetry.nothing_in(windows.part(expired, len(windows)))


def _advance_stream(parts: Parts, stream_to_ns: int | None) -> None:
    """Advance the stream past windows without a release; a one-shot run can still release them."""
    if stream_to_ns is not None:
        parts.retry.until_done(lambda: parts.journal.move_stream(stream_to_ns))


def _report(finished: FinishedChunk, parts: Parts) -> None:
    parts.telemetry.chunk_failed_verification(finished.violations)
    parts.telemetry.rows_outside(finished.outside)
    parts.telemetry.rows_without_source(finished.without_source)
    _report_doubts(finished, parts)
    for unit in _units(finished, one_by_one=parts.unit_is_window):
        parts.telemetry.anonymized(unit)


def _report_doubts(finished: FinishedChunk, parts: Parts) -> None:
    found = finished.contradictions
    if rows := int(found.rows.sum()):
        windows, sources = int(np.count_nonzero(found.rows)), int(found.contradicting.max())
        parts.telemetry.contradicted(rows=rows, windows=windows, sources=sources, advice=lambda: advice_for(parts.source))
    if finished.units.still or finished.units.apart:
        parts.telemetry.units_look_wrong(finished.units)
    if finished.ids_like_formulas:
        parts.telemetry.ids_are_formulas(finished.ids_like_formulas)
    if finished.ids_alike:
        parts.telemetry.ids_are_alike(finished.ids_alike)


def _units(finished: FinishedChunk, *, one_by_one: bool) -> Iterator[Unit]:
    if not one_by_one:
        yield Unit(finished.chunk.windows, finished.results)
        return
    for index, result in enumerate(finished.results):
        yield Unit(finished.chunk.windows.part(index, index + 1), (result,))
