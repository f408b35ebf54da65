"""Worker processes of this machine write, byte for byte, what one process writes, whatever becomes of them."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import psutil

from testbed.s3_server import S3Server
from tests.faults.ward import wait_until
from tests.integration.service_process import Service
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
