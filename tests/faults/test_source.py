"""The source is away, or breaks off, or says too little: the service waits, asks again, and releases no window short."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from testbed.influxdb_server import InfluxServer, start_server
from testbed.wearers import Wearers
from tests.faults.conftest import MakeWard, Report
from tests.faults.oracle import files_in
from tests.faults.ward import FULL, STREAMING, Recording, Undisturbed, Ward, seconds_ago, slow_disk, wait_until
from tests.servers.api_server import ApiServer
from tests.servers.http_proxy import HttpProxy
from tests.servers.tcp_proxy import End, Fault, Hang, Reset, TcpProxy

pytestmark = pytest.mark.influxdb

#: Where rows are asked for in each language.
QUERIES = ("/api/v2/query", "/query")

INFLUXQL = {"INFLUX_QUERY_LANGUAGE": "influxql"}


@pytest.fixture
def path(ward: Ward) -> Iterator[TcpProxy]:
    with TcpProxy(ward.server.port) as proxy:
        yield proxy


@pytest.fixture
def editor(ward: Ward) -> Iterator[HttpProxy]:
    with HttpProxy(ward.server.url) as proxy:
        yield proxy


def through(proxy: TcpProxy | HttpProxy, ward: Ward) -> dict[str, object]:
    return {"INFLUX_URL": proxy.url, "INFLUX_OUTPUT_URL": ward.server.url}


def test_a_source_that_is_down_at_the_start_is_waited_for_and_nothing_is_missed(make_ward: MakeWard, report: Report) -> None:
    """Row 4: source down at start; it stays up, says so, and catches up faster than life."""
    ward = make_ward(seconds=60, start_ns=seconds_ago(70))
    ward.undisturbed()  # made now: its time is not to be counted
    with TcpProxy(ward.server.port) as path:
        path.refuse()
        # Asked in InfluxQL, where a start needs more answers.
        with ward.start({**STREAMING, **through(path, ward), **INFLUXQL}) as service:
            service.wait_for("❌ Failed to connect to InfluxDB")
            service.wait_for("trying again in")
            assert service.process.poll() is None
            path.listen()
            service.wait_for("✅ Connected to InfluxDB")
            began_s = time.monotonic()
            ward.wait_until_delivered(service, within_s=30)
            report(f"caught up at {60 / (time.monotonic() - began_s):.0f} times real time after the source was down")
            assert_in_order(service.log)
            assert service.stop() == 0
    ward.assert_complete()


def assert_in_order(log: str) -> None:
    starts, day = [], ""
    for line in log.splitlines():
        day = line.rpartition("📅 ")[2] if "📅" in line else day
        starts += [(day, line.rpartition("Processing batch: ")[2])] if "📦" in line else []
    assert starts == sorted(starts), "windows come in order of time"


@pytest.mark.parametrize("fault", [None, Reset(), Hang()] if FULL else [None])
def test_a_source_that_goes_away_for_a_while_is_waited_for(make_ward: MakeWard, fault: Fault | None) -> None:
    """Row 4: source refused, reset or silent for a while, mid-stream."""
    ward = make_ward(seconds=5, start_ns=seconds_ago(-1))
    with TcpProxy(ward.server.port) as path:
        settings = {**STREAMING, **through(path, ward), "INFLUX_QUERY_TIMEOUT": "1"}
        with ward.start(settings) as service:
            wait_until(lambda: len(files_in(ward.csv)) >= 2, "two windows", service=service)
            if fault is None:
                path.refuse()
            else:
                path.answers.become(fault)
            service.wait_for("trying again in")
            assert service.process.poll() is None
            path.pass_all()
            wait_until(lambda: time.time_ns() > ward.recording.end_ns, "the recording is over")
            ward.wait_until_delivered(service)
            assert_in_order(service.log)
            assert service.stop() == 0
    ward.assert_complete()


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[InfluxServer]:
    """A server that a test may kill."""
    with start_server(tmp_path / "influxd") as server:
        yield server


def test_a_server_that_is_killed_and_started_again_is_waited_for_as_source_and_output(
    own_server: InfluxServer, tmp_path: Path, api_server: ApiServer, undisturbed: Undisturbed
) -> None:
    """Row 4: influxd itself dies while it is read and written, and comes back."""
    recording = Recording(own_server, Wearers(6, hertz=32), seconds=40, start_ns=seconds_ago(50))
    ward = Ward(recording, tmp_path, api_server, undisturbed)
    expected = ward.undisturbed()
    with ward.streaming(INFLUXQL, environment=slow_disk(ward.folder, "w_", 0.1)) as service:
        wait_until(lambda: len(files_in(ward.csv)) >= 3, "a few windows", service=service)
        own_server.kill()
        assert len(files_in(ward.csv)) < len(expected.files), "it was in the middle"
        service.wait_for("trying again in")
        own_server.restart()


def test_a_name_that_cannot_be_resolved_is_waited_for_in_a_stream_and_ends_a_one_shot_run_with_69(ward: Ward) -> None:
    """Row 4: DNS failure."""
    nowhere = {"INFLUX_URL": "http://influxdb.invalid:8086", "INFLUX_OUTPUT_URL": ward.server.url}

    code, log = ward.run({**nowhere, "RETRY_BUDGET_SECONDS": "1"})
    with ward.start({**STREAMING, **nowhere}) as service:
        service.wait_for("trying again in")
        assert service.process.poll() is None
        assert service.stop() == 0

    assert (code, "the host name cannot be resolved" in log) == (69, True), log
    assert ward.run({"INFLUX_OUTPUT_URL": ward.server.url})[0] == 0
    ward.assert_complete()


@pytest.mark.parametrize("fault", [Reset, End])
@pytest.mark.parametrize("after_bytes", [2500, 9000] if FULL else [9000])
@pytest.mark.parametrize("language", ["flux", "influxql"])
def test_a_read_that_is_cut_inside_its_answer_is_done_again_and_no_window_is_released_short(
    ward: Ward, path: TcpProxy, fault: Callable[[int], Fault], after_bytes: int, language: str
) -> None:
    """Row 5: read reset mid-body; early clean end of the connection."""
    # Rows are shorter in InfluxQL.
    path.answers.become(fault(after_bytes if language == "flux" else after_bytes // 2), times=3)

    code, log = ward.run({**through(path, ward), "MAX_RECORDS_PER_QUERY": "1000", "INFLUX_QUERY_LANGUAGE": language})

    assert code == 0, log
    assert path.answers.fired == 3
    ward.assert_complete()


class Spoiler:
    """Spoils the answer to every question for rows the first time it is asked, and leaves it whole the next time."""

    def __init__(self, spoil: Callable[[bytes], bytes]) -> None:
        self._spoil = spoil
        self.spoiled: set[bytes] = set()

    def __call__(self, path: str, body: bytes, answer: bytes) -> bytes:
        if path not in QUERIES or b"wearer-" not in answer or body in self.spoiled:
            return answer
        self.spoiled.add(body)
        return self._spoil(answer)


def ended_in_a_line(answer: bytes) -> bytes:
    """Return an answer that ends after half of its rows, as a proxy may that buffers whole lines."""
    lines = answer.split(b"\r\n")
    return b"\r\n".join(lines[: len(lines) // 2]) + b"\r\n"


def ended_properly(answer: bytes) -> bytes:
    """Return half of the rows with the table's proper end: only a count tells."""
    return ended_in_a_line(answer) + b"\r\n"


def with_an_error_behind(answer: bytes) -> bytes:
    """Return half of the rows, and what the server says of the rest, with a status of 200."""
    return (
        ended_properly(answer) + b"#datatype,string,string\r\n,error,reference\r\n,runtime error: engine: shard is closed,897\r\n"
    )


def without_one_row(answer: bytes) -> bytes:
    """Return all rows but one."""
    lines = answer.split(b"\r\n")
    return b"\r\n".join(lines[:20] + lines[21:])


def empty(answer: bytes) -> bytes:
    """Return an answer without any table."""
    return b"\r\n"


def without_one_row_of_influxql(answer: bytes) -> bytes:
    """Return all rows but one."""
    lines = answer.split(b"\n")
    return b"\n".join(lines[:20] + lines[21:])


def ended_in_a_line_of_influxql(answer: bytes) -> bytes:
    """Return half of the rows: clean CSV, as version 1 sends when a query takes too long."""
    lines = answer.split(b"\n")
    return b"\n".join(lines[: len(lines) // 2]) + b"\n"


def nothing(answer: bytes) -> bytes:
    """Return what the server says of a database that is not there."""
    return b""


SPOILS_OF_INFLUXQL = (without_one_row_of_influxql, ended_in_a_line_of_influxql, nothing)

SPOILS = (with_an_error_behind, without_one_row, ended_in_a_line, ended_properly, empty)


@pytest.mark.parametrize("spoil", [*(SPOILS if FULL else SPOILS[:2]), *(SPOILS_OF_INFLUXQL if FULL else SPOILS_OF_INFLUXQL[1:2])])
def test_a_read_that_brings_too_little_is_done_again_and_no_window_is_released_short(
    ward: Ward, editor: HttpProxy, spoil: Callable[[bytes], bytes]
) -> None:
    """Row 5: an answer that ends early but cleanly; an error table after a status of 200; fewer rows than were counted."""
    spoiler = Spoiler(spoil)
    editor.edit(spoiler)

    language = INFLUXQL if spoil in SPOILS_OF_INFLUXQL else {}
    code, log = ward.run({**through(editor, ward), **language, "MAX_RECORDS_PER_QUERY": "1000"})

    assert code == 0, log
    assert len(spoiler.spoiled) >= 4
    ward.assert_complete()


def test_a_source_that_always_brings_too_little_gets_nothing_released(ward: Ward, editor: HttpProxy) -> None:
    """Row 5: every read of a window lacks a row: 69 in the end, and not one row left the house."""
    editor.edit(lambda path, body, answer: without_one_row(answer) if path in QUERIES and b"wearer-" in answer else answer)

    code, log = ward.run({**through(editor, ward), "RETRY_BUDGET_SECONDS": "2"})

    assert code == 69, log
    found = ward.holdings()
    assert (found.points, found.files, found.payloads.total()) == ({}, {}, 0)
    assert ward.run({"INFLUX_OUTPUT_URL": ward.server.url})[0] == 0
    ward.assert_complete()
