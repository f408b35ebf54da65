"""Splits a batch into API requests and encodes them as JSON (`documentation/api-batch.schema.json`)."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Self

import numpy as np

from anonymizer.batch import Batch
from anonymizer.ports import Receipt
from outputs.encoding import joined, schema_version, source_texts, summary_of, time_text, time_texts, value_texts

#: First size limit for a request: just below 1 MiB, where many web servers have their limit.
MOST_BYTES_PER_PART = 1_000_000

#: Most rows in a request, however short they are.
MOST_ROWS_PER_PART = 50_000

#: Upper bounds for the bytes of a request without its records, and of a record without its source id.
_HEAD_BYTES, _RECORD_BYTES = 2000, 100


@dataclass(frozen=True, slots=True)
class Part:
    """Rows `first` … `stop - 1` of a batch, as request `number` of `parts` (as planned when it was cut)."""

    first: int
    stop: int
    number: int
    parts: int


@dataclass(slots=True)
class Plan:
    """How one batch is split, and how far it is delivered.

    Args:
        batch_id: The batch.
        parts: In order, without gaps.
        is_fixed: Whether an earlier process, or an earlier offer, may have sent parts, so that none may be split again.
        taken: Number of parts that the API has acknowledged.
        is_in_doubt: Whether the next part may have reached the API without an answer.
        row_bytes: Upper bound for the bytes of a row; 0 if unknown.
        was_cut: Whether the API refused a part as too large, so that it was split again.
        is_done: Whether the whole batch was delivered.
    """

    batch_id: str
    parts: tuple[Part, ...]
    is_fixed: bool = False
    taken: int = field(default=0, kw_only=True)
    is_in_doubt: bool = field(default=False, kw_only=True)
    row_bytes: int = field(default=0, kw_only=True)
    was_cut: bool = field(default=False, kw_only=True)
    is_done: bool = field(default=False, kw_only=True)

    @classmethod
    def from_receipt(cls, receipt: Receipt) -> Self:
        """Return a plan recorded before a crash. Any of its parts may have been sent."""
        stops = [stop for stop, _ in receipt["parts"]]
        cuts = zip([0, *stops], receipt["parts"], strict=False)
        parts = (Part(first, stop, number, parts) for number, (first, (stop, parts)) in enumerate(cuts, start=1))
        return cls(receipt["batch_id"], tuple(parts), is_fixed=True)

    @property
    def key(self) -> str:
        """The receipt's key, one per batch that is not known to be delivered."""
        return f"parts:{self.batch_id}"

    def receipt(self) -> Receipt:
        """Return what must be recorded before a part is sent: where each part ends, and the number of parts that it states."""
        return {"key": self.key, "batch_id": self.batch_id, "parts": [[part.stop, part.parts] for part in self.parts]}

    def next_part(self) -> Part | None:
        """Return the part to send next; None if all were taken."""
        return self.parts[self.taken] if self.taken < len(self.parts) else None

    def most_bytes(self) -> int:
        """Return the size limit that would have split the batch like this from the start."""
        return _HEAD_BYTES + self.row_bytes * max(part.stop - part.first for part in self.parts)

    def cut_smaller(self) -> None:
        """Split everything that was not taken into parts half as large as the next one."""
        part = self.parts[self.taken]
        self.parts = (*self.parts[: self.taken], *_cut(part, self.parts[-1].stop, most_rows=(part.stop - part.first) // 2))
        self.was_cut = True


def plan_for(batch: Batch, *, most_bytes: int) -> Plan:
    """Split a batch that was never sent into requests of at most `most_bytes`, or of one row."""
    longest = max(len(json.dumps(batch.source_ids[index])) for index in np.unique(batch.source_index).tolist())
    row_bytes = _RECORD_BYTES + longest
    rows = min(max(1, (most_bytes - _HEAD_BYTES) // row_bytes), MOST_ROWS_PER_PART)
    return Plan(batch.batch_id, tuple(_cut(Part(0, len(batch), 1, 1), len(batch), most_rows=rows)), row_bytes=row_bytes)


def _cut(part: Part, rows: int, *, most_rows: int) -> Iterator[Part]:
    """Yield parts from the start of `part` to the end of the batch; their `parts` is the count as planned now."""
    parts = part.number - 1 + -(-(rows - part.first) // most_rows)
    firsts = range(part.first, rows, most_rows)
    for number, first in zip(itertools.count(part.number), firsts, strict=False):
        yield Part(first, min(first + most_rows, rows), number, parts)


def encode(batch: Batch, part: Part) -> bytes:
    """Return the payload of one part."""
    head = {
        "schema": schema_version(batch.promise),
        "batch_id": batch.batch_id,
        "part": part.number,
        "parts": part.parts,
        "window_start": time_text(batch.window.start_ns),
        "window_end": time_text(batch.window.end_ns),
        **({} if batch.promise.k is None else {"k": batch.promise.k, "k_unit": batch.promise.k_unit}),
        "rows": part.stop - part.first,
        "summary": summary_of(batch),
    }
    return json.dumps(head, separators=(",", ":")).encode()[:-1] + b',"records":[' + _records(batch, part) + b"]}"


def _records(batch: Batch, part: Part) -> bytes:
    rows = slice(part.first, part.stop)
    middles = [f'","source_id":{json.dumps(name)},"ecg":' for name in batch.source_ids]
    return joined(
        '{"timestamp":"',
        time_texts(batch.times_ns[rows]),
        source_texts(batch.source_index[rows], middles),
        value_texts(batch.values_uv[rows]),
        "},",
    )[:-1]
