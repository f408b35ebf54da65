"""Several at a time: the same results in the same order, and no more at once than there are lanes."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.lanes import in_lanes


@given(st.lists(st.integers()), st.integers(1, 5))
def test_results_come_in_the_order_of_the_things(things: list[int], lanes: int) -> None:
    assert in_lanes(lambda thing: thing * 2, things, lanes=lanes) == [thing * 2 for thing in things]


def test_as_many_are_under_way_as_there_are_lanes_and_no_more() -> None:
    all_three_are_there = threading.Barrier(3, timeout=5)
    under_way, most, lock = 0, 0, threading.Lock()

    def work(_thing: int) -> None:
        nonlocal under_way, most
        with lock:
            under_way += 1
            most = max(most, under_way)
        all_three_are_there.wait()
        with lock:
            under_way -= 1

    in_lanes(work, range(9), lanes=3)

    assert most == 3


def test_nothing_is_begun_after_a_failure_and_it_is_raised_when_nothing_is_under_way() -> None:
    begun: list[int] = []
    ended = threading.Event()
    failed = threading.Event()

    def work(thing: int) -> None:
        begun.append(thing)
        if thing == 0:
            failed.set()
            raise ValueError("no")
        failed.wait(5)
        ended.set()

    with pytest.raises(ValueError, match="no"):
        in_lanes(work, range(100), lanes=2)

    assert ended.is_set() or begun == [0]
    assert len(begun) <= 3
