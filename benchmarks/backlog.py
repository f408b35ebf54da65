"""The cost of a backlog: to record a release while many chunks wait, to deliver them all, and a day's outage beside a live stream."""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import anonymizer
from anonymizer.anonymize import anonymize_chunk
from anonymizer.batch import Batch
from anonymizer.hierarchy import parse_hierarchy
from anonymizer.ports import Output, Receipt
from anonymizer.samples import make_samples
from anonymizer.verify import verify
from anonymizer.windows import NANOSECONDS, Window, WindowRange
from benchmarks.core import DEFAULT, WINDOW_S, make_recipe
from benchmarks.database import START_NS, connect
from benchmarks.figures import Figures
from benchmarks.service_runs import peak_memory_mib
from outputs.influx_lines import InfluxTarget
from outputs.influxdb import InfluxOutput
from outputs.memory import MemoryOutput
from service.clock import SystemClock
from service.delivery.delivery import Delivery
from service.delivery.outbox import Store
from service.retry import Retry
from service.state.epochs import Epoch
from service.state.journal import Journal
from service.state.set_aside import SetAside
from service.state.spool import Spool
from service.telemetry.hub import Telemetry
from testbed.influxdb_server import InfluxServer, start_server
from testbed.wearers import Wearers

#: Number of waiting chunks of one window each.
_WAITING = (300, 3_000, 30_000)

#: Further windows that are released and timed while the others wait.
_TIMED = 300

#: Two wearers. Windows are small (160 rows) where only the number of chunks matters; in the outage they have 1,280 rows.
_WEARERS = 2
_LITTLE_HERTZ, _HERTZ = 16, 128

#: In memory, since the pace of a shared disk would hide the cost of bookkeeping.
_IN_MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None

#: Windows in a day.
_A_DAY = 24 * 3600 // WINDOW_S

_NO_LIMIT_BYTES = 1 << 50


class _Discards(MemoryOutput):
    """Takes every batch, and keeps none."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def write(self, batch: Batch) -> None:
        """Discard the batch."""


class _Away:
    """An output whose `open` blocks until `is_back` is set.

    Args:
        output: The output behind it.
    """

    def __init__(self, output: Output) -> None:
        self._output = output
        self.is_back = threading.Event()
        self.kind, self.name, self.concurrency = output.kind, output.name, output.concurrency
        self.target, self.intent, self.write, self.close = output.target, output.intent, output.write, output.close

    def open(self, receipts: Mapping[str, Receipt]) -> None:
        """Wait until the output is back, and open it."""
        self.is_back.wait()
        self._output.open(receipts)


class _Ward:
    """A delivery to two outputs: one that is away, and one that keeps up.

    Args:
        folder: Folder for its state.
        away: The output that is away.
        hertz: Samples per second of each wearer.
    """

    def __init__(self, folder: Path, away: Output, *, hertz: int) -> None:
        self.away = _Away(away)
        self._journal = Journal(folder, data_set="benchmark")
        self._batch = _a_batch(hertz)
        self._journal.epochs.begin(Epoch(self._batch.promise, WINDOW_S * NANOSECONDS), now_ns=time.time_ns())
        self._released = 0
        clock = SystemClock()
        telemetry = Telemetry(k=0, verbose=False)
        self._delivery = Delivery(
            [self.away, _Discards("keeps up")],
            Store(self._journal, Spool(folder / "spool"), SetAside(folder / "set_aside")),
            retry=Retry(clock, budget_s=None, telemetry=telemetry),
            telemetry=telemetry,
            clock=clock,
            spool_max_bytes=_NO_LIMIT_BYTES,
            batch_by_batch=False,
        )
        self._delivery.start()

    def release(self) -> float:
        """Release the next window as a chunk of its own, as a stream does; return the seconds taken."""
        began_s = time.perf_counter()
        start_ns = self._batch.window.start_ns + self._released * WINDOW_S * NANOSECONDS
        window = Window(start_ns, start_ns + WINDOW_S * NANOSECONDS)
        times_ns = self._batch.times_ns + (start_ns - self._batch.window.start_ns)
        batch_id = f"benchmark-{window.start_ns}-{window.end_ns}"
        batch = dataclasses.replace(self._batch, batch_id=batch_id, window=window, times_ns=times_ns)
        self._released += 1
        self._delivery.wait_for_room()
        self._delivery.release([batch], stream_to_ns=window.end_ns)
        return time.perf_counter() - began_s

    def catch_up(self, meanwhile: Callable[[], None] = lambda: None) -> float:
        """Let the output come back; return the seconds until it has everything, including what was released meanwhile."""
        began_s = time.perf_counter()
        self.away.is_back.set()
        caught_up = threading.Thread(target=self._delivery.drain)
        caught_up.start()
        while caught_up.is_alive():
            meanwhile()
            caught_up.join(0.01)
        taken_s = time.perf_counter() - began_s
        if any(one.pending for one in self._journal.outputs.positions()):
            raise SystemExit("some chunks are still pending, so the measurement is invalid")
        return taken_s

    def close(self) -> None:
        """Stop the delivery and close the journal."""
        self._delivery.stop(1.0)
        self._journal.close()


def _a_batch(hertz: int) -> Batch:
    text = Path(anonymizer.__file__).with_name("smarko_hierarchy_ecg.csv").read_text(encoding="utf-8")
    window = WindowRange(START_NS, START_NS + WINDOW_S * NANOSECONDS, WINDOW_S * NANOSECONDS)
    worn = Wearers(_WEARERS, hertz=hertz)
    rows = worn.samples_between(window.start_ns, window.end_ns)
    samples = make_samples(rows.times_ns, rows.wearer, worn.source_ids, rows.values_uv)
    (result,) = anonymize_chunk(samples, window, make_recipe(DEFAULT, parse_hierarchy(text))).results
    assert result.batch is not None, "real ECG of two wearers is released"
    return result.batch.certified(verify(result.batch))


def measure(*, repeats: int) -> Figures:
    """Return milliseconds per chunk, absolute and relative to the smallest backlog; peak memory; and the figures of a day's outage."""
    figures = Figures(f"A backlog of chunks of one window, {repeats} rounds")
    for _ in range(repeats):
        first: tuple[float, float] | None = None
        for waiting in _WAITING:
            record_s, catch_up_s, peak_mib = _in_a_process(partial(_backlog, waiting))
            first = first or (record_s, catch_up_s)
            for what, seconds, least_s in (("record", record_s, first[0]), ("catch up", catch_up_s, first[1])):
                figures.add(f"{waiting:>6,} waiting, {what}", 1000 * seconds, "ms/chunk")
                figures.add(f"{waiting:>6,} waiting, {what} ÷ the fewest", seconds / least_s, "")
            figures.add(f"{waiting:>6,} waiting, peak memory", peak_mib, "MiB")
    with start_server() as server:
        server.make_bucket("released")
        _measure_outage(figures, server)
    return figures


def _in_a_process(work: Callable[[Path], tuple[float, float, float]]) -> tuple[float, float, float]:
    """Run work in a new process, so that its peak memory is its own, and in a new folder."""
    with tempfile.TemporaryDirectory(dir=_IN_MEMORY) as folder, multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(work, (Path(folder),))


def _backlog(waiting: int, folder: Path) -> tuple[float, float, float]:
    """Return the seconds per chunk to record and to deliver, and the peak memory in MiB."""
    ward = _Ward(folder, _Discards("away"), hertz=_LITTLE_HERTZ)
    for _ in range(waiting):
        ward.release()
    record_s = statistics.median(ward.release() for _ in range(_TIMED))
    catch_up_s = ward.catch_up() / (waiting + _TIMED)
    ward.close()
    return record_s, catch_up_s, peak_memory_mib(os.getpid())


def _measure_outage(figures: Figures, server: InfluxServer) -> None:
    """Measure how a day's outage of InfluxDB is caught up while new windows fall due."""
    target = InfluxTarget(bucket="released", measurement="ecg", field="ecg", source_tag="source_id")
    with tempfile.TemporaryDirectory() as folder:
        ward = _Ward(Path(folder), InfluxOutput(connect(server), target), hertz=_HERTZ)
        for _ in range(_A_DAY):
            ward.release()
        live_s: list[float] = []
        due_s = time.monotonic()

        def release_when_due() -> None:
            nonlocal due_s
            if time.monotonic() >= due_s:
                due_s += WINDOW_S
                live_s.append(ward.release())

        taken_s = ward.catch_up(release_when_due)
        ward.close()
    what = "a day's outage of InfluxDB"
    figures.add(f"{what}, {_A_DAY:,} windows, caught up in", taken_s, "s")
    figures.add(f"{what}, times real time", _A_DAY * WINDOW_S / taken_s, "×")
    figures.add(f"{what}, a live window recorded meanwhile, slowest", 1000 * max(live_s), "ms")
