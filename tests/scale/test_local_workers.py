"""Worker processes of this machine write, byte for byte, what one process writes, whatever becomes of them."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import psutil

from testbed.s3_server import S3Server
from tests.faults.ward import wait_until
from tests.integration.service_process import ROOT, Service, run_service, surroundings
from tests.scale.recording import Files, files_in, is_object, settings_for, spool_files

LIMIT_S = 120

#: In the line of a chunk.
CHUNK = '"event": "processing"'


def test_workers_of_which_one_is_killed_and_then_the_coordinator_write_what_one_process_writes(
    tmp_path: Path, recording: Path, undisturbed: Files
) -> None:
    """And every line is a JSON object, whatever dies."""
    settings = settings_for(recording, tmp_path, DASK_SCHEDULER="local:2", LOG_FORMAT="json")
    with Service(tmp_path, settings) as service:
        wait_until(lambda: service.log.count(CHUNK) >= 4, "chunks", service=service, within_s=LIMIT_S)
        assert kill_a_worker(service) == 1
        wait_until(lambda: service.log.count(CHUNK) >= 8, "chunks", service=service, within_s=LIMIT_S)
        left = psutil.Process(service.process.pid).children(recursive=True)
        service.process.kill()
        service.exit_code()
        # Workers end by themselves, and Python's own cleaner after them.
        assert psutil.wait_procs(left, timeout=LIMIT_S)[1] == []
        logs = service.log
    code, log = run_service(tmp_path, settings, within_s=LIMIT_S)
    logs += log

    assert code == 0, log
    assert [line for line in logs.splitlines() if not is_object(line)] == []
    assert [said for said in ("Traceback", "distributed.", "exception") if said in logs] == []
    assert files_in(tmp_path) == undisturbed
    assert spool_files(tmp_path) == []
    assert "Dask's own dashboard: http://127.0.0.1:" in log


def test_one_worker_that_spools_in_an_object_store_writes_what_one_process_writes(
    tmp_path: Path, recording: Path, undisturbed: Files, s3_server: S3Server, s3_bucket: str
) -> None:
    stored = s3_server.folder_of(s3_bucket)
    where = {"DASK_SCHEDULER": "local:1", "SPOOL_URL": f"s3://{s3_bucket}/ward/spool", **s3_server.variables()}
    with Service(tmp_path, settings_for(recording, tmp_path, **where)) as service:
        wait_until(lambda: any(spool_files(stored)), "a spool file in the store", within_s=LIMIT_S)
        code = service.exit_code(within_s=LIMIT_S)
        log = service.log

    assert code == 0, log
    assert "🧩 Workers: 1" in log
    assert s3_server.secret_key not in log
    assert files_in(tmp_path) == undisturbed
    assert spool_files(stored) == spool_files(tmp_path) == []


def kill_a_worker(service: Service) -> int:
    """Kill a process that does tasks; return how many were killed."""
    for child in psutil.Process(service.process.pid).children(recursive=True):
        with suppress(psutil.Error):
            if "spawn_main" in " ".join(child.cmdline()):
                child.kill()
                return 1
    return 0


def test_workers_of_this_machine_print_nothing_of_dasks(tmp_path: Path, recording: Path) -> None:
    """Such as a failed heartbeat, with its traceback, when the coordinator ends."""
    lines = settings_for(recording, tmp_path, LOG_FORMAT="json").items()
    (tmp_path / ".env").write_text("".join(f"{name}={value}\n" for name, value in lines))
    program = "import logging, warnings, service.scale.preload as it; it.dask_setup(None)"
    program += "; logging.getLogger('distributed.worker').error('x')"
    program += "; warnings.warn_explicit('y', UserWarning, 'f.py', 1, module='distributed.client')"
    printed = [
        subprocess.run(
            [sys.executable, "-c", program],
            cwd=tmp_path,
            env={**surroundings(tmp_path), "PYTHONPATH": str(ROOT), **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            check=True,
        ).stdout
        for environment in ({"ECG_ANONYMIZER_QUIET_WORKER": "true"}, {})
    ]
    assert printed[0] == ""
    assert [json.loads(line)["message"].splitlines()[0] for line in printed[1].splitlines()] == ["x", "f.py:1: UserWarning: y"]
