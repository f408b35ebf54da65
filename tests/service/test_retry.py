"""Asking again: for ever or within a budget, ever slower, as long as the other side asks for, and never after being stopped."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from anonymizer.errors import OutputDenied, OutputUnavailable, SourceDenied, SourceUnavailable
from service.clock import Stopped
from service.retry import RetriesExhausted, Retry
from tests.service.fakes import FakeClock


def failing(times: int, error: Exception) -> Callable[[], str]:
    left = iter(range(times))

    def action() -> str:
        if next(left, None) is not None:
            raise error
        return "done"

    return action


def retry(clock: FakeClock, budget_s: float | None = None) -> Retry:
    return Retry(clock, budget_s=budget_s, draw=lambda: 1.0)


@pytest.mark.parametrize("error", [SourceUnavailable("x"), OutputUnavailable("x"), SourceDenied("x"), OutputDenied("x")])
def test_without_a_budget_everything_that_may_pass_is_waited_for(error: Exception) -> None:
    assert retry(FakeClock()).until_done(failing(50, error)) == "done"


def test_pauses_double_up_to_a_limit() -> None:
    clock = FakeClock()

    retry(clock).until_done(failing(10, SourceUnavailable("x")))

    assert clock.waits == [0.5, 1, 2, 4, *[8] * 6], "so that a server is found again within ten seconds"


def test_pauses_are_drawn_so_that_many_clients_do_not_come_back_at_once() -> None:
    clock, draws = FakeClock(), iter([0.0, 1.0, 0.5])

    Retry(clock, budget_s=None, draw=lambda: next(draws)).until_done(failing(3, SourceUnavailable("x")))

    assert clock.waits == [0.25, 1.0, 1.5]


def test_who_asks_to_wait_longer_is_obeyed() -> None:
    clock = FakeClock()

    retry(clock).until_done(failing(1, OutputUnavailable("x", retry_after_s=42)))

    assert clock.waits == [42]


def test_a_budget_ends_the_waiting_without_being_overdrawn_and_one_of_nothing_tries_once() -> None:
    for budget_s in (10, 0):
        clock = FakeClock()
        with pytest.raises(RetriesExhausted, match="no answer"):
            retry(clock, budget_s=budget_s).until_done(failing(99 if budget_s else 1, SourceUnavailable("no answer")))
        assert sum(clock.waits) <= budget_s


def test_being_stopped_ends_the_waiting_and_other_errors_are_not_repeated() -> None:
    with pytest.raises(Stopped):
        retry(FakeClock(stop_after_s=5)).until_done(failing(99, SourceUnavailable("x")))
    with pytest.raises(KeyError):
        retry(FakeClock()).until_done(failing(1, KeyError("a bug")))


@pytest.mark.parametrize("error", [SourceDenied("wrong token"), OutputDenied("wrong token")])
def test_a_refusal_is_not_waited_for_when_there_is_a_budget(error: Exception) -> None:
    clock = FakeClock()

    with pytest.raises(type(error)):
        retry(clock, budget_s=300).until_done(failing(99, error))

    assert clock.waits == []


def test_threads_that_share_a_retry_wait_together_and_no_others_do() -> None:
    clock = FakeClock(stop_after_s=0)
    clock.wait = lambda seconds: None  # type: ignore[method-assign]  # time stands still, so an action that must wait is stopped
    shared, tried_s = retry(clock), list[float]()

    with pytest.raises(Stopped):
        shared.until_done(failing(1, OutputUnavailable("x", retry_after_s=42)))
    with pytest.raises(Stopped):
        shared.until_done(lambda: tried_s.append(clock.now_s))
    retry(clock).until_done(lambda: tried_s.append(clock.now_s))
    clock.now_s += 42
    shared.until_done(lambda: tried_s.append(clock.now_s))

    assert tried_s == [0, 42]
