"""Who may ask, and what is answered: the real server, asked over HTTP."""

from __future__ import annotations

import base64
import contextlib
import errno
import http.client
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest
import requests
from waitress.server import TcpWSGIServer

from anonymizer.errors import ConfigurationError
from service.clock import SystemClock
from service.settings.types import Secret, StatusAddress, parse_address
from service.state.output_positions import OutputPosition
from service.status import connections
from service.status.board import Board
from service.status.snapshot import Snapshot
from service.status.web import StatusServer
from service.telemetry.totals import Sums
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
        self.look: Callable[[], Snapshot] = lambda: self.snapshot
        self.server = StatusServer(StatusAddress(host, 0), lambda: self.look(), settings, Secret(token))

    def get(self, path: str, *, method: str = "GET", **headers: str) -> requests.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return requests.request(method, f"http://127.0.0.1:{self.server.port}{path}", headers=named, timeout=60)


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


def test_readiness_and_liveness_answer_200_or_503_with_reasons(served: Served) -> None:
    ready = served.get("/readyz")
    assert (ready.status_code, ready.json()) == (200, {"ready": True, "reasons": []})

    served.snapshot = states.one_output_down()
    not_ready = served.get("/readyz")
    assert not_ready.status_code == 503
    assert not_ready.json()["ready"] is False
    assert [(one["code"], one["output"]) for one in not_ready.json()["reasons"]] == [("output_unreachable", states.API)]

    served.snapshot = states.source_down()
    assert served.get("/livez").status_code == 200, "liveness is about the loop alone"
    served.snapshot = states.changed(states.healthy(), {"pace.idle_s": 240.1})
    hanging = served.get("/livez")
    assert (hanging.status_code, hanging.json()) == (503, {"live": False, "idle_seconds": 240.1, "limit_seconds": 240.0})


def test_metrics_page_and_readiness_tell_the_same(served: Served) -> None:
    for snapshot, ready in ((states.healthy(), 1), (states.source_down(), 0)):
        served.snapshot = snapshot
        assert f"\necg_anonymizer_ready {ready}.0\n" in served.get("/metrics").text
        assert served.get("/status.json").json()["ready"] is bool(ready)
        assert (served.get("/readyz").status_code == 200) is bool(ready)


@pytest.mark.parametrize("path", EVERYTHING)
def test_nothing_can_be_changed_kept_framed_or_loaded_from_elsewhere(served: Served, path: str) -> None:
    answer = served.get(path)

    assert answer.status_code == 200
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    assert "Server" not in answer.headers
    assert {served.get(path, method=method).status_code for method in ("POST", "PUT", "DELETE", "PATCH")} == {405}
    assert served.get(path, method="HEAD").status_code == 200


@pytest.mark.parametrize("path", EVERYTHING)
def test_nothing_is_answered_without_the_token_and_a_mangled_one_is_not_an_error(guarded: Served, path: str) -> None:
    mangled = [text.encode().decode("latin-1") for text in ("Basic", "Basic !!!", "Basic /////w==", "Bearer", "Bearer ü")]
    for shown in (None, "Bearer wrong", f"Basic {basic('wrong')}", TOKEN, *mangled):
        refused = guarded.get(path, **({} if shown is None else {"Authorization": shown}))
        assert refused.status_code == 401
        assert "Basic" in refused.headers["WWW-Authenticate"]
        assert "ecg_anonymizer_" not in refused.text

    assert guarded.get(path, Authorization=f"Bearer {TOKEN}").status_code == 200
    assert guarded.get(path, Authorization=f"Basic {basic(TOKEN)}").status_code == 200


def basic(password: str) -> str:
    return base64.b64encode(f"operator:{password}".encode()).decode()


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


def test_an_address_that_is_taken_or_not_this_machines_is_a_wrong_setting() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigurationError, match=f"STATUS_ADDRESS 127.0.0.1:{port} cannot be listened on"):
            StatusServer(StatusAddress("127.0.0.1", port), states.healthy, settings_with(), Secret(""))
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
def test_what_is_not_an_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"an address and a port|expected"):
        parse_address(text)


def hold(served: Served, number: int, saying: bytes = b"") -> list[socket.socket]:
    """Open connections that say so much and no more."""
    held = [socket.create_connection(("127.0.0.1", served.server.port), timeout=60) for _ in range(number)]
    for one in held:
        with contextlib.suppress(OSError):  # closed already, in favour of a later one
            one.sendall(saying)
    return held


#: What clients hold connections open with.
HELD = {
    "nothing": b"",
    "half a line": b"GET /live",
    "half a header": b"GET / HTTP/1.1\r\nHost: localhost\r\nX-",
    "no body": b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n",
    "empty lines": b"\r\n\r\n",
    "answers that are not read": b"GET /assets/uPlot.iife.min.js HTTP/1.1\r\nHost: localhost\r\n\r\n" * 100,
}


@pytest.mark.parametrize("saying", HELD.values(), ids=HELD)
def test_two_hundred_connections_that_are_held_open_delay_no_other(
    served: Served, saying: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Whoever had to wait for those that are held would wait for a minute; a busy machine takes seconds.
    monkeypatch.setattr(connections, "FIRST_REQUEST_S", 60.0)
    before = threading.active_count()
    held = hold(served, 200, saying)
    try:
        for path in ("/livez", "/readyz", "/metrics"):
            began_s = time.monotonic()
            assert served.get(path).status_code == 200
            assert time.monotonic() - began_s < 30
        assert threading.active_count() <= before
    finally:
        for one in held:
            one.close()


def test_a_client_that_sends_a_byte_now_and_then_is_dropped_all_the_same(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "FIRST_REQUEST_S", 0.5)
    (dripping,) = hold(served, 1, b"GET / HTTP/1.1\r\n")
    deadline_s = time.monotonic() + 60
    with contextlib.suppress(ConnectionError):
        while time.monotonic() < deadline_s:
            dripping.sendall(b"X")
            time.sleep(0.1)
    dripping.close()
    assert time.monotonic() < deadline_s, "never dropped"


def test_a_system_without_descriptors_is_retried_with_a_pause(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    refused: list[float] = []
    accept = TcpWSGIServer.accept

    def refuse_for_a_while(server: TcpWSGIServer) -> object:
        if len(refused) < 5:
            refused.append(time.monotonic())
            raise OSError(errno.EMFILE, "Too many open files")
        return accept(server)

    monkeypatch.setattr(TcpWSGIServer, "accept", refuse_for_a_while)
    assert served.get("/livez").status_code == 200
    assert refused[-1] - refused[0] > 0.1, "it is no busy loop"


def test_a_connection_may_be_used_again_after_some_seconds(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "FIRST_REQUEST_S", 1.0)
    scraper = http.client.HTTPConnection("127.0.0.1", served.server.port, timeout=60)
    scraper.request("GET", "/livez")
    assert scraper.getresponse().read()
    mine = scraper.sock
    time.sleep(2)
    scraper.request("GET", "/livez")
    assert scraper.getresponse().read()
    assert scraper.sock is mine
    scraper.close()


def test_requests_sent_together_are_answered_in_their_order_and_of_too_many_the_first(served: Served) -> None:
    (client,) = hold(served, 1, b"".join(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode() for path in ("/livez", "/x")))
    client.sendall(b"HEAD /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    answer = b"".join(iter(lambda: client.recv(65536), b""))
    client.close()

    assert re.findall(rb"HTTP/1.1 (\d+)", answer) == [b"200", b"404", b"200"]
    assert answer.endswith(b"\r\n\r\n"), "HEAD has no body"

    (client,) = hold(served, 1, b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n" * 60)
    answer = b"".join(iter(lambda: client.recv(65536), b""))
    client.close()

    assert answer.count(b"HTTP/1.1 200 OK") == connections.MOST_PIPELINED
    assert answer.count(b"Connection: close") == 1


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 20_000 + b"\r\n\r\n", 431),
        (b"GET /" + b"x" * 20_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", 431),
        (b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 999999\r\n\r\n", 413),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nno colon\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
    ],
    ids=["header too large", "address too long", "body too large", "no header", "TLS"],
)
def test_a_request_too_large_or_malformed_is_refused(guarded: Served, request_bytes: bytes, status: int) -> None:
    (client,) = hold(guarded, 1, request_bytes)
    answer = client.recv(65536)
    client.close()

    assert answer.startswith(b"HTTP/1.")
    assert int(answer.split()[1]) == status
    assert b"Traceback" not in answer


def test_a_journal_that_is_busy_does_not_silence_anybody(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader waits briefly, then gets the last known figures; the work loop goes on telling meanwhile."""
    released = threading.Event()

    class Busy:
        def positions(self) -> list[OutputPosition]:
            released.wait(30)
            return []

        def spooled(self) -> dict[int, int]:
            return {}

    board = Board(settings_with(), SystemClock(), Sums())
    monkeypatch.setattr(board, "_positions", Busy())
    served = Served()
    served.look = board.look
    try:
        looking = threading.Thread(target=board.look)
        looking.start()
        began_s = time.monotonic()
        time.sleep(0.1)
        board.reached(0)
        assert served.get("/livez").status_code == 200
        assert time.monotonic() - began_s < 15
    finally:
        released.set()
        looking.join()
        served.server.close()


def test_a_server_that_was_closed_leaves_no_thread_and_no_port_behind() -> None:
    before = threading.active_count()
    served = Served()
    served.get("/livez")
    assert threading.active_count() - before <= 3, "two that answer, and one that listens to them all"

    served.server.close()

    deadline = time.monotonic() + 60
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
