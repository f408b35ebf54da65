"""A temporary, real InfluxDB 2 server.

    with start_server() as server:
        server.make_bucket("raw_data")
        server.write_lines("raw_data", b"ecg,source_id=a ecg=1.0 1")
        server.rows('from(bucket: "raw_data") |> range(start: 0)')

It listens on the loopback interface only. On Linux it ends when the thread that started it does, so that a killed test run leaves
no server behind; what it may leave is the server's folder in the temporary directory.
"""

from __future__ import annotations

import secrets
from pathlib import Path

import requests

from testbed.influxd_program import find_influxd
from testbed.influxdb_api import ApiError, InfluxApi
from testbed.server_process import NoServer, ServerProcess, ServerProgram, ThrowawayServer

__all__ = ["ApiError", "InfluxServer", "NoServer", "start_server"]

#: Name and password of the administrator, for the web page where there is one.
USERNAME = "admin"


class InfluxServer(ThrowawayServer, InfluxApi):
    """A server started here, accessed with the administrator's token; `url`, `org` and `token` are those of `InfluxApi`."""

    def __init__(self, process: ServerProcess, *, org: str, token: str) -> None:
        ThrowawayServer.__init__(self, process)
        InfluxApi.__init__(self, process.url, org=org, token=token)

    @property
    def version(self) -> str:
        """The version that the server reports, such as `v2.7.12`."""
        return str(self.ask("GET", "/health").json()["version"])


def start_server(
    folder: Path | None = None,
    *,
    port: int = 0,
    org: str = "testbed",
    password: str | None = None,
    token: str | None = None,
    program: ServerProgram | None = None,
    detached: bool = False,
) -> InfluxServer:
    """Start a server without data and set it up with an organization and an administrator.

    Args:
        folder: Where its data goes, empty or not there yet; by default a temporary folder, removed by `stop`.
        port: A loopback port; by default a free one.
        org: The organization's name.
        password: The administrator's, at least 8 characters; by default a random one.
        token: The administrator's; by default a random one.
        program: Which influxd; by default the one that `find_influxd` finds, or builds.
        detached: Let it live on when this process ends.

    Raises:
        NoServer: There is no influxd, or it did not come up; the message ends with its log.
    """
    process = ServerProcess(program or find_influxd(), folder, port=port, detached=detached, is_healthy=_is_healthy)
    server = InfluxServer(process, org=org, token=token or secrets.token_urlsafe(32))
    try:
        process.start()
        _set_up(server, password or secrets.token_urlsafe(16))
    except BaseException:
        server.stop()
        raise
    return server


def _set_up(server: InfluxServer, password: str) -> None:
    # The server requires a bucket at setup; this one stays unused.
    first = {"username": USERNAME, "password": password, "org": server.org, "bucket": "unused", "token": server.token}
    InfluxApi(server.url, org="", token="").ask("POST", "/api/v2/setup", json=first)


def _is_healthy(url: str) -> bool:
    try:
        answer = InfluxApi(url, org="", token="").ask("GET", "/health")
    except (requests.RequestException, ApiError):
        return False
    return bool(answer.json()["status"] == "pass")
