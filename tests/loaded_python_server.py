"""Loads the libraries once, and for our own programs what each of them imports; then forks for each command that it is sent.

See `loaded_python.py`, which starts it.
"""

from __future__ import annotations

import gc
import io
import json
import os
import signal
import socket
import sys
import time
import types
import warnings
from importlib import import_module
from pathlib import Path
from typing import Any

#: What most commands load.
LIBRARIES = (
    "argparse",
    "jinja2",
    "numpy",
    "pyarrow",
    "pyarrow.compute",
    "pyarrow.csv",
    "pyarrow.parquet",
    "requests",
    "sqlite3",
    "urllib3",
)


def load_project(root: Path) -> None:
    """Import what the service imports as it starts, and compile its report. What only a setting asks for is left to each process."""
    sys.path[0] = str(root)
    import_module("central_anonymizer")
    report = import_module("service.report.templates").environment_of(root / "service" / "report" / "template")
    for name in report.list_templates():
        report.get_template(name)
    assert "pandas" not in sys.modules, "commands run without pandas"


def wait_for_a_command(server: socket.socket) -> dict[str, Any]:
    """Return, in a new process, what it shall run. The server itself never returns."""
    while True:
        request, streams, _, _ = socket.recv_fds(server, 1 << 20, 3)
        if not request:
            os._exit(0)
        if not (child := os.fork()):
            parent = os.getpid()
            if os.fork():
                os._exit(0)
            while os.getppid() == parent:
                time.sleep(0.0002)  # until the process that asked has adopted this one
            server.send(str(os.getpid()).encode())
            for own, given in enumerate(streams):
                os.dup2(given, own)
            os.closerange(3, 1024)
            return dict(json.loads(request))
        os.waitpid(child, 0)
        for stream in streams:
            os.close(stream)


def become(command: dict[str, Any]) -> tuple[types.CodeType, dict[str, Any]]:
    """Make this process what Python makes of a command; return its code, and the names that it runs with."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.umask(command["umask"])
    coerced = {name: os.environ[name] for name in ("LC_CTYPE",) if name in os.environ}  # by Python, where no locale is given
    os.environ.clear()
    os.environ.update({**coerced, **command["environment"]})
    os.chdir(command["folder"])
    sys.stdin = opened_anew(sys.stdin, 0, "rb")
    sys.stdout = opened_anew(sys.stdout, 1, "wb")
    sys.stderr = opened_anew(sys.stderr, 2, "wb")
    program, *arguments = command["arguments"]
    module = types.ModuleType("__main__")
    if program == "-c":
        source, *arguments = arguments
        sys.path[0], name = "", "<string>"
    else:
        source, name = Path(program).read_text(encoding="utf-8"), program
        sys.path[0] = str(Path(program).parent)
        module.__file__ = program
    sys.argv = [program, *arguments]
    sys.modules["__main__"] = module
    return compile(source, name, "exec"), vars(module)


def opened_anew(stream: Any, number: int, mode: str) -> io.TextIOWrapper:
    """Return a standard stream as Python makes it: it looks at the file once, whether it can seek in it."""
    buffering = 0 if isinstance(stream.buffer, io.FileIO) else -1
    buffer = open(number, mode, buffering, closefd=False)  # noqa: SIM115 - lives as long as the process
    how = {name: getattr(stream, name) for name in ("encoding", "errors", "line_buffering", "write_through")}
    return io.TextIOWrapper(buffer, newline="\n", **how)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for library in LIBRARIES:
        import_module(library)
    for root in sys.argv[2:]:
        load_project(Path(root))
    gc.freeze()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # numpy's threads are idle while we fork
        wanted = wait_for_a_command(socket.socket(fileno=int(sys.argv[1])))
    exec(*become(wanted))
