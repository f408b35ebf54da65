"""CSV files: what a reader of the folder sees, also when the disk or another program interferes."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import errno
import hashlib
import io
import itertools
import json
import mmap
import os
import stat
import threading
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anonymizer.batch import Batch
from anonymizer.errors import IntentChanged, OutputDenied, OutputUnavailable
from anonymizer.ports import Receipt
from anonymizer.windows import NANOSECONDS, Window
from outputs.csv_files import CsvFiles
from outputs.csv_held import HeldCsv
from outputs.csv_lines import encode
from outputs.csv_names import HEADER, covered_ns, one_name_s, unit_s
from outputs.encoding import value_texts
from service.delivery.write_pool import WritePool
from tests.outputs.batches import START_S, make_batch, rows_of, usual_batch
from tests.outputs.contract import Service
from tests.outputs.destinations import csv_rows, full_disk, lost_sync
from tests.small_disks import mounted

EACH_WINDOW = "ecg_%Y%m%d_%H%M%S.csv"
EACH_DAY = "%Y%m%d.csv"

#: The file of the day of all windows here.
DAY = "20251103.csv"


def opened(folder: Path, pattern: str = EACH_DAY, *, receipts: Mapping[str, Receipt] | None = None) -> CsvFiles:
    output = CsvFiles(folder, pattern)
    output.open(receipts or {})
    return output


def append(folder: Path, content: bytes | memoryview) -> None:
    """Write behind what is in the file of the day."""
    with (folder / DAY).open("ab") as file:
        file.write(content)


def windows(*numbers: int) -> list[Batch]:
    return [usual_batch(window=number) for number in numbers]


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


CELLS = st.text(st.sampled_from(',"\r\nab é心') | st.characters(exclude_categories=["Cs"]), max_size=12)
VALUES_UV = st.integers(-4100, 4100).map(float) | st.sampled_from([-0.0, 0.5, -145.25, 1 / 3, 1e15, -2.2250738585072014e-308])


@given(st.data(), st.lists(CELLS, min_size=1, max_size=5, unique=True), st.booleans(), st.booleans())
def test_lines_are_those_of_plain_python(data: st.DataObject, ids: list[str], are_near: bool, are_usual: bool) -> None:
    times_ns = st.integers(START_S * 10**9, START_S * 10**9 + 7) if are_near else st.integers(-(2**63) + 1, 2**63 - 1)
    values_uv = st.integers(-4096, 4096).map(float) if are_usual else VALUES_UV
    rows = data.draw(st.lists(st.tuples(times_ns, st.integers(0, len(ids) - 1), values_uv), min_size=1, max_size=40))
    times, codes, values = zip(*rows, strict=True)
    batch = dataclasses.replace(
        usual_batch(),
        times_ns=np.array(times, dtype=np.int64),
        source_index=np.array(codes, dtype=np.int32),
        source_ids=tuple(ids),
        values_uv=np.array(values),
    )

    written = bytes(encode(batch, before=b"before\n")).decode()

    texts = [f"{value + 0.0:.1f}" for value in values] if are_usual else value_texts(np.array(values)).to_pylist()
    lines = (f"{_time(time)},{_cell(ids[code])},{text}\n" for time, code, text in zip(times, codes, texts, strict=True))
    assert written == "before\n" + "".join(lines)


def _time(time_ns: int) -> str:
    second, rest = divmod(time_ns, 10**9)
    return f"{datetime(1970, 1, 1) + timedelta(seconds=second):%Y-%m-%dT%H:%M:%S}.{rest:09}Z"  # noqa: DTZ001  (in UTC)


def _cell(text: str) -> str:
    cell = io.StringIO()
    csv.writer(cell).writerow([text, ""])
    return cell.getvalue().removesuffix(",\r\n")


def test_windows_with_the_same_file_name_share_a_file_in_the_order_of_release(tmp_path: Path) -> None:
    batches = [usual_batch(window=window) for window in (1, 0, 2)]
    output = opened(tmp_path)

    for batch in batches:
        output.write(batch)

    assert (tmp_path / DAY).read_bytes() == HEADER + b"".join(map(encode, batches))


def test_only_windows_with_files_of_their_own_are_written_two_at_a_time(tmp_path: Path) -> None:
    patterns = (EACH_WINDOW, "%Y%m%d_%H%M.csv", EACH_DAY, "%H%M%S.csv", "all.csv")

    assert [CsvFiles(tmp_path, pattern).concurrency for pattern in patterns] == [2, 1, 1, 1, 1]


def test_windows_written_at_the_same_time_and_offered_again_stand_once_in_their_files(tmp_path: Path) -> None:
    batches = [usual_batch(window=window) for window in range(60)]
    service = Service(opened(tmp_path, EACH_WINDOW))
    two_are_there = threading.Barrier(2, timeout=60)

    def deliver_twice(batch: Batch) -> None:
        two_are_there.wait()  # one that is far ahead would be remembered instead of ours
        service.deliver(batch, batch)

    pool: WritePool[Batch, None] = WritePool(deliver_twice, concurrency=service.output.concurrency)

    pool.submit(batches).results()

    assert len(names_in(tmp_path)) == 60
    for batch in batches:
        assert Path(service.output.target(batch)).read_bytes() == HEADER + encode(batch)
    assert len(service.output._known) <= service.output.concurrency  # type: ignore[attr-defined]


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


@pytest.mark.skipif(not hasattr(os, "posix_fadvise"), reason="the system takes no advice")
@pytest.mark.parametrize("is_refused", [False, True])
def test_the_pages_of_what_is_on_the_disk_are_given_back_but_for_the_one_that_the_next_window_continues(
    is_refused: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given_back: list[tuple[int, int]] = []
    synced = _synced_files(monkeypatch)
    really_advise = os.posix_fadvise

    def record(descriptor: int, start: int, length: int, advice: int) -> None:
        assert os.fstat(descriptor).st_ino in synced
        given_back.append((start, start + length))
        if is_refused:
            raise OSError(errno.EINVAL, "Invalid argument")
        really_advise(descriptor, start, length, advice)

    monkeypatch.setattr(os, "posix_fadvise", record)
    output = opened(tmp_path)
    batches = [usual_batch(window=0, rows=6), *(usual_batch(window=window, rows=300) for window in (1, 2))]

    lengths = [output.write(batch)["length"] for batch in batches]

    page = mmap.PAGESIZE
    assert lengths[0] < page, "too short for a whole page"
    assert given_back == [(start, end // page * page) for start, end in itertools.pairwise(lengths)]
    assert csv_rows(tmp_path / DAY) == rows_of(*batches)


def test_what_a_crash_left_and_what_another_program_appended_is_on_the_disk_before_it_is_reported_or_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / DAY).write_bytes(HEADER + encode(usual_batch()))
    output = opened(tmp_path, receipts={DAY: {"key": DAY, "length": 0, "covered_ns": 0}})
    synced = _synced_files(monkeypatch)

    output.write(usual_batch())
    assert (tmp_path / DAY).stat().st_ino in synced

    append(tmp_path, b"foreign")
    synced.clear()
    output.write(usual_batch(window=1))
    assert synced == [path.stat().st_ino for path in (tmp_path / f"{DAY}.tail-1", tmp_path, tmp_path / DAY)]


def test_a_receipt_is_the_length_of_the_file_and_survives_json(tmp_path: Path) -> None:
    receipt = opened(tmp_path).write(usual_batch())

    content = (tmp_path / DAY).read_bytes()
    assert json.loads(json.dumps(receipt)) == {
        "key": DAY,
        "length": len(content),
        "covered_ns": 5 * NANOSECONDS,
        "end": [256, hashlib.sha256(content[-256:]).hexdigest()[:16]],
    }


def test_a_file_is_on_record_before_it_is_there_and_one_that_a_crash_left_half_written_is_ours(tmp_path: Path) -> None:
    output = opened(tmp_path)

    intent = output.intent(usual_batch())

    assert intent == {"key": DAY, "length": 0, "covered_ns": 0}
    assert list(tmp_path.iterdir()) == []
    (tmp_path / DAY).write_bytes((HEADER + encode(usual_batch()))[:77])
    again = opened(tmp_path, receipts={DAY: intent})
    again.write(usual_batch())
    assert names_in(tmp_path) == [DAY]
    assert csv_rows(tmp_path / DAY) == rows_of(usual_batch())
    assert again.intent(usual_batch(window=1)) is None


def test_half_a_line_is_never_left_for_readers(tmp_path: Path) -> None:
    output = opened(tmp_path)
    output.write(usual_batch(window=0))
    before = (tmp_path / DAY).read_bytes()

    for _ in range(3):
        with full_disk(tmp_path / DAY, spare_bytes=100), pytest.raises(OutputUnavailable):
            output.write(usual_batch(window=1, rows=20))

        assert (tmp_path / DAY).read_bytes() == before


def test_a_full_disk_leaves_no_file_without_rows_however_often_it_is_tried(tmp_path: Path) -> None:
    output = opened(tmp_path, EACH_WINDOW)

    for spare_bytes in (0, 10, 24, 60) * 3:
        with full_disk(tmp_path / "none", spare_bytes=spare_bytes), pytest.raises(OutputUnavailable):
            output.write(usual_batch())

        assert list(tmp_path.iterdir()) == []


def test_what_a_crash_left_behind_the_last_receipt_is_cut_off(tmp_path: Path) -> None:
    output = opened(tmp_path)
    receipt = output.write(usual_batch(window=0))
    append(tmp_path, encode(usual_batch(window=1, rows=50))[:-33])

    again = opened(tmp_path, receipts={receipt["key"]: receipt})
    again.write(usual_batch(window=1, rows=50))

    assert sorted(csv_rows(tmp_path / DAY)) == rows_of(usual_batch(window=0), usual_batch(window=1, rows=50))
    assert names_in(tmp_path) == [DAY]


@pytest.mark.parametrize("is_new", [True, False], ids=["new file", "file with a window in it"])
def test_wherever_a_crash_broke_off_a_write_it_is_completed_and_nothing_is_kept_aside(is_new: bool, tmp_path: Path) -> None:
    whole = HEADER + encode(usual_batch(window=0)) + encode(usual_batch(window=1))
    first = 0 if is_new else len(HEADER + encode(usual_batch(window=0)))
    for broken_off in range(first, len(whole) + 1):
        (tmp_path / DAY).write_bytes(whole[:broken_off])

        output = opened(tmp_path, receipts={DAY: {"key": DAY, "length": first, "covered_ns": 0}})
        for window in (0, 1) if is_new else (1,):
            assert output.intent(usual_batch(window=window)) is None
            output.write(usual_batch(window=window))

        assert (tmp_path / DAY).read_bytes() == whole, broken_off
        assert names_in(tmp_path) == [DAY], broken_off


@pytest.mark.parametrize("pattern", [EACH_WINDOW, EACH_DAY, "%Y%m%d_%H%M.csv", "always the same.csv", "%A.csv", "%S.csv"])
@pytest.mark.parametrize("killed", [0, 1, 7, 300, 8000, 10**9], ids="after {} bytes".format)
def test_a_crash_in_the_middle_of_sixty_windows_is_recognised_as_ours(pattern: str, killed: int, tmp_path: Path) -> None:
    batches = [usual_batch(window=window, rows=4) for window in range(60)]
    undisturbed, disturbed = tmp_path / "undisturbed", tmp_path / "disturbed"
    Service(CsvFiles(undisturbed, pattern)).deliver(*batches)
    # What is on record is what was before each file began; what was written is unknown.
    crashed = Service(CsvFiles(disturbed, pattern))
    written = 0
    for batch in batches:
        path = Path(crashed.output.target(batch))
        size = path.stat().st_size if path.exists() else 0
        crashed.deliver_and_die(batch)
        written += path.stat().st_size - size
        if written > killed:
            os.truncate(path, path.stat().st_size - (written - killed))
            break

    Service(CsvFiles(disturbed, pattern), crashed.receipts).deliver(*batches)

    assert {path.name: path.read_bytes() for path in disturbed.iterdir()} == {
        path.name: path.read_bytes() for path in undisturbed.iterdir()
    }


@pytest.mark.parametrize(
    "foreign",
    [b"# a note\n", b"2025-11-03T14:30:05.000000000Z,somebody,1.0\n", b"\0" * 5000, HEADER],
    ids=["note", "row", "zeros", "header"],
)
def test_what_another_program_appended_is_kept_beside_the_file(foreign: bytes, tmp_path: Path) -> None:
    service = Service(opened(tmp_path))
    service.deliver(usual_batch(window=0))

    for window in (1, 2):
        append(tmp_path, foreign)
        service.deliver(usual_batch(window=window))

    assert names_in(tmp_path) == [DAY, "20251103.csv.tail-1", "20251103.csv.tail-2"]
    assert [(tmp_path / f"20251103.csv.tail-{number}").read_bytes() for number in (1, 2)] == [foreign, foreign]
    assert sorted(csv_rows(tmp_path / DAY)) == rows_of(*windows(0, 1, 2))


def test_what_comes_behind_a_batch_that_a_crash_left_is_judged_by_the_next_batch(tmp_path: Path) -> None:
    (tmp_path / DAY).write_bytes(HEADER + encode(usual_batch(window=0)) + b"foreign")
    output = opened(tmp_path, receipts={DAY: {"key": DAY, "length": 0, "covered_ns": 0}})

    output.write(usual_batch(window=0))
    output.write(usual_batch(window=1))

    assert (tmp_path / DAY).read_bytes() == HEADER + encode(usual_batch(window=0)) + encode(usual_batch(window=1))
    assert (tmp_path / "20251103.csv.tail-1").read_bytes() == b"foreign"


def test_what_another_program_appended_is_not_cut_off_before_it_is_safe(tmp_path: Path) -> None:
    output = opened(tmp_path)
    output.write(usual_batch(window=0))
    append(tmp_path, b"foreign" * 1000)
    before = (tmp_path / DAY).read_bytes()

    for trouble in (lost_sync(), full_disk(tmp_path / "none", spare_bytes=100)):
        with trouble, pytest.raises(OutputUnavailable):
            output.write(usual_batch(window=1))

        assert (tmp_path / DAY).read_bytes() == before
        assert names_in(tmp_path) == [DAY]


# --- what must be remembered ----------------------------------------------------------------------------------------------------


def test_a_file_that_only_one_window_comes_to_need_not_be_remembered(tmp_path: Path) -> None:
    service = Service(opened(tmp_path, EACH_WINDOW))

    for window in range(40):
        service.deliver(usual_batch(window=window))

        assert service.receipts == {}
        assert len(service.output._known) <= service.output.concurrency  # type: ignore[attr-defined]
    assert len(names_in(tmp_path)) == 40


def test_a_file_that_several_windows_share_is_remembered_until_there_is_no_more_to_come(tmp_path: Path) -> None:
    service = Service(opened(tmp_path, "%Y%m%d_%H%M.csv"))
    for window in range(12):
        assert len(service.receipts) == (window > 0)
        # A restart in between changes nothing.
        service = Service(CsvFiles(tmp_path, "%Y%m%d_%H%M.csv"), service.receipts)
        service.deliver(usual_batch(window=window), usual_batch(window=window))

    assert service.receipts == {}
    assert sorted(csv_rows(tmp_path / "20251103_1430.csv")) == rows_of(*(usual_batch(window=window) for window in range(12)))


def test_a_file_with_a_gap_that_may_yet_be_filled_is_remembered_and_one_that_comes_again_for_ever(tmp_path: Path) -> None:
    service = Service(opened(tmp_path, "%Y%m%d_%H%M.csv"))
    service.deliver(*(usual_batch(window=window) for window in range(36) if window != 5))
    assert list(service.receipts) == ["20251103_1430.csv"]
    Service(CsvFiles(tmp_path, "%Y%m%d_%H%M.csv"), service.receipts).deliver(usual_batch(window=5))
    assert service.receipts == {}
    assert names_in(tmp_path) == [f"20251103_14{minute}.csv" for minute in (30, 31, 32)]

    other = Service(opened(tmp_path / "other", "%M.csv"))
    other.deliver(*windows(*range(12), 720))
    assert (list(other.receipts), names_in(tmp_path / "other")) == (["30.csv"], ["30.csv"])


PATTERNS: dict[str, int | None] = dict.fromkeys(("%Y%m%d_%H%M%S", "%Y%m%dT%H%M%SZ", "%y%m%d%H%M%S", "%Y-%j %X", "%s", "%c"), 1)
PATTERNS |= {"%G-W%V-%u %H.%M.%S": 1, "%Y%m%d %I%M%S%p": 1, "%Y%m%d_%H%M": 60, "%Y%m%d_%H": 3600}
PATTERNS |= dict.fromkeys(("%F", "%Y%j", "%Y%m%d_%M%S", "%Y%m%d %I%M%S"), 86_400)
PATTERNS |= dict.fromkeys(("%Y%m", "%Y", "always", "%%", "%H%M%S", "%d_%H%M%S", "%m%d%H%M%S", "%j%H%M%S", "%a%H%M%S"))
PATTERNS |= dict.fromkeys(("%Y%A%H%M%S", "%Y%d%A%H%M%S", "%Y%U%H%M%S", "%U%w%H%M%S", "%Y%-m%-d_%H%M%S"))


@pytest.mark.parametrize(("pattern", "expected_s"), PATTERNS.items())
def test_a_pattern_tells_times_apart_down_to_a_unit(pattern: str, expected_s: int | None) -> None:
    assert unit_s(pattern) == expected_s


def test_an_interval_has_one_name_unless_a_part_of_it_comes_again_within(tmp_path: Path) -> None:
    several = ["%Y%m%d_%M%S", "%Y%m%d %I%M%S", "%Y%m%d_%M", "%Y%m%d_%S", "%Y%m%d_%I", "%Y%m%d_%p", "%Y%m%d_%H_%S"]

    assert {pattern for pattern in (*PATTERNS, *several) if one_name_s(pattern) != unit_s(pattern)} == set(several)
    for pattern in (*PATTERNS, *several):
        if unit := one_name_s(pattern):
            times = (datetime.fromtimestamp(1_762_128_000 + second, UTC) for second in range(0, unit, 7))
            assert len({time.strftime(pattern) for time in times}) == 1, pattern
    assert HeldCsv(tmp_path, "%Y%m%d_%S.csv").unit_ns is None


MOMENTS_S = st.integers(946_684_800, 4_000_000_000)  # 2000 to 2096


@given(st.sampled_from([pattern for pattern in PATTERNS if unit_s(pattern)]), st.data())
def test_no_two_stretches_of_that_unit_share_a_name(pattern: str, data: st.DataObject) -> None:
    unit = unit_s(pattern) or 0
    moment_s = data.draw(MOMENTS_S) // unit * unit
    steps = st.sampled_from([1, 60, 3600, 43_200, 86_400, 7 * 86_400, 30 * 86_400, 31 * 86_400, 365 * 86_400, 366 * 86_400])
    other_s = data.draw(MOMENTS_S | steps.map(lambda step: moment_s + step)) // unit * unit
    first, second = (datetime.fromtimestamp(moment, UTC).strftime(pattern) for moment in (moment_s, other_s))

    assert (first == second) == (moment_s == other_s)


@pytest.mark.parametrize(
    ("start_s", "length_s", "unit", "expected_s"),
    [(0, 5, 1, 1), (0, 5, 60, 5), (0, 60, 60, 60), (0, 300, 60, 60), (30, 60, 60, 30), (58, 5, 60, 2), (0, 5, 86_400, 5)],
)
def test_a_window_covers_of_a_file_what_lies_within_it(start_s: int, length_s: int, unit: int, expected_s: int) -> None:
    start_ns = (START_S + start_s) * NANOSECONDS

    assert covered_ns(Window(start_ns, start_ns + length_s * NANOSECONDS), of_unit_s=unit) == expected_s * NANOSECONDS


# --- another program in the folder ------------------------------------------------------------------------------------------------


def test_a_foreign_file_of_the_same_name_is_kept_under_another(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / DAY).write_text(f"foreign {number}")
        opened(tmp_path).write(usual_batch())

    kept = [(tmp_path / f"20251103.csv.previous-{number}").read_text() for number in (1, 2, 3)]
    assert kept == ["foreign 0", "foreign 1", "foreign 2"]
    assert csv_rows(tmp_path / DAY) == rows_of(usual_batch())


def test_the_folder_is_made_with_those_above_it_and_left_clean_and_one_that_is_a_file_is_unavailable(tmp_path: Path) -> None:
    opened(tmp_path / "a" / "b")
    assert list((tmp_path / "a" / "b").iterdir()) == []

    (tmp_path / "file").touch()
    with pytest.raises(OutputUnavailable, match=r"CSV_OUTPUT_DIR"):
        opened(tmp_path / "file")


def test_a_folder_that_was_deleted_is_waited_for_and_then_used_again(tmp_path: Path) -> None:
    folder = tmp_path / "mounted"
    output = opened(folder)
    output.write(usual_batch(window=0))
    (folder / DAY).unlink()
    folder.rmdir()

    # It is not made anew: it may be a disk that comes back.
    for window in (1, 2000):
        with pytest.raises(
            OutputUnavailable, match=r"CSV_OUTPUT_DIR .*mounted cannot be written to \(No such file or directory\)"
        ):
            output.write(usual_batch(window=window))
    folder.mkdir()
    Service(output, reopen=False).deliver(usual_batch(window=1), usual_batch(window=2))

    assert sorted(csv_rows(folder / DAY)) == rows_of(usual_batch(window=1), usual_batch(window=2))


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

    assert [path.name for path in folder.iterdir()] == [DAY]
    assert sorted(csv_rows(folder / DAY)) == rows_of(usual_batch(window=0), usual_batch(window=1))


def test_a_file_that_was_taken_away_is_begun_again(tmp_path: Path) -> None:
    service = Service(opened(tmp_path))
    service.deliver(usual_batch(window=0))
    (tmp_path / DAY).rename(tmp_path / "archived.csv")

    service.deliver(usual_batch(window=1), usual_batch(window=1))

    assert csv_rows(tmp_path / "archived.csv") == rows_of(usual_batch(window=0))
    assert csv_rows(tmp_path / DAY) == rows_of(usual_batch(window=1))


def test_a_file_that_is_taken_away_just_before_a_write_is_put_on_record_again(tmp_path: Path) -> None:
    output = opened(tmp_path)
    output.write(usual_batch(window=0))
    assert output.intent(usual_batch(window=1)) is None
    (tmp_path / DAY).rename(tmp_path / "archived.csv")

    with pytest.raises(IntentChanged):
        output.write(usual_batch(window=1))

    assert output.intent(usual_batch(window=1)) == {"key": DAY, "length": 0, "covered_ns": 0}
    output.write(usual_batch(window=1))
    assert csv_rows(tmp_path / DAY) == rows_of(usual_batch(window=1))


def test_a_shortened_file_is_an_alarm_and_left_as_it_is(tmp_path: Path) -> None:
    output = opened(tmp_path)
    receipt = output.write(usual_batch(window=0))
    (tmp_path / DAY).write_bytes(b"shorter")

    for again in (output, output, CsvFiles(tmp_path, EACH_DAY)):
        if again is not output:
            again.open({DAY: receipt})
        with pytest.raises(OutputUnavailable, match=r"20251103\.csv is shorter than what was written to it"):
            again.write(usual_batch(window=1))

    assert (tmp_path / DAY).read_bytes() == b"shorter"


def test_another_file_of_the_same_name_is_not_written_into(tmp_path: Path) -> None:
    output = opened(tmp_path)
    output.write(usual_batch(window=0))
    receipt = output.write(usual_batch(window=1))
    ours = tmp_path / DAY
    others = (ours.read_bytes()[: receipt["length"] // 2] * 3)[: receipt["length"] + 7]
    ours.rename(tmp_path / "on another disk.csv")
    ours.write_bytes(others)

    for known in (receipt, {**receipt, "end": None}):
        again = opened(tmp_path, receipts={DAY: known})
        with pytest.raises(OutputUnavailable, match=r"20251103\.csv holds something else where our last rows were"):
            again.write(usual_batch(window=2))
        assert ours.read_bytes() == others

    (tmp_path / "on another disk.csv").replace(ours)
    again.open({DAY: receipt})
    again.write(usual_batch(window=2))
    assert csv_rows(ours) == rows_of(*windows(0, 1, 2))


def test_a_folder_whose_files_are_not_finished_is_not_made_anew(tmp_path: Path) -> None:
    folder = tmp_path / "mounted"
    receipt = opened(folder).write(usual_batch(window=0))
    folder.rename(tmp_path / "away")

    with pytest.raises(OutputUnavailable, match="is its disk missing"):
        CsvFiles(folder, EACH_DAY).open({DAY: receipt})

    assert not folder.exists()


@pytest.mark.parametrize("broken_off", [b"", b"2025-11-03T14:3"])
def test_windows_that_the_journal_forgot_stay_in_their_file(broken_off: bytes, tmp_path: Path) -> None:
    output = opened(tmp_path)
    forgotten_since = output.write(usual_batch(window=0))
    output.write(usual_batch(window=1))
    append(tmp_path, broken_off)
    again = opened(tmp_path, receipts={DAY: {**forgotten_since, "may_have_grown": True}})

    on_record = again.intent(usual_batch(window=2))
    assert on_record is not None
    again.write(usual_batch(window=2))
    after_a_crash = opened(tmp_path, receipts={DAY: on_record})
    assert after_a_crash.intent(usual_batch(window=2)) is None
    after_a_crash.write(usual_batch(window=2))

    assert csv_rows(tmp_path / DAY) == rows_of(*windows(0, 1, 2))


@pytest.mark.skipif(os.name != "posix", reason="permissions of another kind")
def test_a_folder_that_may_not_be_written_to_is_unavailable(tmp_path: Path) -> None:
    output = opened(tmp_path)

    with _read_only(tmp_path):
        with pytest.raises(OutputUnavailable, match=r"CSV_OUTPUT_DIR .* cannot be written to \(Permission denied\)"):
            opened(tmp_path)
        with pytest.raises(OutputUnavailable, match=r"Permission denied"):
            output.write(usual_batch())
    output.write(usual_batch())

    assert csv_rows(tmp_path / DAY) == rows_of(usual_batch())


def test_a_disk_that_is_full_shows_whole_windows_only_and_takes_the_rest_once_it_has_room(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    with mounted(disk, "size=64k"):
        service = Service(opened(disk))
        batches = [usual_batch(window=window, rows=300) for window in range(8)]
        (disk / "ballast").write_bytes(b"x" * (24 << 10))
        # Two have room, a third has not.
        service.deliver(*batches[:2])

        assert "No space left on device" in str(service.deliver_and_fail(batches[2]))
        assert (disk / DAY).read_bytes() == HEADER + b"".join(map(encode, batches[:2]))

        (disk / "ballast").unlink()
        service.deliver(batches[2])

        assert (disk / DAY).read_bytes() == HEADER + b"".join(map(encode, batches[:3]))


def test_a_target_is_shown_relative_to_where_the_service_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    assert CsvFiles(Path("output"), EACH_WINDOW).target(usual_batch()) == "./output/ecg_20251103_143000.csv"
    assert CsvFiles(tmp_path.parent / "x", EACH_DAY).target(usual_batch()) == str(tmp_path.parent / "x" / DAY)


def _synced_files(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that grows by the number of each file or folder that is synced."""
    synced: list[int] = []
    really_sync = os.fsync

    def record(descriptor: int) -> None:
        synced.append(os.fstat(descriptor).st_ino)
        really_sync(descriptor)

    monkeypatch.setattr(os, "fsync", record)
    return synced


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@contextlib.contextmanager
def _read_only(folder: Path) -> Iterator[None]:
    """Take away our right to write to the folder; root, who may do anything, becomes another user."""
    user, mode = os.geteuid(), stat.S_IMODE(folder.stat().st_mode)
    folder.chmod(0o500)
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)
        folder.chmod(mode)


def test_a_folder_in_which_another_process_writes_is_refused_until_that_one_is_done(tmp_path: Path) -> None:
    first, second = (CsvFiles(tmp_path / "csv", name, is_alone=True) for name in ("a_%Y%m%d.csv", "b_%Y%m%d.csv"))
    first.open({})
    first.open({})

    with pytest.raises(OutputDenied, match="is in use: another service, with another STATE_DIR"):
        second.open({})
    first.close()

    second.open({})
    assert list((tmp_path / "csv").iterdir()) == []
