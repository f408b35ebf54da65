"""The real program over data sets: the same rows come out as from one file, each once, whatever is added, changed, cut off or killed."""

from __future__ import annotations

import re
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pa_parquet
import pytest

from service import crash_points
from testbed.s3_server import S3Server
from tests.integration.clinic import START_NS, Key, csv_rows
from tests.integration.service_process import Service, run_service, state
from tests.servers.tcp_proxy import Hang, TcpProxy

NAME = "anna-schmidt"

ALONE = {"OUTPUT_TO_INFLUX": "false", "RETRY_BUDGET_SECONDS": "20"}

NS = pa.timestamp("ns", "UTC")


@pytest.fixture(scope="module")
def table() -> pa.Table:
    """Two minutes of six wearers at 50 Hz, in order of time."""
    rows = np.arange(36_000)
    times_ns = START_NS + rows // 6 * 20_000_000
    values = np.round(800 * np.sin(rows // 6 / 7) + rows % 6 * 3)
    ids = np.array([f"w{number}" for number in range(6)], object)[rows % 6]
    return pa.table({"timestamp": pa.array(times_ns).cast(NS), "source_id": pa.array(ids, pa.string()), "ecg": values})


def parts_of(table: pa.Table, seconds: int = 30) -> Iterator[tuple[int, pa.Table]]:
    """Yield what each span of time holds."""
    span = (table["timestamp"].cast(pa.int64()).to_numpy() - START_NS) // (seconds * 10**9)
    for number in range(span.max() + 1):
        yield number, table.filter(pa.array(span == number))


def run(folder: Path, given: object, **settings: object) -> tuple[int, str]:
    code, log = run_service(folder, {**ALONE, "INPUT_FILE": given, **settings})
    assert "Traceback" not in log, log
    assert NAME not in log.replace(str(given), ""), log
    return code, log


def write(path: Path, table: pa.Table, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pa_parquet.write_table(table, path, row_group_size=3000, **options)
    return path


@pytest.fixture(scope="module")
def from_one_file(table: pa.Table, tmp_path_factory: pytest.TempPathFactory) -> dict[Key, float]:
    """What comes out of the same rows in one file."""
    folder = tmp_path_factory.mktemp("one")
    code, log = run(folder, write(folder / "ecg.parquet", table))
    assert code == 0, log
    return csv_rows(folder / "csv")


def by_time(folder: Path, table: pa.Table) -> Path:
    for number, part in parts_of(table):
        write(folder / "date=2025-11-03" / f"part-{number}.parquet", part)
    return folder


def by_source(folder: Path, table: pa.Table) -> Path:
    """Each wearer's rows in a folder named after the wearer, not in order of time, with another unit of time each."""
    for number in range(6):
        rows = table.filter(pa.array([source_id == f"w{number}" for source_id in table["source_id"].to_pylist()]))
        kind = (pa.timestamp("ms"), pa.timestamp("us", "America/New_York"), NS)[number % 3]
        backwards = rows.take(pa.array(np.arange(rows.num_rows)[::-1]))
        times = backwards["timestamp"].cast(pa.timestamp(kind.unit, "UTC")).cast(pa.int64()).cast(kind)
        write(folder / f"source_id=w{number}" / "part.parquet", backwards.drop(["source_id"]).set_column(0, "timestamp", times))
    return folder


@pytest.mark.parametrize("made", [by_time, by_source])
def test_a_folder_is_released_as_one_file_with_the_same_rows(
    made: Callable[[Path, pa.Table], Path], table: pa.Table, from_one_file: dict[Key, float], tmp_path: Path
) -> None:
    folder = made(tmp_path / NAME, table)
    (folder / "_SUCCESS").touch()

    code, log = run(tmp_path, folder)

    assert code == 0, log
    assert csv_rows(tmp_path / "csv") == from_one_file
    code, log = run(tmp_path, f"{folder}/**/*.parquet")
    assert (code, "24 windows of" in log, "skipped" in log) == (0, True, True), (
        "a glob counts as its folder: nothing is released again"
    )
    assert csv_rows(tmp_path / "csv") == from_one_file


def test_a_run_that_is_killed_goes_on_where_it_was(table: pa.Table, from_one_file: dict[Key, float], tmp_path: Path) -> None:
    folder = by_time(tmp_path / "set", table)
    settings = {**ALONE, "INPUT_FILE": folder, "MAX_RECORDS_PER_QUERY": "20000"}
    for point in ("after-read:2", "after-spool:3", "after-taken:2"):
        code, log = run_service(tmp_path, settings, environment={crash_points.VARIABLE: point})
        assert code == -signal.SIGKILL, log

    code, log = run(tmp_path, folder, MAX_RECORDS_PER_QUERY="20000")

    assert code == 0, log
    assert csv_rows(tmp_path / "csv") == from_one_file


def test_what_is_added_changed_or_removed_is_reported_and_never_released_twice(table: pa.Table, tmp_path: Path) -> None:
    folder = tmp_path / NAME
    parts = dict(parts_of(table))
    for number in (0, 1):
        write(folder / f"{number}.parquet", parts[number])
    assert run(tmp_path, folder)[0] == 0
    released = csv_rows(tmp_path / "csv")
    # 50 rows more for released windows, in a file of their own, with the last half minute; and 30 in place of the first file.
    more = parts[0].slice(0, 50).set_column(1, "source_id", pa.array(["new"] * 50))
    write(folder / "2.parquet", pa.concat_tables([more, parts[3]]))
    write(
        folder / "0.parquet", pa.concat_tables([parts[0], more.slice(0, 30).set_column(1, "source_id", pa.array(["newer"] * 30))])
    )

    code, log = run(tmp_path, folder)

    now = csv_rows(tmp_path / "csv")
    assert code == 0, log
    assert "since the last start: 1 files are new, 1 have changed, 0 are gone" in log
    assert "80 rows that were added to INPUT_FILE belong to windows that were released before, and are not released" in log
    assert {key: now[key] for key in released} == released
    assert len(now) == len(released) + parts[3].num_rows
    assert "new" not in {source_id for _, source_id in now}
    code, shown = state(tmp_path, "show")
    assert re.search(r"late\D+80", shown), shown

    (folder / "1.parquet").unlink()
    code, log = run(tmp_path, folder)

    assert (code, "0 files are new, 0 have changed, 1 are gone" in log) == (0, True), log
    assert "rows that were added" not in log, "what came late is told once"
    assert csv_rows(tmp_path / "csv") == now
    code, log = run(tmp_path, folder)
    assert (code, "since the last start" in log) == (0, False), log
    shutil.move(folder, tmp_path / "elsewhere")
    code, log = run(tmp_path, tmp_path / "elsewhere")
    assert (code, "belongs to another data set" in log) == (78, True), log


def test_a_file_that_is_written_to_during_a_run_ends_it(table: pa.Table, tmp_path: Path) -> None:
    folder = by_time(tmp_path / "set", pa.concat_tables([table, later(table, 120), later(table, 240)]))
    last = max(folder.rglob("*.parquet"), key=lambda path: int(path.stem.partition("-")[2]))
    with Service(tmp_path, {**ALONE, "INPUT_FILE": folder, "MAX_RECORDS_PER_QUERY": "100"}) as service:
        service.wait_for("Processing batch")
        changed = pa_parquet.read_table(last)
        write(last, changed.set_column(2, "ecg", pa.array(np.full(changed.num_rows, 99.0))))
        code = service.exit_code()

    assert (code, "was written to, moved or removed while the data set was read" in service.log) in ((78, True), (0, False)), (
        service.log
    )
    assert 99.0 not in set(csv_rows(tmp_path / "csv").values())


def later(table: pa.Table, seconds: int) -> pa.Table:
    times = pa.array(table["timestamp"].cast(pa.int64()).to_numpy() + seconds * 10**9).cast(NS)
    return table.set_column(0, "timestamp", times)


@pytest.mark.parametrize(
    ("given", "what"),
    [
        ("gs://bucket/x", "INPUT_FILE is an address of a kind that is not read"),
        ("s3://UPPER_case/x", "INPUT_FILE must name a bucket and a prefix"),
        ("none/*.parquet", "INPUT_FILE cannot be read (No such file or directory)"),
        ("empty", "INPUT_FILE holds no Parquet files"),
        (".", "STATE_DIR is in the folder that INPUT_FILE names"),
    ],
)
def test_what_cannot_be_a_data_set_is_refused_with_a_sentence(given: str, what: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()

    code, log = run(tmp_path, given)

    assert (code, what in log) == (78, True), log
    assert "InfluxDB" not in log.partition(what)[0].rpartition("\n")[2]


def test_a_bucket_is_released_and_waited_for(
    s3_server: S3Server, s3_bucket: str, table: pa.Table, from_one_file: dict[Key, float], tmp_path: Path
) -> None:
    for number, part in parts_of(table):
        s3_server.put(s3_bucket, f"{NAME}/part-{number}.parquet", write(tmp_path / "made.parquet", part).read_bytes())
    address = f"s3://{s3_bucket}/{NAME}/*.parquet"
    with TcpProxy(s3_server.port) as proxy:
        keys = {**s3_server.variables(), "AWS_ENDPOINT_URL": proxy.url}
        proxy.answers.become(Hang(10))
        settings = {**ALONE, **keys, "INPUT_FILE": address, "PARQUET_TIMEOUT_SECONDS": "1"}
        with Service(tmp_path, settings) as service:
            service.wait_for("the objects named by INPUT_FILE")
            service.wait_for("did not answer within 1 s; trying again")
            proxy.refuse()
            proxy.cut()
            service.wait_for("cannot be reached; trying again")
            proxy.pass_all()
            proxy.listen()
            code, log = service.exit_code(), service.log
        assert (code, csv_rows(tmp_path / "csv") == from_one_file) == (0, True), log
        wrong = {**keys, "AWS_SECRET_ACCESS_KEY": "a-secret-nobody-sees"}
        code, log = run_service(tmp_path, settings, environment=wrong)
    assert (code, "answered 403 (SignatureDoesNotMatch)" in log) == (78, True), log
    assert not any(secret in log for secret in ("a-secret-nobody-sees", s3_server.secret_key, s3_server.access_key)), log
    code, log = run_service(tmp_path, {**settings, "INPUT_FILE": "s3://no-such-bucket/x"}, environment=s3_server.variables())
    assert (code, "answered 404 (NoSuchBucket)" in log) == (78, True), log
