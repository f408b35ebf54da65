"""What the service believes of its source's clock, and how soon it notices that the source is gone; on the real program."""

from __future__ import annotations

import contextlib
import itertools
import json
import time
import urllib.request
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest

from service import exit_codes
from tests.integration.clinic import FIRST_MINUTE, Clinic
from tests.integration.service_process import Service, free_address, run_service
from tests.servers.http_proxy import Dates, HttpProxy
from tests.servers.tcp_proxy import BlackHole, TcpProxy

pytestmark = pytest.mark.influxdb

ROWS = 20

SILENT_CLOCK = "sends no Date header that can be read: windows fall due by this machine's clock alone"


def dated(years: int = 0, **ahead: float) -> str:
    """Return now, or years or another time ahead of it, as a `Date` header has it."""
    now = datetime.now(UTC)
    return format_datetime(now.replace(year=now.year + years, day=1) if years else now + timedelta(**ahead), usegmt=True)


def every_other_answer() -> Dates:
    turn = itertools.count()
    return lambda _: [dated()] if next(turn) % 2 else []


@pytest.mark.parametrize(
    ("dates", "is_silent"),
    [
        (lambda _: [], True),
        (lambda _: ["yesterday"], True),
        (lambda _: ["Fri, 99 Nov 2026 99:00:00 GMT"], True),
        (every_other_answer(), False),
        (lambda _: [dated(), dated(hours=5)], False),
    ],
    ids=["none", "a word", "no such day", "on every other answer", "two"],
)
def test_rows_are_released_whatever_date_headers_are_like_and_a_missing_clock_is_said_once(
    dates: Dates, is_silent: bool, clinic: Clinic, tmp_path: Path
) -> None:
    clinic.fill()
    with HttpProxy(clinic.server.url) as proxy:
        proxy.date_by(dates)
        code, log = run_service(tmp_path, {**clinic.settings, **FIRST_MINUTE, "INFLUX_URL": proxy.url})

    assert code == exit_codes.DONE, log
    assert f"{ROWS} rows read = {ROWS} released" in log
    assert log.count(SILENT_CLOCK) == is_silent
    assert "holds nothing" not in log


@pytest.mark.parametrize("years", [-30, 34])
def test_a_server_that_says_it_is_another_year_is_refused_with_both_times(years: int, clinic: Clinic, tmp_path: Path) -> None:
    clinic.fill()
    with HttpProxy(clinic.server.url) as proxy:
        proxy.date_by(lambda _: [dated(years)])
        code, log = run_service(tmp_path, {**clinic.settings, **FIRST_MINUTE, "INFLUX_URL": proxy.url})

    assert code == exit_codes.CONFIGURATION, log
    assert f"says it is {datetime.now(UTC).year + years}-" in log
    assert "(Date header)" in log
    assert "holds nothing" not in log


def ready(address: str) -> tuple[int, Any]:
    """Return the status of /readyz and the reasons it gives."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"http://{address}/readyz", timeout=5) as answer:
            return answer.status, json.load(answer)["reasons"]
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)["reasons"]


def wait_until_ready(address: str, expected: int, *, within_s: float, service: Service) -> float:
    """Wait for a status of /readyz; return how long it took."""
    began_s = time.monotonic()
    while True:
        try:
            status, _ = ready(address)
        except OSError:
            status = 0
        took_s = time.monotonic() - began_s
        if status == expected:
            return took_s
        assert took_s < within_s, f"/readyz says {status} after {took_s:.1f} s:\n{service.log}"
        time.sleep(0.05)


#: Nothing falls due for ten minutes, so whatever is noticed within half a minute was looked for.
SOON_S = 30
LONG_WINDOWS = {"STREAMING_MODE": "true", "BATCH_SIZE_SECONDS": 600, "OUTPUT_TO_INFLUX": "false"}


@pytest.mark.parametrize("fault", ["refuse", "hang"])
def test_a_database_that_ends_while_nothing_is_due_is_noticed_soon(fault: str, clinic: Clinic, tmp_path: Path) -> None:
    address = free_address()
    watched = {**LONG_WINDOWS, "STREAMING_INTERVAL": 2, "STATUS_ADDRESS": address}
    with (
        TcpProxy(clinic.server.port) as proxy,
        Service(tmp_path, {**clinic.settings, **watched, "INFLUX_URL": proxy.url}) as service,
    ):
        wait_until_ready(address, 200, within_s=SOON_S, service=service)
        if fault == "refuse":
            proxy.refuse()
        else:
            proxy.answers.become(BlackHole())
        # A server that takes the question and never answers is given five seconds; a busy machine is forgiven the rest.
        wait_until_ready(address, 503, within_s=SOON_S, service=service)
        assert ready(address)[1][0]["code"] == "source_unreachable"
        service.wait_for("⏳")
        proxy.pass_all()
        wait_until_ready(address, 200, within_s=SOON_S, service=service)
        assert service.stop() == 0


def test_a_token_that_is_revoked_while_nothing_is_due_is_noticed_too(clinic: Clinic, tmp_path: Path) -> None:
    address = free_address()
    token = clinic.server.make_token(read=[clinic.raw])
    watched = {**LONG_WINDOWS, "STREAMING_INTERVAL": 1, "STATUS_ADDRESS": address}
    with Service(tmp_path, {**clinic.settings, **watched, "INFLUX_TOKEN": token}) as service:
        wait_until_ready(address, 200, within_s=SOON_S, service=service)
        clinic.server.revoke_token(token)
        wait_until_ready(address, 503, within_s=SOON_S, service=service)
        assert "refuses INFLUX_TOKEN" in ready(address)[1][0]["text"]
        assert service.stop() == 0


def test_a_stream_that_waits_asks_no_more_than_once_a_second_with_date_headers_and_without(
    clinic: Clinic, tmp_path: Path
) -> None:
    stream, seconds = {**clinic.settings, **LONG_WINDOWS, "STREAMING_INTERVAL": 1}, 4
    with contextlib.ExitStack() as until_the_end:
        proxies = [until_the_end.enter_context(HttpProxy(clinic.server.url)) for _ in range(2)]
        proxies[1].date_by(lambda _: [])
        services = []
        for number, proxy in enumerate(proxies):
            (folder := tmp_path / str(number)).mkdir()
            services.append(until_the_end.enter_context(Service(folder, {**stream, "INFLUX_URL": proxy.url})))
        for service in services:
            service.wait_for("Connected to InfluxDB")
        time.sleep(0.5)  # the start asks for several things one after the other
        before, began_s = [len(proxy.asked()) for proxy in proxies], time.monotonic()
        time.sleep(seconds)
        asked = [len(proxy.asked()) - known for proxy, known in zip(proxies, before, strict=True)]
        took_s = time.monotonic() - began_s
        assert [service.stop() for service in services] == [0, 0]
        logs = [service.log for service in services]

    # One more at either end: of some that were asked a second apart, one may have been on its way for longer.
    assert all(1 <= number <= took_s + 2 for number in asked), (asked, took_s)
    assert [log.count(SILENT_CLOCK) for log in logs] == [0, 1]
