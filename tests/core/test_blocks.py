"""Long segments are worked on in blocks, each from a guess. However bad the guess is, nothing comes out differently."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anonymizer import error_sums, microaggregation
from anonymizer.blocks import FEWEST, Blocks, follow_back
from tests.core.plain_anonymizer import partition_sizes
from tests.core.test_microaggregation import sizes_of_groups


@contextmanager
def blocks_of(groups: int, run_up: int) -> Iterator[None]:
    """Cut segments into blocks of so many groups of k, begun so many before their first value."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(microaggregation, "_BLOCK", groups)
        patch.setattr(microaggregation, "_SHORT_BLOCK", groups)
        patch.setattr(microaggregation, "_RUN_UP", run_up)
        yield


def some_values(seed: int, k: int) -> list[int]:
    """Ascending values that forget their beginning early, late or never."""
    chance = random.Random(seed)
    number = chance.randint(2 * k, 30 * k)
    kind = chance.choice(("ramp", "steps", "few", "many", "waves"))
    if kind == "ramp":
        # Equal steps: no cut is better than another, and nothing is ever forgotten.
        return [chance.choice((1, 7)) * place for place in range(number)]
    if kind == "steps":
        return sorted(place // chance.choice((1, k, k + 1)) * 3 for place in range(number))
    if kind == "few":
        return sorted(chance.choice((0, 0, 0, 1, 2, 50)) for _ in range(number))
    if kind == "waves":
        return sorted(chance.randint(0, 3) + 100 * chance.randint(0, 5) for _ in range(number))
    return sorted(chance.randint(-2500, 2500) for _ in range(number))


@given(seed=st.integers(0, 2**32), k=st.integers(1, 7), groups=st.integers(2, 5))
def test_a_segment_in_blocks_is_cut_as_in_one_pass(seed: int, k: int, groups: int) -> None:
    segments = [some_values(seed, k), some_values(seed + 1, k)]
    if k == 1:
        groups = 3
    with blocks_of(groups, run_up=1):
        in_blocks = sizes_of_groups(segments, k)

    assert in_blocks == [partition_sizes(values, k) for values in segments]


@settings(max_examples=settings().max_examples // 4)
@given(seed=st.integers(0, 2**32), k=st.sampled_from((10, 13, 20, 21, 22, 30)))
def test_so_it_is_where_sums_do_not_fit_one_number_or_are_rounded(seed: int, k: int) -> None:
    values = some_values(seed, k)
    with blocks_of(10**6, run_up=1):
        whole = sizes_of_groups([values], k)
    with blocks_of(2, run_up=1):
        in_blocks = sizes_of_groups([values], k)

    assert in_blocks == whole


@settings(max_examples=settings().max_examples // 4)
@given(seed=st.integers(0, 2**32), k=st.integers(2, 14))
def test_two_numbers_say_what_one_says(seed: int, k: int) -> None:
    values = some_values(seed, k)

    in_one = sizes_of_groups([values], k)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(error_sums, "_most", lambda *_: float("inf"))
        in_two = sizes_of_groups([values], k)

    assert in_two == in_one


def test_values_that_forget_nothing_are_done_again_block_by_block() -> None:
    # A ramp of 1 µV: with k 3 all groups of three, the rest of two at the front. Every block but the first must be begun again.
    begun_again = []
    original = microaggregation._SizesOfLastGroups._begun_wrongly

    def counted(self: microaggregation._SizesOfLastGroups) -> np.ndarray:
        begun_again.append(len(wrong := original(self)))
        return wrong

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(microaggregation._SizesOfLastGroups, "_begun_wrongly", counted)
        with blocks_of(4, run_up=1):
            (sizes,) = sizes_of_groups([list(range(3 * 40 + 2))], 3)

    assert sizes == [4, 4, *[3] * 38]
    assert begun_again[0] > 1
    assert begun_again[-1] == 0


@given(lengths=st.lists(st.integers(1, 50), min_size=1, max_size=6), length=st.integers(1, 20))
def test_blocks_cover_their_segments_and_are_not_short(lengths: list[int], length: int) -> None:
    blocks = Blocks.of(np.array(lengths, dtype=np.int64), length)

    ends = np.cumsum(lengths).tolist()
    expected = [(end - size, end) for size, end in zip(lengths, ends, strict=True)]
    assert sorted(set(zip(blocks.segment_starts.tolist(), blocks.segment_ends.tolist(), strict=True))) == expected
    bounds = list(zip(blocks.starts.tolist(), blocks.ends.tolist(), strict=True))
    assert [start for start, _ in bounds[:1]] + [end for _, end in bounds[-1:]] == [0, ends[-1]]
    assert all(end == start for (_, end), (start, _) in pairwise(bounds))
    segment = blocks.segment_ends - blocks.segment_starts
    assert ((blocks.ends - blocks.starts >= length) | (segment < length) | (segment == blocks.ends - blocks.starts)).all()
    assert ((blocks.ends - blocks.starts < 2 * length) | (segment < FEWEST * length)).all()


@given(seed=st.integers(0, 2**32), run_up=st.integers(1, 4))
def test_the_way_back_in_blocks_is_the_way_back_step_by_step(seed: int, run_up: int) -> None:
    chance = random.Random(seed)
    lengths = [chance.randint(1, 60) for _ in range(chance.randint(1, 3))]
    # Any sizes that stay within the segment: ways need not meet.
    sizes = [chance.randint(1, min(place + 1, chance.choice((3, 9)))) for length in lengths for place in range(length)]

    ends_group = follow_back(np.array(sizes), Blocks.of(np.array(lengths), 5), run_up=run_up)

    expected = np.zeros(len(sizes), dtype=np.bool_)
    start = 0
    for length in lengths:
        place = start + length
        while place > start:
            expected[place - 1] = True
            place -= sizes[place - 1]
        start += length
    assert ends_group.tolist() == expected.tolist()
