"""Stretches of time, held against sets of whole seconds."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from anonymizer.windows import Window
from service.intervals import merged, missing

stretches = st.lists(st.tuples(st.integers(0, 40), st.integers(1, 9)), max_size=10).map(
    lambda drawn: sorted(Window(start, start + length) for start, length in drawn)
)


def seconds(windows: list[Window]) -> set[int]:
    return {second for window in windows for second in range(window.start_ns, window.end_ns)}


@given(stretches)
def test_merged_stretches_cover_the_same_and_do_not_touch(windows: list[Window]) -> None:
    made = merged(windows)

    assert seconds(made) == seconds(windows)
    assert all(one.end_ns < other.start_ns for one, other in itertools.pairwise(made))


@given(stretches, stretches)
def test_what_is_missing_is_what_one_has_and_the_other_has_not(wanted: list[Window], known: list[Window]) -> None:
    found = missing(merged(wanted), merged(known))

    assert seconds(found) == seconds(wanted) - seconds(known)
    assert found == sorted(found)
    assert sum(one.end_ns - one.start_ns for one in found) == len(seconds(found))
