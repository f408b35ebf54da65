"""Calls of the operating system fail, each and at random: waited for, refused with a sentence or gone without, never taken for damage."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import random
import sqlite3
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from testbed.wearers import SECOND_NS
from tests.documentation.pages import DOCUMENTATION, table_with
from tests.faults.conftest import MakeWard, Report
from tests.faults.failing_calls import FailingCalls, built
from tests.faults.oracle import differences
from tests.faults.ward import FULL, Ward
from tests.integration.service_process import ROOT, run_service, state

PAGE = DOCUMENTATION / "DELIVERY.md"

#: How many calls are to fail, at least.
FAILURES = 500 if FULL else 20

#: A life that has waited for so long makes room for the next one, in seconds.
LIFE = {} if FULL else {"RETRY_BUDGET_SECONDS": 3}

#: What a run may end with when a call failed at a bad moment: done; not now; only an operator can fix it.
ENDS = {0, 69, 78}

#: Words that would send a person to give up rows, or a whole journal.
ADVICE_FOR_DAMAGE = ("give-up-lost", "accept-gap", "is damaged")


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built(tmp_path_factory.mktemp("library"))


def calls_of(folder: Path, library: Path) -> FailingCalls:
    return FailingCalls(library, [folder / "state", folder / "csv"], folder / "failed")


# Every call with every error


def expected(rules: list[dict[str, str]], use: str, call: str, code: str) -> str:
    """Return what the page says becomes of a call that fails: its first row about it."""
    for rule in rules:
        uses, calls = rule["use of the disk"].split(", "), rule["call"].split(", ")
        if (use in uses or uses == ["any"]) and call in calls and (rule["error"] == "any" or code in rule["error"].split()):
            return rule["what happens"]
    return "waits"


def test_what_becomes_of_every_call_that_fails_is_what_the_page_says(library: Path, tmp_path: Path) -> None:
    place = tmp_path / "place"
    calls = FailingCalls(library, [place], tmp_path / "failed")
    program = Path(__file__).with_name("calls") / "try_each_call.py"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **calls.always("none", 0)}

    done = subprocess.run(
        [sys.executable, str(program), str(tmp_path)], env=environment, capture_output=True, encoding="utf-8", check=False
    )

    assert done.returncode == 0, done.stderr
    found = {
        (use, call, code): outcome
        for use, by_call in json.loads(done.stdout).items()
        for call, by_code in by_call.items()
        for code, outcome in by_code.items()
    }
    rules = table_with(PAGE, "use of the disk")
    assert len(found) > 1000
    assert {key: outcome for key, outcome in found.items() if outcome != first_words(expected(rules, *key))} == {}
    unused = [rule for rule in rules if not any(outcome == first_words(rule["what happens"]) for outcome in found.values())]
    assert unused == [], "the page tells of something that never happens"


def first_words(text: str) -> str:
    """Return which of the outcomes a cell of the page begins with."""
    outcomes = ("waits", "refuses", "goes on", "another instance", "damaged")
    return next(one for one in outcomes if text.startswith(one))


# On the real program


def settings_of(folder: Path, **changes: object) -> dict[str, object]:
    """Return the settings of a run over four windows of twenty rows of a file, to CSV files only."""
    path = folder / "input.csv"
    rows = (f"2025-11-03T14:30:{second:02d}.{row:03d}Z,w{row % 4},{row % 2}\n" for second in range(4) for row in range(20))
    path.write_text("timestamp,source_id,ecg\n" + "".join(rows), encoding="utf-8")
    return {
        "INPUT_FILE": path,
        "OUTPUT_TO_INFLUX": "false",
        "BATCH_SIZE_SECONDS": 1,
        "MAX_RECORDS_PER_QUERY": 1,
        "QUERY_START_TIME": "2025-11-03T14:30:00Z",
        "QUERY_END_TIME": "2025-11-03T14:30:04Z",
        "CSV_FILENAME_PATTERN": "w_%H%M%S.csv",
        "RETRY_BUDGET_SECONDS": 1,
        **changes,
    }


def test_a_disk_without_locks_is_said_to_be_one_and_not_another_instance(library: Path, tmp_path: Path) -> None:
    for code in (errno.ENOLCK, errno.EOPNOTSUPP):
        ended, log = run_service(tmp_path, settings_of(tmp_path), environment=calls_of(tmp_path, library).always("flock", code))

        assert (ended, "is on a disk without locks" in log, "already works" in log) == (78, True, False), log
    assert not list(tmp_path.glob("csv/*.csv")), "nothing was released without a lock"


def test_a_lock_that_cannot_be_opened_is_a_sentence(library: Path, tmp_path: Path) -> None:
    """As when the file is another user's, or the disk is read-only; or fails."""
    for code, ends in ((errno.EACCES, 78), (errno.EPERM, 78), (errno.EROFS, 78), (errno.EIO, 69)):
        environment = calls_of(tmp_path, library).always("open", code, "/lock")
        ended, log = run_service(tmp_path, settings_of(tmp_path), environment=environment)

        assert (ended, "Traceback" in log, "already works" in log) == (ends, False, False), log
        assert f"lock cannot be opened{' now' if ends == 69 else ''} ({os.strerror(code)})" in log, log


def test_a_disk_that_cannot_sync_folders_is_reported_once_and_used(library: Path, tmp_path: Path) -> None:
    calls = FailingCalls(library, [tmp_path], tmp_path.with_name("failed"))
    environment = calls.always("fsync-folder", errno.EINVAL)
    checked, said = run_service(tmp_path, settings_of(tmp_path), "--check", environment=environment)
    code, log = run_service(tmp_path, settings_of(tmp_path), environment=environment)

    for text in (said, log):
        assert text.count("cannot make names of new files durable") == 2, "once for STATE_DIR, once for CSV_OUTPUT_DIR"
    assert (checked, code) == (0, 0), log
    assert len(list((tmp_path / "csv").glob("w_*.csv"))) == 4


def test_a_disk_that_fails_to_sync_folders_is_waited_for(library: Path, tmp_path: Path) -> None:
    environment = calls_of(tmp_path, library).always("fsync-folder", errno.EIO)
    code, log = run_service(tmp_path, settings_of(tmp_path), environment=environment)

    assert (code, "durable" in log) == (69, False), log
    assert not list(tmp_path.glob("csv/*.csv")), "nothing is offered that the power could still take"


def test_a_spool_file_that_cannot_be_read_is_waited_for_and_not_given_up(library: Path, tmp_path: Path) -> None:
    calls = calls_of(tmp_path, library)
    settings = settings_of(tmp_path, RETRY_BUDGET_SECONDS=0)
    code, log = run_service(tmp_path, settings, environment=calls.always("write", errno.ENOSPC, "/csv/"))
    assert code == 69, log
    (spooled, *_) = sorted((tmp_path / "state" / "spool").iterdir())

    for failing in (errno.EIO, errno.EMFILE, errno.EACCES):
        code, log = run_service(tmp_path, settings, environment=calls.always("open", failing, str(spooled)))
        assert (code, "cannot be read now" in log) == (69, True), log
        assert not [words for words in ADVICE_FOR_DAMAGE if words in log], log
        given_up, said = state(tmp_path, "give-up-lost", "--yes", environment=calls.always("open", failing, str(spooled)))
        assert (given_up, "nothing was given up" in said) == (69, True), said
    code, log = run_service(tmp_path, settings)

    assert code == 0, log
    assert len(list((tmp_path / "csv").glob("w_*.csv"))) == 4


def test_a_ledger_on_a_disk_that_cannot_sync_folders_is_written_with_a_warning(library: Path, tmp_path: Path) -> None:
    calls = FailingCalls(library, [tmp_path], tmp_path.parent / f"{tmp_path.name}-failed")
    entry = {"timestamp": "2025-11-03T14:30:00Z", "source_id": "a", "event_type": "x", "metrics": {}, "symbols": []}
    ends = []
    for code in (errno.EINVAL, errno.EIO):
        done = subprocess.run(
            [sys.executable, str(ROOT / "scripts" / "ingest_heartbeat.py"), "--ledger", str(tmp_path / f"{code}.jsonl")],
            env={"PYTHONUTF8": "1", **calls.always("fsync-folder", code)},
            input=json.dumps(entry),
            capture_output=True,
            encoding="utf-8",
            check=False,
        )
        ends.append((done.returncode, "cannot make the name" in done.stderr, (tmp_path / f"{code}.jsonl").stat().st_size > 0))

    assert ends == [(0, True, True), (74, False, False)]


@pytest.mark.influxdb
def test_calls_that_fail_at_random_lose_double_and_release_nothing_twice(
    library: Path, make_ward: MakeWard, report: Report
) -> None:
    """EIO, ENOSPC, EMFILE, EACCES, EROFS, EINVAL, ESTALE, EINTR, EDQUOT at random calls over a backfill, SQLite's too."""
    ward = make_ward(seconds=320 if FULL else 16, hertz=16)
    calls, chance = calls_of(ward.folder, library), random.Random(14)
    ward.undisturbed()
    ends: Counter[int] = Counter()

    # A run that was through before enough calls had failed is followed by one that fails no more: there is nothing left to do.
    while len(calls.failed()) < FAILURES or 0 not in ends:
        code, log = ward.run(LIFE, environment=calls.at_random(chance, one_in=50 if FULL else 80))
        ends[code] += 1
        trouble = "\n".join(line for line in log.splitlines() if " - INFO - " not in line)[-8000:]
        assert code in ENDS, trouble
        assert "Traceback" not in log, trouble
        assert not [words for words in ADVICE_FOR_DAMAGE if words in log], trouble
        assert code == 0 or "❌" in log, trouble
        add_late_rows(ward)
    code, log = ward.run()

    assert code == 0, log
    summed = "; ".join(f"{name} {one}" for name, one in differences(ward.undisturbed(), ward.holdings()).items())
    kinds = Counter(line.split()[1] for line in calls.failed())
    report(f"{len(calls.failed())} calls failed in {ends.total()} lives, which ended {dict(ends)}: {summed}; {dict(kinds)}")
    ward.assert_complete()


def add_late_rows(ward: Ward) -> None:
    """Put a row into every window that is released: one that is released again differs visibly."""
    with contextlib.suppress(sqlite3.Error), contextlib.closing(sqlite3.connect(ward.state / "journal.sqlite")) as db:
        starts = [start_ns for (start_ns,) in db.execute("SELECT start_ns FROM intervals")]
        lines = "\n".join(f"ecg,source_id=late ecg={start_ns % 97}.0 {start_ns + SECOND_NS // 2 + 7}" for start_ns in starts)
        ward.server.write_lines(ward.recording.bucket, lines.encode())


def test_a_disk_that_fails_at_the_start_is_waited_for_by_a_run_and_told_by_a_check(library: Path, tmp_path: Path) -> None:
    """A configuration that is refused is never tried again by systemd, whatever becomes of the disk."""
    for name in ("state", "csv"):
        (tmp_path / name).mkdir()
    for call, code in (("stat", errno.EIO), ("open", errno.EMFILE)):
        environment = calls_of(tmp_path, library).always(call, code)
        checked, said = run_service(tmp_path, settings_of(tmp_path), "--check", environment=environment)
        ended, log = run_service(tmp_path, settings_of(tmp_path), environment=environment)

        assert (checked, "cannot be written to" in said) == (78, True), said
        assert (ended, "Traceback" in log, "⏳" in log) == (69, False, True), log
