"""A real InfluxDB 2 server that is thrown away afterwards.

    with start_server() as server:
        server.make_bucket("raw_data")
        server.write_lines("raw_data", b"ecg,source_id=a ecg=1.0 1")
        server.rows('from(bucket: "raw_data") |> range(start: 0)')

It listens on the loopback interface only. On Linux it ends when the thread that started it does, so that a killed test run leaves
no server behind; what it may leave is the server's folder in the temporary directory.
"""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import requests

from testbed.influxd_program import InfluxdProgram, NoServer, find_influxd
from testbed.influxdb_api import ApiError, InfluxApi

__all__ = ["ApiError", "InfluxServer", "NoServer", "start_server"]

#: A started server answers within 3 seconds; a machine that runs twenty at once is forgiven. In seconds.
START_TIMEOUT_S = 60

#: How long a server may take to put its data away after SIGTERM, before SIGKILL, in seconds.
STOP_TIMEOUT_S = 15

#: How often a starting server is asked whether it is ready, in seconds.
POLL_S = 0.05

#: How much of a failed server's log a message quotes, in bytes.
LOG_TAIL_BYTES = 4000

#: Ports below those that any system hands out for outgoing connections: while a killed server is down, a client that keeps trying
#: its port could otherwise be given that very port, connect to itself, and keep the server from coming back.
PORTS = range(20000, 32000)

#: Name and password of the administrator, for the web page where there is one.
USERNAME = "admin"

LOG_NAME = "influxd.log"


class InfluxServer(InfluxApi):
    """A server we started. Its token is the administrator's; `url`, `org` and `token` are those of `InfluxApi`."""

    def __init__(self, process: ServerProcess, *, org: str, token: str) -> None:
        super().__init__(process.url, org=org, token=token)
        self._process = process

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """The process id; under docker, that of the docker client."""
        return self._process.pid

    @property
    def port(self) -> int:
        """The port, the same after every restart."""
        return self._process.port

    @property
    def folder(self) -> Path:
        """Where its data and log are."""
        return self._process.folder

    @property
    def origin(self) -> str:
        """Where the program came from, for people."""
        return self._process.program.origin

    @property
    def version(self) -> str:
        """What the server calls itself, such as `v2.7.12`."""
        return str(self.ask("GET", "/health").json()["version"])

    def stop(self) -> None:
        """End it, by SIGTERM and if need be by SIGKILL, and remove the folder if it was made for it. Again is harmless."""
        self._process.terminate()
        self._process.remove_temporary_folder()

    def kill(self) -> None:
        """End it at once, as a power cut would. Its data stays, for `restart`."""
        self._process.kill()

    def restart(self) -> None:
        """Start it again on the same port and data, ending it first if it runs, and return once it answers."""
        self._process.terminate()
        self._process.start()


def start_server(
    folder: Path | None = None,
    *,
    port: int = 0,
    org: str = "testbed",
    password: str | None = None,
    token: str | None = None,
    program: InfluxdProgram | None = None,
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
    process = ServerProcess(program or find_influxd(), folder, port=port, detached=detached)
    server = InfluxServer(process, org=org, token=token or secrets.token_urlsafe(32))
    try:
        process.start()
        _set_up(server, password or secrets.token_urlsafe(16))
    except BaseException:
        server.stop()
        raise
    return server


class ServerProcess:
    """The process, its port and its folder."""

    def __init__(self, program: InfluxdProgram, folder: Path | None, *, port: int, detached: bool) -> None:
        self.program = program
        self.port = port or _free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._is_temporary = folder is None
        self.folder = (folder or Path(tempfile.mkdtemp(prefix="influxd-"))).resolve()
        self.folder.mkdir(parents=True, exist_ok=True)
        self._detached = detached
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The process id."""
        assert self._process is not None, "it was never started"
        return self._process.pid

    def start(self) -> None:
        """Start it and wait until it answers.

        Raises:
            NoServer: It died, or did not answer in time; the message ends with its log.
        """
        with (self.folder / LOG_NAME).open("ab") as log:
            # A session of its own: Ctrl+C in a terminal is for us, and we stop the server when we are done.
            self._process = subprocess.Popen(
                self._command(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
                env=_environment(),
                start_new_session=True,
            )
        try:
            self._wait_until_healthy(time.monotonic() + START_TIMEOUT_S)
        except BaseException:
            self.kill()
            raise

    def terminate(self) -> None:
        """End it, and wait for its end."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """SIGKILL it, and wait for its end."""
        if self._process is not None:
            self.program.kill(self._process, self.port)
            self._process.wait()

    def remove_temporary_folder(self) -> None:
        """Remove the folder if it is ours."""
        if self._is_temporary:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _command(self) -> list[str]:
        command = self.program.command(self.folder, self.port)
        if self._detached or sys.platform != "linux":
            return command
        tether = Path(__file__).with_name("tether.py")
        return [sys.executable, "-I", "-S", str(tether), str(os.getpid()), *command]

    def _wait_until_healthy(self, deadline_s: float) -> None:
        assert self._process is not None
        while not _is_healthy(self.url):
            if self._process.poll() is not None:
                raise NoServer(f"{self.program.origin} ended with code {self._process.returncode}. {self._log_tail()}")
            if time.monotonic() > deadline_s:
                raise NoServer(f"{self.program.origin} did not answer at {self.url} in {START_TIMEOUT_S} s. {self._log_tail()}")
            time.sleep(POLL_S)

    def _log_tail(self) -> str:
        log = (self.folder / LOG_NAME).read_bytes()
        return f"The end of its log:\n{log[-LOG_TAIL_BYTES:].decode(errors='replace')}"


def _set_up(server: InfluxServer, password: str) -> None:
    # The bucket is one that the server insists on; nobody uses it.
    first = {"username": USERNAME, "password": password, "org": server.org, "bucket": "unused", "token": server.token}
    InfluxApi(server.url, org="", token="").ask("POST", "/api/v2/setup", json=first)


def _environment() -> dict[str, str]:
    # A developer's own INFLUXD_HTTP_BIND_ADDRESS or INFLUXD_TLS_CERT is not meant for this server.
    return {name: value for name, value in os.environ.items() if not name.startswith("INFLUXD_")}


def _free_port() -> int:
    while True:
        port = secrets.choice(PORTS)
        with socket.socket() as candidate:
            try:
                candidate.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port


def _is_healthy(url: str) -> bool:
    try:
        answer = InfluxApi(url, org="", token="").ask("GET", "/health")
    except (requests.RequestException, ApiError):
        return False
    return bool(answer.json()["status"] == "pass")
