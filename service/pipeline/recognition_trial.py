"""UTILITY_METRICS: tries on the data of a run how often attackers would name the right wearer, for several ways to release it.

Holds raw rows while it computes, and returns counts over all wearers together.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from anonymizer.rhythm_anonymizer import BeatDetector
from anonymizer.samples import NO_SOURCE, Samples, SampleSource, make_samples, picked
from anonymizer.windows import NANOSECONDS, WindowRange
from recognition.attackers import ATTACKS, Recognition
from recognition.trial import Way, recognitions
from service.pipeline.chunks import plan_chunks, read_completely

#: So much of the released time is looked at, as in the tables of documentation/PRIVACY.md.
SAMPLE_S = 300

#: Of so many sources, the first ones, rows are kept; the wearers among them share their windows.
_MOST_SOURCES = 50

#: More people than this make no attacker better, only slower.
_MOST_PEOPLE = 20

#: The attackers who look at 30 s at once.
SHOWN_ATTACKS = tuple(attack for attack in ATTACKS if attack.span_s == 30)


LeaveOut = Callable[[Samples, WindowRange], Samples]


def recognition_on(
    source: SampleSource,
    released: Sequence[WindowRange],
    ways: Sequence[Way],
    detector: BeatDetector,
    *,
    most_rows: int,
    leave_out: LeaveOut = lambda samples, _: samples,
    is_stopping: Callable[[], bool],
) -> list[tuple[str, Sequence[Recognition]]]:
    """Return how often each of `SHOWN_ATTACKS` is right, by way to release; empty if there are not two wearers with heartbeats.

    Args:
        source: Open.
        released: The windows that were released, in order.
        ways: What to compare.
        detector: Finds heartbeats.
        most_rows: Approximate number of rows per query.
        leave_out: Takes the rows of excluded sources out of what was read of some windows.
        is_stopping: Asked before each way, and each read; if it says so, the list stays empty.

    Raises:
        SourceUnavailable: The rows cannot be read again now.
    """
    parts = []
    for part in _parts(source, released, leave_out, most_rows=most_rows):
        if is_stopping():
            return []
        parts.append(part)
    found = []
    for one in recognitions(_joined(parts), ways, detector, most_people=_MOST_PEOPLE, attacks=SHOWN_ATTACKS):
        found.append(one)
        if is_stopping():
            return []
    return found


def _parts(source: SampleSource, released: Sequence[WindowRange], leave_out: LeaveOut, *, most_rows: int) -> Iterator[Samples]:
    left_ns = SAMPLE_S * NANOSECONDS
    for windows in released:
        if left_ns <= 0:
            return
        asked = windows.part(0, min(len(windows), math.ceil(left_ns / windows.length_ns)))
        for chunk in plan_chunks(asked, source.count(asked), most_rows=most_rows):
            if not chunk.is_empty:
                samples = leave_out(read_completely(source, chunk), chunk.windows)
                yield picked(samples, np.flatnonzero(samples.times_ns < asked.start_ns + left_ns))
        left_ns -= asked.end_ns - asked.start_ns


def _joined(parts: Sequence[Samples]) -> Samples:
    """Return the rows of all parts that belong to the first sources."""
    ids: dict[str, int] = {}
    columns = []
    for part in parts:
        for source_id in part.source_ids:
            if len(ids) < _MOST_SOURCES:
                ids.setdefault(source_id, len(ids))
        # The last code stands for rows without a source, whose code is -1.
        codes = np.array([*(ids.get(source_id, NO_SOURCE) for source_id in part.source_ids), NO_SOURCE], dtype=np.int32)
        mine = codes[part.source_codes]
        kept = mine != NO_SOURCE
        columns.append((part.times_ns[kept], mine[kept], part.values_uv[kept]))
    if not columns:
        return make_samples([], [], (), [])
    times_ns, source_codes, values_uv = (np.concatenate(column) for column in zip(*columns, strict=True))
    return make_samples(times_ns, source_codes, tuple(ids), values_uv)
