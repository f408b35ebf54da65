"""Exact univariate microaggregation: sorted values in groups of at least k, with the least squared error there is.

In one dimension some optimal partition has only contiguous groups of k to 2k − 1 values (Domingo-Ferrer & Mateo-Sanz 2002), so the best
partition is a shortest path and dynamic programming finds it (Hansen & Mukherjee 2003, "A polynomial algorithm for optimal univariate
microaggregation", IEEE TKDE 15(4)).
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

#: A sum of squared errors is held as whole µV² and a number of parts of one. With as many parts as the least common multiple of all group
#: sizes, sums and comparisons are exact; it fits 64 bits up to k = 21. Beyond that a µV² has so many parts, each group's error is rounded
#: down to one, and sums that differ by no more than `_ROUNDING` of them, about a millionth of a µV², count as equal.
_ROUNDED_PARTS = 2**40
_ROUNDING = 2**20

_MOST_PARTS = 2**61

_Int64s = npt.NDArray[np.int64]


def optimal_groups(values: _Int64s, lengths: _Int64s, k: int) -> _Int64s:
    """Partition each segment of `values` into groups of at least k with the least total squared error.

    Of two partitions with equal error the one with the smaller last group is taken, and so on towards the front.

    Args:
        values: The segments one after the other, each ascending, shape (n,).
        lengths: Length of each segment, shape (segments,), each 0 or at least k, summing to n.
        k: The least size of a group, at least 1.

    Returns:
        The group of each value, counted through from 0 over all segments, ascending, shape (n,).
    """
    starts = np.cumsum(lengths) - lengths
    is_last = _last_rows(_padded(values, starts, lengths), lengths, k)
    # From the padded table back to rows: segment by segment, its own length each.
    segment = np.repeat(np.arange(len(lengths)), lengths)
    row = np.arange(len(values)) - starts[segment]
    ends_group = is_last[row, segment]
    return np.cumsum(ends_group) - ends_group


def _padded(values: _Int64s, starts: _Int64s, lengths: _Int64s) -> _Int64s:
    """Return the segments side by side, shape (longest, segments), each padded with its own last value."""
    longest = int(lengths.max(initial=0))
    row = np.minimum(np.arange(longest)[:, None], np.maximum(lengths - 1, 0)[None, :])
    # An empty segment at the very end would reach past the values; what it reads does not matter.
    return values[np.minimum(starts[None, :] + row, len(values) - 1)]


def _last_rows(table: _Int64s, lengths: _Int64s, k: int) -> npt.NDArray[np.bool_]:
    """Return which rows of each segment are the last of their group, shape (longest, segments)."""
    longest, segments = table.shape
    sizes = _sizes_of_last_groups(table, k)
    is_last = np.zeros((longest, segments), dtype=np.bool_)
    segment, end = np.arange(segments), lengths.copy()
    while True:
        going = end > 0
        if not going.any():
            return is_last
        segment, end = segment[going], end[going]
        is_last[end - 1, segment] = True
        end = end - sizes[end, segment]


def _sizes_of_last_groups(table: _Int64s, k: int) -> _Int64s:
    """Return the size of the last group in the best partition of each segment's first i values, shape (longest + 1, segments)."""
    longest, segments = table.shape
    parts = _parts(k)
    tolerance = _ROUNDING if parts == _ROUNDED_PARTS else 0
    # Measured from each segment's first value, numbers stay small.
    table = table - table[:1]
    zero = np.zeros((1, segments), dtype=np.int64)
    sums = np.concatenate((zero, np.cumsum(table, axis=0)))
    squares = np.concatenate((zero, np.cumsum(table * table, axis=0)))

    unreachable = np.int64(2**62)
    whole = np.full((longest + 1, segments), unreachable)
    rest = np.zeros((longest + 1, segments), dtype=np.int64)
    whole[0] = 0
    sizes = np.zeros((longest + 1, segments), dtype=np.int64)
    columns = np.arange(segments)
    for end in range(k, longest + 1):
        # Candidate last groups from the smallest, so that the first minimum is the smaller group.
        size = np.arange(k, min(2 * k - 1, end) + 1)[:, None]
        start = end - size[:, 0]
        group_whole, group_rest = _error(size, sums[end] - sums[start], squares[end] - squares[start], parts)
        candidate_whole, candidate_rest = whole[start] + group_whole, rest[start] + group_rest
        carries = candidate_rest >= parts
        candidate_whole += carries
        candidate_rest -= carries * parts
        # How far above the least whole number, in parts; more than two whole ones are never the least.
        excess = np.minimum(candidate_whole - candidate_whole.min(axis=0), 2) * parts + candidate_rest
        choice = (excess <= excess.min(axis=0) + tolerance).argmax(axis=0)
        whole[end], rest[end] = candidate_whole[choice, columns], candidate_rest[choice, columns]
        sizes[end] = size[choice, 0]
    return sizes


def _error(size: _Int64s, sums: _Int64s, squares: _Int64s, parts: int) -> tuple[_Int64s, _Int64s]:
    """Return Σx² − (Σx)² / size as whole numbers and parts of one."""
    whole, rest = np.divmod(size * squares - sums * sums, size)
    if parts == _ROUNDED_PARTS:
        return whole, rest * parts // size
    return whole, rest * (parts // size)


def _parts(k: int) -> int:
    """Return how many parts a whole µV² has, such that the errors of groups of k to 2k − 1 are whole numbers of them, if that fits."""
    exact = math.lcm(*range(k, 2 * k))
    return exact if exact <= _MOST_PARTS else _ROUNDED_PARTS
