"""Snapshots of a service in every state that an operator may see, made by hand."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from anonymizer.batch import WindowCounts
from anonymizer.fidelity_sums import Fidelity
from anonymizer.windows import NANOSECONDS
from service.status.snapshot import (
    Dependency,
    Durations,
    Levels,
    Moment,
    OutputState,
    Pace,
    Run,
    Snapshot,
    SpoolState,
    Trouble,
)
from service.telemetry.fidelity_steps import FidelityStep
from service.telemetry.totals import Totals

#: 2025-11-03 14:30:00 UTC.
NOW_NS = 1762180200 * NANOSECONDS

CSV, INFLUXDB, API = "csv:./output", "influxdb:http://influxdb:8086/anonymized-data", "api:https://research.example/api/data"


def moments_until(now_ns: int) -> tuple[Moment, ...]:
    """Return half an hour in which two windows were released every ten seconds, some withheld, a few rows late."""
    start_ns = now_ns // (10 * NANOSECONDS) * 10 * NANOSECONDS
    return tuple(
        Moment(
            start_ns - (180 - index) * 10 * NANOSECONDS,
            windows_released=2 - (index % 31 == 0),
            windows_withheld=int(index % 31 == 0),
            rows_read=4320,
            rows_late=3 if index in (40, 41, 120) else 0,
            lag_s=max(0.0, 1.2 * math.sin(index / 9)),
        )
        for index in range(181)
    )


def output(name: str, **changes: Any) -> OutputState:
    """Return an output that has taken everything."""
    healthy = OutputState(
        name=name,
        kind=name.partition(":")[0],
        position=412,
        taken=889_920,
        set_aside=0,
        pending=0,
        unaccounted=0,
        retries=0,
        trouble=None,
        last_error=None,
        has_ended=False,
    )
    return dataclasses.replace(healthy, **changes)


def healthy(now_ns: int = NOW_NS, changes: Mapping[str, Any] = MappingProxyType({})) -> Snapshot:
    """Return a stream that goes well, with changes named as in `changed`."""
    counts = WindowCounts(read=892_000, released=889_920, withheld=2_068, invalid=12, duplicate=0, starred=0, suppressed=0)
    snapshot = Snapshot(
        now_ns=now_ns,
        run=Run(
            started_ns=now_ns - 1830 * NANOSECONDS,
            phase="working",
            is_stream=True,
            windows_in_all=None,
            up_to_ns=(now_ns // NANOSECONDS // 5 * 5 - 15) * NANOSECONDS,
        ),
        pace=Pace(lag_s=0.0, lag_limit_s=60.0, idle_s=0.4, idle_limit_s=240.0),
        source=Dependency(),
        state=Dependency(),
        spool=SpoolState(size_bytes=0, limit_bytes=1 << 30, is_full=False),
        totals=Totals(counts, windows=418, withheld_windows=6, without_time=2, late=9, groups=31_204, smallest_group=5),
        levels=Levels((310_000, 240_100, 280_000, 0, 0, 0, 0, 55_000, 0), windows=408),
        fidelity=FidelityStep(12, Fidelity(rows=25_920, raw=400.0, released=400.0, together=396.0, error=4.0)),
        durations=Durations((0, 0, 12, 300, 400, 412, 412, 412, 412, 412, 412), 412, 21.4),
        outputs=(output(CSV), output(INFLUXDB), output(API)),
        moments=moments_until(now_ns),
        workers=2,
    )
    return changed(snapshot, changes)


def changed(snapshot: Snapshot, changes: Mapping[str, Any]) -> Snapshot:
    """Return a snapshot with other values, each named by its path, such as `pace.lag_s`."""
    for path, value in changes.items():
        part, _, name = path.rpartition(".")
        new = dataclasses.replace(getattr(snapshot, part), **{name: value}) if part else value
        snapshot = dataclasses.replace(snapshot, **{part or path: new})
    return snapshot


def one_output_down(now_ns: int = NOW_NS) -> Snapshot:
    """Return a stream of which one output takes nothing."""
    trouble = Trouble(now_ns - 95 * NANOSECONDS, "API at https://research.example/api/data cannot be reached: connection refused")
    down = output(API, position=393, taken=848_880, pending=41_040, retries=7, trouble=trouble, last_error=trouble)
    return healthy(now_ns, {"outputs": (output(CSV), output(INFLUXDB), down), "spool.size_bytes": 820_800})


def source_down(now_ns: int = NOW_NS) -> Snapshot:
    """Return a stream whose database does not answer."""
    trouble = Trouble(now_ns - 42 * NANOSECONDS, "InfluxDB at http://influxdb:8086 cannot be reached: connection refused")
    return healthy(now_ns, {"source": Dependency(trouble, retries=6), "pace.lag_s": 37.0})


def behind(now_ns: int = NOW_NS) -> Snapshot:
    """Return a stream that has much to catch up with."""
    past = [dataclasses.replace(one, lag_s=15.0 * index) for index, one in enumerate(moments_until(now_ns))]
    return healthy(now_ns, {"pace.lag_s": 2712.0, "run.up_to_ns": now_ns - 2727 * NANOSECONDS, "moments": tuple(past)})
