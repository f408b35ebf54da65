"""Files as they were found to go wrong, given to the real program: every row is in one count, or the run is refused with a sentence."""

from __future__ import annotations

import gzip
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pa_parquet
import pytest

from tests.integration.clinic import csv_rows
from tests.integration.service_process import run_service

CASES = Path(__file__).resolve().parent.parent / "inputs" / "cases"

SUMS = re.compile(r"(\d+) rows read = (\d+) released \+ (\d+) withheld \+ (\d+) invalid \+ (\d+) duplicate")

#: A file named after a person.
NAME = "anna-schmidt"


@dataclass(frozen=True)
class Ran:
    """How a run ended: its exit code, its log, the sums of rows in it, and how many rows came out."""

    code: int
    log: str
    rows_out: int

    @property
    def read(self) -> int:
        return self.sums[0]

    @property
    def invalid(self) -> int:
        return self.sums[3]

    @property
    def sums(self) -> tuple[int, ...]:
        (found,) = SUMS.findall(self.log)
        sums = tuple(map(int, found))
        assert sums[0] == sum(sums[1:])
        return sums

    @property
    def remarks(self) -> list[str]:
        """The warnings about the file."""
        return [line.partition("⚠️ ")[2] for line in self.log.splitlines() if "⚠️ INPUT_FILE" in line]


def run(folder: Path, data: bytes | Path | pa.Table, suffix: str = ".csv", **settings: object) -> Ran:
    """Anonymize a file with the program."""
    if isinstance(data, pa.Table):
        suffix = ".parquet"
    elif isinstance(data, Path):
        suffix = "".join(data.suffixes)
    path = folder / f"{NAME}{suffix}"
    if isinstance(data, pa.Table):
        pa_parquet.write_table(data, path)
    else:
        path.write_bytes(data.read_bytes() if isinstance(data, Path) else data)
    code, log = run_service(folder, {"INPUT_FILE": path, "OUTPUT_TO_INFLUX": "false", **settings})
    assert "Traceback" not in log, log
    assert NAME not in log.replace(str(folder), ""), "a file may be called after a person"
    return Ran(code, log, len(csv_rows(folder / "csv")) if (folder / "csv").exists() else 0)


def csv_of(times: list[str], *, header: str = "timestamp,source_id,ecg", row: str = "{time},w1,{value}") -> bytes:
    lines = [row.format(time=time, value=index % 5) for index, time in enumerate(times)]
    return "\n".join([header, *lines, ""]).encode()


def seconds(form: str, count: int = 200) -> list[str]:
    """Return times, ten milliseconds apart, in a form with `s` (whole seconds since 14:30) and `f` (hundredths)."""
    return [form.format(s=index // 100, f=index % 100) for index in range(count)]


# --- all rows are read ----------------------------------------------------------------------------------------------------------

USUAL = "2025-11-03T14:30:{s:02}.{f:02}Z"

READ_WHOLE: dict[str, bytes | Path | pa.Table] = {
    "offsets of hours only": CASES / "times_offset_hours_only.csv",
    "offsets of every form": csv_of(
        seconds("2025-11-03 20:00:{s:02}.{f:02}+0530")[:50]
        + seconds("2025-11-03t11:30:{s:02},{f:02}-03")[50:100]
        + seconds("20251103T143000.{f:02}Z")[100:150]
        + seconds("2025-W45-1T14:30:{s:02}.{f:02}z")[150:],
        row='"{time}",w1,{value}',
    ),
    "epoch milliseconds": CASES / "times_epoch_ms.csv",
    "epoch seconds with fractions": csv_of(seconds("17621802{s:02}.{f:02}")),
    "epoch microseconds": csv_of(seconds("17621802{s:02}{f:02}0000")),
    "epoch nanoseconds as integers": pa.table(
        {
            "timestamp": [1_762_180_200_000_000_000 + i * 10_000_000 for i in range(200)],
            "source_id": ["w1"] * 200,
            "ecg": [i % 5 for i in range(200)],
        }
    ),
    "a leap second": CASES / "times_leap_second.csv",
    "a leap second in another zone": csv_of(
        seconds("2016-12-31T23:59:59.{f:02}Z", 100) + seconds("2017-01-01T00:59:60.{f:02}+01:00", 100)
    ),
    "semicolons and decimal commas": CASES / "semicolons_decimal_commas.csv",
    "a sep= line, tabs and decimal commas": csv_of(
        seconds(USUAL), header="sep=\t\ntimestamp\tsource_id\tecg", row="{time}\tw1\t{value},5"
    ),
    "a header in capitals": CASES / "header_in_capitals.csv",
    "a header with spaces and quotes, and a delimiter at the end of each row": csv_of(
        seconds(USUAL), header='" TimeStamp ", Source_Id ,ECG ', row="{time},w1,{value},"
    ),
    "a minus sign that is no hyphen": CASES / "unicode_minus.csv",
    "gzip with zeros behind it": CASES / "gzip_zero_padded.csv.gz",
    "line ends in quoted cells": csv_of(seconds(USUAL), row='"{time}","bed 4,\nward ""3""","{value}"'),
}


@pytest.mark.parametrize("data", READ_WHOLE.values(), ids=READ_WHOLE)
def test_a_file_without_doubt_is_read_whole(data: bytes | Path | pa.Table, tmp_path: Path) -> None:
    ran = run(tmp_path, data)

    assert ran.code == 0, ran.log
    assert (ran.read, ran.invalid, ran.remarks) == (200, 0, [])
    assert ran.rows_out == ran.sums[1] > 0


def test_two_gzip_members_are_one_file(tmp_path: Path) -> None:
    text = csv_of(seconds(USUAL))

    ran = run(tmp_path, gzip.compress(text[:3000]) + gzip.compress(text[3000:]) + bytes(512), ".csv.gz")

    assert (ran.code, ran.read, ran.invalid) == (0, 200, 0), ran.log


# --- rows are counted invalid, and said ------------------------------------------------------------------------------------------


def test_a_numeric_id_that_is_missing_is_no_source(tmp_path: Path) -> None:
    ran = run(tmp_path, CASES / "source_id_nan.parquet")

    assert (ran.code, ran.read, ran.invalid) == (0, 200, 100), ran.log
    assert ran.remarks == ["INPUT_FILE: 100 of 200 rows (50.0 %) are invalid: they have no source, such as row 1 (row group 1)"]
    assert "(invalid: 100 without a source)" in ran.log
    assert {source for _, source in csv_rows(tmp_path / "csv")} == {"7"}


def test_every_row_is_in_one_count_with_its_reason(tmp_path: Path) -> None:
    good = [f"{time},w1,{index % 5}" for index, time in enumerate(seconds(USUAL))]
    bad = ["oops,w1,1"] * 9 + [f"{time},,1" for time in seconds(USUAL, 7)] + [f"{time},w2,–1" for time in seconds(USUAL, 5)]
    worse = ["oops,,x", ",,", "9999-01-01T00:00:00Z,w1,1"]
    elsewhere = ["2025-11-03T15:00:00Z,w1,x"] * 50
    text = "\n".join(["timestamp,source_id,ecg", *bad, *worse, *good, *good[:3], *elsewhere, ""])

    ran = run(tmp_path, text.encode(), QUERY_START_TIME="2025-11-03T14:30:00Z", QUERY_END_TIME="2025-11-03T14:31:00Z")

    assert ran.code == 0, ran.log
    assert ran.read == len(bad) + len(worse) + len(good) + 3
    assert (ran.invalid, ran.sums[4]) == (len(bad) + len(worse), 3)
    assert "(invalid: 12 without a time, 7 without a source, 5 without a number; 50 more rows were not asked for)" in ran.log, (
        ran.log
    )
    assert [remark.partition(": ")[2] for remark in ran.remarks] == [
        "12 of 227 rows (5.3 %) are invalid: they have no readable time, such as line 2",
        "7 of 227 rows (3.1 %) are invalid: they have no source, such as line 11",
        "5 of 227 rows (2.2 %) are invalid: they have no number, such as line 18",
    ]
    again = run(tmp_path, text.encode(), QUERY_START_TIME="2025-11-03T14:30:00Z", QUERY_END_TIME="2025-11-03T14:31:00Z")
    assert (again.read, again.invalid) == (12, 12), "what has no time is of no window, and so of every run"
    report = (tmp_path / "state" / "report.html").read_text(encoding="utf-8")
    assert "without a time" in report


def test_rows_that_were_not_asked_for_are_neither_invalid_nor_warned_of(tmp_path: Path) -> None:
    rows = [f"{time},{source},{value}" for time in seconds(USUAL, 100) for source, value in (("w1", 1), ("w2", "x"), ("w3", ""))]
    text = "\n".join(["timestamp,source_id,ecg", *rows, "oops,w2,1", ""])

    ran = run(tmp_path, text.encode(), DEVICE_FILTER="w1")

    assert (ran.code, ran.read, ran.invalid, ran.remarks) == (0, 100, 0, []), ran.log
    assert "(201 more rows were not asked for)" in ran.log


def test_a_leap_second_that_collides_with_the_second_after_is_invalid(tmp_path: Path) -> None:
    times = [f"2016-12-31T23:59:60.{i:02}Z" for i in range(100)] + [f"2017-01-01T00:00:00.{i:02}Z" for i in range(100)]

    ran = run(tmp_path, csv_of(times))

    assert (ran.code, ran.read, ran.invalid, ran.sums[4]) == (0, 200, 100, 0), ran.log
    assert any("100 rows of a leap second (23:59:60), such as line 2, are invalid" in remark for remark in ran.remarks), ran.log


def test_times_that_cannot_be_held_cost_their_rows_in_csv_and_parquet(tmp_path: Path) -> None:
    years = ["9999-12-31T23:59:59", "0001-01-01T00:00:00"]
    texts = [time[:-1] for time in seconds(USUAL, 98)] + years
    times = pa.array(texts).cast(pa.timestamp("us"))
    table = pa.table({"timestamp": times, "source_id": ["w1"] * 100, "ecg": [i % 5 for i in range(100)]})

    for name, data in (("csv", csv_of(texts)), ("parquet", table)):
        folder = tmp_path / name
        folder.mkdir()
        ran = run(folder, data)
        assert (ran.code, ran.read, ran.invalid) == (0, 100, 2), ran.log


# --- refused, with the place ------------------------------------------------------------------------------------------------------


def damaged_page(column: str) -> Callable[[Path], bytes]:
    """Return a Parquet file with page checksums, of which a byte of one column's page was changed."""

    def write(folder: Path) -> bytes:
        count = 500
        columns = {
            "timestamp": range(1_762_180_200_000, 1_762_180_200_000 + count),
            "source_id": ["w"] * count,
            "ecg": range(count),
        }
        path = folder / "made.parquet"
        table = pa.table({name: pa.array(values) for name, values in columns.items()})
        pa_parquet.write_table(table, path, write_page_checksum=True, compression="none", use_dictionary=False)
        chunk = next(
            pa_parquet.read_metadata(path).row_group(0).column(index)
            for index in range(3)
            if pa_parquet.read_metadata(path).row_group(0).column(index).path_in_schema == column
        )
        data = bytearray(path.read_bytes())
        data[chunk.data_page_offset + chunk.total_compressed_size - 1] ^= 0x55
        return bytes(data)

    return write


REFUSED: dict[str, tuple[bytes | Path | Callable[[Path], bytes], str, str]] = {
    "a quote that is never closed": (CASES / "quote_never_closed.csv", "", 'a quote (") in line 82 opens a cell'),
    "a quote inside a cell": (csv_of(seconds(USUAL), row='{time},w"1,{value}'), ".csv", 'a quote (") in line 2 opens a cell'),
    "more behind a quote that is closed": (
        csv_of(seconds(USUAL), row='{time},"w"1,{value}'),
        ".csv",
        'a quote (") in line 2 opens',
    ),
    "a quote that is closed some rows later": (
        csv_of(seconds(USUAL)).replace(b"30:00.50Z,w1,", b'30:00.50Z,"w1,').replace(b"30:00.70Z,w1,", b'30:00.70Z,w1",'),
        ".csv",
        'a quote (") in line 52 opens a cell',
    ),
    "a quote that opens in the last row": (csv_of(seconds(USUAL))[:-2] + b'"4\n', ".csv", 'a quote (") in line 201 opens a cell'),
    "a cell too many behind rows of two lines": (
        csv_of(seconds(USUAL), row='{time},"bed\n4",{value}') + b"2025-11-03T14:30:09Z,w1,1,2\n2025-11-03T14:30:09Z,w1,1\n",
        ".csv",
        "line 402 has 4 cells, the header has 3",
    ),
    "a page checksum that is wrong": (CASES / "page_checksum_wrong.parquet", "", "does not have the checksum"),
    "a page checksum that is wrong in another column": (damaged_page("timestamp"), ".parquet", "does not have the checksum"),
    "epoch times of two units": (
        csv_of(seconds("17621802{s:02}")[:100] + seconds("17621802{s:02}{f:02}0")[:100]),
        ".csv",
        "no epoch times of one unit: seconds (such as line 2), milliseconds (such as line 102)",
    ),
    "numbers that are no epoch times": (csv_of([f"{i}.5" for i in range(200)]), ".csv", "of no unit (such as line 2)"),
    "unreadable times": (
        csv_of(seconds("3.11.2025 14:30:{s:02}.{f:02}")),
        ".csv",
        "200 of the 200 cells of column timestamp that hold something are no time (such as line 2); read are ISO 8601",
    ),
    "half of the values unreadable": (
        csv_of(seconds(USUAL), row="{time},w1,{value}")
        .replace(b",0\n", b",\n")
        .replace(b",1\n", b",x\n")
        .replace(b",2\n", b",?\n"),
        ".csv",
        "80 of the 160 cells of column ecg that hold something are no value (such as line 3)",
    ),
    "commas that may stand between thousands": (
        csv_of(seconds(USUAL), header="timestamp;source_id;ecg", row="{time};w1;1,23{value}"),
        ".csv",
        "numbers with a comma (such as line 2), and all of them could be commas between thousands",
    ),
    "decimal commas beside decimal points": (
        csv_of(seconds(USUAL), header="timestamp;source_id;ecg", row="{time};w1;{value}.5").replace(b";3.5", b";3,5"),
        ".csv",
        "numbers with a comma (such as line 5), and others have a decimal point",
    ),
    "a row with a cell too many": (
        csv_of(seconds(USUAL)) + b"2025-11-03T14:30:09Z,w1,1,2\n",
        ".csv",
        "line 202 has 4 cells, the header has 3",
    ),
    "another encoding": (
        csv_of(seconds(USUAL)) + "2025-11-03T14:30:09Z,ä,1\n".encode("cp1252"),
        ".csv",
        "line 202 is not UTF-8 text",
    ),
    "gzip that is cut off": (gzip.compress(csv_of(seconds(USUAL)))[:-9], ".csv.gz", "is cut off"),
    "gzip with something else behind it": (
        gzip.compress(csv_of(seconds(USUAL))) + b"more",
        ".csv.gz",
        "holds something else behind its gzip data",
    ),
    "no header": (b"2025-11-03T14:30:00Z,w1,1\n" * 9, ".csv", "is its first line a header?"),
}


@pytest.mark.parametrize(("data", "suffix", "sentence"), REFUSED.values(), ids=REFUSED)
def test_a_file_in_doubt_is_refused_with_the_place(
    data: bytes | Path | Callable[[Path], bytes], suffix: str, sentence: str, tmp_path: Path
) -> None:
    ran = run(tmp_path, data(tmp_path) if callable(data) else data, suffix)

    assert (ran.code, sentence in ran.log, ran.rows_out) == (78, True, 0), ran.log


# --- size ------------------------------------------------------------------------------------------------------------------------


def test_a_million_unreadable_rows_are_refused_within_seconds(tmp_path: Path) -> None:
    text = b"timestamp,source_id,ecg\n" + b"3.11.2025 14:30,w1,1\n" * 1_000_000

    ran = run(tmp_path, text)

    assert (ran.code, "1000000 of the 1000000 cells" in ran.log) == (78, True), ran.log


def test_a_gzip_file_made_to_fill_memory_is_refused(tmp_path: Path) -> None:
    # Half a gigabyte of line ends in half a megabyte, and of zeros without a line.
    for kind, made in (("ends", b"\n"), ("zeros", b"\0")):
        folder = tmp_path / kind
        folder.mkdir()
        member = gzip.compress(made * (1 << 26), 6)
        ran = run(folder, gzip.compress(b"timestamp,source_id,ecg\n") + member * 8, ".csv.gz")
        assert ran.code == 78, ran.log
        assert ("unpacks to more than 100 times its size" if kind == "ends" else "holds zero bytes") in ran.log, ran.log
