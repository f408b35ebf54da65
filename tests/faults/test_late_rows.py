"""Rows that come late, never, or from the future: in their window while it is open, counted when it is not, and no reason to hang."""

from __future__ import annotations

import threading
import time
from collections import Counter

import pytest

from testbed.replay import load
from testbed.wearers import SECOND_NS
from tests.faults.conftest import MakeWard
from tests.faults.oracle import assert_by_definition, files_in, pseudonym, raw_samples, time_text
from tests.faults.ward import STREAMING, Changes, moment, seconds_ago, wait_until

pytestmark = pytest.mark.influxdb

#: As a stream whose first look back at what it released comes at once.
RECOUNTING: Changes = {**STREAMING, "LATE_RECOUNT_SECONDS": "1"}


def lines(times_ns: list[int], source: str = "straggler") -> bytes:
    """Return one row of some source at each time."""
    return "\n".join(f"ecg,source_id={source} ecg={index % 7}.0 {time_ns}" for index, time_ns in enumerate(times_ns)).encode()


def test_rows_that_come_within_the_lateness_are_in_their_window(make_ward: MakeWard) -> None:
    """Row 7: late, but inside ALLOWED_LATENESS_SECONDS."""
    ward = make_ward(seconds=2, start_ns=seconds_ago(-1))
    recording, second = ward.recording, SECOND_NS
    with ward.start({**STREAMING, "ALLOWED_LATENESS_SECONDS": "5"}) as service:
        wait_until(lambda: time.time_ns() > recording.end_ns, "the windows are over", service=service)
        assert not files_in(ward.csv), "they are still open"
        late = [recording.start_ns + window * second + 5 for window in range(2)]
        ward.server.write_lines(recording.bucket, lines(late))
        wait_until(lambda: len(files_in(ward.csv)) == 2, "all windows are released", service=service)
        assert service.stop() == 0

    raw = raw_samples(recording.wearers, recording.start_ns, recording.end_ns)
    raw |= {(time_text(time_ns), pseudonym("straggler")): 0 for time_ns in late}
    assert_by_definition(raw, ward.holdings().points, window_s=1, k=5)


def test_rows_that_come_after_the_release_are_counted_and_change_nothing(make_ward: MakeWard) -> None:
    """Row 7: after release, and hours late: counted as late by the recounts, the released window untouched."""
    ward = make_ward(seconds=6, start_ns=seconds_ago(3 * 3600))
    expected = ward.undisturbed()
    code, log = ward.run()
    assert code == 0, log
    late = [ward.recording.start_ns + window * SECOND_NS + row for window in range(4) for row in range(5)]
    ward.server.write_lines(ward.recording.bucket, lines(late))
    ended_s = time.monotonic()
    wait_until(lambda: time.monotonic() > ended_s + 1, "a recount is due when the stream first looks back")

    # Counted in InfluxQL what was released in Flux: both are one data set.
    with ward.start({**RECOUNTING, "INFLUX_QUERY_LANGUAGE": "influxql"}) as service:
        service.wait_for("⏰ 20 rows came after their windows were released (4 windows) and are not released")
        assert service.stop() == 0
    code, log = ward.run()

    assert (code, "6 windows" in log and "were released before" in log) == (0, True), log
    assert ward.holdings() == expected


def test_rows_from_the_future_wait_until_their_window_is_due(make_ward: MakeWard) -> None:
    """Row 7: from the future: rows are dated an hour ahead, and one day; nothing of them leaves now, nothing else is held up."""
    ward = make_ward(seconds=4, start_ns=seconds_ago(6))
    hours = [time.time_ns() + hours * 3600 * SECOND_NS + row for hours in (1, 24) for row in range(10)]
    ward.server.write_lines(ward.recording.bucket, lines(hours))
    with ward.start(STREAMING) as service:
        ward.wait_until_delivered(service)
        service.wait_for("No data in this batch")
        assert service.stop() == 0

    ward.assert_complete()


def test_a_steady_trickle_of_late_rows_during_the_reads_holds_nothing_up(make_ward: MakeWard) -> None:
    """Row 7: rows keep coming into every window while it is read: no livelock, and all outputs hold the same rows."""
    ward = make_ward(seconds=15)
    recording, over = ward.recording, threading.Event()
    before = raw_samples(recording.wearers, recording.start_ns, recording.end_ns)

    def trickle() -> None:
        row = 0
        while not over.is_set():
            row += 1
            times = [recording.start_ns + window * SECOND_NS + row for window in range(15)]
            ward.server.write_lines(recording.bucket, lines(times))

    thread = threading.Thread(target=trickle, daemon=True)
    thread.start()
    try:
        code, log = ward.run({"MAX_RECORDS_PER_QUERY": "600"})
    finally:
        over.set()
        thread.join()

    assert code == 0, log
    found = ward.holdings()
    in_csv = Counter(line.rstrip(b"\n").decode() for line in found.csv_lines().elements())
    assert max(in_csv.values()) == 1
    assert len(in_csv) == len(found.points) == found.api_records().total()
    assert {tuple(line.split(",")[:2]) for line in in_csv} == set(found.points)
    assert before.keys() <= found.points.keys(), "whatever came late, nothing is missing of what was there before"
    stragglers = [key for key in found.points if key not in before]
    assert {name for _, name in stragglers} <= {pseudonym("straggler")}


def test_windows_with_fewer_rows_than_k_or_none_stay_open_and_one_that_fills_up_is_released_later(make_ward: MakeWard) -> None:
    """Row 8: one source silent, fewer than k rows, an empty window that is filled an hour later by a one-shot run."""
    ward = make_ward(seconds=2, start_ns=seconds_ago(30))
    recording = ward.recording
    silent_ns, few_ns, empty_ns = (recording.end_ns + offset * SECOND_NS for offset in (0, 1, 2))
    load(ward.server, recording.bucket, recording.wearers, start_ns=empty_ns + SECOND_NS, end_ns=empty_ns + 2 * SECOND_NS)
    # Five wearers of six in one window, three rows in the next, none in the third, all in the fourth.
    ward.server.write_lines(recording.bucket, lines([silent_ns + row for row in range(40)], source="wearer-002"))
    ward.server.write_lines(recording.bucket, lines([few_ns + row for row in range(3)]))

    with ward.start(STREAMING) as service:
        wait_until(lambda: len(files_in(ward.csv)) == 4, "two, the one with a silent source, and the last", service=service)
        service.wait_for("No data in this batch")
        assert "3 withheld" in service.log
        assert service.stop() == 0
    streamed = ward.holdings()
    assert not [key for key in streamed.points if time_text(few_ns) <= key[0] < time_text(empty_ns + SECOND_NS)]

    load(ward.server, recording.bucket, recording.wearers, start_ns=few_ns, end_ns=empty_ns + SECOND_NS)
    code, log = ward.run({"QUERY_END_TIME": moment(empty_ns + 2 * SECOND_NS)})

    assert code == 0, log
    found = ward.holdings()
    filled = {key for key in found.points if time_text(few_ns) <= key[0] < time_text(empty_ns + SECOND_NS)}
    assert filled == {
        *raw_samples(recording.wearers, few_ns, empty_ns + SECOND_NS),
        *((time_text(few_ns + row), pseudonym("straggler")) for row in range(3)),
    }
    assert streamed.points.items() <= found.points.items(), "what was released before stays as it was"
    assert streamed.payloads <= found.payloads


def test_the_stream_remembers_that_it_passed_an_empty_window(make_ward: MakeWard) -> None:
    """Row 8: the position moves on over windows without rows, across a restart, and does not go back to them."""
    ward = make_ward(seconds=2, start_ns=seconds_ago(20))
    with ward.start(STREAMING) as service:
        ward.wait_until_delivered(service)
        service.wait_for("No data in this batch")
        assert service.stop() == 0
    filled_ns = ward.recording.end_ns + SECOND_NS
    ward.server.write_lines(ward.recording.bucket, lines([filled_ns + row for row in range(40)]))

    with ward.start(STREAMING) as service:
        service.wait_for("No data in this batch")
        assert service.stop() == 0

    ward.assert_complete()
