"""What an operator reads: the lines promised, to the letter, and a warning when something is not as it should be."""

from __future__ import annotations

import dataclasses
import io
import logging
import sys
from functools import partial

import pytest

from anonymizer.batch import Batch
from anonymizer.errors import BatchRejected
from anonymizer.windows import NANOSECONDS, Window, WindowRange
from service.telemetry.events import Unit
from service.telemetry.hub import Telemetry
from service.telemetry.log_writer import set_up_logging
from tests.status.events import unit

START = 1762180200 * NANOSECONDS  # 2025-11-03 14:30:00 UTC
END = START + 5 * NANOSECONDS


class Sink:
    def __init__(self, kind: str, target: str) -> None:
        self.kind = self.name = kind
        self._target = target

    def target(self, batch: Batch) -> str:
        return self._target


unit_of = partial(unit, start_ns=START, groups=10)


def lines_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records]


@pytest.fixture(autouse=True)
def at_info(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)


def test_a_window_is_reported_with_the_lines_promised(caplog: pytest.LogCaptureFixture) -> None:
    telemetry, unit = Telemetry(k=5, verbose=True), unit_of({2: 180, 3: 460})
    csv, influxdb = Sink("csv", "./output/ecg_anonymized_20251103_143000.csv"), Sink("influxdb", "anonymized-data")

    telemetry.anonymized(unit)
    for output in (csv, influxdb):
        telemetry.writing(output, unit.batches)  # type: ignore[arg-type]
        telemetry.wrote(output, unit.counts.released)  # type: ignore[arg-type]

    assert [line for line in lines_of(caplog) if not line.startswith("📊")] == [
        "📅 2025-11-03 (UTC)",
        "📦 Processing batch: 14:30:00 - 14:30:05",
        "  Fetched 640 records from batch",
        "🔒 Anonymizing batch: 640 records (K=5)",
        "  ✅ All records satisfied at level 3",
        "  Anonymization complete: 640 records",
        "📈 Level distribution: {2: 180, 3: 460}",
        "💾 Saving 640 records to CSV: ./output/ecg_anonymized_20251103_143000.csv",
        "  ✅ CSV saved",
        "📤 Pushing 640 records to InfluxDB: anonymized-data",
        "  ✅ Successfully pushed 640 points",
    ]


def test_verbose_logging_adds_the_statistics_of_each_window(caplog: pytest.LogCaptureFixture) -> None:
    Telemetry(k=5, verbose=True).anonymized(unit_of({1: 30, 3: 10}))

    assert "📊 Window 14:30:00: levels {1: 30, 3: 10}, 10 groups, smallest 5, mean level 1.5" in lines_of(caplog)


def test_without_verbose_logging_only_the_head_lines_stay(caplog: pytest.LogCaptureFixture) -> None:
    telemetry, unit, sink = Telemetry(k=5, verbose=False), unit_of({1: 40}), Sink("api", "http://localhost/api")

    telemetry.anonymized(unit)
    telemetry.writing(sink, unit.batches)  # type: ignore[arg-type]
    telemetry.wrote(sink, unit.counts.released)  # type: ignore[arg-type]

    assert [line[0] for line in lines_of(caplog)] == ["📅", "📦", "🔒", "📈", "🌐"]


def test_an_empty_window_is_said_to_be_skipped_and_times_of_more_than_a_day_name_the_day(
    caplog: pytest.LogCaptureFixture,
) -> None:
    telemetry = Telemetry(k=5, verbose=True)
    telemetry.nothing_in(WindowRange(START, END, 5 * NANOSECONDS))
    assert lines_of(caplog)[1:] == ["📦 Processing batch: 14:30:00 - 14:30:05", "No data in this batch, skipping..."]

    telemetry.nothing_in(WindowRange(START, START + 86_405 * NANOSECONDS, 5 * NANOSECONDS))
    assert "2025-11-03 14:30:00 - 2025-11-04 14:30:05" in caplog.text


def test_the_day_is_said_once_and_again_when_it_changes(caplog: pytest.LogCaptureFixture) -> None:
    telemetry, day, length = Telemetry(k=5, verbose=True), 86_400 * NANOSECONDS, 5 * NANOSECONDS
    evening = unit_of({1: 40})

    telemetry.anonymized(evening)
    telemetry.nothing_in(WindowRange(END, END + length, length))
    telemetry.skipped(1, WindowRange(START + day, START + day + length, length), [])
    telemetry.expired(WindowRange(START + 2 * day, START + 2 * day + length, length))

    said = [line for line in lines_of(caplog) if line.startswith("📅")]
    assert said == ["📅 2025-11-03 (UTC)", "📅 2025-11-04 (UTC)", "📅 2025-11-05 (UTC)"]


def test_the_day_changes_among_the_windows_of_a_chunk_too(caplog: pytest.LogCaptureFixture) -> None:
    midnight = START - START % (86_400 * NANOSECONDS) + 86_400 * NANOSECONDS
    before, after = (
        dataclasses.replace(unit_of({1: 40}).results[0], window=Window(start, start + 5 * NANOSECONDS))
        for start in (midnight - 5 * NANOSECONDS, midnight)
    )

    windows = WindowRange(midnight - 5 * NANOSECONDS, midnight + 5 * NANOSECONDS, 5 * NANOSECONDS)
    Telemetry(k=5, verbose=True).anonymized(Unit(windows, (before, after)))

    marks = [line[:12] for line in lines_of(caplog) if line[0] in "📅📊"]
    assert marks == ["📅 2025-11-03", "📊 Window 23:", "📅 2025-11-04", "📊 Window 00:"]


def test_rows_that_contradict_each_other_are_a_reason_of_the_sums_and_no_sign_of_a_high_k(
    caplog: pytest.LogCaptureFixture,
) -> None:
    telemetry, unit = Telemetry(k=5, verbose=True), unit_of({0: 30, 1: 70})
    statistics = dataclasses.replace(unit.results[0].statistics, contradictory=30)

    telemetry.anonymized(Unit(unit.windows, (dataclasses.replace(unit.results[0], statistics=statistics),)))
    telemetry.finished(1.0)

    sums = "100 rows read = 70 released + 30 withheld + 0 invalid + 0 duplicate"
    assert any(line.endswith(f"{sums} (withheld: 30 contradictory)") for line in lines_of(caplog))
    assert not any("suppressed, dropped or withheld" in line for line in lines_of(caplog))


@pytest.mark.parametrize(
    ("unit", "warning"),
    [
        (unit_of({0: 15, 1: 85}), "15 % of records suppressed, dropped or withheld"),
        (unit_of({9: 15, 1: 70}, suppressed=15), "15 % of records suppressed, dropped or withheld"),
        (unit_of({0: 4}), "100 % of records suppressed, dropped or withheld"),
        (unit_of({7: 90, 1: 1}), "Mean level 6.9"),
    ],
)
def test_health_indicators_warn(caplog: pytest.LogCaptureFixture, unit: Unit, warning: str) -> None:
    Telemetry(k=5, verbose=True).anonymized(unit)

    assert [warning in record.getMessage() for record in caplog.records if record.levelno == logging.WARNING] == [True]


def test_healthy_windows_do_not_warn_but_a_chunk_slower_than_a_second_for_two_thousand_records_does(
    caplog: pytest.LogCaptureFixture,
) -> None:
    telemetry = Telemetry(k=5, verbose=True)
    telemetry.anonymized(unit_of({0: 14, 1: 86}))
    telemetry.anonymized(unit_of({6: 100, 8: 900}))
    telemetry.took(0.9, 100)
    telemetry.took(4.9, 10_000)
    assert [record for record in caplog.records if record.levelno > logging.INFO] == []

    telemetry.took(5.1, 10_000)
    assert "10000 records took 5.1 s, more than a second per 2000" in caplog.text


def test_a_refused_batch_is_counted_and_named_without_its_content(caplog: pytest.LogCaptureFixture) -> None:
    telemetry, unit = Telemetry(k=5, verbose=True), unit_of({1: 40})

    telemetry.rejected(Sink("api", "x"), unit.batches[0], len(unit.batches[0]), BatchRejected("422"))  # type: ignore[arg-type]

    assert telemetry.totals.set_aside == 40
    assert "❌ 40 of 40 rows of batch b were refused by api and set aside" in caplog.text


def test_log_lines_have_utc_times_and_print_on_a_console_without_our_symbols(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="cp1252")
    monkeypatch.setattr(sys, "stdout", stream)
    handlers = logging.getLogger().handlers[:]
    try:
        set_up_logging("INFO")
        record = logging.LogRecord("ecg_anonymizer", logging.INFO, "", 0, "📦 µV", None, None)
        record.created = 1762180200.5
        logging.getLogger().handle(record)
        logging.getLogger().handlers[0].flush()
    finally:
        logging.getLogger().handlers[:] = handlers

    assert stream.buffer.getvalue().decode("cp1252").strip() == "2025-11-03 14:30:00 - INFO - ? µV"
