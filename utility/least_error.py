"""The minimum squared error of microaggregation, by a plain dynamic program that shares no code with the service's.

It tries every last group of k to 2k − 1 values at every position, in floating point (Domingo-Ferrer & Mateo-Sanz 2002: in one dimension
some optimal partition of sorted values has only such groups). It is slow and simple, to be evidently correct.
"""

from __future__ import annotations

import numpy as np

from utility.outcome import Floats, Ints, Outcome

#: The ends of the shipped hierarchy, to which every method top- and bottom-codes values first.
LOWEST_UV, HIGHEST_UV = -2500, 2500


def coded(values_uv: Floats) -> Floats:
    """Return whole microvolts, rounded half to even and clipped to the hierarchy: the input of every method."""
    whole: Floats = np.clip(np.rint(values_uv), LOWEST_UV, HIGHEST_UV)
    return whole


def least_squared_error(outcome: Outcome, k: int) -> float:
    """Return the minimum Σ (value − mean of its group)² over all partitions of each window into groups of at least k rows."""
    order = np.lexsort((outcome.raw_uv, outcome.window))
    window, values = outcome.window[order], coded(outcome.raw_uv)[order]
    lengths = np.bincount(window)
    kept = (lengths >= k)[window]
    lengths = lengths[lengths >= k]
    return float(_least_of_segments(values[kept], lengths, k).sum()) if len(lengths) else 0.0


def _least_of_segments(values: Floats, lengths: Ints, k: int) -> Floats:
    """Return the least error of each segment of sorted values, shape (segments,)."""
    longest, segments = int(lengths.max()), len(lengths)
    table = np.zeros((longest, segments))
    row = np.arange(len(values)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    column = np.repeat(np.arange(segments), lengths)
    # Relative to each segment's first value, sums stay small enough to be exact.
    table[row, column] = values - np.repeat(values[np.cumsum(lengths) - lengths], lengths)
    sums = np.vstack((np.zeros(segments), np.cumsum(table, axis=0)))
    squares = np.vstack((np.zeros(segments), np.cumsum(table**2, axis=0)))
    least = np.full((longest + 1, segments), np.inf)
    least[0] = 0.0
    for end in range(k, longest + 1):
        starts = np.arange(max(0, end - 2 * k + 1), end - k + 1)
        sizes = (end - starts)[:, None]
        errors = squares[end] - squares[starts] - (sums[end] - sums[starts]) ** 2 / sizes
        least[end] = (least[starts] + errors).min(axis=0)
    return least[lengths, np.arange(segments)]


def squared_error_of_groups(outcome: Outcome) -> float:
    """Return Σ (value − mean of its group)², before means are rounded. A group is the rows of a window with one released value."""
    out = ~np.isnan(outcome.released_uv)
    values = coded(outcome.raw_uv)[out]
    distinct, value = np.unique(outcome.released_uv[out], return_inverse=True)
    _, group = np.unique(outcome.window[out] * len(distinct) + value, return_inverse=True)
    means = np.bincount(group, weights=values) / np.bincount(group)
    return float(((values - means[group]) ** 2).sum())


def squared_error_as_released(outcome: Outcome) -> float:
    """Return Σ (value − released value)² over released rows."""
    out = ~np.isnan(outcome.released_uv)
    return float(((coded(outcome.raw_uv)[out] - outcome.released_uv[out]) ** 2).sum())
