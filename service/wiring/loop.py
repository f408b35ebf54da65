"""What the release loop goes by: the schedule of windows, and the tasks that come up now and then."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from anonymizer.samples import SampleSource
from anonymizer.windows import NANOSECONDS
from service.clock import Clock
from service.pipeline.recounts import Recounts
from service.pipeline.schedule import Schedule, SpanRequest, Stream, first_position_ns, make_span
from service.pipeline.upkeep import Upkeep
from service.settings.declared import Settings
from service.state.journal import Journal
from service.state.trail import Trail
from service.telemetry.hub import Telemetry
from service.wiring.data_set import data_set_labels, parquet_labels
from service.wiring.outputs import held_csv, parquet_place

if TYPE_CHECKING:
    from service.retention.places import Place as RetentionPlace
    from service.retention.sweep import Retention


def make_schedule(settings: Settings, source: SampleSource, clock: Clock, *, stream_position_ns: int | None) -> Schedule:
    """Return which windows to release; the source must be open.

    Args:
        settings: The settings.
        source: Supplies its clock and its extent.
        clock: The service's clock.
        stream_position_ns: Where an earlier stream stopped; None if there was none.
    """
    length_ns = settings.batch_size_seconds * NANOSECONDS
    lateness_ns = settings.allowed_lateness_seconds * NANOSECONDS
    if not settings.streaming_mode:
        request = SpanRequest(
            start_ns=settings.query_start_time,
            end_ns=settings.query_end_time,
            hours=settings.default_query_hours,
            length_ns=length_ns,
            lateness_ns=lateness_ns,
            is_by_hour=plans_by_hour(settings),
        )
        return make_span(request, source, clock)
    return Stream(
        source=source,
        clock=clock,
        position_ns=_first_stream_position_ns(settings, source, clock, stream_position_ns),
        length_ns=length_ns,
        lateness_ns=lateness_ns,
        interval_s=settings.streaming_interval,
    )


def _first_stream_position_ns(settings: Settings, source: SampleSource, clock: Clock, stopped_at_ns: int | None) -> int:
    length_ns = settings.batch_size_seconds * NANOSECONDS
    if stopped_at_ns is not None:
        # With a new window length, the stream starts at the first whole window after that position.
        return -(-stopped_at_ns // length_ns) * length_ns
    if settings.query_start_time is not None:
        return settings.query_start_time // length_ns * length_ns
    return first_position_ns(source, clock, length_ns=length_ns)


def plans_by_hour(settings: Settings) -> bool:
    """Return whether chunks follow whole hours, so that file names do not depend on where a run was killed.

    A stream releases windows as they fall due; its files are named after the windows that were due together.
    """
    return bool(settings.output_to_parquet or settings.dask_scheduler) and not settings.streaming_mode


def make_upkeep(
    settings: Settings,
    source: SampleSource,
    journal: Journal,
    telemetry: Telemetry,
    clock: Clock,
    *,
    looks: Sequence[Callable[[], None]] = (),
) -> Upkeep:
    """Return the loop's periodic tasks. A file is not counted again, since it does not grow during a run."""
    after_s = settings.late_recount_seconds
    recounts = None if settings.input_file else Recounts(source, journal, telemetry, clock, after_s=after_s)
    return Upkeep(source, journal, recounts, clock, most_recounts=len(after_s), looks=looks)


def make_retention(
    settings: Settings,
    source: SampleSource,
    journal: Journal,
    telemetry: Telemetry,
    clock: Clock,
    *,
    trail: Callable[[], Trail | None],
) -> Retention:
    """Return what removes old files; the source must be open. Without RETENTION_DAYS it only finishes what was begun."""
    from service.retention.places import CsvPlace, ParquetPlace, ReportsPlace, SetAsidePlace
    from service.retention.sweep import Retention
    from service.state.set_aside import SetAside

    state_dir = Path(settings.state_dir)
    places: list[RetentionPlace] = []
    if settings.output_to_csv:
        places.append(CsvPlace(held_csv(settings), journal, is_stream=settings.streaming_mode))
    if settings.output_to_parquet:
        from outputs.parquet_removal import OldParquet

        labels = parquet_labels(settings, data_set_labels(settings, source, journal))
        places.append(ParquetPlace(OldParquet(parquet_place(settings), labels), journal))
    folder = state_dir / "set_aside"
    refused_by = {one.name for one in journal.outputs.positions()} | {kept.output for kept in SetAside(folder).all()}
    places += [SetAsidePlace(folder, output, journal) for output in sorted(refused_by)]
    places.append(ReportsPlace(state_dir))
    return Retention(settings.retention_days, places, journal, clock, telemetry, is_stream=settings.streaming_mode, trail=trail)
