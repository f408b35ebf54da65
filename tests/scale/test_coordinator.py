"""What the coordinator makes of answers that come late, twice, differently, damaged or not at all."""

from __future__ import annotations

import errno
import json
import logging
import os
import random
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import service.scale.tasks
import service.scale.workforce
from anonymizer.windows import Window
from disk.durable_file import put_new_durably
from scripts.state import give_up_lost
from service import crash_points, exit_codes
from service.clock import SystemClock
from service.session import serve
from service.settings.load import load
from service.state.journal import Journal
from service.state.shared_spool import SharedSpool, SpoolFolder
from service.state.spool import decode, encode
from tests.faults.ward import FULL, KILLED
from tests.integration.service_process import ROOT, surroundings
from tests.scale.inline_cluster import InlineCluster, Task, Work, do
from tests.scale.recording import Files, files_in, settings_for, spool_files

Perform = Callable[[Work, Task], Any]


class Coordinator:
    """A service in this process, whose workers do what a test says."""

    def __init__(self, folder: Path, recording: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
        self.folder = folder
        self._recording = recording
        self._caplog = caplog
        self._monkeypatch = monkeypatch
        monkeypatch.setattr(service.scale.workforce, "Cluster", InlineCluster)
        monkeypatch.setenv(service.scale.tasks.ENV_FILE_VARIABLE, str(folder / ".env"))
        monkeypatch.chdir(folder)

    def run(self, perform: Perform = do, **changes: object) -> tuple[int, str]:
        """Run to the end; return exit code and log."""
        write_settings(self.folder, self._recording, changes)
        self._monkeypatch.setattr(InlineCluster, "perform", staticmethod(perform))
        self._monkeypatch.setattr(InlineCluster, "failed", [])
        self._caplog.clear()
        with self._caplog.at_level(logging.INFO, logger="ecg_anonymizer"):
            code = serve(load(self.folder / ".env", {}).settings, SystemClock(), env_file=self.folder / ".env")
        for error in InlineCluster.failed:
            raise error
        return code, "\n".join(record.getMessage() for record in self._caplog.records)

    @property
    def spool(self) -> Path:
        return self.folder / "state" / "chunks"

    def released(self) -> list[Window]:
        journal = Journal(self.folder / "state", data_set=None)
        try:
            return journal.released_intervals()
        finally:
            journal.close()


def write_settings(folder: Path, recording: Path, changes: dict[str, object]) -> None:
    lines = settings_for(recording, folder, DASK_SCHEDULER="local:2", STATE_DIR=folder / "state", CSV_OUTPUT_DIR=folder / "csv")
    (folder / ".env").write_text("".join(f"{name}={value}\n" for name, value in (lines | changes).items()))


@pytest.fixture
def coordinator(
    tmp_path: Path, recording: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> Iterator[Coordinator]:
    yield Coordinator(tmp_path, recording, monkeypatch, caplog)
    service.scale.tasks._close()


def test_answers_that_are_lost_late_or_come_twice_change_nothing(coordinator: Coordinator, undisturbed: Files) -> None:
    """A third of the answers is lost after the work was done; each fifth task is done again when its answer was used long ago."""
    chance, zombies = random.Random(5), list[threading.Thread]()

    def perform(work: Work, task: Task) -> Any:
        answer = do(work, task)
        if chance.random() < 0.2:
            zombies.append(threading.Timer(0.3, do, (work, task)))
            zombies[-1].start()
        if chance.random() < 0.3:
            raise ConnectionError("the worker died")
        return answer

    code, log = coordinator.run(perform, SPOOL_MAX_BYTES="30000")
    for zombie in zombies:
        zombie.join()

    assert code == 0, log
    # A worker that was killed while it wrote leaves a part of a file; that of another data set is not ours.
    (label,) = (folder for folder in coordinator.spool.iterdir() if folder.is_dir())
    halves = [folder / f".{'0f' * 8}{form}.unfinished" for folder in (label, label.with_name("other")) for form in ("", ".whole")]
    label.with_name("other").mkdir()
    for half in halves:
        half.write_bytes(b"half of a file")
    assert len(zombies) > 3
    assert files_in(coordinator.folder) == undisturbed
    # A zombie may have written after the end; the next run removes what it left.
    code, log = coordinator.run()
    assert (code, "0 released" in log) == (0, True), log
    assert spool_files(coordinator.folder) == []
    assert [half.exists() for half in halves] == [False, False, True, True]


def test_what_workers_of_a_killed_run_left_is_gone_after_an_erasure(coordinator: Coordinator) -> None:
    left: list[tuple[Path, bytes]] = []

    def perform(work: Work, task: Task) -> Any:
        answer = do(work, task)
        if "counted" in task and answer["spooled"]:
            path = coordinator.spool / answer["spooled"][0]
            left.append((path, path.read_bytes()))
        return answer

    code, log = coordinator.run(perform)
    assert code == 0, log
    path, content = left[0]
    path.write_bytes(content)

    command = [sys.executable, "-m", "scripts.state", "erase", "--source", "a", "--yes"]
    done = subprocess.run(
        command, cwd=coordinator.folder, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )

    assert (done.returncode, "erased: 840 rows in csv" in done.stdout) == (0, True), done.stdout + done.stderr
    assert spool_files(coordinator.folder) == []


def test_of_two_results_for_one_chunk_the_one_that_was_recorded_is_delivered_and_the_other_removed(
    coordinator: Coordinator, undisturbed: Files
) -> None:
    others = list[str]()

    def perform(work: Work, task: Task) -> Any:
        answer = do(work, task)
        if "counted" in task and answer["spooled"] and not others:
            shared = SharedSpool(SpoolFolder(coordinator.spool))
            batches = shared.read(answer["spooled"][0])
            # A chunk that comes first by chance may have one window only, or two that are certified alike.
            if batches[0].certificate != batches[-1].certificate:
                others.append(shared.write(task["label"], [*batches[:-1], batches[-1].certified(batches[0].certificate)]).name)  # type: ignore[arg-type]
                assert others[-1] != answer["spooled"][0]
        return answer

    code, log = coordinator.run(perform)

    assert code == 0, log
    assert others
    assert files_in(coordinator.folder) == undisturbed
    assert spool_files(coordinator.folder) == []


@pytest.mark.parametrize("alteration", ["a byte", "another chunk"])
def test_an_altered_spool_file_is_delivered_to_no_output(coordinator: Coordinator, undisturbed: Files, alteration: str) -> None:
    altered: list[tuple[Path, bytes]] = []
    first = iter([True])

    def perform(work: Work, task: Task) -> Any:
        answer = do(work, task)
        if "counted" in task and answer["spooled"] and next(first, False):  # tasks run side by side
            path = coordinator.spool / answer["spooled"][0]
            content = path.read_bytes()
            altered.append((path, content))
            path.write_bytes(content[:-40] + bytes([content[-40] ^ 1]) + content[-39:])
            if alteration == "another chunk":
                # Whole, and of the same size, but not what its name says.
                batches = [replace(one, values_uv=one.values_uv + 1.0) for one in decode(content, name="")]
                path.write_bytes(encode(batches))
                assert path.stat().st_size == len(content)
        return answer

    code, log = coordinator.run(perform)

    assert code == exit_codes.CONFIGURATION
    assert "in SPOOL_URL does not hold what was written. Its windows are released" in log
    found = files_in(coordinator.folder)
    assert all(undisturbed[name].startswith(rows) for name, rows in found.items())
    for path, content in altered:
        assert not any(f"-{path.name.partition('-')[0]}-" in name for name in found)
        if alteration == "a byte":
            path.write_bytes(content)
    if alteration == "another chunk":
        assert give_up_lost(coordinator.folder / "state", is_confirmed=True) == 0
    code, log = coordinator.run()
    assert code == 0, log
    assert (files_in(coordinator.folder) == undisturbed) == (alteration == "a byte")
    assert len(list(coordinator.folder.rglob("*.spool"))) == (0 if alteration == "a byte" else len(altered)), "in given_up"


#: The same recording under another path.
COPY = "a copy"


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"VALUE_UNIT": "mV"}, "A worker has another VALUE_UNIT. Give every worker"),
        ({"K_VALUE": "3"}, "K_VALUE"),
        ({"SPOOL_URL": "elsewhere"}, "A worker has another SPOOL_URL"),
        (
            {
                "PSEUDONYMIZE_SOURCE_ID": "true",
                "PSEUDONYM_SALT": "0b9d75e2f81c4a36d7e0925cb8f413a66f2e81d09c573b4ae7d1640f982bc35a",
            },
            "PSEUDONYM_SALT",
        ),
        ({"PARQUET_PARTITION": "day"}, "an output, or where it goes"),
        ({"OUTPUT_FILE_MODE": "0644"}, "an output, or where it goes"),
        ({"DEVICE_FILTER": "a"}, "A worker has another DEVICE_FILTER"),
        (
            {"QUERY_END_TIME": "2025-11-03T15:01:00Z"},
            "A worker has another QUERY_START_TIME or QUERY_END_TIME. Give",
        ),
        ({"INPUT_FILE": COPY}, "A worker has another path of INPUT_FILE"),
        ({"K_VALUE": "many"}, "K_VALUE must be a whole number"),
    ],
)
def test_a_worker_with_other_settings_is_given_nothing_and_says_in_what_it_differs(
    coordinator: Coordinator,
    tmp_path: Path,
    recording: Path,
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, object],
    named: str,
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    if changes.get("INPUT_FILE") == COPY:
        # Parquet files of a single file are called after its path.
        changes = {"INPUT_FILE": shutil.copy(recording, other)}
    write_settings(other, recording, {"PARQUET_URL": tmp_path / "parquet", "STATE_DIR": tmp_path / "state", **changes})
    monkeypatch.setenv(service.scale.tasks.ENV_FILE_VARIABLE, str(other / ".env"))

    code, log = coordinator.run()

    assert (code, named in log) == (exit_codes.CONFIGURATION, True), log
    assert "no other worker is left" in log
    assert coordinator.released() == []
    assert spool_files(tmp_path) == []


def test_a_worker_with_other_code_is_given_nothing(coordinator: Coordinator, monkeypatch: pytest.MonkeyPatch) -> None:
    def perform(work: Work, task: Task) -> Any:
        return do(work, {**task, "fingerprint": {**task["fingerprint"], "numpy": "another", "the program's code": "another"}})

    code, log = coordinator.run(perform)

    assert (code, "A worker has another the program's code; another numpy" in log) == (exit_codes.CONFIGURATION, True), log
    assert coordinator.released() == []


def test_a_spool_file_that_the_coordinator_does_not_see_is_not_released(coordinator: Coordinator) -> None:
    """SPOOL_URL may be another disk on a worker, under the same path."""

    def perform(work: Work, task: Task) -> Any:
        answer = do(work, task)
        if "counted" in task and answer["spooled"]:
            (coordinator.spool / answer["spooled"][0]).unlink()
        return answer

    code, log = coordinator.run(perform, RETRY_BUDGET_SECONDS="0")

    assert code == exit_codes.UNREACHABLE
    assert "does not contain a file that a worker has written" in log
    assert coordinator.released() == []


def test_a_full_spool_url_releases_nothing_and_a_run_goes_on_once_there_is_space(
    coordinator: Coordinator, undisturbed: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    really, full = put_new_durably, [True] * 3

    def put(path: Path, *given: Any, **options: Any) -> None:
        if path.suffix == ".spool" and full and full.pop():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        really(path, *given, **options)

    monkeypatch.setattr("service.state.shared_spool.put_new_durably", put)

    code, log = coordinator.run(RETRY_BUDGET_SECONDS="0")

    assert code == exit_codes.UNREACHABLE
    assert f"SPOOL_URL {coordinator.spool} cannot be used now (No space left on device)" in log
    released = coordinator.released()
    full[:] = [True] * 5
    code, log = coordinator.run()
    assert code == 0, log
    assert log.count("No space left on device); trying again") >= 1
    assert len(released) <= 1
    assert files_in(coordinator.folder) == undisturbed
    assert spool_files(coordinator.folder) == []


def test_what_the_coordinator_hands_over_is_private_and_put_again_and_no_worker_anonymizes_without_it(
    coordinator: Coordinator,
) -> None:
    """It says whose rows are not released."""
    listed, losses, modes, seen = coordinator.folder / "excluded.txt", [3], set[str](), dict[Path, bytes]()
    listed.write_text("b")
    settings = {"EXCLUDED_SOURCES_FILE": listed, "RETRY_BUDGET_SECONDS": "20"}

    one_at_a_time = threading.Lock()

    def lose() -> None:
        if losses[0]:
            losses[0] -= 1
            service.scale.tasks._close()
            for path in coordinator.spool.rglob("*.confidential"):
                modes.update(f"{one.stat().st_mode & 0o777:o}" for one in (path, path.parent))
                seen[path] = path.read_bytes()
                path.unlink()
            if not losses[0]:
                for path, content in seen.items():
                    path.write_text(json.dumps({**json.loads(content), "until_ns": {}}))

    def perform(work: Work, task: Task) -> Any:
        with one_at_a_time:
            lose()
        return do(work, task)

    code, log = coordinator.run(perform, **settings)
    assert (code, losses) == (0, [0]), log
    assert f"SPOOL_URL {coordinator.spool} does not contain, on a worker, what the coordinator has put there" in log
    assert modes == {"600", "700"}
    (csv,) = (coordinator.folder / "csv").glob("*.csv")
    assert [f",{one}," in csv.read_text() for one in "abc"] == [True, False, True]
    assert list(coordinator.spool.rglob("*.*")) == []

    shutil.rmtree(coordinator.folder / "state")
    shutil.rmtree(coordinator.folder / "parquet")
    losses[0] = 1 << 30
    code, log = coordinator.run(perform, **settings | {"RETRY_BUDGET_SECONDS": "0"})
    assert (code, "does not contain, on a worker, what" in log) == (exit_codes.UNREACHABLE, True), log
    assert coordinator.released() == []
    assert spool_files(coordinator.folder) == []


def test_of_an_unexpected_exception_only_the_type_is_shown(coordinator: Coordinator, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError("sample-canary")

    monkeypatch.setattr(service.scale.tasks, "finish_chunk", fail)

    code, log = coordinator.run(RETRY_BUDGET_SECONDS="0")

    assert (code, "a worker met an unexpected error (ZeroDivisionError)" in log) == (exit_codes.UNREACHABLE, True), log
    assert "canary" not in log


def test_an_answer_to_another_chunk_is_not_used(coordinator: Coordinator) -> None:
    first = list[Any]()

    def perform(work: Work, task: Task) -> Any:
        first.append(do(work, task))
        return first[0] if "counted" in task else first[-1]

    code, log = coordinator.run(perform, RETRY_BUDGET_SECONDS="0")

    assert (code, "a worker's answer cannot be used" in log) == (exit_codes.UNREACHABLE, True), log
    assert len(coordinator.released()) <= 1


def test_a_run_without_workers_delivers_what_they_spooled_and_one_with_another_spool_is_refused(
    coordinator: Coordinator, undisturbed: Files
) -> None:
    def perform(work: Work, task: Task) -> Any:
        if "name" in task:
            return {"code": "output denied", "said": "the output is shut"}
        return do(work, task)

    code, log = coordinator.run(perform)
    assert (code, "the output is shut" in log) == (exit_codes.CONFIGURATION, True), log
    assert spool_files(coordinator.folder)

    code, log = coordinator.run(SPOOL_URL=coordinator.folder / "another")
    assert (code, "SPOOL_URL changed while" in log) == (exit_codes.CONFIGURATION, True), log

    code, log = coordinator.run(DASK_SCHEDULER="")
    assert code == 0, log
    assert files_in(coordinator.folder) == undisturbed
    assert spool_files(coordinator.folder) == []


def test_two_services_with_one_data_set_do_not_share_a_spool(coordinator: Coordinator, undisturbed: Files) -> None:
    """Each would take what the other has released for an orphan, and remove it."""

    def perform(work: Work, task: Task) -> Any:
        return {"code": "output denied", "said": "the output is shut"} if "name" in task else do(work, task)

    key = {"PSEUDONYMIZE_SOURCE_ID": "true", "PSEUDONYM_SALT": "0b9d75e2f81c4a36d7e0925cb8f413a66f2e81d09c573b4ae7d1640f982bc35a"}
    settings: dict[str, Any] = {**key, "SPOOL_URL": coordinator.folder / "spool"}
    another: dict[str, Any] = {
        name: coordinator.folder / "another" / name for name in ("STATE_DIR", "PARQUET_URL", "CSV_OUTPUT_DIR")
    }
    code, log = coordinator.run(perform, **settings)
    assert (code, "the output is shut" in log) == (exit_codes.CONFIGURATION, True), log
    waiting = spool_files(coordinator.folder)
    assert waiting

    code, log = coordinator.run(**settings | another)

    assert (code, "which a service with another STATE_DIR uses for the same data set" in log) == (
        exit_codes.CONFIGURATION,
        True,
    ), log
    assert spool_files(coordinator.folder) == waiting
    for changes in (settings, settings | another):
        # When the one has delivered everything, the other may use the place.
        code, log = coordinator.run(**changes)
        assert code == 0, log
    assert len(files_in(coordinator.folder)) == len(undisturbed)
    assert [path for path in (coordinator.folder / "spool").rglob("*") if path.is_file()] == []


#: Where a coordinator passes that has workers.
POINTS = [one for one in crash_points.ALL if one not in (crash_points.AFTER_READ, crash_points.MID_SPOOL)]


def test_a_coordinator_that_is_killed_at_every_step_goes_on_where_it_was(
    tmp_path: Path, recording: Path, undisturbed: Files
) -> None:
    write_settings(tmp_path, recording, {"SPOOL_URL": tmp_path / "spool"})
    kills = [f"{point}:{hit}" for hit in (1, 2, 1) for point in POINTS] if FULL else [f"{POINTS[1]}:2", f"{POINTS[2]}:2"]
    for kill in kills:
        assert life(tmp_path, {crash_points.VARIABLE: kill}) == KILLED, kill

    assert life(tmp_path, {}) == 0
    assert files_in(tmp_path) == undisturbed
    assert spool_files(tmp_path) == []


def life(folder: Path, environment: dict[str, str]) -> int:
    given = {**surroundings(folder), "PYTHONPATH": str(ROOT), "ECG_ANONYMIZER_ENV_FILE": str(folder / ".env"), **environment}
    command = [sys.executable, "-m", "tests.scale.inline_cluster"]
    return subprocess.run(command, cwd=folder, env=given, stdout=subprocess.DEVNULL, check=False, timeout=120).returncode


def test_a_source_that_is_excluded_while_workers_are_far_ahead_is_released_from_no_chunk_after_that(
    coordinator: Coordinator,
) -> None:
    listed, calls = coordinator.folder / "excluded.txt", []
    listed.write_text("")

    def withdraw(work: Work, task: Task) -> Any:
        answer = do(work, task)
        calls.append(work)
        if len(calls) == 5:
            listed.write_text(" B ")
        return answer

    code, log = coordinator.run(withdraw, EXCLUDED_SOURCES_FILE=listed)

    assert code == 0, log
    (file,) = (coordinator.folder / "csv").glob("*.csv")
    times = {one: {row[:19] for row in file.read_text().splitlines() if f",{one}," in row} for one in "ab"}
    # The fifth answer came after the list had changed, so that at most four chunks of two windows of 5 s were released before.
    assert 0 < len(times["b"]) <= 4 * 2 * 5 < len(times["a"])
    assert " excluded" in log
