"""The identity attack: whose heart is it? A simple attacker, with no knowledge of the settings and nothing tuned.

He has two and a half minutes of raw ECG of each of six people. Of what was released of the minutes after that he takes a window, finds its
heartbeats with a common detector, averages them, and says that it is whoever's average beat correlates best with that.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.spatial.distance import cdist

from anonymizer.windows import NANOSECONDS
from utility.choices import Choice
from utility.heartbeats import detected_beats
from utility.measurements import Setting, outcomes_of
from utility.outcome import Floats, Ints, Signal
from utility.records import Record, records

#: What is taken of every beat, in seconds around its detection.
BEAT_FROM_S, BEAT_TO_S = -0.2, 0.4

#: The attacker looks at this much at once, in seconds.
WINDOW_S = 5

HERTZ = 360


class Recognised(NamedTuple):
    """How often the attacker was right, and how often he would be by chance."""

    right: int
    windows: int
    chance: float

    @property
    def rate(self) -> float:
        """The share of windows whose wearer was named rightly."""
        return self.right / self.windows


def recognised(signals: Sequence[tuple[Ints, Floats]]) -> Recognised:
    """Match windows of the second half of each signal with raw first halves.

    Args:
        signals: Times and values of each of the six records, in their order.
    """
    known = [_average_beat(*_half(record.times_ns, record.values_uv, first=True)) for record in records(HERTZ)]
    right = windows = 0
    for number, (times_ns, values_uv) in enumerate(signals):
        for window in _windows(*_half(times_ns, values_uv, first=False)):
            windows += 1
            seen = _average_beat(*window)
            if seen is None:
                continue  # no beat to go by: he cannot say
            distances = cdist([seen], [beat for beat in known if beat is not None], metric="correlation")
            right += int(distances[0].argmin() == number)
    return Recognised(right, windows, 1 / len(known))


def as_measured() -> list[tuple[Ints, Floats]]:
    """Return the six records as they are."""
    return [(record.times_ns, record.values_uv) for record in records(HERTZ)]


def as_released(choice: Choice, k: int) -> list[tuple[Ints, Floats]]:
    """Return the six records as they would be released, all in the same windows when k counts sources, else each alone."""
    setting = Setting(choice, HERTZ, k, shared=choice.by_source)
    signals = {signal.source_id: signal for outcome in outcomes_of(setting) for signal in outcome.signals()}
    return [_released_rows(signals[record.source_id]) for record in _in_order()]


def _in_order() -> tuple[Record, ...]:
    return records(HERTZ)


def _released_rows(signal: Signal) -> tuple[Ints, Floats]:
    out = ~np.isnan(signal.released_uv)
    return signal.times_ns[out], signal.released_uv[out]


def _half(times_ns: Ints, values_uv: Floats, *, first: bool) -> tuple[Ints, Floats]:
    middle_ns = records(HERTZ)[0].times_ns[len(records(HERTZ)[0].times_ns) // 2]
    chosen = (times_ns < middle_ns) == first
    return times_ns[chosen], values_uv[chosen]


def _windows(times_ns: Ints, values_uv: Floats) -> list[tuple[Ints, Floats]]:
    number = (times_ns - times_ns[0]) // (WINDOW_S * NANOSECONDS)
    cuts = np.flatnonzero(np.diff(number)) + 1
    return list(zip(np.split(times_ns, cuts), np.split(values_uv, cuts), strict=True))


def _average_beat(times_ns: Ints, values_uv: Floats) -> Floats | None:
    """Return the mean of all whole beats, or None when none is found."""
    shape = np.arange(int(BEAT_FROM_S * HERTZ), int(BEAT_TO_S * HERTZ))
    positions = np.searchsorted(times_ns, detected_beats(times_ns, values_uv, HERTZ))
    whole = positions[(positions + shape[0] >= 0) & (positions + shape[-1] < len(values_uv))]
    if not len(whole):
        return None
    beat: Floats = values_uv[whole[:, None] + shape].mean(axis=0)
    return beat if np.ptp(beat) else None
