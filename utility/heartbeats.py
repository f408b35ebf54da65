"""Detects heartbeats with an independent detector, and compares them with annotated beats.

The detector is sleepecg's (Pan & Tompkins 1985). The service does not need it: `pip install -r requirements-utility.txt`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec

import numpy as np

from anonymizer.windows import NANOSECONDS
from detection.sleepecg_detector import SleepecgDetector
from recognition.attackers import Trace, beats_of
from utility.outcome import Floats, Ints

#: A detection within this distance of an annotation matches it (ANSI/AAMI EC57), in nanoseconds.
NEAR_NS = 150_000_000

HOW_TO_GET_THE_DETECTOR = "pip install -r requirements-utility.txt"


def has_detector() -> bool:
    """Return whether the detector is installed."""
    return find_spec("sleepecg") is not None


def detected_beats(times_ns: Ints, values_uv: Floats, hertz: float) -> Ints:
    """Return the times of detected heartbeats, ascending, in nanoseconds.

    Args:
        times_ns: Times of the samples, evenly spaced, shape (n,).
        values_uv: Microvolts, shape (n,).
        hertz: Samples per second.
    """
    return beats_of(Trace(times_ns, values_uv), hertz, detector())


@cache
def detector() -> SleepecgDetector:
    """Return the detector, an optional dependency."""
    return SleepecgDetector()


@dataclass(frozen=True, slots=True, eq=False)
class Agreement:
    """Detections matched with annotations.

    Args:
        annotated: Number of annotated beats.
        detected: Number of detections.
        found_ns: When each annotated beat was detected, or −1, shape (annotated,).
    """

    annotated: int
    detected: int
    found_ns: Ints

    @property
    def sensitivity(self) -> float:
        """The share of annotated beats that were detected."""
        return self._found / self.annotated if self.annotated else 1.0

    @property
    def predictivity(self) -> float:
        """The share of detections that are annotated beats, positive predictive value."""
        return self._found / self.detected if self.detected else 0.0

    @property
    def _found(self) -> int:
        return int((self.found_ns >= 0).sum())


def agreement(detected_ns: Ints, annotated_ns: Ints) -> Agreement:
    """Match each annotated beat with the nearest detection within 150 ms, one to one, in order of time."""
    found = np.full(len(annotated_ns), -1, dtype=np.int64)
    next_one = 0
    detections: Sequence[int] = detected_ns.tolist()
    for number, beat in enumerate(annotated_ns.tolist()):
        while next_one < len(detections) and detections[next_one] < beat - NEAR_NS:
            next_one += 1
        while next_one + 1 < len(detections) and abs(detections[next_one + 1] - beat) < abs(detections[next_one] - beat):
            next_one += 1
        if next_one < len(detections) and abs(detections[next_one] - beat) <= NEAR_NS:
            found[number] = detections[next_one]
            next_one += 1
    return Agreement(len(annotated_ns), len(detections), found)


def heart_rate_bpm(beats_ns: Ints) -> float:
    """Return the mean heart rate between first and last beat; NaN for fewer than two."""
    if len(beats_ns) < 2:
        return float("nan")
    return 60.0 * NANOSECONDS * (len(beats_ns) - 1) / float(beats_ns[-1] - beats_ns[0])


def rmssd_error(raw: Agreement, released: Agreement) -> float:
    """Return |RMSSD of the released − of the raw signal| ÷ that of the raw one, over annotated beats that are detected in both.

    RMSSD, a measure of heart rate variability, is the root of the mean squared difference between successive beat intervals. An interval
    counts when both its beats were detected in both signals, a difference when both its intervals count.
    """
    both = (raw.found_ns >= 0) & (released.found_ns >= 0)
    of_raw, of_released = (_rmssd(one.found_ns, both) for one in (raw, released))
    return abs(of_released - of_raw) / of_raw if of_raw else float("nan")


def _rmssd(found_ns: Ints, usable: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> float:
    differences = np.diff(found_ns.astype(np.float64), n=2)
    complete = usable[:-2] & usable[1:-1] & usable[2:]
    return float(np.sqrt(np.mean(differences[complete] ** 2))) if complete.any() else float("nan")
