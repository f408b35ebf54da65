"""Groups of k different sources: what is promised of them, and how far they are from the best there are."""

from __future__ import annotations

import random
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anonymizer.source_groups import groups_of_sources, latest_starts
from tests.core.plain_anonymizer import partition_sizes, total_error
from tests.core.plain_source_groups import (
    SourceRow,
    all_starts,
    best_sizes,
    every_source_partition,
    exact_error,
    holds,
    source_group_sizes,
    total_source_error,
)
from tests.core.source_heuristic import best_contiguous_error

Segment = list[SourceRow]


def sizes_of_groups(segments: Sequence[Segment], k: int) -> list[list[int]]:
    """Return the sizes of each segment's groups, and see on the way that groups are numbered through and never reach over an end."""
    rows = [row for segment in segments for row in segment]
    names = sorted({row.source for row in rows})
    group = groups_of_sources(
        np.array([row.value_uv for row in rows], dtype=np.int64),
        np.array([names.index(row.source) for row in rows], dtype=np.int32),
        np.array([len(segment) for segment in segments], dtype=np.int64),
        k,
    ).tolist()
    assert group == sorted(group)
    assert sorted(set(group)) == list(range(len(set(group))))
    sizes, start = [], 0
    for segment in segments:
        of_segment = group[start : start + len(segment)]
        start += len(segment)
        assert not set(of_segment) & set(group[start:]), "a group reaches over the end of its segment"
        sizes.append([of_segment.count(number) for number in sorted(set(of_segment))])
    return sizes


def groups_in(rows: Segment, sizes: Sequence[int]) -> list[Segment]:
    ends = np.cumsum(sizes).tolist()
    return [rows[end - size : end] for end, size in zip(ends, sizes, strict=True)]


@st.composite
def source_segments(draw: st.DrawFn, k: int, most: int) -> Segment:
    """Rows in order of value with at least k sources: some take turns, some keep to themselves, some have one row."""
    sources = "abcdefghij"[: draw(st.integers(k, min(10, k + 3)))]
    chance = random.Random(draw(st.integers(0, 2**32)))
    spread = draw(st.sampled_from((0, 1, 3, 10, 2500)))
    stays = draw(st.sampled_from((0.0, 0.5, 0.9)))
    rows = [SourceRow(chance.randint(-spread, spread), source) for source in sources[:k]]
    source = sources[0]
    for _ in range(draw(st.integers(0, most - k))):
        source = source if chance.random() < stays else chance.choice(sources)
        rows.append(SourceRow(chance.randint(-spread, spread), source))
    if draw(st.booleans()):
        # Each source about a level of its own, as wearers whose baselines differ.
        rows = [SourceRow(row.value_uv + 7 * sources.index(row.source), row.source) for row in rows]
    return sorted(rows, key=lambda row: row.value_uv)


@given(labels=st.lists(st.integers(0, 5), max_size=40), k=st.integers(1, 5))
def test_the_latest_start_is_the_last_one_with_k_different_labels(labels: list[int], k: int) -> None:
    expected = [
        max((start for start in range(row + 1) if len(set(labels[start : row + 1])) >= k), default=-1)
        for row in range(len(labels))
    ]

    assert latest_starts(np.array(labels, dtype=np.int64), k).tolist() == expected


def test_more_labels_than_sixteen_bits_count_are_told_apart() -> None:
    assert latest_starts(np.array([0, 2**16, 2**17, 0, 2**16]), 2).tolist() == [-1, 0, 1, 2, 3]
    assert latest_starts(np.array([7, 7 + 2**16, 7]), 3).tolist() == [-1, -1, -1]


@settings(max_examples=4 * settings().max_examples)
@given(data=st.data(), k=st.integers(1, 5))
def test_every_segment_is_cut_as_the_plain_implementation_cuts_it(data: st.DataObject, k: int) -> None:
    segments = data.draw(st.lists(st.just([]) | source_segments(k, 40), min_size=1, max_size=4))

    assert sizes_of_groups(segments, k) == [source_group_sizes(segment, k) if segment else [] for segment in segments]


def test_errors_are_rounded_down_to_a_64th_for_each_group_before_they_are_compared() -> None:
    # 19 and 7 rows have 246/19 and 6/7: 828 and 54 parts, 882 together. 20 and 6 rows have 69/5 and 0: 883 parts, though less in fact.
    words = "0a 0a 0a 0a 0a 0a 1a 1a 1a 1a 1a 1a 2a 2a 2a 2a 2a 2a 2c 2a 3a 3a 3a 3a 3a 3b 3b 3a 3a 4a 4c 4a 4a 4a".split()  # noqa: SIM905
    segment = [SourceRow(int(word[:-1]), word[-1]) for word in words]
    assert [exact_error(group) for group in groups_in(segment, [20, 6, 3, 5])] == [Fraction(69, 5), 0, 0, 0]

    assert sizes_of_groups([segment], 2) == [[19, 7, 3, 5]]


@given(data=st.data(), k=st.integers(1, 8))
def test_every_group_holds_k_sources(data: st.DataObject, k: int) -> None:
    segment = data.draw(source_segments(k, 300))

    (sizes,) = sizes_of_groups([segment], k)

    assert sum(sizes) == len(segment)
    assert all(holds(group, k) for group in groups_in(segment, sizes))


@given(data=st.data(), k=st.integers(1, 4))
def test_where_few_starts_are_possible_no_contiguous_groups_have_less_error(data: st.DataObject, k: int) -> None:
    segment = data.draw(source_segments(k, 11))

    (sizes,) = sizes_of_groups([segment], k)
    least = min(total_source_error(segment, every) for every in every_source_partition(segment, k))

    # Errors are rounded down to 1/64 before they are compared, once for each group.
    assert total_source_error(segment, sizes) - least < len(segment) / 64


@given(data=st.data(), k=st.integers(2, 4))
def test_the_least_error_of_groups_of_k_rows_is_a_lower_bound(data: st.DataObject, k: int) -> None:
    segment = data.draw(source_segments(k, 60))
    values = [row.value_uv for row in segment]

    (sizes,) = sizes_of_groups([segment], k)

    assert total_source_error(segment, sizes) >= total_error(values, partition_sizes(values, k))


@given(data=st.data(), k=st.integers(1, 4))
def test_setting_long_runs_apart_costs_nothing(data: st.DataObject, k: int) -> None:
    # Few values, so that runs are long; compared with the best contiguous groups of all.
    chance = random.Random(data.draw(st.integers(0, 2**32)))
    sources = "abcde"[: k + 1]
    segment = sorted(SourceRow(chance.choice((0, 0, 0, 1, 2)), chance.choice(sources)) for _ in range(40))
    segment = sorted([*segment, *(SourceRow(0, source) for source in sources)], key=lambda row: row.value_uv)

    (sizes,) = sizes_of_groups([segment], k)
    best = best_sizes(segment, k, all_starts, exact_error)

    assert total_source_error(segment, sizes) - total_source_error(segment, best) < len(segment) / 64


@given(data=st.data(), k=st.integers(1, 4))
def test_what_the_heuristic_is_measured_by_is_the_best_of_all_contiguous_groups(data: st.DataObject, k: int) -> None:
    segment = data.draw(source_segments(k, 11))
    values, sources = columns_of(segment)

    least = min(total_source_error(segment, every) for every in every_source_partition(segment, k))

    assert best_contiguous_error(values, sources, k) == pytest.approx(float(least), abs=1e-6)


def one_source_among_others(chance: random.Random) -> Segment:
    """Rows most of which are one source's, so that there are far more starts than are tried."""
    spread = chance.choice((20, 200, 2500))
    rare = [SourceRow(chance.randint(-spread, spread), source) for source in "abcdef" for _ in range(chance.randint(1, 3))]
    common = [SourceRow(chance.randint(-spread, spread), "z") for _ in range(200)]
    return sorted([*rare, *common], key=lambda row: row.value_uv)


def test_with_far_more_starts_than_are_tried_the_error_stays_near_the_best() -> None:
    chance = random.Random(20251103)
    ratios = []
    for _ in range(200):
        k = chance.choice((2, 3, 5))
        segment = one_source_among_others(chance)
        (sizes,) = sizes_of_groups([segment], k)
        ratios.append(float(total_source_error(segment, sizes)) / best_contiguous_error(*columns_of(segment), k))

    ratios.sort()
    print(f"÷ best: median {ratios[100]:.4f}, 9 in 10 below {ratios[180]:.4f}, worst {ratios[-1]:.4f}")
    assert ratios[0] > 1 - 1e-3
    assert ratios[100] < 1.02
    assert ratios[-1] < 1.2


def test_rows_of_one_source_in_a_row_by_the_hundred_are_cut_as_the_plain_implementation_cuts_them() -> None:
    # More starts than are tried, which small examples do not have.
    chance = random.Random(7)
    for k in (2, 3, 3, 4):
        segment = [row for row in one_source_among_others(chance) if row.source != "z" or chance.random() < 0.4]
        assert sizes_of_groups([segment], k) == [source_group_sizes(segment, k)]


def columns_of(segment: Segment) -> tuple[np.ndarray, np.ndarray]:
    """Return values and sources, as numbers."""
    names = sorted({row.source for row in segment})
    return np.array([row.value_uv for row in segment]), np.array([names.index(row.source) for row in segment])
