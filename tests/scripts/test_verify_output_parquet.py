"""The outside check of Parquet files sees rows that are gone, changed, doubled or out of order, and summaries that do not fit."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from outputs.parquet_files import ParquetFiles
from outputs.parquet_places import Folder
from testbed.s3_server import S3Server
from tests.outputs.batches import usual_batch
from tests.scripts.verifying import run_check, write_csv

CHUNKS = ((0, 1), (2,), (900,))


@pytest.fixture
def released(tmp_path: Path) -> Path:
    """Three chunks of windows in which each value is shared by two rows of two sources, over two hours."""
    output = ParquetFiles(Folder(tmp_path / "released"), "hour")
    output.open({})
    for windows in CHUNKS:
        output.write_chunk([usual_batch(window=window) for window in windows])
    for path in tmp_path.rglob("*.parquet"):
        os.utime(path, (0, 0))
    return tmp_path / "released"


def check(*arguments: str, environment: Mapping[str, str] | None = None) -> tuple[int, str]:
    return run_check(*arguments, packages=True, environment=environment)


def first(folder: Path, table: str) -> Path:
    return min((folder / table).rglob("*.parquet"))


def rewrite(path: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    pq.write_table(change(pq.ParquetFile(path).read()), path)
    os.utime(path, (0, 0))


def test_released_files_keep_their_promise_and_are_asked_for_more_than_they_promise(released: Path) -> None:
    assert check(str(released)) == (
        0,
        "4 windows, 24 rows. Smallest group: 2 rows (promised: what each summary says).\nOK: every released value is shared as promised.\n",
    )
    assert check(str(released), "--k", "2", "--k-unit", "source")[0] == 1, "the summaries promise rows"
    code, said = check(str(released), "--k", "3")
    assert (code, "values that fewer than 3 rows share" in said) == (1, True), said
    files = sorted(str(path) for path in released.glob("rows/**/*.parquet"))
    assert check("--k", "2", "--batch-seconds", "5", *files)[0] == 0


def _without_first(table: pa.Table) -> pa.Table:
    return table.slice(1)


def _changed(table: pa.Table) -> pa.Table:
    values = table["ecg"].to_pylist()
    return table.set_column(2, "ecg", [[values[0] + 1, *values[1:]]])


def _turned(table: pa.Table) -> pa.Table:
    return table.take(list(range(len(table)))[::-1])


def _doubled(table: pa.Table) -> pa.Table:
    return pa.concat_tables([table, table.slice(0, 1)])


def _stated(name: str, value: int) -> Callable[[pa.Table], pa.Table]:
    def change(table: pa.Table) -> pa.Table:
        return table.set_column(table.column_names.index(name), name, pa.array([value] * len(table)))

    return change


@pytest.mark.parametrize(
    ("table", "change", "problem"),
    [
        ("rows", _without_first, "fewer rows released than its summary says"),
        ("rows", _changed, "values that fewer than 2 rows share"),
        ("rows", _turned, "rows are not in order of time and id"),
        ("rows", _doubled, "a source has two rows for one time"),
        ("windows", _stated("rows_released", 5), "more rows released than its summary says"),
        ("windows", _stated("smallest_group", 3), "another smallest group than its summary says"),
        ("windows", _stated("k", 1), "a k below 2"),
    ],
)
def test_what_was_changed_is_a_violation(
    released: Path, table: str, change: Callable[[pa.Table], pa.Table], problem: str
) -> None:
    rewrite(first(released, table), change)

    code, said = check(str(released))

    assert (code, problem in said) == (1, True), said


def test_a_chunk_without_summaries_is_a_violation_once_they_should_be_there(released: Path) -> None:
    first(released, "windows").unlink()

    code, said = check(str(released))
    assert (code, "rows without a window summary" in said) == (1, True), said

    first(released, "rows").touch()
    assert check(str(released))[0] == 0


def test_rows_and_windows_that_stand_in_two_chunks_were_released_twice(released: Path) -> None:
    for table in ("rows", "windows"):
        path = first(released, table)
        label, start, end = path.stem.rsplit("-", 2)
        shutil.copy2(path, path.with_name(f"{label}-{start}-{int(end) + 1}.parquet"))

    code, said = check(str(released))
    assert (code, "it overlaps another window: released twice" in said) == (1, True), said

    # Another data set's windows may overlap.
    for table in ("rows", "windows"):
        for path in (released / table).rglob("*1.parquet"):
            path.rename(path.with_name(path.name.replace("0123456789ab", "another")))
    assert check(str(released))[0] == 0


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda folder: first(folder, "rows").write_bytes(b"PAR1"), "cannot be read as Parquet of this project"),
        (lambda folder: first(folder, "windows").write_bytes(b""), "cannot be read as Parquet of this project"),
        (lambda folder: rewrite(first(folder, "rows"), lambda table: table.drop_columns("ecg")), "cannot be read as Parquet"),
        (lambda folder: rewrite(first(folder, "windows"), _stated("rows_read", -1)), "lacks a usable rows_read"),
        (lambda folder: rewrite(first(folder, "rows"), _nulls), "rows without a time, an id or a number"),
        (lambda folder: first(folder, "rows").rename(folder / "rows" / "mine.parquet"), "has no name that this project gives"),
        (shutil.rmtree, "is no folder of Parquet files of this project"),
    ],
    ids=range(7),
)
def test_what_cannot_be_checked_is_said_in_a_sentence(released: Path, spoil: Callable[[Path], object], sentence: str) -> None:
    spoil(released)
    released.mkdir(exist_ok=True)

    code, said = check(str(released))

    assert (code, sentence in said, "Traceback" in said) == (64, True, False), said


def _nulls(table: pa.Table) -> pa.Table:
    return table.set_column(2, "ecg", pc.if_else(pc.equal(table["ecg"], table["ecg"][0]), None, table["ecg"]))


def test_a_folder_stands_alone(released: Path) -> None:
    assert "one folder of Parquet files" in check(str(released), str(released))[1]
    assert "one folder of Parquet files" in check(str(released), "s3://bucket/prefix")[1]


@pytest.mark.s3
def test_an_object_store_is_checked_as_a_folder_is(released: Path, s3_server: S3Server, s3_bucket: str, tmp_path: Path) -> None:
    for path in released.rglob("*.parquet"):
        key = f"a b/ä+c/{path.relative_to(released)}"
        s3_server.put(s3_bucket, key, path.read_bytes())
    address, given = f"s3://{s3_bucket}/a b/ä+c/", s3_server.variables()

    assert check(address, environment=given) == check(str(released))
    assert "values that fewer than 3 rows share" in check(address, "--k", "3", environment=given)[1]
    rewrite(first(released, "rows"), _without_first)
    broken = first(released, "rows").relative_to(released)
    s3_server.put(s3_bucket, f"a b/ä+c/{broken}", (released / broken).read_bytes())
    (tmp_path / "secret").write_text(f"{s3_server.secret_key}\n")
    (tmp_path / "env").write_text(
        "".join(f"{name}={value}\n" for name, value in given.items() if "SECRET" not in name)
        + f"AWS_SECRET_ACCESS_KEY_FILE={tmp_path / 'secret'}\nK_VALUE=2\n"
    )
    assert check(address, "--env-file", str(tmp_path / "env"))[0] == 1

    for changes, code, sentence in (
        ({"AWS_SECRET_ACCESS_KEY": "a-secret-nobody-sees"}, 64, "cannot be read ("),
        ({"AWS_SECRET_ACCESS_KEY": ""}, 64, "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"),
        ({"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}, 69, "no object store answers"),
    ):
        found, said = check(address, environment={**given, **changes})
        assert (found, sentence in said) == (code, True), said
        assert not any(secret in said for secret in ("nobody-sees", s3_server.secret_key, s3_server.access_key)), said
    code, said = check(f"s3://{s3_bucket}/nothing", environment=given)
    assert (code, "is no folder of Parquet files of this project" in said) == (64, True), said
    code, said = check("s3://no-such-bucket-here/x", environment=given)
    assert (code, "no folder of Parquet files" in said or "cannot be read" in said) == (64, True), said


def test_pyarrow_is_needed_for_parquet_files_alone(released: Path, tmp_path: Path) -> None:
    csv = write_csv(tmp_path / "a.csv", [("2025-11-03T14:30:00Z", source, "1") for source in "ab"])

    assert run_check("--k", "2", "--batch-seconds", "5", str(csv))[0] == 0
    code, said = run_check(str(released))
    assert (code, "pip install pyarrow" in said) == (64, True), said
