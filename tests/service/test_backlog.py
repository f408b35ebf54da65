"""A call costs what it concerns, however many chunks wait and however much was released: counted in steps of SQLite, not in time."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anonymizer.windows import Window, WindowRange
from service.state.journal import Journal
from service.state.late_rows import Recount
from tests.service.journals import S, new_journal, open_journal
from tests.service.journals import release as release_windows

FEW, MANY = 20, 2_000

#: A tree of many rows is a level higher, and a number may take another step to compare; nothing is looked at row by row.
SPARE_STEPS = 40


def waiting(folder: Path, chunks: int) -> Journal:
    """Return a journal with so many chunks of one window each, with gaps between them, that wait for `down`.

    `up` has all of them, has refused a row of each, and has something to remember of each.
    """
    folder.mkdir()
    journal = new_journal(folder, "down", "up")
    for index in range(chunks):
        release(journal, index)
    journal.raise_fence()
    journal.outputs.record_taken(
        "up",
        chunk=chunks,
        receipts=[{"key": str(index)} for index in range(chunks)],
        rows=10 * chunks,
        set_aside={f"batch-{index}": 1 for index in range(chunks)},
    )
    return journal


def release(journal: Journal, index: int) -> None:
    release_windows(journal, (2 * index, 2 * index + 1), now_s=index, stream_to_s=2 * index, fence=False)


def steps(journal: Journal, call: Callable[[Journal], object]) -> int:
    """Return how many steps SQLite's machine took for a call."""
    taken = 0

    def step() -> int:
        nonlocal taken
        taken += 1
        return 0

    journal._file._db.set_progress_handler(step, 1)
    call(journal)
    journal._file._db.set_progress_handler(None, 1)
    return taken


def chunks_of(journal: Journal) -> int:
    return journal.outputs.next_chunk() - 1


CALLS: dict[str, Callable[[Journal], object]] = {
    "record a release": lambda journal: release(journal, 10_000),
    "raise the fence": lambda journal: journal.raise_fence(),
    "record what one output took": lambda journal: journal.outputs.record_taken("down", chunk=1, receipts=[], rows=10),
    "record that rows were refused": lambda journal: journal.outputs.record_taken(
        "down", chunk=1, receipts=[], rows=10, set_aside={"b": 2}
    ),
    "record a receipt": lambda journal: journal.outputs.record_receipt("down", {"key": "a"}),
    "ask for the next chunk": lambda journal: journal.outputs.next_pending("down"),
    "ask for the next chunk behind another": lambda journal: journal.outputs.next_pending("down", after=chunks_of(journal) - 1),
    "ask for the next chunk where none is": lambda journal: journal.outputs.next_pending("up"),
    "record that rows were taken after all": lambda journal: journal.outputs.record_taken_after_all(
        "up", "batch-3", receipt=None
    ),
    "give up a chunk": lambda journal: journal.outputs.give_up_chunk(5),
    "forget what all have": lambda journal: journal.outputs.forget_chunks_all_have(),
    "ask for the positions": lambda journal: journal.outputs.positions(),
    "ask how much waits": lambda journal: journal.outputs.spooled(),
    "ask what is released in a window": lambda journal: journal.released_within(WindowRange(0, 3 * S, S)),
    "ask what is to be counted again": lambda journal: journal.late_rows.due([10**9 * S], now_ns=0, most=100),
    "record what was counted again": lambda journal: journal.late_rows.record_recounts(
        [Recount(Window(0, S), 10, 1, 0)], after_ns=[S], now_ns=S
    ),
    "move the stream": lambda journal: journal.move_stream(7 * S),
    "merge what is old": lambda journal: journal.merge_before(5 * S, recounts=0),
}


@pytest.fixture(scope="module")
def few_and_many(tmp_path_factory: pytest.TempPathFactory) -> tuple[Journal, Journal]:
    folder = tmp_path_factory.mktemp("waiting")
    return waiting(folder / "few", FEW), waiting(folder / "many", MANY)


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())
def test_a_call_takes_as_many_steps_with_many_chunks_waiting_as_with_few(
    few_and_many: tuple[Journal, Journal], call: Callable[[Journal], object]
) -> None:
    few, many = (steps(journal, call) for journal in few_and_many)

    assert many <= few + SPARE_STEPS, f"{few} steps with {FEW} chunks waiting, {many} with {MANY}"


Draw = Callable[[st.SearchStrategy[int]], int]


def a_release(journal: Journal, _name: str, index: int, _draw: Draw) -> None:
    release(journal, index)
    journal.raise_fence()


def a_chunk_is_taken(journal: Journal, name: str, _index: int, draw: Draw) -> None:
    if (chunk := journal.outputs.next_pending(name)) is not None:
        refused = draw(st.integers(0, 10))
        set_aside = {f"batch-{chunk}": refused} if refused else {}
        journal.outputs.record_taken(name, chunk=chunk, receipts=[{"key": str(chunk)}], rows=10, set_aside=set_aside)


def what_was_refused_is_offered_again(journal: Journal, name: str, _index: int, draw: Draw) -> None:
    for batch_id, rows in journal.outputs.set_aside_for(name).items():
        journal.outputs.record_taken_after_all(name, batch_id, receipt=None, still_refused=draw(st.integers(0, rows)))


def a_chunk_is_given_up(journal: Journal, _name: str, _index: int, draw: Draw) -> None:
    if waiting := journal.outputs.spooled_chunks():
        journal.outputs.give_up_chunk(draw(st.sampled_from(waiting)))


EVENTS: tuple[Callable[[Journal, str, int, Draw], object], ...] = (
    a_release,
    a_chunk_is_taken,
    a_chunk_is_taken,
    what_was_refused_is_offered_again,
    a_chunk_is_given_up,
    lambda journal, *_: journal.outputs.forget_chunks_all_have(),
    lambda journal, name, *_: journal.outputs.add_outputs([name]),
    lambda journal, name, *_: journal.outputs.drop_output(name),
)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_what_is_counted_as_it_comes_and_goes_is_what_there_is_and_the_seal_holds(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("counted")
    journal = new_journal(folder, "a", "b")
    outputs = journal.outputs
    for index in range(data.draw(st.integers(1, 20))):
        data.draw(st.sampled_from(EVENTS))(journal, data.draw(st.sampled_from("abc")), index, data.draw)

    assert_counted(folder)
    expected = outputs.positions(), outputs.spooled(), outputs.spooled_chunks()
    journal.close()
    again = open_journal(folder)
    assert (again.outputs.positions(), again.outputs.spooled(), again.outputs.spooled_chunks()) == expected
    again.close()


def assert_counted(folder: Path) -> None:
    """Fail unless what is kept beside each output, and of the spool, is what a sum over everything gives."""
    with closing(sqlite3.connect(folder / "journal.sqlite")) as db:
        kept = db.execute("SELECT name, pending, set_aside FROM outputs ORDER BY name").fetchall()
        summed = db.execute(
            "SELECT name, (SELECT coalesce(sum(rows), 0) FROM chunks WHERE chunk > position), "
            "(SELECT coalesce(sum(rows), 0) FROM set_aside s WHERE s.output = name) FROM outputs ORDER BY name"
        ).fetchall()
        assert kept == summed
        assert (
            db.execute("SELECT * FROM spooled").fetchall()
            == db.execute("SELECT count(*), coalesce(sum(bytes), 0) FROM chunks").fetchall()
        )
        assert all(released == taken + set_aside + pending for released, taken, set_aside, pending in _fates(db))


def _fates(db: sqlite3.Connection) -> list[tuple[int, int, int, int]]:
    """Return for each output the rows released since it came, and what became of them."""
    return db.execute(
        "SELECT (SELECT coalesce(sum(released), 0) FROM intervals WHERE chunk > since), taken, set_aside, pending FROM outputs"
    ).fetchall()
