"""The loop both modes share: for each run of windows that is due, count, then chunk by chunk read, anonymize, verify, deliver."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from anonymizer.chunk import Recipe
from anonymizer.samples import SampleSource
from anonymizer.windows import WindowRange
from service.chunks import Chunk, FinishedChunk, finish_chunk, plan_chunks
from service.clock import Clock, Stopped
from service.delivery import Delivery
from service.patience import Patience
from service.schedule import Schedule
from service.telemetry import Telemetry, Unit


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """Everything the loop works with.

    Args:
        source: Already open.
        recipe: How windows are anonymized.
        delivery: Where batches go.
        telemetry: Told what happens.
        patience: How long to wait for the source.
        clock: Tells when to stop.
        most_rows: How many rows to ask for in one query, about.
        unit_is_window: Whether each window is reported and delivered by itself, as in streaming, or a chunk together.
        advance: Told after each chunk how many windows and rows it had.
    """

    source: SampleSource
    recipe: Recipe
    delivery: Delivery
    telemetry: Telemetry
    patience: Patience
    clock: Clock
    most_rows: int
    unit_is_window: bool
    advance: Callable[[int, int], None]


def run(schedule: Schedule, parts: Parts) -> None:
    """Release every window the schedule yields; return at its end, or when asked to stop once the unit in hand is delivered.

    Raises:
        OutOfPatience: A source or output did not answer for too long.
        SourceDenied: Only with a patience that has an end; OutputDenied likewise.
        SourceRefused: The source holds what cannot be anonymized.
    """
    try:
        for windows in schedule:
            for chunk in _chunks(windows, parts):
                if parts.clock.is_stopping():
                    return
                _release(chunk, parts)
    except Stopped:
        return


def _chunks(windows: WindowRange, parts: Parts) -> Iterator[Chunk]:
    counted = parts.patience.until_done(lambda: parts.source.count(windows))
    return plan_chunks(windows, counted, most_rows=parts.most_rows)


def _release(chunk: Chunk, parts: Parts) -> None:
    if chunk.is_empty:
        parts.telemetry.nothing_in(chunk.windows)
        parts.advance(len(chunk.windows), 0)
        return
    started_s = parts.clock.monotonic_s()
    finished = parts.patience.until_done(lambda: finish_chunk(parts.source, chunk, parts.recipe))
    parts.telemetry.chunk_failed_verification(finished.violations)
    parts.telemetry.rows_outside(finished.outside)
    for unit in _units(finished, one_by_one=parts.unit_is_window):
        parts.telemetry.anonymized(unit)
        parts.delivery.deliver(unit.batches)
        if parts.clock.is_stopping() and parts.unit_is_window:
            return
    rows = sum(result.counts.read for result in finished.results)
    parts.telemetry.took(parts.clock.monotonic_s() - started_s, rows)
    parts.advance(len(chunk.windows), rows)


def _units(finished: FinishedChunk, *, one_by_one: bool) -> Iterator[Unit]:
    if not one_by_one:
        yield Unit(finished.chunk.windows, finished.results)
        return
    for index, result in enumerate(finished.results):
        yield Unit(finished.chunk.windows.part(index, index + 1), (result,))
