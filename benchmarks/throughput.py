"""Throughput to a bucket, to files and to all three outputs, interleaved with the server's own baselines in one run."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks import classic
from benchmarks.database import (
    START_NS,
    RawEcg,
    processor_seconds,
    released_lines,
    seconds_to_copy,
    seconds_to_read,
    seconds_to_write,
)
from benchmarks.figures import Figures
from benchmarks.service_runs import Run, run_service, settings_for
from benchmarks.sink import sink
from testbed.influxdb_server import start_server
from testbed.wearers import Wearers

#: Connections with which the service writes.
CONNECTIONS = 2

#: The plain-Python baseline runs on these windows only; all would take minutes.
_CLASSIC_WINDOWS = 3


def measure(*, wearers: int, minutes: int, repeats: int) -> Figures:
    """Return the figures of all paths through the service."""
    figures = Figures(f"{wearers * minutes * 60 * 360:,} rows of {wearers} wearers at 360 Hz, {repeats} rounds")
    with start_server() as server, sink() as api:
        raw = RawEcg(server, "raw_data", wearers, minutes)
        raw.load()
        common = {**settings_for(server), "QUERY_START_TIME": "2025-11-03T14:30:00Z", "QUERY_END_TIME": raw.end}
        for number in range(repeats):
            _one_round(figures, raw, common, api, number)
    _file_to_files(figures, wearers=wearers, minutes=minutes, repeats=repeats)
    return figures


def _one_round(figures: Figures, raw: RawEcg, common: dict[str, str], api: str, number: int) -> None:
    server, rows = raw.server, raw.rows
    released = f"released-{number}"
    server.make_bucket(released)
    to_influx = {**common, "OUTPUT_TO_INFLUX": "true", "INFLUX_OUTPUT_BUCKET": released}

    used_s = [processor_seconds(server)]
    read_s = figures.add("read alone", seconds_to_read(raw))
    used_s.append(processor_seconds(server))
    run = run_service(to_influx, rows=rows)
    used_s.append(processor_seconds(server))
    _note(figures, "InfluxDB → InfluxDB", run, rows)
    requests = released_lines(raw, released)
    before_s = processor_seconds(server)
    write_s = figures.add(
        f"write alone, {CONNECTIONS} connections", seconds_to_write(server, f"copy-{number}", requests, connections=CONNECTIONS)
    )
    figures.add("InfluxDB → InfluxDB ÷ (read alone + write alone)", run.seconds / (read_s + write_s), "")
    figures.add("InfluxDB → InfluxDB, process start included, ÷ (read alone + write alone)", run.wall_s / (read_s + write_s), "")
    alone_cpu_s = used_s[1] - used_s[0] + processor_seconds(server) - before_s
    figures.add("InfluxDB → InfluxDB, server's processor", used_s[2] - used_s[1])
    figures.add("read alone + write alone, server's processor", alone_cpu_s)
    figures.add("processor of server and service ÷ server's alone", (used_s[2] - used_s[1] + run.cpu_s) / alone_cpu_s, "")

    forgotten = f"forgotten-{number}"
    server.make_bucket(forgotten)
    without = run_service(
        {**to_influx, "INFLUX_OUTPUT_BUCKET": forgotten}, rows=rows, program=("-m", "benchmarks.forgetful_service")
    )
    figures.add("the same without journal and spool", without.seconds)
    figures.add("rate with journal and spool ÷ rate without", without.seconds / run.seconds, "")

    to_csv = run_service({**common, "OUTPUT_TO_CSV": "true"}, rows=rows)
    _note(figures, "InfluxDB → CSV", to_csv, rows)
    figures.add("InfluxDB → CSV ÷ read alone", to_csv.seconds / read_s, "")
    figures.add("InfluxDB → CSV, process start included, ÷ read alone", to_csv.wall_s / read_s, "")

    everywhere = f"everywhere-{number}"
    server.make_bucket(everywhere)
    to_all = {**to_influx, "INFLUX_OUTPUT_BUCKET": everywhere, "OUTPUT_TO_CSV": "true", "OUTPUT_TO_API": "true"}
    _note(figures, "InfluxDB → all three", run_service({**to_all, "API_ENDPOINT": api}, rows=rows), rows)

    copy_s = seconds_to_copy(raw, f"task-{number}")
    _compare(figures, "the server's own copy task, which anonymizes nothing", ours_s=run.seconds / rows, theirs_s=copy_s / rows)
    slice_rows = _CLASSIC_WINDOWS * 5 * 360 * raw.wearers
    classic_s = classic.seconds_end_to_end(server, raw.bucket, f"classic-{number}", windows=_CLASSIC_WINDOWS)
    _compare(figures, "the classic way", ours_s=run.seconds / rows, theirs_s=classic_s / slice_rows)
    for bucket in (released, f"copy-{number}", forgotten, everywhere, f"task-{number}", f"classic-{number}"):
        server.ask("DELETE", f"/api/v2/buckets/{server.bucket_id(bucket)}")


def _compare(figures: Figures, peer: str, *, ours_s: float, theirs_s: float) -> None:
    """Record what a row takes us, and somebody else, from bucket to bucket; named as in `benchmarks.peers`."""
    name = f"bucket to bucket, per row: {peer}"
    figures.add(f"{name}, ours", 1e6 * ours_s, "µs")
    figures.add(f"{name}, theirs", 1e6 * theirs_s, "µs")
    figures.add(f"{name}, theirs ÷ ours", theirs_s / ours_s, "×")


def _note(figures: Figures, name: str, run: Run, rows: int) -> None:
    figures.add(name, run.seconds)
    figures.add(f"{name}, rate", rows / run.seconds / 1e6, "M rows/s")
    figures.add(f"{name}, processor", run.cpu_s / rows * 1e6, "s/M rows")
    figures.add(f"{name}, peak memory", run.peak_mib, "MiB")


def _file_to_files(figures: Figures, *, wearers: int, minutes: int, repeats: int) -> None:
    worn = Wearers(wearers)
    samples = worn.samples_between(START_NS, START_NS + minutes * 60 * 10**9)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "raw.parquet"
        table = pa.table(
            {
                "timestamp": pa.array(samples.times_ns, pa.timestamp("ns", tz="UTC")),
                "source_id": pa.DictionaryArray.from_arrays(pa.array(samples.wearer, pa.int32()), list(worn.source_ids)),
                "ecg": pa.array(samples.values_uv),
            }
        )
        pq.write_table(table, path)
        for number in range(repeats):
            for kind in ("CSV", "Parquet"):
                to = {f"OUTPUT_TO_{kind.upper()}": "true", "PARQUET_URL": f"{folder}/{number}"}
                run = run_service({"INPUT_FILE": str(path), **to}, rows=len(table))
                _note(figures, f"file → {kind}", replace(run, seconds=run.wall_s), len(table))
