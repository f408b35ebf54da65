"""Time per row as the number of rows or sources grows: the whole service, from a file to CSV, without a server."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from anonymizer.windows import NANOSECONDS
from benchmarks.database import START_NS
from benchmarks.figures import Figures
from benchmarks.service_runs import Run, run_service
from testbed.wearers import Wearers

#: Minutes of six wearers at 360 Hz: 1, 10 and 50 times as many rows.
_MINUTES = (4, 40, 200)

#: Wearers, samples per second and seconds per window: about 12,800 rows per window, so that only the number of sources grows.
_WEARERS = ((1, 128, 100), (12, 128, 8), (100, 128, 1), (1000, 13, 1))
_WINDOWS = 60

#: Repetitions of runs that take a fraction of a second.
_SHORT_RUNS = 5

#: One file for all windows; otherwise creating files would dominate.
_ONE_FILE = {"OUTPUT_TO_CSV": "true", "CSV_FILENAME_PATTERN": "all_%Y.csv"}

#: Writing gigabytes slows a disk down; in memory only the program itself is measured.
_DISKS = {"to disk": None, **({"to memory": "/dev/shm"} if Path("/dev/shm").is_dir() else {})}


def measure(*, repeats: int) -> Figures:
    """Return microseconds per row, absolute and relative to the smallest size.

    The time of the whole process counts, since it reads the file at the start; that of a run on a single window is subtracted.
    """
    figures = Figures(f"Growth, {repeats} rounds")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        by_rows = [recording(folder, wearers=6, hertz=360, seconds=60 * minutes) for minutes in _MINUTES]
        by_sources = [
            recording(folder, wearers=wearers, hertz=hertz, seconds=_WINDOWS * window_s) for wearers, hertz, window_s in _WEARERS
        ]
        one_window, rows_of_one = recording(folder, wearers=6, hertz=360, seconds=5)
        for _ in range(repeats):
            start_s = _median_s(
                run_service({**_ONE_FILE, "INPUT_FILE": str(one_window)}, rows=rows_of_one) for _ in range(_SHORT_RUNS)
            )
            for where, written_to in _DISKS.items():
                first = None
                for path, rows in by_rows:
                    runs = [_run_on(written_to, path, rows) for _ in range(_SHORT_RUNS if first is None else 1)]
                    per_row_us = figures.add(f"{rows:>11,} rows, {where}", 1e6 * (_median_s(runs) - start_s) / rows, "µs/row")
                    first = first or per_row_us
                    figures.add(f"{rows:>11,} rows, {where} ÷ the fewest", per_row_us / first, "")
                    figures.add(f"{rows:>11,} rows, {where}, peak memory", max(run.peak_mib for run in runs), "MiB")
            first = None
            for (path, rows), (wearers, _hertz, window_s) in zip(by_sources, _WEARERS, strict=True):
                settings = {**_ONE_FILE, "INPUT_FILE": str(path), "BATCH_SIZE_SECONDS": str(window_s)}
                run = run_service(settings, rows=rows)
                per_row_us = figures.add(f"{wearers:>5} sources", 1e6 * (run.wall_s - start_s) / rows, "µs/row")
                first = first or per_row_us
                figures.add(f"{wearers:>5} sources ÷ one", per_row_us / first, "")
    return figures


def _run_on(written_to: str | None, path: Path, rows: int) -> Run:
    with tempfile.TemporaryDirectory(dir=written_to) as disk:
        folders = {"STATE_DIR": f"{disk}/state", "CSV_OUTPUT_DIR": f"{disk}/csv"}
        return run_service({**_ONE_FILE, "INPUT_FILE": str(path), **folders}, rows=rows)


def _median_s(runs: Iterable[Run]) -> float:
    return statistics.median(run.wall_s for run in runs)


def recording(folder: Path, *, wearers: int, hertz: int, seconds: int, from_s: int = 0) -> tuple[Path, int]:
    """Write a Parquet file minute by minute; return it and its rows."""
    path = folder / f"{wearers}-{hertz}-{seconds}{f'-from-{from_s}' if from_s else ''}.parquet"
    worn = Wearers(wearers, hertz=hertz)
    schema = pa.schema([("timestamp", pa.timestamp("ns", tz="UTC")), ("source_id", pa.string()), ("ecg", pa.float64())])
    rows = 0
    with pq.ParquetWriter(path, schema) as writer:
        for first in range(from_s, from_s + seconds, 60):
            span = [START_NS + second * NANOSECONDS for second in (first, min(first + 60, from_s + seconds))]
            samples = worn.samples_between(*span)
            ids = pa.DictionaryArray.from_arrays(pa.array(samples.wearer, pa.int32()), list(worn.source_ids)).cast(pa.string())
            columns = [pa.array(samples.times_ns, schema.field(0).type), ids, pa.array(samples.values_uv, pa.float64())]
            writer.write_table(pa.table(columns, schema=schema))
            rows += len(samples.times_ns)
    return path, rows
