"""Which rows an erasure takes: the source's own, all that carry an imputed mean, and with `strict` those whose value fewer than k share.

What remains of a window is a function of what was released: means are never computed again. So whoever has both copies learns whose rows
went, and nothing new of others.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from anonymizer.batch import Batch, Certificate, Promise
from anonymizer.exclusion import folded
from anonymizer.pseudonyms import Pseudonymizer
from service.state.erasures import Taken
from service.state.journal import Entry

#: How far an imputed value may be from the mean of the other rows: it is a mean of thousands of numbers.
_MEAN_TOLERANCE = 1e-9

#: Shorter ids are found in any file by chance: their bytes are not searched for.
SHORTEST_SEARCHED_BYTES = 6

#: The window of a row that is in no released window.
NO_WINDOW = -(2**63)


@dataclass(frozen=True, slots=True)
class Person:
    """The source whose rows are erased, as it may stand in outputs.

    Args:
        exact: Released ids that are its own.
        folded_id: Its id, folded; None where only the pseudonym is known, or where no window was released with ids as they are.
        others: Ids of others that were met and that contain one of its own, as `patient-12` contains `patient-1`.
    """

    exact: frozenset[str]
    folded_id: str | None = None
    others: set[str] = field(default_factory=set, compare=False, repr=False)

    def is_named_by(self, released_id: str) -> bool:
        """Return whether a released id is this source's."""
        if released_id in self.exact or (self.folded_id is not None and folded(released_id) == self.folded_id):
            return True
        if any(one in released_id for one in self.exact if len(one.encode()) >= SHORTEST_SEARCHED_BYTES):
            self.others.add(released_id)
        return False

    def codes(self, ids: Sequence[str]) -> npt.NDArray[np.bool_]:
        """Return which of some ids are this source's, shape (len(ids),)."""
        return np.array([self.is_named_by(one) for one in ids], dtype=np.bool_)


#: What a pseudonym looks like.
_PSEUDONYM = re.compile("[0-9a-f]{64}")


def person_of_id(source_id: str, keys: Collection[bytes], *, is_released: bool) -> Person:
    """Return a source by its id, with its pseudonyms under some keys. An id that is written in another way has another pseudonym.

    Args:
        source_id: The id.
        keys: The keys of pseudonyms; empty: ids are released as they are.
        is_released: Whether windows may have been released with ids as they are.
    """
    pseudonyms = {pseudonym for key in keys for pseudonym in Pseudonymizer(key).released_ids(sorted(forms_of(source_id)))}
    if keys and not is_released and _PSEUDONYM.fullmatch(source_id):
        # Such an id may be the pseudonym of another source.
        return Person(frozenset(pseudonyms))
    return Person(frozenset(pseudonyms | forms_of(source_id)), folded(source_id))


def forms_of(source_id: str) -> frozenset[str]:
    """Return the ways in which an id may have been written: with other characters for the same, in another case, with blanks."""
    forms = {source_id, source_id.strip()}
    forms |= {unicodedata.normalize(form, one) for one in tuple(forms) for form in ("NFC", "NFD", "NFKC")}
    forms |= {one for form in tuple(forms) for one in (form.lower(), form.upper(), form.casefold())}
    return frozenset(filter(None, forms))


class ReleasedWindows:
    """The windows that the journal knows, to find that of each row.

    Args:
        entries: Of the journal, in order; accepted gaps, of which nothing is known, are left out.
    """

    def __init__(self, entries: Sequence[Entry]) -> None:
        self._entries = [entry for entry in entries if entry.window_ns]
        self._starts = np.array([entry.interval.start_ns for entry in self._entries], dtype=np.int64)
        self._ends = np.array([entry.interval.end_ns for entry in self._entries], dtype=np.int64)
        self._lengths = np.array([entry.window_ns for entry in self._entries], dtype=np.int64)

    def entry_at(self, time_ns: int) -> Entry | None:
        """Return the entry that a time is in."""
        at = int(np.searchsorted(self._starts, time_ns, side="right")) - 1
        return self._entries[at] if at >= 0 and time_ns < self._ends[at] else None

    def starts_of(self, times_ns: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return the start of each row's window, or `NO_WINDOW`, shape (n,)."""
        if not self._entries:
            return np.full(len(times_ns), NO_WINDOW, dtype=np.int64)
        at = np.searchsorted(self._starts, times_ns, side="right") - 1
        is_in = (at >= 0) & (times_ns < self._ends[at])
        starts, lengths = self._starts[at], self._lengths[at]
        return np.where(is_in, starts + (times_ns - starts) // lengths * lengths, NO_WINDOW)


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """Released rows of one place; each array has shape (n,)."""

    times_ns: npt.NDArray[np.int64]
    codes: npt.NDArray[np.integer]
    ids: Sequence[str]
    values_uv: npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Left:
    """What is left of a window.

    Args:
        rows: How many rows.
        certificate: What `verify` would count of them; None if there are none.
        traced_values: How many of the values left belong to a group that held a row of the source: these keep a trace of it.
    """

    rows: int
    certificate: Certificate | None
    traced_values: int

    @property
    def values(self) -> int:
        """How many distinct values are left."""
        return 0 if self.certificate is None else self.certificate.distinct_values


@dataclass(frozen=True, slots=True, eq=False)
class Cut:
    """What is taken from some rows.

    Args:
        is_gone: Which rows, shape (n,).
        taken: By window.
        outside: Rows of the source in no window that the journal knows.
        left: What is left of each window that loses rows, by its start.
    """

    is_gone: npt.NDArray[np.bool_]
    taken: list[Taken]
    outside: int
    left: dict[int, Left]


@dataclass(frozen=True, slots=True)
class Rule:
    """Whose rows go, and which others.

    Args:
        person: The source.
        windows: Those that were released.
        strict: Whether rows go too whose value fewer than k still share.
    """

    person: Person
    windows: ReleasedWindows
    strict: bool

    def cut(self, rows: Rows) -> Cut:
        """Return what is taken from rows; all rows of a window must be among them."""
        is_mine = self.person.codes(rows.ids)[rows.codes] if len(rows.ids) else np.zeros(len(rows.times_ns), dtype=np.bool_)
        starts = self.windows.starts_of(rows.times_ns)
        is_gone, taken, left = is_mine.copy(), [], {}
        for start_ns, index in _windows_with(is_mine, starts):
            entry = self.windows.entry_at(start_ns)
            assert entry is not None, "a window that the journal knows"
            mine, values = is_mine[index], rows.values_uv[index]
            imputed = np.zeros(len(index), dtype=np.bool_)
            if entry.counts.starred + entry.counts.suppressed:
                imputed = _imputed(values)
            gone = mine | imputed
            if self.strict:
                gone |= _rarely_shared(values, rows.codes[index], gone, entry.promise)
            is_gone[index] = gone
            taken.append(Taken(start_ns, int(gone.sum()), int((gone & imputed).sum())))
            left[start_ns] = _left(values, rows.codes[index], gone, mine & ~imputed, entry.promise)
        return Cut(is_gone, taken, int((is_mine & (starts == NO_WINDOW)).sum()), left)


def _windows_with(is_mine: npt.NDArray[np.bool_], starts: npt.NDArray[np.int64]) -> Iterator[tuple[int, npt.NDArray[np.intp]]]:
    """Yield the start of each known window in which rows are marked, and the indices of all of its rows."""
    affected = np.unique(starts[is_mine & (starts != NO_WINDOW)])
    order = np.argsort(starts, kind="stable")
    first = np.searchsorted(starts[order], affected, side="left")
    stop = np.searchsorted(starts[order], affected, side="right")
    for start_ns, begin, end in zip(affected.tolist(), first.tolist(), stop.tolist(), strict=True):
        yield start_ns, order[begin:end]


def _imputed(values: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """Return which rows carry the mean of all others."""
    distinct, which, counts = np.unique(values, return_inverse=True, return_counts=True)
    others = len(values) - counts
    with np.errstate(divide="ignore", invalid="ignore"):
        means = (values.sum() - distinct * counts) / others
    is_mean = (others > 0) & (np.abs(distinct - means) <= _MEAN_TOLERANCE * np.maximum(1.0, np.abs(means)))
    found: npt.NDArray[np.bool_] = is_mean[which]
    return found


def _sharers(
    values: npt.NDArray[np.float64], codes: npt.NDArray[np.integer], promise: Promise | None
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Return for each distinct value how many rows, or sources, share it; and which value each row has."""
    distinct, which = np.unique(values, return_inverse=True)
    if promise is not None and promise.k_unit == "source":
        pairs = np.unique(which.astype(np.int64) * (int(codes.max(initial=0)) + 1) + codes)
        return np.bincount(pairs // (int(codes.max(initial=0)) + 1), minlength=len(distinct)), which
    return np.bincount(which, minlength=len(distinct)), which


def _rarely_shared(
    values: npt.NDArray[np.float64], codes: npt.NDArray[np.integer], gone: npt.NDArray[np.bool_], promise: Promise | None
) -> npt.NDArray[np.bool_]:
    """Return which of the rows that are left have a value that fewer than k share."""
    rare = np.zeros(len(values), dtype=np.bool_)
    if promise is None or promise.k is None or gone.all():
        return rare
    sharers, which = _sharers(values[~gone], codes[~gone], promise)
    rare[~gone] = sharers[which] < promise.k
    return rare


def _left(
    values: npt.NDArray[np.float64],
    codes: npt.NDArray[np.integer],
    gone: npt.NDArray[np.bool_],
    formed_with: npt.NDArray[np.bool_],
    promise: Promise | None,
) -> Left:
    """Count the rows of a window that are left.

    Args:
        values: Of all of the window's rows; as are the next three, shape (n,).
        codes: Their sources.
        gone: Which rows go.
        formed_with: The source's rows with a value of their own group, not an imputed one.
        promise: The window's.
    """
    kept = ~gone
    if not kept.any():
        return Left(0, None, 0)
    sharers, _ = _sharers(values[kept], codes[kept], promise)
    # Without k, values are those of the public beat, which nobody's rows have formed.
    is_traced = promise is None or promise.k is not None
    traced = len(np.intersect1d(values[kept], values[formed_with])) if is_traced else 0
    return Left(int(kept.sum()), Certificate(len(sharers), int(sharers.min()), len(np.unique(codes[kept]))), traced)


@dataclass(frozen=True, slots=True, eq=False)
class BatchCut:
    """What is taken from a batch.

    Args:
        batch: What is left of it; None if nothing is.
        taken: What is taken; None if nothing is.
        is_gone: Which rows, shape (n,).
        left: What is left of its window; None if nothing is taken.
    """

    batch: Batch | None
    taken: Taken | None
    is_gone: npt.NDArray[np.bool_]
    left: Left | None = None


def cut_batch(batch: Batch, rule: Rule) -> BatchCut:
    """Return what is taken from a batch, and what is left."""
    mine = rule.person.codes(batch.source_ids)[batch.source_index]
    if not mine.any():
        return BatchCut(_without_unused_ids(batch, rule.person), None, mine)
    imputed = np.zeros(len(batch), dtype=np.bool_) if batch.imputed_rows is None else batch.imputed_rows
    gone = mine | imputed
    if rule.strict:
        gone |= _rarely_shared(batch.values_uv, batch.source_index, gone, batch.promise)
    taken = Taken(batch.window.start_ns, int(gone.sum()), int(imputed.sum()))
    counted = _left(batch.values_uv, batch.source_index, gone, mine & ~imputed, batch.promise)
    if counted.certificate is None:
        return BatchCut(None, taken, gone, counted)
    counts = batch.counts
    left = replace(
        batch,
        times_ns=batch.times_ns[~gone],
        source_index=batch.source_index[~gone],
        values_uv=batch.values_uv[~gone],
        counts=replace(counts, read=counts.read - taken.rows, released=counts.released - taken.rows, starred=0, suppressed=0),
        imputed_rows=None,
        imputed_value_uv=None,
        certificate=counted.certificate,
        is_erased=True,
    )
    return BatchCut(_without_unused_ids(left, rule.person), taken, gone, counted)


def _without_unused_ids(batch: Batch, person: Person) -> Batch:
    """Return a batch without the source's ids in its table, none of whose rows are left."""
    is_mine = person.codes(batch.source_ids)
    if not is_mine.any():
        return batch
    code_of = (np.cumsum(~is_mine) - 1).astype(np.int32)
    kept = tuple(one for one, mine in zip(batch.source_ids, is_mine.tolist(), strict=True) if not mine)
    return replace(batch, source_ids=kept, source_index=code_of[batch.source_index])
