"""Refuses input that mostly contradicts itself. Decided once, before the first release.

One bad wearer, or one bad point, invalidates only the rows of that source and window. But if most sources contradict themselves in most
windows, a setting is wrong: two leads share an id, or packets share a timestamp. A run that has begun to release is never stopped for it.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from anonymizer.errors import SourceRefused
from anonymizer.samples import Contradictions, SampleSource, contradictions_in
from anonymizer.windows import MOST_WINDOWS, WindowRange
from service.pipeline.chunks import plan_chunks

ADVICE = (
    "Usual reasons: several leads or devices under one id (choose one with INFLUX_TAG_FILTER, such as lead=I; of a file, keep one), "
    "packets whose samples share a timestamp, or a repeated local hour (write times with their zone)."
)

#: One or two windows are little evidence: there, a source counts only if it contradicts itself throughout, not in one point.
_FEW_WINDOWS = 2


class Hinting(Protocol):
    """A source that may know how several series of one id differ."""

    def hint_on_contradictions(self) -> str:
        """Return a sentence on that; empty if unknown."""


class Judgement:
    """Counts windows with rows, and those in which most sources contradict themselves."""

    def __init__(self) -> None:
        self._windows = self._bad = self._bad_throughout = 0

    def add_good(self, windows: int) -> None:
        """Count good windows, such as those released by an earlier run."""
        self._windows += windows

    def add(self, found: Contradictions, windows: int) -> None:
        """Count windows with rows.

        Args:
            found: Which sources contradict themselves in them.
            windows: Their number.
        """
        self._windows += windows
        self._bad += int((2 * found.contradicting > found.sources).sum())
        self._bad_throughout += int((2 * found.throughout > found.sources).sum())

    def refuse(self, source: Hinting) -> None:
        """Raise SourceRefused if most sources contradict themselves in most windows."""
        bad = self._bad_throughout if self._windows <= _FEW_WINDOWS else self._bad
        if 2 * bad > self._windows:
            raise SourceRefused(
                f"most sources hold two different values for one time, in {bad} of {self._windows} windows checked. "
                f"{advice_for(source)}"
            )


def advice_for(source: Hinting) -> str:
    """Return the usual reasons why sources contradict themselves, and what to do."""
    return f"{ADVICE} {source.hint_on_contradictions()}".strip()


def refuse_contradictory(source: SampleSource, windows: WindowRange, *, most_rows: int) -> None:
    """Check all windows of a source that can be read in advance, such as a file; raise SourceRefused as `Judgement` does.

    Args:
        source: Already open.
        windows: All windows of the run.
        most_rows: Approximate number of rows to check at a time.
    """
    judgement, at_ns = Judgement(), windows.start_ns
    if source.repeats is not None and not source.repeats:
        return
    while (row_ns := source.next_row_ns(at_ns, windows.end_ns)) is not None:
        first_ns = row_ns // windows.length_ns * windows.length_ns
        at_ns = min(first_ns + MOST_WINDOWS * windows.length_ns, windows.end_ns)
        part = WindowRange(first_ns, at_ns, windows.length_ns)
        for chunk in plan_chunks(part, source.count(part), most_rows=most_rows):
            with_rows = int(np.count_nonzero(chunk.counted))
            if with_rows and _may_repeat(source, chunk.windows):
                judgement.add(contradictions_in(source.read(chunk.windows), chunk.windows), with_rows)
            else:
                judgement.add_good(with_rows)
    judgement.refuse(source)


def _may_repeat(source: SampleSource, windows: WindowRange) -> bool:
    return source.repeats is None or any(
        span.start_ns < windows.end_ns and windows.start_ns < span.end_ns for span in source.repeats
    )
