"""Queries InfluxDB 1 and 3, and 2 if configured, in InfluxQL: one statement per request.

Counts, names and summaries come as JSON, which reports errors; rows come in the format that suits the server's version, and are never fewer
than were counted. For a field whose type changes, the server returns numbers of every type and silently omits text and booleans, so a
further query checks for those.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from anonymizer.windows import HOUR_NS, Window
from inputs.influx_dialect import ID_TYPE, BrokenAnswer, InfluxSeries, NotNumbers, Rows, any_of
from transport.influx_connection import InfluxConnection, InfluxFault
from transport.influx_versions import Database, RowsFormat, quoted_name, quoted_text
from transport.influxql_answers import Series, read_series

_NUMERIC_TYPES = ("float", "integer", "unsigned")

#: Limit for the smallest query; large ones may take longer.
_LONGEST_LOOK_S = 5.0

#: The status for a range that exceeds what the server reads at once.
_TOO_LARGE = 413

#: Rows per chunk of a chunked answer.
_CHUNK_ROWS = 20_000

#: The columns of a CSV answer: measurement, tags it was grouped by, time, value, source id.
_COLUMNS = ("name", "tags", "time", "value", "id")


class InfluxQlDialect:
    """What `Dialect` says.

    Args:
        connection: With credentials that may read.
    """

    name = "InfluxQL"
    caution = ""

    def __init__(self, connection: InfluxConnection) -> None:
        self._connection = connection
        self._databases: dict[str, Database] = {}

    def look(self, series: InfluxSeries) -> None:
        """Query a range of one nanosecond, which costs nothing."""
        self._databases.clear()
        self._ask(series.bucket, f"SELECT {_field(series)} {self._from(series, Window(0, 1))} LIMIT 1", within_s=_LONGEST_LOOK_S)

    def counts(
        self, series: InfluxSeries, span: Window, *, every_s: int
    ) -> list[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
        """Return when windows begin, and how many rows each holds within the span."""
        return [(times_ns, rows) for _, times_ns, rows in self._counted(series, span, f"time({every_s}s)")]

    def counts_by_source(self, series: InfluxSeries, span: Window, *, every_s: int) -> list[tuple[int, str, int]]:
        """Return the same for each source."""
        by_source = self._counted(series, span, f"time({every_s}s), {quoted_name(series.source_tag)}")
        return [
            (time_ns, tags.get(series.source_tag) or "", rows)
            for tags, times_ns, counts in by_source
            for time_ns, rows in zip(times_ns.tolist(), counts.tolist(), strict=True)
        ]

    def rows(self, series: InfluxSeries, span: Window) -> list[Rows]:
        """Return all rows; none if the field has text or booleans in the span."""
        self._refuse_others_than_numbers(series, span)
        query = f"SELECT {_field(series)}, {quoted_name(series.source_tag)}::tag {self._from(series, span)}"
        version = self._connection.version
        answer = version.rows(self._connection, self._database(series.bucket), query)
        return _READERS[version.rows_format](answer, series)

    def ends(self, series: InfluxSeries, pieces: Sequence[Window], *ends: str) -> list[int]:
        """Return only the first row of all pieces together: numbers of every type are found."""
        span = Window(pieces[0].start_ns, pieces[-1].end_ns)
        # Values that are not numbers must reach `counts`, which refuses them.
        values = [_field(series), *(f"{quoted_name(series.field)}::{kind}" for kind in self._other_kinds(series))]
        return [int(time_ns) for value in values for one in self._first(series, span, value) for time_ns in one.column(0)]

    def measurements(self, bucket: str) -> list[str]:
        """Return the measurements' names."""
        return self._texts(bucket, "SHOW MEASUREMENTS", 0)

    def fields(self, bucket: str, measurement: str) -> list[str]:
        """Return the names of a measurement's fields."""
        return list(dict.fromkeys(self._texts(bucket, f"SHOW FIELD KEYS {self._measurement(bucket, measurement)}", 0)))

    def tags(self, bucket: str, measurement: str) -> list[str]:
        """Return the names of a measurement's tags."""
        return self._texts(bucket, f"SHOW TAG KEYS {self._measurement(bucket, measurement)}", 0)

    def tag_values(self, bucket: str, measurement: str, tag: str) -> list[str]:
        """Return the values of a measurement's tag."""
        return self._texts(bucket, f"SHOW TAG VALUES {self._measurement(bucket, measurement)} WITH KEY = {quoted_name(tag)}", 1)

    def policies_with(self, series: InfluxSeries) -> list[str]:
        """Return those that the server lists."""
        policies = self._connection.version.policies(self._connection, series.bucket)
        named = [(policy, f"SHOW FIELD KEYS FROM {quoted_name(policy)}.{quoted_name(series.measurement)}") for policy in policies]
        return [policy for policy, question in named if series.field in self._texts(series.bucket, question, 0)]

    def first_times(self, bucket: str, measurement: str, field: str, span: Window) -> list[int]:
        """Return the time of the first point of all series."""
        selected = f"FIRST({quoted_name(field)}::field)"
        found = _first_found(span, lambda part: self._points(bucket, measurement, selected, part))
        return [int(time_ns) for one in found for time_ns in one.column(0)]

    def last_texts(self, bucket: str, measurement: str, field: str, span: Window) -> list[str]:
        """Return each series' last value. Queried in parts if the server does not read all at once; any part may contain one."""
        selected = f"LAST({quoted_name(field)}::field)"
        last: dict[tuple[tuple[str, str], ...], str] = {}
        for found in from_the_end(span, lambda part: self._points(bucket, measurement, selected, part, " GROUP BY *")):
            for one in found:
                last.setdefault(tuple(sorted(one.tags.items())), str(one.column(1)[-1]))
        return list(last.values())

    def texts(self, bucket: str, measurement: str, field: str, span: Window) -> list[str]:
        """Return the values of a field with text."""
        found = self._points(bucket, measurement, f"{quoted_name(field)}::field", span)
        return [str(text) for one in found for text in one.column(1)]

    def _counted(
        self, series: InfluxSeries, span: Window, by: str
    ) -> Iterator[tuple[dict[str, str], npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
        """Yield tags, times and counts of each series of the answer."""
        self._refuse_others_than_numbers(series, span)
        found = self._ask(series.bucket, f"SELECT COUNT({_field(series)}) {self._from(series, span)} GROUP BY {by} fill(none)")
        # The time of the first window may lie before the span.
        yield from ((one.tags, np.maximum(_integers(one, 0), span.start_ns), _integers(one, 1)) for one in found)

    def _refuse_others_than_numbers(self, series: InfluxSeries, span: Window) -> None:
        for kind in self._other_kinds(series):
            if self._first(series, span, f"{quoted_name(series.field)}::{kind}"):
                raise NotNumbers(kind)

    def _other_kinds(self, series: InfluxSeries) -> list[str]:
        """Return the field's types, in any shard, that are not numbers."""
        question = f"SHOW FIELD KEYS {self._measurement(series.bucket, series.measurement)}"
        kinds = [row[1] for one in self._ask(series.bucket, question) for row in one.values if row[0] == series.field]
        return [str(kind) for kind in kinds if kind not in _NUMERIC_TYPES]

    def _first(self, series: InfluxSeries, span: Window, value: str) -> list[Series]:
        return self._ask(series.bucket, f"SELECT FIRST({value}) {self._from(series, span)}")

    def _points(self, bucket: str, measurement: str, selected: str, span: Window, rest: str = "") -> list[Series]:
        source = self._measurement(bucket, measurement)
        return self._ask(bucket, f"SELECT {selected} {source} WHERE {_between(span)}{rest}")

    def _texts(self, bucket: str, query: str, column: int) -> list[str]:
        return [str(text) for one in self._ask(bucket, query) for text in one.column(column)]

    def _from(self, series: InfluxSeries, span: Window) -> str:
        conditions = [_between(span), *_conditions(series)]
        return f"{self._measurement(series.bucket, series.measurement)} WHERE {' AND '.join(conditions)}"

    def _measurement(self, bucket: str, measurement: str) -> str:
        policy = self._database(bucket).policy
        return f"FROM {quoted_name(policy)}.{quoted_name(measurement)}" if policy else f"FROM {quoted_name(measurement)}"

    def _database(self, bucket: str) -> Database:
        if bucket not in self._databases:
            self._databases[bucket] = self._connection.version.database(self._connection, bucket)
        return self._databases[bucket]

    def _ask(self, bucket: str, query: str, *, within_s: float = math.inf) -> list[Series]:
        pieces = _CHUNK_ROWS if self._connection.version.is_chunked else 0
        answer = self._connection.influxql(self._database(bucket), query, chunk_rows=pieces, within_s=within_s)
        return [one for one in read_series(answer) if one.values]


def _first_found(span: Window, ask: Callable[[Window], list[Series]]) -> list[Series]:
    """Return the answer for the first part of a span that is not empty; parts are as long as the server reads at once."""
    start_ns, length_ns = span.start_ns, span.end_ns - span.start_ns
    while start_ns < span.end_ns:
        cut_ns = min(span.end_ns, start_ns + length_ns)
        found = _unless_too_large(Window(start_ns, cut_ns), ask)
        if found:
            return found
        if found is not None:
            start_ns = cut_ns
        length_ns = length_ns // 2 if found is None else 2 * length_ns
    return []


def from_the_end(span: Window, ask: Callable[[Window], list[Series]]) -> Iterator[list[Series]]:
    """Yield the answers for all parts of a span, the last first; parts are as long as the server reads at once."""
    end_ns, length_ns = span.end_ns, span.end_ns - span.start_ns
    while end_ns > span.start_ns:
        cut_ns = max(span.start_ns, end_ns - length_ns)
        found = _unless_too_large(Window(cut_ns, end_ns), ask)
        if found is None:
            length_ns //= 2
            continue
        yield found
        # Where there are rows, a part of twice the length is usually refused.
        end_ns, length_ns = cut_ns, length_ns if found else 2 * length_ns


def _unless_too_large(part: Window, ask: Callable[[Window], list[Series]]) -> list[Series] | None:
    """Return a part's answer; None if it exceeds what the server reads at once."""
    try:
        return ask(part)
    except InfluxFault as fault:
        if fault.status != _TOO_LARGE or part.end_ns - part.start_ns <= HOUR_NS:
            raise
        return None


def _field(series: InfluxSeries) -> str:
    return f"{quoted_name(series.field)}::field"


def _between(span: Window) -> str:
    return f"time >= {span.start_ns} AND time < {span.end_ns}"


def _conditions(series: InfluxSeries) -> Iterator[str]:
    for tag, value in series.tags:
        yield f"{quoted_name(tag)}::tag = {quoted_text(value)}"
    if series.sources:
        tag = f"{quoted_name(series.source_tag)}::tag"
        yield any_of([f"{tag} = {quoted_text(source)}" for source in series.sources], "OR")


def _integers(series: Series, number: int) -> npt.NDArray[np.int64]:
    try:
        return np.array(series.column(number), dtype=np.int64)
    except (ValueError, TypeError, OverflowError):
        raise BrokenAnswer("the answer holds a count of another form") from None


def _rows_of_csv(answer: bytes, _series: InfluxSeries) -> list[Rows]:
    """Read CSV with one header and the columns of `_COLUMNS`; an answer without rows is empty."""
    if not answer.strip():
        return []
    body = _behind_header(answer)
    # An answer without a final line end was cut.
    if not answer.endswith(b"\n"):
        raise BrokenAnswer("the answer was cut")
    try:
        table = pa_csv.read_csv(
            pa.BufferReader(pa.py_buffer(memoryview(answer)[body:])),
            read_options=pa_csv.ReadOptions(column_names=_COLUMNS),
            parse_options=pa_csv.ParseOptions(newlines_in_values=answer.find(b'"', body) >= 0),
            convert_options=pa_csv.ConvertOptions(
                include_columns=["time", "value", "id"],
                column_types={"time": pa.int64(), "value": pa.float64(), "id": ID_TYPE},
                null_values=[""],
                strings_can_be_null=True,
            ),
        )
    except pa.ArrowInvalid as error:
        # Arrow quotes the cell it could not read, which may be a sample; keep what comes before.
        raise BrokenAnswer(f"the answer holds a row of another form ({str(error).split(':', 1)[0]})") from None
    return _rows(table.column("time"), table.column("value"), table.column("id"))


def _behind_header(answer: bytes) -> int:
    """Return where the header of a CSV answer ends; it must have the requested columns."""
    end = answer.find(b"\n")
    while end >= 0 and answer.count(b'"', 0, end) % 2:
        end = answer.find(b"\n", end + 1)
    try:
        names = next(csv.reader(io.StringIO(answer[: end + 1].decode("utf-8"), newline="")), [])
    except (UnicodeDecodeError, csv.Error):
        names = []
    if end < 0 or names[:3] != ["name", "tags", "time"] or len(names) != len(_COLUMNS):
        raise BrokenAnswer("the answer holds a header of another form")
    return end + 1


def _rows_of_parquet(answer: bytes, series: InfluxSeries) -> list[Rows]:
    """Read Parquet, whose footer shows that it is complete."""
    if not answer:
        return []
    try:
        table = pq.read_table(pa.BufferReader(answer))
        if not table.num_rows:
            return []
        times = pc.cast(table.column("time").cast(pa.timestamp("ns")), pa.int64())
        values = table.column(series.field).cast(pa.float64(), safe=False)
        ids = table.column(series.source_tag).cast(pa.string()).dictionary_encode()
    except (pa.ArrowException, KeyError, OSError, ValueError) as error:
        raise BrokenAnswer(f"the answer is not Parquet of rows ({type(error).__name__})") from None
    return _rows(times, values, ids.cast(ID_TYPE))


def _rows(times_ns: pa.ChunkedArray, values: pa.ChunkedArray, ids: pa.ChunkedArray) -> list[Rows]:
    if not len(times_ns):
        return []
    if times_ns.null_count or values.null_count:
        raise BrokenAnswer("the answer holds a row without a time or a value")
    return [Rows(times_ns, values, ids if ids.null_count < len(ids) else None)]


_READERS: dict[RowsFormat, Callable[[bytes, InfluxSeries], list[Rows]]] = {"csv": _rows_of_csv, "parquet": _rows_of_parquet}
