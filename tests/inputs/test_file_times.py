"""Times as files write them: what ISO 8601 and epoch numbers mean, and what is no time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pa_parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inputs.file_source import FileSource
from inputs.file_times import TimeKind, times

NOON = datetime(2025, 11, 3, 14, 30, tzinfo=UTC)

#: What a text stands for, worked out by hand. A further text that nothing can read beside it keeps Arrow's own parser out.
READ = dict.fromkeys(("2025-11-03T14:30:00Z", "2025-11-03 14:30:00+00", "2025-11-03t14:30:00z", "2025-11-03T20:00:00+0530"), NOON)
READ |= dict.fromkeys(
    ("2025-11-03T20:00:00+05:30", "2025-11-03T11:30:00-03", "2025-11-03T14:00:00-00:30", "2025-11-03T14,5"), NOON
)
READ |= dict.fromkeys(("2025-11-03T11:30:00\N{MINUS SIGN}03:00", "2025-11-03 14:30:00 UTC", "2025-11-03T14:30"), NOON)
READ |= dict.fromkeys(("2025-11-03T14:30Z", "20251103T143000Z", "20251103T1430", "2025-W45-1T14:30", "2025W451T1430"), NOON)
READ |= dict.fromkeys(("2025-307T14:30:00Z", "2025307T143000Z", "  2025-11-03T14:30:00Z "), NOON)
READ |= dict.fromkeys(("2025-11-03T14:30:00,25Z", "2025-11-03T14:30:00.2500000009Z"), NOON + timedelta(milliseconds=250))
READ |= dict.fromkeys(("2025-11-03", "2025-307", "2025-W45-1", "2025-11-02T24:00:00Z"), datetime(2025, 11, 3, tzinfo=UTC))
READ |= {
    "2025-11-03T14:29,5Z": NOON - timedelta(seconds=30),
    "2020-W53-7": datetime(2021, 1, 3, tzinfo=UTC),
    "2024-02-29": datetime(2024, 2, 29, tzinfo=UTC),
    "2024-366": datetime(2024, 12, 31, tzinfo=UTC),
    "1678-01-01T00:00:00Z": datetime(1678, 1, 1, tzinfo=UTC),
    "2261-12-31T23:59:59Z": datetime(2261, 12, 31, 23, 59, 59, tzinfo=UTC),
}

OTHERS = dict.fromkeys(("", "NaT", "null"), TimeKind.MISSING)
OTHERS |= dict.fromkeys(("yesterday", "3.11.2025 14:30", "11/03/2025 14:30", "2025-02-29", "2025-13-01"), TimeKind.UNREADABLE)
OTHERS |= dict.fromkeys(("2025-00-01", "2025-366", "2025-W53-1", "2025-W45-8", "2025-11-03T24:00:01Z"), TimeKind.UNREADABLE)
OTHERS |= dict.fromkeys(("2025-11-03T14:60:00Z", "2025-11-03T14:30:60Z", "2025-11-03T14:30:00+24:00"), TimeKind.UNREADABLE)
OTHERS |= {"2025-11-03T14:30:00 CET": TimeKind.UNREADABLE}
OTHERS |= dict.fromkeys(("9999-12-31T23:59:59Z", "0001-01-01"), TimeKind.BEYOND)
OTHERS |= dict.fromkeys(("20251103", "-5", "0.25", "9999999999999999999"), TimeKind.OTHER_NUMBER)


def nanoseconds(moment: datetime) -> int:
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1) * 1000


def parsed(*cells: str | None) -> list[tuple[TimeKind, int]]:
    found = times(pa.chunked_array([pa.array(cells, pa.string())]))
    return [(TimeKind(kind), time_ns) for kind, time_ns in zip(found.kinds.tolist(), found.times_ns.tolist(), strict=True)]


@pytest.mark.parametrize("text", READ)
def test_a_calendar_time_means_what_iso_8601_says(text: str) -> None:
    names_zone = text.strip().endswith(("Z", "z", "UTC")) or any(sign in text[10:] for sign in "+-\N{MINUS SIGN}")
    expected = (TimeKind.CALENDAR if names_zone else TimeKind.WITHOUT_ZONE, nanoseconds(READ[text]))

    assert parsed(text) == [expected]
    assert parsed(text, "oops") == [expected, (TimeKind.UNREADABLE, 0)]


@pytest.mark.parametrize("text", OTHERS)
def test_cells_that_are_not_times_are_classified(text: str) -> None:
    assert parsed(text) == [(OTHERS[text], 0)]
    assert parsed(text, "2025-11-03T14:30:00Z")[0] == (OTHERS[text], 0)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2016-12-31T23:59:60Z", datetime(2017, 1, 1, tzinfo=UTC)),
        ("2016-12-31T23:59:60.5Z", datetime(2017, 1, 1, microsecond=500_000, tzinfo=UTC)),
        ("2017-01-01T05:29:60+05:30", datetime(2017, 1, 1, tzinfo=UTC)),
        ("20161231T185960-05", datetime(2017, 1, 1, tzinfo=UTC)),
    ],
)
def test_a_leap_second_is_the_second_after_it(text: str, expected: datetime) -> None:
    assert parsed(text) == [(TimeKind.LEAP_SECOND, nanoseconds(expected))]


@given(
    st.integers(-(10**16), 7 * 10**15).map(lambda passed_us: NOON + timedelta(microseconds=passed_us)),
    st.integers(-23 * 60 - 59, 23 * 60 + 59),
    st.sampled_from(["T", "t", " "]),
    st.booleans(),
)
def test_any_time_in_any_zone_is_read_as_python_reads_it(utc: datetime, offset_min: int, between: str, is_alone: bool) -> None:
    moment = utc.astimezone(timezone(timedelta(minutes=offset_min)))
    text = moment.isoformat(sep=between)

    (found, *_) = parsed(*([text] if is_alone else [text, "oops"]))

    assert found == (TimeKind.CALENDAR, nanoseconds(utc))


UNITS = {"s": TimeKind.SECONDS, "ms": TimeKind.MILLISECONDS, "us": TimeKind.MICROSECONDS, "ns": TimeKind.NANOSECONDS}


@given(st.integers(631_152_000, 4_102_444_799), st.sampled_from(sorted(UNITS)))
def test_an_epoch_time_has_the_one_unit_that_makes_it_a_time_of_today(seconds: int, unit: str) -> None:
    count = int(np.datetime64(seconds, "s").astype(f"datetime64[{unit}]").astype(np.int64))
    expected = seconds * 10**9

    assert parsed(str(count)) == [(UNITS[unit], expected)]
    for column in (pa.array([count]), pa.array([count], pa.uint64())):
        found = times(pa.chunked_array([column]))
        assert (found.kinds.tolist(), found.times_ns.tolist()) == ([UNITS[unit]], [expected])


def test_a_fraction_of_an_epoch_time_is_one_of_its_unit() -> None:
    assert parsed("1762180200.007692", "1762180200,5", "1762180200000.25") == [
        (TimeKind.SECONDS, nanoseconds(NOON) + 7_692_000),
        (TimeKind.SECONDS, nanoseconds(NOON) + 500_000_000),
        (TimeKind.MILLISECONDS, nanoseconds(NOON) + 250_000),
    ]
    floats = times(pa.chunked_array([pa.array([1762180200.007692, 1762180200000.25, float("nan"), None])]))
    assert floats.times_ns.tolist() == [nanoseconds(NOON) + 7_692_000, nanoseconds(NOON) + 250_000, 0, 0]
    assert floats.kinds.tolist() == [TimeKind.SECONDS, TimeKind.MILLISECONDS, TimeKind.MISSING, TimeKind.MISSING]


@pytest.mark.parametrize("form", ["timestamp", "INT96"])
def test_a_parquet_time_that_cannot_be_held_costs_its_row_and_never_wraps_around(form: str, tmp_path: Path) -> None:
    moments = [datetime(9999, 12, 31, tzinfo=UTC), NOON, datetime(1, 1, 1, tzinfo=UTC), datetime(2300, 1, 1, tzinfo=UTC)]
    column = pa.array([nanoseconds(moment) // 1000 for moment in moments], pa.timestamp("us"))
    path = tmp_path / "far.parquet"
    table = pa.table({"timestamp": column, "source_id": ["w"] * 4, "ecg": [1.0] * 4})
    pa_parquet.write_table(table, path, use_deprecated_int96_timestamps=form == "INT96")

    source = FileSource(path)
    source.open()

    assert source.rows_beside(0, 2**62).without_time == 3
    assert source.extent() == (nanoseconds(NOON), nanoseconds(NOON) + 1)
