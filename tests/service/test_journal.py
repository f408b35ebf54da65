"""What was released stays released, and what an output has taken stays taken, whatever happens to the process and the disk."""

from __future__ import annotations

import dataclasses
import sqlite3
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anonymizer.batch import Promise, WindowCounts
from anonymizer.errors import JournalDamaged
from anonymizer.windows import NANOSECONDS, Window, WindowRange
from service.journal import Journal, Release
from service.loop import unreleased
from tests.service.batches import PROMISE

S = NANOSECONDS


def open_journal(folder: Path, **options: bool) -> Journal:
    return Journal(folder, data_set="data", **options)


def release(journal: Journal, *windows: tuple[int, int], rows: int = 10, stream_to_s: int | None = None) -> int:
    chunk = journal.next_chunk()
    journal.record_release(
        [Release(Window(start * S, end * S), WindowCounts(read=rows, released=rows)) for start, end in windows],
        chunk=chunk,
        size_bytes=100,
        now_ns=1,
        stream_to_ns=None if stream_to_s is None else stream_to_s * S,
    )
    return chunk


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    journal = open_journal(tmp_path)
    journal.begin_epoch(PROMISE, window_ns=5 * S, now_ns=0)
    journal.add_output("csv")
    return journal


def intervals(journal: Journal, start_s: int, end_s: int) -> list[tuple[int, int]]:
    found = journal.released_within(WindowRange(start_s * S, end_s * S, S))
    return [(one.interval.start_ns // S, one.interval.end_ns // S) for one in found]


@settings(max_examples=25)  # each example is on the disk several times
@given(
    released=st.lists(st.tuples(st.integers(0, 60), st.integers(1, 9)), max_size=12),
    asked=st.tuples(st.integers(0, 60), st.integers(1, 20)),
    length=st.integers(1, 7),
)
def test_exactly_the_windows_that_overlap_nothing_released_are_released(
    tmp_path_factory: pytest.TempPathFactory, released: list[tuple[int, int]], asked: tuple[int, int], length: int
) -> None:
    journal = open_journal(tmp_path_factory.mktemp("journal"))
    journal.begin_epoch(PROMISE, window_ns=S, now_ns=0)
    taken: set[int] = set()
    for start, seconds in released:
        span = set(range(start, start + seconds))
        if not span & taken:
            release(journal, (start, start + seconds))
            taken |= span
    windows = WindowRange(asked[0] * length * S, (asked[0] + asked[1]) * length * S, length * S)

    found = [window for run in unreleased(windows, journal.released_within(windows)) for window in run]

    expected = [window for window in windows if not taken & set(range(window.start_ns // S, window.end_ns // S))]
    assert found == expected
    journal.close()


def test_a_release_is_remembered_by_the_next_process(tmp_path: Path, journal: Journal) -> None:
    release(journal, (0, 5), (5, 10), stream_to_s=10)
    journal.close()

    again = open_journal(tmp_path)

    assert intervals(again, 0, 100) == [(0, 5), (5, 10)]
    assert again.stream_position_ns() == 10 * S
    assert again.totals() == WindowCounts(read=20, released=20)


def test_the_promise_of_a_release_is_remembered_with_it(journal: Journal) -> None:
    release(journal, (0, 5))
    stricter = dataclasses.replace(PROMISE, k=20)
    journal.begin_epoch(stricter, window_ns=5 * S, now_ns=0)
    release(journal, (5, 10))

    promises = [one.promise for one in journal.released_within(WindowRange(0, 10 * S, 5 * S))]

    assert promises == [PROMISE, stricter]
    assert journal.last_promise() == (stricter, 5 * S)


def test_the_same_window_cannot_be_released_twice_even_by_a_mistake(journal: Journal) -> None:
    release(journal, (0, 5))

    with pytest.raises(sqlite3.IntegrityError):
        release(journal, (0, 5))

    assert journal.totals().released == 10


def test_a_one_shot_release_does_not_move_the_stream(journal: Journal) -> None:
    release(journal, (0, 5), stream_to_s=5)
    release(journal, (100, 105))

    assert journal.stream_position_ns() == 5 * S


def test_a_stream_that_passes_empty_windows_goes_on_behind_them(journal: Journal) -> None:
    journal.move_stream(50 * S)

    assert (journal.stream_position_ns(), intervals(journal, 0, 100)) == (50 * S, [])


def test_each_output_has_its_own_position(journal: Journal) -> None:
    journal.add_output("api")
    first, second = release(journal, (0, 5)), release(journal, (5, 10))

    journal.record_taken("csv", chunk=first, receipts=[], taken=10, set_aside=0)

    assert (journal.pending_for("csv"), journal.pending_for("api")) == ([second], [first, second])
    assert journal.forget_chunks_all_have() == []


def test_a_chunk_that_every_output_has_is_forgotten_and_its_number_never_used_again(journal: Journal) -> None:
    first = release(journal, (0, 5))
    journal.record_taken("csv", chunk=first, receipts=[], taken=10, set_aside=0)

    assert journal.forget_chunks_all_have() == [first]
    assert journal.spooled() == {}
    assert journal.next_chunk() > first


def test_rows_of_an_output_are_taken_set_aside_or_pending(journal: Journal) -> None:
    first = release(journal, (0, 5))
    release(journal, (5, 10))
    journal.record_taken("csv", chunk=first, receipts=[], taken=7, set_aside=3)

    (standing,) = journal.standings()

    assert (standing.taken, standing.set_aside, standing.pending) == (7, 3, 10)
    assert standing.taken + standing.set_aside + standing.pending == journal.totals().released


def test_an_output_that_is_added_begins_with_the_next_release(journal: Journal) -> None:
    release(journal, (0, 5))
    journal.add_output("api")
    later = release(journal, (5, 10))

    assert journal.pending_for("api") == [later]


def test_an_output_that_was_dropped_holds_nothing_back(journal: Journal) -> None:
    journal.add_output("api")
    first = release(journal, (0, 5))
    journal.record_taken("csv", chunk=first, receipts=[], taken=10, set_aside=0)

    journal.drop_output("api")

    assert journal.forget_chunks_all_have() == [first]


def test_receipts_are_kept_by_their_key_and_the_last_one_counts(journal: Journal) -> None:
    journal.record_receipt("csv", {"key": "a.csv", "length": 0})
    first = release(journal, (0, 5))
    journal.record_taken(
        "csv", chunk=first, receipts=[{"key": "a.csv", "length": 9}, {"key": "b.csv", "length": 7}], taken=10, set_aside=0
    )

    assert journal.receipts("csv") == {"a.csv": {"key": "a.csv", "length": 9}, "b.csv": {"key": "b.csv", "length": 7}}
    assert journal.receipts("api") == {}


def test_a_journal_of_another_data_set_is_refused(tmp_path: Path, journal: Journal) -> None:
    journal.close()

    with pytest.raises(JournalDamaged, match="belongs to another data set"):
        Journal(tmp_path, data_set="other")


def backed_up(tmp_path: Path, journal: Journal) -> bytes:
    """Close the journal and return its file."""
    journal.close()
    return (tmp_path / "journal.sqlite").read_bytes()


def test_an_old_copy_of_the_journal_is_refused_until_the_gap_is_accepted_and_then_never_released(
    tmp_path: Path, journal: Journal
) -> None:
    release(journal, (0, 5))
    old = backed_up(tmp_path, journal)
    newer = open_journal(tmp_path)
    release(newer, (5, 10), (20, 25))
    newer.close()
    (tmp_path / "journal.sqlite").write_bytes(old)

    with pytest.raises(JournalDamaged, match=r"does not know of 2 stretches .* accept-gap"):
        open_journal(tmp_path)
    accepted = open_journal(tmp_path, accepting_gap=True)

    assert intervals(accepted, 0, 100) == [(0, 5), (5, 10), (20, 25)]
    accepted.close()
    assert intervals(open_journal(tmp_path), 0, 100) == [(0, 5), (5, 10), (20, 25)]


def test_a_journal_that_is_gone_while_its_fence_is_there_is_refused(tmp_path: Path, journal: Journal) -> None:
    release(journal, (0, 5))
    journal.close()
    (tmp_path / "journal.sqlite").unlink()

    with pytest.raises(JournalDamaged, match="accept-gap"):
        open_journal(tmp_path)


def test_a_fence_that_a_crash_left_behind_is_brought_up_to_date(tmp_path: Path, journal: Journal) -> None:
    release(journal, (0, 5))
    fence = (tmp_path / "fence").read_bytes()
    release(journal, (5, 10))
    journal.close()
    (tmp_path / "fence").write_bytes(fence)

    open_journal(tmp_path).close()

    assert (tmp_path / "fence").read_bytes() != fence


@pytest.mark.parametrize("content", [b"", b"{", b'{"intervals": 7}', b"\xff\xfe"])
def test_a_damaged_fence_is_not_taken_for_an_empty_one(tmp_path: Path, journal: Journal, content: bytes) -> None:
    release(journal, (0, 5))
    journal.close()
    (tmp_path / "fence").write_bytes(content)

    with pytest.raises(JournalDamaged, match="fence"):
        open_journal(tmp_path)


@pytest.mark.parametrize("damage", ["truncated", "flipped", "emptied", "replaced", "of another form"])
def test_a_damaged_journal_is_refused_with_the_way_on(tmp_path: Path, journal: Journal, damage: str) -> None:
    release(journal, *((index * 5, index * 5 + 5) for index in range(1000)))
    content = bytearray(backed_up(tmp_path, journal))
    if damage == "truncated":
        content = content[: len(content) // 2]
    elif damage == "flipped":
        for position in range(5000, len(content), 1000):
            content[position] ^= 0xFF
    elif damage == "emptied":
        content.clear()
    elif damage == "replaced":
        content[:] = b"not a database at all, but long enough to be looked at" * 100
    else:
        content[60:64] = (99).to_bytes(4, "big")
    (tmp_path / "journal.sqlite").write_bytes(content)

    with pytest.raises(JournalDamaged, match="accept-gap"):
        open_journal(tmp_path)


def test_only_its_owner_can_read_the_state(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    open_journal(folder).close()

    assert [oct(path.stat().st_mode & 0o777) for path in (folder, folder / "journal.sqlite", folder / "fence")] == [
        "0o700",
        "0o600",
        "0o600",
    ]


def test_the_key_is_not_in_the_journal_only_its_id(tmp_path: Path) -> None:
    journal = open_journal(tmp_path)
    journal.begin_epoch(Promise(5, "record", "hierarchy", key_id="00112233445566ff"), window_ns=S, now_ns=0)
    journal.close()

    assert b"00112233445566ff" in b"".join(path.read_bytes() for path in tmp_path.iterdir())
