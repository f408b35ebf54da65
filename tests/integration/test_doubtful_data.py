"""Data that says two things at once, or lies years apart, or in another unit: the real program, from files and from a real bucket."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from testbed.influxdb_server import InfluxServer
from tests.faults.ward import wait_until
from tests.integration.clinic import START_NS, Clinic, csv_rows
from tests.integration.service_process import KEY, Service, run_on_file, run_service, state
from tests.scripts.verifying import run_check

CASES = Path(__file__).with_name("cases")

SECOND_NS = 10**9
DAY_NS = 86_400 * SECOND_NS

#: A file's row: seconds from 14:30, source, value.
Row = tuple[float, str, float]


def file_of(folder: Path, rows: Iterator[Row], *, name: str = "made-up-patient.csv") -> Path:
    path = folder / name
    start_s = START_NS // SECOND_NS
    lines = (f"{time_text(start_s + second)},{source},{value}" for second, source, value in rows)
    path.write_text("\n".join(["timestamp,source_id,ecg", *lines]), encoding="utf-8")
    return path


def time_text(second: float) -> str:
    whole, milliseconds = divmod(round(second * 1000), 1000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole)) + f".{milliseconds:03d}Z"


def wave(seconds: float, *sources: str, scale: float = 1.0, from_s: float = 0) -> Iterator[Row]:
    """Yield 50 rows a second of each source, whose values are shared by many."""
    for index in range(int(seconds * 50)):
        for source in sources:
            yield from_s + index / 50, source, scale * (index * 7 % 40)


def sums(log: str) -> tuple[int, ...]:
    """Return rows read, released, withheld, invalid and duplicate, and of the withheld those that contradict each other."""
    parts = r"(\d+) rows read = (\d+) released \+ (\d+) withheld \+ (\d+) invalid \+ (\d+) duplicate"
    line = re.search(parts + r"(?: \(.*withheld: (\d+) contradictory.*\))?", log)
    assert line, log
    return tuple(int(number or 0) for number in line.groups())


# --- contradictions in files ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", ["two_leads_one_source", "packets_share_a_time", "times_dst_fall_back_local"])
def test_a_file_of_one_source_that_contradicts_itself_throughout_is_refused(case: str, tmp_path: Path) -> None:
    code, log = run_on_file(tmp_path, CASES / f"{case}.csv")

    assert code == 78, log
    for advice in ("two different values for one time", "INFLUX_TAG_FILTER", "packets", "a repeated local hour"):
        assert advice in log
    assert not list((tmp_path / "csv").glob("*.csv"))


def an_hour_twice() -> Iterator[Row]:
    """Two of eleven windows come a second time, with other values."""
    yield from wave(55, "a", "b")
    yield from ((second, source, value + 100) for second, source, value in wave(10, "a", "b", from_s=20))


def one_device_of_three_with_two_leads() -> Iterator[Row]:
    yield from wave(60, "a", "b", "c")
    yield from ((second, source, -value - 1) for second, source, value in wave(60, "a"))


def one_bad_point() -> Iterator[Row]:
    yield from wave(60, "a", "b")
    yield 0.02, "a", 2000.0


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (an_hour_twice, (6500, 4500, 2000, 0, 0, 2000)),
        (one_device_of_three_with_two_leads, (12_000, 6000, 6000, 0, 0, 6000)),
        (one_bad_point, (6001, 5750, 251, 0, 0, 251)),
    ],
)
def test_a_source_of_a_file_loses_only_the_windows_in_which_it_contradicts_itself(
    rows: Callable[[], Iterator[Row]], expected: tuple[int, ...], tmp_path: Path
) -> None:
    code, log = run_on_file(tmp_path, file_of(tmp_path, rows()))

    assert (code, sums(log)) == (0, expected), log
    assert log.count("hold two different values for one time") == 1
    assert len(csv_rows(tmp_path / "csv")) == expected[1]
    assert "two different values for one time" in (tmp_path / "state" / "report.html").read_text(encoding="utf-8")


def two_leads_behind_a_good_start() -> Iterator[Row]:
    yield from wave(60, "a", "b")
    yield from ((second, source, value + 100) for second, source, value in wave(40, "a", "b", from_s=20))


def test_a_file_is_refused_before_its_first_release_for_what_comes_later(tmp_path: Path) -> None:
    path = file_of(tmp_path, two_leads_behind_a_good_start())

    code, log = run_on_file(tmp_path, path, MAX_RECORDS_PER_QUERY=100)

    assert code == 78, log
    assert "in 8 of 12 windows" in log
    assert not list((tmp_path / "csv").glob("*.csv"))


# --- contradictions in buckets ----------------------------------------------------------------------------------------------------


def lines_of(rows: Iterator[Row], *, lead: str = "I", at_ns: int = START_NS) -> bytes:
    lines = (
        f"ecg,source_id={source},lead={lead} ecg={value} {at_ns + round(second * SECOND_NS)}" for second, source, value in rows
    )
    return "\n".join(lines).encode()


@pytest.mark.influxdb
def test_a_bad_wearer_in_a_bucket_loses_rows_one_shot_and_in_a_stream_and_the_others_go_on(
    clinic: Clinic, tmp_path: Path
) -> None:
    wearers = ("a", "b", "c")
    clinic.server.write_lines(clinic.raw, lines_of(wave(30, *wearers)))
    # From 10 to 20 s wearer a has a second lead; from 20 s on all wearers have.
    clinic.server.write_lines(clinic.raw, lines_of(wave(10, "a", from_s=10, scale=2.5), lead="II"))
    clinic.server.write_lines(clinic.raw, lines_of(wave(10, *wearers, from_s=20, scale=2.5), lead="II"))
    # Where both leads of the last ten seconds are 0 they agree: those rows are duplicates.
    alike = sum(value == 0 for _, _, value in wave(10, "a"))
    clinic.server.write_lines(clinic.raw, lines_of(wave(5, *wearers), at_ns=START_NS + 120 * DAY_NS))
    settings = {
        **clinic.settings,
        "OUTPUT_TO_INFLUX": "false",
        "MAX_RECORDS_PER_QUERY": 500,
        "QUERY_START_TIME": "2025-11-03T14:30:00Z",
    }

    one_shot, stream = tmp_path / "one-shot", tmp_path / "stream"
    one_shot.mkdir()
    code, log = run_service(one_shot, {**settings, "QUERY_END_TIME": "2025-11-03T14:30:30Z"})
    stream.mkdir()
    streaming = {**settings, "STREAMING_MODE": "true", "STATUS_ADDRESS": "127.0.0.1:0"}
    with Service(stream, streaming) as service:
        service.wait_for("📅 2026-03-03 (UTC)")
        wait_until(lambda: len(csv_rows(stream / "csv")) >= 2500 + 750, "all are there", service=service)
        stopped, stream_log = service.stop(), service.log

    withheld = 2 * 500 + 3 * (2 * 500 - alike)
    assert (code, sums(log)) == (0, (4500 + 2000, 2500, withheld, 0, 3 * alike, withheld)), log
    assert "The measurement's other tags are: 'lead'." in log
    assert {source for _, source in csv_rows(one_shot / "csv")} == {source for _, source in csv_rows(stream / "csv")}
    assert stopped == 0, "a stream that runs is not stopped, though all wearers contradict themselves"
    assert len(csv_rows(one_shot / "csv")) == 2500
    assert len(csv_rows(stream / "csv")) == 2500 + 750
    assert stream_log.count("hold two different values for one time") == 1, "once an hour"
    assert "'a'" not in stream_log


@pytest.mark.influxdb
@pytest.mark.parametrize("streaming", ["false", "true"])
def test_two_leads_of_every_wearer_are_refused_at_the_start(clinic: Clinic, tmp_path: Path, streaming: str) -> None:
    clinic.server.write_lines(clinic.raw, lines_of(wave(20, "a", "b")))
    clinic.server.write_lines(clinic.raw, lines_of(wave(20, "a", "b", scale=2.5), lead="II"))
    span = {"QUERY_START_TIME": "2025-11-03T14:30:00Z", "QUERY_END_TIME": "2025-11-03T14:30:20Z" if streaming == "false" else ""}

    code, log = run_service(tmp_path, {**clinic.settings, **span, "STREAMING_MODE": streaming})

    assert code == 78, log
    assert "INFLUX_TAG_FILTER" in log
    assert "other tags are: 'lead'" in log
    assert not clinic.stored()


@pytest.mark.influxdb
def test_bad_points_of_a_lone_wearer_refuse_no_run_not_even_where_only_their_windows_are_left(
    clinic: Clinic, tmp_path: Path
) -> None:
    bad = iter([(second + 0.02, "a", 1234.0) for second in (0, 5, 10)])
    clinic.server.write_lines(clinic.raw, lines_of(wave(60, "a")) + b"\n" + lines_of(bad, lead="II"))
    span = {"QUERY_START_TIME": "2025-11-03T14:30:00Z", "QUERY_END_TIME": "2025-11-03T14:31:00Z"}

    code, log = run_service(tmp_path, {**clinic.settings, **span, "MAX_RECORDS_PER_QUERY": 1})
    again, log_again = run_service(tmp_path, {**clinic.settings, **span})

    assert (code, sums(log)) == (0, (3003, 2250, 753, 0, 0, 753)), log
    assert (again, sums(log_again)) == (0, (753, 0, 753, 0, 0, 753)), log_again
    assert len(clinic.stored()) == 2250


@pytest.mark.influxdb
def test_journal_source_and_outputs_agree_where_a_source_lost_its_rows(clinic: Clinic, tmp_path: Path) -> None:
    clinic.server.write_lines(clinic.raw, lines_of(wave(15, "a", "b", "c")))
    clinic.server.write_lines(clinic.raw, lines_of(iter([(6.0, "c", 555.0), (11.0, "b", 555.0), (11.5, "c", 555.0)]), lead="II"))
    readable = clinic.server.make_token(read=[clinic.raw, clinic.released])
    span = {"QUERY_START_TIME": "2025-11-03T14:30:00Z", "QUERY_END_TIME": "2025-11-03T14:30:15Z"}
    settings = {**clinic.settings, **span, "K_UNIT": "source", "K_VALUE": 2, "INFLUX_VERIFY_TOKEN": readable}

    code, log = run_service(tmp_path, settings)
    verified, said = state(tmp_path, "verify")
    checked, found = run_check("--env-file", str(tmp_path / ".env"), "--k", "2", "--k-unit", "source")

    # In the last window two of three are lost: one source is fewer than two, so nothing of it leaves.
    assert (code, sums(log)) == (0, (2253, 1250, 1003, 0, 0, 251 + 502)), log
    assert (verified, checked) == (0, 0), said + found
    assert "2 windows, 1250 rows." in found


# --- units and ids ----------------------------------------------------------------------------------------------------------------


def test_values_in_millivolts_are_warned_of_and_counted_in_sources(tmp_path: Path) -> None:
    code, log = run_on_file(tmp_path, CASES / "millivolts_as_microvolts.csv")

    assert code == 0
    assert "The values of 1 of 1 sources hardly move" in log
    assert "VALUE_UNIT" in log
    rows = [*wave(60, "w-one", "w-two"), *((second, "w-odd", 1000 * value) for second, _, value in wave(60, "x"))]
    code, log = run_on_file(tmp_path, file_of(tmp_path, iter(rows)), STATE_DIR=tmp_path / "other")
    assert log.count("The values of 1 of 3 sources move a hundred times more, or less") == 1, log
    assert "w-odd" not in log


@pytest.mark.influxdb
def test_a_source_in_another_unit_than_the_rest_of_a_bucket_is_warned_of_once(clinic: Clinic, tmp_path: Path) -> None:
    clinic.server.write_lines(clinic.raw, lines_of(wave(60, "a", "b")))
    clinic.server.write_lines(clinic.raw, lines_of(wave(60, "c", scale=0.001)))
    span = {"QUERY_START_TIME": "2025-11-03T14:30:00Z", "QUERY_END_TIME": "2025-11-03T14:31:00Z"}

    code, log = run_service(tmp_path, {**clinic.settings, **span, "MAX_RECORDS_PER_QUERY": 1})

    assert code == 0
    assert log.count("The values of 1 of 3 sources hardly move") == 1, log


@pytest.mark.parametrize("pseudonymize", ["false", "true"])
def test_ids_that_a_spreadsheet_would_run_are_warned_of_where_they_leave(tmp_path: Path, pseudonymize: str) -> None:
    ids = ("=cmd|' /C calc'!A0", "+1", "-2", "@sum", "fine")
    path = file_of(tmp_path, wave(30, *ids))

    code, log = run_on_file(
        tmp_path,
        path,
        PSEUDONYMIZE_SOURCE_ID=pseudonymize,
        PSEUDONYM_SALT=KEY,
        MAX_RECORDS_PER_QUERY=1,
    )

    assert code == 0, log
    assert log.count("4 source ids that are released unchanged begin with") == (pseudonymize == "false")
    assert "cmd" not in log


def test_ids_that_differ_only_in_spelling_and_windows_of_one_wearer_are_warned_of_once(tmp_path: Path) -> None:
    path = tmp_path / "recording.csv"

    def log_of(unit: str, *ids: str) -> str:
        folder = tmp_path / f"{unit}{len(ids)}{ids[-1].strip()}"
        folder.mkdir()
        rows = [f"2025-11-03T14:30:{i:02}.{n}Z,{name},10" for i in range(20) for n, name in enumerate(ids)]
        path.write_text("\n".join(["timestamp,source_id,ecg", *rows]) + "\n", encoding="utf-8")
        code, log = run_on_file(folder, path, K_UNIT=unit, K_VALUE=2, MAX_RECORDS_PER_QUERY=1)
        assert code == 0, log
        return log

    alike, alone = "source ids differ only in case, blanks or forms of characters", "Windows hold rows of a single source"
    # The full-width letters of the third are those of the first after NFKC.
    by_sources = log_of("source", "ann-1", "Ann-1", "\uff41nn-1", "bob")
    by_rows = log_of("record", "ann-1", "Ann-1")
    assert by_sources.count(f"3 {alike}") == 1
    assert (by_rows.count(alike), by_rows.count(alone), by_sources.count(alone)) == (0, 0, 0)
    assert log_of("source", "ann", "bob").count(alike) == 0
    assert log_of("record", "ann").count(alone) == 1


# --- long empty spans -------------------------------------------------------------------------------------------------------------


def test_a_clock_that_was_reset_costs_seconds_and_both_ends_are_released(tmp_path: Path) -> None:
    code, log = run_on_file(tmp_path, CASES / "times_clock_reset_1970.csv")

    assert code == 0, log
    assert sums(log)[:3] == (206, 205, 1)
    days = [key[0][:10] for key in csv_rows(tmp_path / "csv")]
    assert (days.count("1970-01-01"), days.count("2025-11-03")) == (5, 200)
    assert re.findall("📅 (.*)", log) == ["1970-01-01 (UTC)", "2025-11-03 (UTC)"]
    assert log.count("No data in this batch") <= 2


def test_a_clock_that_jumps_ahead_by_decades_and_back_is_stepped_over(tmp_path: Path) -> None:
    jump_s = (4_070_908_800 * SECOND_NS - START_NS) // SECOND_NS  # 2099-01-01
    rows = [*wave(10, "a"), *wave(10, "a", from_s=40 * 86_400), *wave(10, "a", from_s=jump_s)]
    path = file_of(tmp_path, iter(rows))

    code, log = run_on_file(tmp_path, path, BATCH_SIZE_SECONDS=1)

    assert (code, sums(log)[:2]) == (0, (1500, 1500)), log
    assert re.findall("📅 (.*)", log) == ["2025-11-03 (UTC)", "2025-12-13 (UTC)", "2099-01-01 (UTC)"]
    assert log.count("No data in this batch") <= 4


@pytest.mark.influxdb
def test_a_stream_that_begins_ten_years_ago_steps_to_its_rows_and_leaves_what_it_stepped_over_open(
    influxdb: InfluxServer, clinic: Clinic, tmp_path: Path
) -> None:
    clinic.server.write_lines(clinic.raw, lines_of(wave(5, "a")))
    clinic.server.write_lines(clinic.raw, lines_of(wave(5, "a"), at_ns=START_NS + 120 * DAY_NS))
    streaming = {
        **clinic.settings,
        "STREAMING_MODE": "true",
        "QUERY_START_TIME": "2015-11-03T14:30:00Z",
        "RETRY_BUDGET_SECONDS": "60",
    }

    with Service(tmp_path, streaming) as service:
        service.wait_for("📅 2026-03-03 (UTC)")
        wait_until(lambda: len(clinic.stored()) >= 500, "both are stored", service=service)
        code, log = service.stop(), service.log
    clinic.server.write_lines(clinic.raw, lines_of(wave(5, "late"), at_ns=START_NS + 60 * DAY_NS))
    span = {"QUERY_START_TIME": "2026-01-02T14:30:00Z", "QUERY_END_TIME": "2026-01-02T14:30:05Z"}
    backfill, said = run_service(tmp_path, {**clinic.settings, **span})

    assert code == 0
    assert log.count("No data in this batch") < 12, log
    assert (backfill, sums(said)[:2]) == (0, (250, 250)), said


@pytest.mark.influxdb
def test_guard_and_audit_pass_over_empty_years_too(clinic: Clinic, tmp_path: Path) -> None:
    readable = clinic.server.make_token(read=[clinic.raw, clinic.released])
    settings = {**clinic.settings, "INPUT_FILE": CASES / "times_clock_reset_1970.csv", "INFLUX_VERIFY_TOKEN": readable}

    released, log = run_service(tmp_path, settings)
    began_s = time.monotonic()
    verified, said = state(tmp_path, "verify")
    shutil.rmtree(tmp_path / "state")
    again, refusal = run_service(tmp_path, settings)

    assert time.monotonic() - began_s < 60, "a question for each day of half a century would take minutes"
    assert (released, verified, again) == (0, 0, 78), log + said + refusal
    assert "that STATE_DIR knows nothing of" in refusal


@pytest.mark.influxdb
def test_years_before_what_a_bucket_keeps_expire_in_one_line(clinic: Clinic, tmp_path: Path) -> None:
    name, at_ns = f"{clinic.raw}-short", (time.time_ns() // (5 * SECOND_NS) - 24) * 5 * SECOND_NS
    clinic.server.make_bucket(name, retention_s=3600)
    clinic.server.write_lines(name, lines_of(wave(5, "a"), at_ns=at_ns))
    settings = {**clinic.settings, "INFLUX_INPUT_BUCKET": name, "INFLUX_TOKEN": clinic.server.make_token(read=[name])}

    code, log = run_service(tmp_path, {**settings, "QUERY_START_TIME": "2015-11-03T00:00:00Z"})

    assert (code, sums(log)[:2]) == (0, (250, 250)), log
    assert log.count("windows expired") == 1, log
