"""What servers answer besides yes: wait, and how long; not you; not this row. Each is obeyed, and nothing is lost."""

from __future__ import annotations

import email.utils
import itertools
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from pathlib import Path

import pytest

from testbed.replay import load
from tests.faults.conftest import MakeWard
from tests.faults.ward import FULL, STREAMING, Ward, seconds_ago, wait_until
from tests.servers.api_server import Reply
from tests.servers.http_proxy import Asked, HttpProxy, Rule

pytestmark = pytest.mark.influxdb

WRITE = "/api/v2/write"
WRITES = (WRITE, "/ecg")

#: How long a server is out of order; and how many tries that may take, if pauses double from half a second.
OUTAGE_S = 60 if FULL else 2
MOST_TRIES = 20 if FULL else 5


@pytest.fixture
def influxdb_path(ward: Ward) -> Iterator[HttpProxy]:
    with HttpProxy(ward.server.url) as proxy:
        yield proxy


@pytest.fixture
def api_path(ward: Ward) -> Iterator[HttpProxy]:
    with HttpProxy(ward.api.url) as proxy:
        yield proxy


def through(influxdb_path: HttpProxy, api_path: HttpProxy) -> dict[str, object]:
    return {"INFLUX_OUTPUT_URL": influxdb_path.url, "API_ENDPOINT": f"{api_path.url}/ecg"}


def writes(proxy: HttpProxy) -> list[Asked]:
    """Return what was asked to be stored."""
    return [one for one in proxy.asked() if one.path in WRITES]


def pauses_s(proxy: HttpProxy) -> list[float]:
    """Return how long after each refusal the same was asked again; other requests may have been on their way already."""
    in_turn = sorted(writes(proxy), key=lambda one: one.at_s)
    refused = [(place, one) for place, one in enumerate(in_turn) if one.status >= 400]
    return [next(later.at_s for later in in_turn[place + 1 :] if later.body == one.body) - one.at_s for place, one in refused]


def in_two_seconds() -> str:
    # A date has no fraction: of "in two seconds" at least one is left.
    return email.utils.formatdate(time.time() + 2, usegmt=True)


#: What a server says, one after the other with a success in between, and how long we wait then at least, in seconds. A pause of our own
#: is half a second long, and at least half of that.
REFUSALS: tuple[tuple[Callable[[], Reply], float], ...] = (
    (lambda: Reply(status=429, headers={"Retry-After": "1"}), 1.0),
    (lambda: Reply(status=503, headers={"Retry-After": "2"}), 2.0),
    (lambda: Reply(status=503, headers={"Retry-After": in_two_seconds()}), 0.9),
    (lambda: Reply(status=503, headers={"Retry-After": "soon, perhaps"}), 0.25),
    (lambda: Reply(status=503, headers={"Retry-After": "-5"}), 0.25),
    (lambda: Reply(status=500, body='{"code":"internal error"}'), 0.25),
    (lambda: Reply(status=502, headers={"Content-Type": "text/html"}, body="<html><body>Bad Gateway</body></html>"), 0.25),
    (lambda: Reply(status=504), 0.25),
)


def every_third_one(refusals: Iterable[Callable[[], Reply]]) -> Rule:
    """Return a rule that refuses the third request, the sixth, and so on: a batch of two requests is through at its second try."""
    left = itertools.chain.from_iterable((None, None, refusal) for refusal in refusals)

    def rule(path: str, body: bytes) -> Reply | None:
        refusal = next(left, None) if path in WRITES else None
        return None if refusal is None else refusal()

    return rule


def test_a_server_that_asks_to_wait_is_given_the_time_it_asks_for(
    ward: Ward, influxdb_path: HttpProxy, api_path: HttpProxy
) -> None:
    """Row 12: 429/503 with Retry-After in seconds, as a date, as garbage; 500; 502 with HTML; 504."""
    for proxy in (influxdb_path, api_path):
        proxy.answer_by(every_third_one(refusal for refusal, _ in REFUSALS))

    code, log = ward.run(through(influxdb_path, api_path))

    assert code == 0, log
    for proxy in (influxdb_path, api_path):
        pauses = pauses_s(proxy)
        assert len(pauses) == len(REFUSALS)
        for pause_s, (refusal, least_s) in zip(pauses, REFUSALS, strict=True):
            assert pause_s >= least_s, refusal()
    ward.assert_complete()


def test_a_server_out_of_order_for_a_while_is_asked_ever_more_rarely(
    ward: Ward, influxdb_path: HttpProxy, api_path: HttpProxy
) -> None:
    """Row 12: 500 for a minute: no busy loop, resumes."""
    proxies = (influxdb_path, api_path)
    for proxy in proxies:
        proxy.answer_by(out_of_order())

    # One outage after the other: a run claims the bucket before it sends anything.
    code, log = ward.run({**through(influxdb_path, api_path), "RETRY_BUDGET_SECONDS": "300"}, within_s=300)

    assert code == 0, log
    for proxy in proxies:
        refused = [one for one in writes(proxy) if one.status == 500]
        assert 2 <= len(refused) <= MOST_TRIES
    ward.assert_complete()


def out_of_order() -> Rule:
    """Return a rule that refuses every write for a while, from the first one on: a busy machine takes long to begin."""
    began_s: list[float] = []

    def rule(path: str, body: bytes) -> Reply | None:
        if path not in WRITES:
            return None
        began_s.append(time.monotonic())
        # A busy machine may take longer than that to ask a second time.
        return Reply(status=500) if len(began_s) <= 2 or began_s[-1] < began_s[0] + OUTAGE_S else None

    return rule


def test_no_wait_is_longer_than_ten_minutes_and_a_waiting_service_stops_at_once(
    recent: Ward, influxdb_path: HttpProxy, api_path: HttpProxy
) -> None:
    """Row 12: Retry-After of a billion seconds is cut to 600; what waits is delivered after a restart."""
    api_path.answer(Reply(status=503, headers={"Retry-After": "1000000000"}))
    settings = through(influxdb_path, api_path)
    with recent.start({**STREAMING, **settings}) as service:
        service.wait_for("trying again in 600.0 s")
        assert service.stop() == 0

    with recent.streaming(settings):
        pass


def test_a_refusal_that_an_operator_fixes_costs_only_time(recent: Ward, influxdb_path: HttpProxy, api_path: HttpProxy) -> None:
    """Row 11: 401, 403 or 404 for a while, from both servers: paused, resumed, nothing lost."""
    denied = [Reply(status=status, body='{"code":"denied","message":"not you"}') for status in (401, 403, 404)]
    with recent.streaming(through(influxdb_path, api_path)) as service:
        influxdb_path.answer(None, None, None, denied[0], None, denied[1], None, denied[2], to=WRITE)
        api_path.answer(None, denied[0], None, denied[1], None, denied[2])
        service.wait_for("trying again in")

    for proxy in (influxdb_path, api_path):
        assert [one.status for one in writes(proxy) if one.status >= 400] == [401, 403, 404]
    recent.assert_complete()


def test_tokens_that_are_rotated_in_their_files_are_read_again(make_ward: MakeWard, tmp_path: Path) -> None:
    """Rows 4 and 11: both tokens are revoked while the service runs; new ones in the same files are all it needs."""
    ward = make_ward(seconds=5, start_ns=seconds_ago(-2))
    server, files = ward.server, {name: tmp_path / name for name in ("INFLUX_TOKEN", "INFLUX_OUTPUT_TOKEN")}
    for name, path in files.items():
        path.write_text(f"{ward.settings.pop(name)}\n", encoding="ascii")
        ward.settings[f"{name}_FILE"] = path

    with ward.streaming() as service:
        service.wait_for("Successfully pushed")
        for path in files.values():
            server.revoke_token(path.read_text().strip())
        service.wait_for("trying again in")
        files["INFLUX_TOKEN"].write_text(server.make_token(read=[ward.recording.bucket]), encoding="ascii")
        files["INFLUX_OUTPUT_TOKEN"].write_text(server.make_token(write=[ward.released]), encoding="ascii")
        ward.settings["INFLUX_TOKEN"] = server.token
        wait_until(lambda: time.time_ns() > ward.recording.end_ns, "the recording is over")


def test_a_batch_that_is_too_large_for_a_server_goes_in_parts(ward: Ward, influxdb_path: HttpProxy, api_path: HttpProxy) -> None:
    """Row 10: 413 from both servers for anything above 4 kB: halved until it fits."""
    for proxy in (influxdb_path, api_path):
        proxy.answer_by(lambda _, body: Reply(status=413) if len(body) > 4000 else None)

    code, log = ward.run(through(influxdb_path, api_path))

    assert code == 0, log
    expected, found = ward.undisturbed(), ward.holdings()
    assert found.points == expected.points
    assert found.summaries == expected.summaries
    assert found.api_records() == expected.api_records()
    assert len(ward.api.stored()) > 2 * expected.payloads.total()


def test_one_bad_row_of_many_is_set_aside_alone_and_the_rest_is_stored(
    ward: Ward, influxdb_path: HttpProxy, api_path: HttpProxy
) -> None:
    """Row 10: 400 for one line of many: bisected; exactly that row is set aside, with its reason, and its window is marked partial."""
    expected = ward.undisturbed()
    bad = sorted(expected.points)[700]
    stamp = str(ns_of(bad[0])).encode()

    def is_bad(path: str, body: bytes) -> Reply | None:
        hit = any(line.endswith(b" " + stamp) and bad[1].encode() in line for line in body.splitlines())
        return Reply(status=400, body='{"code":"invalid","message":"unable to parse"}') if hit else None

    influxdb_path.answer_by(is_bad)
    code, log = ward.run(through(influxdb_path, api_path))

    assert code == 65, log
    found = ward.holdings()
    assert found.points == {key: value for key, value in expected.points.items() if key != bad}
    partial = [start for start, fields in found.summaries.items() if fields["partial"] == "true"]
    assert partial == [f"{bad[0][:19]}.000000000Z"]
    assert (found.files, found.payloads) == (expected.files, expected.payloads)
    assert "1 of 192 rows of batch" in log


def test_windows_beyond_the_output_buckets_retention_are_set_aside_and_newer_ones_stored(make_ward: MakeWard) -> None:
    """Row 10: 422 because rows are older than the output bucket keeps."""
    # Two groups of windows, well on either side of an hour ago.
    ward = make_ward(seconds=4, start_ns=seconds_ago(3600 + 120))
    newer = seconds_ago(3600 - 240)
    load(ward.server, ward.recording.bucket, ward.recording.wearers, start_ns=newer, end_ns=newer + 4 * 10**9)
    ward.recording.end_ns = newer + 4 * 10**9
    ward.settings.update(ward.recording.span)
    expected = ward.undisturbed()
    hourly = f"hourly-{ward.released}"
    ward.server.make_bucket(hourly, retention_s=3600)
    ward.released = hourly
    ward.settings |= {"INFLUX_OUTPUT_BUCKET": hourly, "INFLUX_OUTPUT_TOKEN": ward.server.make_token(write=[hourly])}

    code, log = ward.run()

    assert code == 65, log
    found = ward.holdings()
    kept = {key: value for key, value in expected.points.items() if ns_of(key[0]) >= newer}
    assert len(kept) == 4 * 192
    assert found.points == kept
    assert (found.files, found.payloads) == (expected.files, expected.payloads)


def test_a_field_of_another_type_in_the_output_bucket_ends_a_one_shot_run_with_78_and_loses_nothing(ward: Ward) -> None:
    """Row 10: 422 type conflict: every row is refused for its type, so the field has another type in the bucket."""
    stamp = ward.recording.start_ns
    ward.server.write_lines(ward.released, f"ecg_anonymized,source_id=x ecg=1i {stamp - 1}".encode())

    code, log = ward.run()

    assert code == 78, log
    assert "type" in log
    assert ward.run({"INFLUX_OUTPUT_BUCKET": ward.released})[0] == 78, "nor does it pass the next time"


def ns_of(text: str) -> int:
    return int(datetime.fromisoformat(f"{text[:19]}+00:00").timestamp()) * 10**9 + int(text[20:29])
