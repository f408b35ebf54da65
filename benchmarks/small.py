"""Small things that must be quick: loading the hierarchy, a few thousand records, a thousand points, the first window after a start."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

import anonymizer
from anonymizer.anonymize import Recipe, anonymize_chunk
from anonymizer.batch import Batch, Promise
from anonymizer.hierarchy import Hierarchy, parse_hierarchy
from anonymizer.level_hierarchy_anonymizer import LevelHierarchyAnonymizer
from anonymizer.pseudonyms import KeptIds
from anonymizer.samples import make_samples
from anonymizer.verify import verify
from anonymizer.windows import NANOSECONDS, WindowRange
from benchmarks.database import START_NS, connect
from benchmarks.figures import ROOT, Figures
from benchmarks.live import idle_percent
from benchmarks.service_runs import first_window_s
from outputs.influx_lines import InfluxTarget
from outputs.influxdb import InfluxOutput
from testbed.influxdb_server import start_server
from testbed.wearers import Wearers

_HIERARCHY = Path(anonymizer.__file__).with_name("smarko_hierarchy_ecg.csv")

_WINDOW = WindowRange(START_NS, START_NS + 5 * NANOSECONDS, 5 * NANOSECONDS)


def measure(*, repeats: int) -> Figures:
    """Return the figures, in milliseconds."""
    figures = Figures(f"Small things, {repeats} rounds")
    hierarchy = _hierarchy()
    with start_server() as server, tempfile.TemporaryDirectory() as folder:
        server.make_bucket("released")
        output = InfluxOutput(
            connect(server), InfluxTarget(bucket="released", measurement="ecg", field="ecg", source_tag="source_id")
        )
        output.open({})
        file = _a_minute_in(Path(folder))
        for _ in range(repeats):
            figures.add("hierarchy loaded", _milliseconds(_hierarchy), "ms")
            for rows in (1_000, 10_000, 18_000):
                figures.add(f"{rows:,} records anonymized and verified", _milliseconds(partial(_batch, rows, hierarchy)), "ms")
            points = _batch(1_000, hierarchy)
            figures.add("1,000 points written", _milliseconds(partial(output.write, points)), "ms")
            figures.add("start to the first released window, file to CSV", first_window_s(file), "s")
            figures.add("of which importing what that needs", _import_s(), "s")
        figures.add("a stream to which nothing comes", idle_percent(server), "% of a core")
    return figures


def _import_s() -> float:
    began_s = time.perf_counter()
    subprocess.run(
        [sys.executable, "-c", "import central_anonymizer, inputs.file_source, outputs.csv_files"], cwd=ROOT, check=True
    )
    return time.perf_counter() - began_s


def _milliseconds(action: Callable[[], object]) -> float:
    started_s = time.perf_counter()
    action()
    return 1000 * (time.perf_counter() - started_s)


def _hierarchy() -> Hierarchy:
    return parse_hierarchy(_HIERARCHY.read_text(encoding="utf-8"))


def _batch(rows: int, hierarchy: Hierarchy) -> Batch:
    """Return one window of this many rows, anonymized and verified."""
    worn = Wearers(10)
    samples = worn.samples_between(_WINDOW.start_ns, _WINDOW.end_ns)
    some = make_samples(samples.times_ns[:rows], samples.wearer[:rows], worn.source_ids, samples.values_uv[:rows])
    method = LevelHierarchyAnonymizer(hierarchy, 5)
    (result,) = anonymize_chunk(some, _WINDOW, Recipe(method, KeptIds(), Promise(5, "record", "hierarchy"), "benchmark")).results
    assert result.batch is not None
    return result.batch.certified(verify(result.batch))


def _a_minute_in(folder: Path) -> Path:
    worn = Wearers(6)
    samples = worn.samples_between(START_NS, START_NS + 60 * NANOSECONDS)
    ids = pa.DictionaryArray.from_arrays(pa.array(samples.wearer, pa.int32()), list(worn.source_ids))
    times = pa.array(samples.times_ns, pa.timestamp("ns", tz="UTC"))
    pq.write_table(
        pa.table({"timestamp": times, "source_id": ids, "ecg": pa.array(samples.values_uv)}), folder / "minute.parquet"
    )
    return folder / "minute.parquet"
