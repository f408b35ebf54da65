"""Reads released rows back from CSV files and Parquet. Strict: the service wrote them, so one invalid row refuses the whole release."""

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
from inputs.data_set import DataSetSource
from inputs.data_set_address import DataSetAddress, data_set_address
from inputs.data_set_bucket import BucketFolder
from inputs.data_set_parts import Folder
from inputs.file_columns import COLUMNS, source_ids, values
from inputs.file_source import FileSource
from inputs.file_times import TimeKind, times
from transport.object_store import ObjectStore, StoreAccess, StoreFault

#: The whole range of 64-bit nanoseconds.
ANY_TIME = Window(-(2**63), 2**63 - 1)

#: The folder in which a Parquet output keeps its rows; the window summaries are beside it.
_ROWS = "rows"


def of_path(where: str | Path, span: Window, environment: Mapping[str, str]) -> Samples:
    """Return the released rows of a span from a file, a folder, a glob, or `s3://bucket/prefix`.

    Args:
        where: What to read.
        span: The span of time to read.
        environment: The variables that name keys and endpoint of an object store.

    Raises:
        ConfigurationError: It does not exist, or it is ambiguous what to read of it.
        SourceRefused: It holds something other than a release.
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
        return DataSetSource(Folder(root, address.is_requested()))
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
    return DataSetSource(BucketFolder(lambda: store, rows if has_rows else address.root, address.is_requested()))


def _of_source(source: SampleSource, span: Window, name: str) -> Samples:
    """Return the rows of a source in a span. Raises SourceRefused if any row cannot be a released one."""
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
    """Return the rows of a pyarrow data set in a span. Raises SourceRefused if it is not a release."""
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
    """Return the rows. Raises SourceRefused if any lacks a time (`lost` of them), an id or a value, as no released row does."""
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
