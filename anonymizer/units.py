"""Detects sources whose values seem to be in another unit than configured, or than those of the other sources."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from anonymizer.samples import ArrangedSamples
from anonymizer.windows import NANOSECONDS

#: An ECG in millivolts that is read as microvolts stays within this range around its middle: ±3 µV.
STILL_RANGE_UV = 6.0

#: A flat line takes few values: whole microvolts within the range are 7.
FEWEST_STILL_VALUES = 10

#: Shorter pieces may lie between two beats. A window of one second at 10 Hz or more holds such a piece.
SHORTEST_PIECE_NS = 9 * NANOSECONDS // 10

#: Units differ by 1000. ECGs of one unit differ by 10 at most, or by more for other reasons: drift moves values, not steps.
APART = 100.0
STEPS_APART = 30.0

#: Sources with fewer rows in a window are not judged.
_FEWEST_ROWS = 10

#: About the most rows of a chunk that are examined, in windows spread over it, so that the check costs next to nothing.
_MOST_ROWS = 1 << 16

_Ints = npt.NDArray[np.int64]
_Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class UnitDoubts:
    """Counts of suspicious sources.

    Args:
        sources: Sources examined.
        still: Sources whose values hardly move, though they are not a flat line.
        apart: Sources whose values move a hundred times more, or less, than those of the others.
    """

    sources: int = 0
    still: int = 0
    apart: int = 0


def unit_doubts(rows: ArrangedSamples, sources: int) -> UnitDoubts:
    """Examine the spread of each source's values per window; of a large chunk only in some windows.

    Args:
        rows: A chunk.
        sources: How many sources there are.
    """
    if not len(rows.times_ns):
        return UnitDoubts()
    picked = _picked(rows)
    if not len(picked):
        return UnitDoubts()
    of_pair = rows.window_index[picked] * sources + rows.source_codes[picked]
    if len(rows.windows) * sources <= len(picked):
        pairs = np.arange(len(rows.windows) * sources)
    else:
        # Many sources that come and go: only pairs that occur.
        pairs, of_pair = np.unique(of_pair, return_inverse=True)
    number = np.bincount(of_pair, minlength=len(pairs))
    spread = _spread(rows.values_uv[picked], of_pair, number)
    is_quiet = spread <= STILL_RANGE_UV / 2  # no wider range has a smaller standard deviation
    still = _still(rows, picked, of_pair, np.flatnonzero(is_quiet))
    apart = _apart(rows, picked, of_pair, pairs, np.where(is_quiet, math.nan, spread), sources)
    codes = pairs % sources
    return UnitDoubts(*(len(np.unique(found)) for found in (codes[number > 0], codes[still], codes[apart])))


def _picked(rows: ArrangedSamples) -> _Ints:
    """Return the positions of the rows to examine: whole windows."""
    step = max(1, -(-len(rows.times_ns) // _MOST_ROWS))
    windows = np.arange(0, len(rows.windows), step)
    begins, ends = (np.searchsorted(rows.window_index, windows + more) for more in (0, 1))
    return np.concatenate([np.arange(begin, end) for begin, end in zip(begins, ends, strict=True)])


def _spread(values_uv: _Floats, of_pair: _Ints, number: _Ints) -> _Floats:
    """Return the standard deviation of each pair's values; NaN if it has too few rows or overflows."""
    with np.errstate(all="ignore"):
        mean = np.bincount(of_pair, values_uv, minlength=len(number)) / number
        squares = np.bincount(of_pair, (values_uv - mean[of_pair]) ** 2, minlength=len(number))
        return np.where(number < _FEWEST_ROWS, math.nan, np.sqrt(squares / number))


def _still(rows: ArrangedSamples, picked: _Ints, of_pair: _Ints, quiet: _Ints) -> _Ints:
    """Return the quiet pairs with enough distinct values that stay in the range for long enough."""
    mine = np.isin(of_pair, quiet)
    at, times_ns, values_uv = np.searchsorted(quiet, of_pair[mine]), rows.times_ns[picked[mine]], rows.values_uv[picked[mine]]
    if not len(at):
        return quiet[:0]
    order = np.lexsort((values_uv, at))
    at, times_ns, values_uv = at[order], times_ns[order], values_uv[order]
    begins = np.flatnonzero(np.append(True, at[1:] != at[:-1]))
    is_new = np.append(True, (values_uv[1:] != values_uv[:-1]) | (at[1:] != at[:-1]))
    span_ns = np.maximum.reduceat(times_ns, begins) - np.minimum.reduceat(times_ns, begins)
    span_uv = np.maximum.reduceat(values_uv, begins) - np.minimum.reduceat(values_uv, begins)
    is_long, is_narrow = span_ns >= SHORTEST_PIECE_NS, span_uv <= STILL_RANGE_UV
    return quiet[is_long & is_narrow & (np.add.reduceat(is_new, begins, dtype=np.int64) >= FEWEST_STILL_VALUES)]


def _apart(rows: ArrangedSamples, picked: _Ints, of_pair: _Ints, pairs: _Ints, spread: _Floats, sources: int) -> _Ints:
    """Return the pairs far from the median source of their window, by spread and by steps from one row to the next."""
    window = pairs // sources
    moving = np.flatnonzero(np.isfinite(spread))
    begins = np.flatnonzero(np.append(True, np.diff(window[moving]) > 0)[: len(moving)])
    if not len(begins):
        return moving[:0]
    widest, narrowest = (ufunc.reduceat(spread[moving], begins) for ufunc in (np.maximum, np.minimum))
    suspect = np.repeat(widest >= APART * narrowest, np.diff(begins, append=len(moving)))
    moving = moving[suspect]
    steps = _mean_steps(rows.values_uv[picked], of_pair, moving, len(pairs))
    found = [moving[:0]]
    for together in np.split(moving, np.flatnonzero(np.diff(window[moving])) + 1):
        if len(together):
            found.append(together[_is_far(spread[together], APART) & _is_far(steps[together], STEPS_APART)])
    return np.concatenate(found)


def _mean_steps(values_uv: _Floats, of_pair: _Ints, wanted: _Ints, pairs: int) -> _Floats:
    """Return how far the values of each wanted pair move from one row to the next, on average, shape (pairs,)."""
    mine = np.flatnonzero(np.isin(of_pair, wanted))
    mine = mine[np.argsort(of_pair[mine], kind="stable")]
    at = of_pair[mine]
    is_same = at[1:] == at[:-1]
    steps_uv = np.abs(np.diff(values_uv[mine]))[is_same]
    with np.errstate(invalid="ignore"):
        mean: _Floats = np.bincount(at[1:][is_same], steps_uv, minlength=pairs) / np.bincount(at[1:][is_same], minlength=pairs)
    return mean


def _is_far(sizes: _Floats, factor: float) -> npt.NDArray[np.bool_]:
    """Return which sizes are at least `factor` times larger or smaller than the (lower) median."""
    middle = np.sort(sizes)[(len(sizes) - 1) // 2]
    is_far: npt.NDArray[np.bool_] = (sizes >= factor * middle) | (factor * sizes <= middle)
    return is_far
