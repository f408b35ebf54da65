"""A process that serves on a loopback port until it is stopped, and is thrown away with its folder afterwards."""

from __future__ import annotations

import itertools
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Protocol, Self

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


def _share_of_ports() -> list[int]:
    """Return this process's ports: two processes of one test run that look at the same moment must not both find the same one free."""
    share = 1000
    first = PORTS[int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) * share % len(PORTS)]
    begin = secrets.randbelow(share)  # another test run may look too
    return [first + (begin + number) % share for number in range(share)]


_own_ports = itertools.cycle(_share_of_ports())


class NoServer(Exception):
    """No such server can be had here, or it would not start. The message says what was tried and what would help."""


class ServerProgram(Protocol):
    """A way to run a server."""

    #: Its name, such as `influxd`.
    name: ClassVar[str]

    #: How the environment variables begin that would configure it.
    variables: ClassVar[tuple[str, ...]]

    @property
    def origin(self) -> str:
        """Where it comes from, for messages."""

    def command(self, folder: Path, port: int) -> list[str]:
        """Return the command that serves what `folder` holds on a loopback port, in the foreground, until SIGTERM."""

    def kill(self, process: subprocess.Popen[bytes], port: int) -> None:
        """End it at once, as a power cut would."""


class ServerProcess:
    """The process of a throwaway server, its port and its folder.

    Args:
        program: What to run.
        folder: Where its data and log go; None: a temporary folder.
        port: A loopback port; 0: a free one.
        detached: Whether it lives on when this process ends.
        is_healthy: Whether the server at an address answers.
    """

    def __init__(
        self,
        program: ServerProgram,
        folder: Path | None,
        *,
        port: int = 0,
        detached: bool = False,
        is_healthy: Callable[[str], bool],
    ) -> None:
        self.program = program
        self._is_healthy = is_healthy
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._is_temporary = folder is None
        self.folder = (folder or Path(tempfile.mkdtemp(prefix=f"{program.name}-"))).resolve()
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
        with self._log.open("ab") as log:
            # A session of its own: Ctrl+C in a terminal is for us, and we stop the server when we are done.
            self._process = subprocess.Popen(
                self._command(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
                env=self._environment(),
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
        while not self._is_healthy(self.url):
            if self._process.poll() is not None:
                raise NoServer(f"{self.program.origin} ended with code {self._process.returncode}. {self._log_tail()}")
            if time.monotonic() > deadline_s:
                raise NoServer(f"{self.program.origin} did not answer at {self.url} in {START_TIMEOUT_S} s. {self._log_tail()}")
            time.sleep(POLL_S)

    def _environment(self) -> dict[str, str]:
        # A developer's own INFLUXD_HTTP_BIND_ADDRESS or VGW_PORT is not meant for this server.
        return {name: value for name, value in os.environ.items() if not name.startswith(self.program.variables)}

    @property
    def _log(self) -> Path:
        return self.folder / f"{self.program.name}.log"

    def _log_tail(self) -> str:
        log = self._log.read_bytes()
        return f"The end of its log:\n{log[-LOG_TAIL_BYTES:].decode(errors='replace')}"


class ThrowawayServer:
    """What every server of the test bed can do; those that know its protocol build on it.

    Args:
        process: The server's.
    """

    def __init__(self, process: ServerProcess) -> None:
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


def free_port() -> int:
    """Return a port of `PORTS` that nothing listens on, each time another."""
    while True:
        port = next(_own_ports)
        with socket.socket() as candidate:
            try:
                candidate.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
