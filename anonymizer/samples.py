"""Identifiable input: samples as they were measured, and the contract of a source of them.

Only inputs, the core and the service may import this module. An output that did would fail the architecture test.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from anonymizer.windows import Window, WindowRange

#: The code of a row that names no source.
NO_SOURCE = -1

#: A source with several values at this share of its times or more contradicts itself throughout, not at single bad points.
THROUGHOUT = 0.1

_Rows = npt.NDArray[np.intp]
_Marks = npt.NDArray[np.bool_]
_Counts = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Samples:
    """Rows of time, source and value, in any order.

    Args:
        times_ns: Nanoseconds since the epoch, shape (n,), int64.
        source_codes: Position of each row's source in `source_ids`, or `NO_SOURCE`, shape (n,), int32.
        source_ids: The sources, ascending and distinct.
        values_uv: Microvolts, shape (n,), float64; NaN where there was no finite number.
    """

    times_ns: npt.NDArray[np.int64]
    source_codes: npt.NDArray[np.int32]
    source_ids: tuple[str, ...]
    values_uv: npt.NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.times_ns)

    def __repr__(self) -> str:
        return f"Samples({len(self)} rows)"


def make_samples(
    times_ns: npt.ArrayLike, source_codes: npt.ArrayLike, source_ids: Sequence[str], values_uv: npt.ArrayLike
) -> Samples:
    """Return samples with their sources in ascending order, whatever the order of the dictionary.

    Repeated ids in `source_ids` are merged; an empty id means no source.
    """
    ascending = tuple(sorted({source_id for source_id in source_ids if source_id}))
    position = {source_id: code for code, source_id in enumerate(ascending)}
    # The extra last entry is the one that NO_SOURCE, -1, indexes.
    code_of = np.array([*(position.get(source_id, NO_SOURCE) for source_id in source_ids), NO_SOURCE], dtype=np.int32)
    codes = np.asarray(source_codes, dtype=np.int32)
    stay = bool((code_of[:-1] == np.arange(len(source_ids))).all())
    return Samples(
        times_ns=np.asarray(times_ns, dtype=np.int64),
        source_codes=codes if stay else code_of[codes],
        source_ids=ascending,
        values_uv=np.asarray(values_uv, dtype=np.float64),
    )


def picked(samples: Samples, rows: slice | _Rows) -> Samples:
    """Return some of the rows."""
    return Samples(samples.times_ns[rows], samples.source_codes[rows], samples.source_ids, samples.values_uv[rows])


def joined(parts: Sequence[Samples]) -> Samples:
    """Return the rows of all parts, at least one, with one table of sources."""
    if len(parts) == 1:
        return parts[0]
    firsts = np.cumsum([0, *(len(part.source_ids) for part in parts)]).tolist()
    codes = [
        np.where(part.source_codes == NO_SOURCE, NO_SOURCE, part.source_codes + first)
        for part, first in zip(parts, firsts, strict=False)
    ]
    return make_samples(
        np.concatenate([part.times_ns for part in parts]),
        np.concatenate(codes),
        [source_id for part in parts for source_id in part.source_ids],
        np.concatenate([part.values_uv for part in parts]),
    )


def rows_by_source(samples: Samples, windows: WindowRange) -> list[Counter[str]]:
    """Return how many rows of each source are in each window, by its id; the id of rows without a source is empty."""
    ids, index = ("", *samples.source_ids), windows.index_of(samples.times_ns)
    inside = (index >= 0) & (index < len(windows))
    # NO_SOURCE is -1, and becomes the first id.
    key = index[inside] * len(ids) + (samples.source_codes[inside] - NO_SOURCE)
    counts = np.bincount(key, minlength=len(windows) * len(ids)).reshape(len(windows), len(ids))
    return [Counter({ids[at]: int(rows[at]) for at in np.flatnonzero(rows)}) for rows in counts]


@dataclass(frozen=True, slots=True)
class RowsBeside:
    """Counts of a source's rows that are in no window of a run.

    Args:
        without_time: Rows without a usable time: read, and invalid.
        not_requested: Rows outside the requested span or sources; not counted as read.
    """

    without_time: int = 0
    not_requested: int = 0


class Inventory(Protocol):
    """The files of a data set, by path. Paths may name wearers and are never shown."""

    @property
    def request(self) -> str:
        """The glob that chose them; empty: all."""

    def states(self) -> Mapping[str, str]:
        """Return every file that exists, with a state that changes with its content."""

    def times_of(self, paths: Collection[str]) -> list[Window]:
        """Return the time intervals in which these files have rows, in order; they may overlap."""


class SampleSource(Protocol):
    """Where samples come from.

    The service may read in one thread while it calls another method in a second thread. The same windows can be read any number of times:
    reading does not consume rows.
    """

    #: Name for logs and messages, such as the bucket's; never a secret.
    name: str

    #: Identifies the data set: the same for the same server, bucket, measurement and field, or the same file.
    data_set: str

    #: The data set's name when only its address is known, not its id; empty if there is none.
    data_set_address: str

    #: Whether `data_set` is computed from the samples, so that a reader could use it to confirm a guess of them.
    data_set_tells_samples: bool

    #: How many concurrent reads it answers faster than sequential ones.
    concurrent_reads: int

    @property
    def may_have_a_namesake(self) -> bool:
        """Whether another server's data set can have the same `data_set`, because it is made of names only; known once open."""

    @property
    def server(self) -> str:
        """The server, once open, such as `InfluxDB 2 (v2.7.12), asked in Flux`; empty for stored files."""

    @property
    def is_surveyed(self) -> bool:
        """Whether `open` examines all of it, so that it can be judged before anything is released."""

    @property
    def repeats(self) -> Sequence[Window] | None:
        """The spans in which a source may have several rows for one time, known once open; None if any span may be one."""

    @property
    def inventory(self) -> Inventory | None:
        """Its files, once open; None unless files can be added to it."""

    @property
    def remarks(self) -> tuple[str, ...]:
        """Warnings found at opening or later, one sentence each, with counts and places but no samples."""

    def open(self) -> None:
        """Connect to the source and check that it can be read.

        Raises:
            SourceUnavailable: It cannot be reached now.
            SourceDenied: It refuses the service.
            SourceRefused: It can never be anonymized as configured.
        """

    def look(self) -> None:
        """Check with a minimal request that it can still be read. Raises as `open` does."""

    def now_ns(self) -> int | None:
        """Return the time of the source's own clock, never ahead of it; None if it has none."""

    def clock_check_in_s(self) -> float:
        """Return after how many seconds a call of `now_ns` would improve the known time; infinity if it is accurate enough."""

    def extent(self) -> tuple[int, int] | None:
        """Return the first time and the last time + 1 of all samples, in nanoseconds; None if the source has no natural bounds."""

    def rows_beside(self, start_ns: int, end_ns: int) -> RowsBeside:
        """Return counts of the rows outside two times, in nanoseconds; zero for a source without bounds."""

    def added_since(self, data_set: str) -> npt.NDArray[np.int64] | None:
        """Return the times of rows added since the data set had the given id, in nanoseconds; None if it never had, or if unknown."""

    def earlier_version(self, is_known: Callable[[str], bool]) -> str | None:
        """Return the id that the data set had before rows were appended to it, if a function knows that id; None if there is none."""

    def kept_since_ns(self) -> int | None:
        """Return the time before which retention may have removed rows, in nanoseconds; None if there is no retention."""

    def next_row_ns(self, start_ns: int, end_ns: int) -> int | None:
        """Return a time in `[start_ns, end_ns)` before which the span has no rows; None if the whole span has none.

        Called before long spans are counted window by window, so that empty years cost one query. Raises as `open` does.
        """

    def count(self, windows: WindowRange) -> npt.NDArray[np.int64]:
        """Return how many rows the source holds for each window, shape (len(windows),). Raises as `open` does."""

    def count_by_source(self, windows: WindowRange) -> list[Counter[str]]:
        """Return what `rows_by_source` returns of all rows that the source holds. Raises as `open` does."""

    def read(self, windows: WindowRange) -> Samples:
        """Return all rows of the windows, never some of them, or raise as `open` does."""

    def advice_when_empty(self) -> str:
        """Return a sentence of advice for a run that found no rows."""

    def hint_on_contradictions(self) -> str:
        """Return what may distinguish the series of a source that has two values for one time; may be empty."""

    def close(self) -> None:
        """Release the connection or file."""


class StoredSource:
    """Base of sources that read stored files: no clock, no retention, and every read detects changes itself."""

    server = ""
    may_have_a_namesake = False
    repeats: Sequence[Window] | None = None
    read: Callable[[WindowRange], Samples]

    def look(self) -> None:
        """Do nothing: a read checks that what it reads is unchanged."""

    def now_ns(self) -> None:
        """Return None: files have no clock."""
        return

    def clock_check_in_s(self) -> float:
        """Return infinity: there is nothing to check."""
        return math.inf

    def earlier_version(self, is_known: Callable[[str], bool]) -> str | None:
        """Return the id that the data set had before rows were appended to it, if a function knows that id; None if there is none."""

    def kept_since_ns(self) -> None:
        """Return None: files keep everything."""
        return

    def count_by_source(self, windows: WindowRange) -> list[Counter[str]]:
        """Return how many rows of each source are in each window; they are read."""
        return rows_by_source(self.read(windows), windows)


@dataclass(frozen=True, slots=True, eq=False)
class Contradictions:
    """Sources with two different values for one time, by window; each array has shape (windows,).

    Args:
        rows: Rows of such sources, without duplicates. None of them is released.
        contradicting: How many sources contradict themselves.
        throughout: Of these, sources that do so at 10 % of their times or more.
        sources: How many sources have rows; 0 where none contradicts itself.
    """

    rows: _Counts
    contradicting: _Counts
    throughout: _Counts
    sources: _Counts

    @classmethod
    def none(cls, windows: int) -> Contradictions:
        """Return the counts for windows in which no source contradicts itself."""
        return cls(*(np.zeros(windows, dtype=np.int64) for _ in range(4)))

    def part(self, first: int, stop: int) -> Contradictions:
        """Return those of the windows `first` … `stop - 1`."""
        return Contradictions(
            self.rows[first:stop], self.contradicting[first:stop], self.throughout[first:stop], self.sources[first:stop]
        )


@dataclass(frozen=True, slots=True, eq=False)
class ArrangedSamples:
    """The rows of a chunk of windows that can be anonymized, in order of time, then rank of source.

    Args:
        windows: The chunk.
        window_index: Window of each row, shape (n,), int64, ascending.
        times_ns: Shape (n,), int64.
        source_codes: Position of each row's source in the samples' `source_ids`, shape (n,), int32.
        values_uv: Finite, as measured, shape (n,), float64.
        read: Rows read per window, shape (len(windows),).
        invalid: Of these, rows without a finite number or a source.
        duplicate: Of these, repeats of the same time, source and value.
        contradictions: Of these, the rows of sources that contradict themselves in the window.
        outside: Rows whose time lies in no window.
    """

    windows: WindowRange
    window_index: npt.NDArray[np.int64]
    times_ns: npt.NDArray[np.int64]
    source_codes: npt.NDArray[np.int32]
    values_uv: npt.NDArray[np.float64]
    read: _Counts
    invalid: _Counts
    duplicate: _Counts
    contradictions: Contradictions
    outside: int


def arrange(samples: Samples, windows: WindowRange, source_ranks: npt.NDArray[np.int64]) -> ArrangedSamples:
    """Remove and count the rows that cannot be anonymized, and sort the rest.

    A source with two different values for one time loses all its rows of that window: neither value can be identified as the right one,
    and it is equally uncertain which series the other rows belong to.

    Args:
        samples: Rows in any order.
        windows: The chunk they were asked for.
        source_ranks: Rank of each source in the order wanted among equal times, shape (len(samples.source_ids),).
    """
    window_index = windows.index_of(samples.times_ns)
    inside = (window_index >= 0) & (window_index < len(windows))
    valid = inside & np.isfinite(samples.values_uv) & (samples.source_codes != NO_SOURCE)
    # Usually all rows are valid, and no copy is needed.
    usable: _Rows | slice = slice(None) if valid.all() else np.flatnonzero(valid)
    read = np.bincount(window_index[usable if isinstance(usable, slice) else inside], minlength=len(windows))
    invalid = (
        np.zeros_like(read) if isinstance(usable, slice) else read - np.bincount(window_index[usable], minlength=len(windows))
    )

    chosen, key = _in_order(samples, usable, windows, source_ranks)
    duplicate: _Rows = np.empty(0, dtype=np.intp)
    contradictions = Contradictions.none(len(windows))
    if not isinstance(chosen, slice) and not _ascends_strictly(key):
        by_value = np.lexsort((samples.values_uv[chosen], key))
        chosen, duplicate, is_again = _without_alike(samples, chosen[by_value], key[by_value])
        if is_again.any():
            chosen, contradictions = _without_contradicting(samples, window_index, chosen, is_again, windows=len(windows))
    return ArrangedSamples(
        windows=windows,
        window_index=window_index[chosen],
        times_ns=samples.times_ns[chosen],
        source_codes=samples.source_codes[chosen],
        values_uv=samples.values_uv[chosen],
        read=read,
        invalid=invalid,
        duplicate=np.bincount(window_index[duplicate], minlength=len(windows)),
        contradictions=contradictions,
        outside=len(samples) - int(np.count_nonzero(inside)),
    )


def contradictions_in(samples: Samples, windows: WindowRange) -> Contradictions:
    """Return which windows hold sources that contradict themselves."""
    return arrange(samples, windows, np.arange(len(samples.source_ids))).contradictions


def _in_order(
    samples: Samples, rows: _Rows | slice, windows: WindowRange, source_ranks: npt.NDArray[np.int64]
) -> tuple[_Rows | slice, npt.NDArray[np.int64]]:
    """Return the positions of `rows` by time and rank, and a key that is equal for rows of the same time and source."""
    times_ns = samples.times_ns[rows]
    if _ascends_strictly(times_ns):
        return rows, times_ns
    offsets_ns = times_ns - windows.start_ns
    ranks = source_ranks.take(samples.source_codes[rows])
    key = sort_key(offsets_ns, ranks, span_ns=windows.end_ns - windows.start_ns, sources=len(source_ranks))
    if not _ascends_strictly(key):
        order = np.argsort(key, kind="stable")
        rows, key = order if isinstance(rows, slice) else rows[order], key[order]
    return rows, key


def _without_alike(samples: Samples, rows: _Rows, key: npt.NDArray[np.int64]) -> tuple[_Rows, _Rows, _Marks]:
    """Return rows sorted by key and value without duplicates; the duplicates; and which kept rows repeat the previous key."""
    values_uv = samples.values_uv[rows]
    is_again = np.append(False, key[1:] == key[:-1])[: len(key)]
    is_alike = is_again & np.append(False, values_uv[1:] == values_uv[:-1])[: len(key)]
    # The first row of a set of duplicates carries the comparison with the previous key.
    return rows[~is_alike], rows[is_alike], is_again[~is_alike]


def _without_contradicting(
    samples: Samples, window_index: npt.NDArray[np.int64], rows: _Rows, is_again: _Marks, *, windows: int
) -> tuple[_Rows, Contradictions]:
    """Return rows without those of sources that contradict themselves in a window, and the counts of these."""
    sources = len(samples.source_ids)
    pair = window_index[rows] * sources + samples.source_codes[rows]
    contradicting = np.unique(pair[is_again])
    is_lost = np.isin(pair, contradicting)
    at, again = np.searchsorted(contradicting, pair[is_lost]), is_again[is_lost]
    is_second = again & ~np.append(False, again[:-1])
    times, twofold = (np.bincount(at[marks], minlength=len(contradicting)) for marks in (~again, is_second))
    where = contradicting // sources
    held = np.unique(pair) // sources
    by_window = [
        np.bincount(found, minlength=windows)
        for found in (window_index[rows[is_lost]], where, where[twofold >= THROUGHOUT * times], held[np.isin(held, where)])
    ]
    return rows[~is_lost], Contradictions(*by_window)


def sort_key(
    offsets_ns: npt.NDArray[np.int64], ranks: npt.NDArray[np.integer], *, span_ns: int, sources: int
) -> npt.NDArray[np.int64]:
    """Return one integer per row that sorts as (offset, rank) does."""
    if span_ns * max(sources, 1) < 2**63:
        key = offsets_ns * sources
        key += ranks
        return key
    # A chunk may span years and many sources: times are numbered densely first, so that the product fits.
    _, dense = np.unique(offsets_ns, return_inverse=True)
    return dense.astype(np.int64) * sources + ranks


def _ascends_strictly(key: npt.NDArray[np.int64]) -> bool:
    return bool((key[1:] > key[:-1]).all())
