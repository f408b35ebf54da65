"""InfluxDB 1, 2 and 3, each in its language: to read alone, and from InfluxDB to InfluxDB, in turn in one run."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from anonymizer.windows import NANOSECONDS, WindowRange
from benchmarks.database import START_NS, RawEcg
from benchmarks.figures import Figures
from benchmarks.service_runs import run_service, settings_for
from inputs.influx_dialect import InfluxSeries
from inputs.influx_source import InfluxSource
from testbed.influxdb1_server import start_server1
from testbed.influxdb3_server import start_server3
from testbed.influxdb_server import start_server
from transport.influx_connection import Address, InfluxConnection
from transport.influx_versions import Language

_WINDOW_NS = 5 * NANOSECONDS
_WINDOWS_PER_READ = 60


@dataclass(frozen=True, slots=True)
class _Way:
    """One server asked in one language."""

    name: str
    server: Any
    language: Language
    raw: RawEcg


def measure(*, wearers: int, minutes: int, repeats: int) -> Figures:
    """Return the figures of each version; of version 3 where INFLUXDB3 names a program."""
    figures = Figures(f"Versions, {wearers * minutes * 60 * 360:,} rows of {wearers} wearers at 360 Hz, {repeats} rounds")
    with ExitStack() as servers:
        ways = list(_ways(servers, wearers, minutes))
        for number in range(repeats):
            for way in ways:
                _measure(figures, way, number)
    return figures


def _ways(servers: ExitStack, wearers: int, minutes: int) -> Iterator[_Way]:
    started: list[tuple[str, Any, tuple[Language, ...]]] = [
        ("2", servers.enter_context(start_server()), ("flux", "influxql")),
        ("1", servers.enter_context(start_server1()), ("influxql",)),
    ]
    if os.environ.get("INFLUXDB3"):
        started.append(("3", servers.enter_context(start_server3()), ("influxql",)))
    for version, server, languages in started:
        raw = RawEcg(server, "raw_data", wearers, minutes)
        raw.load()
        for language in languages:
            yield _Way(f"{version} in {'Flux' if language == 'flux' else 'InfluxQL'}", server, language, raw)


def _measure(figures: Figures, way: _Way, number: int) -> None:
    raw, released = way.raw, f"released-{way.language}-{number}"
    read_s = figures.add(f"{way.name}, count and read alone", _seconds_to_read(way))
    figures.add(f"{way.name}, count and read alone, rate", raw.rows / read_s / 1e6, "M rows/s")
    way.server.make_bucket(released)
    settings = {**settings_for(way.server), "INFLUX_QUERY_LANGUAGE": way.language, "QUERY_START_TIME": "2025-11-03T14:30:00Z"}
    run = run_service(
        {**settings, "QUERY_END_TIME": raw.end, "OUTPUT_TO_INFLUX": "true", "INFLUX_OUTPUT_BUCKET": released}, rows=raw.rows
    )
    figures.add(f"{way.name}, InfluxDB → InfluxDB", run.seconds)
    figures.add(f"{way.name}, InfluxDB → InfluxDB, rate", raw.rows / run.seconds / 1e6, "M rows/s")
    figures.add(f"{way.name}, InfluxDB → InfluxDB, processor", run.cpu_s / raw.rows * 1e6, "s/M rows")


def _seconds_to_read(way: _Way) -> float:
    address = Address(url=way.server.url, org=way.server.org, timeout_s=120, language=way.language)
    series = InfluxSeries(bucket=way.raw.bucket, measurement="ecg", field="ecg", source_tag="source_id")
    source = InfluxSource(InfluxConnection(address, lambda: way.server.token), series)
    source.open()
    started_s, found = time.perf_counter(), 0
    for start_ns in range(START_NS, way.raw.end_ns, _WINDOWS_PER_READ * _WINDOW_NS):
        windows = WindowRange(start_ns, min(start_ns + _WINDOWS_PER_READ * _WINDOW_NS, way.raw.end_ns), _WINDOW_NS)
        samples = source.read(windows)
        if int(source.count(windows).sum()) != len(samples):
            raise SystemExit(f"InfluxDB {way.name} did not answer with all rows")
        found += len(samples)
    seconds = time.perf_counter() - started_s
    source.close()
    if found != way.raw.rows:
        raise SystemExit(f"{found} of {way.raw.rows} rows were read of InfluxDB {way.name}")
    return seconds
