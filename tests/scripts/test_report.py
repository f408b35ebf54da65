"""`scripts/report.py`: a report of what the journal remembers, for a stream that never ends by itself."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from anonymizer.windows import NANOSECONDS
from scripts import report
from service.state.epochs import Epoch
from service.state.journal import Journal, Release
from service.state.late_rows import Recount
from tests.documentation.pages import ROOT
from tests.integration.service_process import KEY, run_script
from tests.service.batches import PROMISE, make_batch

#: 1970-01-01 00:10:00: window number 120 of five seconds begins there.
FIRST = 120


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with settings, and a state in which windows 120 … 131 were released, one missing among them, four rows each."""
    journal = Journal(tmp_path / "state", data_set="fake")
    journal.epochs.begin(Epoch(PROMISE, 5 * NANOSECONDS), now_ns=0)
    journal.outputs.add_outputs(["csv:./output", "api:http://sink"])
    for chunk, index in enumerate([*range(FIRST, FIRST + 5), *range(FIRST + 6, FIRST + 12)], 1):
        batch = make_batch(index)
        journal.record_release([Release(batch.window, batch.counts)], chunk=chunk, size_bytes=10, now_ns=0, stream_to_ns=None)
    for chunk in range(1, 12):
        journal.outputs.record_taken("csv:./output", chunk=chunk, receipts=[], rows=4, set_aside={"b": 1} if chunk == 3 else {})
    journal.late_rows.record_recounts([Recount(make_batch(FIRST).window, 4, 2, 0)], after_ns=[0], now_ns=0)
    journal.raise_fence()
    journal.close()
    settings = {
        "INFLUX_ORG": "ward",
        "INFLUX_TOKEN": "the-token-itself",
        "DEVICE_FILTER": "patient-17",
        "PSEUDONYMIZE_SOURCE_ID": "true",
        "PSEUDONYM_SALT": KEY,
        "STATE_DIR": tmp_path / "state",
        "STREAMING_MODE": "true",
    }
    (tmp_path / ".env").write_text("".join(f"{name}={value}\n" for name, value in settings.items()), encoding="utf-8")
    return tmp_path


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run_script("scripts/report.py", *arguments, folder=folder)


def figures_in(path: Path) -> dict[str, Any]:
    (data,) = re.findall(r'id="figures">(.*)</script>', path.read_text(encoding="utf-8"))
    found: dict[str, Any] = json.loads(data)
    return found


def test_it_adds_up_what_the_journal_remembers_of_the_span_without_secrets_or_names(folder: Path) -> None:
    done = run(folder, "--since", "1970-01-01T00:10:00Z", "--until", "1970-01-01T00:11:00Z", "--to", "r.html")

    assert (done.returncode, done.stdout.strip()) == (0, "📄 Report: r.html"), done.stderr
    figures = figures_in(folder / "r.html")
    assert (figures["windows_in_all"], figures["windows_released"]) == (12, 11)
    assert (figures["counts"]["read"], figures["counts"]["released"], figures["rows_late"]) == (44, 44, 2)
    assert [(one["start_ns"] // NANOSECONDS, one["end_ns"] // NANOSECONDS) for one in figures["promised"][0]["spans"]] == [
        (600, 625),
        (630, 660),
    ]
    assert figures["promised"][0]["promise"]["k"] == 2
    by_name = {one["name"]: one for one in figures["outputs"]}
    assert (by_name["csv:./output"]["taken"], by_name["csv:./output"]["set_aside"]) == (43, 1)
    assert by_name["api:http://sink"]["pending"] == 44
    assert sum(dict(figures["over_time"]["series"])["released"]) == 11
    text = (folder / "r.html").read_text(encoding="utf-8")
    assert "The journal stores neither levels nor group sizes" in text
    for private in ("the-token-itself", "patient-17", KEY, '"a"', '"b"'):
        assert private not in text


def test_windows_that_begin_in_the_span_count_and_it_says_whether_one_is_missing(folder: Path) -> None:
    for since, until, windows, released, said in (
        ("1970-01-01T00:10:11Z", "1970-01-01T00:10:21Z", 2, 2, "No window is missing between the first and the last."),
        ("1970-01-01T00:10:00Z", "1970-01-01T00:10:25Z", 5, 5, "No window is missing between the first and the last."),
        (
            "1970-01-01",
            "1971-01-01",
            12,
            11,
            "Between the first and the last, 1 window was not released: empty, or withheld completely",
        ),
    ):
        run(folder, "--since", since, "--until", until)
        figures = figures_in(folder / "report.html")
        assert (figures["windows_in_all"], figures["windows_released"]) == (windows, released)
        assert said in (folder / "report.html").read_text(encoding="utf-8")


def test_it_is_called_a_stream_only_where_there_is_one(folder: Path) -> None:
    run(folder, "--since", "1970-01-01", "--to", "stream.html")
    env = folder / ".env"
    env.write_text(env.read_text(encoding="utf-8").replace("STREAMING_MODE=true", "STREAMING_MODE=false"), encoding="utf-8")
    run(folder, "--since", "1970-01-01", "--to", "other.html")

    assert "<h1>Report of a stream</h1>" in (folder / "stream.html").read_text(encoding="utf-8")
    assert "<h1>Report of what was released</h1>" in (folder / "other.html").read_text(encoding="utf-8")


def test_windows_that_were_made_one_entry_count_as_many(folder: Path) -> None:
    journal = Journal(folder / "state", data_set=None)
    journal.outputs.drop_output("api:http://sink")
    journal.outputs.forget_chunks_all_have()
    assert journal.merge_before(10**18, recounts=0) > 0
    journal.close()

    run(folder, "--since", "1970-01-01T00:00:00Z", "--until", "1970-01-01T01:00:00Z")

    figures = figures_in(folder / "report.html")
    assert (figures["windows_released"], figures["counts"]["released"], figures["rows_late"]) == (11, 44, 2)
    assert sum(dict(figures["over_time"]["series"])["released"]) == pytest.approx(11)


def test_a_gap_that_was_accepted_is_said_to_be_unknown(folder: Path) -> None:
    journal = Journal(folder / "state", data_set=None)
    journal.accept_gap([make_batch(FIRST + 5).window])
    journal.close()

    run(folder, "--since", "1970-01-01T00:10:00Z", "--until", "1970-01-01T00:11:00Z")

    text = (folder / "report.html").read_text(encoding="utf-8")
    assert "For 1970-01-01 00:10:25 - 1970-01-01 00:10:30 UTC, nothing is known" in text
    assert figures_in(folder / "report.html")["windows_released"] == 11


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ((), 64, "--since"),
        (("--since", "yesterday"), 64, "--since"),
        (("--since", "2025-01-02", "--until", "2025-01-01"), 64, "--until must be after --since"),
        (("--since", "2025-01-01", "--env-file", "no.env"), 78, ".env file not found"),
        (("--since", "2025-01-01", "--to", "no/such/folder/r.html"), 64, "cannot be written"),
    ],
)
def test_mistakes_are_named(folder: Path, arguments: tuple[str, ...], code: int, said: str) -> None:
    done = run(folder, *arguments)

    assert done.returncode == code
    assert said in done.stdout + done.stderr


def test_a_service_that_works_on_the_state_is_not_disturbed(folder: Path) -> None:
    before = {path.name: path.read_bytes() for path in (folder / "state").iterdir() if path.is_file()}
    journal = Journal(folder / "state", data_set="fake")
    batch = make_batch(FIRST + 20)
    # Released, and the fence not yet raised: only the service may do that.
    journal.record_release([Release(batch.window, batch.counts)], chunk=20, size_bytes=10, now_ns=0, stream_to_ns=None)

    done = run(folder, "--since", "1970-01-01")

    assert done.returncode == 0
    assert figures_in(folder / "report.html")["windows_released"] == 12
    assert (folder / "state" / "fence").read_bytes() == before["fence"]
    journal.raise_fence()
    journal.close()


#: Releases window after window as fast as it can, until its standard input is closed.
RELEASES = """
import sys, threading
from pathlib import Path
from service.state.journal import Journal, Release
from tests.service.batches import make_batch
journal = Journal(Path(sys.argv[1]), data_set="fake")
done = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), done.set()), daemon=True).start()
for index in range(int(sys.argv[2]), 10**9):
    batch = make_batch(index)
    chunk = journal.outputs.next_chunk()
    journal.record_release([Release(batch.window, batch.counts)], chunk=chunk, size_bytes=10, now_ns=0, stream_to_ns=None)
    journal.raise_fence()
    if index % 50 == 0:
        print(index, flush=True)
    if done.is_set():
        break
journal.close()
"""


def test_reports_of_a_service_that_releases_without_a_pause_find_nothing_wrong(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("scripts.report.page", str)
    arguments = ["--env-file", str(folder / ".env"), "--since", "1970-01-01", "--to", str(folder / "r.html")]
    command = [sys.executable, "-c", RELEASES, str(folder / "state"), str(FIRST + 20)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as service:
        assert service.stdout is not None
        first = int(service.stdout.readline())

        # The journal grows all the while, and every report reads the whole of it.
        codes: list[int] = []
        enough_s = time.monotonic() + 3
        while len(codes) < 10 or (len(codes) < 50 and time.monotonic() < enough_s):
            codes.append(report.main(arguments))

        last, _ = service.communicate()
    assert set(codes) == {0}, capsys.readouterr().out
    assert int(last.split()[-1]) > first + 50, "it went on releasing meanwhile"


def test_a_journal_that_really_is_an_old_copy_is_said_to_be_one(folder: Path) -> None:
    old = (folder / "state" / "journal.sqlite").read_bytes()
    journal = Journal(folder / "state", data_set="fake")
    batch = make_batch(FIRST + 20)
    journal.record_release([Release(batch.window, batch.counts)], chunk=20, size_bytes=10, now_ns=0, stream_to_ns=None)
    journal.raise_fence()
    journal.close()
    (folder / "state" / "journal.sqlite").write_bytes(old)

    done = run(folder, "--since", "1970-01-01")

    assert done.returncode == 78
    assert f"{folder / 'state' / 'journal.sqlite'} is older than {folder / 'state' / 'fence'}" in done.stdout


def test_a_state_of_which_nothing_was_released_yet_makes_a_report(folder: Path) -> None:
    for path in (folder / "state").iterdir():
        path.unlink()
    Journal(folder / "state", data_set="fake").close()

    assert run(folder, "--since", "1970-01-01").returncode == 0
    assert figures_in(folder / "report.html")["windows_released"] == 0


def test_a_damaged_journal_is_said_to_be_one_and_a_missing_state_is_not_made(folder: Path) -> None:
    (folder / "state" / "journal.sqlite").write_bytes(b"not a database at all" * 100)
    damaged = run(folder, "--since", "1970-01-01")
    env = folder / ".env"
    env.write_text(env.read_text(encoding="utf-8").replace(f"{folder / 'state'}", f"{folder / 'other'}"), encoding="utf-8")
    missing = run(folder, "--since", "2025-01-01")

    assert (damaged.returncode, missing.returncode) == (78, 78)
    assert "journal.sqlite cannot be used (file is not a database)" in damaged.stdout
    assert "holds no journal" in missing.stdout
    assert not (folder / "other").exists()


def test_a_state_that_cannot_be_used_now_is_said_to_be_so_by_all_documents(folder: Path) -> None:
    (folder / "state" / "fence").unlink()
    os.mkfifo(folder / "state" / "fence")

    for script, arguments in (("report", ("--since", "1970-01-01")), ("dpia", ())):
        done = run_script(f"scripts/{script}.py", *arguments, folder=folder)

        assert (done.returncode, done.stdout) == (
            69,
            f"❌ {folder / 'state' / 'fence'} cannot be read now (it is not a regular file)\n",
        )
    assert not [*folder.glob("*.html"), *folder.glob("*.md")]
