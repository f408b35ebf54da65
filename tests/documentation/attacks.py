"""What a reader of released data can work out, carried out: the attacks that `documentation/PRIVACY.md` describes as open."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import numpy as np

from anonymizer.hierarchy import LEVELS
from anonymizer.samples import Samples
from anonymizer.windows import NANOSECONDS
from testbed.sample_ecg import SAMPLE_HERTZ
from tests.core.both_ways import shipped_ranges
from tests.core.plain_anonymizer import PlainSettings
from tests.documentation.sample import Bools, Floats, alone, batches_of, beats_of

#: How near to a beat a row counts as part of its R wave, in seconds.
NEAR_A_BEAT_S = 0.02

#: What is taken of every beat when an average beat is made, in seconds around the annotation.
BEAT_FROM_S, BEAT_TO_S = -0.2, 0.4


class LevelRange(NamedTuple):
    """One range of one level, both ends inclusive."""

    level: int
    low: int
    high: int

    def is_within(self, other: LevelRange) -> bool:
        """Return whether this is a finer range inside the other."""
        return self.level < other.level and other.low <= self.low and self.high <= other.high


@cache
def range_of_midpoint() -> dict[float, LevelRange]:
    """Return the range that each possible midpoint of the shipped hierarchy stands for: no two levels share one."""
    levels = shipped_ranges().hierarchy.levels
    return {
        (low + high) / 2: LevelRange(number, low, high)
        for number in range(LEVELS, 0, -1)
        for low, high in zip(levels[number - 1].lows.tolist(), levels[number - 1].highs.tolist(), strict=True)
    }


class Downcoded(NamedTuple):
    """What downcoding got out of one window."""

    above: int
    narrowed: int
    #: For each released value whose range was narrowed, the finer ranges its rows cannot lie in.
    excluded: dict[float, list[tuple[int, int]]]


def downcode(values_uv: Floats) -> Downcoded:
    """Narrow the released values of one window, knowing the hierarchy and nothing else.

    A midpoint belongs to one range of one level, so it tells both. What lies in a finer range that was released too was released *there*:
    a wider range around it holds none of these values, and its rows lie in what remains.
    """
    shared, rows = np.unique(values_uv, return_counts=True)
    rows_of = dict(zip(shared.tolist(), rows.tolist(), strict=True))
    published = {value: range_of_midpoint()[value] for value in rows_of if value in range_of_midpoint()}
    excluded = {
        value: inner
        for value, outer in published.items()
        if (inner := [(one.low, one.high) for one in published.values() if one.is_within(outer)])
    }
    above = sum(rows_of[value] for value, one in published.items() if one.level >= 2)
    return Downcoded(above, sum(rows_of[value] for value in excluded), excluded)


def dropped(samples: Samples, settings: PlainSettings) -> Bools:
    """Return which rows of one record a reader misses: what times there are shows where there are none."""
    released = np.concatenate([batch.times_ns for batch in batches_of(samples, settings)])
    return ~np.isin(samples.times_ns, released)


def near_a_beat(samples: Samples) -> Bools:
    """Return which rows of one record lie near an annotated beat."""
    beats = beats_of(samples)
    after = np.searchsorted(beats, samples.times_ns)
    before_ns = np.abs(samples.times_ns - beats[np.maximum(after - 1, 0)])
    after_ns = np.abs(samples.times_ns - beats[np.minimum(after, len(beats) - 1)])
    near: Bools = np.minimum(before_ns, after_ns) <= NEAR_A_BEAT_S * NANOSECONDS
    return near


def recognised(values_of_record: Sequence[Floats]) -> int:
    """Compare second halves with raw first halves, by the correlation of their average beats; count who is most like himself.

    Args:
        values_of_record: Of each of the six records, all values in order of time, of which the second half is looked at.
    """
    known = [_average_beat(samples, samples.values_uv, first_half=True) for samples in alone()]
    seen = [_average_beat(*pair, first_half=False) for pair in zip(alone(), values_of_record, strict=True)]
    likeness = np.corrcoef(seen, known)[: len(seen), len(seen) :]
    return int((likeness.argmax(axis=1) == np.arange(len(seen))).sum())


def _average_beat(samples: Samples, values_uv: Floats, *, first_half: bool) -> Floats:
    shape = np.arange(int(BEAT_FROM_S * SAMPLE_HERTZ), int(BEAT_TO_S * SAMPLE_HERTZ))
    positions = np.searchsorted(samples.times_ns, beats_of(samples))
    inside = positions[(positions + shape[0] >= 0) & (positions + shape[-1] < len(values_uv))]
    half = inside[(inside < len(values_uv) // 2) == first_half]
    beat: Floats = values_uv[half[:, None] + shape].mean(axis=0)
    return beat
