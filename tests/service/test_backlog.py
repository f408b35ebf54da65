"""A call costs what it concerns, however many chunks wait and however much was released: counted in steps of SQLite, not in time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from anonymizer.batch import WindowCounts
from anonymizer.windows import NANOSECONDS, Window, WindowRange
from service.journal import Epoch, Journal, Recount, Release
from tests.service.batches import PROMISE

S = NANOSECONDS

FEW, MANY = 20, 2_000

#: A tree of many rows is a level higher, and a number may take another step to compare; nothing is looked at row by row.
SPARE_STEPS = 40


def waiting(folder: Path, chunks: int) -> Journal:
    """Return a journal with so many chunks of one window each, with gaps between them, that wait for `down`; `up` has all of them."""
    folder.mkdir()
    journal = Journal(folder, data_set="data")
    journal.begin_epoch(Epoch(PROMISE, S), now_ns=0)
    journal.outputs.add_outputs(["down", "up"])
    for index in range(chunks):
        release(journal, index)
    journal.raise_fence()
    journal.outputs.record_taken("up", chunk=chunks, receipts=[], rows=10 * chunks)
    return journal


def release(journal: Journal, index: int) -> None:
    window = Window(2 * index * S, (2 * index + 1) * S)
    journal.record_release(
        [Release(window, WindowCounts(read=10, released=10))],
        chunk=journal.outputs.next_chunk(),
        size_bytes=100,
        now_ns=index * S,
        stream_to_ns=2 * index * S,
    )


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
    "forget what all have": lambda journal: journal.outputs.forget_chunks_all_have(),
    "ask for the standings": lambda journal: journal.outputs.standings(),
    "ask how much waits": lambda journal: journal.outputs.spooled(),
    "ask what is released in a window": lambda journal: journal.released_within(WindowRange(0, 3 * S, S)),
    "ask what is to be counted again": lambda journal: journal.due_for_recount([10**9 * S], now_ns=0, most=100),
    "record what was counted again": lambda journal: journal.record_recounts(
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
