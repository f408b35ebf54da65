"""Files as people really have them: read whole and exactly, or refused with a sentence that shows no sample."""

from __future__ import annotations

import csv
import decimal
import gc
import gzip
import math
import os
import weakref
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pa_parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anonymizer.errors import SourceDenied, SourceError, SourceRefused, SourceUnavailable
from anonymizer.samples import Samples, SampleSource, rows_by_source
from anonymizer.windows import NANOSECONDS, WindowRange
from inputs import csv_text, parquet_rows
from inputs import file_source as files
from inputs.file_source import FileSource
from inputs.input_file import InputFile
from service.pipeline.contradictions import refuse_contradictory

HEADER = "timestamp,source_id,ecg\n"

TIME = "2025-11-03T14:30:00Z"
TIME_NS = 1_762_180_200 * NANOSECONDS

Row = tuple[int, str, float]


def opened(path: Path, **options: Any) -> FileSource:
    source = FileSource(path, **options)
    source.open()
    return source


def samples_of(source: FileSource, length_ns: int = 3600 * NANOSECONDS) -> Samples:
    """Return everything the file holds."""
    extent = source.extent()
    assert extent is not None
    start_ns, end_ns = extent
    return source.read(WindowRange(start_ns // length_ns * length_ns, -(-end_ns // length_ns) * length_ns, length_ns))


def rows_of(source: FileSource) -> list[tuple[int, str | None, float]]:
    if source.extent() is None:
        return []
    samples = samples_of(source)
    ids = [*samples.source_ids, None]
    columns = samples.times_ns.tolist(), samples.source_codes.tolist(), samples.values_uv.tolist()
    return [(time_ns, ids[code], value) for time_ns, code, value in zip(*columns, strict=True)]


def without_time(source: FileSource) -> int:
    return source.rows_beside(0, 2**62).without_time


def csv_file(folder: Path, text: str, name: str = "ecg.csv", encoding: str = "utf-8") -> Path:
    path = folder / name
    data = text.encode(encoding)
    path.write_bytes(gzip.compress(data) if name.lower().endswith(".gz") else data)
    return path


def parquet_file(folder: Path, **columns: Any) -> Path:
    usual = {"timestamp": pa.array([TIME_NS], pa.timestamp("ns")), "source_id": ["a"], "ecg": [1.0]}
    path = folder / "ecg.parquet"
    pa_parquet.write_table(pa.table({**usual, **columns}), path)
    return path


# --- forms of a file ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["ecg.csv", "ecg.txt", "ecg.csv.gz", "ECG.CSV.GZ"])
def test_rows_are_read_in_order_of_time_whatever_their_order_in_the_file(name: str, tmp_path: Path) -> None:
    rows = [f"2025-11-03T14:30:0{second}Z,{source_id},{second}.5\n" for second in (3, 0, 2, 1) for source_id in "ba"]

    source = opened(csv_file(tmp_path, HEADER + "".join(rows), name))

    assert rows_of(source) == [
        (TIME_NS + second * NANOSECONDS, source_id, second + 0.5) for second in range(4) for source_id in "ba"
    ]


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        (HEADER + f"{TIME},a,1\n", "utf-8"),
        (HEADER + f"{TIME},a,1", "utf-8"),
        (HEADER + f"{TIME},a,1\n", "utf-8-sig"),
        ((HEADER + f"{TIME},a,1\n").replace("\n", "\r\n"), "utf-8"),
        ((HEADER + f"{TIME},a,1\n").replace("\n", "\r"), "utf-8"),
        (HEADER + f"\n{TIME},a,1\n\n\n", "utf-8"),
        (f'"timestamp","source_id","ecg"\n"{TIME}","a","1"\n', "utf-8"),
        (f"ecg,lead,timestamp,source_id\n1,I,{TIME},a\n", "utf-8"),
    ],
    ids=["plain", "no last line end", "BOM", "CRLF", "CR", "empty lines", "all quoted", "other columns, other order"],
)
def test_a_csv_file_may_be_written_in_many_ways(text: str, encoding: str, tmp_path: Path) -> None:
    assert rows_of(opened(csv_file(tmp_path, text, encoding=encoding))) == [(TIME_NS, "a", 1.0)]


NAMES = ["bed 4, ward 3", 'say "hello"', "two\nlines", "two\r\nlines", "心電図", " spaces ", "#1", "'", "NULL", "nan"]


@pytest.mark.parametrize("text", NAMES)
def test_a_source_may_be_called_anything(text: str, tmp_path: Path) -> None:
    quoted = text.replace('"', '""')

    assert rows_of(opened(csv_file(tmp_path, f'{HEADER}{TIME},"{quoted}",1\n'))) == [(TIME_NS, text, 1.0)]


CELLS: dict[tuple[str, str], float] = dict.fromkeys(((TIME, one) for one in ("1", "+1", "1.", "1.0", " 1 ", "1e0", "1E+0")), 0)
CELLS |= dict.fromkeys(((TIME, one) for one in ("0.1e1", "10e-1", '"1"')), 0)
CELLS |= dict.fromkeys(
    ((f"2025-11-03{one}", "1") for one in ("T14:30:00Z", "T14:30:00", " 14:30:00", "T14:30", " 14:30:00+00:00")), 0
)
CELLS |= dict.fromkeys(
    ((f"2025-11-03T{one}", "1") for one in ("14:30:00-00:00", "15:30:00+01:00", "15:30:00+0100", "09:00:00-05:30")), 0
)
CELLS |= {("2025-11-03T14:30:00.5Z", "1"): 0.5, ("2025-11-03T14:30:00.000000001Z", "1"): 1e-9}
CELLS |= {("2025-11-03 14:30:00.123456", "1"): 0.123456}


@pytest.mark.parametrize(("cells", "seconds"), CELLS.items())
def test_times_and_values_may_be_written_in_many_ways_and_a_time_is_utc_without_a_zone(
    cells: tuple[str, str], seconds: float, tmp_path: Path
) -> None:
    time, value = cells

    assert rows_of(opened(csv_file(tmp_path, f"{HEADER}{time},a,{value}\n"))) == [
        (TIME_NS + round(seconds * NANOSECONDS), "a", 1.0)
    ]


def test_line_ends_inside_cells_of_a_large_file_end_no_row(tmp_path: Path) -> None:
    # Larger than what is parsed at once, so that parts begin wherever a line seems to end.
    name = "two\nlines, or\nthree,1,2025" * 4
    path = csv_file(tmp_path, HEADER + "".join(f'{TIME},"{name}",{i}\n' for i in range(10_000)))

    assert rows_of(opened(path)) == [(TIME_NS, name, float(i)) for i in range(10_000)]


DECIMALS = [pa.array([1.25]), pa.array([1.25], pa.float32()), pa.array([decimal.Decimal("1.25")]), pa.array(["1.25"])]
DECIMALS += [pa.array(["1.25"], pa.large_string()), pa.array(["1.25"]).dictionary_encode()]
INTEGERS = [pa.array([7], kind) for kind in (pa.int8(), pa.uint8(), pa.int64(), pa.uint64())]
TIMES = [pa.array([TIME_NS], pa.timestamp("ns")), pa.array([TIME_NS // 1000], pa.timestamp("us", "UTC"))]
TIMES += [pa.array([TIME_NS // NANOSECONDS], pa.timestamp("s", "Asia/Kathmandu")), pa.array([TIME]).dictionary_encode()]
TIMES += [pa.array([TIME], kind) for kind in (pa.string(), pa.large_string(), pa.string_view())]
IDS = [pa.array(["a"]), pa.array(["a"], pa.large_string()), pa.array(["a"]).dictionary_encode()]

PARQUET = [({"ecg": one}, (TIME_NS, "a", 1.25)) for one in DECIMALS] + [({"ecg": one}, (TIME_NS, "a", 7.0)) for one in INTEGERS]
PARQUET += [({"timestamp": one}, (TIME_NS, "a", 1.0)) for one in TIMES] + [
    ({"source_id": one}, (TIME_NS, "a", 1.0)) for one in IDS
]


@pytest.mark.parametrize(("columns", "row"), [*PARQUET, ({"source_id": pa.array([7])}, (TIME_NS, "7", 1.0))])
def test_parquet_columns_may_be_of_any_type_of_number_time_or_text(
    columns: dict[str, pa.Array], row: Row, tmp_path: Path
) -> None:
    assert rows_of(opened(parquet_file(tmp_path, **columns))) == [row]


def test_millivolts_become_microvolts(tmp_path: Path) -> None:
    path = csv_file(tmp_path, f"{HEADER}{TIME},a,-0.145\n")

    assert rows_of(opened(path, microvolts_per_unit=1000.0)) == [(TIME_NS, "a", -145.0)]


TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=6)

ROWS: st.SearchStrategy[list[Row]] = st.lists(
    st.tuples(
        st.integers(TIME_NS, TIME_NS + 10 * NANOSECONDS),
        st.sampled_from(["a", "b", "", 'q"u', "c,d", "\r\n"]) | TEXTS,
        st.floats(allow_nan=False, allow_infinity=False) | st.integers(-2500, 2500).map(float),
    ),
    max_size=20,
)


@given(ROWS)
def test_the_same_samples_in_csv_and_parquet_are_the_same_samples(
    tmp_path_factory: pytest.TempPathFactory, rows: list[Row]
) -> None:
    folder = tmp_path_factory.mktemp("same")
    from_csv, from_parquet = (opened(write(folder, rows)) for write in (_write_csv, _write_parquet))

    assert from_csv.extent() == from_parquet.extent()
    if rows:
        first, second = samples_of(from_csv), samples_of(from_parquet)
        assert first.source_ids == second.source_ids == tuple(sorted({row[1] for row in rows if row[1].strip()}))
        for name in ("times_ns", "source_codes", "values_uv"):
            np.testing.assert_array_equal(getattr(first, name), getattr(second, name))
        in_order = sorted(rows, key=lambda row: row[0])  # rows of one time stay in the order of the file
        assert [(time_ns, source_id or "", value) for time_ns, source_id, value in rows_of(from_csv)] == [
            (time_ns, source_id if source_id.strip() else "", value) for time_ns, source_id, value in in_order
        ]


def _write_csv(folder: Path, rows: Sequence[Row]) -> Path:
    path = folder / "ecg.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["timestamp", "source_id", "ecg"])
        for time_ns, source_id, value in rows:
            second, fraction_ns = divmod(time_ns, NANOSECONDS)
            writer.writerow([f"{np.datetime64(second, 's')}.{fraction_ns:09}Z", source_id, repr(value)])
    return path


def _write_parquet(folder: Path, rows: Sequence[Row]) -> Path:
    columns = {
        "timestamp": pa.array([row[0] for row in rows], pa.timestamp("ns")),
        "source_id": pa.array([row[1] for row in rows], pa.string()),
        "ecg": pa.array([row[2] for row in rows], pa.float64()),
    }
    pa_parquet.write_table(pa.table(columns), folder / "ecg.parquet")
    return folder / "ecg.parquet"


# --- which rows -----------------------------------------------------------------------------------------------------------------


def test_only_the_sources_asked_for_are_read(tmp_path: Path) -> None:
    rows = "".join(f"{TIME},{source_id},1\n" for source_id in ("a", "b", "", "c d"))

    source = opened(csv_file(tmp_path, HEADER + rows), sources=("a", "c d", "nobody"))

    assert rows_of(source) == [(TIME_NS, "a", 1.0), (TIME_NS, "c d", 1.0)]


def test_windows_are_counted_and_read_from_start_to_end(tmp_path: Path) -> None:
    seconds = (0, 4.999999999, 5, 9.5, 10)
    rows = "".join(f"2025-11-03T14:30:{second:012.9f}Z,{'a' if second else ''},1\n" for second in seconds)
    source = opened(csv_file(tmp_path, HEADER + rows))
    windows = WindowRange(TIME_NS - 5 * NANOSECONDS, TIME_NS + 10 * NANOSECONDS, 5 * NANOSECONDS)

    assert source.count(windows).tolist() == [0, 2, 2]
    assert source.count_by_source(windows) == [Counter(), Counter(["", "a"]), Counter("aa")]
    assert rows_by_source(source.read(windows), windows.part(1, 2)) == [Counter(["", "a"])], "of these windows only"
    assert [len(source.read(windows.part(i, i + 1))) for i in range(3)] == [0, 2, 2]
    assert source.extent() == (TIME_NS, TIME_NS + 10 * NANOSECONDS + 1)


@pytest.mark.parametrize("value", ["", "x", "nan", "inf", "-inf", "0x10", "1_000", "1 000", "--1", "1e", "٣", "true"])
def test_a_cell_that_is_no_number_makes_its_row_invalid_and_no_other(value: str, tmp_path: Path) -> None:
    (bad, *good) = rows_of(opened(csv_file(tmp_path, f"{HEADER}{TIME},a,{value}\n{TIME},b,2\n{TIME},c,3\n")))

    assert math.isnan(bad[2])
    assert good == [(TIME_NS, "b", 2.0), (TIME_NS, "c", 3.0)]


@pytest.mark.parametrize("value", ["1e400", "-1e400"])
def test_a_number_beyond_all_numbers_is_not_finite(value: str, tmp_path: Path) -> None:
    (bad, good) = rows_of(opened(csv_file(tmp_path, f"{HEADER}{TIME},a,{value}\n{TIME},b,2\n")))

    assert not math.isfinite(bad[2])
    assert good[2] == 2.0


def test_a_row_that_names_no_source_has_none(tmp_path: Path) -> None:
    assert rows_of(opened(csv_file(tmp_path, f"{HEADER}{TIME},,1\n{TIME},b,2\n"))) == [(TIME_NS, None, 1.0), (TIME_NS, "b", 2.0)]


@pytest.mark.parametrize(
    "text",
    ["", "x", "yesterday", "2025-13-01T00:00:00Z", "2025-02-30T00:00:00Z", "1762180200", "9999-01-01T00:00:00Z", "24:00", "NaT"],
)
def test_a_cell_that_is_no_time_puts_its_row_outside_every_window_and_is_counted(text: str, tmp_path: Path) -> None:
    good = "".join(f"{TIME},{source_id},2\n" for source_id in "bcd")

    source = opened(csv_file(tmp_path, f"{HEADER}{text},a,1\n{good}{text},c,3\n"))

    assert rows_of(source) == [(TIME_NS, source_id, 2.0) for source_id in "bcd"]
    assert without_time(source) == 2


def test_nulls_in_parquet_are_what_empty_cells_are_in_csv(tmp_path: Path) -> None:
    times = pa.array([TIME_NS, TIME_NS, None], pa.timestamp("ns"))

    source = opened(parquet_file(tmp_path, timestamp=times, source_id=[None, "b", "c"], ecg=[1.0, None, 3.0]))

    (no_source, no_value) = rows_of(source)
    assert no_source == (TIME_NS, None, 1.0)
    assert math.isnan(no_value[2])
    assert without_time(source) == 1


def test_integers_beyond_the_exact_ones_do_not_spoil_a_file(tmp_path: Path) -> None:
    source = opened(parquet_file(tmp_path, ecg=pa.array([2**64 - 1], pa.uint64())))

    assert rows_of(source) == [(TIME_NS, "a", 2.0**64)]


def test_a_file_without_rows_is_read_and_advised_upon(tmp_path: Path) -> None:
    empty = opened(csv_file(tmp_path, HEADER))
    assert empty.extent() is None
    assert empty.count(WindowRange(0, 5, 5)).tolist() == [0]
    assert "has a header and no rows" in empty.advice_when_empty()
    filtered = opened(csv_file(tmp_path, f"{HEADER}{TIME},a,1\n"), sources=("b",))
    assert "has no rows of these sources; check DEVICE_FILTER" in filtered.advice_when_empty()

    full = opened(csv_file(tmp_path, f"{HEADER}{TIME},a,1\n"))
    assert "none at these times; check QUERY_START_TIME" in full.advice_when_empty()


def test_a_parquet_file_without_rows_is_read(tmp_path: Path) -> None:
    source = opened(_write_parquet(tmp_path, []))

    assert source.extent() is None


# --- refusals -------------------------------------------------------------------------------------------------------------------


def refusal(path: Path, kind: type[SourceError] = SourceRefused) -> str:
    with pytest.raises(SourceError) as refused:
        opened(path)

    assert type(refused.value) is kind
    # A recording may be called after a person.
    assert "INPUT_FILE" in str(refused.value)
    assert str(path) not in str(refused.value)
    assert path.name not in str(refused.value)
    return str(refused.value)


ROW = f"{TIME},patient-7,4711.5"

REFUSED = [
    ("timestamp,ecg\n1,1\n", "utf-8", "source_id missing among its 2 columns"),
    ("timestamp,source_id,ecg,ecg\n1,1,1,1\n", "utf-8", "ecg twice among its 4 columns"),
    ("timestamp,source_id,ecg,ECG\n1,1,1,1\n", "utf-8", "ecg twice among its 4 columns"),
    ("timestamp;source_id;value\n1\n", "utf-8", "ecg missing among its 3 columns"),
    ("timestamp,source_id;ecg\n1,1\n", "utf-8", "source_id missing, ecg missing among its 2 columns"),
    ("time;source;value\n1\n", "utf-8", "is its first line a header?"),
    (f"{ROW}\n{TIME},patient-8,1\n", "utf-8", "is its first line a header?"),
    ("", "utf-8", "INPUT_FILE is empty"),
    ("\n\n", "utf-8", "INPUT_FILE is empty"),
    (f"{HEADER}{ROW}\n{TIME},patient-7\n", "utf-8", "line 3 has 2 cells, the header has 3"),
    (f"{HEADER}{ROW}\n{ROW},more\n", "utf-8", "line 3 has 4 cells, the header has 3"),
    (f'{HEADER}{TIME},"patient-7,4711.5\n', "utf-8", "in line 2 opens a cell that is not closed"),
    (f"{HEADER}{TIME},pätient,1\n", "latin-1", "line 2 is not UTF-8 text"),
    ("zeit,größe\n1,2\n", "latin-1", "line 1 is not UTF-8 text"),
    (f"{HEADER}{TIME},a,1\n", "utf-16", "is UTF-16 text; convert it to UTF-8"),
    (f"{HEADER}{TIME},a,1\n", "utf-16-le", "line 1 holds zero bytes: it is UTF-16 text"),
]


@pytest.mark.parametrize(("text", "encoding", "message"), REFUSED, ids=range(len(REFUSED)))
def test_a_file_of_another_form_columns_or_encoding_is_refused_without_showing_samples(
    text: str, encoding: str, message: str, tmp_path: Path
) -> None:
    said = refusal(csv_file(tmp_path, text, encoding=encoding))

    assert message in said
    assert "patient" not in said
    assert "4711" not in said


def test_a_binary_file_under_a_name_of_csv_is_called_what_it_is_and_parquet_is_read_under_any_name(tmp_path: Path) -> None:
    parquet = parquet_file(tmp_path).read_bytes()
    for name in ("ecg", "ecg.csv", "ecg.2025-11"):
        (tmp_path / name).write_bytes(parquet)
        assert rows_of(opened(tmp_path / name)) == rows_of(opened(tmp_path / "ecg.parquet"))
    for data, said in (
        (gzip.compress(parquet), "holds Parquet instead of CSV text: unpack it if it is gzip-compressed"),
        (gzip.compress(b"0       MRN-5551234"), "holds EDF instead of CSV text"),
        (b"\xffBIOSEMI MRN-5551234", "holds BDF instead of CSV text"),
        (bytes(128) + b"DICM\2\0", "holds DICOM instead of CSV text"),
    ):
        (tmp_path / "ecg.csv.gz").write_bytes(data)
        assert said in refusal(tmp_path / "ecg.csv.gz")


def test_a_gzip_file_that_is_cut_is_refused_at_once(tmp_path: Path) -> None:
    whole = csv_file(tmp_path, HEADER + f"{TIME},a,1\n" * 1000, "ecg.csv.gz").read_bytes()
    path = tmp_path / "bad.csv.gz"
    for data in (whole[:-20], whole[: len(whole) // 2]):
        path.write_bytes(data)

        assert "is cut off: its gzip data has no end" in refusal(path)
    for data in (whole + b"more", whole[:-8] + bytes(8), whole[:40] + b"\xff" * 20 + whole[60:]):
        path.write_bytes(data)

        assert "is damaged, or holds something else behind its gzip data" in refusal(path)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"ecg": pa.array([True])}, "column ecg must hold numbers, got bool"),
        ({"timestamp": pa.array([True])}, "column timestamp must hold times, got bool"),
        ({"source_id": pa.array([["a"]])}, "column source_id must hold text or numbers, got list"),
        ({"ecg": pa.array([{"element": 1.0}])}, "column ecg must hold numbers, got struct"),
        ({"source_id": pa.array([b"\xff"])}, "a text in it is not UTF-8"),
        ({"source_id": pa.array([bytes(16)], pa.uuid())}, "column source_id must hold text or numbers, got arrow.uuid"),
        ({"ecg": pa.array(["1"], pa.json_())}, "column ecg must hold numbers, got arrow.json"),
        ({"timestamp": pa.array([1], pa.bool8())}, "column timestamp must hold times, got arrow.bool8"),
    ],
    ids=["booleans", "booleans for times", "lists", "structs", "bytes", "UUIDs", "JSON", "bytes of booleans"],
)
def test_parquet_columns_of_the_wrong_type_are_refused(columns: dict[str, pa.Array], message: str, tmp_path: Path) -> None:
    assert message in refusal(parquet_file(tmp_path, **columns))


def test_parquet_text_that_is_not_utf_8_names_no_source_and_as_a_column_is_refused(tmp_path: Path) -> None:
    data = pa.array([b"J\xfcrgen", b"b"], pa.binary())
    unchecked = pa.StringArray.from_buffers(len(data), data.buffers()[1], data.buffers()[2])
    times = pa.array([TIME_NS] * 2, pa.timestamp("ns"))

    path = parquet_file(tmp_path, timestamp=times, source_id=unchecked, ecg=[1.0, 2.0])
    assert rows_of(opened(path)) == [(TIME_NS, None, 1.0), (TIME_NS, "b", 2.0)]

    pa_parquet.write_table(pa.table({"lead_XX": [1]}), path, store_schema=False)
    path.write_bytes(path.read_bytes().replace(b"lead_XX", b"lead_\xff\xfe"))
    assert "a text in it is not UTF-8" in refusal(path)


def test_a_file_that_is_no_parquet_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ecg.parquet"
    for data in (b"", b"PAR1", HEADER.encode(), parquet_file(tmp_path).read_bytes()[:-10]):
        path.write_bytes(data)

        assert "is not a readable Parquet file" in refusal(path)


def test_a_file_that_is_not_there_is_denied_at_once(tmp_path: Path) -> None:
    assert "cannot be read (No such file or directory)" in refusal(tmp_path / "nowhere.csv", SourceDenied)
    assert "cannot be read (Is a directory)" in refusal(tmp_path, SourceDenied)


def test_a_disk_that_cannot_be_read_now_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = csv_file(tmp_path, HEADER)

    def fail(*_: object, **__: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(Path, "open", fail)

    assert "Input/output error" in refusal(path, SourceUnavailable)


# --- size -----------------------------------------------------------------------------------------------------------------------


@given(
    rows=st.lists(st.tuples(st.integers(0, 40), st.sampled_from("abc"), st.integers(-9, 9)), max_size=30),
    group_rows=st.integers(1, 7),
    length_s=st.integers(1, 9),
    sources=st.sampled_from([(), ("a",), ("b", "c")]),
    rows_together=st.integers(1, 12),
    rows_a_second=st.sampled_from([0, 8]),
    kept_rows=st.sampled_from([0, 4_000_000]),
)
def test_a_parquet_file_gives_its_rows_and_counts_and_where_a_source_may_repeat_a_time_whether_it_is_kept_or_not(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[Row],
    group_rows: int,
    length_s: int,
    sources: tuple[str, ...],
    rows_together: int,
    rows_a_second: int,
    kept_rows: int,
) -> None:
    path = tmp_path_factory.mktemp("large") / "ecg.parquet"
    times = pa.array([TIME_NS + second * NANOSECONDS for second, _, _ in rows], pa.timestamp("ns"))
    ids, values = [source for _, source, _ in rows], [float(value) for _, _, value in rows]
    table = pa.table({"timestamp": times, "source_id": pa.array(ids, pa.string()), "ecg": pa.array(values, pa.float64())})
    pa_parquet.write_table(table, path, row_group_size=group_rows)
    length_ns = length_s * NANOSECONDS
    start_ns = TIME_NS // length_ns * length_ns
    windows = WindowRange(start_ns, start_ns + (50 // length_s + 2) * length_ns, length_ns)
    expected = sorted(
        (TIME_NS + second * NANOSECONDS, source, float(value))
        for second, source, value in rows
        if not sources or source in sources
    )

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "MOST_ROWS_IN_MEMORY", kept_rows)
        patch.setattr(files, "_FEWEST_ROWS_A_SECOND", rows_a_second)
        patch.setattr(parquet_rows, "ROWS_READ_TOGETHER", rows_together)
        source = opened(path, sources=sources)
        read = [source.read(windows.part(index, index + 1)) for index in range(len(windows))]
        counts = source.count(windows).tolist()

    assert all((np.diff(samples.times_ns) >= 0).all() for samples in read)
    found = [
        (time_ns, samples.source_ids[code], value)
        for samples in read
        for time_ns, code, value in zip(
            samples.times_ns.tolist(), samples.source_codes.tolist(), samples.values_uv.tolist(), strict=True
        )
    ]
    assert sorted(found) == expected
    assert counts == [len(samples) for samples in read]
    again = {time_ns for (time_ns, _), rows in Counter(row[:2] for row in expected).items() if rows > 1}
    assert again == {time_ns for time_ns in again for span in source.repeats if span.start_ns <= time_ns < span.end_ns}


def test_a_large_parquet_file_is_read_once_to_survey_it_and_once_to_release_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "MOST_ROWS_IN_MEMORY", 10)
    monkeypatch.setattr(parquet_rows, "ROWS_READ_TOGETHER", 100)
    times = np.repeat(TIME_NS + np.arange(500) * NANOSECONDS // 10, 2)
    table = pa.table({"timestamp": pa.array(times, pa.timestamp("ns")), "source_id": ["b", "a"] * 500, "ecg": [1.0] * 1000})
    pa_parquet.write_table(table, tmp_path / "ecg.parquet", row_group_size=100)
    read: list[int] = []
    really_read = parquet_rows.ParquetRows.read

    def note(rows: parquet_rows.ParquetRows, groups: parquet_rows.RowGroups) -> pa.Table:
        read.append(groups.first)
        return really_read(rows, groups)

    monkeypatch.setattr(parquet_rows.ParquetRows, "read", note)
    windows = WindowRange(TIME_NS, TIME_NS + 50 * NANOSECONDS, 5 * NANOSECONDS)

    source = opened(tmp_path / "ecg.parquet")
    refuse_contradictory(source, windows, most_rows=100)
    assert source.count(windows).tolist() == [100] * 10
    assert [len(source.read(windows.part(index, index + 1))) for index in range(10)] == [100] * 10

    assert read == [*range(10), *range(10)]


def test_a_large_parquet_file_is_not_held_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MOST_ROWS_IN_MEMORY", 10)
    monkeypatch.setattr(parquet_rows, "ROWS_READ_TOGETHER", 10)
    path = tmp_path / "ecg.parquet"
    times = pa.array([TIME_NS + second * NANOSECONDS for second in range(100)], pa.timestamp("ns"))
    pa_parquet.write_table(pa.table({"timestamp": times, "source_id": ["a"] * 100, "ecg": [1.0] * 100}), path, row_group_size=10)
    made: list[weakref.ref[Any]] = []
    really_in_time_order = files._in_time_order

    def order_and_watch(samples: Samples) -> Samples:
        found = really_in_time_order(samples)
        made.append(weakref.ref(found.times_ns))
        return found

    monkeypatch.setattr(files, "_in_time_order", order_and_watch)

    source = opened(path)
    assert len(samples_of(source)) == 100

    gc.collect()
    assert len(made) >= 20, "ten row groups, read twice"
    assert sum(one() is not None for one in made) <= files._PARTS_IN_MEMORY


@pytest.mark.parametrize(
    ("begin", "without_time"),
    [("2025-11-03T14:30:0", ["1762180200", "1762180201"]), ("2017-01-01T00:00:0", ["2016-12-31T23:59:60Z"])],
    ids=["numbers among calendar times", "a leap second beside the second after it"],
)
def test_rows_that_the_whole_file_shows_to_have_no_time_are_not_counted_in_a_large_parquet_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, begin: str, without_time: list[str]
) -> None:
    monkeypatch.setattr(files, "MOST_ROWS_IN_MEMORY", 0)
    texts = [*without_time, *(f"{begin}{tenth // 10}.{tenth % 10}Z" for tenth in range(40))]
    table = pa.table({"timestamp": texts, "source_id": ["a"] * len(texts), "ecg": [1.0] * len(texts)})
    pa_parquet.write_table(table, tmp_path / "ecg.parquet")
    source = opened(tmp_path / "ecg.parquet")
    start_ns = int(np.datetime64(f"{begin}0", "ns").astype(np.int64))

    counts = source.count(WindowRange(start_ns, start_ns + 4 * NANOSECONDS, NANOSECONDS))
    beside = source.rows_beside(start_ns + NANOSECONDS // 4, start_ns + 2 * NANOSECONDS + NANOSECONDS // 20)

    assert counts.tolist() == [10] * 4
    assert (beside.without_time, beside.not_requested) == (len(without_time), 22)


def row_groups(folder: Path, value: float = 1.0) -> Path:
    path = folder / "ecg.parquet"
    times = pa.array([TIME_NS + second * NANOSECONDS for second in range(100)], pa.timestamp("ns"))
    table = pa.table({"timestamp": times, "source_id": ["a"] * 100, "ecg": [value] * 100})
    pa_parquet.write_table(table, path, row_group_size=10)
    return path


@pytest.fixture
def read_lazily(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MOST_ROWS_IN_MEMORY", 10)
    monkeypatch.setattr(parquet_rows, "ROWS_READ_TOGETHER", 10)


@pytest.mark.usefixtures("read_lazily")
def test_a_large_parquet_file_that_is_written_anew_meanwhile_is_refused(tmp_path: Path) -> None:
    for content in (None, b"", b"PAR1"):
        source = opened(row_groups(tmp_path))

        if content is None:
            row_groups(tmp_path, value=2.0)
        else:
            (tmp_path / "ecg.parquet").write_bytes(content)

        with pytest.raises(SourceRefused, match="INPUT_FILE was written to while it was read"):
            samples_of(source)


@pytest.mark.usefixtures("read_lazily")
def test_a_large_parquet_file_is_read_on_where_another_takes_its_name_or_only_its_time_changes(tmp_path: Path) -> None:
    path = row_groups(tmp_path)
    source = opened(path)
    os.utime(path, ns=(0, 0))
    assert len(samples_of(source)) == 100

    path.rename(tmp_path / "before.parquet")
    row_groups(tmp_path, value=2.0)

    assert set(samples_of(source).values_uv) == {1.0}


@pytest.mark.parametrize("kept_rows", [4_000_000, 0])
def test_a_parquet_file_written_to_between_its_digest_and_its_rows_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept_rows: int
) -> None:
    monkeypatch.setattr(files, "MOST_ROWS_IN_MEMORY", kept_rows)
    path = row_groups(tmp_path)
    digest = InputFile.sha256

    def digest_and_change(held: InputFile) -> str:
        found = digest(held)
        row_groups(tmp_path, value=2.0)
        return found

    monkeypatch.setattr(InputFile, "sha256", digest_and_change)

    assert "INPUT_FILE was written to while it was read" in refusal(path)


def test_a_csv_file_that_grows_while_it_is_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = f"{TIME},a,1\n"
    path = csv_file(tmp_path, HEADER + row)
    table = csv_text.Block.table

    def table_and_more(block: csv_text.Block) -> pa.Table:
        csv_file(tmp_path, HEADER + row * 2)
        return table(block)

    monkeypatch.setattr(csv_text.Block, "table", table_and_more)

    assert "INPUT_FILE was written to while it was read" in refusal(path)


def test_small_row_groups_are_read_together_and_a_row_is_named_by_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "ecg.parquet"
    texts = [TIME if row != 57 else "oops" for row in range(60)]
    table = pa.table({"timestamp": texts, "source_id": ["a"] * 60, "ecg": [1.0] * 60})
    pa_parquet.write_table(table, path, row_group_size=10)
    read: list[parquet_rows.RowGroups] = []
    really_read = parquet_rows.ParquetRows.read

    def note(rows: parquet_rows.ParquetRows, groups: parquet_rows.RowGroups) -> pa.Table:
        read.append(groups)
        return really_read(rows, groups)

    monkeypatch.setattr(parquet_rows.ParquetRows, "read", note)
    assert "such as row 58 (row group 6)" in opened(path).remarks[0]
    assert [list(groups.numbers) for groups in read] == [list(range(6))]

    read.clear()
    monkeypatch.setattr(parquet_rows, "ROWS_READ_TOGETHER", 25)
    assert "such as row 58 (row group 6)" in opened(path).remarks[0]
    assert [list(groups.numbers) for groups in read] == [[0, 1], [2, 3], [4, 5]]


# --- the asked span ---------------------------------------------------------------------------------------------------------------


def test_shares_are_judged_over_the_whole_file_whatever_span_is_asked_for(tmp_path: Path) -> None:
    good = f"{TIME},a,1\n" * 2000
    path = csv_file(tmp_path, HEADER + good + "2025-11-03T14:40:00Z,a,x\n" * 20 + "oops,a,1\n" * 50)

    source = opened(path, start_ns=TIME_NS + 60 * NANOSECONDS)

    first, second = source.remarks
    assert "50 of 70 rows (71.4 %) are invalid: they have no readable time, such as line 2022" in first
    assert "20 of 70 rows (28.6 %) are invalid: they have no number, such as line 2002" in second
    with pytest.raises(SourceRefused, match="2100 of the 4170 cells of column timestamp"):
        opened(csv_file(tmp_path, path.read_text() + "oops,a,1\n" * 2050 + f"{TIME},a,1\n" * 50))


def test_leap_second_rows_outside_the_asked_span_are_not_asked_for(tmp_path: Path) -> None:
    rows = "2016-12-31T23:59:60Z,a,1\n2017-01-01T00:00:00Z,a,2\n" + f"{TIME},a,3\n"
    path = csv_file(tmp_path, HEADER + rows)

    source = opened(path, start_ns=TIME_NS)
    beside = source.rows_beside(TIME_NS, TIME_NS + NANOSECONDS)
    assert (beside.without_time, beside.not_requested, source.remarks) == (0, 2, ())

    (remark,) = opened(path).remarks
    assert "1 rows of a leap second (23:59:60), such as line 2, are invalid" in remark


@pytest.mark.parametrize("value", ["1e306", "-1e308"])
def test_a_number_beyond_all_numbers_of_microvolts_is_counted_as_no_number(value: str, tmp_path: Path) -> None:
    path = csv_file(tmp_path, HEADER + f"{TIME},a,{value}\n" + f"{TIME},b,2\n" * 9)

    source = opened(path, microvolts_per_unit=1000.0)

    assert "1 of 10 rows (10.0 %) are invalid: they have no number, such as line 2" in source.remarks[0]
    assert math.isnan(rows_of(source)[0][2])
    with pytest.raises(SourceRefused, match="1 of the 1 cells of column ecg"):
        opened(csv_file(tmp_path, HEADER + f"{TIME},a,{value}\n"), microvolts_per_unit=1000.0)


# --- identity -------------------------------------------------------------------------------------------------------------------


def test_a_data_set_is_told_apart_by_the_bytes_of_the_file_and_not_by_its_name(tmp_path: Path) -> None:
    one = opened(csv_file(tmp_path, f"{HEADER}{TIME},a,1\n", "one.csv"))
    same = opened(csv_file(tmp_path, f"{HEADER}{TIME},a,1\n", "same.csv"), sources=("b",))
    other = opened(csv_file(tmp_path, f"{HEADER}{TIME},a,2\n", "other.csv"))

    assert one.data_set == same.data_set != other.data_set


def test_a_file_has_no_clock_and_forgets_its_rows_when_closed(tmp_path: Path) -> None:
    source: SampleSource = opened(csv_file(tmp_path, f"{HEADER}{TIME},a,1\n"))

    source.close()

    assert source.extent() is None
    assert source.now_ns() is None
    assert source.clock_check_in_s() == math.inf


@pytest.mark.parametrize("kept_rows", [4_000_000, 0])
def test_the_next_row_of_a_file_is_found_wherever_its_row_groups_lie(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept_rows: int
) -> None:
    monkeypatch.setattr(files, "MOST_ROWS_IN_MEMORY", kept_rows)
    monkeypatch.setattr(parquet_rows, "ROWS_READ_TOGETHER", 1)
    # The second row group begins before the first ends.
    seconds = [0, 50, 5_000, 40, 60, 9_000_000]
    times = pa.array([TIME_NS + second * NANOSECONDS for second in seconds], pa.timestamp("ns", tz="UTC"))
    table = pa.table({"timestamp": times, "source_id": ["a"] * 6, "ecg": [1.0] * 6})
    pa_parquet.write_table(table, tmp_path / "rows.parquet", row_group_size=3)
    source = opened(tmp_path / "rows.parquet")
    stop_ns = TIME_NS + 9_000_001 * NANOSECONDS

    found = [source.next_row_ns(TIME_NS + second * NANOSECONDS, stop_ns) for second in (-100, 1, 41, 51, 61, 5_001, 9_000_001)]

    expected = [0, 40, 50, 60, 5_000, 9_000_000]
    assert found == [*(TIME_NS + second * NANOSECONDS for second in expected), None]
    assert source.next_row_ns(TIME_NS + 61 * NANOSECONDS, TIME_NS + 5_000 * NANOSECONDS) is None
