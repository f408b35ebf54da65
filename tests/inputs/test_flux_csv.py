"""Answers of InfluxDB must be read as they are or not at all: never a part of one, never one cell for another."""

from __future__ import annotations

import csv
import io
import itertools
import os
import signal
import threading
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inputs.flux_csv import TIME_TYPE, FluxError, FluxTable, UnreadableAnswer, read_tables, times_as_ns
from tests.outputs.batches import time_ns_of

#: What a tag may be called or hold that a reader of CSV may trip over.
ODD = (
    "a,b",
    '"',
    '""',
    "#datatype",
    "#x",
    "\r\n",
    "\r\n\r\n",
    "a\r\n\r\n#datatype",
    "\n",
    " ",
    ",",
    "\\",
    "é",
    "error",
    "reference",
    "'",
)

TEXTS = st.lists(
    st.sampled_from([*ODD, "a", "b"]) | st.text(st.characters(exclude_categories=["Cs"]), max_size=3), max_size=3
).map("".join)

TIMES = st.tuples(
    st.sampled_from(["1969-12-31T23:59:59", "1970-01-01T00:00:00", "2025-11-03T14:30:00"]), st.text("0123456789", max_size=9)
).map(lambda parts: f"{parts[0]}.{parts[1]}Z" if parts[1] else f"{parts[0]}Z")

TYPES = ("string", "long", "dateTime:RFC3339", "double", "string")

ERROR = b"#datatype,string,string\r\n,error,reference\r\n,the disk is on fire,\r\n"


class Row(NamedTuple):
    time: str
    value: str
    tag: str


class Table(NamedTuple):
    tag: str
    rows: list[Row]


ROWS = st.builds(Row, TIMES, st.floats(allow_nan=False, allow_infinity=False).map(repr), TEXTS)

TABLES = st.lists(st.builds(Table, TEXTS, st.lists(ROWS, max_size=4)), max_size=3)


def answer_of(tables: Iterable[Table]) -> bytes:
    """Return what the server would send, as Python's own module writes CSV."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\r\n")
    for table in tables:
        writer.writerow(["#datatype", *TYPES])
        writer.writerow(["", "result", "table", "_time", "_value", table.tag])
        for row in table.rows:
            writer.writerow(["", "_result", "0", *row])
        text.write("\r\n")
    return text.getvalue().encode() or b"\r\n"


def rows_in(table: FluxTable) -> list[tuple[int, float, str]]:
    """Return the rows as the source reads them."""
    wanted = [("_time", TIME_TYPE), ("_value", pa.float64()), (table.names[-1], pa.dictionary(pa.int32(), pa.string()))]
    times, values, tags = table.columns(wanted)
    return list(zip(times_as_ns(times).to_pylist(), values.to_pylist(), tags.to_pylist(), strict=True))


def read(answer: bytes) -> list[list[tuple[int, float, str]]]:
    return [rows_in(table) for table in read_tables([answer])]


@given(TABLES)
def test_an_answer_is_read_as_pythons_own_module_reads_it(tables: list[Table]) -> None:
    answer = answer_of(tables)

    found = list(read_tables([answer]))

    assert [(table.names, table.types) for table in found] == [
        (("", "result", "table", "_time", "_value", table.tag), ("#datatype", *TYPES)) for table in tables
    ]
    for table, sent in zip(found, tables, strict=True):
        if sent.tag in ("", "result", "table", "_time", "_value"):
            continue
        assert rows_in(table) == [(time_ns_of(row.time), float(row.value), row.tag) for row in sent.rows]
        oracle = list(csv.reader(io.StringIO(bytes(table.body).decode(), newline=""), strict=True))
        assert oracle == [["", "_result", "0", *row] for row in sent.rows]


@given(TABLES, st.data())
def test_an_answer_is_the_same_however_it_is_cut_on_its_way(tables: list[Table], data: st.DataObject) -> None:
    answer = answer_of(tables) + data.draw(st.sampled_from([b"", b"\r\n", b"\r\n" + ERROR, ERROR + b"\r\n"]))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(answer)), max_size=6)))
    edges = [0, *cuts, len(answer)]

    in_blocks = _rows_or_error([answer[first:stop] for first, stop in itertools.pairwise(edges)])

    assert in_blocks == _rows_or_error([answer])


def _rows_or_error(blocks: Iterable[bytes]) -> tuple[list[tuple[int, float, str]], str]:
    rows: list[tuple[int, float, str]] = []
    try:
        for table in read_tables(blocks):
            if table.names[-1] not in ("", "result", "table", "_time", "_value"):
                rows += rows_in(table)
    except FluxError as error:
        return rows, str(error)
    return rows, ""


def test_a_long_answer_is_read_while_it_arrives_and_never_kept() -> None:
    rows = [Row("1970-01-01T00:00:00Z", str(i), "a") for i in range(1000)]
    answer = answer_of([Table("source_id", rows)])
    arrived: list[int] = []

    def blocks() -> Iterator[bytes]:
        for at in range(0, len(answer), 1000):
            arrived.append(at)
            yield answer[at : at + 1000]

    sizes = [(len(arrived), len(table.body)) for table in read_tables(blocks())]

    assert [count for count, _ in sizes] == list(range(1, len(arrived) + 1))
    assert max(size for _, size in sizes) <= 1000 + len(answer_of([Table("source_id", rows[:1])]))


@pytest.mark.parametrize("cell", [b"x", b"\r\n"], ids=["of letters", "of line ends"])
def test_a_quote_that_does_not_end_is_refused_before_all_of_the_answer_is_kept(cell: bytes) -> None:
    head = answer_of([Table("source_id", [])]).removesuffix(b"\r\n") + b',_result,0,1970-01-01T00:00:00Z,1,"'
    arrived: list[int] = []

    def blocks() -> Iterator[bytes]:
        yield head
        for number in range(100):
            arrived.append(number)
            yield cell * (2**20 // len(cell))

    with pytest.raises(UnreadableAnswer, match="does not end"):
        list(read_tables(blocks()))

    assert len(arrived) < 10


def test_line_ends_inside_tags_of_a_large_answer_end_no_row() -> None:
    # Larger than what is parsed at once, so that parts begin wherever a line seems to end.
    rows = [
        Row("1970-01-01T00:00:00Z", str(i), "two\r\nlines, or\r\n,_result,0,1970-01-01T00:00:00Z,1,three" * 3)
        for i in range(10_000)
    ]

    (table,) = read(answer_of([Table("source_id", rows)]))

    assert [value for _, value, _ in table] == list(range(10_000))
    assert {tag for _, _, tag in table} == {rows[0].tag}


@settings(max_examples=30)  # each of them cut at every byte
@given(TABLES)
def test_only_where_a_table_ends_can_a_cut_pass_unseen(tables: list[Table]) -> None:
    answer = answer_of(tables)
    # Behind a table's empty line the answer could have ended: nothing in it says how many tables there are.
    ends = {len(answer_of(tables[:count])): count for count in range(1, len(tables) + 1)} if tables else {len(answer): 0}

    for cut in range(len(answer) + 1):
        if cut in ends:
            assert len(read(answer[:cut])) == ends[cut]
        else:
            with pytest.raises(UnreadableAnswer):
                read(answer[:cut])


def test_an_answer_of_one_table_cut_anywhere_is_noticed() -> None:
    answer = answer_of(
        [Table("source_id", [Row("2025-11-03T14:30:00.5Z", "1.5", 'a "b",\r\n\r\n c'), Row("1970-01-01T00:00:00Z", "2", "d")])]
    )

    for cut in range(len(answer)):
        with pytest.raises(UnreadableAnswer):
            read(answer[:cut])
    assert len(read(answer)[0]) == 2


@pytest.mark.parametrize("between", [b"", b"\r\n", b"\r\n\r\n"], ids=["at once", "after an empty line", "after two"])
@pytest.mark.parametrize("end", [b"", b"\r\n"])
def test_an_error_after_rows_is_an_error(between: bytes, end: bytes) -> None:
    # A real server separates it by a second empty line (2.7.12, a query with two results of which the second fails).
    answer = answer_of([Table("source_id", [Row("1970-01-01T00:00:00Z", "2", "d")])]) + between + ERROR + end

    with pytest.raises(FluxError, match="the disk is on fire"):
        read(answer)


def test_an_empty_line_is_an_answer_without_tables_no_bytes_are_no_answer_and_an_error_alone_is_one() -> None:
    one, two = (answer_of([Table("source_id", [Row("1970-01-01T00:00:00Z", value, "d")])]) for value in ("1", "2"))

    assert read(b"\r\n") == []
    assert read(b"\r\n" + one + b"\r\n" + two + b"\r\n") == [[(0, 1.0, "d")], [(0, 2.0, "d")]]
    with pytest.raises(UnreadableAnswer, match="empty"):
        read(b"")
    with pytest.raises(FluxError):
        read(ERROR)


def test_of_an_answer_with_an_error_cut_anywhere_only_the_rows_before_can_pass() -> None:
    rows = answer_of([Table("source_id", [Row("1970-01-01T00:00:00Z", "2", "d")])])
    answer = rows + b"\r\n" + ERROR

    unseen = [cut for cut in range(len(answer)) if not _is_noticed(answer[:cut])]

    # Both lie before the first byte of the error: only the transport can know that more was to come.
    assert unseen == [len(rows), len(rows) + len(b"\r\n")]


def _is_noticed(answer: bytes) -> bool:
    try:
        read(answer)
    except (UnreadableAnswer, FluxError):
        return True
    return False


def test_a_header_that_changes_is_followed() -> None:
    head = b"#datatype,string,long"
    first = b",dateTime:RFC3339,double,string\r\n,result,table,_time,_value,s\r\n,_result,0,1970-01-01T00:00:00Z,1,a\r\n\r\n"
    second = b",string,dateTime:RFC3339,long\r\n,result,table,s,_time,_value\r\n,_result,1,b,1970-01-01T00:00:01Z,2\r\n\r\n"

    tables = list(read_tables([head + first + head + second]))

    assert [table.type_of("_value") for table in tables] == ["double", "long"]
    assert [table.texts("s") for table in tables] == [["a"], ["b"]]
    assert [table.columns([("_value", pa.float64())])[0].to_pylist() for table in tables] == [[1.0], [2.0]]


@pytest.mark.parametrize(
    "behind",
    [
        b",_result,0,1970-01-01T00:00:01Z,3,e\r\n\r\n",
        b",result,table,_time,_value,source_id\r\n,_result,1,1970-01-01T00:00:01Z,3,e\r\n\r\n",
        b",error,reference\r\n,the disk is on fire,\r\n\r\n",
    ],
    ids=["rows", "a table without types", "an error without types"],
)
def test_what_comes_behind_an_empty_line_is_never_taken_for_more_of_the_table(behind: bytes) -> None:
    answer = answer_of([Table("source_id", [Row("1970-01-01T00:00:00Z", "2", "d")])])

    with pytest.raises(UnreadableAnswer):
        read(answer + behind)


@given(st.binary(max_size=200))
def test_whatever_comes_is_tables_or_one_of_two_errors(answer: bytes) -> None:
    _is_noticed(answer)


@given(TABLES, st.data())
def test_an_answer_that_was_changed_on_its_way_is_tables_or_one_of_two_errors(tables: list[Table], data: st.DataObject) -> None:
    answer = bytearray(answer_of(tables))
    for _ in range(data.draw(st.integers(1, 3))):
        position = data.draw(st.integers(0, len(answer) - 1))
        answer[position : position + data.draw(st.integers(0, 2))] = data.draw(
            st.binary(max_size=2) | st.sampled_from([b'"', b"\r\n", b","])
        )
        if not answer:
            break

    _is_noticed(bytes(answer))


@pytest.mark.parametrize(
    ("row", "what"),
    [
        (",_result,0,1970-01-01T00:00:00Z,4711.5x,patient-7", "a value that is no number"),
        (",_result,0,yesterday,4711.5,patient-7", "a time that is none"),
        (",_result,0,1970-01-01T00:00:00Z,4711.5", "a cell too few"),
        (",_result,0,1970-01-01T00:00:00Z,4711.5,patient-7,more", "a cell too many"),
        (',_result,0,1970-01-01T00:00:00Z,4711.5,"patient-7', "a quote that never ends"),
    ],
)
def test_a_row_of_another_form_is_refused_without_being_shown(row: str, what: str) -> None:
    answer = answer_of([Table("source_id", [])]).removesuffix(b"\r\n") + row.encode() + b"\r\n\r\n"

    with pytest.raises(UnreadableAnswer) as refused:
        read(answer)

    assert "patient" not in str(refused.value), what
    assert "4711" not in str(refused.value), what


@pytest.mark.parametrize(
    "answer",
    [
        b"<html>Please log in</html>",
        b"<html>\r\n\r\n",
        b",result,table,_value\r\n,_result,0,ecg\r\n\r\n",
        b"#datatype,string\r\n,result,table\r\n\r\n",
        b"#datatype,string\xff\r\n,\xff\r\n\r\n",
        b"#group,false\r\n#datatype,string\r\n,x\r\n\r\n",
    ],
)
def test_an_answer_of_another_form_is_refused(answer: bytes) -> None:
    with pytest.raises(UnreadableAnswer):
        read(answer)


@pytest.mark.parametrize("rows", [[], [Row("1970-01-01T00:00:00Z", "2", "d")]])
def test_columns_have_the_types_wanted_even_without_rows_and_one_that_is_not_there_is_refused(rows: list[Row]) -> None:
    (table,) = read_tables([answer_of([Table("source_id", rows)])])

    times, values = table.columns([("_time", TIME_TYPE), ("_value", pa.float64())])

    assert (len(times), len(values)) == (len(rows), len(rows))
    assert (times.type, values.type) == (TIME_TYPE, pa.float64())
    with pytest.raises(UnreadableAnswer):
        table.columns([("lead", pa.string())])


@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=5))
def test_counts_are_read_as_integers(counts: Sequence[int]) -> None:
    rows = [Row("1970-01-01T00:00:00Z", str(count), "a") for count in counts]
    (table,) = read_tables([answer_of([Table("s", rows)])])

    assert table.columns([("_value", pa.int64())])[0].to_pylist() == list(counts)


def test_a_signal_that_comes_while_an_answer_is_parsed_reaches_our_handler_and_breaks_nothing_off() -> None:
    rows = 3_000_000
    answer = b"#datatype,string,long,double\r\n,result,table,_value\r\n" + b",_result,0,1.25\r\n" * rows + b"\r\n"
    (table,) = read_tables([answer])
    handled: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: handled.append(number))
    try:
        threading.Timer(0.01, os.kill, (os.getpid(), signal.SIGTERM)).start()
        (values,) = table.columns([("_value", pa.float64())])
        threading.Event().wait(0.05)
    finally:
        signal.signal(signal.SIGTERM, before)

    assert handled == [signal.SIGTERM]
    assert len(values) == rows
