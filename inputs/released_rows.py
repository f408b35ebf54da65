"""Rows that were released, read back from CSV files and Parquet: strictly, since every row of them is ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds

from anonymizer.errors import ConfigurationError, SourceDenied, SourceError, SourceRefused, SourceUnavailable
from anonymizer.samples import NO_SOURCE, Samples, SampleSource, make_samples
from anonymizer.windows import NANOSECONDS, Window, covering_windows
from inputs.csv_text import COLUMNS
from inputs.data_set import DataSetSource
from inputs.data_set_address import DataSetAddress, data_set_address
from inputs.data_set_bucket import BucketFolder
from inputs.data_set_parts import Folder
from inputs.file_columns import source_ids, values
from inputs.file_source import FileSource
from inputs.file_times import TimeKind, times
from transport.object_store import ObjectStore, StoreAccess, StoreFault

#: All times that 64 bits of nanoseconds hold.
ANY_TIME = Window(-(2**63), 2**63 - 1)

#: Where a Parquet output keeps its rows; beside them lie the summaries of its windows.
_ROWS = "rows"


def of_path(where: str | Path, span: Window, environment: Mapping[str, str]) -> Samples:
    """Return the rows in a span of a file, a folder, all that a pattern names, or `s3://bucket/prefix`.

    Args:
        where: What to read.
        span: From when to when.
        environment: Where the usual variables name keys and endpoint of an object store.

    Raises:
        ConfigurationError: There is no such thing, or nobody can tell what to read of it.
        SourceRefused: It holds something else than a release.
    """
    text = str(where)
    try:
        address = data_set_address(text)
    except ValueError as error:
        raise ConfigurationError(f"{text} {error}") from None
    if address is None:
        if not Path(text).is_file():
            raise ConfigurationError(f"{text} names no file and no folder")
        return _of_source(FileSource(Path(text)), span, text)
    if address.bucket:
        return _of_source(_bucket_source(address, environment), span, text)
    texts = _csv_files(address)
    if not texts:
        return _of_source(_folder_source(address, text), span, text)
    if not address.pattern and (_holds_rows(Path(address.root)) or next(Path(address.root).glob("*.parquet"), None)):
        raise ConfigurationError(f"{text} holds CSV and Parquet: name the folder of the Parquet files, or {text}/*.csv")
    return joined([_of_source(FileSource(path), span, str(path)) for path in texts])


def _csv_files(address: DataSetAddress) -> list[Path]:
    patterns = (address.pattern,) if address.pattern else ("*.csv", "*.csv.gz")
    found = (path for pattern in patterns for path in Path(address.root).glob(pattern))
    return sorted(path for path in found if path.name.endswith((".csv", ".csv.gz")))


def _holds_rows(folder: Path) -> bool:
    return (folder / _ROWS).is_dir()


def _folder_source(address: DataSetAddress, text: str) -> SampleSource:
    root = Path(address.root)
    if address.pattern:
        return DataSetSource(Folder(root, address.is_asked()))
    rows = root / _ROWS if _holds_rows(root) else root
    if next(rows.rglob("*.parquet"), None) is None:
        raise ConfigurationError(f"{text} holds no CSV or Parquet file")
    return DataSetSource(Folder(rows))


def _bucket_source(address: DataSetAddress, environment: Mapping[str, str]) -> SampleSource:
    store = ObjectStore(address.bucket, StoreAccess.of(environment))
    rows = f"{address.root}/{_ROWS}".lstrip("/")
    try:
        has_rows = not address.pattern and any(islice(store.objects(rows), 1))
    except StoreFault as fault:
        raise (SourceDenied if fault.is_denial else SourceUnavailable)(str(fault)) from None
    return DataSetSource(BucketFolder(lambda: store, rows if has_rows else address.root, address.is_asked()))


def _of_source(source: SampleSource, span: Window, name: str) -> Samples:
    """Return the rows of a source that lie in the span; one row that is none of ours makes all of it none."""
    try:
        source.open()
        lost = source.rows_beside(ANY_TIME.start_ns, ANY_TIME.end_ns).without_time
        return only_released(_within(source, span), lost, name)
    except SourceError as error:
        raise type(error)(str(error).replace("INPUT_FILE", name)) from None
    finally:
        source.close()


def _within(source: SampleSource, span: Window) -> Samples:
    extent = source.extent()
    if extent is None:
        return make_samples([], [], (), [])
    start_ns, end_ns = max(extent[0], span.start_ns), min(extent[1], span.end_ns)
    return source.read(covering_windows(start_ns, max(start_ns, end_ns), NANOSECONDS))


def of_data_set(data_set: ds.Dataset, span: Window) -> Samples:
    """Return the rows of a pyarrow data set that lie in the span. Raises SourceRefused where it is no release."""
    lacking = [name for name in COLUMNS if name not in data_set.schema.names]
    if lacking:
        raise SourceRefused(f"The data set lacks the columns {', '.join(lacking)}; rows of a release lie in its folder {_ROWS}")
    when, kind = ds.field("timestamp"), data_set.schema.field("timestamp").type
    if not pa.types.is_timestamp(kind):
        raise SourceRefused(f"The data set: column timestamp must hold times, got {kind}")
    first, last = (pa.scalar(bound, pa.timestamp("ns", kind.tz)) for bound in (span.start_ns, span.end_ns))
    rows = data_set.to_table(columns=list(COLUMNS), filter=when.is_null() | ((when >= first) & (when < last)))
    found, (codes, ids) = times(rows.column("timestamp")), source_ids(rows.column("source_id"))
    is_time = found.kinds == TimeKind.CALENDAR
    samples = make_samples(found.times_ns[is_time], codes[is_time], ids, values(rows.column("ecg")).values[is_time])
    return only_released(samples, int(np.count_nonzero(~is_time)), "The data set")


def only_released(samples: Samples, lost: int, name: str) -> Samples:
    """Return the rows, unless there are some that no release of ours holds."""
    lost += int(np.count_nonzero(np.isnan(samples.values_uv) | (samples.source_codes == NO_SOURCE)))
    if lost:
        raise SourceRefused(
            f"{name}: {lost} rows lack a time, an id or a value, as no released row does; is it being written, or damaged?"
        )
    return samples


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
