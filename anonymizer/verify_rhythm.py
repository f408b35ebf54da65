"""Verifies `METHOD=rhythm`: does every released row match the public beat, given the beats among the rows?

Shares only the table of the public beat, which is the promise itself, with the code that builds batches.
"""

from __future__ import annotations

from math import isqrt

import numpy as np
import numpy.typing as npt

from anonymizer.batch import Batch, Certificate
from anonymizer.errors import PrivacyViolation
from anonymizer.public_beat import TABLE_NV, TEMPLATE_DIGEST

_Ints = npt.NDArray[np.int64]

_MS = 1_000_000

_TABLE_FROM, _TABLE_TO = -250 * _MS, 450 * _MS

_GAP = _REFRACTORY = 200 * _MS


def verify_public_beats(batch: Batch) -> Certificate:
    """Rebuild every row from the rows at beats alone, and compare.

    Raises:
        PrivacyViolation: A row of the batch breaks the rule.
    """
    if batch.promise.template_digest != TEMPLATE_DIGEST:
        raise _violation(batch, "names a template that is not the public beat")
    if batch.promise.k is not None or batch.promise.k_unit is not None:
        raise _violation(batch, "promises a k, which counts nothing where the shape is removed")
    if batch.imputed_rows is not None or batch.counts.starred or batch.counts.suppressed:
        raise _violation(batch, "marks rows as imputed, of which this method makes none")
    order = np.argsort(batch.source_index, kind="stable")
    times, sources, values = batch.times_ns[order], batch.source_index[order], batch.values_uv[order]
    is_new = np.append(True, (np.diff(sources) != 0) | (np.diff(times) > _GAP))
    segment = np.cumsum(is_new) - 1
    is_beat = values == 1000
    beats = np.flatnonzero(is_beat)
    if np.bincount(segment[beats], minlength=segment[-1] + 1).min() < 2:
        raise _violation(batch, "holds a segment with fewer than two beats")
    to_next = np.where(np.diff(segment[beats]) == 0, np.diff(times[beats]), 0)
    if (to_next[to_next > 0] < _REFRACTORY).any() or not len(to_next):
        raise _violation(batch, "holds two beats of one source within 200 ms")
    unexplained = int((values[~is_beat] != _expected(times, segment, is_beat, to_next)[~is_beat]).sum())
    if unexplained:
        raise _violation(batch, f"holds {unexplained} rows that are not of the public beat")
    return Certificate(distinct_values=0, smallest_group=0, distinct_sources=len(np.unique(sources)))


def _expected(times: _Ints, segment: _Ints, is_beat: npt.NDArray[np.bool_], to_next: _Ints) -> _Ints:
    """Return the value of each row that is not a beat, in whole microvolts, from the beats before and after it in its segment."""
    rows, beats = np.arange(len(times)), np.flatnonzero(is_beat)
    last, upcoming = np.cumsum(is_beat) - 1, np.searchsorted(beats, rows)
    here, there = beats[np.maximum(last, 0)], beats[np.minimum(upcoming, len(beats) - 1)]
    follows = (last >= 0) & (segment[here] == segment)
    leads = (upcoming < len(beats)) & (segment[there] == segment)
    # Between beats the interval is the row's own; before the first it is the next one, after the last the one before.
    spans = np.concatenate(([0], to_next, [0]))
    interval = np.where(
        follows & leads, times[there] - times[here], np.where(leads, spans[upcoming + leads], spans[np.maximum(last, 0)])
    )
    since, until = times - times[here], times[there] - times
    distinct, which = np.unique(interval, return_inverse=True)
    root = np.array([isqrt(min(max(one, 300 * _MS), 2000 * _MS) * 10**9) for one in distinct.tolist()], dtype=np.int64)[which]
    end = np.minimum(_TABLE_TO * root // 10**9, 58 * interval // 100)
    lead = np.minimum(-_TABLE_FROM, 38 * interval // 100)
    from_beat = _at(np.where(follows, np.minimum(since, end), 0) * 10**9 // root)
    to_beat = _at(np.where(leads, -np.minimum(until, lead), 0))
    start_nv, stop_nv = _at(end * 10**9 // root), _at(-lead)
    is_flat = follows & leads & (since > end) & (until > lead)
    line = start_nv + np.where(is_flat, (stop_nv - start_nv) * (since - end), 0) // np.maximum(interval - lead - end, 1)
    nanovolts = np.select([~leads, ~follows, since <= end, until <= lead], [from_beat, to_beat, from_beat, to_beat], line)
    expected: _Ints = np.minimum(999, (nanovolts + 500) // 1000)
    return expected


def _at(offset_ns: _Ints) -> _Ints:
    """Return the table's value at a time after the beat, in nanovolts."""
    table = np.array(TABLE_NV, dtype=np.int64)
    whole, part = np.divmod(offset_ns - _TABLE_FROM, _MS)
    following = np.minimum(whole + 1, len(table) - 1)
    return np.asarray(table[whole] + (table[following] - table[whole]) * part // _MS)


def _violation(batch: Batch, what: str) -> PrivacyViolation:
    return PrivacyViolation(f"batch {batch.batch_id} {what}")
