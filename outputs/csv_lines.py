"""A batch as CSV lines, such as `2025-11-03T14:30:00.000000000Z,anon-1,-12.0`.

The lines are put together column by column in the buffer that is written: one call of numpy copies all texts of one length.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, lru_cache

import numpy as np
import numpy.typing as npt

from anonymizer.batch import Batch
from outputs.encoding import TIME_BYTES, time_letters, value_texts

#: ECG values are mostly whole microvolts, a few thousand at most: looking up their texts is faster than formatting them.
_MOST_USUAL = 4096

#: The ids of this many batches are kept encoded; all batches of a chunk have the same.
_ID_TABLES = 2

_Letters = npt.NDArray[np.void]
_Integers = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class _Ids:
    """Source ids as CSV cells, each with a comma on either side, one after the other; shape (ids,) of `starts` and `lengths`."""

    letters: npt.NDArray[np.uint8]
    starts: _Integers
    lengths: _Integers


@dataclass(frozen=True, slots=True)
class _Values:
    """Texts of values with a line end, padded to the longest; shape (values,)."""

    letters: _Letters
    lengths: _Integers

    @classmethod
    def of(cls, values_uv: npt.NDArray[np.float64]) -> _Values:
        texts = [f"{text}\n".encode() for text in value_texts(values_uv).to_pylist()]
        padded = np.array(texts, dtype=np.bytes_)
        # Padding is overwritten by the time of the next line.
        assert padded.itemsize <= TIME_BYTES, "no float is longer"
        return cls(padded.view(f"V{padded.itemsize}"), np.array(list(map(len, texts)), dtype=np.int64))


def encode(batch: Batch, *, before: bytes = b"") -> memoryview:
    """Return the batch's rows as CSV lines, after `before`."""
    ids, (values, value_of_row) = _encoded_ids(batch.source_ids), _encoded_values(batch.values_uv)
    id_lengths = ids.lengths.take(batch.source_index)
    lengths = TIME_BYTES + id_lengths + values.lengths.take(value_of_row)
    ends = len(before) + np.cumsum(lengths)
    starts = ends - lengths
    size = int(ends[-1]) if len(ends) else len(before)
    lines = np.empty(size + values.letters.itemsize, dtype=np.uint8)
    lines[: len(before)] = np.frombuffer(before, dtype=np.uint8)
    # In this order: a value's padding covers the beginning of the next time.
    _texts_in(lines, values.letters.itemsize)[starts + TIME_BYTES + id_lengths] = values.letters.take(value_of_row)
    _texts_in(lines, TIME_BYTES)[starts] = time_letters(batch.times_ns)
    starts += TIME_BYTES
    id_starts = ids.starts.take(batch.source_index)
    for length, rows in _by_length(id_lengths):
        _texts_in(lines, length)[starts[rows]] = _texts_in(ids.letters, length)[id_starts[rows]]
    return lines.data[:size]


def _texts_in(letters: npt.NDArray[np.uint8], length: int) -> _Letters:
    """Return a view of every text of a length in a buffer, by the position at which it starts. They overlap."""
    return np.ndarray((len(letters) - length + 1,), f"V{length}", letters, strides=(1,))


def _by_length(lengths: _Integers) -> Iterator[tuple[int, slice | _Integers]]:
    """Yield each length, and the rows that have it."""
    found = np.flatnonzero(np.bincount(lengths)).tolist()
    for length in found:
        yield length, np.flatnonzero(lengths == length) if len(found) > 1 else slice(None)


@lru_cache(maxsize=_ID_TABLES)
def _encoded_ids(source_ids: tuple[str, ...]) -> _Ids:
    cells = [f",{_quoted(source_id)},".encode() for source_id in source_ids]
    lengths = np.array(list(map(len, cells)), dtype=np.int64)
    return _Ids(np.frombuffer(b"".join(cells), dtype=np.uint8), np.cumsum(lengths) - lengths, lengths)


def _encoded_values(values_uv: npt.NDArray[np.float64]) -> tuple[_Values, npt.NDArray[np.integer]]:
    """Return a table of values, and each row's position in it. Rows share values, so that formatting each once is cheap."""
    if np.abs(values_uv).max(initial=0.0) <= _MOST_USUAL and (values_uv == np.trunc(values_uv)).all():
        return _usual_values(), values_uv.astype(np.int32) + _MOST_USUAL
    distinct, value_of_row = np.unique(values_uv, return_inverse=True)
    return _Values.of(distinct), value_of_row


@cache
def _usual_values() -> _Values:
    return _Values.of(np.arange(-_MOST_USUAL, _MOST_USUAL + 1, dtype=np.float64))


def _quoted(text: str) -> str:
    """Quote a cell by RFC 4180, if needed."""
    if any(character in text for character in ',"\r\n'):
        return '"' + text.replace('"', '""') + '"'
    return text
