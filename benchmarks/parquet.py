"""What Parquet files cost beside CSV, in time and bytes: written by the outputs alone, and by the whole service; no server involved."""

from __future__ import annotations

import multiprocessing
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from anonymizer.batch import Batch, Certificate, Promise, WindowCounts
from anonymizer.windows import NANOSECONDS, Window
from benchmarks.database import START_NS
from benchmarks.figures import Figures
from benchmarks.growth import recording
from benchmarks.service_runs import peak_memory_mib, run_service
from outputs.csv_files import CsvFiles
from outputs.parquet_files import ParquetFiles
from outputs.parquet_places import Folder
from testbed.wearers import Wearers

#: Six wearers at 360 Hz for 200 minutes: 26 million rows.
_WEARERS, _HERTZ, _MINUTES = 6, 360, 200
_WINDOW_S = 5
_WINDOWS_PER_CHUNK = 18

_KINDS = ("CSV", "Parquet")


def measure(*, repeats: int) -> Figures:
    """Return rows per second and bytes per row of each, and how they compare."""
    figures = Figures(f"{_WEARERS * _HERTZ * _MINUTES * 60:,} rows to files, {repeats} rounds")
    with tempfile.TemporaryDirectory() as name:
        path, rows = recording(Path(name), wearers=_WEARERS, hertz=_HERTZ, seconds=60 * _MINUTES)
        for _ in range(repeats):
            alone = {kind: _alone(kind) for kind in _KINDS}
            for kind, (seconds, size_bytes, peak_mib) in alone.items():
                figures.add(f"{kind} output alone", rows / seconds / 1e6, "M rows/s")
                figures.add(f"{kind} output alone, size", size_bytes / rows, "bytes/row")
                figures.add(f"{kind} output alone, peak memory", peak_mib, "MiB")
            figures.add("Parquet ÷ CSV, rows/s", alone["CSV"][0] / alone["Parquet"][0], "")
            figures.add("CSV ÷ Parquet, bytes", alone["CSV"][1] / alone["Parquet"][1], "")
            for kind in _KINDS:
                with tempfile.TemporaryDirectory() as disk:
                    to = {f"OUTPUT_TO_{kind.upper()}": "true", "CSV_FILENAME_PATTERN": "all_%Y.csv"}
                    to |= {"STATE_DIR": f"{disk}/state", "CSV_OUTPUT_DIR": f"{disk}/csv", "PARQUET_URL": f"{disk}/parquet"}
                    run = run_service({**to, "INPUT_FILE": str(path)}, rows=rows)
                    figures.add(f"service, file → {kind}", 1e6 * run.wall_s / rows, "µs/row")
                    figures.add(f"service, file → {kind}, size", _size_of(Path(disk, kind.lower())) / rows, "bytes/row")
                    figures.add(f"service, file → {kind}, peak memory", run.peak_mib, "MiB")
    return figures


def _alone(kind: str) -> tuple[float, int, float]:
    """Return seconds, bytes and peak memory of one output that is given everything, in a process of its own."""
    with tempfile.TemporaryDirectory() as folder, multiprocessing.get_context("spawn").Pool(1) as pool:
        seconds, peak_mib = pool.apply(_write, (kind, folder))
        return seconds, _size_of(Path(folder)), peak_mib


def _write(kind: str, folder: str) -> tuple[float, float]:
    seconds = 0.0
    output = CsvFiles(Path(folder), "all_%Y.csv") if kind == "CSV" else ParquetFiles(Folder(Path(folder)), "hour")
    output.open({})
    for chunk in _chunks():
        started_s = time.perf_counter()
        if isinstance(output, ParquetFiles):
            output.write_chunk(chunk)
        else:
            for batch in chunk:
                output.intent(batch)
                output.write(batch)
        seconds += time.perf_counter() - started_s
    return seconds, peak_memory_mib(os.getpid())


def _chunks() -> Iterator[list[Batch]]:
    worn = Wearers(_WEARERS, hertz=_HERTZ)
    # As released ids are while there are pseudonyms.
    ids = tuple(f"{number:064x}" for number in range(_WEARERS))
    windows = 60 * _MINUTES // _WINDOW_S
    for first in range(0, windows, _WINDOWS_PER_CHUNK):
        yield [_batch(worn, ids, number) for number in range(first, min(first + _WINDOWS_PER_CHUNK, windows))]


def _batch(worn: Wearers, ids: tuple[str, ...], number: int) -> Batch:
    start_ns = START_NS + number * _WINDOW_S * NANOSECONDS
    window = Window(start_ns, start_ns + _WINDOW_S * NANOSECONDS)
    samples = worn.samples_between(window.start_ns, window.end_ns)
    order = np.lexsort((samples.wearer, samples.times_ns))
    rows = len(order)
    return Batch(
        batch_id=f"0123456789ab-{window.start_ns}-{window.end_ns}",
        window=window,
        times_ns=samples.times_ns[order],
        source_index=samples.wearer[order].astype(np.int32),
        source_ids=ids,
        # About as many different values as groups of k leave.
        values_uv=np.round(samples.values_uv[order] / 5) * 5,
        promise=Promise(k=5, k_unit="record", method="hierarchy", settings_digest="00112233aabbccdd", key_id="0011"),
        counts=WindowCounts(read=rows, released=rows),
        certificate=Certificate(distinct_values=100, smallest_group=5, distinct_sources=len(ids)),
    )


def _size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
