"""Groups of neighbouring values with k different sources each and a small squared error: a heuristic, as no exact method is known.

Properties of the best contiguous groups: a group that can be split into two groups of k sources each is never needed, since a split never
increases the error. So the group that ends at row j starts no later than `latest(j)`, the last start with k sources up to j, and no earlier
than right after `latest(latest(j) − 1)`: from that row back two groups would fit. That leaves as many starts as one source has consecutive
rows of its own, often a dozen, at an R wave hundreds. What makes it fast, and what makes it a heuristic:

1. *Long runs of equal values are separated*, at no cost: where two groups of k sources fit into a run on the left of a cut and two more
   on its right, some best partition has that cut. (A group across it ends or begins inside the run. Its part on the left goes to the group
   before; if that begins before the run, it contains the first of the two groups, so it can be cut within that one, and what is cut off,
   with the second, is a group of equal values. The same on the right.)
2. *Of the remaining starts, at most `STARTS` are tried*, evenly spread from the latest to the earliest. If there are no more than that,
   the partition is the best of all contiguous ones.
3. *Errors are rounded down* to 1/64 µV², so that they are compared exactly whatever the size of a group. Of two with equal errors the
   smaller last group wins. (Floats represent the intermediate numbers exactly up to 1.4·10¹⁴ µV², rows times squared error of one group;
   beyond, a last digit is lost, the same one on every machine.)

Groups that are not contiguous might have an even smaller error. The minimum for groups of k *rows* (`microaggregation`) is a lower bound.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from anonymizer.blocks import Blocks, follow_back

#: How many starts of a group that ends at a row are tried: 2 ** _SPREAD + 1.
_SPREAD = 4
STARTS = 2**_SPREAD + 1

#: The bits that say which of them.
_WHICH = 2 ** (_SPREAD + 1) - 1

#: Errors are counted in these parts of a µV².
_PARTS = 64

#: More than any error; two of them still fit 64 bits.
_UNREACHABLE = 2**60

#: Comparisons made at once.
_SIDE_BY_SIDE = 8192

#: Errors remembered at once.
_MOST_CELLS = 2**21

_NOWHERE = -1

_Int64s = npt.NDArray[np.int64]


def groups_of_sources(values: _Int64s, sources: npt.NDArray[np.integer], lengths: _Int64s, k: int) -> _Int64s:
    """Partition each segment of `values` into contiguous groups that hold at least k different sources each.

    Args:
        values: The segments one after the other, each ascending, shape (n,).
        sources: Source of each value, from 0, shape (n,).
        lengths: Length of each segment, shape (segments,), each 0 or with at least k different sources, summing to n.
        k: The least number of different sources in a group, at least 1.

    Returns:
        The group of each value, numbered from 0 across all segments, ascending, shape (n,).
    """
    if not len(values):
        return np.empty(0, dtype=np.int64)
    segment = np.repeat(np.arange(len(lengths)), lengths)
    # Counted across segments: a start before a row's own segment means that no start within it would do.
    latest = latest_starts(sources, k)
    begins_stretch = _begins_stretch(values, segment, latest)
    starts = np.flatnonzero(begins_stretch)
    stretches = Blocks.each(np.diff(starts, append=len(values)))
    ends_group = follow_back(_sizes_of_last_groups(values, latest, stretches, k), stretches, run_up=0)
    return np.cumsum(ends_group) - ends_group


def latest_starts(labels: npt.NDArray[np.integer], k: int) -> _Int64s:
    """Return for each row the last start from which k different labels occur up to that row, or -1 if there are fewer, shape (n,).

    For two labels this is the last earlier row with another label. For k labels: if a row's label is not among the k − 1 latest ones up to
    the previous row, it is the k-th, and the start is that of k − 1 labels up to the previous row; otherwise it is the start of the
    previous row.
    """
    before = _row_before_with_the_same(labels)
    latest = np.arange(len(labels))
    for _ in range(1, k):
        found = np.full(len(labels), _NOWHERE)
        found[1:] = latest[:-1]
        np.putmask(found, before >= found, _NOWHERE)
        # Starts never decrease from row to row, so the running maximum is the start of the last row whose label was the k-th.
        np.maximum.accumulate(found, out=latest)
    return latest


def _row_before_with_the_same(labels: npt.NDArray[np.integer]) -> _Int64s:
    """Return for each row the previous row with the same label, or -1, shape (n,)."""
    # numpy uses a radix sort for 16-bit numbers, which is ten times as fast.
    order = np.argsort(labels.astype(np.uint16) if labels.max(initial=0) < 2**16 else labels, kind="stable")
    same = labels[order[1:]] == labels[order[:-1]]
    before = np.full(len(labels), _NOWHERE)
    before[order[1:][same]] = order[:-1][same]
    return before


def _begins_stretch(values: _Int64s, segment: _Int64s, latest: _Int64s) -> npt.NDArray[np.bool_]:
    """Return which rows begin a segment or a separated part of one."""
    begins_run = np.concatenate(([True], (values[1:] != values[:-1]) | (segment[1:] != segment[:-1])))
    run_starts = np.flatnonzero(begins_run)
    run_ends = np.append(run_starts[1:], len(values)) - 1
    second = _start_of_two(latest)
    # Two groups fit between the start of the run and `left`, two more between `right` and its end.
    fits = second >= np.repeat(run_starts, run_ends - run_starts + 1)
    left = run_starts + np.add.reduceat(~fits, run_starts, dtype=np.int64)
    right = second[run_ends]
    is_long = (left <= run_ends) & (left < right)
    left, right = left[is_long], right[is_long]
    begins = np.concatenate(([True], segment[1:] != segment[:-1]))
    begins[right] = True
    # The rows between are a stretch of their own if k sources fit; otherwise they stay with the rows on the left.
    begins[left[latest[right - 1] > left] + 1] = True
    return begins


def _start_of_two(latest: _Int64s) -> _Int64s:
    """Return for each row the last start from which two groups fit up to that row, or -1."""
    return np.where(latest > 0, latest[latest - 1], _NOWHERE)


def _sizes_of_last_groups(values: _Int64s, latest: _Int64s, stretches: Blocks, k: int) -> _Int64s:
    """Return for each row the size of the last group in the partition of its stretch up to there, shape (n,)."""
    from_first = values - stretches.of_each_position(values[stretches.starts])
    sums = np.concatenate(([0], np.cumsum(from_first)))
    squares = np.concatenate(([0], np.cumsum(from_first * from_first)))
    earliest = _start_of_two(latest) + 1
    sizes = np.zeros(len(values), dtype=np.int64)
    rows = stretches.ends - stretches.starts
    # A stretch of equal values is one group.
    sizes[stretches.ends - 1] = rows
    mixed = np.flatnonzero(values[stretches.starts] != values[stretches.ends - 1])
    longest_first = mixed[np.argsort(-rows[mixed], kind="stable")]
    first = 0
    while first < len(longest_first):
        # Fewer at a time if they are long: every column needs as much memory as the longest.
        together = max(1, min(_SIDE_BY_SIDE // STARTS, _MOST_CELLS // int(rows[longest_first[first]])))
        chosen = longest_first[first : first + together]
        _fill_side_by_side(sizes, sums, squares, latest, earliest, stretches.starts[chosen], rows[chosen], k)
        first += together
    return sizes


def _fill_side_by_side(
    sizes: _Int64s, sums: _Int64s, squares: _Int64s, latest: _Int64s, earliest: _Int64s, starts: _Int64s, rows: _Int64s, k: int
) -> None:
    """Compute the sizes for some stretches, sorted by descending length."""
    columns = len(starts)
    least = np.full((rows[0] + 1, columns), _UNREACHABLE)
    least[0] = 0
    flat = least.reshape(-1)
    first = 0
    while first < rows[0]:
        # Stretches that have ended drop out.
        going = int(np.count_nonzero(rows > first))
        stop = min(first + max(1, 4 * _SIDE_BY_SIDE // (STARTS * going)), int(rows[0]))
        position = np.minimum(starts[:going] + np.arange(first, stop)[:, None], (starts + rows)[:going] - 1)
        errors, begins = _candidates(position, starts[:going], sums, squares, latest, earliest)
        cells = (begins - starts[:going]) * columns + np.arange(going)
        chosen = np.empty((stop - first, going), dtype=np.int64)
        # A group has at least k rows, so k rows in turn do not depend on each other.
        for begin in range(0, stop - first, k):
            end = min(begin + k, stop - first)
            candidates, found = errors[begin:end], chosen[begin:end]
            candidates += flat[cells[begin:end]]
            np.minimum.reduce(candidates, axis=1, out=found)
            np.bitwise_and(found, ~_WHICH, out=least[first + begin + 1 : first + end + 1, :going])
        # Past its end a stretch repeats its last row, and so that row's result.
        start = np.take_along_axis(begins, (chosen & _WHICH)[:, None], axis=1)[:, 0]
        sizes[position] = position + 1 - start
        first = stop


def _candidates(
    position: _Int64s, starts: _Int64s, sums: _Int64s, squares: _Int64s, latest: _Int64s, earliest: _Int64s
) -> tuple[_Int64s, _Int64s]:
    """Return errors and first rows of the groups that are tried, shape (rows, STARTS, stretches).

    The last bits of an error encode the start, so that of equal errors the latest start has the smallest.
    """
    last_start = latest[position]
    is_reachable = last_start >= starts
    last_start = np.where(is_reachable, last_start, starts)
    first_start = np.where(is_reachable, np.maximum(earliest[position], starts), starts)
    tried = np.arange(STARTS)[:, None]
    begins = last_start[:, None] - ((last_start - first_start)[:, None] * tried >> _SPREAD)
    ends = position[:, None] + 1
    size = (ends - begins).astype(np.float64)
    # Integers up to here: sums over a chunk may exceed the precision of a float, those of one group do not.
    total = (sums[ends] - sums[begins]).astype(np.float64)
    numerators = (squares[ends] - squares[begins]).astype(np.float64)
    numerators *= size
    total *= total
    numerators -= total
    numerators *= _PARTS
    numerators /= size
    errors = numerators.astype(np.int64)
    errors <<= _WHICH.bit_length()
    errors += tried
    errors += np.where(is_reachable, 0, _UNREACHABLE)[:, None]
    return errors, begins
