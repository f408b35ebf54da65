"""Which windows are released, and when: never early, never twice, none left out."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anonymizer.windows import NANOSECONDS, WindowRange
from service.pipeline.schedule import Span, SpanRequest, Stream, first_position_ns, make_span
from tests.service.fakes import FakeClock, FakeSource

S = NANOSECONDS


def stream(source: FakeSource, clock: FakeClock, *, position_s: int = 100, length_s: int = 5, lateness_s: int = 10) -> Stream:
    return Stream(
        source=source,
        clock=clock,
        position_ns=position_s * S,
        length_ns=length_s * S,
        lateness_ns=lateness_s * S,
        interval_s=5,
    )


def request(start_s: float | None = None, end_s: float | None = None, *, hours: float = 1.0) -> SpanRequest:
    return SpanRequest(
        start_ns=None if start_s is None else int(start_s * S),
        end_ns=None if end_s is None else int(end_s * S),
        hours=hours,
        length_ns=5 * S,
        lateness_ns=10 * S,
    )


@given(
    start=st.floats(100, 200),
    length_s=st.integers(1, 60),
    lateness_s=st.integers(0, 30),
    server_lag_s=st.floats(-20, 20),
    busy=st.lists(st.floats(0, 100), max_size=5),
)
def test_windows_come_in_order_without_gaps_and_never_before_both_clocks_say_so(
    start: float, length_s: int, lateness_s: int, server_lag_s: float, busy: list[float]
) -> None:
    clock, source = FakeClock(start, stop_after_s=400), FakeSource()
    source.server_now_ns = 0

    def server_goes_on() -> None:
        source.server_now_ns = round((clock.now_s - server_lag_s) * S)

    clock.on_wait = server_goes_on
    server_goes_on()
    first = 100 // length_s * length_s
    released: list[WindowRange] = []
    delays = itertools.chain(busy, itertools.repeat(0.0))
    for windows in stream(source, clock, position_s=first, length_s=length_s, lateness_s=lateness_s):
        if not windows:
            continue  # a look at which nothing was due
        earlier_clock_s = min(clock.now_s, clock.now_s - server_lag_s)
        assert windows.end_ns <= (earlier_clock_s - lateness_s + 1e-6) * S
        released.append(windows)
        clock.now_s += next(delays)
        server_goes_on()

    assert [windows.start_ns for windows in released] == [first * S, *(windows.end_ns for windows in released)][: len(released)]
    if not busy:
        behind_s = min(clock.now_s, clock.now_s - server_lag_s) - lateness_s - (released[-1].end_ns / S if released else first)
        assert behind_s < length_s + 5 + 1e-3


def test_a_window_is_released_at_the_moment_it_falls_due() -> None:
    clock = FakeClock(100.3, stop_after_s=30)

    moments = {windows.end_ns // S: clock.now_s for windows in stream(FakeSource(), clock) if windows}

    assert moments == pytest.approx({105: 115, 110: 120, 115: 125, 120: 130})


def test_a_stream_that_is_behind_takes_many_windows_at_once() -> None:
    clock = FakeClock(1000, stop_after_s=1)

    windows = next(iter(stream(FakeSource(), clock)))

    assert (windows.start_ns, windows.end_ns) == (100 * S, 990 * S)


def test_a_stream_never_waits_longer_than_the_interval() -> None:
    clock = FakeClock(100, stop_after_s=300)

    list(stream(FakeSource(), clock, position_s=60, length_s=60))

    assert max(clock.waits) <= 5


def test_a_stream_asked_to_stop_while_it_waits_yields_nothing_more() -> None:
    clock = FakeClock(100, stop_after_s=3)

    assert not any(stream(FakeSource(), clock))


@pytest.mark.parametrize(("now_s", "server_s", "first_s"), [(101, None, 105), (105, None, 105), (101, 63, 65)])
def test_a_first_start_begins_with_the_first_window_that_has_not_begun_by_the_slower_clock(
    now_s: int, server_s: int | None, first_s: int
) -> None:
    assert first_position_ns(at(server_s), FakeClock(now_s), length_ns=5 * S) == first_s * S


def at(server_s: int | None) -> FakeSource:
    """Return a source whose server's clock says so."""
    source = FakeSource()
    source.server_now_ns = None if server_s is None else server_s * S
    return source


@pytest.mark.parametrize(
    ("asked", "server_s", "found", "said"),
    [
        (request(hours=0.5), 10_003, (8_190, 9_990), ""),
        (request(500, 5_000), 1_000, (500, 990), "clipped"),
        (request(501, 529), 1_000, (505, 525), "cut to their edges"),
    ],
    ids=["the last hours", "into the future", "no whole windows"],
)
def test_a_span_ends_with_the_last_whole_window_that_is_due_and_a_cut_is_said(
    asked: SpanRequest, server_s: int, found: tuple[int, int], said: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")

    span = make_span(asked, at(server_s), FakeClock(server_s + 1))

    assert (span.windows.start_ns // S, span.windows.end_ns // S) == found
    assert said in caplog.text
    assert said or not caplog.text


def test_a_file_is_covered_whole_to_its_last_sample_or_cut_to_the_span_asked_for() -> None:
    source = FakeSource([(102, "a", 1), (219.9, "a", 1)])

    assert make_span(request(), source, FakeClock(0)).windows == WindowRange(100 * S, 220 * S, 5 * S)
    assert make_span(request(110, 120), source, FakeClock(0)).windows == WindowRange(110 * S, 120 * S, 5 * S)
    assert len(make_span(request(1_000, 2_000), source, FakeClock(0)).windows) == 0
    assert len(make_span(request(), FakeSource(), FakeClock(0)).windows) == 0


@given(count=st.integers(0, 20_000))
def test_a_span_yields_each_of_its_windows_once(count: int) -> None:
    span = Span(WindowRange(0, count * 5 * S, 5 * S))

    parts = list(span)

    assert sum(map(len, parts)) == count == span.windows_in_all
    assert [part.start_ns for part in parts] == [0, *(part.end_ns for part in parts)][: len(parts)]
