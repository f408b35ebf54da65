"""A baseline in plain Python, as scripts usually do it.

The official client's `query()` builds one object per row; each record is looked up in a dictionary of the hierarchy; records are counted
level by level in Python; every released row becomes a `Point`, written synchronously.
"""

from __future__ import annotations

import csv
import statistics
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from influxdb_client import InfluxDBClient, Point, WritePrecision
from influxdb_client.client.write_api import SYNCHRONOUS

import anonymizer
from benchmarks.database import START_NS
from testbed.influxdb_server import InfluxServer

_HIERARCHY = Path(anonymizer.__file__).with_name("smarko_hierarchy_ecg.csv")

_LEVELS = 7

_POINTS_PER_WRITE = 5_000


@dataclass(slots=True)
class Record:
    """One row."""

    time: Any
    source: str
    value: float


def load_hierarchy() -> dict[int, list[str]]:
    """Return each value's ranges, finest level first."""
    with _HIERARCHY.open(encoding="utf-8", newline="") as file:
        return {int(row[0]): row[1:] for row in csv.reader(file)}


def anonymize(records: list[Record], hierarchy: dict[int, list[str]], k: int) -> list[Record]:
    """Return each record with the midpoint of the first range that k records share; the others get the mean of these values."""
    unplaced, released, placed_values = list(records), [], []
    for level in range(_LEVELS):
        ranges = [hierarchy[min(2500, max(-2500, round(record.value)))][level] for record in unplaced]
        sharing = Counter(ranges)
        left = []
        for record, name in zip(unplaced, ranges, strict=True):
            if sharing[name] >= k:
                low, high = name.split(";")
                value = (float(low) + float(high)) / 2
                placed_values.append(value)
                released.append(Record(record.time, record.source, value))
            else:
                left.append(record)
        unplaced = left
    imputed = statistics.fmean(placed_values) if placed_values else 0.0
    return released + [Record(record.time, record.source, imputed) for record in unplaced]


def seconds_end_to_end(server: InfluxServer, bucket: str, copy: str, *, windows: int, window_s: int = 5, k: int = 5) -> float:
    """Return the seconds that some windows take from bucket to bucket."""
    server.make_bucket(copy)
    hierarchy = load_hierarchy()
    with InfluxDBClient(url=server.url, token=server.token, org=server.org) as client:
        queries, writes = client.query_api(), client.write_api(write_options=SYNCHRONOUS)
        started_s = time.perf_counter()
        for number in range(windows):
            start_ns = START_NS + number * window_s * 10**9
            tables = queries.query(
                f'from(bucket: "{bucket}") |> range(start: time(v: {start_ns}), stop: time(v: {start_ns + window_s * 10**9})) '
                '|> filter(fn: (r) => r._measurement == "ecg" and r._field == "ecg")'
            )
            records = [
                Record(row.get_time(), row["source_id"], float(row.get_value())) for table in tables for row in table.records
            ]
            points = [point_of(record) for record in anonymize(records, hierarchy, k)]
            for first in range(0, len(points), _POINTS_PER_WRITE):
                writes.write(bucket=copy, record=points[first : first + _POINTS_PER_WRITE])
        return time.perf_counter() - started_s


def point_of(record: Record) -> Point:
    """Return one row as the client's object."""
    point = Point("ecg_anonymized").tag("source_id", record.source).field("ecg", record.value)
    return point.time(record.time, WritePrecision.NS)
