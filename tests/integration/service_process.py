"""The real program in a process of its own, with an `.env` of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from testbed.server_process import free_port
from tests.loaded_python import LoadedPopen, run_loaded

ROOT = Path(__file__).resolve().parent.parent.parent

KEY = "1b7e4c90fa2d5836c1e9074da5bf826b3d82e07b51f6a943cc0d1e98b24f7a53"


class Service:
    """Starts `central_anonymizer.py` in an empty folder.

    Args:
        folder: Where `.env`, state and outputs go.
        settings: What stands in `.env`, besides a folder for CSV files and one for state.
        arguments: For the command line.
        environment: Variables besides what every process needs.
        streams: `stdin`, `stdout`, `stderr` and the like for the process; else its log is kept.
    """

    def __init__(
        self,
        folder: Path,
        settings: Mapping[str, object],
        arguments: tuple[str, ...] = (),
        environment: Mapping[str, str] | None = None,
        **streams: Any,
    ) -> None:
        self.folder = folder
        self._log_path = folder / "service.log"
        lines = {"CSV_OUTPUT_DIR": folder / "csv", "STATE_DIR": folder / "state", **settings}
        env_file = folder / ".env"
        env_file.write_text("".join(f"{name}={value}\n" for name, value in lines.items()), encoding="utf-8")
        env_file.chmod(0o600)
        self._log = self._log_path.open("wb")
        self.process = LoadedPopen(
            [sys.executable, str(ROOT / "central_anonymizer.py"), *arguments],
            cwd=folder,
            env={**surroundings(folder), "PYTHONUNBUFFERED": "1", **(environment or {})},
            **{"stdin": subprocess.DEVNULL, "stdout": self._log, "stderr": subprocess.STDOUT, **streams},
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._log.close()

    @property
    def log(self) -> str:
        """Everything printed so far."""
        return self._log_path.read_text(encoding="utf-8")

    def exit_code(self, *, within_s: float = 60) -> int:
        """Wait for the end; the log is shown when it does not come."""
        try:
            return self.process.wait(within_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running after {within_s} s:\n{self.log}") from None

    def wait_for(self, text: str, *, within_s: float = 60) -> None:
        """Wait until the log holds a text."""
        deadline = time.monotonic() + within_s
        while text not in self.log:
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"never printed {text!r}:\n{self.log}")
            time.sleep(0.02)

    def stop(self, signal_number: int = signal.SIGTERM, *, within_s: float = 60) -> int:
        """Send a signal and return the exit code."""
        self.process.send_signal(signal_number)
        return self.exit_code(within_s=within_s)


def run_service(
    folder: Path,
    settings: Mapping[str, object],
    *arguments: str,
    environment: Mapping[str, str] | None = None,
    within_s: float = 60,
) -> tuple[int, str]:
    """Run the program to its end; return exit code and log."""
    with Service(folder, settings, arguments, environment) as service:
        code = service.exit_code(within_s=within_s)
        return code, service.log


def run_on_file(folder: Path, path: Path, **settings: object) -> tuple[int, str]:
    """Run the program over a file, with CSV files as its output."""
    return run_service(folder, {"INPUT_FILE": path, "OUTPUT_TO_INFLUX": "false", **settings})


def state(folder: Path, *arguments: str, environment: Mapping[str, str] | None = None) -> tuple[int, str]:
    """Run `scripts/state.py` in a folder with an `.env`; return exit code and what it printed."""
    done = run_script("scripts/state.py", *arguments, folder=folder, environment=environment)
    return done.returncode, done.stdout + done.stderr


def run_script(
    script: str, *arguments: str, folder: Path, environment: Mapping[str, str] | None = None, stdin: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run one of our programs in a folder to its end, which must not be a traceback."""
    done = run_loaded(
        [sys.executable, str(ROOT / script), *arguments],
        cwd=folder,
        env={**surroundings(folder), **(environment or {})},
        input=stdin,
        capture_output=True,
        encoding="utf-8",
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done


def surroundings(folder: Path) -> dict[str, str]:
    """Return the variables that every process of ours needs."""
    return {"PATH": os.environ["PATH"], "PYTHONUTF8": "1", "HOME": str(folder)}


def free_address() -> str:
    """Return an address of this machine that nothing listens on, and that no system gives away before the service is there."""
    return f"127.0.0.1:{free_port()}"
