"""Commands whose output is not read to its end, or that have no output: no traceback, and what they do is done."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from service import exit_codes
from tests.integration.service_process import ROOT, run_service
from tests.loaded_python import run_loaded

# A process is forked here to be given streams that are closed; Python 3.12 warns where there are threads.
pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="pipes and /dev/full are Unix's"),
    pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the service released a minute."""
    folder = tmp_path_factory.mktemp("released")
    rows = [f"2025-11-03T14:30:{index % 60:02d}.{index:03d}Z,{'ab'[index % 2]},{index % 3}" for index in range(900)]
    (folder / "recording.csv").write_text("\n".join(["timestamp,source_id,ecg", *rows]), encoding="utf-8")
    settings = {"INPUT_FILE": folder / "recording.csv", "OUTPUT_TO_INFLUX": "false", "CSV_FILENAME_PATTERN": "released.csv"}
    code, log = run_service(folder, settings)
    assert code == 0, log
    return folder


#: What a person may type there.
COMMANDS: Mapping[str, tuple[str, ...]] = {
    "show": ("state.py", "show"),
    "help": ("state.py", "--help"),
    "report": ("report.py", "--since", "2025-11-03", "--to", "made.html"),
    "verify": ("verify_output.py", "csv/released.csv", "--k", "5", "--batch-seconds", "5", "--table"),
    "advise": ("advise.py", "recording.csv", "--windows", "5,10", "--k", "5"),
}


@contextlib.contextmanager
def no_reader() -> Iterator[dict[str, Any]]:
    reading, writing = os.pipe()
    os.close(reading)
    yield {"stdout": writing}
    os.close(writing)


@contextlib.contextmanager
def no_output() -> Iterator[dict[str, Any]]:
    yield {"preexec_fn": lambda: os.close(1)}


@contextlib.contextmanager
def full_disk() -> Iterator[dict[str, Any]]:
    end = os.open("/dev/full", os.O_WRONLY)
    yield {"stdout": end}
    os.close(end)


def run_command(folder: Path, command: tuple[str, ...], **streams: Any) -> tuple[int, str]:
    done = run_loaded(
        [sys.executable, str(ROOT / "scripts" / command[0]), *command[1:]],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        env={"PATH": os.environ["PATH"], "HOME": str(folder), "PYTHONUTF8": "1"},
        **streams,
    )
    return done.returncode, done.stderr


@pytest.mark.parametrize("ending", [no_reader, no_output])
@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_whose_output_is_not_read_ends_as_usual(folder: Path, name: str, ending: Any) -> None:
    made = folder / "made.html"
    made.unlink(missing_ok=True)
    with ending() as streams:
        assert run_command(folder, COMMANDS[name], **streams) == (0, "")
    assert made.exists() == (name == "report")


def test_a_result_that_a_full_disk_does_not_take_is_no_success(folder: Path) -> None:
    with full_disk() as streams:
        code, said = run_command(folder, COMMANDS["show"], **streams)
    assert code == exit_codes.OUTPUT_LOST
    assert said == "❌ The output could not be written (No space left on device): it is incomplete\n"
