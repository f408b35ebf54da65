"""Samples from an InfluxDB 2 bucket: one query for many windows and all sources, and proof that the answer is whole.

InfluxDB can answer 200 and yet leave rows out: when a read is cut, when an error comes after the first rows, and when one query spans two
shards of which one holds the field as integers and the other as floats. So every read is counted by the database first, in ranges no shard
boundary can lie in, and no window is taken that holds fewer rows than were counted.
"""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import itertools
import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from anonymizer.cohorts import Cohort, label_of
from anonymizer.errors import SourceDenied, SourceError, SourceRefused, SourceUnavailable
from anonymizer.samples import NO_SOURCE, RowsBeside, Samples, make_samples
from anonymizer.windows import HOUR_NS, NANOSECONDS, Window, WindowRange
from inputs.influx_dialect import ID_TYPE, BrokenAnswer, Dialect, InfluxSeries, NotNumbers, Rows
from inputs.influx_dialects import dialect_of
from transport.influx_connection import BucketFacts, InfluxConnection, InfluxFault, looks_like_id

#: A question asked this long before the server's clock ticks over is asked at the right moment.
_CLOCK_TICK_S = 0.005

#: And so long after it.
_WAKES_LATE_S = 0.02

#: A clock is asked again after so long, to notice when it was set; and never more often than once a second.
_CLOCK_IS_FRESH_NS = 30 * NANOSECONDS
_LEAST_PAUSE_NS = NANOSECONDS

#: Clocks that differ by more are not late or early: one of them is wrong.
_MOST_DIFFERENCE_NS = 24 * HOUR_NS

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

#: Shard groups begin at multiples of their length from the year 1 on, whose first day was a Monday, as was 1969-12-29.
_FIRST_MONDAY_NS = -3 * 24 * HOUR_NS

#: So many pieces of time are asked for in one query, at most; each costs the server a millisecond.
_MOST_PIECES = 64

#: And about so many before an answer is given: forty years of weeks, or months of hours.
_MOST_ASKED = 2048

#: So many sources are named in each of them.
_FEW_SOURCES = 8


class InfluxSource:
    """Reads a bucket.

    Args:
        connection: With a token that may read the bucket.
        series: What to read of it.
    """

    #: The server looks for the next rows while the last ones are parsed here.
    concurrent_reads = 2
    data_set_tells_samples = False
    is_surveyed = False
    repeats = None
    inventory = None

    def __init__(self, connection: InfluxConnection, series: InfluxSeries) -> None:
        self._connection = connection
        self._series = series
        self._asked_ns = self._clock_asked_ns = self._answered_ns = time.monotonic_ns() - 2 * _CLOCK_IS_FRESH_NS
        self._clock_error: SourceError | None = None
        self._retention_ns = 0
        self._unknown_bucket = False
        self.may_have_a_namesake = False
        self._cohort_remark = ""
        self._shard_group_ns = HOUR_NS
        self.name = series.bucket
        self.data_set = self.data_set_address = ""

    def open(self) -> None:
        """See that the server answers and the bucket may be read. Raises as `SampleSource.open` says."""
        try:
            self._connection.ping()
        except InfluxFault as fault:
            if fault.status == 401 or fault.needs_setting:
                raise self._as_source_error(fault) from None
            if fault.is_unreachable_for_good:
                # At the start this is a setting; while a stream runs, it is something an operator will fix (`_as_source_error`).
                raise SourceRefused(f"InfluxDB at {self._connection.address.url} cannot be reached: {fault}") from None
            kind = SourceDenied if fault.is_denial else SourceUnavailable
            raise kind(f"InfluxDB at {self._connection.address.url} cannot be reached: {fault}") from None
        self._name_the_bucket()
        self._clock_asked_ns = time.monotonic_ns()
        self._ask_little()
        self._identify()
        self._look_for_the_cohort_tag()

    def look(self) -> None:
        """See that the bucket can still be read; raises as `open` does.

        A server that has just answered, or will be asked for its time within a second, is not asked once more.
        """
        error, self._clock_error = self._clock_error, None
        if error is not None:
            raise error
        has_just_answered = time.monotonic_ns() - self._answered_ns < _LEAST_PAUSE_NS
        if not (has_just_answered or self.clock_check_in_s() * NANOSECONDS < _LEAST_PAUSE_NS):
            self._ask_little()

    @property
    def server(self) -> str:
        """What the server is, and what it is asked in."""
        said = f" ({self._connection.version_text})" if self._connection.version_text else ""
        with self._only_source_errors():
            return f"{self._connection.version.title}{said}, asked in {self._dialect.name}"

    @property
    def remarks(self) -> tuple[str, ...]:
        """What a person should know: that the server tells no time, or nothing of the bucket, or that no row has the cohorts' tag."""
        url, bucket = self._connection.address.url, self._series.bucket
        remarks = []
        if self._connection.clock.is_silent:
            remarks.append(
                f"InfluxDB at {url}, or a proxy before it, sends no Date header that can be read: windows fall due by this machine's "
                "clock alone. Keep it right (NTP)"
            )
        if self._unknown_bucket:
            remarks.append(
                f"InfluxDB at {url} lets INFLUX_TOKEN read bucket {bucket!r} but not look it up: its retention and the length of its shard "
                "groups are not known, so rows that the retention has removed look as if they had never been there"
            )
        if self._cohort_remark:
            remarks.append(self._cohort_remark)
        return tuple(remarks)

    def now_ns(self) -> int | None:
        """Return the server's time, never ahead of it; ours when its answers tell no time. Asks when that would tell more."""
        now_ns = time.monotonic_ns()
        # A server that did not answer is asked again by the next look, not by every caller who wants the time.
        if self._clock_error is None and now_ns - self._asked_ns >= _LEAST_PAUSE_NS:
            is_stale = now_ns - self._clock_asked_ns > _CLOCK_IS_FRESH_NS
            if is_stale or self._is_good_moment():
                self._ask_clock()
        clock = self._connection.clock
        return time.time_ns() if clock.is_silent else clock.now_ns(time.monotonic_ns())

    def _is_good_moment(self) -> bool:
        """Return whether asking the server's clock now tells much: at the clock's tick, or just after it, since threads wake late."""
        moment_in_s = self.clock_check_in_s()
        return moment_in_s < _CLOCK_TICK_S or 1 - _WAKES_LATE_S < moment_in_s < 1

    def clock_check_in_s(self) -> float:
        """Return in how many seconds the server's clock ticks over such that asking it then halves the doubt."""
        now_ns, clock = time.monotonic_ns(), self._connection.clock
        question_ns = self._clock_asked_ns + _CLOCK_IS_FRESH_NS if clock.is_silent else clock.next_request_ns(now_ns)
        if question_ns is None:
            return math.inf
        if question_ns < self._asked_ns + _LEAST_PAUSE_NS:
            question_ns += _LEAST_PAUSE_NS  # the next tick tells as much
        return max(0, question_ns - now_ns) / NANOSECONDS

    def extent(self) -> None:
        """Return None: a bucket has no bounds of its own."""
        return

    def rows_beside(self, start_ns: int, end_ns: int) -> RowsBeside:
        """Return how many rows lack the cohorts' tag, and so belong to none. Every row of a bucket has a time; no others are counted."""
        cohort, found = self._series.cohort, 0
        if cohort is None or not cohort.value:
            return RowsBeside()
        # The same source, of the series that lack the tag.
        rest = copy.copy(self)
        rest._series = dataclasses.replace(self._series, tags=self._tags_without(cohort))
        while (row_ns := rest.next_row_ns(start_ns, end_ns)) is not None:
            hour_end_ns = (max(row_ns, start_ns) // HOUR_NS + 1) * HOUR_NS
            found += rest._rows_in(Window(max(row_ns, start_ns), min(hour_end_ns, end_ns)))
            if hour_end_ns >= end_ns:
                break
            start_ns = hour_end_ns
        return RowsBeside(not_requested=found)

    def _tags_without(self, cohort: Cohort) -> tuple[tuple[str, str], ...]:
        return tuple((tag, "" if tag == cohort.tag else value) for tag, value in self._series.tags)

    def _rows_in(self, span: Window) -> int:
        """Return how many rows the database counts in a span within one hour."""
        with self._only_source_errors():
            counted = self._dialect.counts(self._series, span, every_s=HOUR_NS // NANOSECONDS)
        return sum(int(rows.sum()) for _, rows in counted)

    def added_since(self, data_set: str) -> None:
        """Return None: a bucket is the same data set whatever is added."""
        return

    def earlier_version(self, is_known: Callable[[str], bool]) -> None:
        """Return None: a bucket is the same data set whatever is added."""
        return

    def kept_since_ns(self) -> int | None:
        """Return before which time the bucket's retention may have removed rows; None when it keeps them for ever or does not tell."""
        now_ns = self.now_ns()
        return now_ns - self._retention_ns if self._retention_ns and now_ns is not None else None

    def next_row_ns(self, start_ns: int, end_ns: int) -> int | None:
        """Return a time before which the span holds no row; None when the whole span holds none.

        The server is asked for the first and the last row of each shard group. It follows the type of the first shard it comes to: of a
        range that a field of another type lies in, it may say that there is nothing (decision 019).
        """
        pieces, asked, together = self._pieces(start_ns, end_ns), 0, 1
        while block := list(itertools.islice(pieces, together)):
            found = self._first_with_rows(block)
            if found is not None:
                return found
            asked, together = asked + len(block), min(4 * together, _MOST_PIECES)
            if asked >= _MOST_ASKED and block[-1].end_ns < end_ns:
                return block[-1].end_ns  # nothing so far; the caller must report progress now and then
        return None

    def _pieces(self, start_ns: int, end_ns: int) -> Iterator[Window]:
        """Yield the parts of a span that lie in one shard group each; what retention has removed long ago is left out."""
        kept_since_ns, group_ns = self.kept_since_ns(), self._shard_group_ns
        if kept_since_ns is not None:
            # A shard group is removed as a whole, some time after its last row is too old.
            start_ns = max(start_ns, kept_since_ns - group_ns - 24 * HOUR_NS)
        while start_ns < end_ns:
            next_ns = min(end_ns, ((start_ns - _FIRST_MONDAY_NS) // group_ns + 1) * group_ns + _FIRST_MONDAY_NS)
            yield Window(start_ns, next_ns)
            start_ns = next_ns

    def _first_with_rows(self, pieces: Sequence[Window]) -> int | None:
        """Return the first row's time in neighbouring pieces; where only the last row is found, the start of its piece."""
        at_ns = min(self._ends(pieces, "first", "last"), default=None)
        if at_ns is None:
            return None
        piece = next(piece for piece in pieces if at_ns < piece.end_ns)
        return min(self._ends([piece], "first"), default=piece.start_ns)

    def _ends(self, pieces: Sequence[Window], *ends: str) -> list[int]:
        """Return the times of the first or last rows of each series in each of the pieces."""
        # Rows of sources that were not asked for only make the answer too early; a long list of those that were makes it slow.
        sources = self._series.sources if len(self._series.sources) <= _FEW_SOURCES else ()
        with self._only_source_errors():
            return self._dialect.ends(dataclasses.replace(self._series, sources=sources), pieces, *ends)

    def count(self, windows: WindowRange) -> npt.NDArray[np.int64]:
        """Return how many rows the database counts in each window, shape (len(windows),)."""
        counts = np.zeros(len(windows), dtype=np.int64)
        for span in windows.cut_at_hours():
            with self._only_source_errors():
                counted = self._dialect.counts(self._series, span, every_s=windows.length_ns // NANOSECONDS)
            for times_ns, found in counted:
                np.add.at(counts, windows.index_of(times_ns), found)
        return counts

    def count_by_source(self, windows: WindowRange) -> list[Counter[str]]:
        """Return how many rows of each source the database counts in each window; the id of rows without a source is empty."""
        counts = [Counter[str]() for _ in windows]
        for span in windows.cut_at_hours():
            with self._only_source_errors():
                counted = self._dialect.counts_by_source(self._series, span, every_s=windows.length_ns // NANOSECONDS)
            for time_ns, source_id, rows in counted:
                counts[(time_ns - windows.start_ns) // windows.length_ns][source_id] += rows
        return counts

    def read(self, windows: WindowRange) -> Samples:
        """Return all rows the database answers with. Whether these are all there are, the caller checks against `count`."""
        parts = [part for span in windows.cut_at_hours() for part in self._rows(span)]
        if not parts:
            return make_samples([], [], (), [])
        named = _chunked(part.ids for part in parts).unify_dictionaries().combine_chunks()
        codes = pc.fill_null(named.indices, NO_SOURCE).to_numpy(zero_copy_only=False)
        values_uv = _chunked(part.values for part in parts).to_numpy() * self._series.microvolts_per_unit
        times_ns = _chunked(part.times_ns for part in parts).to_numpy()
        return make_samples(times_ns, codes, named.dictionary.to_pylist(), values_uv)

    def source_ids(self) -> list[str]:
        """Return all ids that the bucket names, also some whose rows were deleted. Raises as `look` does."""
        series = self._series
        return self._names(lambda: self._dialect.tag_values(series.bucket, series.measurement, series.source_tag))

    def advice_when_empty(self) -> str:
        """Return a sentence on what the bucket does hold."""
        try:
            measurements = self._names(lambda: self._dialect.measurements(self._series.bucket))
            if self._series.measurement not in measurements:
                held = ", ".join(map(repr, measurements)) or "none"
                return (
                    f"Bucket {self._series.bucket!r} has no measurement {self._series.measurement!r}; it has: {held}. "
                    "Set INFLUX_MEASUREMENT or INFLUX_INPUT_BUCKET."
                )
            fields = self._names(lambda: self._dialect.fields(self._series.bucket, self._series.measurement))
            if self._series.field not in fields:
                return self._where_the_field_is(fields)
            if missing := self._missing_cohort_tag(self._tags()):
                return f"{missing}. Set COHORT_TAG."
        except SourceError:
            pass
        cohort = "" if self._series.cohort is None else " COHORT_TAG, COHORT,"
        return (
            f"Bucket {self._series.bucket!r} holds nothing for measurement {self._series.measurement!r}, field "
            f"{self._series.field!r} at these times; check the times,{cohort} DEVICE_FILTER and INFLUX_TAG_FILTER."
        )

    def _where_the_field_is(self, fields: Sequence[str]) -> str:
        """Return a sentence on a field that the measurement does not have where it is read."""
        series = self._series
        if series.field in self._tag_keys():
            return f"{series.field!r} is a tag of measurement {series.measurement!r}, and no field. Set INFLUX_FIELD."
        if policies := self._names(lambda: self._dialect.policies_with(series)):
            return (
                f"Field {series.field!r} of measurement {series.measurement!r} is in retention policy {' and '.join(map(repr, policies))}, "
                "not in the one that is read. Set INFLUX_RETENTION_POLICY."
            )
        held = ", ".join(map(repr, fields)) or "none"
        return f"Measurement {series.measurement!r} has no field {series.field!r}; it has: {held}. Set INFLUX_FIELD."

    def hint_on_contradictions(self) -> str:
        """Return by what series of one source differ, and what InfluxDB does to values that were overwritten (decision 016)."""
        others = [tag for tag in self._tag_keys() if tag != self._series.source_tag]
        known = f"The measurement's other tags are: {', '.join(map(repr, others))}. " if others else ""
        return f"{known}{self._caution()}".strip()

    def _caution(self) -> str:
        try:
            with self._only_source_errors():
                return self._dialect.caution
        except SourceError:
            return ""

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _name_the_bucket(self) -> None:
        """Learn the name of a bucket that is given by its id: queries only know names."""
        given = self._series.bucket
        if not looks_like_id(given):
            return
        try:
            name = self._connection.name_of_bucket(given)
        except InfluxFault as fault:
            raise self._as_source_error(fault) from None
        if name is None:
            raise SourceDenied(
                f"INFLUX_INPUT_BUCKET={given} looks like the id of a bucket, and InfluxDB at {self._connection.address.url} does not tell "
                "INFLUX_TOKEN of one bucket that it names: set INFLUX_INPUT_BUCKET to the bucket's name"
            )
        self._series = dataclasses.replace(self._series, bucket=name)
        self.name = name

    def _identify(self) -> None:
        """Learn what tells this data set from others: the bucket by its id, which stays the same when the server's address changes.

        A token that may not look the bucket up, and perhaps one day may, sees only where it is. Learns the bucket's retention too.
        """
        series, address, facts = self._series, self._connection.address, self._bucket_facts()
        if facts is not None and facts.shard_group_s * NANOSECONDS % HOUR_NS:
            raise SourceRefused(
                f"bucket {series.bucket!r} has shard groups of {facts.shard_group_s} s; only whole hours can be read without losing rows "
                "where the field's type changes: influx bucket update --id ID --shard-group-duration 1h"
            )
        self._unknown_bucket = facts is None
        self.may_have_a_namesake = facts is not None and facts.is_told_apart_by_name
        self._retention_ns = facts.retention_s * NANOSECONDS if facts is not None else 0
        self._shard_group_ns = facts.shard_group_s * NANOSECONDS if facts is not None and facts.shard_group_s else HOUR_NS
        self.data_set_address = self._digest(address.url, address.org, series.bucket)
        self.data_set = self.data_set_address if facts is None else self._digest(facts.id)

    def _look_for_the_cohort_tag(self) -> None:
        """Refuse to take all rows for those without a tag that no row has, as it is with a misspelt COHORT_TAG."""
        cohort = self._series.cohort
        missing = self._missing_cohort_tag(self._tags()) if cohort is not None else ""
        if missing and cohort is not None and not cohort.value:
            raise SourceRefused(
                f"{missing}, so without COHORT this service would release all rows. Set COHORT_TAG, or leave it empty too"
            )
        self._cohort_remark = f"{missing}. There is nothing to release until rows have it; check COHORT_TAG" if missing else ""

    def _missing_cohort_tag(self, held: Sequence[str]) -> str:
        """Return that the measurement has tags, and that of the cohorts is none of them; empty when that is not so."""
        cohort = self._series.cohort
        if cohort is None or not held or cohort.tag in held:
            return ""
        return f"Measurement {self._series.measurement!r} has no tag {cohort.tag!r}; it has: {', '.join(map(repr, held))}"

    def _bucket_facts(self) -> BucketFacts | None:
        try:
            return self._connection.bucket(self._series.bucket)
        except InfluxFault as fault:
            if fault.status in (403, 404, 405):
                return None  # it was read just now: only the list of buckets is closed to us
            raise self._as_source_error(fault) from None

    def _digest(self, *bucket: str) -> str:
        base = hashlib.sha256("\0".join((*bucket, self._series.measurement, self._series.field)).encode()).hexdigest()[:12]
        return label_of(base, self._series.cohort)

    def _ask_clock(self) -> None:
        self._clock_asked_ns = time.monotonic_ns()
        try:
            self._ask_little()
        except SourceError as error:
            self._clock_error = error  # raised by the next look; who only asks for the time does not expect it
        else:
            self._clock_error = None

    def _ask_little(self) -> None:
        """Ask what costs nothing: it tells the time, and shows what is wrong with address, token and names."""
        # Noted before the answer: a server that does not answer is asked no more often.
        self._asked_ns = time.monotonic_ns()
        with self._only_source_errors():
            self._dialect.look(self._series)
        self._answered_ns = time.monotonic_ns()
        self._check_clocks()

    def _check_clocks(self) -> None:
        theirs_ns, ours_ns = self._connection.clock.now_ns(time.monotonic_ns()), time.time_ns()
        if theirs_ns is not None and abs(theirs_ns - ours_ns) > _MOST_DIFFERENCE_NS:
            raise SourceDenied(
                f"InfluxDB at {self._connection.address.url}, or a proxy before it, says it is {_shown(theirs_ns)} (Date header), this "
                f"machine says {_shown(ours_ns)}: one of the clocks is wrong by more than a day, so it is unclear which windows are due. "
                "Set it right (NTP)"
            )

    def _rows(self, span: Window) -> list[Rows]:
        """Return the rows of a span, all with ids."""
        with self._only_source_errors():
            parts = self._dialect.rows(self._series, span)
        if self._series.has_sources and any(part.ids is None for part in parts):
            self._check_source_tag()
        return [part if part.ids is not None else _without_ids(part) for part in parts]

    def _check_source_tag(self) -> None:
        """Refuse a tag that the measurement does not have; rows that lack one it has are rows without a source."""
        series, held = self._series, self._tag_keys()
        if series.source_tag not in held:
            raise SourceRefused(
                f"measurement {series.measurement!r} has no tag {series.source_tag!r}, so wearers could not be told apart; "
                f"it has: {', '.join(map(repr, held)) or 'none'}. Set SOURCE_TAG."
            )

    @cached_property
    def _dialect(self) -> Dialect:
        return dialect_of(self._connection)

    @contextmanager
    def _only_source_errors(self) -> Iterator[None]:
        """Translate what goes wrong while the server is asked."""
        try:
            yield
        except InfluxFault as fault:
            raise self._as_source_error(fault) from None
        except BrokenAnswer as error:
            raise SourceUnavailable(f"InfluxDB broke off its answer: {error}") from None
        except NotNumbers as found:
            raise SourceRefused(
                f"field {self._series.field!r} of measurement {self._series.measurement!r} holds {found.kind} values; numbers are needed, "
                "see INFLUX_FIELD"
            ) from None

    def _as_source_error(self, fault: InfluxFault) -> SourceError:
        address = self._connection.address
        if fault.needs_setting:
            return SourceRefused(f"InfluxDB at {address.url} cannot be read: {fault}")
        if fault.is_unreachable_for_good:
            return SourceDenied(f"InfluxDB at {address.url} cannot be reached: {fault}", was_reached=False)
        if fault.status == 401:
            return SourceDenied(f"InfluxDB at {address.url} refuses {self._connection.credentials} ({fault})")
        if fault.says_there_is_no_organization:
            return SourceDenied(
                f"InfluxDB at {address.url} has no organization {address.org!r} for this token ({fault}): check {address.org_setting}"
            )
        if fault.status in (403, 404):
            return SourceDenied(
                f"bucket {self._series.bucket!r} does not exist or {self._connection.credentials} may not read it ({fault}): "
                + self._series.remedy
            )
        if fault.status == 400:
            return SourceRefused(
                f"InfluxDB cannot answer the query ({fault}); is the field of one type, and does the server speak Flux?"
            )
        kind = SourceDenied if fault.is_denial else SourceUnavailable
        return kind(f"InfluxDB at {address.url} does not answer the query: {fault}")

    def _names(self, ask: Callable[[], list[str]]) -> list[str]:
        with self._only_source_errors():
            return ask()

    def _tags(self) -> list[str]:
        return self._names(lambda: self._dialect.tags(self._series.bucket, self._series.measurement))

    def _tag_keys(self) -> list[str]:
        try:
            return self._tags()
        except SourceError:
            return []


def _shown(time_ns: int) -> str:
    """Return a time, to the second, of any year that a `Date` header can name."""
    return f"{_EPOCH + timedelta(seconds=time_ns // NANOSECONDS):%Y-%m-%d %H:%M:%S} UTC"


def _without_ids(part: Rows) -> Rows:
    return dataclasses.replace(part, ids=pa.chunked_array([pa.nulls(len(part.times_ns), ID_TYPE)]))


def _chunked(columns: Iterable[pa.ChunkedArray | None]) -> pa.ChunkedArray:
    return pa.chunked_array([piece for column in columns if column is not None for piece in column.chunks])
