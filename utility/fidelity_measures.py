"""Measures how similar a released ECG is to the raw one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from utility.heartbeats import agreement, detected_beats, heart_rate_bpm, rmssd_error
from utility.outcome import Floats, Ints, Signal

#: Half-width of the search for a beat's R wave, in nanoseconds.
NEAR_A_BEAT_NS = 50_000_000


@dataclass(frozen=True, slots=True)
class Likeness:
    """Similarity of a released signal and the raw one, over the rows that were released.

    Args:
        prdn: 100 · ‖raw − released‖ ÷ ‖raw − mean of raw‖, in per cent.
        correlation: Pearson's r.
        unchanged: Share of rows whose value is unchanged.
    """

    prdn: float
    correlation: float
    unchanged: float


def likeness(signal: Signal) -> Likeness:
    """Compare a signal before and after; NaN if nothing was released or the signal is flat."""
    out = ~np.isnan(signal.released_uv)
    raw, released = signal.raw_uv[out], signal.released_uv[out]
    if not len(raw) or not np.ptp(raw):
        return Likeness(float("nan"), float("nan"), float("nan"))
    away = np.linalg.norm(raw - released) / np.linalg.norm(raw - raw.mean())
    together = float(np.corrcoef(raw, released)[0, 1]) if np.ptp(released) else float("nan")
    return Likeness(100.0 * float(away), together, float((raw == released).mean()))


@dataclass(frozen=True, slots=True)
class HeartbeatLoss:
    """What the detector loses by anonymization, against the raw signal.

    Args:
        sensitivity_points: Loss of sensitivity, percentage points.
        predictivity_points: Loss of positive predictive value, percentage points.
        rate_bpm: |heart rate of the released − of the raw signal|, beats per minute.
        rmssd_percent: Error of RMSSD in per cent of the raw one.
        sensitivity: Of the released signal, per cent.
        predictivity: Of the released signal, per cent.
        height_percent: Remaining height of the R wave, the median over all beats: the largest distance from the signal's median within
            50 ms of the annotation, released ÷ raw.
    """

    sensitivity_points: float
    predictivity_points: float
    rate_bpm: float
    rmssd_percent: float
    sensitivity: float
    predictivity: float
    height_percent: float


def heartbeat_loss(signal: Signal, beats_ns: Ints, hertz: float) -> HeartbeatLoss:
    """Detect beats before and after. Withheld rows are interpolated, since the detector needs a complete signal.

    Args:
        signal: Before and after.
        beats_ns: The annotated beats, ascending.
        hertz: Samples per second.
    """
    before_ns = detected_beats(signal.times_ns, signal.raw_uv, hertz)
    after_ns = detected_beats(signal.times_ns, without_gaps(signal.released_uv), hertz)
    before, after = agreement(before_ns, beats_ns), agreement(after_ns, beats_ns)
    return HeartbeatLoss(
        sensitivity_points=100.0 * (before.sensitivity - after.sensitivity),
        predictivity_points=100.0 * (before.predictivity - after.predictivity),
        rate_bpm=abs(heart_rate_bpm(after_ns) - heart_rate_bpm(before_ns)),
        rmssd_percent=100.0 * rmssd_error(before, after),
        sensitivity=100.0 * after.sensitivity,
        predictivity=100.0 * after.predictivity,
        height_percent=100.0 * _height_left(signal, beats_ns),
    )


def _height_left(signal: Signal, beats_ns: Ints) -> float:
    filled = without_gaps(signal.released_uv)
    middle_uv = float(np.median(signal.raw_uv))
    bounds = np.searchsorted(signal.times_ns, (beats_ns - NEAR_A_BEAT_NS, beats_ns + NEAR_A_BEAT_NS))
    ratios = []
    for first, stop in bounds.T.tolist():
        raw, released = (np.abs(values[first:stop] - middle_uv).max(initial=0.0) for values in (signal.raw_uv, filled))
        if raw:
            ratios.append(released / raw)
    return float(np.median(ratios)) if ratios else float("nan")


def without_gaps(values_uv: Floats) -> Floats:
    """Interpolate NaN values linearly; zeros if all are NaN."""
    out = np.isnan(values_uv)
    if out.all():
        return np.zeros(len(values_uv))
    filled = values_uv.copy()
    filled[out] = np.interp(np.flatnonzero(out), np.flatnonzero(~out), values_uv[~out])
    return filled
