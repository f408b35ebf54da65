"""What workers are worth, and what ends it: file to Parquet with 1 and 2 workers, the coordinator alone, and Dask's own rate."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from anonymizer.anonymize import WindowResult, WindowStatistics
from anonymizer.batch import Batch, Certificate, Promise, WindowCounts
from anonymizer.hierarchy import SUPPRESSED_LEVEL
from anonymizer.samples import Contradictions
from anonymizer.units import UnitDoubts
from anonymizer.windows import HOUR_NS, Window, WindowRange
from benchmarks.database import START_NS
from benchmarks.figures import Figures
from benchmarks.growth import recording
from benchmarks.service_runs import Run as ServiceRun
from benchmarks.service_runs import run_service
from service.clock import SystemClock
from service.delivery.delivery import Delivery
from service.delivery.outbox import Store
from service.pipeline.chunks import Chunk, FinishedChunk
from service.pipeline.release_loop import Parts, run
from service.pipeline.schedule import Span
from service.retry import Retry
from service.scale.answers import answer_of
from service.scale.confidential import HandOver
from service.scale.coordinator import Chunks, OutputCourier, Run
from service.state.epochs import Epoch
from service.state.journal import Journal
from service.state.set_aside import SetAside
from service.state.shared_spool import MixedSpool, SharedSpool, Spooled
from service.telemetry.hub import Telemetry

#: Six wearers at 360 Hz: 31 million rows, 16 seconds of work for one process, in a file per hour.
_WEARERS, _HERTZ, _HOURS = 6, 360, 4

#: Rows of a chunk that is some tenths of a second of work: MAX_RECORDS_PER_QUERY counts four of them.
_ROWS_IN_HAND = 4_000_000

_CHUNKS, _WINDOWS_PER_CHUNK, _ROWS_PER_WINDOW, _GAPS = 400, 100, 100, 50_000

_LABEL = "0123456789ab"

_TASKS = 400


#: The parts of this benchmark, each of some minutes.
PARTS = ("workers", "coordinator", "dask")


def measure(*, repeats: int, parts: Sequence[str] = PARTS) -> Figures:
    """Return times and rates of these parts."""
    figures = Figures(f"Chunks handed to workers{'' if set(parts) == set(PARTS) else ': ' + ', '.join(parts)}, {repeats} rounds")
    if "workers" in parts:
        _measure_workers(figures, repeats)
    for _ in range(repeats if "coordinator" in parts else 0):
        for gaps, name in ((0, "coordinator alone, instant workers"), (_GAPS, f"the same with {_GAPS:,} open gaps")):
            seconds = _coordinator(gaps=gaps)
            figures.add(name, _CHUNKS / seconds, "chunks/s")
            figures.add(f"{name}: per chunk", 1000 * seconds / _CHUNKS, "ms")
    for _ in range(repeats if "dask" in parts else 0):
        for protocol in ("tcp", "tls"):
            figures.add(f"Dask's own rate, tasks that do nothing, {protocol}", _dask(protocol), "tasks/s")
    return figures


def _measure_workers(figures: Figures, repeats: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        few, many = (_data_set(folder / f"{hours}", hours) for hours in (1, _HOURS))
        for _ in range(repeats):
            alone_s = 0.0
            for scheduler in ("", "local:1", "local:2"):
                how = scheduler or "one process"
                short, long = (_run(path, rows, scheduler) for path, rows in (few, many))
                alone_s = alone_s or long.wall_s
                more_rows, more_s = many[1] - few[1], long.wall_s - short.wall_s
                figures.add(f"{_millions(many[1])} rows, file → Parquet, {how}", long.wall_s, "s")
                figures.add(f"file → Parquet, {how}, start left out", more_rows / more_s / 1e6, "M rows/s")
                if scheduler:
                    figures.add(f"{_millions(many[1])} rows, {how} ÷ one process", alone_s / long.wall_s, "")
                else:
                    figures.add("processors that one process uses", long.cpu_s / long.wall_s, "")


def _millions(rows: int) -> str:
    return f"{rows / 1e6:.0f} M"


def _data_set(folder: Path, hours: int) -> tuple[Path, int]:
    """Write a file per hour; return their folder, and how many rows they have in all."""
    folder.mkdir()
    rows = 0
    for hour in range(hours):
        rows += recording(folder, wearers=_WEARERS, hertz=_HERTZ, seconds=3600, from_s=3600 * hour)[1]
    return folder, rows


def _run(path: Path, rows: int, scheduler: str) -> ServiceRun:
    with tempfile.TemporaryDirectory() as disk:
        to = {"OUTPUT_TO_PARQUET": "true", "OUTPUT_TO_CSV": "false", "PARQUET_URL": f"{disk}/parquet"}
        to |= {"MAX_RECORDS_PER_QUERY": str(_ROWS_IN_HAND), "DASK_SCHEDULER": scheduler}
        return run_service({**to, "INPUT_FILE": str(path)}, rows=rows)


def _dask(protocol: str) -> float:
    from distributed import Client, LocalCluster
    from distributed.security import Security

    with (
        LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            protocol=protocol,
            security=Security.temporary() if protocol == "tls" else None,
            dashboard_address="127.0.0.1:0",
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        started_s = time.perf_counter()
        client.gather([client.submit(int, number, pure=False) for number in range(_TASKS)])
        return _TASKS / (time.perf_counter() - started_s)


# The coordinator alone


def _coordinator(*, gaps: int) -> float:
    """Return in how many seconds the coordinator plans, records, fences, counts as taken and forgets all chunks."""
    length_ns = HOUR_NS // _WINDOWS_PER_CHUNK
    windows = WindowRange(START_NS // HOUR_NS * HOUR_NS, START_NS // HOUR_NS * HOUR_NS + _CHUNKS * HOUR_NS, length_ns)
    with tempfile.TemporaryDirectory() as name:
        journal = Journal(Path(name), data_set="benchmark")
        before_ns = windows.start_ns - HOUR_NS
        journal.accept_gap(
            [Window(before_ns - (2 * one + 1) * length_ns, before_ns - 2 * one * length_ns) for one in range(gaps)]
        )
        journal.epochs.begin(Epoch(_PROMISE, length_ns), now_ns=0)
        clock = SystemClock()
        telemetry = Telemetry(k=_PROMISE.k, verbose=False)
        retry = Retry(clock, budget_s=0, telemetry=telemetry)
        cluster: Any = _InstantCluster()
        output = _Output()
        seen: Any = _Seen()
        shared = SharedSpool(seen)
        run_of = Run("benchmark", _LABEL, {}, HandOver(shared, _LABEL, {}), measures_fidelity=False)
        spool = MixedSpool(Path(name) / "spool", shared, journal.outputs)
        delivery = Delivery(
            [output],
            Store(journal, spool, SetAside(Path(name) / "set_aside")),
            retry=retry,
            telemetry=telemetry,
            clock=clock,
            spool_max_bytes=1 << 60,
            batch_by_batch=False,
            couriers={output.name: OutputCourier(cluster, run_of, output.name)},
        )
        delivery.start()
        source: Any = _Source()
        parts = Parts(
            source=source,
            recipe=None,  # type: ignore[arg-type]  # workers have one
            journal=journal,
            delivery=delivery,
            telemetry=telemetry,
            retry=retry,
            clock=clock,
            most_rows=_WINDOWS_PER_CHUNK * _ROWS_PER_WINDOW,
            is_stream=False,
            unit_is_window=False,
            advance=_advance,
            plans_by_hour=True,
            workforce=Chunks(cluster, run_of),
        )
        started_s = time.perf_counter()
        run(Span(windows, is_by_hour=True), parts)
        delivery.drain()
        seconds = time.perf_counter() - started_s
        assert journal.totals().released == _CHUNKS * _WINDOWS_PER_CHUNK * _ROWS_PER_WINDOW
        assert journal.outputs.spooled().chunks == 0
        delivery.stop(1.0)
        journal.close()
        return seconds


_PROMISE = Promise(k=5, k_unit="record", method="hierarchy", settings_digest="00112233aabbccdd")


def _advance(windows: int, rows: int) -> None:
    """Draw no bar."""


class _Source:
    """Counts the same everywhere."""

    remarks: tuple[str, ...] = ()
    concurrent_reads = 1

    def next_row_ns(self, start_ns: int, end_ns: int) -> int:
        return start_ns

    def count(self, windows: WindowRange) -> npt.NDArray[np.int64]:
        return np.full(len(windows), _ROWS_PER_WINDOW, dtype=np.int64)


class _Seen:
    """A spool whose files are where they should be."""

    name = "benchmark"

    def read(self, path: str) -> None:
        return None

    def put(self, path: str, content: bytes) -> None:
        pass

    def size(self, path: str) -> int:
        return 1000

    def remove(self, path: str) -> None:
        pass


class _Output:
    """Written by workers."""

    kind, name, concurrency = "parquet", "parquet:benchmark", 1

    def open(self, receipts: Any) -> None:
        pass

    def target(self, batch: Batch) -> str:
        return ""

    def intent(self, batch: Batch) -> None:
        pass

    def write(self, batch: Batch) -> None:
        pass

    def close(self) -> None:
        pass


@dataclass(slots=True)
class _Done:
    """The future of a task that was done at once."""

    answer: Any
    status: str = "finished"

    def add_done_callback(self, call: Callable[[Any], None]) -> None:
        call(self)

    def result(self, timeout: float) -> Any:
        return self.answer

    def release(self) -> None:
        pass


class _InstantCluster:
    """Workers that need no time."""

    generation = 1

    def __init__(self) -> None:
        self._answer: dict[str, Any] = {}

    def submit(self, function: Any, task: Any, priority: int) -> tuple[_Done, int, frozenset[str]]:
        if "name" in task:
            return _Done({"code": "done", "receipts": [], "refused": {}}), 1, frozenset()
        windows = WindowRange(*task["windows"])
        self._answer = self._answer or answer_of(_finished(windows), None)
        name = f"{_LABEL}/{windows.start_ns}-{windows.end_ns}-{'0' * 64}.spool"
        return _Done({**self._answer, "spooled": [name, 1000]}), 1, frozenset()

    def most_at_a_time(self) -> int:
        return 10

    def see_that_it_works(self) -> None:
        pass

    def is_stopping(self) -> bool:
        return False

    def is_stranded(self, fit: frozenset[str]) -> bool:
        return False


def _finished(windows: WindowRange) -> FinishedChunk:
    counts = WindowCounts(read=_ROWS_PER_WINDOW, released=_ROWS_PER_WINDOW)
    levels = np.zeros(SUPPRESSED_LEVEL + 1, dtype=np.int64)
    levels[3] = _ROWS_PER_WINDOW
    statistics = WindowStatistics(levels, groups=20, coded=0, unchanged=10)
    results = tuple(WindowResult(window, counts, statistics, None, Certificate(20, 5, 3)) for window in windows)
    chunk = Chunk(windows, np.full(len(windows), _ROWS_PER_WINDOW, dtype=np.int64))
    spooled = Spooled("", 0)
    return FinishedChunk(chunk, results, 0, 0, Contradictions.none(len(windows)), UnitDoubts(), spooled=spooled)
