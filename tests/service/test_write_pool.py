"""A worker pool: results in order, and never more at a time than its concurrency."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.delivery.write_pool import WritePool
from tests.service.at_once import AtOnce


@contextmanager
def open_pool(work: Callable[[int], int | None], concurrency: int) -> Iterator[WritePool[int, int | None]]:
    opened = WritePool(work, concurrency=concurrency)
    yield opened
    opened.close()


@given(st.lists(st.lists(st.integers())), st.integers(1, 5))
def test_results_come_in_the_order_of_the_things(jobs: list[list[int]], concurrency: int) -> None:
    with open_pool(lambda thing: thing * 2, concurrency) as opened:
        begun = [opened.submit(things) for things in jobs]

        assert [job.results() for job in begun] == [[thing * 2 for thing in things] for things in jobs]


def test_a_pool_runs_as_many_at_a_time_as_its_concurrency_and_no_more() -> None:
    all_three_are_there = threading.Barrier(3, timeout=60)
    at_once = AtOnce()

    def work(_thing: int) -> None:
        with at_once:
            all_three_are_there.wait()

    with open_pool(work, 3) as opened:
        opened.submit(range(9)).results()

    assert at_once.most == 3


def test_a_free_worker_goes_on_with_the_next_job_before_the_first_is_done() -> None:
    the_second_has_begun = threading.Event()

    def work(thing: int) -> None:
        if thing == 0:
            assert the_second_has_begun.wait(60)
        if thing == 10:
            the_second_has_begun.set()

    with open_pool(work, 2) as opened:
        first, second = opened.submit([0, 1]), opened.submit([10])

        assert first.results() == [None, None]
        assert second.results() == [None]


def test_nothing_is_begun_after_a_failure_and_it_is_raised_when_nothing_is_under_way() -> None:
    begun: list[int] = []
    ended = threading.Event()
    failed = threading.Event()

    def work(thing: int) -> None:
        begun.append(thing)
        if thing == 0:
            failed.set()
            raise ValueError("no")
        failed.wait(60)
        ended.set()

    with open_pool(work, 2) as opened:
        job, later = opened.submit(range(100)), opened.submit([100])
        with pytest.raises(ValueError, match="no"):
            job.results()
        with pytest.raises(ValueError, match="no"):
            later.results()

    assert ended.is_set() or begun == [0]
    assert len(begun) <= 3
