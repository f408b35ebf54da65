"""Journals, and what is released in them, in whole seconds."""

from __future__ import annotations

from pathlib import Path

from anonymizer.batch import WindowCounts
from anonymizer.windows import NANOSECONDS, Window, WindowRange
from service.state.epochs import Epoch
from service.state.journal import Journal, Release
from tests.service.batches import PROMISE

S = NANOSECONDS


def open_journal(folder: Path, *, accepting_gap: bool = False) -> Journal:
    return Journal(folder, data_set="data", accepting_gap=accepting_gap)


def new_journal(folder: Path, *outputs: str) -> Journal:
    """Return a journal with its first epoch."""
    journal = open_journal(folder)
    journal.epochs.begin(Epoch(PROMISE, 5 * S), now_ns=0)
    if outputs:
        journal.outputs.add_outputs(outputs)
    return journal


def release(
    journal: Journal,
    *windows: tuple[int, int],
    rows: int = 10,
    stream_to_s: int | None = None,
    now_s: float = 0,
    fence: bool = True,
) -> int:
    """Release windows as one chunk; return its number."""
    chunk = journal.outputs.next_chunk()
    journal.record_release(
        [Release(Window(start * S, end * S), WindowCounts(read=rows, released=rows)) for start, end in windows],
        chunk=chunk,
        size_bytes=100,
        now_ns=round(now_s * S),
        stream_to_ns=None if stream_to_s is None else stream_to_s * S,
    )
    if fence:
        journal.raise_fence()
    return chunk


def intervals(journal: Journal, start_s: int, end_s: int) -> list[tuple[int, int]]:
    """Return what is released within a span."""
    found = journal.released_within(WindowRange(start_s * S, end_s * S, S))
    return [(one.interval.start_ns // S, one.interval.end_ns // S) for one in found]
