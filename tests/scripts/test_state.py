"""What a person may decide about the service's memory, as the commands they would type."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from service.state.epochs import Epoch
from service.state.journal import Journal, Release
from tests.integration.service_process import ROOT, run_script
from tests.service.batches import PROMISE, make_batch


def state(folder: Path, *arguments: str) -> tuple[int, str]:
    done = run_script("scripts/state.py", "--state-dir", str(folder), *arguments, folder=ROOT)
    return done.returncode, done.stdout + done.stderr


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A state with two released windows that one output still lacks."""
    journal = Journal(tmp_path, data_set="data")
    journal.epochs.begin(Epoch(PROMISE, 5 * 10**9), now_ns=0)
    journal.outputs.add_outputs(["csv:out"])
    batches = [make_batch(0), make_batch(1)]
    releases = [Release(batch.window, batch.counts) for batch in batches]
    journal.record_release(releases, chunk=1, size_bytes=100, now_ns=0, stream_to_ns=None)
    journal.raise_fence()
    journal.close()
    return tmp_path


def test_show_says_what_was_released_and_how_far_each_output_is(folder: Path) -> None:
    code, said = state(folder, "show")

    assert code == 0
    assert "released   8 rows of 8 read" in said
    assert "1970-01-01 00:00:00 - 1970-01-01 00:00:10" in said
    assert "output     csv:out: 0 rows taken, 0 set aside, 8 pending" in said


def test_who_only_looks_makes_and_changes_nothing(folder: Path) -> None:
    empty = folder / "empty"
    empty.mkdir()
    journal = folder / "journal.sqlite"
    before = journal.read_bytes()

    assert state(folder, "show")[0] == state(empty, "show")[0] == 0

    assert journal.read_bytes() == before
    assert list(empty.iterdir()) == []
    for damaged, code in ((b"noise" * 1000, 78), (before[:5000], 78)):
        journal.write_bytes(damaged)
        found, said = state(folder, "show")
        assert (found, f"{journal} " in said, "accept-gap" in said) == (code, True, True), said
    journal.unlink()
    os.mkfifo(journal)
    assert state(folder, "show") == (69, f"{journal} cannot be used now (it is not a regular file)\n")


def test_an_output_is_dropped_by_its_name_and_what_it_loses_is_said(folder: Path) -> None:
    unknown, names = state(folder, "drop-output", "api")
    code, said = state(folder, "drop-output", "csv:out")

    assert (unknown, "there are: csv:out" in names) == (64, True)
    assert (code, "8 pending released rows will not be delivered to it" in said) == (0, True)
    assert "csv:out" not in state(folder, "show")[1]


def test_a_journal_that_is_gone_is_replaced_by_what_the_fence_knows(folder: Path) -> None:
    (folder / "journal.sqlite").unlink()
    refused, advice = state(folder, "show")

    accepted, said = state(folder, "accept-gap")

    assert (refused, "accept-gap" in advice) == (78, True)
    assert (accepted, "1970-01-01 00:00:00 - 1970-01-01 00:00:10 will not be released again" in said) == (0, True)
    assert state(folder, "show")[0] == 0


def test_a_folder_that_is_not_there_is_said_to_be_missing(tmp_path: Path) -> None:
    code, said = state(tmp_path / "nowhere", "show")

    assert (code, "There is no STATE_DIR" in said) == (64, True)
