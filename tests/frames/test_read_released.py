"""Released rows are read back from wherever the service puts them, exactly and strictly; what is no release is refused with a sentence."""

from __future__ import annotations

import dataclasses
import gzip
import shutil
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from anonymizer.batch import Batch
from anonymizer.errors import ConfigurationError, SourceDenied, SourceError, SourceRefused
from anonymizer.windows import NANOSECONDS
from ecg_frames import Bucket, read_released
from outputs.csv_files import CsvFiles
from outputs.parquet_files import ParquetFiles
from outputs.parquet_places import Bucket as ParquetBucket
from outputs.parquet_places import Folder
from testbed.s3_server import S3Server
from tests.integration.clinic import FIRST_MINUTE, Clinic, csv_rows
from tests.integration.service_process import run_service
from tests.outputs.batches import START_S, rows_of, usual_batch
from transport.object_store import ObjectStore, StoreAccess

BATCHES = [usual_batch(window=number, rows=40) for number in range(4)]


def put(output: CsvFiles | ParquetFiles) -> None:
    output.open({})
    for batch in BATCHES:
        output.intent(batch)
        output.write(batch)


@pytest.fixture
def csv(tmp_path: Path) -> Path:
    put(CsvFiles(tmp_path / "csv", "ecg_anonymized_%Y%m%d_%H%M%S.csv"))
    return tmp_path / "csv"


@pytest.fixture
def parquet(tmp_path: Path) -> Path:
    put(ParquetFiles(Folder(tmp_path / "parquet"), "hour"))
    return tmp_path / "parquet"


def as_rows(frame: pd.DataFrame) -> list[tuple[int, str, float]]:
    return list(zip(frame["timestamp"].astype("int64"), frame["source_id"], frame["ecg"], strict=True))


def expected(batches: list[Batch] = BATCHES, *, from_s: float = 0, to_s: float = 1e6) -> list[tuple[int, str, float]]:
    """Return the rows of batches between two moments after their start."""
    first, last = (int((START_S + bound) * NANOSECONDS) for bound in (from_s, to_s))
    return sorted(
        (row.time_ns, row.source_id, row.value_uv) for batch in batches for row in rows_of(batch) if first <= row.time_ns < last
    )


def test_csv_and_parquet_are_read_back_as_they_were_written(csv: Path, parquet: Path) -> None:
    with gzip.open(csv / "more.csv.gz", "wb") as more:
        more.write((last := sorted(csv.glob("*.csv"))[-1]).read_bytes())
    last.unlink()

    by_folder = read_released(csv)

    assert as_rows(by_folder) == expected()
    assert by_folder.dtypes.astype(str).to_dict() == {
        "timestamp": "datetime64[ns, UTC]",
        "source_id": "category",
        "ecg": "float64",
    }
    assert by_folder.index.equals(pd.RangeIndex(len(by_folder)))
    first = sorted(csv.glob("*.csv"))[0]
    assert as_rows(read_released(str(first))) == expected(BATCHES[:1])
    assert as_rows(read_released(f"{csv}/*.csv")) == expected(BATCHES[:3])
    places = (parquet, f"{parquet}/rows", f"{parquet}/rows/**/*.parquet", ds.dataset(parquet / "rows", partitioning="hive"))
    for place in places:
        pd.testing.assert_frame_equal(read_released(place), by_folder)
    one = next((parquet / "rows").rglob("*.parquet"))
    assert len(read_released(one)) == 40


@pytest.mark.parametrize("end", ["2025-11-03T14:30:12.5", "2025-11-03T15:30:12.5+01:00"])
def test_a_span_begins_with_its_start_and_ends_before_its_end(csv: Path, parquet: Path, end: str) -> None:
    start = datetime(2025, 11, 3, 14, 30, 5, tzinfo=UTC)

    for place in (csv, parquet, ds.dataset(parquet / "rows")):
        assert as_rows(read_released(place, start, end)) == expected(from_s=5, to_s=12.5)
        assert as_rows(read_released(place, start=start)) == expected(from_s=5)
        assert len(read_released(place, "2030-01-01", "2031-01-01")) == 0
    local = start.astimezone(timezone(timedelta(hours=-5)))
    pd.testing.assert_frame_equal(read_released(csv, local), read_released(csv, pd.Timestamp(start)))
    pd.testing.assert_frame_equal(read_released(csv, local), read_released(csv, np.datetime64("2025-11-03T14:30:05")))
    assert as_rows(read_released(csv, start.date(), date(2025, 11, 4))) == expected()
    assert len(read_released(csv, end=date(2025, 11, 3))) == 0


def test_ids_of_rows_outside_the_span_are_no_category(csv: Path) -> None:
    (csv / "later.csv").write_text(
        "timestamp,source_id,ecg\n2025-11-03T15:00:00.000000000Z,somebody else,1.0\n", encoding="utf-8"
    )

    assert "somebody else" in read_released(csv)["source_id"].cat.categories
    found = read_released(csv, "2025-11-03T14:30", pd.Timestamp("2025-11-03T14:30:00.000000001"))
    assert as_rows(found) == expected()[:2]
    assert "somebody else" not in found["source_id"].cat.categories


def test_an_object_store_is_read_with_the_usual_variables(
    s3_server: S3Server, s3_bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    variables = s3_server.variables()
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    address = f"s3://{s3_bucket}/study/7"
    put(
        ParquetFiles(
            ParquetBucket(lambda: ObjectStore(s3_bucket, StoreAccess.of(variables)), name=address, prefix="study/7"), "day"
        )
    )

    assert as_rows(read_released(address)) == expected()
    assert as_rows(read_released(f"{address}/rows/", "2025-11-03T14:30:05")) == expected(from_s=5)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong-key-of-a-reader")
    with pytest.raises(SourceDenied) as refusal:
        read_released(address)
    assert "wrong-key-of-a-reader" not in str(refusal.value)


@pytest.mark.influxdb
def test_what_the_service_wrote_to_a_bucket_and_to_files_is_read_back_alike(filled: Clinic, tmp_path: Path) -> None:
    settings = {**filled.settings, **FIRST_MINUTE}
    assert run_service(tmp_path, settings)[0] == 0
    token = filled.server.make_token(read=[filled.released])
    bucket = Bucket(url=filled.server.url, org=filled.server.org, token=token, bucket=filled.released)

    by_bucket = read_released(bucket, "2025-11-03T14:30", "2025-11-03T14:31")

    assert len(by_bucket) == 20
    pd.testing.assert_frame_equal(by_bucket, read_released(tmp_path / "csv"))
    assert len(by_bucket) == len(csv_rows(tmp_path / "csv"))
    assert len(read_released(bucket, "2025-11-03T14:30:00.005", "2025-11-03T14:30:00.010")) == 5
    assert token not in repr(bucket)
    with pytest.raises(ConfigurationError, match="a bucket has no bounds of its own: state start and end"):
        read_released(bucket, "2025-11-03T14:30")
    mistakes: tuple[tuple[dict[str, Any], str], ...] = (
        ({"token": "x" * 20}, r"refuses Bucket\.token \(401"),
        ({"org": "nobody"}, r"has no organization 'nobody'.*: check Bucket\.org$"),
        ({"org": ""}, r"is an InfluxDB 2, which needs Bucket\.org$"),
        (
            {"bucket": "none"},
            r"bucket 'none' does not exist or Bucket\.token may not read it.*: check Bucket\.bucket, or give a token",
        ),
    )
    for wrong, sentence in mistakes:
        with pytest.raises(SourceError, match=sentence) as refusal:
            read_released(dataclasses.replace(bucket, **wrong), "2025-11-03", "2025-11-04")
        assert "INFLUX_" not in str(refusal.value)


def test_what_is_no_release_is_refused_with_its_place(csv: Path, parquet: Path, tmp_path: Path) -> None:
    files = sorted(csv.glob("*.csv"))
    text = files[0].read_text(encoding="utf-8")

    def refused(sentence: str, place: Path | str | ds.Dataset = csv) -> None:
        with pytest.raises((SourceRefused, ConfigurationError), match=sentence):
            read_released(place)

    refused("nowhere names no file and no folder", tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    refused("empty holds no CSV or Parquet file", tmp_path / "empty")
    shutil.copy(files[0], csv / "a copy.csv")
    refused(r"40 rows stand there twice, the first at 2025-11-03T14:30:00\+00:00: is a file there under two names\?")
    (csv / "a copy.csv").unlink()
    # A line that is being written.
    files[0].write_text(text[: text.rindex(",")] + ",", encoding="utf-8")
    refused(rf"{files[0].name}: 1 rows lack a time, an id or a value, as no released row does")
    files[0].write_text(text.replace("timestamp,source_id,ecg", "timestamp,who,ecg"), encoding="utf-8")
    refused(rf"{files[0].name} needs the columns")
    files[0].write_text(text, encoding="utf-8")
    shutil.copytree(parquet / "rows", csv / "rows")
    refused("holds CSV and Parquet: name the folder of the Parquet files")
    refused("lacks the columns", ds.dataset(parquet / "windows", partitioning="hive"))
    refused("s3://", "s3://UPPER/case")
    refused("is an address of a kind that is not read", "ftp://example.invalid/x")


def test_rows_that_lack_something_are_refused_in_a_data_set_too(tmp_path: Path) -> None:
    times = pa.array(np.arange(20) + START_S, pa.timestamp("s", "UTC"))
    columns = {"timestamp": times, "source_id": pa.array(["a"] * 20), "ecg": pa.array([1.0] * 20)}
    for name in columns:
        damaged = columns[name].to_pylist()
        damaged[7] = None
        table = pa.table({**columns, name: pa.array(damaged, columns[name].type)})
        pq.write_table(table, tmp_path / "damaged.parquet")

        with pytest.raises(SourceRefused, match="The data set: 1 rows lack a time, an id or a value"):
            read_released(ds.dataset(tmp_path))
        with pytest.raises(SourceRefused, match="1 rows lack a time, an id or a value"):
            read_released(tmp_path)


@pytest.mark.parametrize(
    ("start", "end", "sentence"),
    [
        ("yesterday", None, "start must be a time such as 2025-11-03T14:30:00Z"),
        (None, 7, "end must be"),
        ("2025-11-03", "2025-11-03", "start must be before end"),
        (pd.Timestamp("9999-01-01"), None, "start must be a time"),
        (pd.NaT, None, "start must be a time"),
    ],
)
def test_a_span_that_cannot_be_used_is_refused(csv: Path, start: str, end: str, sentence: str) -> None:
    with pytest.raises(ConfigurationError, match=sentence):
        read_released(csv, start, end)
