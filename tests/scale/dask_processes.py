"""A Dask scheduler and workers in processes of their own, on loopback without TLS, which a supervisor starts again when they end."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.integration.service_process import ROOT, free_address, surroundings


class Supervised:
    """One program that is started again whenever it ends, as systemd or a batch system does."""

    def __init__(self, name: str, arguments: list[str], folder: Path, environment: Mapping[str, str]) -> None:
        self._command = [sys.executable, "-m", *arguments]
        self._environment = {**surroundings(folder), "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", **environment}
        self._folder = folder
        self._log_path = folder / f"{name}.log"
        self._log = self._log_path.open("ab")
        self._closing = threading.Event()
        self.process = self._start()
        self._thread = threading.Thread(target=self._supervise, daemon=True)
        self._thread.start()

    @property
    def log(self) -> str:
        """What it has printed."""
        return self._log_path.read_text(encoding="utf-8", errors="replace")

    def kill(self) -> None:
        self.process.kill()

    def close(self) -> None:
        self._closing.set()
        self._thread.join()
        self.process.kill()
        self.process.wait()
        self._log.close()

    def _start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            self._command,
            cwd=self._folder,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )

    def _supervise(self) -> None:
        while not self._closing.wait(0.1):
            if self.process.poll() is not None:
                self.process = self._start()


class Tap:
    """Listens in front of the scheduler, and keeps every byte that coordinator and workers exchange with it."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._kept: list[bytes] = []
        self._open: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"tcp://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def content(self) -> bytes:
        return b"".join(self._kept)

    def close(self) -> None:
        for one in (self._listener, *self._open):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                try:
                    server = socket.create_connection(("127.0.0.1", self._port))
                except OSError:
                    client.close()
                    continue
                self._open += [client, server]
                for here, there in ((client, server), (server, client)):
                    threading.Thread(target=self._pass_on, args=(here, there), daemon=True).start()

    def _pass_on(self, here: socket.socket, there: socket.socket) -> None:
        with suppress(OSError):
            while content := here.recv(1 << 16):
                self._kept.append(content)
                there.sendall(content)
        for one in (here, there):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)


class DaskProcesses:
    """Closed at the end of a `with` block.

    Args:
        folder: For logs and what Dask writes.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(exist_ok=True)
        port = free_address().rpartition(":")[2]
        self.tap = Tap(int(port))
        self.address = self.tap.address
        self.scheduler = Supervised(
            "scheduler",
            ["distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", port, "--dashboard-address", "127.0.0.1:0"],
            folder,
            {},
        )
        self.workers: list[Supervised] = []

    def add_worker(self, env_file: Path, *, environment: Mapping[str, str] | None = None) -> Supervised:
        """Start a worker that loads that `.env`."""
        name = f"worker-{len(self.workers)}"
        options = ["--nthreads", "1", "--no-nanny", "--no-dashboard", "--local-directory", str(self._folder / name)]
        worker = Supervised(
            name,
            ["distributed.cli.dask_worker", self.address, "--host", "127.0.0.1", "--preload", "service.scale.preload", *options],
            self._folder,
            {"ECG_ANONYMIZER_ENV_FILE": str(env_file), **(environment or {})},
        )
        self.workers.append(worker)
        return worker

    @property
    def log(self) -> str:
        """What all of them printed."""
        return "".join(path.read_text(encoding="utf-8", errors="replace") for path in sorted(self._folder.glob("*.log")))

    @property
    def settings(self) -> dict[str, object]:
        """What a coordinator sets."""
        return {"DASK_SCHEDULER": self.address, "DASK_INSECURE_LOOPBACK": "true"}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for one in (*self.workers, self.scheduler):
            one.close()
        self.tap.close()
