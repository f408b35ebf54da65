"""HTTP_PROXY and its like, on the real program: InfluxDB and API are reached by one rule, and this machine never through a proxy."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from service import exit_codes
from tests.integration.clinic import FIRST_MINUTE, Clinic
from tests.integration.service_process import Service, free_address, run_service
from tests.servers.api_server import ApiServer
from tests.servers.certificates import Certificates, serving
from tests.servers.forward_proxy import ForwardProxy
from tests.servers.http_proxy import HttpProxy

pytestmark = pytest.mark.influxdb

ROWS = 20

#: A name that only a proxy can resolve.
HOST = "server.test"


def port_of(url: str) -> int:
    return int(url.rpartition(":")[2].split("/")[0])


@pytest.mark.parametrize("variables", [("HTTP_PROXY",), ("http_proxy",), ("ALL_PROXY",)])
def test_influxdb_and_api_go_through_the_same_proxy_and_its_password_is_shown_nowhere(
    variables: tuple[str, ...], filled: Clinic, api_server: ApiServer, tmp_path: Path
) -> None:
    places = {f"{HOST}:8086": filled.server.port, f"{HOST}:80": port_of(api_server.url)}
    settings = {**filled.settings, **FIRST_MINUTE, "INFLUX_URL": f"http://{HOST}:8086", "OUTPUT_TO_API": "true"}
    settings["API_ENDPOINT"] = api_server.endpoint.replace(f"127.0.0.1:{port_of(api_server.url)}", HOST)
    with ForwardProxy(places) as proxy:
        environment = dict.fromkeys(variables, f"http://me:S3CRET%40@{proxy.place}")
        code, log = run_service(tmp_path, settings, environment=environment)

    assert code == exit_codes.DONE, log
    assert proxy.hosts() == set(places)
    assert {given for _, given in proxy.asked} == {"Basic " + base64.b64encode(b"me:S3CRET@").decode()}
    assert f"Proxy:         INFLUX_URL through http://{proxy.place}" in log
    assert f"Proxy:         API_ENDPOINT through http://{proxy.place}" in log
    assert len(filled.stored()) == len(api_server.stored()[0]["records"]) == ROWS
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not [path for path in files if b"S3CRET" in path.read_bytes()]


def test_https_goes_through_a_tunnel_and_certificates_are_judged_as_ever(
    filled: Clinic, api_server: ApiServer, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    made = Certificates(tmp_path_factory.mktemp("certificates"))
    api = api_server.endpoint.replace(api_server.url, f"https://{HOST}:444")
    settings = {**filled.settings, **FIRST_MINUTE, "INFLUX_URL": f"https://{HOST}", "OUTPUT_TO_API": "true", "API_ENDPOINT": api}
    with (
        HttpProxy(filled.server.url, tls=serving(made.good)) as influx_tls,
        HttpProxy(api_server.url, tls=serving(made.good)) as api_tls,
        ForwardProxy({f"{HOST}:443": port_of(influx_tls.url), f"{HOST}:444": port_of(api_tls.url)}) as proxy,
    ):
        environment = {"HTTPS_PROXY": proxy.place, "HTTP_PROXY": "http://127.0.0.1:9"}
        trusted = {"INFLUX_CA_FILE": made.authority, "API_CA_FILE": made.authority}
        good, log = run_service(tmp_path, {**settings, **trusted}, environment=environment)
        bad, refused = run_service(tmp_path, {**settings, "STATE_DIR": tmp_path / "other"}, environment=environment)

    assert good == exit_codes.DONE, log
    assert proxy.hosts() == set(proxy.places)
    assert bad == exit_codes.CONFIGURATION
    assert "let INFLUX_CA_FILE name a file with that authority's certificate" in refused


def test_this_machine_is_never_reached_through_a_proxy_nor_is_what_no_proxy_names(
    filled: Clinic, api_server: ApiServer, tmp_path: Path
) -> None:
    settings = {**filled.settings, **FIRST_MINUTE, "OUTPUT_TO_API": "true", "API_ENDPOINT": api_server.endpoint}
    settings |= {"INFLUX_OUTPUT_URL": f"http://localhost:{filled.server.port}"}
    with ForwardProxy({}) as proxy:
        environment = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"), f"http://{proxy.place}")
        code, log = run_service(tmp_path, settings, environment=environment)
        exempt = {**settings, "INFLUX_URL": f"http://{HOST}:8086", "STATE_DIR": tmp_path / "other", "RETRY_BUDGET_SECONDS": 0}
        unresolved, said = run_service(tmp_path, exempt, environment={**environment, "NO_PROXY": ".test"})

    assert code == exit_codes.DONE, log
    assert log.count("none for") == 3
    assert "the host name cannot be resolved" in said
    assert "none for INFLUX_URL" in said
    assert unresolved == exit_codes.UNREACHABLE
    assert proxy.asked == []


def test_the_health_check_asks_the_service_itself(filled: Clinic, tmp_path: Path) -> None:
    address = free_address()
    settings = {**filled.settings, "STREAMING_MODE": "true", "BATCH_SIZE_SECONDS": 600, "STATUS_ADDRESS": address}
    with ForwardProxy({}) as proxy:
        environment = dict.fromkeys(("HTTP_PROXY", "http_proxy", "ALL_PROXY"), f"http://{proxy.place}")
        with Service(tmp_path, settings, environment=environment) as service:
            service.wait_for("Connected to InfluxDB")
            beside = tmp_path / "beside"
            beside.mkdir()
            # It is not ready before it has looked for what is due.
            tries = (run_service(beside, settings, "--health", environment=environment)[0] for _ in range(30))
            assert exit_codes.DONE in tries
            assert service.stop() == 0

    assert proxy.asked == []


def test_a_proxy_that_is_down_or_cannot_be_used_is_said_with_its_variable(filled: Clinic, tmp_path: Path) -> None:
    settings = {**filled.settings, **FIRST_MINUTE, "INFLUX_URL": f"http://{HOST}:8086", "RETRY_BUDGET_SECONDS": 0}
    down, log = run_service(tmp_path, settings, environment={"HTTP_PROXY": "http://me:S3CRET@127.0.0.1:9"})
    socks, said = run_service(tmp_path, settings, environment={"ALL_PROXY": "socks5://me:S3CRET@127.0.0.1:9"})

    assert (down, socks) == (exit_codes.UNREACHABLE, exit_codes.CONFIGURATION), log + said
    assert "the proxy that HTTP_PROXY, HTTPS_PROXY or ALL_PROXY names" in log
    assert "ALL_PROXY must be an http or https address" in said
    assert "S3CRET" not in log + said
