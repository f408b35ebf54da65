"""Parses times in files: ISO 8601 in all its forms, and epoch seconds, milliseconds, microseconds or nanoseconds.

Each cell is parsed alone and keeps its kind. `inputs/file_survey.py` decides over the whole file which kinds count as times, because one
number alone does not show its unit.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from anonymizer.errors import SourceRefused
from anonymizer.windows import NANOSECONDS
from inputs.file_text import as_text, is_missing, type_name

_DAY_S = 86_400

#: Years 1678 to 2261: the range of 64-bit nanoseconds, with room for the windows around it.
FIRST_S, END_S = (int(np.datetime64(day, "s").astype(np.int64)) for day in ("1678-01-01", "2262-01-01"))

#: The largest 64-bit nanosecond time.
_MOST_NS = 2**63 - 1

#: The ranges of the years 1990 to 2099 in each unit do not overlap, so such a number has at most one unit.
_FIRST_EPOCH_S, _END_EPOCH_S = (int(np.datetime64(day, "s").astype(np.int64)) for day in ("1990-01-01", "2100-01-01"))


class TimeKind(IntEnum):
    """Kinds of time cells."""

    MISSING = 0
    UNREADABLE = 1
    #: A time that 64 bits of nanoseconds cannot hold, such as the year 9999.
    BEYOND = 2
    CALENDAR = 3
    #: 23:59:60 UTC, stored as the second after it.
    LEAP_SECOND = 4
    SECONDS = 5
    MILLISECONDS = 6
    MICROSECONDS = 7
    NANOSECONDS = 8
    #: A number that is not an epoch time of the years 1990 to 2099 in any unit.
    OTHER_NUMBER = 9
    #: A calendar time in text without a zone, taken as UTC.
    WITHOUT_ZONE = 10


CALENDAR_KINDS = (TimeKind.CALENDAR, TimeKind.LEAP_SECOND, TimeKind.WITHOUT_ZONE)
EPOCH_KINDS = (TimeKind.SECONDS, TimeKind.MILLISECONDS, TimeKind.MICROSECONDS, TimeKind.NANOSECONDS)
NUMBER_KINDS = (*EPOCH_KINDS, TimeKind.OTHER_NUMBER)

_NS_OF_KIND = {
    TimeKind.SECONDS: NANOSECONDS,
    TimeKind.MILLISECONDS: 1_000_000,
    TimeKind.MICROSECONDS: 1_000,
    TimeKind.NANOSECONDS: 1,
}

#: Units of times, in nanoseconds.
UNIT_NS = {"s": NANOSECONDS, "ms": 1_000_000, "us": 1_000, "ns": 1}

_CLOCK = (
    r"(?P<hour>\d{2})(?::?(?P<minute>\d{2})(?::?(?P<second>\d{2}))?)?(?:[.,](?P<fraction>\d+))?"
    r"\s*(?P<zone>[Zz]|UTC|(?P<zone_hour>[+\-\x{2212}]\d{2}):?(?P<zone_minute>\d{2})?)?"
)

_DATES = {
    "day": r"(?P<year>\d{4})-(?P<month>\d{2})-(?P<day>\d{2})",
    "basic day": r"(?P<year>\d{4})(?P<month>\d{2})(?P<day>\d{2})",
    "day of year": r"(?P<year>\d{4})-?(?P<day>\d{3})",
    "week": r"(?P<year>\d{4})-?W(?P<week>\d{2})-?(?P<day>\d)",
}

#: A basic date or basic day of the year is a plain number, so these two need a time of day.
_FORMS = (
    ("day", rf"^\s*{_DATES['day']}(?:[Tt ]{_CLOCK})?\s*$"),
    ("basic day", rf"^\s*{_DATES['basic day']}[Tt ]{_CLOCK}\s*$"),
    ("day of year", rf"^\s*{_DATES['day of year']}[Tt ]{_CLOCK}\s*$"),
    ("day of year", r"^\s*(?P<year>\d{4})-(?P<day>\d{3})\s*$"),
    ("week", rf"^\s*{_DATES['week']}(?:[Tt ]{_CLOCK})?\s*$"),
)

_NUMBER = r"^\s*(?P<sign>[+-]?)(?P<whole>\d{1,19})(?:[.,](?P<fraction>\d*))?\s*$"


@dataclass(frozen=True, slots=True, eq=False)
class Times:
    """The times of a column.

    Args:
        times_ns: Nanoseconds since the epoch, shape (n,), int64; 0 for a kind without a time.
        kinds: `TimeKind` of each cell, shape (n,), int8.
    """

    times_ns: npt.NDArray[np.int64]
    kinds: npt.NDArray[np.int8]


_Fields = dict[str, npt.NDArray[np.int64]]


def times(column: pa.ChunkedArray) -> Times:
    """Return the times of a column; those without a zone are taken as UTC.

    Raises:
        SourceRefused: The column's type is neither text, numeric nor a time.
    """
    column = as_text(column)
    kind = column.type
    if pa.types.is_string(kind):
        return _text_times(column)
    if pa.types.is_timestamp(kind):
        return _scaled(column.cast(pa.int64()), UNIT_NS[kind.unit])
    if pa.types.is_date32(kind):
        return _scaled(column.cast(pa.int32()).cast(pa.int64()), _DAY_S * NANOSECONDS)
    if pa.types.is_date64(kind):
        return _scaled(column.cast(pa.int64()), 1_000_000)
    if pa.types.is_integer(kind):
        # An unsigned number that wraps to below zero is not an epoch time in any unit, before or after.
        counts = _array(column).astype(np.int64)
        return _epoch_times(counts, np.zeros(len(column), np.int64), _array(column.is_null(), False))
    if pa.types.is_float64(kind):
        return _float_times(column)
    if pa.types.is_decimal(kind):
        return _text_times(column.cast(pa.string()))
    if pa.types.is_null(kind):
        return Times(np.zeros(len(column), np.int64), np.full(len(column), TimeKind.MISSING, np.int8))
    # 32-bit floats resolve today's times to two minutes only.
    raise SourceRefused(f"INPUT_FILE: column timestamp must hold times, got {type_name(kind)}")


def _array(column: pa.ChunkedArray, default: int | bool = 0) -> npt.NDArray[np.int64]:
    found: npt.NDArray[np.int64] = pc.fill_null(column, default).to_numpy()
    return found


def _scaled(units: pa.ChunkedArray, unit_ns: int) -> Times:
    """Return times counted in units since the epoch."""
    return calendar_times(_array(units), _array(units.is_null(), False).astype(np.bool_), unit_ns)


def calendar_times(counts: npt.NDArray[np.int64], is_null: npt.NDArray[np.bool_], unit_ns: int) -> Times:
    """Return times counted in units since the epoch; `is_null` marks cells without a time, shape (n,), bool."""
    first, end = FIRST_S * NANOSECONDS // unit_ns, END_S * NANOSECONDS // unit_ns
    if len(counts) and first <= counts.min() and counts.max() < end and not is_null.any():
        return Times(counts * unit_ns, np.full(len(counts), TimeKind.CALENDAR, np.int8))
    fits = (counts >= first) & (counts < end)
    kinds = np.where(is_null, TimeKind.MISSING, np.where(fits, TimeKind.CALENDAR, TimeKind.BEYOND)).astype(np.int8)
    return Times(np.where(fits, counts, 0).astype(np.int64) * unit_ns, kinds)


def _text_times(texts: pa.ChunkedArray) -> Times:
    """Parse times in text. Arrow's own parser comes first: it reads the usual forms and is far faster."""
    for form in (pa.timestamp("ns", "UTC"), pa.timestamp("ns")):
        try:
            found = _scaled(pc.cast(texts, form).cast(pa.int64()), 1)
            if form.tz is None:
                found.kinds[found.kinds == TimeKind.CALENDAR] = TimeKind.WITHOUT_ZONE
            return found
        except pa.ArrowInvalid:
            continue
    found = Times(np.zeros(len(texts), np.int64), np.full(len(texts), TimeKind.UNREADABLE, np.int8))
    missing = is_missing(texts)
    found.kinds[missing] = TimeKind.MISSING
    rest = np.flatnonzero(~missing)
    for name, form in _FORMS:
        rest = _fill_in(found, texts, rest, form, name)
    _fill_in(found, texts, rest, _NUMBER, "number")
    return found


def _fill_in(found: Times, texts: pa.ChunkedArray, rows: npt.NDArray[np.intp], form: str, name: str) -> npt.NDArray[np.intp]:
    """Parse the rows that match the pattern; return the others."""
    if not len(rows):
        return rows
    some = texts if len(rows) == len(texts) else texts.take(pa.array(rows))
    fields = pc.extract_regex(some, form).combine_chunks()
    if isinstance(fields, pa.ChunkedArray):
        fields = pa.concat_arrays(fields.chunks)
    matches = fields.is_valid().to_numpy(zero_copy_only=False)
    if matches.any():
        parsed = (_numbers_of if name == "number" else _calendar)(fields.filter(pa.array(matches)), name)
        found.times_ns[rows[matches]] = parsed.times_ns
        found.kinds[rows[matches]] = parsed.kinds
    left: npt.NDArray[np.intp] = rows[~matches]
    return left


def _integers(texts: pa.Array) -> npt.NDArray[np.int64]:
    """Return digits as integers; 0 for an empty text."""
    plain = pc.replace_substring(pc.replace_substring(texts, "+", ""), "\N{MINUS SIGN}", "-")
    filled = pc.if_else(pc.equal(texts, ""), "0", plain)
    whole: npt.NDArray[np.int64] = filled.cast(pa.int64()).to_numpy(zero_copy_only=False)
    return whole


def _billionths(digits: pa.Array) -> npt.NDArray[np.int64]:
    """Return the digits of a fraction as billionths; what follows the ninth is dropped."""
    return _integers(pc.utf8_rpad(pc.utf8_slice_codeunits(digits, 0, 9), 9, "0"))


def _calendar(fields: pa.StructArray, form: str) -> Times:
    has = {field.name for field in fields.type}
    none = pa.array(np.full(len(fields), ""))
    texts = {
        name: fields.field(name) if name in has else none
        for name in ("hour", "minute", "second", "zone", "zone_hour", "zone_minute")
    }
    numbers = {name: _integers(texts[name]) for name in texts if name != "zone"}
    dates = {name: _integers(fields.field(name)) for name in ("year", "month", "day", "week") if name in has}
    days, is_date = _days(dates, form)
    fraction_ns, is_leap, is_clock = _clock(fields.field("fraction") if "fraction" in has else none, texts, numbers)
    zone_s = numbers["zone_hour"] * 3600
    is_west = pc.invert(pc.or_(pc.starts_with(texts["zone_hour"], "+"), pc.equal(texts["zone_hour"], ""))).to_numpy(
        zero_copy_only=False
    )
    zone_s += np.where(is_west, -60, 60) * numbers["zone_minute"]
    is_zone = (np.abs(numbers["zone_hour"]) <= 23) & (numbers["zone_minute"] <= 59)
    seconds = days * _DAY_S + numbers["hour"] * 3600 + numbers["minute"] * 60 + numbers["second"] - zone_s
    # A leap second is only valid at 23:59:60 UTC, where the second after it begins a day.
    is_time = is_date & is_clock & is_zone & (~is_leap | (seconds % _DAY_S == 0))
    seconds += fraction_ns // NANOSECONDS
    fits = (seconds >= FIRST_S) & (seconds < END_S)
    has_zone = pc.not_equal(texts["zone"], "").to_numpy(zero_copy_only=False)
    kinds = np.where(is_leap, TimeKind.LEAP_SECOND, np.where(has_zone, TimeKind.CALENDAR, TimeKind.WITHOUT_ZONE))
    kinds = np.where(is_time, np.where(fits, kinds, TimeKind.BEYOND), TimeKind.UNREADABLE).astype(np.int8)
    return Times(
        np.where(fits & is_time, seconds, 0) * NANOSECONDS + np.where(fits & is_time, fraction_ns % NANOSECONDS, 0), kinds
    )


def _clock(
    fraction: pa.Array, texts: dict[str, pa.Array], numbers: _Fields
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Return the fraction in nanoseconds (of the smallest unit given), which cells are leap seconds, and which are valid times of day."""
    unit_s = np.where(
        pc.not_equal(texts["second"], "").to_numpy(zero_copy_only=False),
        1,
        np.where(pc.not_equal(texts["minute"], "").to_numpy(zero_copy_only=False), 60, 3600),
    )
    fraction_ns = _billionths(fraction) * unit_s
    hour, minute, second = (numbers[name] for name in ("hour", "minute", "second"))
    is_leap = second == 60
    is_midnight = (hour == 24) & (minute == 0) & (second == 0) & (fraction_ns == 0)
    return fraction_ns, is_leap, ((hour <= 23) & (minute <= 59) & (second <= 60)) | is_midnight


def _days(dates: _Fields, form: str) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Return dates as days since the epoch, and which of them exist."""
    year = dates["year"] - 1970
    if form == "week":
        # Week 1 is the one with January 4.
        fourth = _first_of(year) + 3
        monday = fourth - (fourth + 3) % 7
        days = monday + 7 * (dates["week"] - 1) + dates["day"] - 1
        next_fourth = _first_of(year + 1) + 3
        next_monday = next_fourth - (next_fourth + 3) % 7
        return days, (dates["week"] >= 1) & (dates["day"] >= 1) & (dates["day"] <= 7) & (days < next_monday)
    if form == "day of year":
        days = _first_of(year) + dates["day"] - 1
        return days, (dates["day"] >= 1) & (days < _first_of(year + 1))
    month = np.clip(dates["month"], 1, 12)
    months = (year * 12 + month - 1).astype("datetime64[M]")
    first, end = (at.astype("datetime64[D]").astype(np.int64) for at in (months, months + 1))
    days = first + dates["day"] - 1
    return days, (month == dates["month"]) & (dates["day"] >= 1) & (days < end)


def _first_of(year_since_1970: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    return year_since_1970.astype("datetime64[Y]").astype("datetime64[D]").astype(np.int64)


def _numbers_of(fields: pa.StructArray, _: str) -> Times:
    whole = fields.field("whole")
    is_positive = pc.not_equal(fields.field("sign"), "-").to_numpy(zero_copy_only=False)
    # More digits than 64 bits hold; no epoch time has so many.
    fits = pc.less(whole.cast(pa.float64()), 9.2e18)
    counts = pc.if_else(fits, whole, "0").cast(pa.int64()).to_numpy(zero_copy_only=False)
    none_null = np.zeros(len(fields), np.bool_)
    return _epoch_times(np.where(is_positive, counts, 0), _billionths(fields.field("fraction")), none_null)


def _float_times(column: pa.ChunkedArray) -> Times:
    values: npt.NDArray[np.float64] = pc.fill_null(column.cast(pa.float64()), np.nan).to_numpy()
    is_null = ~np.isfinite(values)
    usable = np.where(is_null | (np.abs(values) >= 9.2e18), 0.0, values)
    whole = np.floor(usable)
    # A 64-bit float resolves today's times to a quarter of a microsecond; further digits are noise.
    steps = np.select([usable < 1e11, usable < 1e14], [1e6, 1e3], 1.0)
    fraction = np.round((usable - whole) * steps) * (NANOSECONDS / steps)
    return _epoch_times(whole.astype(np.int64), fraction.astype(np.int64), is_null)


def counted_times(column: pa.ChunkedArray, unit: str) -> Times:
    """Return numbers of a stated unit as times, of any year in range."""
    unit_ns, is_null = UNIT_NS[unit], column.is_null().to_numpy()
    if pa.types.is_integer(column.type):
        counts = pc.fill_null(column, 0).to_numpy()
        fits = counts <= _MOST_NS
        found = calendar_times(np.where(fits, counts, 0).astype(np.int64), is_null, unit_ns)
        found.kinds[~fits] = TimeKind.BEYOND
        return found
    if not (pa.types.is_floating(column.type) or pa.types.is_decimal(column.type)):
        raise SourceRefused(f'INPUT_FILE: column timestamp must hold numbers for epoch="{unit}", got {column.type}')
    steps = {"s": 1e6, "ms": 1e3}.get(unit, 1.0)  # as in `_float_times`: further digits are noise
    numbers = pc.fill_null(column.cast(pa.float64()), np.nan).to_numpy()
    is_time = np.isfinite(numbers)
    fits = is_time & (np.abs(numbers) < _MOST_NS // unit_ns)
    usable = np.where(fits, numbers, 0.0)
    whole = np.floor(usable)
    fraction_ns = np.round((usable - whole) * steps) * (unit_ns / steps)
    found = calendar_times(whole.astype(np.int64) * unit_ns + fraction_ns.astype(np.int64), ~is_time, 1)
    found.kinds[is_time & ~fits] = TimeKind.BEYOND
    return found


def _epoch_times(
    counts: npt.NDArray[np.int64], billionths: npt.NDArray[np.int64], is_null: npt.NDArray[np.bool_] | npt.NDArray[np.int64]
) -> Times:
    """Return each number as a time in the unit that puts it in the years 1990 to 2099, if there is one."""
    kinds = np.full(len(counts), TimeKind.OTHER_NUMBER, np.int8)
    times_ns = np.zeros(len(counts), np.int64)
    for kind, unit_ns in _NS_OF_KIND.items():
        per_second = NANOSECONDS // unit_ns
        is_unit = (counts >= _FIRST_EPOCH_S * per_second) & (counts < _END_EPOCH_S * per_second)
        if is_unit.any():
            kinds[is_unit] = kind
            # The fraction is in billionths of the unit.
            times_ns[is_unit] = counts[is_unit] * unit_ns + billionths[is_unit] * unit_ns // NANOSECONDS
    kinds[np.asarray(is_null, dtype=np.bool_)] = TimeKind.MISSING
    return Times(times_ns, kinds)
