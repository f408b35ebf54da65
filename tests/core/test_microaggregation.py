"""The exact partition: optimal, the one of all optimal ones that the specification names, and the same in any company."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anonymizer.microaggregation import optimal_groups
from tests.core.plain_anonymizer import partition_sizes, partition_sizes_by_trying_all, total_error


def sizes_of_groups(segments: Sequence[Sequence[int]], k: int) -> list[list[int]]:
    """Return the sizes of each segment's groups, and see on the way that groups are numbered through and never reach over an end."""
    lengths = [len(segment) for segment in segments]
    values = [value for segment in segments for value in segment]
    group = optimal_groups(np.array(values, dtype=np.int64), np.array(lengths, dtype=np.int64), k).tolist()

    assert len(group) == len(values)
    assert sorted(set(group)) == list(range(len(set(group))))
    assert group == sorted(group)
    sizes, start = [], 0
    for length in lengths:
        of_segment = group[start : start + length]
        assert group[start + length :].count(of_segment[-1] if of_segment else -1) == 0, (
            "a group reaches over the end of its segment"
        )
        sizes.append([of_segment.count(number) for number in sorted(set(of_segment))])
        start += length
    return sizes


@st.composite
def segments(draw: st.DrawFn, k: int, most: int) -> list[int]:
    """An ascending segment of at least k values, of one kind each."""
    kind = draw(st.sampled_from((1, 3, 10, 2500)))
    scale = draw(st.sampled_from((1, 1, 10)))
    values = draw(st.lists(st.integers(-kind, kind), min_size=k, max_size=most))
    return sorted(max(-2500, min(2500, value * scale)) for value in values)


@settings(max_examples=2 * settings().max_examples)
@given(data=st.data(), k=st.integers(1, 5))
def test_no_other_partition_is_better_and_of_equal_ones_the_smaller_last_group_wins(data: st.DataObject, k: int) -> None:
    values = data.draw(segments(k, 10 if k == 1 else 8 + 3 * k))

    assert sizes_of_groups([values], k) == [partition_sizes_by_trying_all(values, k)]


@given(data=st.data(), k=st.integers(2, 8))
def test_many_segments_side_by_side_are_cut_as_each_would_be_alone(data: st.DataObject, k: int) -> None:
    side_by_side = data.draw(st.lists(st.just([]) | segments(k, 6 * k), max_size=6))

    assert sizes_of_groups(side_by_side, k) == [partition_sizes(values, k) for values in side_by_side]


@settings(max_examples=2 * settings().max_examples)
@given(k=st.integers(2, 6), seed=st.integers(0, 2**32), steps=st.sampled_from(((1,), (1, 2), (1, 5, 40))))
def test_long_runs_of_equal_values_are_cut_as_one_value_after_the_other_would_be(
    k: int, seed: int, steps: tuple[int, ...]
) -> None:
    chance = random.Random(seed)
    values, value = [], 0
    for _ in range(chance.randint(1, 6)):
        values += [value] * chance.choice((1, chance.randint(1, k), chance.randint(k, 8 * k)))
        value += chance.choice(steps)
    values += [value] * k

    assert sizes_of_groups([values], k) == [partition_sizes(values, k)]


@given(data=st.data(), k=st.integers(2, 40))
def test_every_group_has_at_least_k_values_and_fewer_than_twice_as_many(data: st.DataObject, k: int) -> None:
    side_by_side = data.draw(st.lists(segments(k, 4 * k), min_size=1, max_size=3))

    assert all(k <= size < 2 * k for sizes in sizes_of_groups(side_by_side, k) for size in sizes)


@settings(max_examples=settings().max_examples // 4)
@given(seed=st.integers(0, 2**32), k=st.integers(9, 40), span=st.sampled_from((1, 4, 40, 5000, 60_000)))
def test_no_partition_has_a_smaller_error_for_any_k_and_a_long_window(seed: int, k: int, span: int) -> None:
    chance = random.Random(seed)
    values = sorted(chance.randint(0, span) for _ in range(chance.randint(k, 250)))

    (sizes,) = sizes_of_groups([values], k)

    assert total_error(values, sizes) == total_error(values, partition_sizes(values, k))


@pytest.mark.parametrize(
    ("values", "k", "sizes"),
    [
        # 0 1 | 2 3 and nothing else: two groups of two.
        ([0, 1, 2, 3], 2, [2, 2]),
        # All equal: every partition has error 0, so the last group is as small as can be, and so is the one before it.
        ([7] * 7, 2, [3, 2, 2]),
        # 0 0 1 | 2 2 and 0 0 | 1 2 2 both have error 2/3: the smaller last group.
        ([0, 0, 1, 2, 2], 2, [3, 2]),
        # Only 2k − 1 values: no cut is possible.
        ([0, 0, 100, 100, 100], 3, [5]),
        # Two far clusters are never mixed.
        ([0, 1, 2, 1000, 1001, 1002], 3, [3, 3]),
        # 0 0 0 10 | 90 100 100 100 has error 75 + 75; three and five: 0 + 14000 / 5 = 2800 + …, far more.
        ([0, 0, 0, 10, 90, 100, 100, 100], 3, [4, 4]),
        ([-2500, -2500, 2500, 2500], 2, [2, 2]),
        # 0 0 1 1 | 2 2 3 3 | 4 4 4 | 4 4 4 has error 1 + 1, and 0 0 1 | 1 2 2 | 3 3 4 | 4 4 4 4 4 three times 2/3: a tie in fractions.
        ([0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 4, 4, 4, 4], 3, [4, 4, 3, 3]),
        ([], 2, []),
    ],
)
def test_partitions_that_can_be_worked_out_by_hand(values: list[int], k: int, sizes: list[int]) -> None:
    assert sizes_of_groups([values], k) == [sizes]


def test_a_tie_goes_to_the_smaller_last_group_for_k_of_ten_and_more_too() -> None:
    # Six 0, twelve 1, twenty 2.
    # 0⁶ 1¹² | 2¹⁰ | 2¹⁰     error 6 · 12 / 18 = 4, then 0 and 0.
    # 0⁶ 1⁴ | 1⁸ 2² | 2¹⁸    error 6 · 4 / 10 = 2.4, then 8 · 2 / 10 = 1.6, then 0: also 4, but with the larger last group.
    values = [0] * 6 + [1] * 12 + [2] * 20
    assert total_error(values, [18, 10, 10]) == total_error(values, [10, 10, 18]) == 4

    assert sizes_of_groups([values], 10) == [[18, 10, 10]]


@pytest.mark.parametrize("k", range(2, 13))
def test_stairs_whose_best_partitions_tie_in_fractions_are_cut_by_the_rule(k: int) -> None:
    # Equal steps and a landing of k or 2k: errors of one third, one quarter, one fifth … that add up to the same.
    stairs = [
        [step for step in range(steps) for _ in range(rows)] + [steps] * landing
        for rows in range(1, k + 1)
        for steps in range(1, 6)
        for landing in (k, 2 * k)
    ]
    stairs = [values for values in stairs if len(values) >= 2 * k]
    stairs += [sorted(-value for value in values) for values in stairs]

    assert sizes_of_groups(stairs, k) == [partition_sizes(values, k) for values in stairs]


@pytest.mark.parametrize(
    ("k", "rows", "steps", "sizes"),
    [
        # 0¹² 1¹² | 2¹⁵ | 2¹⁵ has error 12 · 12 / 24 = 6; 0¹² 1³ | 1⁹ 2⁶ | 2²⁴ has 12 · 3 / 15 + 9 · 6 / 15 = 2.4 + 3.6.
        (15, 12, 2, [24, 15, 15]),
        # 16 · 16 / 32 = 8; 16 · 4 / 20 + 12 · 8 / 20 = 3.2 + 4.8.
        (20, 16, 2, [32, 20, 20]),
        # 0¹⁶ 1¹⁶ | 2¹⁶ 3¹⁶ | 4²⁴ | 4²⁴ has error 8 + 8; 0¹⁶ 1⁸ | 1⁸ 2¹⁶ | 3¹⁶ 4⁸ | 4⁴⁰ three times 16 · 8 / 24 = 16 / 3.
        (24, 16, 4, [32, 32, 24, 24]),
    ],
)
def test_ties_in_fractions_are_ties_for_a_large_k_too(k: int, rows: int, steps: int, sizes: list[int]) -> None:
    values = [step for step in range(steps) for _ in range(rows)] + [steps] * (2 * k)

    assert sizes_of_groups([values], k) == [sizes]


@pytest.mark.parametrize("k", [5, 9, 10, 11, 12, 13, 14, 21, 22])
@pytest.mark.parametrize("apart", [1000, 5000, 20_000, 60_000, 1_000_000])
def test_clusters_so_far_apart_that_a_wrong_cut_costs_more_than_64_bits_hold_are_kept_apart(k: int, apart: int) -> None:
    # Cut every k values nothing is lost; but what one cut across costs, counted in parts of a µV², is beyond 2⁶³ for the larger of these.
    values = [cluster * apart for cluster in range(3) for _ in range(2 * k)]

    assert sizes_of_groups([values], k) == [[k] * 6]


def test_a_segment_is_cut_the_same_whatever_segments_stand_beside_it() -> None:
    # How finely errors are told apart must not depend on how far apart the values of another window are.
    # 0⁴ 1⁴ | 2⁵ | 2⁵ has error 2; 0⁴ 1 | 1³ 2² | 2⁸ has 0.8 + 1.2.
    stairs = [0] * 4 + [1] * 4 + [2] * 10
    wide = [0] * 5 + [5_000_000] * 5 + [10_000_000] * 5

    assert sizes_of_groups([stairs, wide], 5) == [[8, 5, 5], [5, 5, 5]]


@pytest.mark.parametrize("lengths", [[], [0], [0, 0, 0]])
def test_segments_without_values_have_no_groups_wherever_they_stand(lengths: list[int]) -> None:
    groups = optimal_groups(np.array([], dtype=np.int64), np.array(lengths, dtype=np.int64), 3)

    assert groups.tolist() == []
    assert sizes_of_groups([[], [1, 2], [], [], [5, 5, 9], []], 2) == [[], [2], [], [], [3], []]
