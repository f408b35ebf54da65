"""Queries InfluxDB 2 in Flux."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from anonymizer.windows import Window
from inputs.flux_csv import TIME_TYPE, FluxTable, read_tables, times_as_ns
from inputs.flux_text import flux_list, flux_text
from inputs.influx_dialect import ID_TYPE, InfluxSeries, NotNumbers, Rows, any_of
from transport.influx_connection import InfluxConnection

_Parsed = TypeVar("_Parsed")

_NUMERIC_TYPES = ("double", "long", "unsignedLong")

#: Limit for the smallest query; large ones may take longer.
_LONGEST_LOOK_S = 5.0


class FluxDialect:
    """What `Dialect` says.

    Args:
        connection: With a token that may read.
    """

    name = "Flux"
    caution = "InfluxDB up to 2.7.12 answers with overwritten values for some minutes: wait ten minutes."

    def __init__(self, connection: InfluxConnection) -> None:
        self._connection = connection

    def look(self, series: InfluxSeries) -> None:
        """Query a range of one nanosecond, which costs nothing."""
        self._parsed(_select(series, Window(0, 1)), lambda table: table.names, within_s=_LONGEST_LOOK_S)

    def counts(
        self, series: InfluxSeries, span: Window, *, every_s: int
    ) -> list[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
        """Return when windows begin, or the span where it begins within one, and how many rows each holds."""
        return self._parsed(_count(series, span, every_s, "_time", "_value"), _counted)

    def counts_by_source(self, series: InfluxSeries, span: Window, *, every_s: int) -> list[tuple[int, str, int]]:
        """Return the same for each series, with its source. The server counts series one by one anyway."""
        flux = _count(series, span, every_s, "_time", "_value", series.source_tag)
        return [row for part in self._parsed(flux, lambda table: _counted_by_source(table, series)) for row in part]

    def rows(self, series: InfluxSeries, span: Window) -> list[Rows]:
        """Return a part for each table of the answer, or of each part of one."""
        columns = flux_list(("_time", "_value", series.source_tag))
        # Every row of the answer says of which result it is; the usual name takes an eighth of the answer.
        flux = f'{_select(series, span)} |> keep(columns: {columns}) |> group() |> yield(name: "r")'
        return self._parsed(flux, lambda table: _rows(table, series))

    def ends(self, series: InfluxSeries, pieces: Sequence[Window], *ends: str) -> list[int]:
        """Query all of them at once.

        The server assumes the type in the first shard: for a piece where the field has another type, it may return
        nothing (decision 019).
        """
        asked = [
            f'{_select(series, piece)} |> {end}() |> keep(columns: ["_time"]) |> group()' for piece in pieces for end in ends
        ]
        return self._times(asked[0] if len(asked) == 1 else f"union(tables: [{', '.join(asked)}])")

    def measurements(self, bucket: str) -> list[str]:
        """Return the measurements' names."""
        return self._schema("measurements", bucket)

    def fields(self, bucket: str, measurement: str) -> list[str]:
        """Return the names of a measurement's fields."""
        return self._schema("measurementFieldKeys", bucket, measurement)

    def tags(self, bucket: str, measurement: str) -> list[str]:
        """Return the names of a measurement's tags."""
        return [tag for tag in self._schema("measurementTagKeys", bucket, measurement) if not tag.startswith("_")]

    def tag_values(self, bucket: str, measurement: str, tag: str) -> list[str]:
        """Return the values of a measurement's tag."""
        return self._schema("measurementTagValues", bucket, measurement, f", tag: {flux_text(tag)}")

    def policies_with(self, series: InfluxSeries) -> list[str]:
        """Return none: a bucket has one policy."""
        return []

    def first_times(self, bucket: str, measurement: str, field: str, span: Window) -> list[int]:
        """Return the time of each series' first point."""
        return self._times(f'{_from(bucket, measurement, field, span)} |> first() |> keep(columns: ["_time"])')

    def last_texts(self, bucket: str, measurement: str, field: str, span: Window) -> list[str]:
        """Return each series' last value."""
        return self._texts(f'{_from(bucket, measurement, field, span)} |> last() |> keep(columns: ["_value"])')

    def texts(self, bucket: str, measurement: str, field: str, span: Window) -> list[str]:
        """Return the values of a field with text."""
        return self._texts(f'{_from(bucket, measurement, field, span)} |> keep(columns: ["_value"]) |> group()')

    def _schema(self, question: str, bucket: str, measurement: str | None = None, of_tag: str = "") -> list[str]:
        of_measurement = of_tag if measurement is None else f", measurement: {flux_text(measurement)}{of_tag}"
        flux = (
            'import "influxdata/influxdb/schema" '
            f"schema.{question}(bucket: {flux_text(bucket)}{of_measurement}, start: 1970-01-01T00:00:00Z)"
        )
        return self._texts(flux, may_be_empty=False)

    def _times(self, flux: str) -> list[int]:
        parts = self._parsed(flux, lambda table: times_as_ns(table.columns([("_time", TIME_TYPE)])[0]).to_pylist())
        return [int(time_ns) for part in parts for time_ns in part]

    def _texts(self, flux: str, *, may_be_empty: bool = True) -> list[str]:
        parts = self._parsed(flux, lambda table: table.texts("_value"), skips_empty=may_be_empty)
        return [text for part in parts for text in part]

    def _parsed(
        self, flux: str, parse: Callable[[FluxTable], _Parsed], *, skips_empty: bool = True, within_s: float = math.inf
    ) -> list[_Parsed]:
        """Return what is made of each table of the answer, or of each part of a long one, while the rest arrives."""
        with self._connection.answer_to(flux, within_s=within_s) as blocks:
            return [parse(table) for table in read_tables(blocks) if table.body or not skips_empty]


def _select(series: InfluxSeries, span: Window) -> str:
    """Return the beginning of a query for the rows of a span."""
    return f"{_range(series.bucket, span)} |> filter(fn: (r) => {' and '.join(_conditions(series))})"


def _conditions(series: InfluxSeries) -> Iterator[str]:
    yield f'r["_measurement"] == {flux_text(series.measurement)}'
    yield f'r["_field"] == {flux_text(series.field)}'
    for tag, value in series.tags:
        yield f"r[{flux_text(tag)}] == {flux_text(value)}" if value else f"not exists r[{flux_text(tag)}]"
    if series.sources:
        tag = flux_text(series.source_tag)
        yield any_of([f"r[{tag}] == {flux_text(source)}" for source in series.sources], "or")


def _count(series: InfluxSeries, span: Window, every_s: int, *columns: str) -> str:
    """Return a query for how many rows each series has in windows."""
    return (
        f"{_select(series, span)} |> aggregateWindow(every: {every_s}s, fn: count, createEmpty: false, timeSrc: "
        f'"_start") |> keep(columns: {flux_list(columns)}) |> group()'
    )


def _from(bucket: str, measurement: str, field: str, span: Window) -> str:
    """Return the beginning of a query for all points of a field in a span."""
    conditions = f'r["_measurement"] == {flux_text(measurement)} and r["_field"] == {flux_text(field)}'
    return f"{_range(bucket, span)} |> filter(fn: (r) => {conditions})"


def _range(bucket: str, span: Window) -> str:
    return f"from(bucket: {flux_text(bucket)}) |> range(start: time(v: {span.start_ns}), stop: time(v: {span.end_ns}))"


def _counted(table: FluxTable) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    times, counts = table.columns([("_time", TIME_TYPE), ("_value", pa.int64())])
    return times_as_ns(times).to_numpy(), counts.to_numpy()


def _counted_by_source(table: FluxTable, series: InfluxSeries) -> Iterator[tuple[int, str, int]]:
    times_ns, rows = _counted(table)
    ids = table.texts(series.source_tag) if series.source_tag in table.names else [""] * len(rows)
    return zip(times_ns.tolist(), ids, rows.tolist(), strict=True)


def _rows(table: FluxTable, series: InfluxSeries) -> Rows:
    kind = table.type_of("_value")
    if kind not in _NUMERIC_TYPES:
        raise NotNumbers(str(kind))
    wanted: list[tuple[str, pa.DataType]] = [("_time", TIME_TYPE), ("_value", pa.float64())]
    if series.source_tag in table.names:
        wanted.append((series.source_tag, ID_TYPE))
    times, values, *ids = table.columns(wanted)
    return Rows(times_as_ns(times), values, ids[0] if ids else None)
