"""Compares the journal with the current content of the raw bucket and the outputs.

For each released window: read = released + withheld + invalid + duplicate; late = rows in the source now - rows read then; and for each
output: released = taken + set aside + pending. An output holds what it has taken, but for what RETENTION_DAYS removed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from anonymizer.batch import WindowCounts
from anonymizer.windows import MOST_WINDOWS, Window, WindowRange
from operations.output_readers import OutputReader
from service.state.journal import Entry, Journal
from service.state.output_positions import LOST_CHUNK, OutputPosition
from service.state.removals import Removals, set_aside_place
from service.time_texts import span_text

#: The windows of a merged entry, perhaps a day of them, are counted again in at most this many ranges.
_MOST_RANGES = 64

Count = Callable[[WindowRange], npt.NDArray[np.int64]]


@dataclass(slots=True)
class OutputAudit:
    """Rows of one output by outcome, with those of them that RETENTION_DAYS removed; and the number it holds, None if unreadable."""

    name: str
    taken: int = 0
    set_aside: int = 0
    pending: int = 0
    before_its_time: int = 0
    removed: int = 0
    removed_set_aside: int = 0
    held: int | None = None


@dataclass(slots=True)
class Audit:
    """The findings of an audit.

    Args:
        windows: Released windows in the span.
        counts: Their sums according to the journal.
        late: Rows in the source beyond those that were read.
        expired: Windows whose rows the source may have removed because of their age.
        accepted: Gaps that were accepted as released, of which nothing is known.
        outputs: The outputs.
        disagreements: One sentence per window and disagreement.
    """

    windows: int = 0
    counts: WindowCounts = field(default_factory=WindowCounts)
    late: int = 0
    expired: int = 0
    accepted: int = 0
    outputs: list[OutputAudit] = field(default_factory=list)
    disagreements: list[str] = field(default_factory=list)


def audit(
    journal: Journal, span: Window, *, count_raw: Count, kept_since_ns: int | None, readers: Sequence[OutputReader]
) -> Audit:
    """Compare everything that was released in a span with the current content of source and outputs.

    Args:
        journal: The journal.
        span: The span to audit.
        count_raw: Counts rows in the source.
        kept_since_ns: The source may have removed rows older than this.
        readers: The readers of the outputs that can be read back.

    Raises:
        SourceError: The source or an output cannot be read.
    """
    found = Audit()
    entries = journal.entries_within(span)
    known = [entry for entry in entries if entry.window_ns is not None]
    found.accepted = len(entries) - len(known)
    for entry in known:
        found.windows += entry.windows
        found.counts = found.counts + entry.counts
        if not entry.counts.are_conserved():
            found.disagreements.append(f"{span_text(entry.interval)}: the journal's counts do not add up: {entry.counts}")
    _compare_raw(found, known, count_raw, kept_since_ns)
    by_name = {reader.name: reader for reader in readers}
    for position in journal.outputs.positions():
        refused = journal.outputs.set_aside_for(position.name)
        found.outputs.append(_compare_output(found, known, position, refused, by_name.get(position.name), journal.removals))
    return found


def _compare_raw(found: Audit, entries: Sequence[Entry], count_raw: Count, kept_since_ns: int | None) -> None:
    for entry, rows in zip(entries, _sums(entries, count_raw), strict=True):
        if kept_since_ns is not None and entry.interval.start_ns < kept_since_ns:
            found.expired += entry.windows
            continue
        rows = rows if rows == entry.rows_read else _sum_in_short_ranges(entry, count_raw)
        found.late += max(0, rows - entry.rows_read)
        # A duplicate was read, but the source may hold it only once.
        if rows < entry.counts.read - entry.counts.duplicate:
            found.disagreements.append(
                f"{span_text(entry.interval)}: {entry.counts.read} rows were read, the source holds {rows} now: some were removed"
            )


def _compare_output(
    found: Audit,
    entries: Sequence[Entry],
    position: OutputPosition,
    refused: dict[str, int],
    reader: OutputReader | None,
    removals: Removals,
) -> OutputAudit:
    result = OutputAudit(position.name)
    removed_in, removed_set_aside_in = removals.sums(position.name), removals.sums(set_aside_place(position.name))
    held = _sums(entries, reader.rows_in) if reader else []
    stated = reader.summarized(Window(entries[0].interval.start_ns, entries[-1].interval.end_ns)) if reader and entries else None
    for index, entry in enumerate(entries):
        released = entry.counts.released
        if entry.chunk <= position.since:
            result.before_its_time += released
            continue
        if entry.chunk > position.position:
            result.pending += released
            continue
        set_aside = _refused_of(entry, refused)
        expected = released - set_aside
        result.set_aside += set_aside
        result.taken += expected
        removed, begun = removed_in(entry.interval)
        result.removed += removed
        result.removed_set_aside += removed_set_aside_in(entry.interval)[0]
        expected -= removed
        where = f"{span_text(entry.interval)}: {position.name}"
        if reader and reader.may_count_twice and held[index] != expected:
            held[index] = _sum_in_short_ranges(entry, reader.rows_in)
        # Of files whose removal was interrupted some may be gone; the next start finishes it.
        if held and not expected - begun <= held[index] <= expected:
            found.disagreements.append(f"{where} should hold {expected} rows and holds {held[index]}")
        if stated is not None and entry.windows == 1 and set_aside < released and entry.interval.start_ns not in stated:
            found.disagreements.append(f"{where} holds no summary of this window")
    if reader:
        result.held = sum(held)
    return result


def _refused_of(entry: Entry, refused: dict[str, int]) -> int:
    """Return how many rows of an entry's windows an output refused, or will never get because their spool file was lost."""
    if f"{LOST_CHUNK}{entry.chunk}" in refused:
        return entry.counts.released
    return sum(rows for batch_id, rows in refused.items() if _is_in(batch_id, entry.interval))


def _is_in(batch_id: str, interval: Window) -> bool:
    start = batch_id.split("-")[-2:-1]
    return bool(start) and start[0].isdigit() and interval.start_ns <= int(start[0]) < interval.end_ns


def _sums(entries: Sequence[Entry], count: Count) -> list[int]:
    """Return how many rows `count` finds in each entry; neighbours are counted together."""
    sums: list[int] = []
    for run in runs_of_neighbours([entry for entry in entries if entry.window_ns]):
        window_ns = run[0].window_ns
        assert window_ns is not None, "accepted gaps are left out"
        windows = WindowRange(run[0].interval.start_ns, run[-1].interval.end_ns, window_ns)
        parts = [count(windows.part(at, min(at + MOST_WINDOWS, len(windows)))) for at in range(0, len(windows), MOST_WINDOWS)]
        rows_before = np.concatenate(([0], np.cumsum(np.concatenate(parts))))
        for entry in run:
            first, stop = ((at - windows.start_ns) // window_ns for at in (entry.interval.start_ns, entry.interval.end_ns))
            sums.append(int(rows_before[stop] - rows_before[first]))
    return sums


def _sum_in_short_ranges(entry: Entry, count: Count) -> int:
    """Return how many rows an entry has, counted in short ranges, since InfluxDB may count rows twice in long ones (decision 016)."""
    assert entry.window_ns is not None, "accepted gaps are left out"
    windows = WindowRange(entry.interval.start_ns, entry.interval.end_ns, entry.window_ns)
    step = -(-len(windows) // _MOST_RANGES)
    return sum(int(count(windows.part(at, min(at + step, len(windows)))).sum()) for at in range(0, len(windows), step))


def runs_of_neighbours(entries: Sequence[Entry]) -> Iterator[Sequence[Entry]]:
    """Yield runs of neighbours with the same window length."""
    first = 0
    for index in range(1, len(entries) + 1):
        if index < len(entries):
            before, after = entries[index - 1], entries[index]
            if before.window_ns == after.window_ns and before.interval.end_ns == after.interval.start_ns:
                continue
        if index > first:
            yield entries[first:index]
        first = index
