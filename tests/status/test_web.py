"""Who may ask, and what is answered: the real server, asked over HTTP."""

from __future__ import annotations

import base64
import re
import socket
import threading
import time
from collections.abc import Iterator

import pytest
import requests

from anonymizer.errors import ConfigurationError
from service.setting_types import Secret
from service.status.address import StatusAddress, parse_address
from service.status.snapshot import Snapshot
from service.status.web import StatusServer
from tests.documentation.pages import DOCUMENTATION
from tests.status import states
from tests.status.events import settings_with

TOKEN = "a-token-of-32-characters-length!"

SECRETS = {"INFLUX_TOKEN": "the-influx-token", "PSEUDONYM_SALT": "the-key-of-the-pseudonyms", "API_TOKEN": "the-api-token"}

EVERYTHING = ["/", "/help", "/metrics", "/livez", "/readyz", "/status.json", "/settings.json", "/assets/status.js"]


class Served:
    """A status server whose state tests change."""

    def __init__(self, *, token: str = "", host: str = "127.0.0.1") -> None:
        self.snapshot: Snapshot = states.healthy()
        settings = settings_with(
            **SECRETS, PSEUDONYMIZE_SOURCE_ID="true", DEVICE_FILTER="patient-17,patient-18", INFLUX_TAG_FILTER="bed=patient-19"
        )
        self.server = StatusServer(StatusAddress(host, 0), lambda: self.snapshot, settings, Secret(token))

    def get(self, path: str, *, method: str = "GET", **headers: str) -> requests.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return requests.request(method, f"http://127.0.0.1:{self.server.port}{path}", headers=named, timeout=10)


@pytest.fixture
def served() -> Iterator[Served]:
    served = Served()
    yield served
    served.server.close()


@pytest.fixture
def guarded() -> Iterator[Served]:
    served = Served(token=TOKEN, host="0.0.0.0")
    yield served
    served.server.close()


def test_readiness_answers_200_or_503_with_reasons(served: Served) -> None:
    ready = served.get("/readyz")
    assert (ready.status_code, ready.json()) == (200, {"ready": True, "reasons": []})

    served.snapshot = states.one_output_down()
    not_ready = served.get("/readyz")
    assert not_ready.status_code == 503
    assert not_ready.json()["ready"] is False
    assert [(one["code"], one["output"]) for one in not_ready.json()["reasons"]] == [("output_unreachable", states.API)]


def test_liveness_is_about_the_loop_alone(served: Served) -> None:
    served.snapshot = states.source_down()
    assert served.get("/livez").status_code == 200

    served.snapshot = states.healthy(idle_s=240.1)
    hanging = served.get("/livez")
    assert (hanging.status_code, hanging.json()) == (503, {"live": False, "idle_seconds": 240.1, "limit_seconds": 240.0})


def test_metrics_page_and_readiness_tell_the_same(served: Served) -> None:
    for snapshot, ready in ((states.healthy(), 1), (states.source_down(), 0)):
        served.snapshot = snapshot
        assert f"\necg_anonymizer_ready {ready}.0\n" in served.get("/metrics").text
        assert served.get("/status.json").json()["ready"] is bool(ready)
        assert (served.get("/readyz").status_code == 200) is bool(ready)


@pytest.mark.parametrize("path", EVERYTHING)
def test_nothing_is_kept_framed_or_loaded_from_elsewhere(served: Served, path: str) -> None:
    answer = served.get(path)

    assert answer.status_code == 200
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    assert "Server" not in answer.headers


@pytest.mark.parametrize("path", EVERYTHING)
def test_nothing_is_answered_without_the_token(guarded: Served, path: str) -> None:
    for headers in (
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": f"Basic {basic('wrong')}"},
        {"Authorization": TOKEN},
    ):
        refused = guarded.get(path, **headers)
        assert refused.status_code == 401
        assert "Basic" in refused.headers["WWW-Authenticate"]
        assert "ecg_anonymizer_" not in refused.text

    assert guarded.get(path, Authorization=f"Bearer {TOKEN}").status_code == 200
    assert guarded.get(path, Authorization=f"Basic {basic(TOKEN)}").status_code == 200


def basic(password: str) -> str:
    return base64.b64encode(f"operator:{password}".encode()).decode()


@pytest.mark.parametrize("shown", ["Basic", "Basic !!!", "Basic /////w==", "Bearer", "Bearer ü"])
def test_a_mangled_token_is_refused_not_an_error(guarded: Served, shown: str) -> None:
    assert guarded.get("/status.json", Authorization=shown.encode().decode("latin-1")).status_code == 401


def test_a_web_site_that_calls_itself_this_machine_is_refused(served: Served) -> None:
    assert served.get("/status.json", Host="evil.example").status_code == 403
    assert served.get("/status.json", Host="evil.example:80").status_code == 403
    for host in ("localhost", "localhost:9464", "127.0.0.1:1", "[::1]:9464", "127.0.0.1"):
        assert served.get("/status.json", Host=host).status_code == 200


@pytest.mark.parametrize(
    "path", ["/nothing", "/assets/../web.py", "/assets/%2e%2e/web.py", "/web.py", "/assets/index.html", "/.env"]
)
def test_nothing_else_is_there(served: Served, path: str) -> None:
    answer = served.get(path)

    assert answer.status_code == 404
    assert answer.headers["Content-Type"].startswith("text/plain")


def test_nothing_can_be_changed(served: Served) -> None:
    for path in EVERYTHING:
        for method in ("POST", "PUT", "DELETE", "PATCH"):
            assert served.get(path, method=method).status_code == 405
    assert served.get("/", method="HEAD").status_code == 200


def test_settings_are_shown_without_secrets_and_names_of_people(served: Served) -> None:
    answer = served.get("/settings.json")
    shown = {one["name"]: one["value"] for one in answer.json()}

    assert shown["K_VALUE"] == "5"
    assert shown["LATE_RECOUNT_SECONDS"] == "30,300,86400"
    assert shown["INFLUX_TOKEN"] == "(set, not shown)"
    assert shown["STATUS_TOKEN"] == "(not set)"
    assert shown["DEVICE_FILTER"] == "(2 named, not shown)"
    for text in (*SECRETS.values(), "patient-"):
        assert text not in answer.text


def test_an_address_that_is_taken_is_a_wrong_setting() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigurationError, match=f"STATUS_ADDRESS 127.0.0.1:{port} cannot be listened on"):
            StatusServer(StatusAddress("127.0.0.1", port), states.healthy, settings_with(), Secret(""))


def test_an_address_that_is_not_this_machines_is_a_wrong_setting() -> None:
    with pytest.raises(ConfigurationError, match=r"192\.0\.2\.1:9464 cannot be listened on"):
        StatusServer(StatusAddress("192.0.2.1", 9464), states.healthy, settings_with(), Secret(TOKEN))


@pytest.mark.parametrize(
    ("text", "host", "port", "is_loopback"),
    [
        ("127.0.0.1:9464", "127.0.0.1", 9464, True),
        ("localhost:80", "localhost", 80, True),
        ("[::1]:9464", "::1", 9464, True),
        ("127.8.9.1:0", "127.8.9.1", 0, True),
        ("0.0.0.0:9464", "0.0.0.0", 9464, False),
        ("[::]:9464", "::", 9464, False),
        ("10.0.0.7:9464", "10.0.0.7", 9464, False),
        ("status.ward.example:9464", "status.ward.example", 9464, False),
    ],
)
def test_addresses_are_understood(text: str, host: str, port: int, is_loopback: bool) -> None:
    address = parse_address(text)

    assert (address.host, address.port, address.is_loopback, str(address)) == (host, port, is_loopback, text)


@pytest.mark.parametrize(
    "text", ["9464", ":9464", "127.0.0.1", "127.0.0.1:", "127.0.0.1:x", "::1:9464", "h:65536", "http://h:1", "a@b:1"]
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"an address and a port|expected"):
        parse_address(text)


def test_connections_that_say_nothing_hold_nobody_up(served: Served) -> None:
    before = threading.active_count()
    silent = [socket.create_connection(("127.0.0.1", served.server.port)) for _ in range(50)]
    try:
        silent[0].sendall(b"GET / HTTP/1.1\r\nHost: loc")
        assert served.get("/livez").status_code == 200
        assert threading.active_count() <= before
    finally:
        for one in silent:
            one.close()


def test_a_server_that_was_closed_leaves_no_thread_and_no_port_behind() -> None:
    before = threading.active_count()
    served = Served()
    served.get("/livez")
    assert threading.active_count() - before <= 3, "two that answer, and one that listens to them all"

    served.server.close()

    deadline = time.monotonic() + 20
    while threading.active_count() > before:
        assert time.monotonic() < deadline, threading.enumerate()
        time.sleep(0.05)
    with pytest.raises(requests.ConnectionError):
        served.get("/livez")


def test_the_chart_library_is_the_one_the_decision_names_and_comes_with_its_licence(served: Served) -> None:
    library = served.get("/assets/uPlot.iife.min.js").text
    record = (DOCUMENTATION / "decisions" / "012-bottle-waitress-and-uplot-for-the-status-page.md").read_text(encoding="utf-8")

    (version,) = re.findall(r"uPlot \(v([\d.]+)\)", library[:200])
    assert f"[uPlot](https://github.com/leeoniya/uPlot) {version} draws" in record
    assert "The MIT License" in served.get("/assets/uPlot.LICENSE.txt").text
