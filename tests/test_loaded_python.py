"""A process that is forked from a loaded Python is to a command what a fresh one is; and what cannot be forked is started as usual."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests import loaded_python
from tests.integration.service_process import surroundings
from tests.loaded_python import ROOT, LoadedPopen, run_loaded

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere every process is started as usual")

#: What a process can tell of itself.
TELL = """
import os, signal, sys
print(os.getcwd(), os.umask(0), os.getppid(), sorted(os.listdir("/proc/self/fd")))
print(sorted(os.environ.items()))
print(sys.argv, sys.path, sys.flags, __name__, sys.modules["__main__"].__dict__ is globals())
for stream in (sys.stdin, sys.stdout, sys.stderr):
    how = stream.encoding, stream.errors, stream.newlines, stream.line_buffering, stream.write_through
    print(how, type(stream.buffer).__name__, stream.buffer.seekable(), stream.fileno())
print([signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE)])
sys.stdout.flush()
print([name for name, module in sys.modules.items() if str(getattr(module, "__file__", "")).startswith(os.environ["OURS"])])
print(sys.stdin.read(), file=sys.stderr)
sys.exit(7)
"""


def test_a_forked_process_is_what_a_fresh_one_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = tmp_path / "tell.py"
    told.write_text(TELL, encoding="utf-8")
    forked = []

    def fork(*asked: Any) -> int:
        forked.append(loaded_python_fork(*asked))
        return forked[-1]

    loaded_python_fork = loaded_python._fork
    monkeypatch.setattr(loaded_python, "_fork", fork)
    ours = {"OURS": str(ROOT / "service")}
    environments = (surroundings(tmp_path) | ours, surroundings(tmp_path) | ours | {"PYTHONUNBUFFERED": "1"})

    for number, environment in enumerate(environments):
        for program in (["-c", TELL], [str(told)]):
            command = [sys.executable, *program, "an argument"]
            given: dict[str, Any] = {"cwd": tmp_path, "env": environment, "input": "ä", "capture_output": True}
            fresh = subprocess.run(command, encoding="utf-8", check=False, **given)
            loaded = run_loaded(command, encoding="utf-8", **given)
            assert loaded.stdout.splitlines() == fresh.stdout.splitlines()
            assert (loaded.returncode, loaded.stderr) == (7, "ä\n")
            with (tmp_path / "out").open("wb") as file:
                assert run_loaded(command, cwd=tmp_path, env=environment, stdout=file, stderr=file, input=b"").returncode == 7
            assert "an argument" in (tmp_path / "out").read_text(encoding="utf-8")
        assert len(forked) == 4 * (number + 1)


def test_a_forked_process_is_signalled_waited_for_and_ends_like_any_other(tmp_path: Path) -> None:
    sleeping = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(60)"]
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGKILL):
        with LoadedPopen(sleeping, env=surroundings(tmp_path), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"up\n"
            assert process.poll() is None
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(0.05)
            process.send_signal(number)
            assert process.wait(10) == -number
    failed = run_loaded([sys.executable, "-c", "1 / 0"], env=surroundings(tmp_path), capture_output=True, text=True)
    assert (failed.returncode, "ZeroDivisionError" in failed.stderr) == (1, True)


@pytest.mark.parametrize(
    ("options", "arguments"),
    [
        ({"env": {"PYTHONHASHSEED": "1"}}, ["-c", ""]),
        ({"env": {"PYTHONPATH": "/nowhere"}}, ["-c", ""]),
        ({"env": {"TZ": "Europe/Vienna"}}, ["-c", ""]),
        ({"start_new_session": True}, ["-c", ""]),
        ({"preexec_fn": os.getpid}, ["-c", ""]),
        ({}, ["-S", "-c", ""]),
        ({}, ["-m", "this"]),
    ],
    ids=str,
)
def test_what_asks_for_more_than_a_fork_can_give_is_started_as_usual(
    options: dict[str, Any], arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loaded_python, "_fork", lambda *_: pytest.fail("it was forked"))
    with LoadedPopen([sys.executable, *arguments], **{"env": {}, "stdout": subprocess.DEVNULL, **options}) as process:
        assert process.wait(30) == 0
