"""A scheduler and workers in processes of their own: what crosses their sockets, what becomes of a run when they die."""

from __future__ import annotations

import base64
import re
import socket
import struct
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from service.state.journal import Journal
from tests.faults.ward import FULL, wait_until
from tests.integration.service_process import Service, run_service
from tests.scale.dask_processes import DaskProcesses
from tests.scale.recording import ALONE, Files, files_in, is_object, make_recording, settings_for, spool_files

LIMIT_S = 240

#: In the line of a chunk.
CHUNK = '"event": "processing"'

#: How many schedulers are killed in full.
KILLS = 20


SECRETS = {
    "PSEUDONYM_SALT": "0b9d75e2f81c4a36d7e0925cb8f413a66f2e81d09c573b4ae7d1640f982bc35a",
    "INFLUX_TOKEN": "token-canary",
    "AWS_SECRET_ACCESS_KEY": "key-canary",
}


def test_a_run_whose_scheduler_worker_and_coordinator_are_killed_writes_what_one_process_writes(
    tmp_path: Path, recording: Path, undisturbed: Files
) -> None:
    """And no sample, id, token or key crosses the scheduler's sockets, nor what would recognise an excluded id."""
    listed = tmp_path / "excluded.txt"
    # That wearer's windows are not released anyway: the same files come out.
    listed.write_text(f"{ALONE}\nof no recording\n", encoding="utf-8")
    with DaskProcesses(tmp_path / "dask") as dask:
        given = {"SPOOL_URL": tmp_path / "spool", "EXCLUDED_SOURCES_FILE": listed, **SECRETS, **dask.settings}
        settings = settings_for(recording, tmp_path, LOG_FORMAT="json", **given)
        wait_until(lambda: "Scheduler at:" in dask.log, "a scheduler", within_s=LIMIT_S)
        code, tried = run_service(tmp_path, settings, "--check", "--connect")
        assert (code, '"workers": 0}' in tried) == (0, True), tried
        with Service(tmp_path, settings) as service:
            dask.add_worker(tmp_path / ".env")
            wait_until(lambda: service.log.count(CHUNK) >= 3, "chunks", within_s=LIMIT_S)
            dask.scheduler.kill()
            wait_until(lambda: service.log.count(CHUNK) >= 8, "chunks after the scheduler's death", within_s=LIMIT_S)
            dask.workers[0].kill()
            wait_until(lambda: service.log.count(CHUNK) >= 12, "chunks after the worker's death", within_s=LIMIT_S)
            service.process.kill()
            service.exit_code()
            first_log = service.log
        code, log = run_service(tmp_path, settings, within_s=LIMIT_S)
        dask_log, crossed = dask.log, dask.tap.content

    assert code == 0, log + dask_log
    assert not re.search("Traceback|distributed|CommClosedError:", first_log + log)
    # Dask's own lines are objects too, once a worker has read its `.env`.
    odd = [line for line in (first_log + log + dask.workers[0].log).splitlines() if not is_object(line)]
    assert [line for line in odd if not re.search(r" - distributed\.(preloading|diskutils) - ", line)] == []
    assert '"Registered to: ' in re.sub(" +", " ", dask.workers[0].log)
    assert files_in(tmp_path) == undisturbed
    assert spool_files(tmp_path) == []
    assert b"task-" in crossed
    assert b".spool" in crossed, "answers cross too"
    assert "2 sources are excluded" in first_log
    secret = [*telling(recording), *of_exclusions(tmp_path / "state")]
    assert [said for said in secret if said in crossed] == []
    # A fingerprint names its parts. Digests of ids in filters, and of files, could be matched by guessing.
    assert [b"VALUE_UNIT" in crossed, b"DEVICE_FILTER" in crossed, b"data set" in crossed] == [True, False, False]
    # Nor does it lie on a disk of scheduler or workers.
    files = [path.read_bytes() for path in (tmp_path / "dask").rglob("*") if path.is_file()]
    assert [said for said in secret if any(said in content for content in files)] == []
    assert list((tmp_path / "spool").rglob("*.*")) == []


def test_a_check_names_a_scheduler_that_takes_connections_and_says_nothing(tmp_path: Path, recording: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"tcp://127.0.0.1:{silent.getsockname()[1]}"
        settings = settings_for(
            recording, tmp_path, DASK_SCHEDULER=address, DASK_INSECURE_LOOPBACK="true", SPOOL_URL=tmp_path / "spool"
        )
        started_s = time.monotonic()
        code, log = run_service(tmp_path, settings, "--check", "--connect")
        took_s = time.monotonic() - started_s

    assert (code, took_s < 25) == (78, True), log
    assert f"❌ the Dask scheduler at {address} cannot be reached (" in log
    assert "Is it running, and are DASK_SCHEDULER and" in log
    assert not re.search("Traceback|distributed|The configuration is good", log), log
    assert not list(tmp_path.glob("state*")), "a check leaves nothing behind"


def telling(recording: Path) -> list[bytes]:
    """Return secrets, and ids, times and values of samples, as text and as machines write numbers."""
    found = [form for secret in (*SECRETS.values(), ALONE, "of no recording") for form in forms(secret.encode())]
    found += forms(bytes.fromhex(SECRETS["PSEUDONYM_SALT"]))
    for line in recording.read_text(encoding="utf-8").splitlines()[1:]:
        time_ms, _, value = line.split(",")
        # Times of windows are multiples of five seconds.
        if int(time_ms) % 5000:
            found += [time_ms.encode(), (int(time_ms) * 1_000_000).to_bytes(8, "little"), str(int(time_ms) * 1_000_000).encode()]
        if abs(int(value)) >= 100:
            found.append(struct.pack("<d", float(value)))
    return found


def of_exclusions(state: Path) -> list[bytes]:
    """Return the key by which excluded ids are recognised, and could be guessed, and their digests."""
    journal = Journal(state, data_set=None)
    key, digests = journal.facts.digests.exclusion_key, sorted(journal.exclusions.until_ns())
    journal.close()
    assert len(digests) == 2
    return [form for one in (key, *map(bytes.fromhex, digests)) for form in forms(one)]


def forms(secret: bytes) -> list[bytes]:
    """Return how programs write bytes: as they are, as digits, and in base64, whatever stands before them."""
    written = [base64.b64encode(b"\0" * before + secret)[4:-4] for before in range(3)]
    return [secret, secret.hex().encode(), secret.hex().upper().encode(), *written]


@pytest.mark.skipif(not FULL, reason="takes ten minutes: make test-faults")
def test_twenty_schedulers_are_killed_and_a_worker_with_other_settings_gets_no_work(tmp_path: Path) -> None:
    make_recording(tmp_path / "long.csv", seconds=9600)
    alone, together = tmp_path / "alone", tmp_path / "together"
    for folder in (alone, together, tmp_path / "other"):
        folder.mkdir()
    code, log = run_service(alone, settings_for(tmp_path / "long.csv", alone), within_s=LIMIT_S)
    assert code == 0, log
    with DaskProcesses(tmp_path / "dask") as dask:
        changes = {"SPOOL_URL": together / "spool", "RETRY_BUDGET_SECONDS": "900", **dask.settings}
        settings = settings_for(tmp_path / "long.csv", together, **changes)
        others = {**settings, "VALUE_UNIT": "mV", "STATE_DIR": together / "state", "CSV_OUTPUT_DIR": together / "csv"}
        env_file = tmp_path / "other" / ".env"
        env_file.write_text("".join(f"{name}={value}\n" for name, value in others.items()))
        kills = 0
        with Service(together, settings) as service:
            dask.add_worker(env_file)
            for _ in range(2):
                dask.add_worker(together / ".env")
            while service.process.poll() is None and kills < KILLS:
                before = service.log.count("📦")
                with suppress(AssertionError):
                    wait_until(chunks_in(service, before + 3), "chunks", service=service, within_s=60)
                    dask.scheduler.kill()
                    kills += 1
            code = service.exit_code(within_s=3 * LIMIT_S)
            log = service.log
    print(f"{kills} schedulers killed")
    assert code == 0, log
    assert kills == KILLS
    assert "A worker has another VALUE_UNIT" in log
    assert "It gets no more work" in log
    assert files_in(together) == files_in(alone)
    assert spool_files(together) == []


def chunks_in(service: Service, least: int) -> Callable[[], bool]:
    """Return whether so many chunks were released, when asked."""
    return lambda: service.log.count("📦") >= least
