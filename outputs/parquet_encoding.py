"""Encodes a chunk of windows as Parquet files, partitioned by time, with the window summaries in files of their own.

The same rows and settings give the same bytes with the same version of pyarrow, but not across versions.
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
import pyarrow.compute as pc
import pyarrow.parquet as pq

from anonymizer.batch import Batch
from anonymizer.windows import HOUR_NS
from outputs.encoding import schema_version, summary_of

Partition = Literal["hour", "day"]

#: Folders of released rows and of window summaries. In one folder, readers would take summaries for rows without a value.
ROWS, WINDOWS = "rows", "windows"

SUFFIX = ".parquet"

_SPAN_NS = {"hour": HOUR_NS, "day": 24 * HOUR_NS}

_TIME = pa.timestamp("ns", tz="UTC")

#: Prefix of the keys of a file's own metadata.
PREFIX = "ecg_anonymizer."

#: More than any chunk: a file has one row group unless a single window is larger.
_ROWS_PER_GROUP = 1 << 20

#: At a fixed sampling rate, differences of times are constant: this encoding stores them in a bit or two.
_DELTA = "DELTA_BINARY_PACKED"


@dataclass(frozen=True, slots=True)
class ParquetFile:
    """A file to be written.

    Args:
        path: Path below the data set's address, with slashes.
        content: Its bytes.
        rows_digest: SHA-256 of its rows, independent of pyarrow's version.
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
    """The rows of a chunk, sorted by time, then id, as batches have them. `ids` are sorted; some may have no row."""

    times_ns: npt.NDArray[np.int64]
    codes: npt.NDArray[np.int32]
    ids: tuple[str, ...]
    values_uv: npt.NDArray[np.float64]

    def part(self, first: int, stop: int) -> _Rows:
        """Return consecutive rows, with only the ids that occur in them."""
        codes, ids = self.codes[first:stop], self.ids
        held = np.zeros(len(ids), dtype=bool)
        held[codes] = True
        # Parquet would store all ids beside the rows, even those of withheld wearers.
        if not held.all():
            codes = (np.cumsum(held, dtype=np.int32) - 1)[codes]
            ids = tuple(name for name, is_held in zip(ids, held.tolist(), strict=True) if is_held)
        return _Rows(self.times_ns[first:stop], codes, ids, self.values_uv[first:stop])


def files_of(batches: Sequence[Batch], partition: Partition) -> Iterator[ParquetFile]:
    """Yield the files of one chunk, in the order in which they must be written: summaries last, since they mark it as complete.

    A row's partition is that of its own time, which may differ from that of its window's start.

    Args:
        batches: Released together, in order of time.
        partition: The span of time that one folder holds.
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
    """Return the name of a chunk's files: the data set's label and the span of its windows, unique within the data set."""
    label = batches[0].batch_id.rsplit("-", 2)[0]
    return f"{label}-{batches[0].window.start_ns}-{batches[-1].window.end_ns}{SUFFIX}"


def _rows_of(batches: Sequence[Batch]) -> _Rows:
    # Batches of a chunk share one tuple of ids, which is looked up once.
    tables = {id(batch.source_ids): batch.source_ids for batch in batches}
    ids = tuple(sorted({name for table in tables.values() for name in table}))
    code_of = {name: code for code, name in enumerate(ids)}
    codes_of = {number: np.array([code_of[name] for name in table], dtype=np.int32) for number, table in tables.items()}
    return _Rows(
        np.concatenate([batch.times_ns for batch in batches]),
        np.concatenate([codes_of[id(batch.source_ids)][batch.source_index] for batch in batches]),
        ids,
        # Adding 0 turns -0.0 into 0.0.
        np.concatenate([batch.values_uv for batch in batches]) + 0.0,
    )


def _partitions(times_ns: npt.NDArray[np.int64], partition: Partition) -> Iterator[tuple[str, int, int]]:
    """Yield each folder of sorted times, with the first and the end index of its times."""
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
    # Only some may have been erased.
    names = dict.fromkeys(name for summary in summaries for name in summary)
    return pa.table(columns | {name: pa.array([summary.get(name, False) for summary in summaries]) for name in names})


def _digest_of_rows(rows: _Rows) -> str:
    digest = hashlib.sha256(json.dumps(rows.ids).encode())
    for column, kind in ((rows.times_ns, "<i8"), (rows.codes, "<i4"), (rows.values_uv, "<f8")):
        digest.update(np.ascontiguousarray(column, dtype=kind).data)
    return digest.hexdigest()


def _about(batches: Sequence[Batch]) -> dict[str, str]:
    """Return the metadata of a chunk's files: the promise under which its rows were released."""
    promise = batches[0].promise
    said = json.dumps(promise.stated(), sort_keys=True)
    return {"schema": schema_version(promise), "promise": said, "settings_digest": promise.settings_digest}


def _file(path: str, table: pa.Table, digest: str, about: dict[str, str]) -> ParquetFile:
    times = [field.name for field in table.schema if field.type == _TIME]
    buffer = io.BytesIO()
    with pq.ParquetWriter(
        buffer,
        table.schema,
        compression="zstd",
        use_dictionary=[name for name in table.column_names if name not in times],
        column_encoding=dict.fromkeys(times, _DELTA),
        # So that readers see ids as text, not as dictionaries that differ between files.
        store_schema=False,
    ) as writer:
        writer.write_table(table, row_group_size=_ROWS_PER_GROUP)
        writer.add_key_value_metadata({f"{PREFIX}{name}": text for name, text in {**about, "rows_digest": digest}.items()})
    return ParquetFile(path, buffer.getvalue(), digest)


def rows_digest_of(content: bytes) -> str | None:
    """Return the rows digest that a file states; None if it is not a complete Parquet file of the service."""
    try:
        metadata = pq.read_metadata(pa.BufferReader(content)).metadata
    except (pa.ArrowException, OSError, ValueError):
        return None
    stated = (metadata or {}).get(f"{PREFIX}rows_digest".encode())
    return None if stated is None else stated.decode(errors="replace")


@dataclass(frozen=True, slots=True, eq=False)
class StoredRows:
    """The rows of a file that was written; each array has shape (n,), `codes` are positions in `ids`."""

    times_ns: npt.NDArray[np.int64]
    codes: npt.NDArray[np.int32]
    ids: tuple[str, ...]
    values_uv: npt.NDArray[np.float64]


def stored_rows(content: bytes) -> StoredRows:
    """Return the rows of a file. Raises pyarrow's errors for what is no file of rows."""
    table = pq.ParquetFile(pa.BufferReader(content)).read(["timestamp", "source_id", "ecg"])
    ids = pc.dictionary_encode(table.column("source_id").combine_chunks())
    names = tuple(ids.dictionary.to_pylist())
    rank = np.argsort(np.argsort(np.array(names, dtype=np.object_), kind="stable"), kind="stable").astype(np.int32)
    codes = rank[ids.indices.to_numpy()] if len(names) else np.zeros(0, dtype=np.int32)
    times_ns = table.column("timestamp").cast(pa.int64()).to_numpy()
    return StoredRows(times_ns, codes, tuple(sorted(names)), table.column("ecg").to_numpy())


def without_rows(path: str, content: bytes, is_gone: npt.NDArray[np.bool_]) -> bytes | None:
    """Return a file of rows without some of them, and without ids that none of the rest has; None if none is left."""
    if is_gone.all():
        return None
    stored, kept = stored_rows(content), ~is_gone
    rows = _Rows(stored.times_ns[kept], stored.codes[kept], stored.ids, stored.values_uv[kept])
    part = rows.part(0, int(kept.sum()))
    return _file(path, _table_of_rows(part), _digest_of_rows(part), _stated_about(content)).content


def stored_summaries(content: bytes) -> list[dict[str, int | str | bool]]:
    """Return the window summaries of a file, with `window_start` and `window_end` in nanoseconds."""
    table = pq.ParquetFile(pa.BufferReader(content)).read()
    for at, name in enumerate(("window_start", "window_end")):
        table = table.set_column(at, name, table.column(name).cast(pa.int64()))
    return [dict(one) for one in table.to_pylist()]


def with_summaries(path: str, content: bytes, summaries: Sequence[dict[str, int | str | bool]]) -> bytes:
    """Return a file of window summaries with others in their place, as `stored_summaries` returns them."""
    spans = ("window_start", "window_end")
    told = [{name: value for name, value in one.items() if name not in spans} for one in summaries]
    names = dict.fromkeys(name for one in told for name in one)
    columns = {name: pa.array([one[name] for one in summaries], _TIME) for name in spans}
    table = pa.table(columns | {name: pa.array([one.get(name, False) for one in told]) for name in names})
    plain = [{name: value for name, value in one.items() if name != "erased" or value} for one in told]
    digest = hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()
    return _file(path, table, digest, _stated_about(content)).content


def _stated_about(content: bytes) -> dict[str, str]:
    metadata = pq.read_metadata(pa.BufferReader(content)).metadata or {}
    own = {
        key.decode().removeprefix(PREFIX): value.decode() for key, value in metadata.items() if key.startswith(PREFIX.encode())
    }
    return {name: text for name, text in own.items() if name != "rows_digest"}
