"""The service as a process of its own, timed."""

from __future__ import annotations

import json
import os
import re
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.figures import ROOT
from testbed.influxdb_server import InfluxServer

#: What every run has in common.
_ALWAYS = {
    "PSEUDONYMIZE_SOURCE_ID": "true",
    "PSEUDONYM_SALT": "5e8c1f70a93b46d2c0f7e1584a6db9327cf20b8d15e94a63d7c80b2f61e53a94",
    "OUTPUT_TO_CSV": "false",
    "OUTPUT_TO_INFLUX": "false",
    "VERBOSE_LOGGING": "false",
    # Its text is rounded to a tenth of a second.
    "LOG_FORMAT": "json",
}

#: What the service says once a window is in its file.
_CSV_SAVED = b"CSV saved"

#: How often a process's memory is looked at.
_LOOK_EVERY_S = 0.05


@dataclass(frozen=True, slots=True)
class Run:
    """How one run went.

    Args:
        seconds: As the service says, start-up left out, of which reading a file is a part.
        wall_s: From the start of the process to its end.
        cpu_s: Processor seconds of the whole process.
        peak_mib: Its largest resident set.
    """

    seconds: float
    wall_s: float
    cpu_s: float
    peak_mib: float


def settings_for(server: InfluxServer) -> dict[str, str]:
    """Return what a run needs to reach the server."""
    return {"INFLUX_URL": server.url, "INFLUX_ORG": server.org, "INFLUX_TOKEN": server.token}


def run_service(settings: Mapping[str, str], *, rows: int, program: tuple[str, ...] = ("central_anonymizer.py",)) -> Run:
    """Run the service to its end in an empty folder, and see that it released every row."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        started_s = time.perf_counter()
        with log.open("wb") as file:
            process = subprocess.Popen(
                [sys.executable, *program],
                cwd=ROOT,
                env={
                    "PATH": os.environ["PATH"],
                    "STATE_DIR": f"{folder}/state",
                    "CSV_OUTPUT_DIR": f"{folder}/csv",
                    **_ALWAYS,
                    **settings,
                },
                stdout=file,
                stderr=subprocess.STDOUT,
            )
            peak_mib = _watch_memory(process)
            wall_s = time.perf_counter() - started_s
            _, status, usage = os.wait4(process.pid, 0)
        said = log.read_text(encoding="utf-8")
    sums = next((json.loads(line) for line in said.splitlines() if '"event": "done"' in line), None)
    if status != 0 or sums is None or sums["rows_released"] != rows:
        raise SystemExit(f"the service did not release all {rows} rows:\n{said}")
    return Run(sums["seconds"], wall_s, usage.ru_utime + usage.ru_stime, peak_mib)


def _watch_memory(process: subprocess.Popen[bytes]) -> float:
    """Return a process's largest resident set in MiB, once it has ended; what the system tells afterwards begins with our own."""
    peak_mib = 0.0
    ended = os.pidfd_open(process.pid)
    # Woken by its end, which would else be noticed late by up to one look.
    while not select.select([ended], [], [], _LOOK_EVERY_S)[0]:
        peak_mib = peak_memory_mib(process.pid) or peak_mib
    os.close(ended)
    return peak_mib


def peak_memory_mib(process_id: int) -> float:
    """Return a process's largest resident set so far in MiB; 0 for one that has just ended."""
    status = Path(f"/proc/{process_id}/status").read_text(encoding="ascii")
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    return int(found[1]) / 1024 if found else 0.0


def first_window_s(file: Path) -> float:
    """Return how long after its start the service has released the first window of a file, as its log tells."""
    with tempfile.TemporaryDirectory() as folder:
        started_s = time.perf_counter()
        with subprocess.Popen(
            [sys.executable, "-u", "central_anonymizer.py"],
            cwd=ROOT,
            env={
                "PATH": os.environ["PATH"],
                **_ALWAYS,
                "OUTPUT_TO_CSV": "true",
                "VERBOSE_LOGGING": "true",
                "STATE_DIR": f"{folder}/state",
                "CSV_OUTPUT_DIR": f"{folder}/csv",
                "INPUT_FILE": str(file),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        ) as process:
            assert process.stdout is not None
            for line in process.stdout:
                if _CSV_SAVED in line:
                    elapsed_s = time.perf_counter() - started_s
                    process.communicate()
                    return elapsed_s
    raise SystemExit("the service released nothing")
