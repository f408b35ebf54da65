from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from scripts import aggregate_heart
from scripts.heartbeat.entries import instant_ns
from tests.heartbeat.commands import entry, json_lines, run

ENTRIES = [
    entry(metrics={"heart_rate": 60, "hrv_ms": 48.5}, symbols=["💓", "calm"]),
    entry(metrics={"heart_rate": 65}, symbols=["💓", "💓"], timestamp="2025-11-03T15:30:00+01:00"),
    entry(source_id="wearable-11", event_type="pause", metrics={"heart_rate": 55}, symbols=[]),
]

#: To the byte.
EXPECTED = """{
  "from": "2025-10-28T00:00:00Z",
  "to": "2025-11-04T00:00:00Z",
  "entries": 3,
  "distinct_sources": 2,
  "by_event_type": {
    "beat": 2,
    "pause": 1
  },
  "by_source": {
    "wearable-07": 2,
    "wearable-11": 1
  },
  "metrics": {
    "heart_rate": {
      "count": 3,
      "min": 55,
      "mean": 60.0,
      "max": 65
    },
    "hrv_ms": {
      "count": 1,
      "min": 48.5,
      "mean": 48.5,
      "max": 48.5
    }
  },
  "symbols": {
    "calm": 1,
    "💓": 3
  }
}
"""


def test_the_figures_of_one_ledger_or_several_and_standard_input_are_exactly_these(tmp_path: Path) -> None:
    for name, entries in (("heart_ledger.jsonl", ENTRIES), ("a.jsonl", ENTRIES[:1]), ("b.jsonl", ENTRIES[1:2])):
        (tmp_path / name).write_text(json_lines(entries), encoding="utf-8")

    for arguments, stdin in (((), ""), (("a.jsonl", "b.jsonl", "-"), json_lines(ENTRIES[2:]))):
        ended = run("aggregate_heart.py", *arguments, "--until", "2025-11-04T00:00:00Z", stdin=stdin, cwd=tmp_path)
        assert (ended.exit_code, ended.stdout, ended.stderr) == (0, EXPECTED, "")


def test_plain_and_hashed_ledgers_give_the_same_figures_but_for_the_names_of_sources(tmp_path: Path, salt_file: Path) -> None:
    chance = random.Random(20251103)
    many = [
        entry(
            source_id=f"wearable-{chance.randrange(40)}",
            event_type=chance.choice(["beat", "pause", "skip"]),
            metrics={"heart_rate": chance.randint(50, 120), "hrv_ms": chance.random()},
            symbols=chance.choices(["💓", "calm", "storm"], k=chance.randrange(4)),
        )
        for _ in range(500)
    ]
    figures = {}
    for name, flags in (("plain", ()), ("hashed", ("--anonymize",))):
        settings = {"HEART_SALT_FILE": salt_file}
        run("ingest_heartbeat.py", *flags, "--ledger", name, stdin=json_lines(many), cwd=tmp_path, settings=settings)
        figures[name] = json.loads(run("aggregate_heart.py", name, "--until", "2025-11-04T00:00:00Z", cwd=tmp_path).stdout)

    by_source = {name: figures[name].pop("by_source") for name in figures}
    assert figures["plain"] == figures["hashed"]
    assert figures["plain"]["entries"] == 500
    assert sorted(by_source["plain"].values()) == sorted(by_source["hashed"].values())
    assert not set(by_source["plain"]) & set(by_source["hashed"])


@pytest.mark.parametrize(
    ("timestamp", "counted"),
    [
        ("2025-11-02T23:59:59.999999999Z", 0),
        ("2025-11-03T00:00:00Z", 1),
        ("2025-11-03T23:59:59.999999999Z", 1),
        ("2025-11-04T00:00:00Z", 0),
        ("2025-11-04T00:30:00+01:00", 1),
        ("2025-11-03T23:30:00-01:00", 0),
    ],
)
def test_the_start_of_the_span_is_counted_and_its_end_is_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], timestamp: str, counted: int
) -> None:
    ledger = tmp_path / "l.jsonl"
    ledger.write_text(json_lines([entry(timestamp=timestamp)]), encoding="utf-8")

    assert aggregate_heart.main([str(ledger), "--days", "1", "--until", "2025-11-04T00:00:00Z"]) == 0

    assert json.loads(capsys.readouterr().out)["entries"] == counted


def test_without_until_the_span_is_the_last_seven_days_and_no_entries_give_empty_figures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ledger = tmp_path / "l.jsonl"
    ledger.write_text(
        json_lines([entry(timestamp="2025-11-01T00:00:00Z"), entry(timestamp="2025-11-08T12:00:00.25Z")]), encoding="utf-8"
    )

    exit_code = aggregate_heart.main([str(ledger)], now_ns=lambda: instant_ns("2025-11-08T12:00:00.25Z"))

    assert exit_code == 0
    assert json.loads(capsys.readouterr().out) == {
        "from": "2025-11-01T12:00:00.25Z",
        "to": "2025-11-08T12:00:00.25Z",
        "entries": 0,
        "distinct_sources": 0,
        "by_event_type": {},
        "by_source": {},
        "metrics": {},
        "symbols": {},
    }


def test_values_that_are_not_numbers_are_in_no_figure_and_a_warning_counts_them(tmp_path: Path) -> None:
    ledger = tmp_path / "l.jsonl"
    ledger.write_text(json_lines([entry(metrics={"a": 1, "b": "2", "c": True, "d": None, "e": [3]})]), encoding="utf-8")

    ended = run("aggregate_heart.py", ledger, "--until", "2025-11-04T00:00:00Z")

    assert json.loads(ended.stdout)["metrics"] == {"a": {"count": 1, "min": 1, "mean": 1.0, "max": 1}}
    assert ended.stderr == "warning: metric values that are not numbers, and are in no figure: 4\n"


def test_a_mean_of_the_largest_numbers_does_not_overflow_and_of_many_does_not_drift() -> None:
    entries = [entry(metrics={"large": 1.7e308, "tenth": 0.1}) for _ in range(10)]

    metrics = aggregate_heart.aggregate(entries)["metrics"]

    assert metrics["large"]["mean"] == 1.7e308
    assert metrics["tenth"]["mean"] == 0.1


def test_an_invalid_line_is_named_and_nothing_is_counted(tmp_path: Path) -> None:
    for name in ("a.jsonl", "b.jsonl"):
        (tmp_path / name).write_text(json_lines([entry(), entry(metrics=None)]), encoding="utf-8")

    ended = run("aggregate_heart.py", "a.jsonl", "b.jsonl", cwd=tmp_path)

    assert (ended.exit_code, ended.stdout) == (1, "")
    assert ended.stderr.splitlines()[:2] == [
        "a.jsonl:2: metrics: must be an object, got null",
        "b.jsonl:2: metrics: must be an object, got null",
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--days", "0"), "--days: must be a whole number of days, at least 1, got '0'"),
        (("--days", "-1"), "--days: must be a whole number of days"),
        (("--days", "1.5"), "--days: must be a whole number of days"),
        (("--days", "٧"), "--days: must be a whole number of days"),
        (("--days", "9999999"), "beyond the year 1"),
        (("--days", "9" * 5000), "--days: must be a whole number of days"),
        (("--until", "tomorrow"), "--until: must be an RFC 3339 time"),
        (("--until", "2025-11-04"), "--until: must be an RFC 3339 time"),
    ],
)
def test_an_impossible_span_is_a_usage_error(tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    ended = run("aggregate_heart.py", *arguments, cwd=tmp_path)

    assert (ended.exit_code, ended.stdout) == (64, "")
    assert message in ended.stderr
