"""`scripts/state.py give-up-lost` believes its own eyes only, asks, and deletes nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from anonymizer.errors import StateUnavailable
from disk.durable_file import read_ours
from scripts import state
from service.state.epochs import Epoch
from service.state.journal import Journal, Release
from service.state.spool import Spool
from tests.integration.service_process import ROOT
from tests.service.batches import PROMISE, make_batch


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A STATE_DIR with two chunks that an output lacks."""
    journal, spool = Journal(tmp_path, data_set="fake"), Spool(tmp_path / "spool")
    journal.epochs.begin(Epoch(PROMISE, 5 * 10**9), now_ns=0)
    journal.outputs.add_outputs(["csv:x"])
    for chunk in (1, 2):
        batch = make_batch(chunk)
        size = spool.write(chunk, [batch])
        release = Release(batch.window, batch.counts)
        journal.record_release([release], chunk=chunk, size_bytes=size, now_ns=0, stream_to_ns=None)
    journal.raise_fence()
    journal.close()
    return tmp_path


def pending(folder: Path) -> list[int]:
    journal = Journal(folder, data_set=None)
    try:
        return journal.outputs.spooled_chunks()
    finally:
        journal.close()


def on_a_terminal(folder: Path, answer: str) -> tuple[int, str]:
    import pty  # there is none on Windows

    ours, theirs = pty.openpty()
    command = [sys.executable, str(ROOT / "scripts" / "state.py"), "--state-dir", str(folder), "give-up-lost"]
    process = subprocess.Popen(command, stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8")
    os.write(ours, f"{answer}\n".encode())
    said = process.communicate(timeout=60)[0]
    os.close(ours)
    os.close(theirs)
    return process.returncode, said


def failing(times: int) -> Callable[[Path], bytes]:
    """Return a way to read a file of which the disk fails so many times."""
    left = [times]

    def read(path: Path) -> bytes:
        if left[0]:
            left[0] -= 1
            raise OSError(5, "Input/output error")
        return read_ours(path)

    return read


@pytest.mark.parametrize("times", [0, 1, 2])
def test_files_that_can_be_read_are_not_given_up_even_if_the_disk_fails_for_a_moment(
    times: int, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(state, "_BETWEEN_READS_S", 0)
    monkeypatch.setattr("service.state.spool.read_ours", failing(times))

    assert state.give_up_lost(folder, is_confirmed=True) == 0

    assert "0 chunks were given up" in capsys.readouterr().out
    assert pending(folder) == [1, 2]


def test_a_disk_that_goes_on_failing_loses_nothing_not_even_what_is_damaged(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "spool" / "000000000001.spool").unlink()
    monkeypatch.setattr(state, "_BETWEEN_READS_S", 0)
    monkeypatch.setattr("service.state.spool.read_ours", failing(99))

    with pytest.raises(StateUnavailable, match="nothing was given up"):
        state.give_up_lost(folder, is_confirmed=True)

    monkeypatch.undo()
    assert pending(folder) == [1, 2]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such terminals")
@pytest.mark.parametrize(("answer", "code", "left"), [("y", 64, [1, 2]), ("", 64, [1, 2]), ("yes", 0, [2])])
def test_a_person_is_asked_and_only_a_plain_yes_counts(answer: str, code: int, left: list[int], folder: Path) -> None:
    (folder / "spool" / "000000000001.spool").write_bytes(b"damaged")

    found, said = on_a_terminal(folder, answer)

    assert (found, "Chunk 1, 4 rows: spool file" in said) == (code, True), said
    assert pending(folder) == left
    kept = [path.read_bytes() for path in folder.glob("*/*1.spool")]
    assert kept == [b"damaged"], "in the spool, or in `given_up`"


def test_a_second_file_of_the_same_name_is_kept_beside_the_first(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "given_up").mkdir()
    (folder / "given_up" / "000000000001.spool").write_bytes(b"another")
    (folder / "spool" / "000000000001.spool").write_bytes(b"damaged")

    state.give_up_lost(folder, is_confirmed=True)

    kept = sorted(path.read_bytes() for path in (folder / "given_up").iterdir())
    assert kept == [b"another", b"damaged"]
    state.show(folder)
    assert "given up   2 spool files are kept in" in capsys.readouterr().out


@pytest.mark.parametrize("is_mount_point", [False, True])
def test_a_spool_folder_that_is_gone_is_not_given_up_nor_made(
    is_mount_point: bool, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "spool").rename(folder / "away")
    if is_mount_point:
        (folder / "spool").mkdir()

    assert state.main(["--state-dir", str(folder), "give-up-lost", "--yes"]) == 69

    said = capsys.readouterr().out
    assert "is gone" in said
    assert "nothing was given up" in said
    assert (folder / "spool").exists() == is_mount_point
    assert pending(folder) == [1, 2]
    if is_mount_point:
        (folder / "spool").rmdir()
    (folder / "away").rename(folder / "spool")
    assert state.give_up_lost(folder, is_confirmed=True) == 0
    assert pending(folder) == [1, 2]
