"""Optimal univariate microaggregation: sorted values in groups of at least k, with the minimum total squared error.

In one dimension some optimal partition has only contiguous groups of k to 2k − 1 values (Domingo-Ferrer & Mateo-Sanz 2002), so the best
partition is a shortest path and dynamic programming finds it (Hansen & Mukherjee 2003, "A polynomial algorithm for optimal univariate
microaggregation", IEEE TKDE 15(4)). Algorithms in linear time (Stamm & Schaub 2024, "Faster optimal univariate microaggregation", TMLR)
need fewer comparisons but process one value at a time. Here the comparisons of k neighbouring values, which do not depend on each other,
and of many stretches are vectorized.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from anonymizer.blocks import Blocks, follow_back
from anonymizer.error_sums import ROUNDED_PARTS, Profile, Stretches, least_sums

#: Squared errors are exact as long as a µV² has no more parts than this, up to k = 21.
_MOST_PARTS = 2**61

#: Length of a block, of the shortest block if there are few, and of the run-up, in groups of k. They affect speed only, never the result.
_BLOCK = 64
_SHORT_BLOCK = 16
_RUN_UP = 8

#: Only this many groups of k at the beginning of a run of equal values need the recurrence.
_RUN = 5

#: With this many parallel blocks, longer blocks take no more time.
_MANY_BLOCKS = 16

#: Comparisons made at once, which limits the number of parallel blocks.
_SIDE_BY_SIDE = 4096

_Int64s = npt.NDArray[np.int64]
_Positions = npt.NDArray[np.intp]


def optimal_groups(values: _Int64s, lengths: _Int64s, k: int) -> _Int64s:
    """Partition each segment of `values` into groups of at least k with the minimum total squared error.

    Of two partitions with equal error, the one with the smaller last group is chosen, and so on towards the front.

    Args:
        values: The segments one after the other, each ascending, shape (n,).
        lengths: Length of each segment, shape (segments,), each 0 or at least k, summing to n.
        k: The least size of a group, at least 1.

    Returns:
        The group of each value, numbered from 0 over all segments, ascending, shape (n,).
    """
    if not len(values):
        return np.empty(0, dtype=np.int64)
    lengths = lengths[lengths > 0]
    is_computed = _starts_of_runs(values, lengths, _RUN * k)
    computed = np.add.reduceat(is_computed, np.cumsum(lengths) - lengths, dtype=np.int64)
    sizes = np.full(len(values), k)
    sizes[is_computed] = _SizesOfLastGroups(values[is_computed], _blocks(computed, k), k).found()
    ends_group = follow_back(sizes, _blocks(lengths, k), run_up=_RUN_UP * k)
    return np.cumsum(ends_group) - ends_group


def _starts_of_runs(values: _Int64s, lengths: _Int64s, longest: int) -> npt.NDArray[np.bool_]:
    """Return which rows are among the first `longest` of their run of equal values.

    5k equal values make all paths alike: to place 3k and beyond in a run leads each way into it, since any number from k on is a sum of
    sizes, and no group of the run adds an error. So from place 4k on the last group has size k, and after 5k places all of the profile is
    the same number, as after any more.
    """
    begins = np.concatenate(([True], values[1:] != values[:-1]))
    begins[np.cumsum(lengths)[:-1]] = True
    starts = np.flatnonzero(begins)
    rows = np.diff(starts, append=len(values))
    return np.arange(len(values)) < np.repeat(starts + np.minimum(rows, longest), rows)


def _blocks(lengths: _Int64s, k: int) -> Blocks:
    return Blocks.of(lengths, max(_SHORT_BLOCK * k, min(_BLOCK * k, int(lengths.sum()) // _MANY_BLOCKS)))


class _SizesOfLastGroups:
    """Finds the size of the last group in the best partition of each segment's values up to each position.

    The best last cuts depend on earlier values, but only for a short distance. So each block starts a little before its first value (the
    run-up), from a guessed profile. At its first value it has usually converged to the profile with which the previous block ends: at the
    last 2k − 1 places the same least errors, up to a constant. Later choices depend on nothing else, so they equal those of a single pass
    over the segment. A block that has not converged is repeated from the previous block's profile, until all agree. The first block of a
    segment needs no guess; so once all agree, each is exact, ties included. A bad guess costs time only.
    """

    def __init__(self, values: _Int64s, blocks: Blocks, k: int) -> None:
        self._blocks, self._k, self._parts = blocks, k, _parts(k)
        # Relative to the segment's first value numbers stay small, and places before a segment count as that value.
        from_first = values - blocks.of_each_position(values[blocks.segment_starts])
        self._sums = np.concatenate(([0], np.cumsum(from_first)))
        self._squares = np.concatenate(([0], np.cumsum(from_first * from_first)))
        self._begun = Profile.guessed(k, len(blocks))
        self._ended = Profile.guessed(k, len(blocks))
        self._sizes = np.zeros(len(values), dtype=np.int64)

    def found(self) -> _Int64s:
        """Return the sizes, shape (n,)."""
        everywhere = np.arange(len(self._blocks))
        self._fill(everywhere, Profile.guessed(self._k, len(everywhere)), run_up=_RUN_UP * self._k)
        # Each iteration fixes at least the first wrong block of each segment for good.
        for _ in everywhere:
            again = self._begun_wrongly()
            if not len(again):
                return self._sizes
            self._fill(again, self._ended.of(again - 1), run_up=0)
        raise AssertionError("blocks disagree with what they were begun with")

    def _begun_wrongly(self) -> _Positions:
        later = np.flatnonzero(~self._blocks.are_first)
        return later[~self._begun.of(later).agrees_with(self._ended.of(later - 1))]

    def _fill(self, chosen: _Positions, start: Profile, *, run_up: int) -> None:
        """Compute some blocks from their profiles `run_up` positions before each of them."""
        is_first = self._blocks.are_first[chosen]
        start.set_before_any_row(is_first)
        run_ups = np.where(is_first, 0, run_up)
        rows = self._blocks.ends[chosen] - self._blocks.starts[chosen] + run_ups
        longest_first = np.argsort(-rows, kind="stable")
        step = max(1, _SIDE_BY_SIDE // self._k)
        for first in range(0, len(chosen), step):
            part = longest_first[first : first + step]
            self._fill_side_by_side(chosen[part], start.of(part), run_ups[part], rows[part])

    def _fill_side_by_side(self, chosen: _Positions, start: Profile, run_ups: _Int64s, rows: _Int64s) -> None:
        origins = self._blocks.starts[chosen] - run_ups
        places = origins + np.arange(2 - 2 * self._k, rows.max() + 1)[:, None]
        places = np.clip(places, self._blocks.segment_starts[chosen], self._blocks.segment_ends[chosen])
        least = least_sums(Stretches(self._sums[places], self._squares[places]), self._k, self._parts, start)
        self._begun.put(chosen, least.profile(run_ups))
        self._ended.put(chosen, least.profile(rows))
        row = np.arange(rows.max())[:, None]
        of_block = (row >= run_ups) & (row < rows)
        self._sizes[(origins + row)[of_block]] = least.sizes[of_block]


def _parts(k: int) -> int:
    """Return the parts per µV²: with lcm(k … 2k − 1), if that fits 64 bits, all errors are whole numbers of parts."""
    exact = math.lcm(*range(k, 2 * k))
    return exact if exact <= _MOST_PARTS else ROUNDED_PARTS
