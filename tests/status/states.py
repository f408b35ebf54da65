"""Snapshots of a service in every state a person may meet it in, made by hand."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from anonymizer.batch import WindowCounts
from anonymizer.fidelity_sums import Fidelity
from anonymizer.windows import NANOSECONDS
from service.status.snapshot import Durations, Moment, OutputState, Snapshot, Trouble
from service.telemetry.fidelity_totals import FidelityStep

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


def healthy(now_ns: int = NOW_NS, **changes: Any) -> Snapshot:
    """Return a stream that goes well."""
    snapshot = Snapshot(
        now_ns=now_ns,
        started_ns=now_ns - 1830 * NANOSECONDS,
        phase="working",
        is_stream=True,
        windows_in_all=None,
        up_to_ns=(now_ns // NANOSECONDS // 5 * 5 - 15) * NANOSECONDS,
        lag_s=0.0,
        idle_s=0.4,
        idle_limit_s=240.0,
        lag_limit_s=60.0,
        source_trouble=None,
        state_trouble=None,
        reading_pauses=False,
        counts=WindowCounts(read=892_000, released=889_920, withheld=2_068, invalid=12, duplicate=0, starred=0, suppressed=0),
        windows={"released": 412, "withheld": 6, "empty": 0, "expired": 0, "skipped": 0},
        violations=0,
        rows_late=9,
        rows_outside=0,
        invalid_by_reason={"time": 2, "source": 0, "number": 10},
        rows_contradictory=0,
        unaccounted=0,
        rows_at_level=(310_000, 240_100, 280_000, 0, 0, 0, 0, 55_000, 0),
        windows_in_levels=408,
        fidelity=FidelityStep(12, Fidelity(rows=25_920, raw=400.0, released=400.0, together=396.0, error=4.0)),
        groups=31_204,
        smallest_group=5,
        durations=Durations((0, 0, 12, 300, 400, 412, 412, 412, 412, 412, 412), 412, 21.4),
        source_retries=0,
        state_retries=0,
        spool_bytes=0,
        spool_limit_bytes=1 << 30,
        outputs=(output(CSV), output(INFLUXDB), output(API)),
        moments=moments_until(now_ns),
    )
    return dataclasses.replace(snapshot, **changes)


def one_output_down(now_ns: int = NOW_NS) -> Snapshot:
    """Return a stream of which one output takes nothing."""
    trouble = Trouble(now_ns - 95 * NANOSECONDS, "API at https://research.example/api/data cannot be reached: connection refused")
    down = output(API, position=393, taken=848_880, pending=41_040, retries=7, trouble=trouble, last_error=trouble)
    return healthy(now_ns, outputs=(output(CSV), output(INFLUXDB), down), spool_bytes=820_800)


def source_down(now_ns: int = NOW_NS) -> Snapshot:
    """Return a stream whose database does not answer."""
    trouble = Trouble(now_ns - 42 * NANOSECONDS, "InfluxDB at http://influxdb:8086 cannot be reached: connection refused")
    return healthy(now_ns, source_trouble=trouble, source_retries=6, lag_s=37.0)


def behind(now_ns: int = NOW_NS) -> Snapshot:
    """Return a stream that has much to catch up with."""
    past = [dataclasses.replace(one, lag_s=15.0 * index) for index, one in enumerate(moments_until(now_ns))]
    return healthy(now_ns, lag_s=2712.0, up_to_ns=now_ns - 2727 * NANOSECONDS, moments=tuple(past))
