"""Reasons that decisions rest on, where a program can check them. When one of these fails, a record may be due again."""

from __future__ import annotations

import ast
import logging
import math
from collections.abc import Iterator
from datetime import datetime
from importlib.metadata import metadata
from pathlib import Path

import numpy as np
import pytest
from influxdb_client import InfluxDBClient, WriteOptions

from anonymizer import microaggregation
from outputs.encoding import value_texts
from testbed.influxdb_api import ApiError, InfluxApi
from tests.conftest import Bucket
from tests.documentation.pages import DECISIONS, ROOT, text_of
from tests.documentation.timings import THEIR_HEAD, parse_with_the_client

#: 2025-11-03T14:30:00Z, and the same time eight days later: in the next shard of a bucket that keeps its data for ever.
MONDAY_NS, NEXT_SHARD_NS = 1_762_180_200_000_000_000, 1_762_871_400_000_000_000

SHIPPED_FOLDERS = ("anonymizer", "disk", "inputs", "operations", "outputs", "service", "transport")


def modules() -> Iterator[tuple[Path, ast.Module]]:
    """Yield what the service is made of."""
    for folder in SHIPPED_FOLDERS:
        for path in (ROOT / folder).rglob("*.py"):
            yield path, ast.parse(path.read_text(encoding="utf-8"))


def names_imported() -> set[str]:
    """Return every name that the service imports, with its module in front."""
    found = set()
    for _, tree in modules():
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def record(number: int) -> str:
    return text_of(DECISIONS[number - 1])


def test_python_3_11_is_what_the_libraries_ask_for_and_what_the_code_uses() -> None:
    assert [metadata(name)["Requires-Python"] for name in ("numpy", "pyarrow")] == [">=3.11"] * 2
    assert "datetime.UTC" in names_imported()
    assert any("hashlib.file_digest(" in path.read_text(encoding="utf-8") for path, _ in modules())


def test_every_value_is_written_with_a_point_or_an_exponent() -> None:
    texts = value_texts(np.array([11.0, -7.0, 0.0])).to_pylist() + value_texts(np.array([11.0, 10.5, 1e300])).to_pylist()

    assert texts[:5] == ["11.0", "-7.0", "0.0", "11.0", "10.5"]
    assert all("." in text or "e" in text for text in texts)


@pytest.mark.influxdb
def test_influxdb_refuses_integers_after_floats_and_stores_the_good_lines(output_bucket: Bucket) -> None:
    output_bucket.write(f"ecg,source_id=a ecg=11.0 {MONDAY_NS}".encode())

    with pytest.raises(ApiError, match="field type conflict") as refused:
        output_bucket.write(f"ecg,source_id=a ecg=12i {MONDAY_NS + 1}\necg,source_id=a ecg=13.0 {MONDAY_NS + 2}".encode())

    assert refused.value.status == 422
    assert [row["_value"] for row in rows_of(output_bucket.reader(), output_bucket.name)] == ["11", "13"]


@pytest.mark.influxdb
def test_influxdb_hides_rows_where_the_type_changes_between_shards(output_bucket: Bucket) -> None:
    output_bucket.write(f"ecg,source_id=a ecg=11.0 {MONDAY_NS}".encode())
    output_bucket.write(f"ecg,source_id=a ecg=12i {NEXT_SHARD_NS}".encode())

    reader = output_bucket.reader()

    assert len(rows_of(reader, output_bucket.name)) == 1
    assert reader.count(output_bucket.name) == 1


def rows_of(reader: InfluxApi, bucket: str) -> list[dict[str, str]]:
    return reader.rows(f'from(bucket: "{bucket}") |> range(start: 0)')


def test_the_service_does_without_the_client() -> None:
    assert not {name for name in names_imported() if name.startswith("influxdb_client")}


def test_the_clients_parser_cuts_nanoseconds_to_microseconds() -> None:
    answer = f"{THEIR_HEAD},,0,2025-11-03T14:30:00.002777777Z,1.5,a\r\n\r\n".encode()

    (row,) = parse_with_the_client(answer)

    assert isinstance(row["_time"], datetime)
    assert row["_time"].microsecond == 2777


def test_the_clients_batching_writer_reports_a_lost_write_in_its_log_only(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR)
    once = WriteOptions(batch_size=1, flush_interval=10, max_retries=0)

    with InfluxDBClient("http://127.0.0.1:9", token="t", org="o") as client, client.write_api(once) as writer:
        writer.write("b", "o", "ecg value=1.0 1")

    assert "wasn't processed successfully" in caplog.text


def test_squared_errors_are_exact_up_to_the_k_that_the_record_names() -> None:
    assert "up to k = 21." in record(7)
    for k in range(2, 22):
        assert microaggregation._parts(k) == math.lcm(*range(k, 2 * k))
    assert microaggregation._parts(22) == 2**40


def test_settings_need_no_framework_and_one_library_to_parse_the_file() -> None:
    assert "dotenv.parser.parse_stream" in names_imported()
    assert not [name for name in names_imported() if name.startswith(("pydantic", "environs", "dynaconf"))]
