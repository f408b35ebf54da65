"""Any mixture of good and bad cells, in any order, dialect and size of block: every row is in one count, or the file is refused.

What cells mean is said here, in a table, and what follows from it for a file is worked out row by row.
"""

from __future__ import annotations

import csv
import gzip
import io
import math
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.parquet as pa_parquet
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from anonymizer.errors import SourceRefused
from anonymizer.windows import NANOSECONDS, WindowRange
from inputs import csv_text
from inputs import file_source as files
from inputs.file_source import FileSource

T_NS = 1_762_180_200 * NANOSECONDS

HALF_HOUR_NS = 1800 * NANOSECONDS

CALENDAR = {
    "2025-11-03T14:30:00Z": T_NS,
    "2025-11-03 14:30:01+00": T_NS + NANOSECONDS,
    "20251103T143002,5Z": T_NS + 2_500_000_000,
    "2025-11-03T15:30:07.000000001+0100": T_NS + 7_000_000_001,
    "2025-W45-1T14:31": T_NS + 60 * NANOSECONDS,
}
EPOCH = {
    "1762180200": ("s", T_NS),
    "1762180201.25": ("s", T_NS + 1_250_000_000),
    "1762180200500": ("ms", T_NS + 500_000_000),
    "1762180207000000000": ("ns", T_NS + 7 * NANOSECONDS),
    "20251103": ("none", None),
    "0": ("none", None),
}
NO_TIME = {"": "missing", "NaT": "missing", "9999-12-31T00:00:00Z": "beyond", "oops": "bad", "2025-02-30": "bad", "24:00": "bad"}

SOURCES = ["w1", "7", "two\nlines", 'q"u', "c,d;e\tf", "NaN", ""]

NUMBERS = {"1": 1.0, "-2": -2.0, " 3 ": 3.0, "\N{MINUS SIGN}4": -4.0, "1e1": 10.0}
POINTS = {"0.5": 0.5, "-1.25": -1.25, "2.0": 2.0, "1.5e3": 1500.0}
ONE_POINT = {"1.000": 1.0, "-12.345": -12.345}
COMMAS = {"0,5": 0.5, "-1,25": -1.25}
ONE_COMMA = {"1,234": 1.234}
NO_NUMBER = {"": "missing", "nan": "missing", "1e999": "missing", "x": "bad", "1.234,5": "bad", "0x10": "bad", "1_0": "bad"}

Row = tuple[str, str, str]


@dataclass(frozen=True)
class Expected:
    """What a file comes to: refused; or how many rows lack a time or were not asked for, and the rows that are read."""

    is_refused: bool
    without_time: int = 0
    not_requested: int = 0
    rows: Counter[tuple[int, str | None, float | None]] | None = None


def expected_of(rows: list[Row], sources: tuple[str, ...], *, has_commas_between: bool) -> Expected:
    """Work out what the documentation says."""
    held_times = [time for time, _, _ in rows]
    numbers = [EPOCH[time] for time in held_times if time in EPOCH]
    calendar = sum(time in CALENDAR or NO_TIME.get(time) == "beyond" for time in held_times)
    if is_epoch := len(numbers) > calendar:
        units = {unit for unit, _ in numbers}
        if len(units) > 1 or units == {"none"}:
            return Expected(is_refused=True)
    known = {time: at for time, (_, at) in EPOCH.items() if at is not None} if is_epoch else CALENDAR
    asked = [row for row in rows if not sources or row[1] in sources]
    bad_times = sum(time not in known and NO_TIME.get(time) not in ("missing", "beyond") for time, _, _ in asked)
    held = [value for _, _, value in rows]
    commas, maybe, points, maybe_points, plain = (
        sum(value in cells for value in held) for cells in (COMMAS, ONE_COMMA, POINTS, ONE_POINT, NUMBERS)
    )
    bad_values = sum(NO_NUMBER.get(value) == "bad" for _, _, value in asked)
    is_refused = (
        (bad_times > 0 and 2 * bad_times >= sum(NO_TIME.get(time) != "missing" for time, _, _ in asked))
        or (commas + maybe > 0 and (points + maybe_points > 0 or commas == 0))
        or (maybe_points > 0 and points == 0 and plain > 0 and not has_commas_between)
        or (bad_values > 0 and 2 * bad_values >= sum(NO_NUMBER.get(value) != "missing" for _, _, value in asked))
    )
    if is_refused:
        return Expected(is_refused=True)
    values: dict[str, float] = {**NUMBERS, **POINTS, **ONE_POINT, **COMMAS, **ONE_COMMA}
    with_time = [(known[time], source or None, values.get(value)) for time, source, value in asked if time in known]
    return Expected(
        is_refused=False,
        without_time=len(asked) - len(with_time),
        not_requested=len(rows) - len(asked),
        rows=Counter(with_time),
    )


def csv_bytes(rows: list[Row], delimiter: str, line_end: str, header: list[str], *, is_quoted: bool) -> bytes:
    file = io.StringIO(newline="")
    quoting: Literal[0, 1] = csv.QUOTE_ALL if is_quoted or line_end == "\r" else csv.QUOTE_MINIMAL
    writer = csv.writer(file, delimiter=delimiter, lineterminator=line_end, quoting=quoting)
    writer.writerow(header)
    writer.writerows(rows)
    return file.getvalue().encode()


#: A few kinds of cells a file, so that not every file is refused; weights of good and bad cells differ from file to file.
FILES: st.SearchStrategy[list[Row]] = st.tuples(
    st.lists(st.sampled_from([*CALENDAR] * 3 + [*EPOCH, *NO_TIME]), min_size=1, max_size=6),
    st.lists(st.sampled_from(SOURCES), min_size=1, max_size=4),
    st.lists(st.sampled_from([*NUMBERS] * 3 + [*POINTS, *ONE_POINT, *COMMAS, *ONE_COMMA, *NO_NUMBER]), min_size=1, max_size=6),
).flatmap(lambda cells: st.lists(st.tuples(*map(st.sampled_from, cells)), max_size=40))


@given(
    rows=FILES,
    form=st.sampled_from(["csv", "csv", "gzip", "parquet", "large parquet"]),
    delimiter=st.sampled_from(",;\t|"),
    line_end=st.sampled_from(["\n", "\r\n", "\r"]),
    header=st.sampled_from([["timestamp", "source_id", "ecg"], ["TimeStamp ", " SOURCE_ID", "Ecg"]]),
    is_quoted=st.booleans(),
    part_size=st.integers(1, 200),
    sources=st.sampled_from([(), (), ("w1", "two\nlines")]),
)
def test_every_row_is_in_one_count_or_the_file_is_refused(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[Row],
    form: str,
    delimiter: str,
    line_end: str,
    header: list[str],
    is_quoted: bool,
    part_size: int,
    sources: tuple[str, ...],
) -> None:
    path = tmp_path_factory.mktemp("rows") / f"x.{'parquet' if 'parquet' in form else 'csv'}"
    if "parquet" in form:
        columns = {name: pa.array([row[index] for row in rows], pa.string()) for index, name in enumerate(header)}
        pa_parquet.write_table(pa.table(columns), path, row_group_size=part_size)
    else:
        text = csv_bytes(rows, delimiter, line_end, header, is_quoted=is_quoted)
        path.write_bytes(gzip.compress(text) if form == "gzip" else text)
    source = FileSource(path, sources=sources)
    expected = expected_of(rows, sources, has_commas_between="parquet" not in form and delimiter == ",")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(csv_text, "BLOCK_BYTES", part_size)
        if form == "large parquet":
            patch.setattr(files, "MOST_ROWS_IN_MEMORY", 0)
        if expected.is_refused:
            with pytest.raises(SourceRefused, match=r"INPUT_FILE: .*(such as|not asked for)"):
                source.open()
            return
        source.open()
        found = rows_of(source)
        beside = source.rows_beside(T_NS, T_NS + HALF_HOUR_NS)

    assert found == expected.rows
    assert (beside.without_time, beside.not_requested) == (expected.without_time, expected.not_requested)
    assert len(rows) == beside.without_time + beside.not_requested + found.total()


def rows_of(source: FileSource) -> Counter[tuple[int, str | None, float | None]]:
    samples = source.read(WindowRange(T_NS, T_NS + HALF_HOUR_NS, HALF_HOUR_NS))
    ids = [*samples.source_ids, None]
    columns = samples.times_ns.tolist(), samples.source_codes.tolist(), samples.values_uv.tolist()
    return Counter(
        (time_ns, ids[code], None if math.isnan(value) else value) for time_ns, code, value in zip(*columns, strict=True)
    )


PIECES = ['"', '""', ",", "\n", "2025-11-03T14:30:00Z", "w1", "1", "x\n", '",1\n', ',"w1', 'w1",1', "2025-11-03T14:30:00Z,"]

BROKEN = st.lists(st.sampled_from(PIECES), max_size=12).map("".join)


@given(texts=st.tuples(BROKEN, BROKEN), part_size=st.integers(1, 60))
@example(texts=('2025-11-03T14:30:00Z,"w1', 'w1",1'), part_size=9)
def test_stray_quotes_never_swallow_a_row(
    tmp_path_factory: pytest.TempPathFactory, texts: tuple[str, str], part_size: int
) -> None:
    path: Path = tmp_path_factory.mktemp("quotes") / "x.csv"
    begun = ["2025-11-03T14:30:01Z,w1,1", "2025-11-03T14:30:02Z,w1,1", "2025-11-03T14:30:03Z,w1,1"]
    path.write_text(
        "timestamp,source_id,ecg\n" + "\n".join([begun[0], texts[0], begun[1], texts[1], begun[2], ""]),
        encoding="utf-8",
        newline="",
    )
    source = FileSource(path)
    whole = {T_NS + second * NANOSECONDS for second in (1, 2, 3)}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(csv_text, "BLOCK_BYTES", part_size)
        with suppress(SourceRefused):
            source.open()
            times_ns = {time_ns for time_ns, _, _ in rows_of(source)}
            assert whole <= times_ns
