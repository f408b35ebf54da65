"""Things to tell a board: outputs, units of windows, settings."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from anonymizer.anonymize import WindowResult, WindowStatistics
from anonymizer.batch import Batch, Certificate, Promise, WindowCounts
from anonymizer.windows import NANOSECONDS, Window, WindowRange
from outputs.memory import MemoryOutput
from service.settings.declared import Settings
from service.settings.load import load
from service.telemetry.events import Unit

LENGTH_NS = 5 * NANOSECONDS


class Sink(MemoryOutput):
    """An output of any name."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self.kind = name.partition(":")[0]


def settings_with(**changes: object) -> Settings:
    """Return settings of a stream from InfluxDB, with changes."""
    given = {"INFLUX_ORG": "ward", "INFLUX_TOKEN": "read-only-token", "STREAMING_MODE": "true"}
    return load(Path("no.env"), {**given, **{name: str(value) for name, value in changes.items()}}).settings


def unit(*windows: dict[int, int], start_ns: int = 0, smallest: int = 5, groups: int = 4, **counts: int) -> Unit:
    """Return a unit of windows, each given as rows by level (0: withheld); `counts` are added to each window's."""
    results = tuple(
        _result(Window(start_ns + index * LENGTH_NS, start_ns + (index + 1) * LENGTH_NS), levels, smallest, groups, counts)
        for index, levels in enumerate(windows)
    )
    return Unit(WindowRange(start_ns, start_ns + len(windows) * LENGTH_NS, LENGTH_NS), results)


def _result(window: Window, levels: dict[int, int], smallest: int, groups: int, more: dict[str, int]) -> WindowResult:
    rows_at_level = np.zeros(10, dtype=np.int64)
    for level, rows in levels.items():
        rows_at_level[level] = rows
    withheld, read = levels.get(0, 0), sum(levels.values()) + sum(more.values())
    released = sum(levels.values()) - withheld
    counts = WindowCounts(read=read, released=released, withheld=withheld, **more)
    batch = Batch(
        batch_id="b",
        window=window,
        times_ns=np.full(released, window.start_ns),
        source_index=np.zeros(released, dtype=np.int32),
        source_ids=("a",),
        values_uv=np.zeros(released),
        promise=Promise(5, "record", "hierarchy"),
        counts=counts,
        certificate=Certificate(groups, smallest, 1),
    )
    statistics = WindowStatistics(rows_at_level, groups=groups, coded=0, unchanged=0)
    return WindowResult(window, counts, statistics, batch if released else None)
