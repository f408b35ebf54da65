"""A file to which rows were added after its release: what is new goes out, once, and nothing else again."""

from __future__ import annotations

import gzip
import re
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pyarrow.csv as pa_csv
import pyarrow.parquet as pa_parquet
import pytest

from tests.integration.clinic import csv_rows
from tests.integration.service_process import run_service

NAME = "anna-schmidt"


def rows(start: str, count: int = 100) -> bytes:
    """Return rows of one second, from a time to the second on."""
    return "".join(f"2025-11-03T14:{start}.{index:02}Z,w1,{index % 5}\n" for index in range(count)).encode()


FIRST = b"timestamp,source_id,ecg\n" + rows("30:00") + rows("30:01")

#: Twenty rows for the released window, and those of two new ones.
ADDED = rows("30:03", 20) + rows("30:10") + rows("30:21")


def run(folder: Path, path: Path, **settings: object) -> tuple[int, str]:
    code, log = run_service(folder, {"INPUT_FILE": path, "OUTPUT_TO_INFLUX": "false", **settings})
    assert "Traceback" not in log, log
    assert NAME not in log.replace(str(folder), ""), log
    return code, log


@pytest.mark.parametrize("form", ["csv", "csv without a last line end", "gzip"])
def test_what_was_added_is_named_and_released_alone(form: str, tmp_path: Path) -> None:
    path = tmp_path / f"{NAME}.csv{'.gz' if form == 'gzip' else ''}"
    first = FIRST.rstrip(b"\n") if form.endswith("end") else FIRST
    added = b"\n" + ADDED if form.endswith("end") else ADDED
    packed: Callable[[bytes], bytes] = partial(gzip.compress, mtime=0) if form == "gzip" else bytes
    path.write_bytes(packed(first))
    assert run(tmp_path, path)[0] == 0
    released = csv_rows(tmp_path / "csv")
    assert len(released) == 200
    path.write_bytes(packed(first) + packed(added))

    code, log = run(tmp_path, path)

    assert code == 78, log
    assert (
        "INPUT_FILE has grown since it was released: 220 rows were added, with times from 2025-11-03 14:30:03 to 2025-11-03 14:30:21. "
        "20 of them belong to released windows" in log
    ), log
    assert csv_rows(tmp_path / "csv") == released
    (advised,) = re.findall(r"set (QUERY_START_TIME)=(\S+)", log)
    assert advised[1] == "2025-11-03T14:30:10Z"

    code, log = run(tmp_path, path, **dict([advised]))

    assert code == 0, log
    assert "20 rows that were added to INPUT_FILE belong to windows that were released before, and are not released" in log
    now = csv_rows(tmp_path / "csv")
    assert {key: now[key] for key in released} == released
    assert len(now) == 400
    if form != "csv":
        return

    code, log = run(tmp_path, path)
    assert (code, csv_rows(tmp_path / "csv") == now) == (0, True), log
    assert "rows that were added" not in log.replace("20 rows that were added", ""), "those of new windows were not late"
    path.write_bytes(packed(first) + packed(added) + packed(rows("30:40")))
    code, log = run(tmp_path, path)
    assert (code, "set QUERY_START_TIME=2025-11-03T14:30:40Z" in log) == (78, True), log
    assert run(tmp_path, path, QUERY_START_TIME="2025-11-03T14:30:05Z")[0] == 78, "an earlier window is not new"


def test_a_file_that_was_rewritten_is_refused_with_advice_that_releases_nothing_twice(tmp_path: Path) -> None:
    source = tmp_path / "all.csv"
    path = tmp_path / f"{NAME}.parquet"
    source.write_bytes(FIRST)
    pa_parquet.write_table(pa_csv.read_csv(source), path)
    assert run(tmp_path, path)[0] == 0
    released = csv_rows(tmp_path / "csv")
    source.write_bytes(FIRST + ADDED)
    pa_parquet.write_table(pa_csv.read_csv(source), path)

    code, log = run(tmp_path, path)

    assert (code, csv_rows(tmp_path / "csv") == released) == (78, True), log
    assert "belongs to another data set" in log
    (start,) = re.findall(r"also set QUERY_START_TIME=(\S+) ", log)
    assert start == "2025-11-03T14:30:05Z"
    code, log = run(tmp_path, path, QUERY_START_TIME=start, STATE_DIR=tmp_path / "another")
    now = csv_rows(tmp_path / "csv")
    assert code == 0, log
    assert ({key: now[key] for key in released}, len(now)) == (released, 400)


def test_rows_added_in_front_or_changed_are_not_taken_for_rows_that_were_added(tmp_path: Path) -> None:
    path = tmp_path / f"{NAME}.csv"
    path.write_bytes(FIRST)
    assert run(tmp_path, path)[0] == 0
    kept = tmp_path / "kept"
    shutil.copytree(tmp_path / "state", kept)

    for changed in (
        FIRST.replace(b"01.99Z,w1,4\n", b"01.99Z,w1,45\n") + ADDED,
        FIRST[:-1] + b"5\n" + ADDED,
        b"\n".join(line for index, line in enumerate(FIRST.split(b"\n")) if index != 50) + ADDED,
    ):
        path.write_bytes(changed)
        code, log = run(tmp_path, path)
        assert (code, "belongs to another data set" in log) == (78, True), log
