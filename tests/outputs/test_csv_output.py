"""CSV files: what a reader of the folder sees, also when the disk, or somebody else in the folder, interferes."""

from __future__ import annotations

import contextlib
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from anonymizer.errors import OutputUnavailable
from outputs.csv_files import HEADER, CsvFiles, encode
from tests.outputs.batches import make_batch, rows_of, usual_batch
from tests.outputs.destinations import csv_rows, full_disk

EACH_WINDOW = "ecg_%Y%m%d_%H%M%S.csv"
EACH_DAY = "%Y%m%d.csv"


def opened(folder: Path, pattern: str = EACH_DAY) -> CsvFiles:
    output = CsvFiles(folder, pattern)
    output.open({})
    return output


def test_a_file_is_what_the_documentation_shows(tmp_path: Path) -> None:
    batch = make_batch([(0, "b", -145.0), (0, "a", -145.0), (7_812_500, 'ward 3, "bed" 4', 2.5), (4_999_999_999, "é\r", 1 / 3)])

    opened(tmp_path, EACH_WINDOW).write(batch)

    assert (tmp_path / "ecg_20251103_143000.csv").read_bytes().decode() == (
        "timestamp,source_id,ecg\n"
        "2025-11-03T14:30:00.000000000Z,a,-145.0\n"
        "2025-11-03T14:30:00.000000000Z,b,-145.0\n"
        '2025-11-03T14:30:00.007812500Z,"ward 3, ""bed"" 4",2.5\n'
        '2025-11-03T14:30:04.999999999Z,"é\r",0.3333333333333333\n'
    )


def test_windows_with_the_same_file_name_share_a_file_in_the_order_of_release(tmp_path: Path) -> None:
    batches = [usual_batch(window=window) for window in (1, 0, 2)]
    output = opened(tmp_path)

    for batch in batches:
        output.write(batch)

    assert (tmp_path / "20251103.csv").read_bytes() == HEADER + b"".join(map(encode, batches))


def test_a_pattern_names_the_file_by_the_start_of_the_window_in_utc(tmp_path: Path) -> None:
    output = opened(tmp_path, "%Y-%m-%dT%H%M%S %j é.csv")

    assert Path(output.target(usual_batch(window=1))).name == "2025-11-03T143005 307 é.csv"
    output.write(usual_batch(window=1))

    assert [path.name for path in tmp_path.iterdir()] == ["2025-11-03T143005 307 é.csv"]


def test_nothing_is_reported_as_written_before_it_is_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[tuple[str, int]] = []
    really_sync = os.fsync

    def record(descriptor: int) -> None:
        status = os.fstat(descriptor)
        is_folder = stat.S_ISDIR(status.st_mode)
        synced.append(("folder", 0) if is_folder else ("file", status.st_size))
        really_sync(descriptor)

    output = opened(tmp_path)
    monkeypatch.setattr(os, "fsync", record)

    first, second = (output.write(usual_batch(window=window))["length"] for window in range(2))

    # The folder is for the new name, which is only new once.
    assert synced == [("file", first), ("folder", 0), ("file", second)]


def test_a_receipt_is_the_length_of_the_file_and_survives_json(tmp_path: Path) -> None:
    receipt = opened(tmp_path).write(usual_batch())

    assert json.loads(json.dumps(receipt)) == {"key": "20251103.csv", "length": (tmp_path / "20251103.csv").stat().st_size}


def test_a_file_is_on_record_before_it_is_there(tmp_path: Path) -> None:
    output = opened(tmp_path)

    intent = output.intent(usual_batch())

    assert intent == {"key": "20251103.csv", "length": 0}
    assert list(tmp_path.iterdir()) == []
    output.write(usual_batch(window=0))
    assert output.intent(usual_batch(window=1)) is None


def test_a_file_that_a_crash_left_half_written_is_ours_if_that_was_on_record(tmp_path: Path) -> None:
    intent = opened(tmp_path).intent(usual_batch())
    assert intent is not None
    (tmp_path / "20251103.csv").write_bytes((HEADER + encode(usual_batch()))[:77])

    again = CsvFiles(tmp_path, EACH_DAY)
    again.open({intent["key"]: intent})
    again.write(usual_batch())

    assert [path.name for path in tmp_path.iterdir()] == ["20251103.csv"]
    assert csv_rows(tmp_path / "20251103.csv") == rows_of(usual_batch())


def test_half_a_line_is_never_left_for_readers(tmp_path: Path) -> None:
    output = opened(tmp_path)
    output.write(usual_batch(window=0))
    before = (tmp_path / "20251103.csv").read_bytes()

    for _ in range(3):
        with full_disk(tmp_path / "20251103.csv", spare_bytes=100), pytest.raises(OutputUnavailable):
            output.write(usual_batch(window=1, rows=20))

        assert (tmp_path / "20251103.csv").read_bytes() == before


def test_a_full_disk_leaves_no_file_without_rows_however_often_it_is_tried(tmp_path: Path) -> None:
    output = opened(tmp_path, EACH_WINDOW)

    for spare_bytes in (0, 10, 24, 60) * 3:
        with full_disk(tmp_path / "none", spare_bytes=spare_bytes), pytest.raises(OutputUnavailable):
            output.write(usual_batch())

        assert list(tmp_path.iterdir()) == []


def test_what_a_crash_left_behind_the_last_receipt_is_cut_off(tmp_path: Path) -> None:
    output = opened(tmp_path)
    receipt = output.write(usual_batch(window=0))
    with (tmp_path / "20251103.csv").open("ab") as file:
        file.write(encode(usual_batch(window=1, rows=50))[:-33])

    again = CsvFiles(tmp_path, EACH_DAY)
    again.open({receipt["key"]: receipt})
    again.write(usual_batch(window=1))

    assert sorted(csv_rows(tmp_path / "20251103.csv")) == rows_of(usual_batch(window=0), usual_batch(window=1))


def test_a_foreign_file_of_the_same_name_is_kept_under_another(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / "20251103.csv").write_text(f"foreign {number}")
        opened(tmp_path).write(usual_batch())

    kept = [(tmp_path / f"20251103.csv.previous-{number}").read_text() for number in (1, 2, 3)]
    assert kept == ["foreign 0", "foreign 1", "foreign 2"]
    assert csv_rows(tmp_path / "20251103.csv") == rows_of(usual_batch())


def test_the_folder_is_made_with_those_above_it_and_left_clean(tmp_path: Path) -> None:
    opened(tmp_path / "a" / "b")

    assert list((tmp_path / "a" / "b").iterdir()) == []


def test_a_folder_that_was_deleted_is_waited_for_and_then_used_again(tmp_path: Path) -> None:
    folder = tmp_path / "mounted"
    output = opened(folder)
    output.write(usual_batch(window=0))
    (folder / "20251103.csv").unlink()
    folder.rmdir()

    # It is not made anew: it may be a disk that comes back.
    for window in (1, 2000):
        with pytest.raises(
            OutputUnavailable, match=r"CSV_OUTPUT_DIR .*mounted cannot be written to \(No such file or directory\)"
        ):
            output.write(usual_batch(window=window))
    folder.mkdir()
    output.write(usual_batch(window=1))
    output.write(usual_batch(window=2))

    assert sorted(csv_rows(folder / "20251103.csv")) == rows_of(usual_batch(window=1), usual_batch(window=2))


def test_a_folder_that_comes_back_with_its_files_is_gone_on_with(tmp_path: Path) -> None:
    folder = tmp_path / "mounted"
    output = opened(folder)
    output.write(usual_batch(window=0))
    folder.rename(tmp_path / "unplugged")
    for _ in range(2):
        with pytest.raises(OutputUnavailable):
            output.intent(usual_batch(window=1))
        with pytest.raises(OutputUnavailable):
            output.write(usual_batch(window=1))

    (tmp_path / "unplugged").rename(folder)
    output.write(usual_batch(window=1))

    assert [path.name for path in folder.iterdir()] == ["20251103.csv"]
    assert sorted(csv_rows(folder / "20251103.csv")) == rows_of(usual_batch(window=0), usual_batch(window=1))


def test_a_file_that_was_taken_away_is_begun_again(tmp_path: Path) -> None:
    output = opened(tmp_path)
    output.write(usual_batch(window=0))
    (tmp_path / "20251103.csv").rename(tmp_path / "archived.csv")

    output.write(usual_batch(window=1))
    output.write(usual_batch(window=1))

    assert csv_rows(tmp_path / "archived.csv") == rows_of(usual_batch(window=0))
    assert csv_rows(tmp_path / "20251103.csv") == rows_of(usual_batch(window=1))


def test_a_file_that_somebody_shortened_is_an_alarm_and_left_as_it_is(tmp_path: Path) -> None:
    output = opened(tmp_path)
    output.write(usual_batch(window=0))
    (tmp_path / "20251103.csv").write_bytes(b"shorter")

    with pytest.raises(OutputUnavailable, match=r"20251103\.csv is shorter than what was written to it"):
        output.write(usual_batch(window=1))

    assert (tmp_path / "20251103.csv").read_bytes() == b"shorter"


@pytest.mark.skipif(os.name != "posix", reason="permissions of another kind")
def test_a_folder_that_may_not_be_written_to_is_unavailable(tmp_path: Path) -> None:
    output = opened(tmp_path)

    with _read_only(tmp_path):
        with pytest.raises(OutputUnavailable, match=r"CSV_OUTPUT_DIR .* cannot be written to \(Permission denied\)"):
            opened(tmp_path)
        with pytest.raises(OutputUnavailable, match=r"Permission denied"):
            output.write(usual_batch())
    output.write(usual_batch())

    assert csv_rows(tmp_path / "20251103.csv") == rows_of(usual_batch())


def test_a_folder_that_is_a_file_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(OutputUnavailable, match=r"CSV_OUTPUT_DIR"):
        opened(tmp_path / "file")


def test_a_target_is_shown_relative_to_where_the_service_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    assert CsvFiles(Path("output"), EACH_WINDOW).target(usual_batch()) == "./output/ecg_20251103_143000.csv"
    assert CsvFiles(tmp_path.parent / "x", EACH_DAY).target(usual_batch()) == str(tmp_path.parent / "x" / "20251103.csv")


@contextlib.contextmanager
def _read_only(folder: Path) -> Iterator[None]:
    """Take away our right to write to the folder; root, who may do anything, becomes somebody else."""
    user, mode = os.geteuid(), stat.S_IMODE(folder.stat().st_mode)
    folder.chmod(0o500)
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)
        folder.chmod(mode)
