"""Chunks ahead: everything comes in order, read once, never more reads at a time than the source takes."""

from __future__ import annotations

import threading
import time

import numpy as np
import numpy.typing as npt
import pytest

from anonymizer.errors import SourceUnavailable
from anonymizer.samples import Samples, make_samples
from anonymizer.windows import NANOSECONDS, WindowRange
from service.pipeline.chunks import Chunk, read_completely
from service.pipeline.read_ahead import NewestWindow, read_ahead
from tests.service.at_once import AtOnce
from tests.service.fakes import FakeSource


def chunk(number: int, *, rows: int = 1) -> Chunk:
    return Chunk(WindowRange(number, number + 1, 1), np.array([rows]))


def samples_of(chunk: Chunk) -> Samples:
    return make_samples([chunk.windows.start_ns], [0], ["a"], [1.0])


def starts(readings: list[Samples]) -> list[int]:
    return [int(one.times_ns[0]) for one in readings]


def test_every_chunk_is_read_once_and_comes_in_order() -> None:
    read: list[int] = []

    def reader(asked: Chunk) -> Samples:
        read.append(asked.windows.start_ns)
        return samples_of(asked)

    taken = [reading.take() for reading in read_ahead(map(chunk, range(5)), reader)]

    assert starts(taken) == read == [0, 1, 2, 3, 4]


def test_the_next_chunk_is_read_while_this_one_is_worked_on_and_never_two_at_a_time() -> None:
    at_once, began = AtOnce(), [threading.Event() for _ in range(4)]

    def reader(asked: Chunk) -> Samples:
        with at_once:
            began[asked.windows.start_ns].set()
        return samples_of(asked)

    for number, reading in enumerate(read_ahead(map(chunk, range(4)), reader)):
        reading.take()
        if number < 3:
            assert began[number + 1].wait(5), "begun before it was asked for"

    assert at_once.most == 1


def test_two_are_read_at_a_time_where_the_source_takes_two_and_come_in_order() -> None:
    two_are_there, at_once = threading.Barrier(2, timeout=5), AtOnce()

    def reader(asked: Chunk) -> Samples:
        with at_once:
            two_are_there.wait()
            time.sleep(0.01 * (asked.windows.start_ns % 2 == 0))  # the later one is often there first
        return samples_of(asked)

    taken = [reading.take() for reading in read_ahead(map(chunk, range(6)), reader, at_a_time=2)]

    assert starts(taken) == [0, 1, 2, 3, 4, 5]
    assert at_once.most == 2


def test_a_failed_read_is_raised_where_the_chunk_is_taken_and_done_again_there() -> None:
    failures = [SourceUnavailable("cut")]

    def reader(asked: Chunk) -> Samples:
        if asked.windows.start_ns == 1 and failures:
            raise failures.pop()
        return samples_of(asked)

    first, second, third = read_ahead(map(chunk, range(3)), reader)

    assert starts([first.take()]) == [0]
    with pytest.raises(SourceUnavailable, match="cut"):
        second.take()
    assert starts([second.take(), third.take()]) == [1, 2]


def test_a_chunk_without_rows_is_not_read() -> None:
    def reader(asked: Chunk) -> Samples:
        raise AssertionError("read")

    assert [reading.chunk.is_empty for reading in read_ahead([chunk(0, rows=0)], reader)] == [True]


def test_samples_are_let_go_once_they_are_taken() -> None:
    (reading,) = read_ahead([chunk(0)], samples_of)

    reading.take()

    assert reading._pending is not None
    assert reading._pending._samples is None


# The newest window of a stream

WINDOW = WindowRange(0, 5 * NANOSECONDS, 5 * NANOSECONDS)


class Growing(FakeSource):
    """Counts only once `reads` reads have returned rows; then `late` rows are there too."""

    def __init__(self, rows: list[tuple[float, str, float]]) -> None:
        super().__init__(rows)
        self.concurrent_reads = 2
        self.reads = 0
        self.late: list[tuple[float, str, float]] = []
        self._returned = threading.Semaphore(0)

    def read(self, windows: WindowRange) -> Samples:
        samples = super().read(windows)
        self._returned.release()
        return samples

    def count(self, windows: WindowRange) -> npt.NDArray[np.int64]:
        for _ in range(self.reads):
            assert self._returned.acquire(timeout=5), "counted before it is read"
        self.rows, self.late, self.reads = self.rows + self.late, [], 0
        return super().count(windows)


def complete(source: FakeSource, newest: NewestWindow) -> Samples:
    return read_completely(source, Chunk(WINDOW, *newest.count(WINDOW)))


def test_the_newest_window_is_read_while_it_is_counted_unless_the_last_one_was_empty() -> None:
    source = Growing([])
    newest = NewestWindow(source)
    assert newest.count(WINDOW)[1] is None
    source.late = [(1.0, "a", 7.0), (4.0, "b", 8.0)]
    assert newest.count(WINDOW)[1] is None
    source.reads = 1

    samples = complete(source, newest)

    assert sorted(samples.values_uv) == [7.0, 8.0]
    assert [what for what, _ in source.questions].count("read") == 1


@pytest.mark.parametrize("late", [[], [(1.5, "c", 7.0)]], ids=["complete", "rows come meanwhile"])
def test_a_large_newest_window_is_read_in_parts_and_again_where_rows_came_meanwhile(late: list[tuple[float, str, float]]) -> None:
    rows = [(5.0 * at / 60_000, "ab"[at % 2], float(at)) for at in range(60_000)]
    source = Growing(rows)
    newest = NewestWindow(source)
    newest.count(WINDOW)
    source.reads, source.late = 2, late

    samples = complete(source, newest)

    assert sorted(
        zip(samples.times_ns.tolist(), (samples.source_ids[code] for code in samples.source_codes), strict=True)
    ) == sorted((round(at_s * NANOSECONDS), name) for at_s, name, _ in rows + late)
    read = [windows for what, windows in source.questions if what == "read"]
    assert sorted((one.start_ns, one.end_ns) for one in read[:2]) == [(0, 2_500_000_000), (2_500_000_000, 5_000_000_000)]
    assert read[2:] == ([WINDOW] if late else [])


def test_an_early_read_that_fails_is_raised_where_it_is_taken_and_done_again_there() -> None:
    source = FakeSource([(1.0, "a", 7.0)])
    newest = NewestWindow(source)
    newest.count(WINDOW)
    read = source.read
    source.read = lambda windows: failures.pop()() if failures else read(windows)  # type: ignore[method-assign]

    def cut() -> Samples:
        raise SourceUnavailable("cut")

    failures = [cut]
    chunk = Chunk(WINDOW, *newest.count(WINDOW))

    with pytest.raises(SourceUnavailable, match="cut"):
        read_completely(source, chunk)
    assert len(read_completely(source, chunk)) == 1
