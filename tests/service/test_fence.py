"""The fence: short lines, a bounded file, and nothing that it cannot read is taken for nothing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from anonymizer.errors import JournalDamaged, StateUnavailable
from anonymizer.windows import Window
from service.state.fence import Fence, Fenced, _checksum
from service.state.intervals import IntervalSet, merged
from service.state.journal import Journal
from tests.service.journals import S, new_journal, open_journal, release

#: A realistic time: its digits are what lines are made of.
FIRST_S = 1_762_180_200

#: A line for one stretch, at most.
LINE_BYTES = 80


def release_seconds(journal: Journal, *starts_s: int) -> None:
    release(journal, *((start, start + 1) for start in starts_s))


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    journal = new_journal(tmp_path)
    yield journal
    journal.close()


def test_a_release_adds_one_short_line_however_many_gaps_there_are(tmp_path: Path, journal: Journal) -> None:
    release_seconds(journal, *(FIRST_S + 2 * index for index in range(20_000)))
    fence = tmp_path / "fence"

    for index in range(50):
        before = fence.stat()
        release_seconds(journal, FIRST_S + 100_000 + 2 * index)

        assert fence.stat().st_ino == before.st_ino, "not written anew"
        assert 0 < fence.stat().st_size - before.st_size <= LINE_BYTES


@pytest.mark.usefixtures("unsynced")
def test_the_file_is_bounded_by_the_number_of_gaps_and_not_by_the_number_of_releases(tmp_path: Path) -> None:
    fence, known = Fence(tmp_path / "fence"), IntervalSet()
    for gaps, releases in ((1, 5_000), (3_000, 20_000)):
        longest = 0
        for index in range(releases):
            start_s = FIRST_S + 10 * (index % gaps) + index // gaps
            window = Window(start_s * S, (start_s + 1) * S)
            known.add(window)
            fence.add([window], known)
            longest = max(longest, fence.path.stat().st_size)

        assert longest <= 2 * LINE_BYTES * gaps + (1 << 16)
    assert Fence(tmp_path / "fence").read() == Fenced(list(known))


@pytest.mark.usefixtures("unsynced")
def test_rewriting_takes_no_more_than_a_line_or_two_per_release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rewritten = 0

    def counted(path: Path, content: bytes) -> int:
        nonlocal rewritten
        rewritten += len(content)
        return path.write_bytes(content)

    monkeypatch.setattr("service.state.fence.write_durably", counted)
    fence, known = Fence(tmp_path / "fence"), IntervalSet()
    for index in range(20_000):
        window = Window((FIRST_S + 2 * index) * S, (FIRST_S + 2 * index + 1) * S)
        known.add(window)
        fence.add([window], known)

    assert rewritten <= 2 * 20_000 * LINE_BYTES


@settings(max_examples=60, deadline=None)
@given(
    releases=st.lists(st.lists(st.tuples(st.integers(0, 60), st.integers(1, 9)), min_size=1, max_size=3), min_size=1, max_size=8),
    reopened=st.sets(st.integers(0, 7)),
)
@pytest.mark.usefixtures("unsynced")
def test_it_contains_what_was_added_in_any_order_and_by_any_process(
    tmp_path_factory: pytest.TempPathFactory, releases: list[list[tuple[int, int]]], reopened: set[int]
) -> None:
    path = tmp_path_factory.mktemp("fence") / "fence"
    fence, known = Fence(path), IntervalSet()
    for index, drawn in enumerate(releases):
        if index in reopened:
            fence = Fence(path)
            fence.read()
        added = merged(sorted(Window(start, start + length) for start, length in drawn))
        for window in added:
            known.add(window)
        fence.add(added, known)

    assert Fence(path).read() == Fenced(list(known))


def test_a_fence_that_is_not_as_it_was_left_is_written_anew(tmp_path: Path, journal: Journal) -> None:
    release_seconds(journal, 0)
    fence = tmp_path / "fence"
    backup = tmp_path / "backup-by-a-hard-link"
    for change in (lambda: fence.write_bytes(fence.read_bytes() + b"0123"), fence.unlink, lambda: backup.hardlink_to(fence)):
        change()
        release_seconds(journal, journal.outputs.next_chunk() * 10)

        assert Fence(fence).read() == Fenced(journal.released_intervals())
    assert len(Fence(backup).read().intervals) == 3, "as it was when the backup was made"


def test_a_line_of_which_the_disk_took_a_part_is_not_built_upon(
    tmp_path: Path, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    release_seconds(journal, 0)
    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", fails)
        with pytest.raises(StateUnavailable, match="fence cannot be written now"):
            release_seconds(journal, 10)
        patch.setattr("service.state.fence.write_durably", fails)
        with pytest.raises(StateUnavailable, match="fence cannot be written now"):
            journal.raise_fence()
    journal.raise_fence()

    assert Fence(tmp_path / "fence").read() == Fenced([Window(0, S), Window(10 * S, 11 * S)])


def fails(*_values: object) -> None:
    raise OSError(28, "No space left on device")


def test_a_disk_that_does_not_give_the_fence_now_is_no_damage(
    tmp_path: Path, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    release_seconds(journal, 0)
    monkeypatch.setattr("service.state.fence.read_ours", fails)

    with pytest.raises(StateUnavailable, match="fence cannot be read now"):
        open_journal(tmp_path)


# What a crash in the middle of a line leaves, and what it must not be taken for


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The journal's file after two releases and after three, and the fence after three."""
    folder = tmp_path_factory.mktemp("three")
    journal = new_journal(folder)
    release_seconds(journal, 0)
    release_seconds(journal, 10, 20)
    journal.close()
    older = (folder / "journal.sqlite").read_bytes()
    journal = open_journal(folder)
    release_seconds(journal, 30)
    journal.close()
    return {"older": older, "journal": (folder / "journal.sqlite").read_bytes(), "fence": (folder / "fence").read_bytes()}


ALL = [Window(start * S, (start + 1) * S) for start in (0, 10, 20, 30)]


def put(folder: Path, journal: bytes, fence: bytes) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    (folder / "journal.sqlite").write_bytes(journal)
    (folder / "fence").write_bytes(fence)


def last_line(fence: bytes) -> int:
    """Return where the last line begins."""
    return fence.rindex(b"\n", 0, len(fence) - 1) + 1


def test_a_last_line_that_was_cut_anywhere_is_written_again_if_the_journal_knows_its_release(
    tmp_path: Path, three: dict[str, bytes]
) -> None:
    for cut in range(last_line(three["fence"]), len(three["fence"])):
        put(tmp_path / "cut", three["journal"], three["fence"][:cut])

        opened = open_journal(tmp_path / "cut")

        assert opened.released_intervals() == ALL
        assert Fence(tmp_path / "cut" / "fence").read() == Fenced(ALL)
        opened.close()


def test_a_last_line_that_was_cut_is_no_excuse_for_an_older_journal(tmp_path: Path, three: dict[str, bytes]) -> None:
    for cut in range(last_line(three["fence"]) + 1, len(three["fence"])):
        put(tmp_path / "cut", three["older"], three["fence"][:cut])

        with pytest.raises(
            JournalDamaged, match=r"is older than .*last line cannot be read.*accept-gap|1 released intervals are missing"
        ):
            open_journal(tmp_path / "cut")
    put(tmp_path / "cut", three["older"], three["fence"][:-4])
    accepted = open_journal(tmp_path / "cut", accepting_gap=True)
    assert accepted.released_intervals() == ALL[:3], "no output was offered what half a line stands for"
    accepted.close()
    open_journal(tmp_path / "cut").close()


@pytest.mark.usefixtures("unsynced")
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_one_wrong_byte_of_the_fence_never_lets_an_older_journal_pass(
    tmp_path: Path, three: dict[str, bytes], data: st.DataObject
) -> None:
    folder, fence = tmp_path / "flipped", bytearray(three["fence"])
    fence[data.draw(st.integers(0, len(fence) - 1))] ^= data.draw(st.integers(1, 255))

    for journal, accepting in (("older", False), ("older", True), ("journal", False)):
        put(folder, three[journal], bytes(fence))
        try:
            opened = open_journal(folder, accepting_gap=accepting)
        except JournalDamaged:
            continue
        assert accepting or journal == "journal"
        assert opened.released_intervals() == ALL
        assert journal == "older" or Fence(folder / "fence").read() == Fenced(ALL)
        opened.close()


def test_lines_that_are_missing_or_in_another_order_are_noticed(tmp_path: Path, three: dict[str, bytes]) -> None:
    head, *lines = three["fence"].splitlines(keepends=True)
    assert len(lines) == 3
    for kept in ([], lines[:1], lines[1:], lines[::2], [lines[0], lines[2], lines[1]], [*lines, lines[2]]):
        put(tmp_path / "moved", three["journal"], head + b"".join(kept))

        try:
            opened = open_journal(tmp_path / "moved")
        except JournalDamaged:
            continue
        assert kept == [lines[0], lines[2], lines[1]] or kept == lines[::2] or kept == [*lines, lines[2]], (
            "one bad line, the last"
        )
        assert Fence(tmp_path / "moved" / "fence").read() == Fenced(ALL)
        opened.close()


def test_a_fence_of_the_form_before_is_read_and_brought_up_to_date(tmp_path: Path, three: dict[str, bytes]) -> None:
    old = json.dumps({"form": 1, "intervals": [[one.start_ns, one.end_ns] for one in ALL]}).encode()
    put(tmp_path / "old", three["journal"], old)

    opened = open_journal(tmp_path / "old")

    assert opened.released_intervals() == ALL
    assert Fence(tmp_path / "old" / "fence").read() == Fenced(ALL)
    opened.close()
    put(tmp_path / "old", three["older"], old)
    with pytest.raises(JournalDamaged, match="1 released intervals are missing"):
        open_journal(tmp_path / "old")


def test_the_version_before_refuses_a_fence_of_today(tmp_path: Path, three: dict[str, bytes]) -> None:
    """It did `json.loads(...)["intervals"]`, and took a ValueError or KeyError for damage."""
    with pytest.raises((ValueError, KeyError)):
        json.loads(three["fence"])["intervals"]


HUGE = "9" * 30


NO_TIMES = [f"[[1, {HUGE}]]", f"[[-{HUGE}, 1]]", f"[[1, {9 * HUGE * 20}]]", "[[NaN, 1]]", "[[1, Infinity]]", "[[0.5, 2]]"]
NO_TIMES += [
    "[[false, true]]",
    '[["1", "2"]]',
    "7",
    "[7]",
    "[" * 100_000,
    "",
    "{",
    '{"form": 3, "intervals": []}',
    "\udcff\udcfe",
]


@pytest.mark.parametrize("intervals", NO_TIMES)
def test_a_fence_of_another_form_or_of_the_form_before_with_invalid_times_is_damaged(
    intervals: str, tmp_path: Path, three: dict[str, bytes]
) -> None:
    for content in (f'{{"form": 1, "intervals": {intervals}}}', intervals):
        for accepting in (False, True):
            put(tmp_path / "odd", three["journal"], content.encode(errors="surrogateescape"))

            with pytest.raises(JournalDamaged, match=r"fence is damaged .*accept-gap"):
                open_journal(tmp_path / "odd", accepting_gap=accepting)


@pytest.mark.parametrize("body", [f"1:{HUGE}", f"-{HUGE}:1", "1:2:3", "1", "nan:2", "2:1"])
def test_a_line_of_the_fence_with_invalid_times_is_damaged(body: str, tmp_path: Path, three: dict[str, bytes]) -> None:
    line = f"{_checksum('', body.encode())} {body}\n".encode()
    put(tmp_path / "odd", three["journal"], three["fence"].splitlines(keepends=True)[0] + line)

    with pytest.raises(JournalDamaged, match=r"fence is damaged .*accept-gap"):
        open_journal(tmp_path / "odd", accepting_gap=True)
