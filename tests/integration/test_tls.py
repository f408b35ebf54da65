"""Servers that speak TLS, or do not: what is wrong is said in a sentence that names the setting, and ends a run at its start."""

from __future__ import annotations

import contextlib
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from service import exit_codes
from testbed.influxdb_server import InfluxServer
from tests.integration.clinic import FIRST_MINUTE, Clinic
from tests.integration.service_process import Service, run_service
from tests.servers.api_server import ApiServer
from tests.servers.certificates import Certificates, serving
from tests.servers.http_proxy import HttpProxy

pytestmark = pytest.mark.influxdb

ROWS = 20


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


@contextlib.contextmanager
def over_tls(url: str, certificate: Path) -> Iterator[HttpProxy]:
    with HttpProxy(url, tls=serving(certificate)) as proxy:
        yield proxy


#: What is wrong with a certificate, whether its authority is named, and what is said.
CERTIFICATES = [
    ("expired", True, "its certificate has expired"),
    ("of_another_host", True, "its certificate is for another host than 127.0.0.1"),
    ("self_signed", True, "its certificate is self-signed: let {setting} name a file with that certificate"),
    ("good", False, "an authority that is not known here: let {setting} name a file with that authority's certificate"),
]


@pytest.mark.parametrize(("kind", "is_named", "said"), CERTIFICATES, ids=[kind for kind, _, _ in CERTIFICATES])
@pytest.mark.parametrize("where", ["INFLUX_URL", "INFLUX_OUTPUT_URL", "API_ENDPOINT"])
def test_a_certificate_that_cannot_be_trusted_ends_a_run_at_its_start_with_its_reason(
    where: str,
    kind: str,
    is_named: bool,
    said: str,
    filled: Clinic,
    api_server: ApiServer,
    certificates: Certificates,
    tmp_path: Path,
) -> None:
    setting = "API_CA_FILE" if where == "API_ENDPOINT" else "INFLUX_CA_FILE"
    behind = api_server.url if where == "API_ENDPOINT" else filled.server.url
    settings = {**filled.settings, **FIRST_MINUTE, "OUTPUT_TO_API": "true", "API_ENDPOINT": api_server.endpoint}
    with over_tls(behind, getattr(certificates, kind)) as proxy:
        settings |= {"INFLUX_OUTPUT_URL": filled.server.url, where: proxy.url}
        code, log = run_service(tmp_path, {**settings, **({setting: certificates.authority} if is_named else {})})

    assert code == exit_codes.CONFIGURATION, log
    assert f"at {proxy.url} cannot be reached: " in log
    assert said.format(setting=setting) in log
    assert filled.stored() == {}
    assert not list((tmp_path / "csv").glob("*.csv"))
    assert api_server.stored() == []


@pytest.mark.parametrize("where", ["INFLUX_URL", "INFLUX_OUTPUT_URL", "API_ENDPOINT"])
@pytest.mark.parametrize("spoken", ["https to http", "http to https"])
def test_the_wrong_one_of_http_and_https_is_said_as_such(
    spoken: str, where: str, filled: Clinic, api_server: ApiServer, certificates: Certificates, tmp_path: Path
) -> None:
    behind = api_server.endpoint if where == "API_ENDPOINT" else filled.server.url
    settings = {**filled.settings, **FIRST_MINUTE, "OUTPUT_TO_API": "true", "API_ENDPOINT": api_server.endpoint}
    settings |= {"INFLUX_OUTPUT_URL": filled.server.url}
    with over_tls(behind, certificates.good) as proxy:
        wrong = behind.replace("http:", "https:") if spoken == "https to http" else proxy.url.replace("https:", "http:")
        code, log = run_service(tmp_path, {**settings, where: wrong, "INFLUX_CA_FILE": certificates.authority})

    said = {"https to http": "let its address begin with http://", "http to https": "let its address begin with https://"}
    assert code == exit_codes.CONFIGURATION, log
    assert f"at {wrong} cannot be reached: " in log
    assert said[spoken] in log
    assert api_server.stored() == []
    assert not list((tmp_path / "state" / "set_aside").glob("*")), "nothing is set aside for a wrong address"


@pytest.fixture(scope="module")
def tls_server(certificates: Certificates, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server that answers plain http with 400 in words of its own, as InfluxDB and nginx do."""
    import socket
    import threading

    listener = socket.create_server(("127.0.0.1", 0))
    tls = serving(certificates.good)

    def answer() -> None:
        while True:
            try:
                plain, _ = listener.accept()
            except OSError:
                return
            first = plain.recv(1, socket.MSG_PEEK)
            if first == b"\x16":
                with contextlib.suppress(OSError):
                    tls.wrap_socket(plain, server_side=True).close()
                continue
            plain.recv(65536)
            body = b"Client sent an HTTP request to an HTTPS server.\n"
            plain.sendall(b"HTTP/1.0 400 Bad Request\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
            plain.close()

    threading.Thread(target=answer, daemon=True).start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    listener.close()


@pytest.mark.parametrize("where", ["INFLUX_URL", "INFLUX_OUTPUT_URL", "API_ENDPOINT"])
def test_a_server_that_complains_of_plain_http_in_an_answer_is_understood(
    where: str, filled: Clinic, api_server: ApiServer, tls_server: str, tmp_path: Path
) -> None:
    settings = {**filled.settings, **FIRST_MINUTE, "OUTPUT_TO_API": "true", "API_ENDPOINT": api_server.endpoint}
    settings |= {"INFLUX_OUTPUT_URL": filled.server.url, where: tls_server}
    code, log = run_service(tmp_path, settings)

    assert code == exit_codes.CONFIGURATION, log
    assert "let its address begin with https://" in log
    assert not list((tmp_path / "state" / "set_aside").glob("*")), "nothing is set aside for a wrong address"


def test_a_stream_begins_only_with_a_good_certificate_and_goes_on_trying_when_it_expires_later(
    filled: Clinic, certificates: Certificates, tmp_path: Path
) -> None:
    tls = serving(certificates.good)
    stream = {**filled.settings, "STREAMING_MODE": "true", "STREAMING_INTERVAL": 1, "BATCH_SIZE_SECONDS": 600}
    stream |= {"INFLUX_CA_FILE": certificates.authority, "OUTPUT_TO_INFLUX": "false"}
    with HttpProxy(filled.server.url, tls=tls) as proxy:
        with Service(tmp_path, {**stream, "INFLUX_URL": proxy.url}) as service:
            service.wait_for("Connected to InfluxDB")
            _use(tls, certificates.expired)
            proxy.hang_up()
            service.wait_for("cannot be reached: its certificate has expired", within_s=10)
            time.sleep(0.5)
            assert service.process.poll() is None, "a stream that runs goes on trying"
            _use(tls, certificates.good)
            assert service.stop() == 0

        _use(tls, certificates.expired)
        code, log = run_service(tmp_path, {**stream, "INFLUX_URL": proxy.url})

    assert code == exit_codes.CONFIGURATION, log
    assert "its certificate has expired" in log


def _use(tls: ssl.SSLContext, certificate: Path) -> None:
    tls.load_cert_chain(certificate, certificate.with_suffix(".key"))


def test_everything_works_over_tls(filled: Clinic, api_server: ApiServer, certificates: Certificates, tmp_path: Path) -> None:
    server: InfluxServer = filled.server
    with over_tls(server.url, certificates.good) as influx, over_tls(api_server.url, certificates.good) as api:
        settings = {"INFLUX_URL": influx.url, "INFLUX_CA_FILE": certificates.authority, "API_CA_FILE": certificates.authority}
        settings |= {"OUTPUT_TO_API": "true", "API_ENDPOINT": f"{api.url}/ecg"}
        code, log = run_service(tmp_path, {**filled.settings, **FIRST_MINUTE, **settings})

    assert code == exit_codes.DONE, log
    assert len(filled.stored()) == len(api_server.stored()[0]["records"]) == ROWS
