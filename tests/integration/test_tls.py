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


WHERE = ("INFLUX_URL", "INFLUX_OUTPUT_URL", "API_ENDPOINT")


@pytest.mark.parametrize(("kind", "is_named", "said"), CERTIFICATES, ids=[kind for kind, _, _ in CERTIFICATES])
def test_a_certificate_that_cannot_be_trusted_is_reported_with_its_reason_and_ends_a_run_at_its_start(
    kind: str, is_named: bool, said: str, filled: Clinic, api_server: ApiServer, certificates: Certificates, tmp_path: Path
) -> None:
    names = {"INFLUX_CA_FILE": certificates.authority, "API_CA_FILE": certificates.authority} if is_named else {}
    settings = {**filled.settings, **FIRST_MINUTE, "OUTPUT_TO_API": "true", **names}
    certificate = getattr(certificates, kind)
    good = {"INFLUX_OUTPUT_URL": filled.server.url, "API_ENDPOINT": api_server.endpoint}
    with over_tls(filled.server.url, certificate) as influx, over_tls(api_server.url, certificate) as api:
        wrong = {"INFLUX_URL": influx.url, "INFLUX_OUTPUT_URL": influx.url, "API_ENDPOINT": api.url}
        ends = [run_service(tmp_path, {**settings, **wrong}, "--check", "--connect")]
        for where in WHERE if kind == "expired" else ():
            ends.append(run_service(tmp_path, {**settings, **good, where: wrong[where]}))
            assert f"at {wrong[where]} cannot be reached: " in ends[-1][1]

    sentences = [said.format(setting=setting) for setting in ("INFLUX_CA_FILE", "API_CA_FILE")]
    for code, log in ends:
        assert code == exit_codes.CONFIGURATION, log
        assert any(sentence in log for sentence in sentences), log
    assert all(sentence in ends[0][1] for sentence in sentences), ends[0][1]
    assert ends[0][1].count("cannot be reached: ") == 3, ends[0][1]
    assert filled.stored() == {}
    assert not list((tmp_path / "csv").glob("*.csv"))
    assert api_server.stored() == []


@pytest.mark.parametrize("spoken", ["https to http", "http to https", "http to a server that complains in an answer"])
def test_the_wrong_one_of_http_and_https_is_said_as_such_and_nothing_is_set_aside_for_it(
    spoken: str, filled: Clinic, api_server: ApiServer, certificates: Certificates, tls_server: str, tmp_path: Path
) -> None:
    good = {"INFLUX_URL": filled.server.url, "INFLUX_OUTPUT_URL": filled.server.url, "API_ENDPOINT": api_server.endpoint}
    settings = {**filled.settings, **FIRST_MINUTE, "OUTPUT_TO_API": "true", "INFLUX_CA_FILE": certificates.authority}
    with over_tls(filled.server.url, certificates.good) as proxy:
        wrong = {where: url.replace("http:", "https:") for where, url in good.items()}
        if spoken != "https to http":
            wrong = dict.fromkeys(WHERE, tls_server if "complains" in spoken else proxy.url.replace("https:", "http:"))
        ends = [run_service(tmp_path, {**settings, **wrong}, "--check", "--connect")]
        ends += [run_service(tmp_path, {**settings, **good, where: wrong[where]}) for where in WHERE[1:]]

    begin_with = "http://" if spoken == "https to http" else "https://"
    for code, log in ends:
        assert code == exit_codes.CONFIGURATION, log
        assert f"let its address begin with {begin_with}" in log
    assert ends[0][1].count(f"let its address begin with {begin_with}") == len(WHERE), ends[0][1]
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
            service.wait_for("cannot be reached: its certificate has expired")
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
