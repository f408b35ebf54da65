"""A real InfluxDB 3 Core server that is thrown away afterwards, where INFLUXDB3 names a program; see `testbed/influxdb_server.py`."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import requests

from testbed.influxdb_api import REQUEST_TIMEOUT_S, ApiError
from testbed.server_process import NoServer, ServerProcess, ThrowawayServer

#: How many databases Core allows.
MOST_DATABASES = 5

HOW_TO_GET_ONE = "Set INFLUXDB3 to an influxdb3 program (https://docs.influxdata.com/influxdb3/core/install/)."


@dataclass(frozen=True)
class LocalProgram3:
    """An influxdb3 of this machine."""

    path: Path
    name: ClassVar[str] = "influxdb3"
    variables: ClassVar[tuple[str, ...]] = ("INFLUXDB3_",)

    @property
    def origin(self) -> str:
        """Return its path."""
        return str(self.path)

    def command(self, folder: Path, port: int) -> list[str]:
        """Return the command that serves `folder`, with authentication on."""
        where = ["--object-store", "file", "--data-dir", str(folder / "data"), "--http-bind", f"127.0.0.1:{port}"]
        return [str(self.path), "serve", "--node-id", "testbed", *where, "--disable-telemetry-upload"]

    def kill(self, process: subprocess.Popen[bytes], port: int) -> None:
        """SIGKILL the server."""
        process.kill()


def find_influxdb3(environment: Mapping[str, str] = os.environ) -> LocalProgram3:
    """Return what INFLUXDB3 names.

    Raises:
        NoServer: It names no program.
    """
    named = environment.get("INFLUXDB3", "")
    path = shutil.which(named) if named else None
    if path is None:
        raise NoServer(
            f"No InfluxDB 3 server: INFLUXDB3 {f'={named} is not a program' if named else 'is not set'}. {HOW_TO_GET_ONE}"
        )
    return LocalProgram3(Path(path).resolve())


class Influx3Server(ThrowawayServer):
    """A server we started. A bucket is a database; there is one token, the administrator's.

    Args:
        process: The server's.
    """

    org = ""

    def __init__(self, process: ServerProcess) -> None:
        super().__init__(process)
        self.url = process.url
        self.token = ""
        self._made: list[str] = []

    @property
    def version(self) -> str:
        """What the server calls itself, such as `3.6.0`."""
        return str(self.request("GET", "/ping").headers["X-Influxdb-Version"])

    def make_bucket(self, name: str) -> None:
        """Create a database; the oldest is dropped where Core allows no more."""
        while len(self._made) >= MOST_DATABASES:
            self.request("DELETE", "/api/v3/configure/database", params={"db": self._made.pop(0), "hard_delete_at": "now"})
        self.request("POST", "/api/v3/configure/database", json={"db": name})
        self._made.append(name)

    def make_token(self, **_: Any) -> str:
        """Return the administrator's token: there is no other kind."""
        return self.token

    def write_lines(self, bucket: str, lines: bytes) -> None:
        """Store line protocol whose times are nanoseconds."""
        self.request("POST", "/api/v3/write_lp", params={"db": bucket, "precision": "nanosecond"}, data=lines)

    def ask(self, query: str, *, database: str) -> list[dict[str, Any]]:
        """Return the answer to an SQL query as rows."""
        asked = {"db": database, "q": query, "format": "json"}
        rows: list[dict[str, Any]] = self.request("POST", "/api/v3/query_sql", json=asked).json()
        return rows

    def count(self, bucket: str, *, measurement: str) -> int:
        """Return how many rows a measurement has, none where there is no such measurement."""
        try:
            return int(self.ask(f'SELECT COUNT(*) AS n FROM "{measurement}"', database=bucket)[0]["n"])
        except ApiError:
            return 0

    def request(self, method: str, path: str, **request: Any) -> requests.Response:
        """Send a request with the token; return the answer.

        Raises:
            ApiError: The answer is not a success.
        """
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        with requests.Session() as session:
            session.trust_env = False
            answer = session.request(method, self.url + path, headers=headers, timeout=REQUEST_TIMEOUT_S, **request)
        if not answer.ok:
            raise ApiError(f"{method} {path}: {answer.status_code} {answer.text.strip()}", status=answer.status_code)
        return answer


def start_server3(folder: Path | None = None) -> Influx3Server:
    """Start a server without data, with an administrator's token.

    Raises:
        NoServer: INFLUXDB3 names none, or it did not come up; the message ends with its log.
    """
    server = Influx3Server(ServerProcess(find_influxdb3(), folder, is_healthy=_is_healthy))
    try:
        server.restart()
        server.token = server.request("POST", "/api/v3/configure/token/admin").json()["token"]
    except BaseException:
        server.stop()
        raise
    return server


def _is_healthy(url: str) -> bool:
    try:
        return requests.get(f"{url}/ping", timeout=REQUEST_TIMEOUT_S).status_code in (
            requests.codes.ok,
            requests.codes.unauthorized,
        )
    except requests.RequestException:
        return False
