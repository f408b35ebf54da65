"""A real InfluxDB 1 server with authentication that is thrown away afterwards; see `testbed/influxdb_server.py`."""

from __future__ import annotations

import secrets
from pathlib import Path

import requests

from testbed.influxdb1_api import Influx1Api
from testbed.influxdb1_program import find_influxd1
from testbed.influxdb_api import REQUEST_TIMEOUT_S
from testbed.server_process import ServerProcess, ServerProgram, ThrowawayServer

USERNAME = "admin"


class Influx1Server(ThrowawayServer, Influx1Api):
    """A server we started. Its token is the administrator's.

    Args:
        process: The server's.
        password: The administrator's.
    """

    def __init__(self, process: ServerProcess, password: str) -> None:
        ThrowawayServer.__init__(self, process)
        Influx1Api.__init__(self, process.url, token=f"{USERNAME}:{password}")


def start_server1(folder: Path | None = None, *, program: ServerProgram | None = None) -> Influx1Server:
    """Start a server without data, with one administrator.

    Args:
        folder: Where its data goes, empty or not there yet; by default a temporary folder, removed by `stop`.
        program: Which influxd; by default the one that `find_influxd1` finds.

    Raises:
        NoServer: There is none, or it did not come up; the message ends with its log.
    """
    process = ServerProcess(program or find_influxd1(), folder, is_healthy=_is_healthy)
    server = Influx1Server(process, secrets.token_hex(16))
    try:
        process.start()
        password = server.token.partition(":")[2]
        # Only this is allowed as long as there is no administrator.
        server.ask(f"CREATE USER {USERNAME} WITH PASSWORD '{password}' WITH ALL PRIVILEGES")
    except BaseException:
        server.stop()
        raise
    return server


def _is_healthy(url: str) -> bool:
    try:
        return bool(requests.get(f"{url}/ping", timeout=REQUEST_TIMEOUT_S).ok)
    except requests.RequestException:
        return False
