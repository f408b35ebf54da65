"""What was released stays released, and what an output has taken stays taken, whatever happens to the process and the disk."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from anonymizer.batch import WindowCounts
from anonymizer.errors import JournalDamaged, StateUnavailable
from anonymizer.windows import Window, WindowRange
from service.pipeline.release_loop import unreleased
from service.state import journal_file
from service.state.epochs import Epoch
from service.state.journal import Journal
from service.state.journal_file import JournalFile
from service.state.late_rows import Recount
from service.state.output_positions import OutputPosition, Spooled
from tests.service.batches import PROMISE
from tests.service.journals import S, intervals, new_journal, open_journal, release


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return new_journal(tmp_path, "csv")


def pending(journal: Journal, name: str) -> list[int]:
    """Return what an output is offered if it takes one chunk after the other."""
    found, after = [], 0
    while (chunk := journal.outputs.next_pending(name, after=after)) is not None:
        found.append(chunk)
        after = chunk
    return found


@settings(max_examples=25)  # each example is on the disk several times
@given(
    released=st.lists(st.tuples(st.integers(0, 60), st.integers(1, 9)), max_size=12),
    asked=st.tuples(st.integers(0, 60), st.integers(1, 20)),
    length=st.integers(1, 7),
)
def test_exactly_the_windows_that_overlap_nothing_released_are_released(
    tmp_path_factory: pytest.TempPathFactory, released: list[tuple[int, int]], asked: tuple[int, int], length: int
) -> None:
    journal = new_journal(tmp_path_factory.mktemp("journal"))
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


def test_a_release_is_remembered_by_the_next_process_with_its_promise(tmp_path: Path, journal: Journal) -> None:
    release(journal, (0, 5), stream_to_s=5)
    stricter = dataclasses.replace(PROMISE, k=20)
    journal.epochs.begin(Epoch(stricter, 5 * S), now_ns=0)
    release(journal, (5, 10), stream_to_s=10)
    journal.close()

    again = open_journal(tmp_path)

    assert intervals(again, 0, 100) == [(0, 5), (5, 10)]
    assert again.stream_position_ns() == 10 * S
    assert again.totals() == WindowCounts(read=20, released=20)
    promises = [one.promise for one in again.released_within(WindowRange(0, 10 * S, 5 * S))]
    assert (promises, again.epochs.last()) == ([PROMISE, stricter], Epoch(stricter, 5 * S))


def test_the_same_window_cannot_be_released_twice_even_by_a_mistake(journal: Journal) -> None:
    release(journal, (0, 5))

    with pytest.raises(sqlite3.IntegrityError):
        release(journal, (0, 5))

    assert journal.totals().released == 10


def test_only_a_stream_moves_on_with_what_it_releases_and_over_empty_windows(journal: Journal) -> None:
    release(journal, (0, 5), stream_to_s=5)
    release(journal, (100, 105))
    assert journal.stream_position_ns() == 5 * S

    journal.move_stream(50 * S)
    assert (journal.stream_position_ns(), intervals(journal, 0, 100)) == (50 * S, [(0, 5)])


def test_each_output_has_its_own_position_and_a_chunk_that_all_have_is_forgotten_with_its_number(journal: Journal) -> None:
    journal.outputs.add_outputs(["api"])
    first, second = release(journal, (0, 5)), release(journal, (5, 10))

    journal.outputs.record_taken("csv", chunk=first, receipts=[], rows=10)
    assert (pending(journal, "csv"), pending(journal, "api")) == ([second], [first, second])
    assert journal.outputs.forget_chunks_all_have() == []

    journal.outputs.record_taken("csv", chunk=second, receipts=[], rows=10)
    journal.outputs.record_taken("api", chunk=second, receipts=[], rows=20)
    assert journal.outputs.forget_chunks_all_have() == [first, second]
    assert journal.outputs.spooled() == Spooled(0, 0)
    assert journal.outputs.next_chunk() > second


def test_the_first_output_gets_what_waits_a_later_one_what_comes_next_and_one_that_is_dropped_holds_nothing_back(
    tmp_path: Path,
) -> None:
    journal = new_journal(tmp_path)
    first = release(journal, (0, 5))
    journal.outputs.add_outputs(["csv"])
    journal.outputs.add_outputs(["api"])
    second = release(journal, (5, 10))
    assert (pending(journal, "csv"), pending(journal, "api")) == ([first, second], [second])

    journal.outputs.record_taken("csv", chunk=second, receipts=[], rows=20)
    journal.outputs.drop_output("api")
    assert journal.outputs.spooled() == Spooled(0, 0)


def test_receipts_are_kept_by_their_key_until_one_says_to_forget_it_and_the_last_one_counts(journal: Journal) -> None:
    a, b = {"key": "a.csv", "length": 9}, {"key": "b.csv", "length": 7}
    journal.outputs.record_receipt("csv", {"key": "a.csv", "length": 0})
    journal.outputs.record_taken("csv", chunk=release(journal, (0, 5)), receipts=[a, b], rows=10)
    assert journal.outputs.receipts("csv") == {"a.csv": a, "b.csv": b}
    assert journal.outputs.receipts("api") == {}

    journal.outputs.record_taken("csv", chunk=release(journal, (5, 10)), receipts=[{"key": "a.csv", "forget": True}], rows=10)
    assert journal.outputs.receipts("csv") == {"b.csv": b}


@pytest.mark.parametrize(
    ("steps", "is_refused"),
    [
        ([("at", "at"), ("id", "at"), ("at", "at")], False),
        ([("id", "at"), ("at", "at")], False),
        ([("id", "at"), ("id", "elsewhere"), ("elsewhere", "elsewhere")], False),
        ([("at", "at"), ("id", "at"), ("other", "at")], True),
        ([("id", "at"), ("other", "at")], True),
        ([("id", "at"), ("elsewhere", "elsewhere")], True),
        ([("digest", ""), ("other", "")], True),
        ([("digest", ""), ("digest", "")], False),
    ],
)
def test_a_data_set_is_known_by_itself_or_else_by_its_address_and_called_as_at_first(
    steps: list[tuple[str, str]], is_refused: bool, tmp_path: Path
) -> None:
    for data_set, address in steps[:-1]:
        Journal(tmp_path, data_set=data_set, address=address).close()

    data_set, address = steps[-1]
    if is_refused:
        with pytest.raises(JournalDamaged, match="belongs to another data set"):
            Journal(tmp_path, data_set=data_set, address=address)
        return
    journal = Journal(tmp_path, data_set=data_set, address=address)
    assert journal.facts.data_set == steps[0][0]
    journal.close()


@pytest.mark.parametrize(("known", "is_refused"), [("id", False), ("at", False), ("other", True)])
def test_a_journal_of_an_earlier_version_that_knows_one_of_the_two_goes_on(known: str, is_refused: bool, tmp_path: Path) -> None:
    Journal(tmp_path, data_set=known).close()
    with contextlib.closing(JournalFile(tmp_path / "journal.sqlite")) as file, file.transaction() as db:
        db.execute("UPDATE facts SET value = ? WHERE name = 'data_set'", (known,))
        db.execute("DELETE FROM facts WHERE name IN ('data_set_id', 'data_set_address')")

    if is_refused:
        with pytest.raises(JournalDamaged, match="belongs to another data set"):
            Journal(tmp_path, data_set="id", address="at")
        return
    Journal(tmp_path, data_set="id", address="at").close()
    narrowed = Journal(tmp_path, data_set="at", address="at")
    assert narrowed.facts.data_set == known
    narrowed.close()


NUMBERS = [
    ("receipts", "receipt = replace(receipt, '1', '3')"),
    ("intervals", "end_ns = end_ns + (1 << 55)"),
    ("intervals", "start_ns = start_ns - 1"),
    ("facts", "value = value || 'x' WHERE name = 'data_set'"),
    ("outputs", "position = position + 1"),
]


@pytest.mark.parametrize(("table", "change"), NUMBERS)
def test_a_wrong_digit_anywhere_in_the_journal_is_damage(table: str, change: str, tmp_path: Path) -> None:
    journal = Journal(tmp_path, data_set="one")
    journal.outputs.add_outputs(["csv:out"])
    release(journal, (0, 5))
    journal.outputs.record_taken("csv:out", chunk=1, receipts=[{"key": "a", "length": 120}], rows=1)
    journal.close()
    Journal(tmp_path, data_set="one").close()
    with contextlib.closing(sqlite3.connect(tmp_path / "journal.sqlite", isolation_level=None)) as db:
        assert db.execute(f"UPDATE {table} SET {change}").rowcount

    with pytest.raises(JournalDamaged, match="is damaged"):
        Journal(tmp_path, data_set="one")


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

    with pytest.raises(JournalDamaged, match=r"2 released intervals are missing .* accept-gap"):
        open_journal(tmp_path)
    with pytest.raises(JournalDamaged, match="accept-gap"):
        open_journal(tmp_path)  # being refused changes nothing
    accepted = open_journal(tmp_path, accepting_gap=True)

    assert intervals(accepted, 0, 100) == [(0, 5), (5, 10), (20, 25)]
    accepted.close()
    assert intervals(open_journal(tmp_path), 0, 100) == [(0, 5), (5, 10), (20, 25)]


def test_a_fence_that_a_crash_left_behind_is_brought_up_to_date(tmp_path: Path, journal: Journal) -> None:
    release(journal, (0, 5))
    fence = (tmp_path / "fence").read_bytes()
    release(journal, (5, 10), fence=False)
    journal.close()

    open_journal(tmp_path).close()

    assert (tmp_path / "fence").read_bytes() != fence
    open_journal(tmp_path).close()


def test_a_journal_that_knows_more_than_one_release_beyond_its_fence_is_refused_until_both_are_believed(
    tmp_path: Path, journal: Journal
) -> None:
    release(journal, (0, 5))
    fence = (tmp_path / "fence").read_bytes()
    release(journal, (5, 10))
    release(journal, (20, 25))
    journal.close()
    (tmp_path / "fence").write_bytes(fence)

    with pytest.raises(JournalDamaged, match=r"lists 1 released intervals that .*fence does not.*accept-gap"):
        open_journal(tmp_path)
    accepted = open_journal(tmp_path, accepting_gap=True)

    assert intervals(accepted, 0, 100) == [(0, 5), (5, 10), (20, 25)]
    accepted.close()
    open_journal(tmp_path).close()


@pytest.mark.parametrize("damage", ["truncated", "flipped", "emptied", "replaced", "of a newer form", "gone"])
def test_a_damaged_journal_is_refused_with_the_way_on(tmp_path: Path, journal: Journal, damage: str) -> None:
    release(journal, *((index * 5, index * 5 + 5) for index in range(1000)))
    content, path = bytearray(backed_up(tmp_path, journal)), tmp_path / "journal.sqlite"
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
    path.write_bytes(content)
    if damage == "gone":
        path.unlink()

    way_on = "newer version of the service.*Run that version" if damage == "of a newer form" else "accept-gap"
    with pytest.raises(JournalDamaged, match=way_on):
        open_journal(tmp_path)


def test_only_its_owner_can_read_the_state(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    release(open_journal(folder), (0, 5))

    modes = {path.name: path.stat().st_mode & 0o777 for path in (folder, folder / "journal.sqlite", folder / "fence")}
    assert modes == {"state": 0o700, "journal.sqlite": 0o600, "fence": 0o600}


EVERY_OTHER = [(index * 5, index * 5 + 5) for index in range(0, 40, 2)]


@pytest.fixture(scope="module")
def with_standings(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, bytes, Sequence[OutputPosition]]:
    """Journal and fence of 21 windows, the first of which one output has; and the outputs' positions."""
    folder = tmp_path_factory.mktemp("whole")
    journal = new_journal(folder, "csv", "api")
    first = release(journal, *EVERY_OTHER, stream_to_s=200)
    release(journal, (500, 505))
    journal.outputs.record_taken("csv", chunk=first, receipts=[], rows=200)
    positions = journal.outputs.positions()
    return backed_up(folder, journal), (folder / "fence").read_bytes(), positions


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.integers(0, 1 << 20), change=st.integers(1, 255))
def test_one_wrong_byte_never_makes_a_released_window_releasable(
    tmp_path: Path, with_standings: tuple[bytes, bytes, Sequence[OutputPosition]], place: int, change: int
) -> None:
    whole, fence, positions = with_standings
    content = bytearray(whole)
    content[place % len(content)] ^= change
    # A folder for each: SQLite removes files of a damaged journal when its connection is collected.
    folder = Path(tempfile.mkdtemp(dir=tmp_path))
    (folder / "journal.sqlite").write_bytes(content)
    (folder / "fence").write_bytes(fence)

    try:
        again = open_journal(folder)
        found = intervals(again, 0, 1000), again.stream_position_ns(), again.outputs.positions()
    except (JournalDamaged, StateUnavailable):
        return

    assert found == ([*EVERY_OTHER, (500, 505)], 200 * S, positions)
    again.close()


def test_a_journal_that_another_program_writes_to_can_be_retried(
    tmp_path: Path, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal.close()
    monkeypatch.setattr("service.state.journal_file._BUSY_S", 0.05)
    journal = open_journal(tmp_path)
    other = sqlite3.connect(tmp_path / "journal.sqlite", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")

    with pytest.raises(StateUnavailable, match="locked"):
        release(journal, (0, 5))
    other.execute("ROLLBACK")
    release(journal, (0, 5))

    assert intervals(journal, 0, 10) == [(0, 5)]


def test_refused_rows_that_are_taken_after_all_are_taken(journal: Journal) -> None:
    chunk = release(journal, (0, 5), (5, 10))
    journal.outputs.record_taken("csv", chunk=chunk, receipts=[], rows=20, set_aside={"one": 3, "two": 10})

    journal.outputs.record_taken_after_all("csv", "two", receipt={"key": "a", "length": 1})
    journal.outputs.record_taken_after_all("csv", "one", receipt=None, still_refused=1)

    (standing,) = journal.outputs.positions()
    assert (standing.taken, standing.set_aside, standing.pending) == (19, 1, 0)
    assert journal.outputs.set_aside_for("csv") == {"one": 1}
    assert journal.outputs.receipts("csv") == {"a": {"key": "a", "length": 1}}


def test_a_chunk_that_is_given_up_is_set_aside_for_those_that_lack_it_and_for_no_other(journal: Journal) -> None:
    journal.outputs.add_outputs(["api"])
    chunk = release(journal, (0, 5))
    journal.outputs.record_taken("csv", chunk=chunk, receipts=[], rows=10)

    assert journal.outputs.give_up_chunk(chunk) == 10

    assert {one.name: (one.taken, one.set_aside, one.pending) for one in journal.outputs.positions()} == {
        "csv": (10, 0, 0),
        "api": (0, 10, 0),
    }


@settings(max_examples=40, deadline=None)
@given(
    starts=st.sets(st.integers(0, 40), min_size=1, max_size=25),
    epochs=st.sets(st.integers(0, 40), max_size=2),
    pending=st.integers(0, 40),
    before=st.integers(0, 45),
)
def test_merging_old_entries_changes_no_interval_no_sum_and_nothing_that_waits(
    tmp_path_factory: pytest.TempPathFactory, starts: set[int], epochs: set[int], pending: int, before: int
) -> None:
    journal = new_journal(tmp_path_factory.mktemp("merged"), "csv")
    for start in sorted(starts):
        if start in epochs:
            journal.epochs.begin(Epoch(PROMISE, S, selection=str(start)), now_ns=0)
        chunk = release(journal, (start, start + 1), rows=start)
        if start < pending:
            journal.outputs.record_taken("csv", chunk=chunk, receipts=[], rows=start)
            journal.outputs.forget_chunks_all_have()
    totals, covered = journal.totals(), journal.released_intervals()
    whole = Window(0, 100 * S)
    entries = len(journal.entries_within(whole))

    fewer = journal.merge_before(before * S, recounts=0)

    merged = journal.entries_within(whole)
    assert journal.totals() == totals
    assert sum(one.windows for one in merged) == len(starts)
    assert len(merged) == entries - fewer
    journal.close()
    again = open_journal(Path(journal._file.path).parent)
    assert again.released_intervals() == covered
    # What may be merged is merged: runs of neighbours of one epoch that are old and taken by all.
    old = [start for start in sorted(starts) if start < pending and start + 1 <= before]
    runs = sum(1 for start in old if start - 1 not in old or start in epochs)
    assert len(merged) == runs + len(starts) - len(old)
    again.close()


def test_entries_are_not_merged_across_the_coming_of_an_output_nor_with_what_was_given_up(journal: Journal) -> None:
    for start in range(6):
        if start == 2:
            journal.outputs.add_outputs(["api"])
        chunk = release(journal, (start, start + 1))
        if start == 4:
            journal.outputs.give_up_chunk(chunk)
        for name in ("csv", "api") if start >= 2 else ("csv",):
            journal.outputs.record_taken(name, chunk=chunk, receipts=[], rows=10)
    journal.outputs.forget_chunks_all_have()

    journal.merge_before(100 * S, recounts=0)

    found = [(one.interval.start_ns // S, one.interval.end_ns // S) for one in journal.entries_within(Window(0, 100 * S))]
    assert found == [(0, 2), (2, 4), (4, 5), (5, 6)]


def due(journal: Journal, now_s: int) -> list[tuple[int, int]]:
    found = journal.late_rows.due([30 * S, 300 * S], now_ns=now_s * S, most=100)
    return [(one.window.start_ns // S, one.recounts) for one in found]


def test_a_window_is_due_for_a_recount_after_each_delay_and_then_no_more(journal: Journal) -> None:
    release(journal, (0, 5), now_s=10)

    assert due(journal, 39) == []
    assert due(journal, 40) == [(0, 0)]
    journal.late_rows.record_recounts([Recount(Window(0, 5 * S), 10, 2, 0)], after_ns=[30 * S, 300 * S], now_ns=40 * S)
    assert due(journal, 309) == []
    assert due(journal, 310) == [(0, 1)]
    journal.late_rows.record_recounts([Recount(Window(0, 5 * S), 10, 3, 1)], after_ns=[30 * S, 300 * S], now_ns=310 * S)
    assert (due(journal, 10**6), journal.late_rows.total()) == ([], 3)

    release(journal, (5, 10), now_s=10)
    journal.late_rows.record_recounts([Recount(Window(5 * S, 10 * S), 10, 0, 0)], after_ns=[30 * S, 300 * S], now_ns=10_000 * S)
    assert due(journal, 10**6) == [], "one stands for all that were missed"


def test_windows_of_which_other_sources_were_read_are_not_counted_again(journal: Journal) -> None:
    release(journal, (0, 5), now_s=10)
    journal.epochs.begin(Epoch(PROMISE, 5 * S, selection="others"), now_ns=0)
    release(journal, (5, 10), now_s=10)

    assert due(journal, 10**6) == [(5, 0)]


def test_windows_that_were_made_one_entry_are_never_counted_again_however_many_recounts_are_asked_for_later(
    journal: Journal,
) -> None:
    for start in (0, 5):
        chunk = release(journal, (start, start + 5), now_s=10)
        journal.outputs.record_taken("csv", chunk=chunk, receipts=[], rows=10)
    journal.outputs.forget_chunks_all_have()
    release(journal, (15, 20), now_s=10)

    journal.merge_before(100 * S, recounts=0)

    assert [one.windows for one in journal.entries_within(Window(0, 100 * S))] == [2, 1]
    assert due(journal, 10**6) == [(15, 0)]


def test_a_folder_that_is_gone_is_a_disk_that_cannot_be_used_now(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    folder.mkdir()
    file = JournalFile(folder / "journal.sqlite")
    shutil.rmtree(folder)

    with pytest.raises(StateUnavailable, match="cannot be used now"):
        file.rows("ATTACH ? AS one_more_file", str(folder / "more.sqlite"))
    file.close()


class FailsOnce:
    """A connection of which one statement fails, in the middle of whatever is done."""

    def __init__(self, db: sqlite3.Connection, words: str, code: int) -> None:
        self._db, self._words, self._code = db, words, code

    def execute(self, statement: str, *values: Any) -> sqlite3.Cursor:
        if self._words and self._words in statement:
            self._words = ""
            error = sqlite3.DatabaseError("SQLite speaks of damage")
            error.sqlite_errorcode = self._code
            raise error
        return self._db.execute(statement, *values)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._db, name)


@pytest.mark.parametrize("code", [sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR, sqlite3.SQLITE_PROTOCOL])
@pytest.mark.parametrize("words", ["SELECT", "INSERT OR REPLACE INTO positions", "COMMIT", "ROLLBACK"])
def test_a_failed_call_is_not_taken_for_damage(words: str, code: int, tmp_path: Path) -> None:
    """As when a read fails inside SQLite, or a transaction could not be taken back: it is whole when it is opened anew."""
    journal = new_journal(tmp_path)
    file: Any = journal._file
    file._db = FailsOnce(file._db, words, code)

    def remember() -> None:
        with file.transaction() as db:
            db.execute("INSERT OR REPLACE INTO positions VALUES (?, ?)", ("streaming", 7))
            if words == "ROLLBACK":
                raise StateUnavailable("no room")

    act: Any = journal.stream_position_ns if words == "SELECT" else remember
    with pytest.raises(StateUnavailable):
        act()
    # A transaction that could not be taken back is only met by the next one.
    with contextlib.suppress(StateUnavailable):
        journal.move_stream(8)

    journal.move_stream(9)
    assert journal.stream_position_ns() == 9
    journal.close()
    again = open_journal(tmp_path)
    assert again.stream_position_ns() == 9
    again.close()


def test_a_check_that_could_not_read_a_page_finds_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_journal(tmp_path).close()
    connect = journal_file._connect

    class Unread(FailsOnce):
        def execute(self, statement: str, *values: Any) -> Any:
            if "integrity_check" in statement:
                return self._db.execute("SELECT 'Tree 2 page 2: unable to get the page. error code=266'")
            return self._db.execute(statement, *values)

    monkeypatch.setattr(journal_file, "_connect", lambda path: Unread(connect(path), "", 0))

    with pytest.raises(StateUnavailable, match="cannot be read now"):
        open_journal(tmp_path)


@pytest.mark.parametrize("column", ["[" * 100_000, "7", "{", '{"length": NaN}', '{"length": %s}' % ("9" * 30), "[]"])
def test_an_invalid_receipt_is_damage_and_no_traceback(column: str, journal: Journal) -> None:
    journal.outputs.record_receipt("csv", {"key": "a", "length": 1})
    assert_damaged("receipts SET receipt", column, journal, lambda: journal.outputs.receipts("csv"))


PROMISES = ["[" * 100_000, "7", '{"k": "5", "k_unit": "record", "method": "m"}', '{"k": 5}', '{"unknown": 1}']


@pytest.mark.parametrize("column", PROMISES)
def test_an_invalid_promise_is_damage_and_no_traceback(column: str, journal: Journal) -> None:
    assert_damaged("epochs SET promise", column, journal, journal.epochs.last)


def assert_damaged(place: str, column: str, journal: Journal, look: Callable[[], object]) -> None:
    with journal._file.transaction() as db:  # sealed as if it were right
        db.execute(f"UPDATE {place} = ?", (column,))
    with pytest.raises(JournalDamaged, match=r"is damaged .*Put a good copy"):
        look()


@pytest.mark.parametrize("counter", [0, 1, 3])
def test_a_counter_of_chunks_that_lost_a_bit_gives_no_number_an_output_has_passed(counter: int, tmp_path: Path) -> None:
    journal = Journal(tmp_path, data_set="data")
    journal.outputs.add_outputs(["a", "b"])
    for chunk in range(1, 5):
        with journal._file.transaction() as db:
            journal.outputs.record_chunk(db, chunk, size_bytes=1, rows=1)
    journal.outputs.offer_up_to(4)
    for taken_by in (["a"], ["b"]):
        for name in taken_by:
            journal.outputs.record_taken(name, chunk=4, receipts=[], rows=4)
        with journal._file.transaction() as db:
            db.execute("UPDATE sqlite_sequence SET seq = ?", (counter,))

        assert journal.outputs.next_chunk() == 5, "one chunk is still there, or only an output's position"
        journal.outputs.forget_chunks_all_have()
    assert journal.outputs.next_chunk() == 5
    journal.close()


def test_a_journal_of_form_3_goes_on_with_all_that_it_knows(tmp_path: Path) -> None:
    journal = new_journal(tmp_path, "csv")
    release(journal, (0, 5), (5, 10))
    journal.close()
    db = sqlite3.connect(tmp_path / "journal.sqlite", isolation_level=None)
    # What form 3 lacked goes, and its seal is that of the rest.
    for column in ("excluded", "erased"):
        db.execute(f"ALTER TABLE intervals DROP COLUMN {column}")
    for table in ("exclusions", "erasures", "erased_rows"):
        db.execute(f"DROP TABLE {table}")
    tables = [name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite%'")]
    rows = [(table, *row) for table in tables for row in db.execute(f"SELECT * FROM {table}") if row[0] != "seal"]
    digests = (int.from_bytes(hashlib.blake2b(repr(row).encode(), digest_size=16).digest(), "big") for row in rows)
    db.execute("UPDATE facts SET value = ? WHERE name = 'seal'", (f"{sum(digests) % 2**128:032x}",))
    db.execute("PRAGMA user_version = 3")
    db.close()

    journal = open_journal(tmp_path)

    assert journal.released_intervals() == [Window(0, 10 * S)]
    (entry, _) = journal.entries_within(Window(0, 10 * S))
    assert (entry.counts, entry.erased) == (WindowCounts(read=10, released=10), 0)
    journal.close()
    open_journal(tmp_path).close()
