"""A snapshot in Prometheus' text format; `documentation/METRICS.md` describes the series.

Every series exists from the start, at zero, except those of fidelity, for which zero would be the worst value, and those of groups
with METHOD=rhythm, which forms none.
"""

from __future__ import annotations

import math
import platform
from collections.abc import Iterable, Iterator
from importlib.metadata import version

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
)
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from anonymizer.windows import NANOSECONDS
from service.status.board import BUCKETS_S
from service.status.judgement import Judgement, judge
from service.status.snapshot import OutputState, Snapshot
from service.telemetry.events import REMOVABLE, Sweep
from service.telemetry.fidelity_steps import FidelityStep
from service.version import VERSION

PREFIX = "ecg_anonymizer_"

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

Labelled = Iterable[tuple[str, float]]


def exposition(now: Snapshot) -> bytes:
    """Return the page that Prometheus scrapes."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Families(now))
    return generate_latest(registry)


class _Families(Collector):
    def __init__(self, now: Snapshot) -> None:
        self._now = now

    def collect(self) -> Iterator[Metric]:
        yield from families(self._now)


def families(now: Snapshot) -> Iterator[Metric]:
    """Yield all metrics."""
    judgement = judge(now)
    yield from _of_the_run(now, judgement)
    yield from _of_windows(now)
    yield from _of_rows(now)
    if now.run.has_groups:
        yield from _of_groups(now)
    if now.fidelity is not None:
        yield from _of_fidelity(now.fidelity)
    yield from _of_outputs(now.outputs)
    yield from _of_retention(now.removed)


def _of_the_run(now: Snapshot, judgement: Judgement) -> Iterator[Metric]:
    build = {"version": VERSION, "python": platform.python_version(), "numpy": version("numpy"), "pyarrow": version("pyarrow")}
    yield InfoMetricFamily(f"{PREFIX}build", "Versions of the service and what it rests on.", value=build)
    if (cohort := now.run.cohort) is not None:
        labels = {"tag": cohort.tag, "value": cohort.value}
        yield InfoMetricFamily(f"{PREFIX}cohort", "The part of the bucket that is released: COHORT_TAG and COHORT.", value=labels)
    yield _gauge("start_timestamp_seconds", "When the run began.", now.run.started_ns / NANOSECONDS)
    yield _gauge("live", "1 while the release loop advances, or waits as announced.", judgement.is_live)
    yield _gauge("ready", "1 while data flows: the same as /readyz.", judgement.is_ready)
    yield _gauge("source_up", "1 unless the source does not answer.", now.source.trouble is None)
    yield _gauge("state_up", "1 unless STATE_DIR cannot be used.", now.state.trouble is None)
    yield _gauge("reading_paused", "1 while the spool is full and nothing is read.", now.spool.is_full)
    yield _counter("source_retries", "Queries to the source that were retried.", now.source.retries)
    yield _counter("state_retries", "Operations on STATE_DIR that were retried.", now.state.retries)
    yield _gauge("workers", "How many Dask workers share the work; 0 without DASK_SCHEDULER.", now.workers or 0)
    yield _gauge("lag_seconds", "How long the next window has been due; 0 when none is, and in a one-shot run.", now.pace.lag_s)
    yield _gauge("lag_limit_seconds", "From this lag on the service is not ready.", now.pace.lag_limit_s)
    up_to_s = 0.0 if now.run.up_to_ns is None else now.run.up_to_ns / NANOSECONDS
    yield _gauge("position_timestamp_seconds", "Every window that ends by then is done with; 0 before the first look.", up_to_s)
    yield _gauge("spool_bytes", "How much waits on disk for outputs.", now.spool.size_bytes)
    yield _gauge("spool_limit_bytes", "How much may wait before reading pauses: SPOOL_MAX_BYTES.", now.spool.limit_bytes)


def _of_windows(now: Snapshot) -> Iterator[Metric]:
    yield _counters("windows", "Windows by outcome.", "outcome", now.totals.windows_by_outcome.items())
    yield _counter("verification_failures", "Batches the second opinion withheld; must be 0.", now.totals.violations)
    durations = now.durations
    buckets = [(str(bound), float(count)) for bound, count in zip(BUCKETS_S, durations.within, strict=True)]
    yield HistogramMetricFamily(
        f"{PREFIX}window_duration_seconds",
        "Time to anonymize, verify and release a window, reading left out; windows done together share theirs equally.",
        buckets=[*buckets, ("+Inf", float(durations.count))],
        sum_value=durations.sum_s,
    )


def _of_rows(now: Snapshot) -> Iterator[Metric]:
    totals, counts = now.totals, now.totals.counts
    yield _counters(
        "rows", "Rows by outcome; read = released + withheld + invalid + duplicate.", "outcome", totals.rows_by_outcome.items()
    )
    imputed = {"starred": counts.starred, "suppressed": counts.suppressed}
    yield _counters(
        "imputed_rows", "Released rows with the window's mean instead of their group's value.", "kind", imputed.items()
    )
    yield _counter("late_rows", "Rows that came after their window was released; they stay out.", totals.late)
    yield _counters(
        "invalid_rows",
        "Invalid rows by what they lack; one that lacks several counts under the first.",
        "lacks",
        totals.invalid_by_reason.items(),
    )
    yield _counter(
        "contradictory_rows", "Withheld rows whose source held two different values for one time.", totals.contradictory
    )
    yield _counter("noisy_rows", "Withheld rows whose beats cannot be told from noise (METHOD=rhythm).", totals.noisy)
    yield _counter("outside_rows", "Rows of times or sources that were not asked for; not among those read.", totals.outside)
    yield _gauge("unaccounted_rows", "read - released - withheld - invalid - duplicate; must be 0.", totals.unaccounted)


def _of_groups(now: Snapshot) -> Iterator[Metric]:
    yield _counter("groups", "Different released values, summed over windows.", now.totals.groups)
    yield _gauge(
        "smallest_group_rows", "The fewest rows of a window that shared a value; 0 before a release.", now.totals.smallest_group
    )
    levels = ((str(level), rows) for level, rows in enumerate(now.levels.rows, 1))
    yield _counters("rows_at_level", "Released rows by level; moves in steps of at least 12 windows.", "level", levels)


def _of_fidelity(step: FidelityStep) -> Iterator[Metric]:
    """Yield the defined figures: a flat signal has neither correlation nor PRDN."""
    yield _gauge("fidelity_windows", "How many windows the figures of fidelity are of; 12 or more.", step.windows)
    if not math.isnan(step.sums.correlation):
        yield _gauge(
            "fidelity_correlation",
            "Pearson's r between what was measured and what was released; at most 1.",
            step.sums.correlation,
        )
    if not math.isnan(step.sums.prdn_percent):
        yield _gauge(
            "fidelity_prdn_ratio",
            "Root-mean-square of measured - released, over that of measured - its mean; 0: nothing is lost.",
            step.sums.prdn_percent / 100,
        )


def _of_outputs(outputs: tuple[OutputState, ...]) -> Iterator[Metric]:
    def each(value: str) -> Labelled:
        return [(output.name, float(getattr(output, value))) for output in outputs]

    up = [(output.name, float(output.trouble is None)) for output in outputs]
    errors = [(output.name, output.last_error.since_ns / NANOSECONDS if output.last_error else 0.0) for output in outputs]
    yield _gauges("output_up", "1 unless the output takes nothing now.", "output", up)
    yield _gauges("output_position", "Number of the last chunk the output has taken.", "output", each("position"))
    yield _gauges("output_pending_rows", "Released rows that wait for the output.", "output", each("pending"))
    yield _gauges("output_taken_rows", "Rows the output has taken, earlier runs included.", "output", each("taken"))
    yield _gauges(
        "output_set_aside_rows", "Rows the output refused for good, earlier runs included.", "output", each("set_aside")
    )
    yield _gauges(
        "output_unaccounted_rows",
        "Rows released in this run - taken - set aside - pending; must be 0.",
        "output",
        each("unaccounted"),
    )
    yield _counters("output_retries", "Writes to the output that were retried.", "output", each("retries"))
    yield _gauges("output_last_error_timestamp_seconds", "When the output last gave an error; 0: never.", "output", errors)


def _of_retention(removed: Sweep) -> Iterator[Metric]:
    files = {what.replace(" ", "_").replace("-", "_").lower(): removed.files.get(what, 0) for what in REMOVABLE}
    yield _counters("removed_files", "Files that RETENTION_DAYS removed.", "kind", files.items())
    yield _counter("removed_rows", "Released rows in files that RETENTION_DAYS removed.", removed.rows)
    yield _gauge("overdue_files", "Files older than RETENTION_DAYS that could not, or must not, be removed.", removed.kept)
    last_s = removed.at_ns / NANOSECONDS
    yield _gauge("last_sweep_timestamp_seconds", "When RETENTION_DAYS was last applied; 0: never, or off.", last_s)


def _gauge(name: str, meaning: str, value: float) -> Metric:
    return GaugeMetricFamily(PREFIX + name, meaning, value=float(value))


def _counter(name: str, meaning: str, value: float) -> Metric:
    return CounterMetricFamily(PREFIX + name, meaning, value=float(value))


def _gauges(name: str, meaning: str, label: str, values: Labelled) -> Metric:
    family = GaugeMetricFamily(PREFIX + name, meaning, labels=[label])
    for value, number in values:
        family.add_metric([value], float(number))
    return family


def _counters(name: str, meaning: str, label: str, values: Labelled) -> Metric:
    family = CounterMetricFamily(PREFIX + name, meaning, labels=[label])
    for value, number in values:
        family.add_metric([value], float(number))
    return family
