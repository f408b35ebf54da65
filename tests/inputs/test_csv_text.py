"""CSV text whose rows and header do not fit together, or seem to: refused, without a cell in the message, or read exactly."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pa_parquet
import pytest

from anonymizer.errors import SourceRefused
from anonymizer.windows import NANOSECONDS
from inputs import csv_text
from inputs.file_columns import COLUMNS
from inputs.file_source import FileSource
from tests.inputs.test_file_source import TIME, TIME_NS, csv_file, opened, parquet_file, rows_of

READ = [(TIME_NS, "7", 1.0)]


def refusal(path: Path) -> str:
    with pytest.raises(SourceRefused) as refused:
        FileSource(path).open()
    return str(refused.value)


# --- cells too many, cells too few ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (f"timestamp,source_id,ecg,quality\n{TIME},4711,1\n", "line 2 has 3 cells, the header has 4"),
        (f"timestamp,source_id,ecg,quality,\n{TIME},4711,1,\n", "line 2 has 4 cells, the header has 5"),
        (f"timestamp,source_id,ecg,\n{TIME},7,1\n{TIME},7,1,,\n", "line 3 has 5 cells, the header has 4"),
        (f"timestamp,source_id,ecg\n1,{TIME},7,4711\n", "line 2 has 4 cells, the header has 3"),
        (
            f"arrived,timestamp,source_id,ecg,note\n1,{TIME},{TIME},7,4711,\n",
            "its rows have 6 cells, the header has 5: either the",
        ),
    ],
    ids=[
        "a cell missing",
        "a cell missing before a last delimiter",
        "cells too many",
        "row numbers",
        "row numbers, no last cell",
    ],
)
def test_a_row_that_does_not_fit_the_header_is_never_read_by_guess(text: str, sentence: str, tmp_path: Path) -> None:
    said = refusal(csv_file(tmp_path, text))

    assert sentence in said
    assert "4711" not in said


@pytest.mark.parametrize(
    "text",
    [
        f"timestamp,source_id,ecg\n{TIME},7,1,\n",
        f"timestamp,source_id,ecg,\n{TIME},7,1\n",
        f"timestamp,source_id,ecg,note\n{TIME},7,1,,\n",
        f",timestamp,source_id,ecg\n0,{TIME},7,1\n",
    ],
    ids=["rows end with a delimiter", "the header ends with one", "an empty cell before it", "an index without a name"],
)
def test_a_delimiter_at_the_end_of_the_header_or_of_each_row_is_no_column(text: str, tmp_path: Path) -> None:
    assert rows_of(opened(csv_file(tmp_path, text))) == READ


@pytest.mark.parametrize("end", [",y", ",", ',"two\nlines"'])
def test_a_first_row_of_any_length_tells_the_width(end: str, tmp_path: Path) -> None:
    header = "timestamp,source_id,ecg,note" + ("" if end == "," else ",more")
    rows = f"{TIME},7,1,{'x' * 140_000}{end}\n" * 2

    assert rows_of(opened(csv_file(tmp_path, f"{header}\n\n{rows}"))) == READ * 2


# --- what a message may show ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("timestamp,jane,bob\n1,2,3\n", "source_id missing, ecg missing among its 3 columns"),
        ("ecg,source_id=jane ecg=-163 17621\n", "timestamp missing, source_id missing among its 2 columns"),
        (f"{TIME},jane,ecg,-163\n", "timestamp missing, source_id missing among its 4 columns"),
        ("timestamp,source_id,ecg,ecg,ecg,jane\n", "ecg 3 times among its 6 columns"),
        ('"timestamp\n",source_id,ecg,jane\n', "is not closed in that line; write the names of all columns in one line"),
        *((f"timestamp,source_id,ecg{end}{TIME},jane,1{end}" * 9, "among its") for end in ("\x85", "\u2028", "\v", "\\n")),
        ('{"ecg": ["jane", ' + "1," * 200_000 + "]}\n", "is its first line a header?"),
        ('<p title="' + "jane" * 100_000 + '">\n', "is its first line a header?"),
    ],
)
def test_no_cell_of_the_first_line_is_shown(text: str, sentence: str, tmp_path: Path) -> None:
    said = refusal(csv_file(tmp_path, text))

    assert sentence in said
    assert "jane" not in said
    assert len(said) < 300


@pytest.mark.parametrize("column", ["timestamp", "source_id", "ecg"])
@pytest.mark.parametrize("kind", [pa.struct([("jane", pa.int8())]), pa.list_(pa.struct([("jane", pa.int8())]))], ids=str)
def test_no_column_and_no_field_of_a_parquet_file_is_shown(column: str, kind: pa.DataType, tmp_path: Path) -> None:
    nested = refusal(parquet_file(tmp_path, **{column: pa.array([None], kind)}))
    pa_parquet.write_table(pa.table({"timestamp": [1], "jane": [1]}), tmp_path / "wide.parquet")
    wide = refusal(tmp_path / "wide.parquet")

    assert nested.endswith(f"got {str(kind).partition('<')[0]}")
    assert wide.endswith("source_id missing, ecg missing among its 2 columns")
    assert "jane" not in nested + wide


# --- quotes that close in a later row -----------------------------------------------------------------------------------------------

ORDERS = [("timestamp", "source_id", "ecg"), ("source_id", "ecg", "timestamp"), ("note", "ecg", "timestamp", "source_id")]
FORMS = {
    "calendar": "2025-11-03T14:30:0{}Z",
    "week": "2025-W45-1T14:30:0{}Z",
    "day of year": "2025-307T14:30:0{}Z",
    "basic": "20251103T14300{}Z",
    "signed epoch": "+176218020{}.00",
    "epoch with blanks": " 176218020{}",
}


def rows_in(order: tuple[str, ...], form: str) -> list[list[str]]:
    return [
        [{"timestamp": form.format(second), "source_id": f"w{second}", "ecg": "1", "note": "x"}[name] for name in order]
        for second in range(5)
    ]


@pytest.mark.parametrize("order", ORDERS, ids=",".join)
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_a_quote_that_closes_in_a_later_row_swallows_no_row(order: tuple[str, ...], form: str, tmp_path: Path) -> None:
    for opens_in, closes_in in ((0, 1), (1, 2), (1, 4)):
        for opening, closing in itertools.product(range(len(order)), repeat=2):
            rows = rows_in(order, form)
            rows[opens_in][opening] = '"' + rows[opens_in][opening]
            rows[closes_in][closing] += '"'
            text = "\n".join(",".join(row) for row in [list(order), *rows])

            said = refusal(csv_file(tmp_path, text))

            # Closed in another column, the row is one of more or fewer cells as well.
            assert re.search(rf"line {opens_in + 2} (opens a cell|has \d+ cells)", said), (opening, closing)


@pytest.mark.parametrize("bad", ["oops,w1,1", f"{TIME},w1,x", f"{TIME},w1,", ",w1,1"])
def test_a_row_with_a_bad_cell_is_swallowed_as_little(bad: str, tmp_path: Path) -> None:
    text = f'timestamp,source_id,ecg\n{TIME},"w1,1\n{bad}\n{TIME},w1",1\n'

    assert "line 2 opens a cell" in refusal(csv_file(tmp_path, text))


@pytest.mark.parametrize("order", ORDERS, ids=",".join)
@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"], ids=repr)
@pytest.mark.parametrize("text", ["two\nlines", "a, b\nc, d, e", "\n", "moved, then, sat, up\nlater", 'say "1, two"\n\nor,3'])
def test_text_of_several_lines_is_read_in_any_column(order: tuple[str, ...], line_end: str, text: str, tmp_path: Path) -> None:
    column = "note" if "note" in order else "source_id"
    cell = text.replace("\n", line_end)
    quoted = '"' + cell.replace('"', '""') + '"'
    lines = [",".join(order)]
    for row in rows_in(order, FORMS["week"]):
        row[order.index(column)] = quoted
        lines.append(",".join(row))

    found = rows_of(opened(csv_file(tmp_path, line_end.join(lines))))

    source_ids = [f"w{second}" if column == "note" else cell if cell.strip() else None for second in range(5)]
    assert found == [(TIME_NS + second * NANOSECONDS, source_id, 1.0) for second, source_id in enumerate(source_ids)]


# --- cells --------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("word", ["-nan", "+nan", "nan(ind)", "-nan(ind)", "NaN(0x8)", "-1.#IND", "1.#QNAN00", "1.#INF"])
@pytest.mark.parametrize("beside", ["1", "0,5"], ids=["read by Arrow", "read by form"])
def test_what_c_prints_where_there_is_no_number_is_missing(word: str, beside: str, tmp_path: Path) -> None:
    path = csv_file(tmp_path, f"timestamp;source_id;ecg\n{TIME};a;{beside}\n" + f"{TIME};a;{word}\n" * 3)

    assert len(rows_of(opened(path))) == 4, "three of four unreadable cells would be refused"


@pytest.mark.parametrize("first", [0, 1500], ids=["together", "in different parts"])
@pytest.mark.parametrize(
    ("delimiter", "usual", "other"),
    [(";", "12,5", "1.000"), (";", "12", "1.234"), ("\t", "-7", "-12.345"), (";", "1.000", "0,5"), (",", '"12,5"', "1.000")],
)
def test_a_mark_that_may_stand_between_thousands_is_refused(
    delimiter: str, usual: str, other: str, first: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(csv_text, "BLOCK_BYTES", 10_000)
    rows = [usual] * (first + 2) + [other] + [usual] * first
    text = "".join(f"{delimiter.join(row)}\n" for row in [COLUMNS, *((TIME, "a", value) for value in rows)])

    assert re.search(r"numbers with a (comma|point) \(such as line \d+\), and", refusal(csv_file(tmp_path, text)))


@pytest.mark.parametrize(
    ("delimiter", "values"),
    [
        (",", ["1.000", "12.345"]),
        (",", ["1.000", "12"]),
        (";", ["1.000", "12.345"]),
        (";", ["1.000", "12", "0.125"]),
        (";", ["1.000", "12", "0.5"]),
        (";", ["1.000", "12", "1234.000"]),
    ],
)
def test_three_decimals_behind_a_point_are_read(delimiter: str, values: list[str], tmp_path: Path) -> None:
    rows = [delimiter.join((TIME, "a", value)) for value in values * 600]

    found = rows_of(opened(csv_file(tmp_path, "\n".join([delimiter.join(COLUMNS), *rows]))))

    assert [value for _, _, value in found] == [float(value) for value in values * 600]


@pytest.mark.parametrize("part_bytes", [60, 1 << 20], ids=["in different parts", "together"])
@pytest.mark.parametrize("zoned", ["2025-11-03T15:30:00+01:00", "20251103T1430Z", "2025-W45-1T14:30 UTC"])
def test_times_with_a_zone_beside_times_without_one_are_warned_of(
    zoned: str, part_bytes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(csv_text, "BLOCK_BYTES", part_bytes)
    rows = [f"{time},a,1\n" for time in (zoned, zoned, zoned, "2025-11-03T14:30:01")]

    source = opened(csv_file(tmp_path, "timestamp,source_id,ecg\n" + "".join(rows)))

    (remark,) = source.remarks
    assert "1 of the 4 times name no zone and are taken as UTC, the others name one, such as line 5" in remark
    for one in (rows[:3], rows[3:]):
        assert opened(csv_file(tmp_path, "timestamp,source_id,ecg\n" + "".join(one))).remarks == ()


@pytest.mark.parametrize("blank", [" ", "   ", "\t", "\N{NO-BREAK SPACE}"])
def test_blanks_name_no_source(blank: str, tmp_path: Path) -> None:
    text = f"timestamp,source_id,ecg\n{TIME},{blank},1\n{TIME},b,2\n"

    assert rows_of(opened(csv_file(tmp_path, text))) == [(TIME_NS, None, 1.0), (TIME_NS, "b", 2.0)]


def test_delimiters_in_cells_of_one_line_make_no_row(tmp_path: Path) -> None:
    row = '"20251103T143000,0Z","two\nlines","0,5"\n'

    assert rows_of(opened(csv_file(tmp_path, f"timestamp,source_id,ecg\n{row * 3}"))) == [(TIME_NS, "two\nlines", 0.5)] * 3
