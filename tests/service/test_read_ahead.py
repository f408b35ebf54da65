"""Chunks ahead: everything comes in order, read once, never more reads at a time than the source takes."""

from __future__ import annotations

import math
import threading
import time
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import service.pipeline.read_ahead as read_ahead_module
from anonymizer.errors import SourceUnavailable
from anonymizer.exclusion import FOR_EVER_NS, Exclusion, id_digest
from anonymizer.samples import Samples, make_samples
from anonymizer.windows import NANOSECONDS, WindowRange
from service.pipeline.chunks import Chunk, finish_chunk, read_completely
from service.pipeline.read_ahead import NewestWindow, read_ahead
from service.pipeline.schedule import Stream
from tests.service.at_once import AtOnce
from tests.service.fakes import FakeClock, FakeSource
from tests.service.test_chunks import RECIPE


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
            assert began[number + 1].wait(60), "begun before it was asked for"

    assert at_once.most == 1


def test_two_are_read_at_a_time_where_the_source_takes_two_and_come_in_order() -> None:
    two_are_there, at_once = threading.Barrier(2, timeout=60), AtOnce()

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


def test_no_further_read_begins_while_there_are_too_many_rows_in_memory() -> None:
    begun: list[int] = []

    def reader(asked: Chunk) -> Samples:
        begun.append(asked.windows.start_ns)
        return samples_of(asked)

    readings = read_ahead((chunk(number, rows=600) for number in range(4)), reader, at_a_time=3, most_rows=1000)
    for number, reading in enumerate(readings):
        reading.take()
        time.sleep(0.02)
        assert len(begun) <= number + 2, "this one and the next, which have 1200 rows together"


# The newest window of a stream, here [100, 105) with lateness 2: due at 107

LENGTH_S, LATENESS_S = 5, 2
FIRST_S, DUE_S = 100, 107
Row = tuple[float, str, float]


class Live(FakeSource):
    """Holds each row from the time at which it arrives, which is a row's own time unless `arrivals` names another, until `deletions`."""

    def __init__(self, clock: FakeClock, rows: Sequence[Row]) -> None:
        super().__init__()
        self.concurrent_reads = 2
        self.clock = clock
        self.all_rows = list(rows)
        self.arrivals: dict[Row, float] = {}
        self.deletions: dict[Row, float] = {}
        self.fails_at: list[float] = []
        self.read_at: list[tuple[float, float, float]] = []

    def rows_at(self, now_s: float) -> list[Row]:
        return [row for row in self.all_rows if self.arrivals.get(row, row[0]) <= now_s < self.deletions.get(row, math.inf)]

    def count_by_source(self, windows: WindowRange) -> list[Counter[str]]:
        self.rows = self.rows_at(self.clock.now_s)
        return super().count_by_source(windows)

    def read(self, windows: WindowRange) -> Samples:
        now_s = round(self.clock.now_s, 3)
        self.read_at.append((now_s, windows.start_ns / NANOSECONDS, windows.end_ns / NANOSECONDS))
        if now_s in self.fails_at:
            raise SourceUnavailable("cut")
        self.rows = self.rows_at(self.clock.now_s)
        return super().read(windows)


def before(rows: int, clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> tuple[Live, Stream, NewestWindow]:
    """Return a stream whose last window had so many rows; of ten or more per second, seconds are read early."""
    monkeypatch.setattr(read_ahead_module, "_ROWS_PER_PART", 10)
    source = Live(clock, [(FIRST_S - 5 + 5 * at / rows, "a", float(at)) for at in range(rows)])
    s = NANOSECONDS
    stream = Stream(source, clock, (FIRST_S - LENGTH_S) * s, LENGTH_S * s, LATENESS_S * s, interval_s=5)
    return source, stream, NewestWindow(source, stream)


def due(stream: Stream, newest: NewestWindow) -> Chunk:
    """Return the window [100, 105) when it falls due."""
    for windows in stream:
        if not windows:
            newest.begin()
            for early in newest._early:
                early._pending.wait()
        else:
            chunk = Chunk(windows, *newest.count(windows))
            if windows.start_ns == FIRST_S * NANOSECONDS:
                return chunk
    raise AssertionError("never due")


def released(stream: Stream, newest: NewestWindow) -> list[Row]:
    """Return the rows of the window [100, 105) as the service gets them, when it falls due."""
    return rows_of(read_completely(newest._source, due(stream, newest)))


def rows_of(samples: Samples) -> list[Row]:
    ids = [*samples.source_ids, ""]
    names = [ids[code] for code in samples.source_codes]
    return sorted(zip((samples.times_ns / NANOSECONDS).tolist(), names, samples.values_uv.tolist(), strict=True))


SECONDS: list[Row] = [(FIRST_S + second + 0.5, name, float(second)) for second in range(5) for name in "ab"]
LATE: Row = (101.25, "c", 9.0)


@pytest.mark.parametrize(
    ("arrives_s", "leaves_s", "read_again"),
    [
        (104.9, math.inf, []),
        (105.1, math.inf, [(107, 101, 102)]),
        (106.9, math.inf, [(107, 101, 102)]),
        (107.1, math.inf, []),
        (101.25, 106.9, [(107, 101, 102)]),
        (101.25, 104.9, []),
        (101.25, 107.1, []),
    ],
    ids=[
        "comes soon",
        "comes after the read",
        "comes just in time",
        "comes too late",
        "deleted",
        "deleted soon",
        "deleted too late",
    ],
)
def test_each_second_of_a_large_window_is_read_once_it_is_old_enough_and_again_if_its_count_changed(
    arrives_s: float, leaves_s: float, read_again: list[tuple[float, float, float]], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = FakeClock(100.5)
    source, stream, newest = before(50, clock, monkeypatch)
    source.all_rows += [*SECONDS, LATE]
    source.arrivals[LATE], source.deletions[LATE] = arrives_s, leaves_s

    rows = released(stream, newest)

    assert rows == sorted(SECONDS + [LATE] * (arrives_s <= DUE_S < leaves_s))
    early = [(105, 100, 103), (106, 103, 104), (107, 104, 105)]
    assert [one for one in source.read_at if one[1] >= FIRST_S] == early + read_again


@pytest.mark.parametrize(("lost", "came"), [("b", "c"), ("b", ""), ("", "b"), ("b", "a")])
def test_a_row_that_is_deleted_and_one_of_another_source_that_comes_instead_are_both_seen(
    lost: str, came: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, stream, newest = before(50, FakeClock(100.5), monkeypatch)
    gone, new = (101.25, lost, 1.0), (101.75, came, 2.0)
    source.all_rows += [*SECONDS, gone, new]
    source.deletions[gone], source.arrivals[new] = 105.5, 106.5

    assert released(stream, newest) == sorted([*SECONDS, new])
    assert source.read_at[-1] == (107, 101, 102), "only that second is read again"


def test_a_source_that_is_excluded_after_its_rows_were_read_is_not_released(monkeypatch: pytest.MonkeyPatch) -> None:
    source, stream, newest = before(50, FakeClock(100.5), monkeypatch)
    source.all_rows += SECONDS
    chunk, excluded = due(stream, newest), dict[str, int]()

    def read() -> Samples:
        samples = read_completely(source, chunk)
        excluded[id_digest(b"key", "a")] = FOR_EVER_NS
        return samples

    (result,) = finish_chunk(source, chunk, RECIPE, read=read, exclusion=lambda: Exclusion(b"key", excluded)).results

    assert result.batch is not None
    assert (result.batch.source_ids, result.counts.released, result.counts.excluded) == (("b",), 5, 5)


def test_a_second_whose_early_read_failed_is_read_when_the_window_is_due(monkeypatch: pytest.MonkeyPatch) -> None:
    source, stream, newest = before(50, FakeClock(100.5), monkeypatch)
    source.all_rows += SECONDS
    source.fails_at = [105]

    assert released(stream, newest) == sorted(SECONDS)
    assert source.read_at[-3:] == [(106, 103, 104), (107, 104, 105), (107, 100, 103)]


def test_a_read_that_fails_when_the_window_is_due_is_raised_and_done_again(monkeypatch: pytest.MonkeyPatch) -> None:
    source, stream, newest = before(50, FakeClock(100.5), monkeypatch)
    source.all_rows += SECONDS
    source.fails_at = [107]
    chunk = due(stream, newest)

    with pytest.raises(SourceUnavailable, match="cut"):
        read_completely(source, chunk)
    source.fails_at.clear()

    assert rows_of(read_completely(source, chunk)) == sorted(SECONDS)


def test_the_rows_of_an_early_read_that_was_cut_are_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    source, stream, newest = before(50, FakeClock(100.5), monkeypatch)
    source.all_rows += SECONDS
    source.short_reads = 2

    assert released(stream, newest) == sorted(SECONDS)


def test_a_value_is_the_one_that_stood_when_its_second_was_old_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    source, stream, newest = before(50, FakeClock(100.5), monkeypatch)
    first, soon, late = (103.25, "c", 1.0), (103.25, "c", 2.0), (103.25, "c", 3.0)
    source.all_rows += [*SECONDS, first, soon, late]
    source.deletions = {first: 105.5, soon: 106.5}
    source.arrivals = {soon: 105.5, late: 106.5}

    assert released(stream, newest) == sorted([*SECONDS, soon])


@pytest.mark.parametrize(
    ("rows_before", "read_at"), [(0, []), (10, [(107, 100, 105)])], ids=["nothing came before", "few rows came before"]
)
def test_a_small_window_is_read_whole_when_it_is_due(
    rows_before: int, read_at: list[tuple[float, float, float]], monkeypatch: pytest.MonkeyPatch
) -> None:
    source, stream, newest = before(rows_before, FakeClock(100.5), monkeypatch)
    source.all_rows += SECONDS

    assert released(stream, newest) == sorted(SECONDS)
    assert [one for one in source.read_at if one[1] >= FIRST_S][: len(read_at)] == read_at
    assert len([one for one in source.read_at if one[1] >= FIRST_S]) == 1


@pytest.mark.parametrize(("rows_before", "first"), [(50, 105), (10, 102)], ids=["large", "small"])
def test_upkeep_is_put_off_while_outputs_store_a_large_window_and_never_while_windows_wait(
    rows_before: int, first: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, stream, newest = before(rows_before, FakeClock(101.9, stop_after_s=60), monkeypatch)
    source.all_rows += SECONDS
    times: list[float] = []
    for windows in stream:
        if windows:
            newest.count(windows)
        if stream.position_ns >= FIRST_S * NANOSECONDS and newest.leaves_time():
            times.append(source.clock.now_s)
        if windows.end_ns == (FIRST_S + LENGTH_S) * NANOSECONDS:
            source.clock.now_s += 7  # the next window is due at once
        elif windows and windows.end_ns > DUE_S * NANOSECONDS:
            break

    assert times[0] == pytest.approx(first, abs=0.1)
    assert times[-1] == pytest.approx(114, abs=0.1)


def test_upkeep_goes_on_and_nothing_is_read_while_a_clock_that_was_set_back_catches_up(monkeypatch: pytest.MonkeyPatch) -> None:
    source, stream, newest = before(50, FakeClock(101.9), monkeypatch)
    source.all_rows += SECONDS
    for windows in stream:
        if windows:
            newest.count(windows)
            source.clock.now_s -= 3600
        else:
            newest.begin()
            if stream.position_ns == FIRST_S * NANOSECONDS:
                break

    assert newest.leaves_time()
    assert source.clock.now_s < 0
    assert not newest._early


@given(
    rows=st.lists(st.tuples(st.floats(100, 104.99), st.sampled_from(["a", "b", "c", ""])), unique=True, max_size=40),
    delays=st.lists(st.floats(0, 9), min_size=40, max_size=40),
    lives=st.lists(st.floats(0, 9) | st.none(), min_size=40, max_size=40),
    fails_at=st.lists(st.integers(102, 106), max_size=3),
)
def test_the_rows_held_when_the_window_is_due_are_released_unless_one_replaces_another_of_the_same_source_and_second(
    rows: list[tuple[float, str]], delays: list[float], lives: list[float | None], fails_at: list[int]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        source, stream, newest = before(50, FakeClock(100.5), patch)
        all_rows = [(round(at_s, 3), name, float(number)) for number, (at_s, name) in enumerate(rows)]
        source.all_rows += all_rows
        source.arrivals = {row: row[0] + delay for row, delay in zip(all_rows, delays, strict=False)}
        source.deletions = {
            row: source.arrivals[row] + life for row, life in zip(all_rows, lives, strict=False) if life is not None
        }
        source.fails_at = list(map(float, fails_at))

        found, held = released(stream, newest), [row for row in source.rows_at(source.clock.now_s) if row in all_rows]

    def places(rows: Iterable[Row]) -> list[tuple[int, str]]:
        return sorted((int(at_s), name) for at_s, name, _ in rows)

    came, gone = ([row for row in all_rows if 105 < times.get(row, 0) <= DUE_S] for times in (source.arrivals, source.deletions))
    assert places(found) == places(held)
    assert {*places(set(found) ^ set(held))} <= {*places(came)} & {*places(gone)}
