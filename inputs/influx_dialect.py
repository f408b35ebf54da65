"""The queries that are sent to an InfluxDB, behind one interface for each query language.

`inputs/influx_dialects.py` chooses the dialect by the server's version.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from anonymizer.cohorts import Cohort
from anonymizer.windows import Window

#: Type of source ids: each name is stored once.
ID_TYPE = pa.dictionary(pa.int32(), pa.string())


class BrokenAnswer(Exception):
    """The answer is not whole, or reports an error after it began well: a retry may succeed. The message contains no value."""


class NotNumbers(Exception):
    """The field contains values other than numbers.

    Args:
        kind: The server's name of the type, such as `string`.
    """

    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        self.kind = kind


#: What to do where the output bucket cannot be read.
OUTPUT_REMEDY = "check INFLUX_OUTPUT_BUCKET, or set INFLUX_VERIFY_TOKEN to a token that can read both buckets"


@dataclass(frozen=True, slots=True, kw_only=True)
class InfluxSeries:
    """What to read.

    Args:
        bucket: The raw bucket.
        measurement: The measurement.
        field: Its field with the value.
        source_tag: The tag that names the source.
        sources: Only these; empty: all.
        tags: Only series with these tags and values; an empty value: only series without the tag.
        cohort: Which part of the bucket this is, whose tag is among `tags`; None: the bucket is not cut into cohorts.
        microvolts_per_unit: 1 when values are microvolts, 1000 when they are millivolts.
        has_sources: Whether its rows are of sources; false for counts of windows, where the tag may be missing.
        remedy: What to do where the bucket cannot be read, for messages.
    """

    bucket: str
    measurement: str
    field: str
    source_tag: str
    sources: tuple[str, ...] = ()
    tags: tuple[tuple[str, str], ...] = ()
    cohort: Cohort | None = None
    microvolts_per_unit: float = 1.0
    has_sources: bool = True
    remedy: str = "check INFLUX_INPUT_BUCKET and the token's permissions"


@dataclass(frozen=True, eq=False)
class Rows:
    """A part of an answer.

    Args:
        times_ns: int64, nanoseconds since the epoch.
        values: float64, as they are stored.
        ids: Source ids as `ID_TYPE`; null where a row has none. None when no row of the answer has that tag.
    """

    times_ns: pa.ChunkedArray
    values: pa.ChunkedArray
    ids: pa.ChunkedArray | None


class Dialect(Protocol):
    """Queries one server in its language. Spans never cross a whole hour unless stated.

    Every method raises InfluxFault when the server does not do what was asked, and BrokenAnswer when its answer is not whole.
    """

    #: Of the language.
    name: str

    #: A note for operators on wrong values that the server may return for a while; empty: none.
    caution: str

    def look(self, series: InfluxSeries) -> None:
        """Send the cheapest query that shows whether address, credentials and names are right."""

    def counts(
        self, series: InfluxSeries, span: Window, *, every_s: int
    ) -> list[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
        """Return a time in each window that holds rows, and how many; windows of `every_s` seconds are aligned with the epoch."""

    def counts_by_source(self, series: InfluxSeries, span: Window, *, every_s: int) -> list[tuple[int, str, int]]:
        """Return the same for each source, with its id between time and count, empty for rows without one; may repeat a source."""

    def rows(self, series: InfluxSeries, span: Window) -> list[Rows]:
        """Return all rows of a span.

        Raises:
            NotNumbers: The field holds something else there.
        """

    def ends(self, series: InfluxSeries, pieces: Sequence[Window], *ends: str) -> list[int]:
        """Return the times of the `first` or `last` rows of each series in each of the pieces, of one shard group each."""

    def measurements(self, bucket: str) -> list[str]:
        """Return the measurements' names."""

    def fields(self, bucket: str, measurement: str) -> list[str]:
        """Return the names of a measurement's fields."""

    def tags(self, bucket: str, measurement: str) -> list[str]:
        """Return the names of a measurement's tags."""

    def tag_values(self, bucket: str, measurement: str, tag: str) -> list[str]:
        """Return the values of a measurement's tag; also some whose points were deleted."""

    def policies_with(self, series: InfluxSeries) -> list[str]:
        """Return other retention policies of the same database that hold the series' field."""

    def first_times(self, bucket: str, measurement: str, field: str, span: Window) -> list[int]:
        """Return the time of each series' first point in a span of any length."""

    def last_texts(self, bucket: str, measurement: str, field: str, span: Window) -> list[str]:
        """Return each series' last value in a span of any length; the field holds text."""

    def texts(self, bucket: str, measurement: str, field: str, span: Window) -> list[str]:
        """Return the values of a field with text, in a span of any length."""


def any_of(conditions: Sequence[str], word: str) -> str:
    """Return what holds where one of the conditions does: groups of them in brackets, all joined by `word`.

    In one row, Flux refuses a few hundred as nested too deep, and thousands end the process of an InfluxDB 3; which in turn needs twice the
    time for each bracket within brackets.
    """
    size = math.isqrt(len(conditions) - 1) + 1
    groups = [f" {word} ".join(conditions[first : first + size]) for first in range(0, len(conditions), size)]
    return "(" + f" {word} ".join(f"({group})" for group in groups) + ")"
