"""Chunks ahead: everything comes in order, read once, never more reads at a time than the source takes."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from anonymizer.errors import SourceUnavailable
from anonymizer.samples import Samples, make_samples
from anonymizer.windows import WindowRange
from service.pipeline.chunks import Chunk
from service.pipeline.read_ahead import read_ahead
from tests.service.at_once import AtOnce


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

    assert reading._samples is None
