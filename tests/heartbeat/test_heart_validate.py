from __future__ import annotations

import json
import sys
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from scripts.heartbeat.entries import SCHEMA_FILE, checked, instant_ns, timestamp_of
from scripts.heartbeat.json_lines import Entry
from tests.heartbeat.commands import entry, json_lines, run

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

#: Instants of the years 2 to 9998, in microseconds: no zone of RFC 3339 moves them out of the years 1 to 9999.
microseconds = st.integers(
    (datetime(2, 1, 1, tzinfo=UTC) - EPOCH) // timedelta(microseconds=1),
    (datetime(9998, 12, 31, tzinfo=UTC) - EPOCH) // timedelta(microseconds=1),
)
zones = st.integers(-23 * 60 - 59, 23 * 60 + 59).map(lambda minutes: timezone(timedelta(minutes=minutes)))


def problems_of(value: Any) -> tuple[str, ...]:
    [found] = checked([Entry("f:1", value)])
    return found.problems


def test_the_schema_is_itself_valid() -> None:
    Draft202012Validator.check_schema(json.loads(SCHEMA_FILE.read_text(encoding="utf-8")))


def test_a_valid_entry_has_no_problem_nor_have_further_properties() -> None:
    assert problems_of(entry(notes="n", manifesto_snippet="m", anything={"at": ["all"]})) == ()


@pytest.mark.parametrize("field", ["timestamp", "source_id", "event_type", "metrics", "symbols"])
def test_a_missing_field_is_named(field: str) -> None:
    value = entry()
    del value[field]

    assert problems_of(value) == (f"'{field}' is a required property",)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"timestamp": 1}, "timestamp: must be text, got a number"),
        ({"source_id": None}, "source_id: must be text, got null"),
        ({"source_id": 1.5}, "source_id: must be text, got a number"),
        ({"event_type": True}, "event_type: must be text, got a boolean"),
        ({"metrics": [1]}, "metrics: must be an object, got an array"),
        ({"symbols": "calm"}, "symbols: must be an array, got text"),
        ({"symbols": ["calm", {}]}, "symbols[1]: must be text, got an object"),
        ({"notes": None}, "notes: must be text, got null"),
        ({"manifesto_snippet": 0}, "manifesto_snippet: must be text, got a number"),
    ],
)
def test_a_field_of_the_wrong_type_is_named_with_what_was_asked_and_got(changes: dict[str, Any], problem: str) -> None:
    assert problems_of(entry(**changes)) == (problem,)


@pytest.mark.parametrize(
    "timestamp",
    [
        "2025-11-03T14:30:00Z",
        "2025-11-03t14:30:00z",
        "2025-11-03T14:30:00.5+01:00",
        "2025-11-03T14:30:00.123456789123Z",
        "2024-02-29T23:59:59-23:59",
        "2016-12-31T23:59:60Z",
        "2017-01-01T00:59:60.9+01:00",
    ],
)
def test_an_rfc_3339_time_is_valid(timestamp: str) -> None:
    assert problems_of(entry(timestamp=timestamp)) == ()


@pytest.mark.parametrize(
    "timestamp",
    [
        "",
        "2025-11-03",
        "2025-11-03T14:30:00",
        "2025-11-03 14:30:00Z",
        "2025-11-03T14:30Z",
        "2025-11-03T14:30:00,5Z",
        "2025-11-03T14:30:00.Z",
        "2025-11-03T24:00:00Z",
        "2025-11-03T14:60:00Z",
        "2025-11-03T14:30:61Z",
        "2025-11-03T14:30:60Z",
        "2025-11-03T14:30:00+0100",
        "2025-11-03T14:30:00+24:00",
        "2025-11-03T14:30:00+01:99",
        "2025-02-29T14:30:00Z",
        "0000-01-01T00:00:00Z",
        "2025-W45-1T14:30:00Z",
        "２０２５-11-03T14:30:00Z",
        "2025-11-03T14:30:00Z\n",
        "1762180200",
    ],
)
def test_any_other_text_is_not_a_timestamp(timestamp: str) -> None:
    [problem] = problems_of(entry(timestamp=timestamp))

    assert problem.startswith("timestamp: must be an RFC 3339 time such as")


@given(microseconds, zones)
def test_an_instant_is_the_nanoseconds_since_1970_in_any_zone(instant_us: int, zone: timezone) -> None:
    moment = (EPOCH + timedelta(microseconds=instant_us)).astimezone(zone)

    assert instant_ns(moment.isoformat()) == instant_us * 1000


@given(microseconds, st.integers(0, 999))
def test_a_timestamp_written_is_the_instant_read(instant_us: int, nanoseconds: int) -> None:
    instant = instant_us * 1000 + nanoseconds

    assert instant_ns(timestamp_of(instant)) == instant


def test_every_bad_line_of_every_ledger_is_named_and_the_exit_code_is_1(tmp_path: Path) -> None:
    (tmp_path / "bad.jsonl").write_text(
        json_lines([entry(), entry(source_id=7, symbols=[1])]) + "\nwhat?\n" + '{"timest', encoding="utf-8"
    )
    (tmp_path / "good.jsonl").write_text(json_lines([entry()]), encoding="utf-8")
    (tmp_path / "bytes.jsonl").write_bytes(b'{"a": "\xe9"}\n')

    ended = run("validate_heart.py", "bad.jsonl", "good.jsonl", "bytes.jsonl", cwd=tmp_path)

    assert ended.exit_code == 1
    assert ended.stderr.splitlines() == [
        "bad.jsonl:2: source_id: must be text, got a number",
        "bad.jsonl:2: symbols[0]: must be text, got a number",
        "bad.jsonl:4: is not JSON at column 1: Expecting value",
        "bad.jsonl:5: is not JSON at column 2: Unterminated string (no newline ends this line: was the file cut off here?)",
        "bytes.jsonl:1: is not UTF-8: byte 0xe9 at column 8; save it as UTF-8",
    ]
    assert ended.stdout.splitlines() == [
        "bad.jsonl: 4 entries, 3 invalid",
        "good.jsonl: 1 entry, all valid",
        "bytes.jsonl: 1 entry, 1 invalid",
    ]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no /dev/stdin")
@pytest.mark.parametrize(("path", "name"), [("-", "<stdin>"), ("/dev/stdin", "/dev/stdin")])
def test_a_ledger_can_come_from_standard_input_and_a_named_pipe_is_read_to_its_end(path: str, name: str) -> None:
    """A pipe has no size: reading as many bytes as its size says would find every pipe valid, and empty."""
    ended = run("validate_heart.py", path, stdin=json_lines([entry(), entry(source_id=1)]))

    assert (ended.exit_code, ended.stdout) == (1, f"{name}: 2 entries, 1 invalid\n")
    assert ended.stderr == f"{name}:2: source_id: must be text, got a number\n"
