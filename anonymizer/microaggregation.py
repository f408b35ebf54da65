"""Exact univariate microaggregation: sorted values in groups of at least k, with the least squared error there is.

In one dimension some optimal partition has only contiguous groups of k to 2k − 1 values (Domingo-Ferrer & Mateo-Sanz 2002), so the best
partition is a shortest path and dynamic programming finds it (Hansen & Mukherjee 2003, "A polynomial algorithm for optimal univariate
microaggregation", IEEE TKDE 15(4)).
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

#: Squared errors are compared as whole multiples of 1 / scale µV². Where this many of them allow it, scale is the least common multiple
#: of all group sizes, and comparison is exact.
_MOST_EXACT_SCALE = 2**24

#: Else errors that differ by less than a millionth of a µV² count as equal.
_FINE_SCALE = 2**20

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
    # Measured from each segment's first value, numbers stay small and sums exact.
    table = table - table[:1]
    span = int(table.max(initial=0))
    scale = _error_scale(k, span)
    zero = np.zeros((1, segments), dtype=np.int64)
    sums = np.concatenate((zero, np.cumsum(table, axis=0)))
    squares = np.concatenate((zero, np.cumsum(table * table, axis=0)))

    unreachable = np.int64(2**62)
    best = np.full((longest + 1, segments), unreachable)
    best[0] = 0
    sizes = np.zeros((longest + 1, segments), dtype=np.int64)
    for end in range(k, longest + 1):
        # Candidate last groups from the smallest, so that the first minimum is the smaller group.
        size = np.arange(k, min(2 * k - 1, end) + 1)[:, None]
        start = end - size[:, 0]
        group_sums = sums[end] - sums[start]
        group_squares = squares[end] - squares[start]
        errors = best[start] + _scaled_error(size, group_sums, group_squares, scale)
        choice = errors.argmin(axis=0)
        best[end] = errors[choice, np.arange(segments)]
        sizes[end] = size[choice, 0]
    return sizes


def _scaled_error(size: _Int64s, sums: _Int64s, squares: _Int64s, scale: int) -> _Int64s:
    """Return scale × (Σx² − (Σx)² / size), rounded down."""
    return (size * squares - sums * sums) * scale // size


def _error_scale(k: int, span: int) -> int:
    """Return how finely squared errors are told apart, such that no sum of them overflows 64 bits.

    Neighbouring groups do not overlap, so their ranges add up to at most `span`, and the error of a partition to at most
    (2k − 1) / 4 · span²; of one group, before it is divided by its size, to at most ((2k − 1) · span)² / 4.
    """
    largest = ((2 * k) * max(span, 1)) ** 2
    exact = math.lcm(*range(k, 2 * k))
    if exact <= _MOST_EXACT_SCALE and largest * exact < 2**61:
        return exact
    scale = _FINE_SCALE
    while scale > 1 and largest * scale >= 2**61:
        scale //= 2
    return scale
