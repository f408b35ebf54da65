"""The second opinion: does a finished batch keep the promise it states?

Shares no code with the modules that build batches, and examines only the batch.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

from anonymizer.batch import Batch, Certificate, KUnit
from anonymizer.errors import PrivacyViolation
from anonymizer.verify_rhythm import verify_public_beats

#: All fields a batch may have. A new field must be reviewed and added here before it can be released.
ALLOWED_FIELDS = frozenset(
    {
        "batch_id",
        "window",
        "times_ns",
        "source_index",
        "source_ids",
        "values_uv",
        "promise",
        "counts",
        "imputed_rows",
        "imputed_value_uv",
        "certificate",
        "is_erased",
    }
)

#: Rounding allowed in an imputed value, which is a mean of thousands of numbers.
_MEAN_TOLERANCE = 1e-9

#: Whole values within a range of this size are counted without sorting.
_MOST_NUMBERS = 2**16


def verify(batch: Batch) -> Certificate:
    """Recount everything that was promised of `batch`; messages hold counts, never values or ids.

    Returns:
        What was counted.

    Raises:
        PrivacyViolation: The batch must not be released.
    """
    _check_form(batch)
    sources = _check_rows(batch)
    _check_conservation(batch)
    if batch.promise.template_digest:
        return verify_public_beats(batch)
    if batch.promise.k is None or batch.promise.k < 2 or batch.promise.k_unit is None:
        raise _violation(batch, f"promises k={batch.promise.k}, which is not a valid k")
    fewest, distinct_values = _verify_groups(batch, batch.promise.k, batch.promise.k_unit)
    return Certificate(distinct_values=distinct_values, smallest_group=fewest, distinct_sources=sources)


def _verify_groups(batch: Batch, k: int, k_unit: KUnit) -> tuple[int, int]:
    """Return how many rows or sources share the rarest value that is not imputed, and how many such values there are."""
    own_group = slice(None) if batch.imputed_rows is None else ~batch.imputed_rows
    _check_imputed(batch, batch.values_uv[own_group], k)
    values = batch.values_uv[own_group]
    behind_value = _sharers(values, batch.source_index[own_group], k_unit)
    fewest = int(behind_value.min(initial=2**62))
    if fewest < k:
        raise _violation(batch, f"promises k={k} but a value is shared by {fewest} {k_unit}(s)")
    return fewest, len(behind_value)


def _sharers(values: npt.NDArray[np.float64], sources: npt.NDArray[np.int32], k_unit: str) -> npt.NDArray[np.intp]:
    """Return how many rows, or different sources, share each distinct value."""
    which, values_at_most = _numbered(values)
    if k_unit == "record":
        behind = np.bincount(which, minlength=values_at_most)
    else:
        sources_at_most = int(sources.max(initial=0)) + 1
        is_behind = np.zeros((values_at_most, sources_at_most), dtype=np.bool_)
        is_behind[which, sources] = True
        behind = is_behind.sum(axis=1)
    return behind[behind > 0]


def _numbered(values: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.intp], int]:
    """Return a number for each value, equal for equal values only, and the count of numbers; some may be unused."""
    lowest, highest = float(values.min(initial=0.0)), float(values.max(initial=0.0))
    if highest - lowest < _MOST_NUMBERS:
        # Whole microvolts are their own numbers, which saves sorting. Converting back checks that nothing was rounded away.
        number = (values - lowest).astype(np.intp)
        if (number + lowest == values).all():
            return number, int(highest - lowest) + 1
    distinct, number = np.unique(values, return_inverse=True)
    return number, len(distinct)


def _check_form(batch: Batch) -> None:
    if {field.name for field in dataclasses.fields(batch)} != ALLOWED_FIELDS:
        raise _violation(batch, "holds fields that are not on the list of what may leave")
    lengths = {len(batch.times_ns), len(batch.source_index), len(batch.values_uv)}
    if batch.imputed_rows is not None:
        lengths.add(len(batch.imputed_rows))
    if batch.is_erased:
        raise _violation(batch, "is to be released after rows were taken back from it")
    if len(lengths) != 1 or not len(batch):
        raise _violation(batch, f"must have columns of one length, at least 1, got {sorted(lengths)}")


def _check_rows(batch: Batch) -> int:
    """Return how many sources have rows."""
    if not np.isfinite(batch.values_uv).all():
        raise _violation(batch, "holds values that are not finite")
    if (np.signbit(batch.values_uv) & (batch.values_uv == 0.0)).any():
        raise _violation(batch, "holds a zero below zero, which a reader could tell from the other")
    if int(batch.times_ns.min()) < batch.window.start_ns or int(batch.times_ns.max()) >= batch.window.end_ns:
        raise _violation(batch, "holds times outside its window")
    if int(batch.source_index.min()) < 0 or int(batch.source_index.max()) >= len(batch.source_ids):
        raise _violation(batch, "holds rows without a source id")
    present = np.flatnonzero(np.bincount(batch.source_index)).tolist()
    if "" in {batch.source_ids[index] for index in present}:
        raise _violation(batch, "holds rows whose source id is empty")
    if len(set(batch.source_ids)) != len(batch.source_ids):
        raise _violation(batch, "releases two sources under one id")
    if not _are_in_order(batch):
        raise _violation(batch, "must have one row per time and source, in that order")
    return len(present)


def _are_in_order(batch: Batch) -> bool:
    later = batch.times_ns[1:] > batch.times_ns[:-1]
    if later.all():
        return True
    rank = np.empty(len(batch.source_ids), dtype=np.int64)
    rank[sorted(range(len(rank)), key=batch.source_ids.__getitem__)] = np.arange(len(rank))
    ranks = rank[batch.source_index]
    same_time_next_id = (batch.times_ns[1:] == batch.times_ns[:-1]) & (ranks[1:] > ranks[:-1])
    return bool((later | same_time_next_id).all())


def _check_conservation(batch: Batch) -> None:
    counts = batch.counts
    if min(counts.numbers()) < 0:
        raise _violation(batch, f"counts rows below zero: {counts}")
    if not counts.are_conserved() or counts.released != len(batch):
        raise _violation(batch, f"does not account for its rows: {len(batch)} rows, {counts}")


def _check_imputed(batch: Batch, own_values_uv: npt.NDArray[np.float64], k: int) -> None:
    """Check imputed values: fewer than k rows may carry one only because it is computed from all the other rows."""
    imputed = len(batch) - len(own_values_uv)
    # k or more imputed rows are starred (level 8); fewer are suppressed (level 9).
    expected_counts = (imputed, 0) if imputed >= k else (0, imputed)
    if (batch.counts.starred, batch.counts.suppressed) != expected_counts:
        raise _violation(batch, f"marks {imputed} rows as imputed but counts {batch.counts}")
    if not imputed:
        if batch.imputed_rows is not None or batch.imputed_value_uv is not None:
            raise _violation(batch, "states an imputed value that no row carries")
        return
    if batch.promise.k_unit == "source":
        raise _violation(batch, "holds imputed rows, which no number of sources shares")
    if imputed == len(batch) or batch.imputed_value_uv is None:
        raise _violation(batch, "holds imputed rows but nothing they could be imputed from")
    expected = float(np.mean(own_values_uv))
    if abs(batch.imputed_value_uv - expected) > _MEAN_TOLERANCE * max(1.0, abs(expected)):
        raise _violation(batch, "imputes a value that is not the mean of the other rows")
    if not (batch.values_uv[batch.imputed_rows] == batch.imputed_value_uv).all():
        raise _violation(batch, "holds imputed rows with a value of their own")


def _violation(batch: Batch, what: str) -> PrivacyViolation:
    return PrivacyViolation(f"batch {batch.batch_id} {what}")
