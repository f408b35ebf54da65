"""A chunk of windows as Parquet files: which file each row and each window's summary lies in, and its bytes.

The same rows and settings give the same bytes with one version of pyarrow; versions differ among themselves.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from anonymizer.batch import Batch
from anonymizer.windows import HOUR_NS
from outputs.encoding import SCHEMA_VERSION, summary_of

Partition = Literal["hour", "day"]

#: Folders of released rows and of windows' summaries. In one folder, readers would take summaries for rows without a value.
ROWS, WINDOWS = "rows", "windows"

SUFFIX = ".parquet"

_SPAN_NS = {"hour": HOUR_NS, "day": 24 * HOUR_NS}

_TIME = pa.timestamp("ns", tz="UTC")

#: Names of what a file says of itself.
PREFIX = "ecg_anonymizer."

#: More than any chunk: a file has one group of rows unless a single window is larger.
_ROWS_PER_GROUP = 1 << 20

#: Times of one rate differ by the same steps, which this encoding stores in a bit or two each.
_DELTA = "DELTA_BINARY_PACKED"


@dataclass(frozen=True, slots=True)
class ParquetFile:
    """A file to be written.

    Args:
        path: Where, below the address of the data set, with slashes.
        content: Its bytes.
        rows_digest: SHA-256 of the rows in it, whatever pyarrow makes of them.
    """

    path: str
    content: bytes
    rows_digest: str

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rpartition("/")[2]


@dataclass(frozen=True, slots=True, eq=False)
class _Rows:
    """The rows of a chunk in order of time, then id, as batches have them; `ids` are sorted, and not all of them need to have a row."""

    times_ns: npt.NDArray[np.int64]
    codes: npt.NDArray[np.int32]
    ids: tuple[str, ...]
    values_uv: npt.NDArray[np.float64]

    def part(self, first: int, stop: int) -> _Rows:
        """Return neighbouring rows, with the ids that have one of them and no other."""
        codes, ids = self.codes[first:stop], self.ids
        held = np.zeros(len(ids), dtype=bool)
        held[codes] = True
        # Parquet would store the ids of all others beside the rows, and with them those of withheld wearers.
        if not held.all():
            codes = (np.cumsum(held, dtype=np.int32) - 1)[codes]
            ids = tuple(name for name, is_held in zip(ids, held.tolist(), strict=True) if is_held)
        return _Rows(self.times_ns[first:stop], codes, ids, self.values_uv[first:stop])


def files_of(batches: Sequence[Batch], partition: Partition) -> Iterator[ParquetFile]:
    """Yield the files of one chunk, in the order in which they must be written: summaries last, which make the chunk complete.

    A row lies in the partition of its own time, which can be another than that of its window's start.

    Args:
        batches: Released together, in order of time.
        partition: How long a span of time one folder holds.
    """
    name = name_of(batches)
    about = _about(batches)
    rows = _rows_of(batches)
    for folder, first, stop in _partitions(rows.times_ns, partition):
        part = rows.part(first, stop)
        yield _file(f"{ROWS}/{folder}/{name}", _table_of_rows(part), _digest_of_rows(part), about)
    starts_ns = np.array([batch.window.start_ns for batch in batches], dtype=np.int64)
    for folder, first, stop in _partitions(starts_ns, partition):
        summaries = [summary_of(batch) for batch in batches[first:stop]]
        digest = hashlib.sha256(json.dumps(summaries, sort_keys=True).encode()).hexdigest()
        yield _file(f"{WINDOWS}/{folder}/{name}", _table_of_windows(batches[first:stop], summaries), digest, about)


def name_of(batches: Sequence[Batch]) -> str:
    """Return the name of a chunk's files: the data set's, and the span of its windows. No other chunk of the data set has it."""
    label = batches[0].batch_id.rsplit("-", 2)[0]
    return f"{label}-{batches[0].window.start_ns}-{batches[-1].window.end_ns}{SUFFIX}"


def _rows_of(batches: Sequence[Batch]) -> _Rows:
    # Batches of a chunk have their ids in common: they are looked up once.
    tables = {id(batch.source_ids): batch.source_ids for batch in batches}
    ids = tuple(sorted({name for table in tables.values() for name in table}))
    code_of = {name: code for code, name in enumerate(ids)}
    codes_of = {number: np.array([code_of[name] for name in table], dtype=np.int32) for number, table in tables.items()}
    return _Rows(
        np.concatenate([batch.times_ns for batch in batches]),
        np.concatenate([codes_of[id(batch.source_ids)][batch.source_index] for batch in batches]),
        ids,
        # Adding 0 makes a negative zero a plain one.
        np.concatenate([batch.values_uv for batch in batches]) + 0.0,
    )


def _partitions(times_ns: npt.NDArray[np.int64], partition: Partition) -> Iterator[tuple[str, int, int]]:
    """Yield each folder that sorted times lie in, and which of them do."""
    span_ns = _SPAN_NS[partition]
    edges_ns = np.arange(int(times_ns[0]) // span_ns + 1, int(times_ns[-1]) // span_ns + 1, dtype=np.int64) * span_ns
    edges = [0, *np.searchsorted(times_ns, edges_ns).tolist(), len(times_ns)]
    for first, stop in itertools.pairwise(edges):
        if first == stop:
            continue
        yield folder_of(int(times_ns[first]), partition), first, stop


def folder_of(time_ns: int, partition: Partition) -> str:
    """Return the folder of a time, such as `date=2025-11-03/hour=14`."""
    day, _, hour = str(np.datetime64(time_ns, "ns").astype("datetime64[h]")).partition("T")
    return f"date={day}/hour={hour}" if partition == "hour" else f"date={day}"


def _table_of_rows(rows: _Rows) -> pa.Table:
    ids = pa.DictionaryArray.from_arrays(pa.array(rows.codes), pa.array(rows.ids, pa.string()))
    return pa.table({"timestamp": pa.array(rows.times_ns, _TIME), "source_id": ids, "ecg": pa.array(rows.values_uv)})


def _table_of_windows(batches: Sequence[Batch], summaries: Sequence[dict[str, int | str | bool]]) -> pa.Table:
    columns = {
        "window_start": pa.array([batch.window.start_ns for batch in batches], _TIME),
        "window_end": pa.array([batch.window.end_ns for batch in batches], _TIME),
    }
    return pa.table(columns | {name: pa.array([summary[name] for summary in summaries]) for name in summaries[0]})


def _digest_of_rows(rows: _Rows) -> str:
    digest = hashlib.sha256(json.dumps(rows.ids).encode())
    for column, kind in ((rows.times_ns, "<i8"), (rows.codes, "<i4"), (rows.values_uv, "<f8")):
        digest.update(np.ascontiguousarray(column, dtype=kind).data)
    return digest.hexdigest()


def _about(batches: Sequence[Batch]) -> dict[str, str]:
    """Return what each file of a chunk says of how its rows were made."""
    promise = batches[0].promise
    said = {name: getattr(promise, name) for name in promise.__slots__}
    return {"schema": SCHEMA_VERSION, "promise": json.dumps(said, sort_keys=True), "settings_digest": promise.settings_digest}


def _file(path: str, table: pa.Table, digest: str, about: dict[str, str]) -> ParquetFile:
    times = [field.name for field in table.schema if field.type == _TIME]
    buffer = io.BytesIO()
    with pq.ParquetWriter(
        buffer,
        table.schema,
        compression="zstd",
        use_dictionary=[name for name in table.column_names if name not in times],
        column_encoding=dict.fromkeys(times, _DELTA),
        # Readers see ids as text, instead of as categories of which each file has others.
        store_schema=False,
    ) as writer:
        writer.write_table(table, row_group_size=_ROWS_PER_GROUP)
        writer.add_key_value_metadata({f"{PREFIX}{name}": text for name, text in {**about, "rows_digest": digest}.items()})
    return ParquetFile(path, buffer.getvalue(), digest)


def rows_digest_of(content: bytes) -> str | None:
    """Return the digest of its rows that a file states; None where it is no whole Parquet file of ours."""
    try:
        metadata = pq.read_metadata(pa.BufferReader(content)).metadata
    except (pa.ArrowException, OSError, ValueError):
        return None
    stated = (metadata or {}).get(f"{PREFIX}rows_digest".encode())
    return None if stated is None else stated.decode(errors="replace")
