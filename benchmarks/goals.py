"""What the speed is to be, and whether the last figures reach it; and what it was before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from benchmarks.figures import Series

#: All series by their names, by the part of the benchmark.
Measured = Mapping[str, Mapping[str, Series]]


@dataclass(frozen=True, slots=True)
class Goal:
    """One measure.

    Args:
        measure: What it is.
        part: The part of the benchmark that measures it.
        series: Name of the series, whose median counts.
        bound: Whether `limit` is the most or the least.
        limit: The goal.
        unit: Of limit and figure.
        before: The figure before, as it was published.
    """

    measure: str
    part: str
    series: str
    bound: Literal["≤", "≥"]
    limit: float
    unit: str
    before: str

    def is_met(self, figure: float) -> bool:
        """Return whether a figure reaches the goal. The size of a change counts, not its direction."""
        return abs(figure) <= self.limit if self.bound == "≤" else figure >= self.limit


_BY_CLOCK = "process start included, ÷ "
_CHUNK_S = ", record, chunk"

GOALS = (
    Goal(
        "bucket to bucket: processor seconds of server and service ÷ the server's for reading alone and writing alone",
        "throughput", "processor of server and service ÷ server's alone", "≤", 1.20, "", "1.4",
    ),
    Goal(
        "bucket to bucket by the clock, process start included, ÷ reading alone and writing alone",
        "throughput", f"InfluxDB → InfluxDB, {_BY_CLOCK}(read alone + write alone)", "≤", 1.12, "", "1.09–1.36",
    ),
    Goal("service's processor, bucket to bucket", "throughput", "InfluxDB → InfluxDB, processor", "≤", 0.70, "s/M rows", "0.863"),
    Goal("service's processor, file to CSV", "throughput", "file → CSV, processor", "≤", 0.55, "s/M rows", "0.567"),
    Goal("service's processor, file to Parquet", "throughput", "file → Parquet, processor", "≤", 0.35, "s/M rows", "–"),
    Goal(
        "bucket to CSV by the clock, process start included, ÷ reading alone",
        "throughput", f"InfluxDB → CSV, {_BY_CLOCK}read alone", "≤", 1.4, "", "1.7–2.2",
    ),
    Goal("a live window of 1,800 rows, k 20", "core", "optimal, k 20, record, 1,800 rows", "≤", 4, "ms", "1.56"),
    Goal("a live window of 18,000 rows, k 20", "core", "optimal, k 20, record, 18,000 rows", "≤", 10, "ms", "5.69"),
    Goal("core: hierarchy, k 5", "core", f"hierarchy, k 5{_CHUNK_S}", "≥", 20, "M rows/s", "20.7"),
    Goal("core: optimal, k 5", "core", f"optimal, k 5{_CHUNK_S}", "≥", 8, "M rows/s", "10.9"),
    Goal("core: optimal, k 20", "core", f"optimal, k 20{_CHUNK_S}", "≥", 5, "M rows/s", "6.14"),
    Goal("core: hierarchy, k 5 sources", "core", "hierarchy, k 5, source, chunk", "≥", 12, "M rows/s", "13.6"),
    Goal("1000 wearers live: p99, lateness 2 s", "live", "1000 wearers, window end to visible, p99", "≤", 4, "s", "5.76"),
    Goal("1000 wearers live: drift of the delay", "live", "1000 wearers, p50 of the last third − of the first", "≤", 0.3, "s", "-0.0927"),
    Goal("1000 wearers live: memory", "live", "1000 wearers, peak memory", "≤", 400, "MiB", "447"),
    Goal("50 × the rows, per row", "growth", "25,920,000 rows, to disk ÷ the fewest", "≤", 1.10, "", "1.29"),
)  # fmt: skip

_PEERS = "every peer: its time ÷ ours, or its squared error ÷ ours if that is larger"

#: In the order of the table.
MEASURES = (*(goal.measure for goal in GOALS), _PEERS)


def goals_table(measured: Measured) -> dict[str, str]:
    """Return the rows of the table of goals, by measure; none for what was not measured."""
    rows = {}
    for goal in GOALS:
        series = measured.get(goal.part, {}).get(goal.series)
        if series is not None:
            limit = f"{goal.bound} {goal.limit:.3g} {goal.unit}".strip()
            rows[goal.measure] = _row(goal.measure, limit, goal.before, cell(series), is_met=goal.is_met(series.median))
    if "peers" in measured:
        rows[_PEERS] = _peers_row(measured)
    return rows


def _peers_row(measured: Measured) -> str:
    least = min(map(_lead, _with_ending(measured, ", theirs ÷ ours")), default=float("nan"))
    return _row(_PEERS, "> 1", "1.81", f"{number(least)} at the least", is_met=least > 1)


def _with_ending(measured: Measured, ending: str) -> Sequence[tuple[float, float]]:
    """Return, for each peer, how many times our time and our error its own are."""
    found = []
    for part in measured.values():
        for name, series in part.items():
            if name.endswith(ending) and ", squared error" not in name:
                error = part.get(f"{name.removesuffix(ending)}, squared error{ending}")
                found.append((series.median, error.median if error else 0.0))
    return found


def _lead(of_peer: tuple[float, float]) -> float:
    return max(of_peer)


def _row(measure: str, goal: str, before: str, now: str, *, is_met: bool) -> str:
    return f"| {measure} | {goal} | {before} | {now} | {'met' if is_met else '**missed**'} |"


def cell(series: Series) -> str:
    """Return a median with its unit, and the spread where there is one."""
    shown = [number(value) for value in (series.median, min(series.values), max(series.values))]
    spread = f" ({shown[1]}–{shown[2]})" if len(set(shown)) > 1 else ""
    return f"{shown[0]} {series.unit}".strip() + spread


def number(value: float) -> str:
    """Return three digits of a number, one more where it would else look like 1, or all of a large one."""
    if 0 < abs(value - 1) < 0.005:
        return f"{value:.4g}"
    return f"{value:,.0f}" if 1000 <= abs(value) < float("inf") else f"{value:.3g}"
