"""Puts lines together in the buffer that is written, column by column: one call of numpy copies all texts of one length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from outputs.encoding import MOST_USUAL, value_texts

#: No float's text is longer, with its end.
_LONGEST_VALUE_BYTES = 30

Letters = npt.NDArray[np.void]
Integers = npt.NDArray[np.integer]


@dataclass(frozen=True, slots=True)
class Texts:
    """Texts one after the other; shape (texts,) of `starts` and `lengths`."""

    letters: npt.NDArray[np.uint8]
    starts: Integers
    lengths: Integers

    @classmethod
    def of(cls, texts: Sequence[bytes]) -> Texts:
        """Put texts one after the other."""
        lengths = np.array(list(map(len, texts)), dtype=np.int64)
        return cls(np.frombuffer(b"".join(texts), dtype=np.uint8), np.cumsum(lengths) - lengths, lengths)

    @classmethod
    def of_arrow(cls, texts: pa.StringArray) -> Texts:
        """Return a view of texts."""
        ends = np.frombuffer(texts.buffers()[1], dtype=np.int32)[texts.offset : texts.offset + len(texts) + 1]
        return cls(np.frombuffer(texts.buffers()[2] or b"", dtype=np.uint8), ends[:-1], np.diff(ends))


@dataclass(frozen=True, slots=True)
class Values:
    """Texts of values with what ends them, padded to the longest; shape (values,)."""

    letters: Letters
    lengths: Integers

    @classmethod
    def of(cls, values_uv: npt.NDArray[np.float64], end: str) -> Values:
        """Format values."""
        texts = [f"{text}{end}".encode() for text in value_texts(values_uv).to_pylist()]
        padded = np.array(texts, dtype=np.bytes_)
        assert padded.itemsize <= _LONGEST_VALUE_BYTES
        return cls(padded.view(f"V{padded.itemsize}"), np.array(list(map(len, texts)), dtype=np.int64))

    @property
    def padded_bytes(self) -> int:
        """The length of each text with its padding."""
        return self.letters.itemsize


def values_and_rows(values_uv: npt.NDArray[np.float64], end: str) -> tuple[Values, Integers]:
    """Return a table of values, and each row's position in it. Rows share values, so that formatting each once is cheap."""
    if np.abs(values_uv).max(initial=0.0) <= MOST_USUAL and (values_uv == np.trunc(values_uv)).all():
        return _usual_values(end), values_uv.astype(np.int32) + MOST_USUAL
    distinct, value_of_row = np.unique(values_uv, return_inverse=True)
    return Values.of(distinct, end), value_of_row


@cache
def _usual_values(end: str) -> Values:
    return Values.of(np.arange(-MOST_USUAL, MOST_USUAL + 1, dtype=np.float64), end)


def place(lines: npt.NDArray[np.uint8], starts: Integers, letters: Letters) -> None:
    """Copy texts of one length, or padded to it, to where they start. What the padding covers must be placed afterwards."""
    if len(starts):
        _texts_in(lines, letters.itemsize)[starts] = letters


def place_texts(lines: npt.NDArray[np.uint8], starts: Integers, texts: Texts, text_of_row: Integers) -> None:
    """Copy each row's text to where it starts."""
    text_starts, lengths = texts.starts.take(text_of_row), texts.lengths.take(text_of_row)
    found = np.flatnonzero(np.bincount(lengths)).tolist()
    for length in found:
        rows = np.flatnonzero(lengths == length) if len(found) > 1 else slice(None)
        place(lines, starts[rows], _texts_in(texts.letters, length)[text_starts[rows]])


def _texts_in(letters: npt.NDArray[np.uint8], length: int) -> Letters:
    """Return a view of every text of a length in a buffer, by the position at which it starts. They overlap."""
    return np.ndarray((len(letters) - length + 1,), f"V{length}", letters, strides=(1,))
