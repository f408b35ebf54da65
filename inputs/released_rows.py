"""Rows that were released, read back from CSV files and Parquet: strictly, since every row of them is ours."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds

from anonymizer.errors import ConfigurationError, SourceError, SourceRefused
from anonymizer.samples import NO_SOURCE, Samples, make_samples
from anonymizer.windows import NANOSECONDS, Window, covering_windows
from inputs.file_columns import source_ids, values
from inputs.file_times import TimeKind, times
from inputs.files import FileSource

#: All times that 64 bits of nanoseconds hold.
ANY_TIME = Window(-(2**63), 2**63 - 1)


def of_path(where: str | Path, span: Window) -> Samples:
    """Return the rows of a file, of a folder, or of all that a pattern names.

    Raises:
        ConfigurationError: There is no such thing, or nobody can tell what to read of it.
    """
    path = Path(where)
    if path.is_dir():
        texts, tables = sorted([*path.glob("*.csv"), *path.glob("*.csv.gz")]), next(path.rglob("*.parquet"), None)
        if texts and tables:
            raise ConfigurationError(f"{path} holds CSV and Parquet: name the Parquet folder itself, or {path}/*.csv")
        if tables:
            rows = path / "rows"
            return of_data_set(
                ds.dataset(rows if rows.is_dir() else path, format="parquet", partitioning="hive"), span, str(path)
            )
    else:
        texts = [path] if path.exists() else sorted(path.parent.glob(path.name))
    if not texts:
        raise ConfigurationError(f"{path} holds no CSV or Parquet file" if path.is_dir() else f"{where} names no file")
    return joined([_of_file(text) for text in texts])


def _of_file(path: Path) -> Samples:
    """Return the rows of a released file; what is not a row of ours makes the file none of ours."""
    source = FileSource(path)
    try:
        source.open()
        extent = source.extent()
        samples = source.read(covering_windows(*extent, NANOSECONDS)) if extent else make_samples([], [], (), [])
        lost = source.rows_beside(ANY_TIME.start_ns, ANY_TIME.end_ns).without_time
    except SourceError as error:
        raise type(error)(str(error).replace("INPUT_FILE", str(path))) from None
    finally:
        source.close()
    return only_released(samples, lost, str(path))


def only_released(samples: Samples, lost: int, name: str) -> Samples:
    """Return the rows, unless there are some that no release of ours holds."""
    lost += int(np.count_nonzero(np.isnan(samples.values_uv) | (samples.source_codes == NO_SOURCE)))
    if lost:
        raise SourceRefused(
            f"{name}: {lost} rows lack a time, an id or a value, as no released row does; is it being written, or damaged?"
        )
    return samples


def of_data_set(data_set: ds.Dataset, span: Window, name: str = "The data set") -> Samples:
    """Return the rows of a data set that lie in the span."""
    lacking = {"timestamp", "source_id", "ecg"} - set(data_set.schema.names)
    if lacking:
        raise SourceRefused(f"{name} lacks the columns {', '.join(sorted(lacking))}; rows of a release lie in its folder rows")
    when = ds.field("timestamp")
    kind = data_set.schema.field("timestamp").type
    if not pa.types.is_timestamp(kind):
        raise SourceRefused(f"{name}: column timestamp must hold times, got {kind}")
    first, last = (pa.scalar(bound, pa.timestamp("ns", kind.tz)) for bound in (span.start_ns, span.end_ns))
    rows = data_set.to_table(columns=["timestamp", "source_id", "ecg"], filter=when.is_null() | ((when >= first) & (when < last)))
    found, (codes, ids) = times(rows.column("timestamp")), source_ids(rows.column("source_id"))
    is_time = found.kinds == TimeKind.CALENDAR
    samples = make_samples(found.times_ns[is_time], codes[is_time], ids, values(rows.column("ecg")).values[is_time])
    return only_released(samples, int(np.count_nonzero(~is_time)), name)


def joined(parts: Sequence[Samples]) -> Samples:
    """Return the rows of all parts."""
    if not parts:
        return make_samples([], [], (), [])
    before = np.cumsum([0, *(len(part.source_ids) for part in parts)])
    return make_samples(
        np.concatenate([part.times_ns for part in parts]),
        np.concatenate([part.source_codes + ids for part, ids in zip(parts, before, strict=False)]),
        [source_id for part in parts for source_id in part.source_ids],
        np.concatenate([part.values_uv for part in parts]),
    )
