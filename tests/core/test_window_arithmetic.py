"""Windows are half-open, aligned to the epoch, and together cover a range once."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anonymizer.windows import HOUR_NS, Window, WindowRange, covering_windows, whole_windows

LENGTHS = st.integers(1, 1000)
TIMES = st.integers(-5000, 5000)


@pytest.mark.parametrize(("start_ns", "end_ns"), [(7, 7), (7, 6)])
def test_a_window_that_does_not_end_after_it_starts_is_refused(start_ns: int, end_ns: int) -> None:
    with pytest.raises(ValueError, match=rf"\[{start_ns}, {end_ns}\)"):
        Window(start_ns, end_ns)


@pytest.mark.parametrize("bounds", [(1, 10, 5), (0, 9, 5), (10, 5, 5), (0, 10, 0), (0, 10, -5)])
def test_a_range_that_is_not_aligned_or_in_order_is_refused(bounds: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="aligned"):
        WindowRange(*bounds)


def test_a_range_may_hold_no_window() -> None:
    empty = WindowRange(10, 10, 5)

    assert (len(empty), list(empty), list(empty.cut_at_hours())) == (0, [], [])


@given(first=st.integers(-5, 5), number=st.integers(1, 8), length_ns=LENGTHS, data=st.data())
def test_every_time_of_a_range_is_in_exactly_one_window_and_index_of_names_it(
    first: int, number: int, length_ns: int, data: st.DataObject
) -> None:
    windows = WindowRange(first * length_ns, (first + number) * length_ns, length_ns)
    time_ns = data.draw(st.integers(windows.start_ns - 2 * length_ns, windows.end_ns + 2 * length_ns))

    index = int(windows.index_of(np.array([time_ns]))[0])
    holding = [place for place, window in enumerate(windows) if window.start_ns <= time_ns < window.end_ns]

    assert holding == ([index] if 0 <= index < len(windows) else [])
    assert [windows.window(place) for place in range(len(windows))] == list(windows)


@given(number=st.integers(0, 8), data=st.data())
def test_parts_put_together_are_the_whole(number: int, data: st.DataObject) -> None:
    windows = WindowRange(-20, -20 + 10 * number, 10)
    cut = data.draw(st.integers(0, number))

    assert [*windows.part(0, cut), *windows.part(cut, number)] == list(windows)


@given(start_ns=TIMES, length=st.integers(0, 5000), length_ns=LENGTHS)
def test_whole_windows_lie_inside_the_span_and_no_further_one_would(start_ns: int, length: int, length_ns: int) -> None:
    end_ns = start_ns + length

    windows = whole_windows(start_ns, end_ns, length_ns)

    inside = [
        start for start in range(-10_000 // length_ns * length_ns, 10_000, length_ns) if start_ns <= start <= end_ns - length_ns
    ]
    assert [window.start_ns for window in windows] == inside


@given(start_ns=TIMES, length=st.integers(1, 5000), length_ns=LENGTHS)
def test_covering_windows_cover_the_span_and_each_touches_it(start_ns: int, length: int, length_ns: int) -> None:
    end_ns = start_ns + length

    windows = list(covering_windows(start_ns, end_ns, length_ns))

    assert windows[0].start_ns <= start_ns < windows[0].end_ns
    assert windows[-1].start_ns < end_ns <= windows[-1].end_ns


@given(first=st.integers(-5, 5), number=st.integers(1, 9), minutes=st.sampled_from((7, 20, 45, 60, 90)))
def test_spans_cut_at_hours_cover_the_range_once_and_cross_no_hour(first: int, number: int, minutes: int) -> None:
    length_ns = minutes * HOUR_NS // 60
    windows = WindowRange(first * length_ns, (first + number) * length_ns, length_ns)

    spans = list(windows.cut_at_hours())

    assert [spans[0].start_ns, *(span.end_ns for span in spans)] == [*(span.start_ns for span in spans), windows.end_ns]
    assert (spans[0].start_ns, spans[-1].end_ns) == (windows.start_ns, windows.end_ns)
    assert all(span.start_ns // HOUR_NS == (span.end_ns - 1) // HOUR_NS for span in spans)
