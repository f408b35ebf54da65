"""`Retry-After` and `Date` as servers really send them: whatever they say, nothing crashes or waits for ever."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transport.http_headers import LONGEST_RETRY_AFTER_S, earliest_http_date, parse_http_date, parse_retry_after

NOW = datetime(2025, 11, 3, 14, 30, tzinfo=UTC)

#: Texts that look like dates.
NEARLY_DATES = st.from_regex(
    r"((Mon|Wed|Xyz), )?\d{1,3}[ -](Jan|Feb|Dec|Foo)[ -]-?\d{1,7} \d\d?:\d\d?(:\d\d?)?( ([+-]\d{1,25}|GMT|EST|UTC|-0000))?",
    fullmatch=True,
)


@pytest.mark.parametrize(
    ("header", "expected_s"),
    [
        ("0", 0),
        ("7", 7),
        (" 7 ", 7),
        ("600", 600),
        ("601", 600),
        ("1000000000", 600),
        ("9" * 400, 600),
        ("Mon, 03 Nov 2025 14:31:30 GMT", 90),
        ("Mon, 03 Nov 2025 14:29:00 GMT", 0),
        ("Monday, 03-Nov-25 14:31:30 GMT", 90),
        ("Mon Nov  3 14:31:30 2025", 90),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 600),
        ("Mon, 03 Nov 2025 15:31:30 +0100", 90),
        ("-7", None),
        ("7.5", None),
        ("٧", None),
        ("²", None),
        ("1_000", None),
        ("soon", None),
        ("", None),
        (None, None),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_wait_is_understood_in_every_form_of_the_standard_and_no_other(header: str | None, expected_s: float | None) -> None:
    assert parse_retry_after(header, now=NOW) == expected_s


@given(st.text() | NEARLY_DATES | st.integers().map(str) | st.floats().map(str))
def test_any_header_is_a_wait_of_at_most_ten_minutes_and_a_time_with_a_zone_or_none(header: str) -> None:
    wait_s, date = parse_retry_after(header, now=NOW), parse_http_date(header)

    assert wait_s is None or 0 <= wait_s <= LONGEST_RETRY_AFTER_S
    assert date is None or date.tzinfo is not None


@given(st.integers(0, 7_258_118_400), st.integers(-14, 14))
def test_a_date_is_the_one_that_was_sent_and_without_a_zone_in_utc(time_s: int, zone_h: int) -> None:
    sent = datetime.fromtimestamp(time_s, timezone(timedelta(hours=zone_h)))

    assert parse_http_date(format_datetime(sent)) == sent
    assert parse_http_date("Mon, 03 Nov 2025 14:30:00 -0000") == NOW


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ([], None),
        (["yesterday"], None),
        (["yesterday", "Mon, 03 Nov 2025 14:30:00 GMT"], NOW),
        (["Mon, 03 Nov 2025 14:30:07 GMT", "Mon, 03 Nov 2025 14:30:00 GMT"], NOW),
    ],
)
def test_of_several_clocks_the_earliest_counts(headers: list[str], expected: datetime | None) -> None:
    assert earliest_http_date(headers) == expected
