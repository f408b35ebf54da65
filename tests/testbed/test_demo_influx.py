"""The demo may end the server it left, and nothing else; what it writes is for one pair of eyes."""

from __future__ import annotations

import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed.demo_influx import PID_NAME, stop_previous, write_env_file


@pytest.fixture
def sleeper(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Yield a process that the demo did not start."""
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) as process:
        yield process
        process.kill()


@pytest.fixture
def demo_server(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Yield a process whose command names the demo's folder, as the server's does."""
    script = "import time; print(flush=True); time.sleep(600)"
    with subprocess.Popen([sys.executable, "-c", script, str(tmp_path / "server")], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()  # a process has no command line yet in the moment of its birth
        yield process
        process.kill()


def test_a_process_that_got_the_number_of_the_old_server_is_left_alone(tmp_path: Path, sleeper: subprocess.Popen[bytes]) -> None:
    (tmp_path / PID_NAME).write_text(str(sleeper.pid), encoding="utf-8")

    assert not stop_previous(tmp_path)
    assert sleeper.poll() is None


def test_the_server_of_an_earlier_demo_is_stopped(tmp_path: Path, demo_server: subprocess.Popen[bytes]) -> None:
    (tmp_path / PID_NAME).write_text(str(demo_server.pid), encoding="utf-8")

    assert stop_previous(tmp_path)
    assert demo_server.wait(10) != 0


@pytest.mark.parametrize("content", ["", "not a number", "999999999"])
def test_a_pid_file_that_means_nothing_stops_nothing(tmp_path: Path, content: str) -> None:
    (tmp_path / PID_NAME).write_text(content, encoding="utf-8")

    assert not stop_previous(tmp_path)


def test_settings_are_private_from_the_start_and_never_written_over_another_file(tmp_path: Path) -> None:
    path = tmp_path / ".env"

    write_env_file(path, {"INFLUX_ORG": "demo", "INFLUX_TOKEN": "a=$b=="})

    assert path.read_text(encoding="utf-8") == "INFLUX_ORG=demo\nINFLUX_TOKEN=a=$b==\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with pytest.raises(FileExistsError):
        write_env_file(path, {})
