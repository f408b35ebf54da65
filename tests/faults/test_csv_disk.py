"""The disk under the CSV files: full, read-only, gone, or used by others. No half line stays; everything is written in the end."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

from service import exit_codes
from tests.faults.ward import STREAMING, Changes, Ward, paused, slow_disk, variant, wait_until
from tests.integration.service_process import Service
from tests.small_disks import mounted, remount

pytestmark = [
    pytest.mark.influxdb,
    pytest.mark.skipif(sys.platform != "linux", reason="limits a running process, and mounts file systems, as Linux does"),
]

#: Room for some of the windows, about 20 kB each, or for some of what the service remembers.
ROOM_BYTES = 150_000

#: One file, so that there is half a batch in it and not half a file.
ONE_FILE: Changes = {"CSV_FILENAME_PATTERN": "all_%Y%m%d.csv"}


def whole_lines(folder: Path) -> bool:
    """Return whether every file ends with a line's end and holds whole rows only."""
    contents = [path.read_bytes() for path in folder.glob("*.csv")]
    return all(content.endswith(b"\n") and all(line.count(b",") == 2 for line in content.splitlines()) for content in contents)


def wait_for_trouble(service: Service, others: Ward) -> None:
    """Return when CSV waits and the others have everything."""
    service.wait_for("cannot be written to")
    expected = others.undisturbed(ONE_FILE)
    wait_until(lambda: len(others.api.stored()) == expected.payloads.total(), "the API is complete without CSV", service=service)
    assert service.process.poll() is None


def test_a_disk_that_takes_nothing_more_at_all_is_waited_for(recent: Ward) -> None:
    """Row 15: no file may grow, neither those with rows nor those with what the service remembers; lifted while it runs."""
    with recent.streaming(ONE_FILE) as service:
        limit(service, ROOM_BYTES)
        service.wait_for("now (")
        assert service.process.poll() is None
        wait_until(lambda: whole_lines(recent.csv), "no half line stays", service=service)
        limit(service, None)


def limit(service: Service, most_bytes: int | None) -> None:
    """Let no file of the process grow beyond so many bytes; None: beyond any size."""
    import resource  # there is none on Windows

    most = resource.RLIM_INFINITY if most_bytes is None else most_bytes
    resource.prlimit(service.process.pid, resource.RLIMIT_FSIZE, (most, resource.RLIM_INFINITY))


def test_a_full_disk_is_waited_for_without_half_a_line_and_finished_when_it_has_room(recent: Ward) -> None:
    """Row 15: disk full: a small file system that is made larger while the service runs."""
    with mounted(recent.csv, "size=200k"), recent.streaming(ONE_FILE) as service:
        wait_for_trouble(service, recent)
        wait_until(lambda: whole_lines(recent.csv), "no half line stays", service=service)
        remount(recent.csv, "size=10m")


@variant
def test_a_service_killed_while_the_disk_is_full_finishes_the_file_after_a_restart(recent: Ward) -> None:
    """Row 15: disk full, then SIGKILL, then room."""
    with mounted(recent.csv, "size=200k"):
        with recent.start({**STREAMING, **ONE_FILE}) as service:
            wait_for_trouble(service, recent)
            service.process.kill()
        remount(recent.csv, "size=10m")
        with recent.streaming(ONE_FILE) as service:
            pass


def test_a_disk_that_becomes_read_only_is_waited_for(recent: Ward) -> None:
    """Row 15: read-only while the service runs."""
    # Slow is another disk, that of the spool: this one cannot be remounted while a file on it is open.
    slow_spool = slow_disk(recent.folder, "0000", 0.1)
    with mounted(recent.csv, "size=10m"), recent.streaming(ONE_FILE, environment=slow_spool) as service:
        service.wait_for("CSV saved")
        remount(recent.csv, "ro")
        wait_for_trouble(service, recent)
        remount(recent.csv, "rw")


def test_a_folder_that_is_taken_away_is_waited_for_and_goes_on_where_it_was_when_it_comes_back(
    recent: Ward, tmp_path: Path
) -> None:
    """Row 15: the folder is gone, as when a disk is not mounted, and comes back with what was in it."""
    away = tmp_path / "away"
    with recent.streaming(ONE_FILE, environment=slow_disk(recent.folder, "all_", 0.1)) as service:
        service.wait_for("CSV saved")
        with paused(service):
            recent.csv.rename(away)
        service.wait_for("cannot be written to")
        away.rename(recent.csv)


@variant
def test_a_folder_that_is_gone_is_waited_for_until_an_operator_makes_it_and_then_holds_what_comes_from_then_on(
    ward: Ward,
) -> None:
    """Row 15: the folder is deleted, or its disk is missing, between two runs: nothing is written beside it or released again."""
    assert ward.run({"QUERY_END_TIME": "2025-11-03T14:30:10Z"})[0] == 0
    shutil.rmtree(ward.csv)

    code, log = ward.run({"RETRY_BUDGET_SECONDS": "2"})

    assert code == exit_codes.UNREACHABLE, log
    assert "is its disk missing? If they were removed on purpose, make the folder" in log
    assert not ward.csv.exists()

    ward.csv.mkdir()

    code, log = ward.run()

    assert code == 0, log
    expected = ward.undisturbed()
    names = sorted(expected.files)[10:]
    assert ward.holdings().files == {name: expected.files[name] for name in names}


def test_a_foreign_file_of_the_same_name_is_kept_and_ours_is_whole(ward: Ward) -> None:
    """Row 15: another program's file has the name of ours."""
    ward.csv.mkdir()
    (ward.csv / "w_143003.csv").write_text("not,ours\n")

    code, log = ward.run()

    assert code == 0, log
    kept = [path for path in ward.csv.iterdir() if path.read_bytes() == b"not,ours\n"]
    assert len(kept) == 1
    assert kept[0].name.startswith("w_143003.csv")
    ward.assert_complete()


@variant
def test_a_line_appended_by_another_program_is_kept_aside_and_not_in_the_file(ward: Ward) -> None:
    """Row 15: another program wrote behind our last row."""
    half = {**ONE_FILE, "QUERY_END_TIME": "2025-11-03T14:30:10Z"}
    assert ward.run(half)[0] == 0
    (path,) = ward.csv.glob("*.csv")
    with path.open("a") as file:
        file.write("a remark\n")

    code, log = ward.run(ONE_FILE)

    assert code == 0, log
    ward.assert_complete(ONE_FILE)
    aside = [other for other in ward.folder.rglob("*") if other.is_file() and other != path and other.suffix != ".log"]
    assert any(b"a remark" in other.read_bytes() for other in aside), "what is not ours is kept"


def test_a_file_that_became_shorter_than_what_was_written_is_never_overwritten(ward: Ward) -> None:
    """Row 15: our file was shortened: an alarm, and an operator's decision."""
    half = {**ONE_FILE, "QUERY_END_TIME": "2025-11-03T14:30:10Z"}
    assert ward.run(half)[0] == 0
    (path,) = ward.csv.glob("*.csv")
    os.truncate(path, path.stat().st_size // 2)
    left = path.read_bytes()

    code, log = ward.run({**ONE_FILE, "RETRY_BUDGET_SECONDS": "1"})

    assert code in (69, 78), log
    assert "shorter" in log
    assert path.read_bytes() == left
