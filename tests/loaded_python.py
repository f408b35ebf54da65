"""Starts the project's commands in Python processes that have the libraries loaded already.

Nine tenths of a command's start are spent on imports: numpy and pyarrow, and our own modules. A server that has loaded
them forks for each command: the process has its own id, environment, folder, streams and signals. Code given with `-c` may change ours
before it is bound to other names; its process reads all of it from the files.
Whatever asks for more than that (options of Python, other variables that Python reads as it starts, a terminal, a session of its own)
is started as usual, and so is everything where there is no fork server.
"""

from __future__ import annotations

import atexit
import ctypes
import json
import os
import re
import select
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent

#: Variables that Python or a library reads as it starts, and values with which a server may be started.
_READ_AT_START = re.compile(r"PYTHON|LC_|LANG|LD_|TZ|MALLOC|GLIBC|OPENBLAS|OMP_|ARROW_|SSLKEYLOGFILE")
_KNOWN = {("PYTHONUTF8", "1"), ("PYTHONUNBUFFERED", "1"), ("PYTHONPATH", str(ROOT))}

#: `prctl` (Linux): processes whose parent ends become children of this one.
_BE_SUBREAPER = 36

#: What follows the options of subprocess.Popen that are used: nothing else may be asked for.
_NOTHING_ELSE = (True, None, None, None, -1, False, -1)

_SERVER = Path(__file__).with_name("loaded_python_server.py")

#: By the variables that Python read as it started, and whether our modules are loaded.
_servers: dict[tuple[frozenset[tuple[str, str]], bool], _Server] = {}
_starting = threading.Lock()


@dataclass(frozen=True, slots=True)
class _Server:
    """Ends when its socket is closed, as it is when this process ends."""

    process: subprocess.Popen[bytes]
    socket: socket.socket

    def end(self) -> None:
        self.socket.close()
        self.process.wait()


class LoadedPopen(subprocess.Popen[Any]):
    """A `subprocess.Popen` that forks a loaded Python where the command allows it."""

    def _execute_child(  # type: ignore[no-untyped-def]
        self, args, executable, preexec_fn, close_fds, pass_fds, cwd, env, startup, flags, shell, *ends_and_more
    ) -> None:
        ends, more = ends_and_more[:6], ends_and_more[6:]
        environment = dict(os.environ if env is None else env)
        streams = tuple(own if given == -1 else given for own, given in enumerate((ends[0], ends[3], ends[5])))
        is_plain = not (executable or preexec_fn or pass_fds or shell) and close_fds and more == _NOTHING_ELSE
        if not (is_plain and _can_be_forked(args, environment, streams)):
            super()._execute_child(  # type: ignore[misc]
                args, executable, preexec_fn, close_fds, pass_fds, cwd, env, startup, flags, shell, *ends_and_more
            )
            return
        self.pid = _fork([str(argument) for argument in args[1:]], environment, str(cwd or Path.cwd()), streams)
        self._child_created = True
        self._close_pipe_fds(*ends)  # type: ignore[attr-defined]

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end, and return as it comes: Python's own way to wait for so long looks only every twentieth of a second."""
        if timeout is None or self.returncode is not None or sys.platform != "linux":
            return super().wait(timeout)
        process = os.pidfd_open(self.pid)
        try:
            ending = select.poll()
            ending.register(process, select.POLLIN)
            ending.poll(1000 * timeout)
        finally:
            os.close(process)
        return super().wait(0)


def run_loaded(command: Sequence[str | Path], **options: Any) -> subprocess.CompletedProcess[Any]:
    """Do what `subprocess.run(command, check=False, ...)` does; `input` and `capture_output` are known."""
    given = options.pop("input", None)
    if given is not None:
        options["stdin"] = subprocess.PIPE
    if options.pop("capture_output", False):
        options["stdout"] = options["stderr"] = subprocess.PIPE
    with LoadedPopen(command, **options) as process:
        stdout, stderr = process.communicate(given)
    return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)


def _can_be_forked(command: Sequence[str | Path], environment: Mapping[str, str], streams: Sequence[int]) -> bool:
    if sys.platform != "linux" or str(command[0]) != sys.executable or len(command) < 2:
        return False
    at_start = {(name, value) for name, value in environment.items() if _READ_AT_START.match(name)}
    is_program = str(command[1]) == "-c" or str(command[1]).endswith(".py")
    return is_program and at_start <= _KNOWN and not any(os.isatty(stream) for stream in streams)


def _fork(arguments: list[str], environment: Mapping[str, str], folder: str, streams: Sequence[int]) -> int:
    """Return the id of a new process, which is our own child."""
    at_start = frozenset((name, value) for name, value in environment.items() if _READ_AT_START.match(name))
    kind = at_start, Path(arguments[0]).is_relative_to(ROOT)
    with _starting:
        os.umask(umask := os.umask(0))
        request = {"arguments": arguments, "environment": dict(environment), "folder": folder, "umask": umask}
        if kind not in _servers:
            _servers[kind] = _start_server(dict(at_start), *([ROOT] if kind[1] else []))
            atexit.register(_servers[kind].end)
        server = _servers[kind].socket
        adopt = ctypes.CDLL(None).prctl
        adopt(_BE_SUBREAPER, 1, 0, 0, 0)
        try:
            socket.send_fds(server, [json.dumps(request).encode()], streams)
            return int(server.recv(100))
        finally:
            adopt(_BE_SUBREAPER, 0, 0, 0, 0)


def _start_server(environment: Mapping[str, str], *projects: Path) -> _Server:
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    command = [sys.executable, str(_SERVER), str(its.fileno()), *map(str, projects)]
    path = {"PATH": os.environ["PATH"]}
    with its:
        process = subprocess.Popen(
            command, env={**path, **environment}, pass_fds=[its.fileno()], stdin=subprocess.DEVNULL, cwd="/"
        )
    return _Server(process, ours)
