"""Stretches of time, held against sets of whole seconds."""

from __future__ import annotations

import itertools
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from anonymizer.windows import Window
from service.state.intervals import IntervalSet, merged, missing

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


unsorted_stretches = st.lists(st.tuples(st.integers(0, 40), st.integers(1, 9)), max_size=10).map(
    lambda drawn: [Window(start, start + length) for start, length in drawn]
)


@given(unsorted_stretches, stretches)
def test_a_set_holds_what_was_added_in_any_order_and_tells_what_it_lacks(added: list[Window], wanted: list[Window]) -> None:
    held = IntervalSet()
    for interval in added:
        held.add(interval)

    assert list(held) == merged(sorted(added))
    assert len(held) == len(list(held))
    assert held.missing(merged(wanted)) == missing(merged(wanted), merged(sorted(added)))


class Looks(list[Any]):
    """A list that counts how many of its entries were looked at."""

    looks = 0

    def __getitem__(self, index: Any) -> Any:
        found = super().__getitem__(index)
        self.looks += len(found) if isinstance(index, slice) else 1
        return found


def test_what_is_missing_from_many_stretches_is_found_without_looking_at_each_again_and_again() -> None:
    known = Looks(Window(10 * index, 10 * index + 5) for index in range(2_000))
    wanted = [Window(10 * index + 2, 10 * index + 7) for index in range(2_000)]

    assert len(missing(wanted, known)) == 2_000
    assert known.looks <= 2 * len(known)


def test_a_question_about_a_short_stretch_looks_at_few_of_many() -> None:
    held = IntervalSet(Window(10 * index, 10 * index + 5) for index in range(1 << 14))
    held._starts_ns, held._ends_ns = starts, ends = Looks(held._starts_ns), Looks(held._ends_ns)

    assert held.missing([Window(70_000, 70_010)]) == [Window(70_005, 70_010)]
    assert starts.looks + ends.looks <= 2 * 14 + 4
