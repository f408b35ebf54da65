"""What `METHOD=rhythm` keeps of the rhythm of one record: heart rate, heartbeats and their variability, window by window."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np

from anonymizer.windows import NANOSECONDS
from recognition.attackers import Trace
from scripts.verify_output import Held, Question, examine
from utility.choices import RHYTHM
from utility.heartbeats import agreement, detected_beats, heart_rate_bpm, rmssd_error
from utility.measurements import Setting, outcomes_of
from utility.outcome import Floats, Ints, Signal
from utility.records import Record, records

#: k means nothing to this method; the windows have the length that is its default.
SETTING = Setting(RHYTHM, 360, 5, window_s=10)


@dataclass(frozen=True, slots=True, eq=False)
class RhythmLoss:
    """What is lost of one record, over the windows that are released; beats are detected in each window by itself.

    Args:
        source_id: Its name.
        withheld_percent: Rows not released.
        rate_errors_bpm: |heart rate of the released window − of its annotated beats|, shape (windows,).
        raw_rate_errors_bpm: The same of the raw windows.
        sensitivity_points: Percentage points of annotated beats no longer found.
        predictivity_points: Percentage points of positive predictive value lost.
        rmssd_percent: Error of RMSSD, per cent of the raw one.
        released: Rows released.
        unexplained: Of these, rows in windows that the outside check does not find to be of the public beat.
    """

    source_id: str
    withheld_percent: float
    rate_errors_bpm: Floats
    raw_rate_errors_bpm: Floats
    sensitivity_points: float
    predictivity_points: float
    rmssd_percent: float
    released: int
    unexplained: int


@cache
def rhythm_losses(window_s: int = SETTING.window_s) -> tuple[RhythmLoss, ...]:
    """Return what is lost of each of the six records at 360 Hz."""
    setting = dataclasses.replace(SETTING, window_s=window_s)
    signals = {signal.source_id: signal for outcome in outcomes_of(setting) for signal in outcome.signals()}
    return tuple(_loss(record, signals[record.source_id], window_s) for record in records(SETTING.hertz))


def _loss(record: Record, signal: Signal, window_s: int) -> RhythmLoss:
    is_released = ~np.isnan(signal.released_uv)
    windows = [
        (_beats(raw, record.hertz), _beats(released, record.hertz), _annotated(record, released))
        for raw, released in _windows(Trace(signal.times_ns[is_released], signal.raw_uv[is_released]), signal.released, window_s)
    ]
    of_raw, of_released, annotated = (np.concatenate(beats) for beats in zip(*windows, strict=True))
    before, after = agreement(of_raw, annotated), agreement(of_released, annotated)
    return RhythmLoss(
        source_id=record.source_id,
        withheld_percent=100.0 * float(1 - is_released.mean()),
        rate_errors_bpm=np.array([_rate_error(released, marked) for _, released, marked in windows]),
        raw_rate_errors_bpm=np.array([_rate_error(raw, marked) for raw, _, marked in windows]),
        sensitivity_points=100.0 * (before.sensitivity - after.sensitivity),
        predictivity_points=100.0 * (before.predictivity - after.predictivity),
        rmssd_percent=100.0 * rmssd_error(before, after),
        released=int(is_released.sum()),
        unexplained=sum(map(_unexplained, (released for _, released in _windows(signal.released, signal.released, window_s)))),
    )


def _unexplained(released: Trace) -> int:
    rows = [(time_ns, "", value) for time_ns, value in zip(released.times_ns.tolist(), released.values_uv.tolist(), strict=True)]
    question = Question(None, SETTING.window_s * NANOSECONDS, imputed=False, rhythm=True)
    finding = examine(Held(rows[0][0], rows[-1][0] + 1, rows=rows), question, in_a_file=True)
    return len(rows) if finding.problems or finding.incomplete else 0


def _windows(raw: Trace, released: Trace, window_s: int) -> Iterator[tuple[Trace, Trace]]:
    number = released.times_ns // (window_s * NANOSECONDS)
    for one in np.unique(number).tolist():
        span = one * window_s * NANOSECONDS, (one + 1) * window_s * NANOSECONDS
        yield raw.between(*span), released.between(*span)


def _beats(trace: Trace, hertz: int) -> Ints:
    return detected_beats(trace.times_ns, trace.values_uv, hertz)


def _annotated(record: Record, released: Trace) -> Ints:
    first, stop = np.searchsorted(record.beats_ns, (released.times_ns[0], released.times_ns[-1] + 1)).tolist()
    beats_ns: Ints = record.beats_ns[first:stop]
    return beats_ns


def _rate_error(beats_ns: Ints, annotated_ns: Ints) -> float:
    return abs(heart_rate_bpm(beats_ns) - heart_rate_bpm(annotated_ns))
