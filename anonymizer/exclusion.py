"""Sources whose rows are not released, such as after a withdrawn consent. Known by keyed digests only.

An id is compared after folding: NFKC, without blanks at its ends, without case. So an entry that differs from the tag only in spelling
excludes it: to leave out one source too many is the smaller harm.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from anonymizer.pseudonyms import keyed_digest
from anonymizer.samples import NO_SOURCE, Samples, picked
from anonymizer.windows import WindowRange

#: The end of time: a source is excluded until then while it is listed, and for ever after its erasure.
FOR_EVER_NS = 2**63 - 1

_ID_TEXT = b"\0excluded source\0"
_RELEASED_ID_TEXT = b"\0excluded released id\0"


def folded(source_id: str) -> str:
    """Return an id in the form in which ids are compared."""
    # Folding may undo the normal form, so that it is made twice (Unicode, section 3.13, D146).
    once = unicodedata.normalize("NFKC", source_id).casefold()
    return unicodedata.normalize("NFKC", once).casefold().strip()


def id_digest(key: bytes, source_id: str) -> str:
    """Return the keyed digest by which a source's id is recognised."""
    return keyed_digest(key, _ID_TEXT + folded(source_id).encode())


def released_id_digest(key: bytes, released_id: str) -> str:
    """Return the keyed digest by which a source is recognised from its released id, such as its pseudonym."""
    return keyed_digest(key, _RELEASED_ID_TEXT + released_id.encode())


@dataclass(frozen=True, slots=True)
class Exclusion:
    """Which rows are not released: those of a source before a time.

    Args:
        key: The key of the digests.
        until_ns: The time by the digest of the source's id or released id; `FOR_EVER_NS` while it is excluded.
    """

    key: bytes = field(repr=False)
    until_ns: Mapping[str, int]

    def until_ns_of(self, source_id: str, released_id: str) -> int | None:
        """Return before which time a source's rows are excluded; None if none is."""
        digests = (id_digest(self.key, source_id), released_id_digest(self.key, released_id))
        return max((self.until_ns[one] for one in digests if one in self.until_ns), default=None)


def without_excluded(
    samples: Samples, released_ids: tuple[str, ...], windows: WindowRange, exclusion: Exclusion
) -> tuple[Samples, npt.NDArray[np.int64]]:
    """Return the samples without excluded rows, and how many these are in each window, shape (len(windows),).

    A source that has no row left is not in the result's `source_ids` either: those are stored beside the rows.
    """
    ends_ns = [exclusion.until_ns_of(one, released) for one, released in zip(samples.source_ids, released_ids, strict=True)]
    if not any(until is not None for until in ends_ns):
        return samples, np.zeros(len(windows), dtype=np.int64)
    # The extra last entry is the one that NO_SOURCE, -1, indexes: such rows have no source.
    limits = np.array([*(-(2**63) if until is None else until for until in ends_ns), -(2**63)], dtype=np.int64)
    is_excluded = samples.times_ns < limits[samples.source_codes]
    index = windows.index_of(samples.times_ns[is_excluded])
    counts = np.bincount(index[(index >= 0) & (index < len(windows))], minlength=len(windows))
    return _without_unused_ids(picked(samples, np.flatnonzero(~is_excluded)), ends_ns), counts


def _without_unused_ids(samples: Samples, ends_ns: list[int | None]) -> Samples:
    has_rows = np.zeros(len(samples.source_ids) + 1, dtype=np.bool_)
    has_rows[samples.source_codes] = True
    kept = [code for code, until in enumerate(ends_ns) if until is None or has_rows[code]]
    code_of = np.full(len(samples.source_ids) + 1, NO_SOURCE, dtype=np.int32)
    code_of[kept] = np.arange(len(kept))
    return Samples(
        samples.times_ns, code_of[samples.source_codes], tuple(samples.source_ids[code] for code in kept), samples.values_uv
    )
