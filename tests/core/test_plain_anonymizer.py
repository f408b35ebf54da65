"""The plain implementation is what the project is measured by, so its two shortcuts are checked against what they stand for."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.core.plain_anonymizer import (
    every_partition,
    partition_sizes,
    partition_sizes_by_trying_all,
    shipped_levels,
    squared_error,
)


@given(st.lists(st.integers(-2500, 2500), min_size=1, max_size=20))
def test_the_squared_error_is_the_sum_of_squared_distances_from_the_mean(values: list[int]) -> None:
    mean = Fraction(sum(values), len(values))

    assert squared_error(values) == sum((value - mean) ** 2 for value in values)


@pytest.mark.parametrize(
    ("n", "k", "partitions"),
    [
        (0, 2, [[]]),
        (1, 2, []),
        (5, 2, [[3, 2], [2, 3], [5]]),
        (6, 3, [[3, 3], [6]]),
    ],
)
def test_every_partition_is_every_way_to_cut_also_in_groups_longer_than_needed(
    n: int, k: int, partitions: list[list[int]]
) -> None:
    assert list(every_partition(n, k)) == partitions


@given(data=st.data(), k=st.integers(1, 5))
def test_no_partition_of_any_group_sizes_beats_the_dynamic_programme(data: st.DataObject, k: int) -> None:
    most = 10 if k == 1 else 8 + 3 * k
    value = st.integers(0, 3) | st.sampled_from((0, 10, 20)) | st.integers(-2500, 2500)
    values = sorted(data.draw(st.lists(value, min_size=k, max_size=most)))

    assert partition_sizes(values, k) == partition_sizes_by_trying_all(values, k)


def test_the_formula_gives_the_ranges_of_zero_that_can_be_worked_out_by_hand() -> None:
    # 2500 = 2·1250 = 4·625 = 8·312 + 4 = 16·156 + 4 = 32·78 + 4 = 64·39 + 4 = 256·9 + 196: so far below 0 each range of 0 begins.
    assert [level[0] for level in shipped_levels()] == [(0, 1), (0, 3), (-4, 3), (-4, 11), (-4, 27), (-4, 59), (-196, 59)]
    # 5000 is even: at width 2 the last leaf stands alone; at 256, 5000 = 256·19 + 136.
    assert shipped_levels()[0][2500] == (2500, 2500)
    assert shipped_levels()[6][2500] == (2364, 2500)
