"""Outputs that lose answers, are down, or never answer: others go on, nothing is sent twice where it would show or lost."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from testbed.wearers import SECOND_NS
from tests.faults.oracle import files_in
from tests.faults.ward import FULL, STREAMING, Changes, Ward, moment, wait_until
from tests.integration.service_process import Service
from tests.servers.api_server import Reply
from tests.servers.http_proxy import Asked, HttpProxy
from tests.servers.tcp_proxy import BlackHole, Fault, Hang, TcpProxy, Throttle

pytestmark = pytest.mark.influxdb

WRITE = "/api/v2/write"


@dataclass(frozen=True)
class Paths:
    """A way to each output that can be counted on, and cut off."""

    influxdb: HttpProxy
    api: HttpProxy
    cut: dict[str, TcpProxy]
    settings: Changes


@contextlib.contextmanager
def paths_of(ward: Ward) -> Iterator[Paths]:
    """Yield the ward's outputs, each behind a proxy that counts and one that can be cut off."""
    with contextlib.ExitStack() as stack:
        influxdb = stack.enter_context(HttpProxy(ward.server.url))
        api = stack.enter_context(HttpProxy(ward.api.url))
        cut = {name: stack.enter_context(TcpProxy(port_of(one.url))) for name, one in (("influxdb", influxdb), ("api", api))}
        settings = {"INFLUX_OUTPUT_URL": cut["influxdb"].url, "API_ENDPOINT": f"{cut['api'].url}/ecg"}
        yield Paths(influxdb, api, cut, settings)


def _lines_of(requests: list[Asked]) -> set[bytes]:
    return {line for one in requests for line in one.body.splitlines()}


def _but_for_claims(proxy: HttpProxy, path: str = "") -> list[Asked]:
    """Return what was asked, without the claims by which services see each other."""
    return [one for one in proxy.asked(path) if b"_anonymized_claims" not in one.body]


def port_of(url: str) -> int:
    return int(url.rpartition(":")[2])


def begin(ward: Ward, paths: Paths) -> None:
    """Release the first two windows while all is well: a service that never released anything first asks InfluxDB whether others have."""
    end = {"QUERY_END_TIME": moment(ward.recording.start_ns + 2 * SECOND_NS)}
    code, log = ward.run({**paths.settings, **end})
    assert code == 0, log


def test_a_write_whose_answer_is_lost_is_sent_again_and_seen_once(ward: Ward) -> None:
    """Row 9: the server stored it, but the answer was lost."""
    lost = Reply(drop=True, store=True)
    with paths_of(ward) as paths:
        paths.influxdb.answer(None, None, lost, None, None, lost, None, lost, to=WRITE)
        paths.api.answer(lost, None, lost, None, None, lost)
        code, log = ward.run(paths.settings)

        keys = [delivery.key for delivery in ward.api.deliveries()]

    assert code == 0, log
    assert len(keys) == len(set(keys)) + 3, "three came twice, under their own keys"
    ward.assert_complete()


@pytest.mark.parametrize("output", ["influxdb", "api"])
def test_an_output_that_is_down_for_the_whole_run_delays_only_itself_and_catches_up_later(recent: Ward, output: str) -> None:
    """Row 13: one of three outputs down for the whole run, then back."""
    expected = recent.undisturbed()
    with paths_of(recent) as paths:
        begin(recent, paths)
        paths.cut[output].refuse()
        with recent.start({**STREAMING, **paths.settings}) as service:
            outlast(recent, paths, output, service)

    recent.assert_complete()
    assert len(recent.api.deliveries()) == expected.payloads.total()


def outlast(recent: Ward, paths: Paths, output: str, service: Service) -> None:
    """See the others through without one output, then bring it back."""
    expected = recent.undisturbed()
    wait_until(lambda: files_in(recent.csv) == expected.files, "CSV is complete without the other", service=service)
    if output == "api":
        wait_until(lambda: recent.points() == len(expected.points), "InfluxDB is complete without the API", service=service)
    else:
        wait_until(
            lambda: len(recent.api.stored()) == expected.payloads.total(),
            "the API is complete without InfluxDB",
            service=service,
        )
    healthy = paths.influxdb if output == "api" else paths.api
    before = _but_for_claims(healthy)
    assert len(recent.spooled()) == 18, "everything waits for the one that is down"

    paths.cut[output].listen()
    recent.wait_until_delivered(service)
    assert service.stop() == 0
    # A request may be answered only now whose rows were seen, and the last summaries follow them.
    since = _but_for_claims(healthy)[len(before) :]
    assert not _lines_of(before) & _lines_of(since), "nothing was sent again to the one that was up"


def test_an_output_that_is_down_ends_a_one_shot_run_with_69_and_gets_everything_from_the_next(ward: Ward) -> None:
    """Row 13: one of three outputs down for a whole one-shot run, back for the next, which reads nothing again."""
    with paths_of(ward) as paths, HttpProxy(ward.server.url) as source:
        through = {**paths.settings, "INFLUX_URL": source.url}
        paths.cut["api"].refuse()
        released, windows = 0, (ward.recording.end_ns - ward.recording.start_ns) // SECOND_NS
        # On a busy machine a run may give up before it has read everything.
        while released < windows:
            code, log = ward.run({**through, "RETRY_BUDGET_SECONDS": "6"})
            assert code == 69, log
            assert "Gave up after RETRY_BUDGET_SECONDS=6: API at" in log
            released += log.count("🔒 Anonymizing")
        written = len(_but_for_claims(paths.influxdb, WRITE))

        paths.cut["api"].listen()
        read_before = len(source.asked("/api/v2/query"))
        code, log = ward.run(through)

        assert code == 0, log
        assert len(source.asked("/api/v2/query")) <= read_before + 2, "what was released was not read again"
        assert len(_but_for_claims(paths.influxdb, WRITE)) <= written + 1, "nor written again: one request is the probe"

    ward.assert_complete()


FAULTS: dict[str, Fault] = {"hang": Hang(), "black hole": BlackHole(), "10 bytes/s": Throttle(bytes_per_s=10)}
SILENT = [(output, fault) for output in ("influxdb", "api") for fault in FAULTS]


@pytest.mark.parametrize(("output", "name"), SILENT if FULL else [("influxdb", "10 bytes/s"), ("api", "hang")])
def test_an_output_that_never_answers_is_given_up_in_time_and_the_others_go_on(recent: Ward, output: str, name: str) -> None:
    """Row 14: a sink that accepts and never answers, or answers with 10 bytes a second."""
    impatient = {"API_TIMEOUT_SECONDS": "1", "INFLUX_QUERY_TIMEOUT": "1"}
    expected = recent.undisturbed()
    with paths_of(recent) as paths:
        begin(recent, paths)
        paths.cut[output].answers.become(FAULTS[name])
        with recent.streaming({**paths.settings, **impatient}) as service:
            wait_until(lambda: files_in(recent.csv) == expected.files, "CSV is complete without the other", service=service)
            service.wait_for("InfluxDB at" if output == "influxdb" else "API at")
            service.wait_for("trying again in")
            paths.cut[output].pass_all()


def test_reading_pauses_when_the_spool_is_full_and_goes_on_when_the_slow_output_does(recent: Ward) -> None:
    """Row 14: while a sink does not answer, what waits for it stays bounded: back-pressure, not loss."""
    small = {"SPOOL_MAX_BYTES": "30000", "API_TIMEOUT_SECONDS": "1"}
    with paths_of(recent) as paths, contextlib.ExitStack() as stack:
        paths.cut["api"].answers.become(Hang())
        service = stack.enter_context(recent.streaming({**paths.settings, **small}))
        service.wait_for("⏸️ Reading pauses")
        waiting = recent.spooled()
        largest = max((recent.state / "spool" / name).stat().st_size for name in waiting)
        assert sum((recent.state / "spool" / name).stat().st_size for name in waiting) < 30_000 + largest
        assert len(files_in(recent.csv)) <= len(waiting)

        paths.cut["api"].pass_all()
        service.wait_for("▶️ Reading resumes")
