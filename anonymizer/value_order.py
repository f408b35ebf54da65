"""Rows in the order in which groups are cut: value, then time, then source."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from anonymizer.samples import ArrangedSamples

_Int64s = npt.NDArray[np.int64]
_Positions = npt.NDArray[np.intp]

#: numpy sorts 16-bit integers by radix, in linear time.
_SORTED_BY_DIGITS = 2**16


def in_value_order(rows: ArrangedSamples, leaves: _Int64s, positions: _Positions) -> _Positions:
    """Return `positions`, ascending as given, in order of window, value, time and source.

    The source is the raw one: which of several equal rows a cut divides must not depend on the pseudonym key. Rows come in order of time
    and released id. If raw ids have the same order, only values need sorting, per window.
    """
    positions = _by_time_and_source(rows, positions)
    chosen = leaves[positions]
    above = chosen - chosen.min(initial=0)
    if above.max(initial=0) < _SORTED_BY_DIGITS:
        above = above.astype(np.uint16)
    bounds = np.searchsorted(rows.window_index[positions], np.arange(len(rows.windows) + 1))
    order = np.empty(len(positions), dtype=np.intp)
    for begin, end in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
        order[begin:end] = begin + np.argsort(above[begin:end], kind="stable")
    return positions[order]


def _by_time_and_source(rows: ArrangedSamples, positions: _Positions) -> _Positions:
    times_ns, sources = rows.times_ns[positions], rows.source_codes[positions]
    is_later = times_ns[1:] > times_ns[:-1]
    if (is_later | (sources[1:] > sources[:-1])).all():
        return positions
    moment = np.cumsum(np.concatenate(([False], is_later)))
    return positions[np.argsort(moment * (int(sources.max()) + 1) + sources, kind="stable")]
