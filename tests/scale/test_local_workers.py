"""Worker processes of this machine write, byte for byte, what one process writes, whatever becomes of them."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import psutil

from tests.faults.ward import wait_until
from tests.integration.service_process import ROOT, Service, surroundings
from tests.scale.recording import Files, files_in, settings_for, spool_files

LIMIT_S = 120


def test_workers_of_which_one_is_killed_write_what_one_process_writes(
    tmp_path: Path, recording: Path, undisturbed: Files
) -> None:
    with Service(tmp_path, settings_for(recording, tmp_path, DASK_SCHEDULER="local:2")) as service:
        service.wait_for("📦", within_s=LIMIT_S)
        wait_until(lambda: service.log.count("📦") >= 4, "chunks", within_s=LIMIT_S)
        kills = kill_a_worker(service)
        code = service.exit_code(within_s=LIMIT_S)
        log = service.log

    assert code == 0, log
    assert kills == 1
    assert "Traceback" not in log
    assert "distributed." not in log
    assert files_in(tmp_path) == undisturbed
    assert spool_files(tmp_path) == []
    assert "Dask's own dashboard: http://127.0.0.1:" in log


def kill_a_worker(service: Service) -> int:
    """Kill a process that does tasks; return how many were killed."""
    for child in psutil.Process(service.process.pid).children(recursive=True):
        with suppress(psutil.Error):
            if "spawn_main" in " ".join(child.cmdline()):
                child.kill()
                return 1
    return 0


def test_nothing_of_dask_is_loaded_without_the_setting(tmp_path: Path, recording: Path) -> None:
    lines = {**settings_for(recording, tmp_path), "STATE_DIR": tmp_path / "state", "CSV_OUTPUT_DIR": tmp_path / "csv"}
    (tmp_path / ".env").write_text("".join(f"{name}={value}\n" for name, value in lines.items()))
    program = (
        "import sys, json, os; import central_anonymizer; code = central_anonymizer.main([]);"
        "print(json.dumps([code, sorted(m for m in sys.modules if m.split('.')[0] in ('dask', 'distributed') or 'service.scale' in m)]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={**surroundings(tmp_path), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        encoding="utf-8",
        check=False,
        timeout=LIMIT_S,
    )

    assert json.loads(done.stdout.splitlines()[-1]) == [0, []], done.stderr
