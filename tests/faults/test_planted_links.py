"""Another user plants links at names that are known beforehand: their targets stay as they are."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

import pytest

from tests.disk.planted import LINKS, Plant
from tests.faults.test_calls import settings_of
from tests.integration.service_process import run_service

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="links need rights on Windows")

#: Names that the service writes to by itself; a run goes on with files of its own there.
REPLACED = (
    "state/fence",
    "state/fence.unfinished",
    "state/spool/000000000001.spool",
    "state/spool/000000000001.spool.unfinished",
    "state/report.html",
    "state/report.html.unfinished",
    "csv/w_143000.csv",
    "csv/w_143001.csv.tail-1",
)

#: Names that it opens: a sentence ends the run.
REFUSED = ("state/lock", *(f"state/journal.sqlite{suffix}" for suffix in ("", "-journal", "-wal", "-shm")))


BOTH = pytest.mark.parametrize("plant", LINKS.values(), ids=LINKS)


def put(plant: Plant, path: Path, victim: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    plant(path, victim)


@BOTH
def test_a_run_goes_on_beside_links_at_names_that_it_makes(plant: Plant, victim: Path, tmp_path: Path) -> None:
    # A fence is read before it is written, and no link is followed for that either: the run would wait.
    names = [name for name in REPLACED if name != "state/fence"]
    for name in names:
        put(plant, tmp_path / name, victim)

    code, log = run_service(tmp_path, settings_of(tmp_path))

    assert code == 0, log
    ours = [tmp_path / name for name in names if name.endswith((".csv", ".html", "fence"))]
    assert [path for path in ours if path.is_symlink() or not path.stat().st_size or path.stat().st_nlink > 1] == []
    assert len([path for path in (tmp_path / "csv").glob("w_*.csv") if not path.is_symlink()]) == 4


@BOTH
@pytest.mark.parametrize("name", REFUSED)
def test_a_link_at_a_name_that_is_opened_is_refused_with_a_sentence(
    name: str, plant: Plant, victim: Path, tmp_path: Path
) -> None:
    put(plant, tmp_path / name, victim)

    code, log = run_service(tmp_path, settings_of(tmp_path, RETRY_BUDGET_SECONDS=0))

    assert (code in {69, 78}, "Traceback" in log) == (True, False), log
    assert "it is a link" in log or "has a second name (a hard link)" in log, log
    assert not list(tmp_path.glob("csv/*.csv"))


@BOTH
def test_a_link_in_the_place_of_a_csv_file_that_grows_is_refused_with_a_sentence(
    plant: Plant, victim: Path, tmp_path: Path
) -> None:
    one_file = {"CSV_FILENAME_PATTERN": "all.csv"}
    code, log = run_service(tmp_path, settings_of(tmp_path, QUERY_END_TIME="2025-11-03T14:30:02Z", **one_file))
    assert code == 0, log
    (tmp_path / "csv" / "all.csv").unlink()
    victim_before = victim.read_bytes()
    victim.write_bytes(b"x" * 100_000)
    plant(tmp_path / "csv" / "all.csv", victim)

    code, log = run_service(tmp_path, settings_of(tmp_path, RETRY_BUDGET_SECONDS=0, **one_file))

    assert victim.read_bytes() == b"x" * 100_000
    victim.write_bytes(victim_before)
    if plant is LINKS["link to nothing"]:
        # As one that was taken away: begun again, and the link kept beside it.
        assert (code, (tmp_path / "csv" / "all.csv.previous-1").is_symlink()) == (0, True), log
    else:
        assert (code, "it is a link" in log or "has a second name (a hard link)" in log) == (69, True), log


def test_a_folder_that_is_a_link_is_used(tmp_path: Path) -> None:
    for name in ("state", "csv"):
        (tmp_path / f"real-{name}").mkdir()
        (tmp_path / name).symlink_to(tmp_path / f"real-{name}")

    code, log = run_service(tmp_path, settings_of(tmp_path))

    assert code == 0, log
    assert len(list((tmp_path / "real-csv").glob("w_*.csv"))) == 4


@pytest.mark.parametrize("umask", [0o000, 0o277], ids=oct)
def test_files_may_be_read_by_those_who_should_whatever_the_umask(umask: int, tmp_path: Path) -> None:
    before = os.umask(umask)
    try:
        code, log = run_service(tmp_path, settings_of(tmp_path, OUTPUT_FILE_MODE="0640"))
    finally:
        os.umask(before)

    assert code == 0, log
    modes = {str(path.relative_to(tmp_path)): stat.S_IMODE(path.stat().st_mode) for path in tmp_path.rglob("*")}
    released = {name: mode for name, mode in modes.items() if name.endswith((".csv", ".html")) and name != "input.csv"}
    state = {name: mode for name, mode in modes.items() if name.startswith("state/") and (tmp_path / name).is_file()}
    assert set(released.values()) == {0o640}
    assert len(released) == 6, "four CSV files, and a report that is kept twice"
    assert {name for name, mode in state.items() if name not in released and mode != 0o600} == set()
    assert {name: modes[name] for name in ("state", "state/spool", "state/reports", "csv")} == {
        "state": 0o700,
        "state/spool": 0o700,
        "state/reports": 0o750,
        "csv": 0o750,
    }


def test_files_that_are_there_keep_their_permissions_but_for_state(tmp_path: Path) -> None:
    one_file = {"CSV_FILENAME_PATTERN": "all.csv"}
    assert run_service(tmp_path, settings_of(tmp_path, QUERY_END_TIME="2025-11-03T14:30:02Z", **one_file))[0] == 0
    names = ("csv/all.csv", "state/report.html", "state/journal.sqlite")
    for name in names:
        (tmp_path / name).chmod(0o604)

    code, log = run_service(tmp_path, settings_of(tmp_path, OUTPUT_FILE_MODE="0640", **one_file))

    assert code == 0, log
    assert [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in names] == [0o604, 0o604, 0o600]
