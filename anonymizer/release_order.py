"""Rows in release order, and the mapping from the rows of a batch back to the rows that were read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from anonymizer.batch import Batch
from anonymizer.samples import NO_SOURCE, Samples, picked, sort_key

_Rows = npt.NDArray[np.intp]


@dataclass(frozen=True, slots=True, eq=False)
class ReleaseOrder:
    """Rows in order of time, then released id.

    Args:
        samples: The rows.
        ranks: Rank of each source by released id; the last entry is for rows without a source.
        rows: Position of each row in the original samples.
    """

    samples: Samples
    ranks: npt.NDArray[np.int64]
    rows: _Rows | slice

    @classmethod
    def of(cls, samples: Samples, chosen: _Rows | None, released_ids: Sequence[str]) -> ReleaseOrder:
        """Return the chosen rows in order; all if `chosen` is None."""
        ranks = np.arange(len(released_ids) + 1)
        ranks[np.argsort(np.array(released_ids, dtype=np.object_), kind="stable")] = np.arange(len(released_ids))
        rows: _Rows | slice = slice(None) if chosen is None else chosen
        times_ns, of_rows = samples.times_ns[rows], ranks.astype(np.int32)[samples.source_codes[rows]]
        if not _are_in_order(times_ns, of_rows):
            first_ns = int(times_ns.min())
            span_ns = int(times_ns.max()) - first_ns + 1
            # Beyond three centuries the difference of two times does not fit into 64 bits.
            offsets_ns = times_ns - first_ns if span_ns < 2**63 else times_ns
            key = sort_key(offsets_ns, of_rows, span_ns=span_ns, sources=len(ranks))
            order = np.argsort(key, kind="stable")
            rows = order if chosen is None else chosen[order]
        return cls(picked(samples, rows), ranks, rows)

    def positions(self, first: int, stop: int, batch: Batch) -> _Rows | slice:
        """Return which of the rows `first` … `stop - 1` a batch releases; of duplicates, the first."""
        if len(batch) == stop - first:
            return slice(first, stop)
        part = picked(self.samples, slice(first, stop))
        usable = np.flatnonzero(np.isfinite(part.values_uv) & (part.source_codes != NO_SOURCE))
        key = sort_key(
            np.concatenate((part.times_ns[usable], batch.times_ns)) - batch.window.start_ns,
            self.ranks[np.concatenate((part.source_codes[usable], batch.source_index))],
            span_ns=batch.window.end_ns - batch.window.start_ns,
            sources=len(self.ranks),
        )
        return first + usable[np.searchsorted(key[: len(usable)], key[len(usable) :])]


def _are_in_order(times_ns: npt.NDArray[np.int64], ranks: npt.NDArray[np.int32]) -> bool:
    if (times_ns[1:] < times_ns[:-1]).any():
        return False
    return bool(((times_ns[1:] > times_ns[:-1]) | (ranks[1:] >= ranks[:-1])).all())
