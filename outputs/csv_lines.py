"""A batch as CSV lines, such as `2025-11-03T14:30:00.000000000Z,anon-1,-12.0`."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from anonymizer.batch import Batch
from outputs.encoding import TIME_BYTES, time_letters
from outputs.placed_texts import Texts, place, place_texts, values_and_rows

#: The ids of this many batches are kept encoded; all batches of a chunk have the same.
_ID_TABLES = 2


def encode(batch: Batch, *, before: bytes = b"") -> memoryview:
    """Return the batch's rows as CSV lines, after `before`."""
    ids, (values, value_of_row) = _encoded_ids(batch.source_ids), values_and_rows(batch.values_uv, "\n")
    id_lengths = ids.lengths.take(batch.source_index)
    ends = len(before) + np.cumsum(TIME_BYTES + id_lengths + values.lengths.take(value_of_row))
    id_starts = np.append(len(before), ends)[:-1] + TIME_BYTES
    size = int(ends[-1]) if len(ends) else len(before)
    lines = np.empty(size + values.padded_bytes, dtype=np.uint8)
    lines[: len(before)] = np.frombuffer(before, dtype=np.uint8)
    # In this order: a value's padding covers the beginning of the next time.
    place(lines, id_starts + id_lengths, values.letters.take(value_of_row))
    place(lines, id_starts - TIME_BYTES, time_letters(batch.times_ns))
    place_texts(lines, id_starts, ids, batch.source_index)
    return lines.data[:size]


@lru_cache(maxsize=_ID_TABLES)
def _encoded_ids(source_ids: tuple[str, ...]) -> Texts:
    """Return ids as cells, each with a comma on either side."""
    return Texts.of([f",{_quoted(source_id)},".encode() for source_id in source_ids])


def _quoted(text: str) -> str:
    """Quote a cell by RFC 4180, if needed."""
    if any(character in text for character in ',"\r\n'):
        return '"' + text.replace('"', '""') + '"'
    return text
