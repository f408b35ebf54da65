"""Replaces each source's ECG by the public beat at that source's beat times: the rhythm is kept, the shape of the heart is not.

No value of a released row depends on a measured value, except through the times of the beats. The detector that finds them is passed
in.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from anonymizer.generalization import NO_GROUP, WITHHELD_LEVEL, Generalization
from anonymizer.hierarchy import STAR_LEVEL
from anonymizer.public_beat import LEAST_INTERVAL_NS, LONGEST_STEP_NS, public_beats_uv
from anonymizer.samples import ArrangedSamples

_Ints = npt.NDArray[np.int64]
_Floats = npt.NDArray[np.float64]
_Marks = npt.NDArray[np.bool_]

#: Beats are detected on an even grid with this step (250 Hz), whatever the times of the rows.
GRID_STEP_NS = 4_000_000

_GRID_HERTZ = 250

#: The QRS complex has its power in this band (Pan & Tompkins 1985), in hertz.
_BAND_HERTZ = (5.0, 30.0)

#: Power this close to a beat belongs to the beat, in grid steps: 100 ms.
_BESIDE_BEAT_STEPS = 25

#: A source's window whose mean power outside its beats is this share of the mean power at its beats, or more, is noise.
NOISE_SHARE = 0.1

#: A segment shorter than two seconds is too short for the detector's thresholds.
_SHORTEST_SEGMENT_STEPS = 2 * _GRID_HERTZ


class BeatDetector(Protocol):
    """Finds heartbeats."""

    def beats(self, values_uv: _Floats, hertz: float) -> _Ints:
        """Return the positions of R peaks in evenly spaced samples, ascending; none where it cannot find any."""


@dataclass(frozen=True, slots=True, eq=False)
class _Segment:
    """Rows of one source without a long gap, on the grid, and the beats in them.

    Args:
        rows: Positions of the rows, ascending in time.
        beats: Which of `rows` are beats, ascending.
        at_beats: Power in the band of the QRS complex at each step of the grid within 100 ms of a beat.
        elsewhere: The same at the other steps.
    """

    rows: npt.NDArray[np.intp]
    beats: npt.NDArray[np.intp]
    at_beats: _Floats
    elsewhere: _Floats


@dataclass(frozen=True, slots=True)
class RhythmAnonymizer:
    """Releases the public beat at the beat times of each source and window, each window by itself.

    Args:
        detector: Finds heartbeats.
    """

    detector: BeatDetector

    def generalize(self, rows: ArrangedSamples) -> Generalization:
        """Return the public beat for each row of a segment with two or more beats; the others are withheld."""
        values = np.full(len(rows.times_ns), np.nan)
        noisy = np.zeros(len(values), dtype=np.bool_)
        for mine in _rows_by_window_and_source(rows):
            segments = [self._segment(rows, part) for part in _segments(rows.times_ns, mine)]
            if _is_noise(segments):
                noisy[mine] = True
                continue
            for segment in segments:
                if len(segment.beats) > 1:
                    times_ns = rows.times_ns[segment.rows]
                    values[segment.rows] = public_beats_uv(times_ns, times_ns[segment.beats])
        windows = len(rows.windows)
        return Generalization(
            values_uv=values,
            levels=np.where(np.isnan(values), WITHHELD_LEVEL, STAR_LEVEL).astype(np.uint8),
            imputed=np.zeros(len(values), dtype=np.bool_),
            imputed_values_uv=np.full(windows, np.nan),
            coded=np.zeros(len(values), dtype=np.bool_),
            groups=np.zeros(windows, dtype=np.int64),
            group_of_row=np.full(len(values), NO_GROUP, dtype=np.int64),
            noisy=noisy,
        )

    def _segment(self, rows: ArrangedSamples, mine: npt.NDArray[np.intp]) -> _Segment:
        times_ns = rows.times_ns[mine]
        offsets_ns = np.arange(0, times_ns[-1] - times_ns[0] + 1, GRID_STEP_NS)
        if len(offsets_ns) < _SHORTEST_SEGMENT_STEPS:
            return _Segment(mine, mine[:0], np.empty(0), np.empty(0))
        grid_uv = np.interp(offsets_ns, times_ns - times_ns[0], rows.values_uv[mine])
        steps = self.detector.beats(grid_uv, _GRID_HERTZ)
        power = _band_power(grid_uv)
        is_beside = _is_beside(steps, len(power))
        beats = _apart(_nearest(times_ns - times_ns[0], steps * GRID_STEP_NS), times_ns)
        return _Segment(mine, beats, power[is_beside], power[~is_beside])


def _rows_by_window_and_source(rows: ArrangedSamples) -> Iterator[npt.NDArray[np.intp]]:
    """Yield the positions of the rows of each window and source, in order of time."""
    key = rows.window_index * (int(rows.source_codes.max(initial=0)) + 1) + rows.source_codes
    order = np.argsort(key, kind="stable")
    yield from _split(order, np.flatnonzero(np.diff(key[order])) + 1)


def _segments(times_ns: _Ints, mine: npt.NDArray[np.intp]) -> Iterator[npt.NDArray[np.intp]]:
    """Yield the rows of a source in parts without a gap longer than `LONGEST_STEP_NS`."""
    yield from _split(mine, np.flatnonzero(np.diff(times_ns[mine]) > LONGEST_STEP_NS) + 1)


def _split(rows: npt.NDArray[np.intp], cuts: npt.NDArray[np.intp]) -> Iterator[npt.NDArray[np.intp]]:
    if len(rows):
        yield from np.split(rows, cuts)


def _is_noise(segments: Sequence[_Segment]) -> bool:
    at_beats, elsewhere = (
        np.concatenate(powers) for powers in zip(*((one.at_beats, one.elsewhere) for one in segments), strict=True)
    )
    return bool(len(at_beats) and len(elsewhere) and elsewhere.mean() >= NOISE_SHARE * at_beats.mean())


def _band_power(grid_uv: _Floats) -> _Floats:
    """Return the squared signal at each step of the grid, after a second-order Butterworth band-pass filter run forth and back."""
    spectrum = np.fft.rfft(grid_uv - np.linspace(grid_uv[0], grid_uv[-1], len(grid_uv)))
    hertz = np.fft.rfftfreq(len(grid_uv), 1 / _GRID_HERTZ)
    low, high = _BAND_HERTZ
    spectrum[0] = 0
    spectrum[1:] /= 1 + ((hertz[1:] ** 2 - low * high) / (hertz[1:] * (high - low))) ** 4
    return np.square(np.fft.irfft(spectrum, len(grid_uv)))


def _is_beside(steps: _Ints, size: int) -> _Marks:
    """Return which steps of the grid lie within 100 ms of a beat."""
    edges = np.zeros(size + 1, dtype=np.int64)
    np.add.at(edges, np.maximum(steps - _BESIDE_BEAT_STEPS, 0), 1)
    np.add.at(edges, np.minimum(steps + _BESIDE_BEAT_STEPS + 1, size), -1)
    return np.cumsum(edges[:-1]) > 0


def _nearest(offsets_ns: _Ints, wanted_ns: _Ints) -> npt.NDArray[np.intp]:
    """Return the position of the row nearest to each time; of two equally near rows, the earlier."""
    after = np.clip(np.searchsorted(offsets_ns, wanted_ns), 1, len(offsets_ns) - 1)
    return after - (wanted_ns - offsets_ns[after - 1] <= offsets_ns[after] - wanted_ns)


def _apart(beats: npt.NDArray[np.intp], times_ns: _Ints) -> npt.NDArray[np.intp]:
    """Return beats without those that follow another within `LEAST_INTERVAL_NS`."""
    kept: list[int] = []
    for beat in beats.tolist():
        if not kept or times_ns[beat] - times_ns[kept[-1]] >= LEAST_INTERVAL_NS:
            kept.append(beat)
    return np.array(kept, dtype=np.intp)
