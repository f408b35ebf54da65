"""Attackers who name the wearer of a released signal, and how often they are right.

Each has raw ECG of some people and looks at spans of what was released of the time after. None of them knows a setting, and nothing is
tuned to the people. A released signal is times and values to them; how it was made does not matter.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from anonymizer.rhythm_anonymizer import BeatDetector
from anonymizer.windows import NANOSECONDS

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

#: Of fewer samples per second a heartbeat has no shape, and detectors fail.
LEAST_HERTZ = 50

#: A detector cannot set its thresholds on less.
_SHORTEST_SPAN_S = 2

#: What is taken of every beat: 200 ms before its detection to 400 ms after, every 5 ms.
_AROUND_BEAT_NS = np.arange(-200, 400, 5) * 1_000_000

#: Rows further apart than this are a gap; beats that reach into one are left out.
_GAP_NS = 200_000_000

#: More raw beats of one person than this, evenly chosen, make no attacker better, only slower.
_MOST_KNOWN = 500

#: Later than any time.
_NEVER_NS = int(np.iinfo(np.int64).max)

#: 95 % of a normal distribution lie within so many standard deviations.
_WILSON_Z = 1.959964


@dataclass(frozen=True, slots=True, eq=False)
class Trace:
    """Times and values of one source in order of time, raw or released.

    Args:
        times_ns: Nanoseconds since the epoch, shape (n,).
        values_uv: Microvolts, all finite, shape (n,).
    """

    times_ns: Ints
    values_uv: Floats

    def between(self, start_ns: int, stop_ns: int) -> Trace:
        """Return the rows from `start_ns` on and before `stop_ns`."""
        rows = slice(*np.searchsorted(self.times_ns, (start_ns, stop_ns)).tolist())
        return Trace(self.times_ns[rows], self.values_uv[rows])


@dataclass(frozen=True, slots=True, eq=False)
class Features:
    """What an attacker goes by.

    Args:
        shapes: Each whole beat, centred and of length one, so that products are correlations, shape (beats, steps).
        intervals: Each two successive intervals between beats, logarithms of seconds, shape (pairs, 2).
    """

    shapes: Floats
    intervals: Floats


#: Returns the position of the known person whom a span resembles most, or None where it shows too little.
Attacker = Callable[[Sequence[Features], Features], int | None]


def features_of(trace: Trace, detector: BeatDetector) -> Features:
    """Return the beats that a detector finds in a trace, and the intervals between them."""
    if len(trace.times_ns) < 2:
        return Features(np.empty((0, len(_AROUND_BEAT_NS))), np.empty((0, 2)))
    hertz = NANOSECONDS / float(np.median(np.diff(trace.times_ns)))
    beats_ns = beats_of(trace, hertz, detector)
    logarithms = np.log(np.diff(beats_ns) / NANOSECONDS)
    return Features(_shapes(trace, beats_ns), np.stack((logarithms[:-1], logarithms[1:]), axis=1))


def beats_of(trace: Trace, hertz: float, detector: BeatDetector) -> Ints:
    """Return the times of the heartbeats that a detector finds in evenly spaced samples; none where it would fail."""
    too_short = len(trace.values_uv) < _SHORTEST_SPAN_S * hertz
    if hertz < LEAST_HERTZ or too_short or not np.ptp(trace.values_uv):
        return trace.times_ns[:0]
    found: Ints = trace.times_ns[detector.beats(trace.values_uv.astype(np.float64), hertz)]
    return found


def _shapes(trace: Trace, beats_ns: Ints) -> Floats:
    times_ns, last_row = trace.times_ns, len(trace.times_ns) - 1
    at_ns = beats_ns[:, None] + _AROUND_BEAT_NS
    gaps_before = np.concatenate(([0], np.cumsum(np.diff(times_ns) > _GAP_NS)))
    gaps = gaps_before[np.minimum(np.searchsorted(times_ns, at_ns[:, (0, -1)]), last_row)]
    is_whole = (at_ns[:, 0] >= times_ns[0]) & (at_ns[:, -1] <= times_ns[-1]) & (gaps[:, 0] == gaps[:, 1])
    # Offsets, because a time since the epoch has more digits than a float.
    shapes = np.interp(at_ns[is_whole] - times_ns[0], times_ns - times_ns[0], trace.values_uv)
    centred = shapes - shapes.mean(axis=1, keepdims=True)
    lengths = np.linalg.norm(centred, axis=1)
    return np.asarray(centred[lengths > 0] / lengths[lengths > 0, None])


def by_average_beat(known: Sequence[Features], span: Features) -> int | None:
    """Name the person whose average beat correlates best with the average beat of the span."""
    if not len(span.shapes):
        return None
    return int(np.argmax([_correlation(person.shapes, span.shapes) for person in known]))


def _correlation(shapes: Floats, others: Floats) -> float:
    if not len(shapes):
        return -1.0
    mean, other = shapes.mean(axis=0), others.mean(axis=0)
    return float(mean @ other / (np.linalg.norm(mean) * np.linalg.norm(other)))


def by_nearest_beats(known: Sequence[Features], span: Features) -> int | None:
    """Let each beat vote for the person who has the single raw beat most like it."""
    return _most_votes([person.shapes for person in known], span.shapes)


def by_rhythm(known: Sequence[Features], span: Features) -> int | None:
    """Let each two successive intervals vote for the person who has the two most like them; the shape plays no part."""
    return _most_votes([person.intervals for person in known], span.intervals)


def _most_votes(known: Sequence[Floats], points: Floats) -> int | None:
    if not len(points) or not any(map(len, known)):
        return None
    nearest = np.argmin([_least_distances(points, some) for some in known], axis=0)
    return int(np.bincount(nearest).argmax())


def _least_distances(points: Floats, others: Floats) -> Floats:
    """Return the squared distance of each point to the nearest of the others, less the point's own square."""
    if not len(others):
        return np.full(len(points), np.inf)
    chosen = others[np.linspace(0, len(others) - 1, min(len(others), _MOST_KNOWN)).astype(int)]
    return np.asarray((np.square(chosen).sum(axis=1) - 2 * points @ chosen.T).min(axis=1))


class Attack(NamedTuple):
    """An attacker, and how many seconds of released signal he goes by at once."""

    name: str
    attacker: Attacker
    span_s: int


ATTACKS = (
    *(Attack("average beat", by_average_beat, span_s) for span_s in (5, 30, 150)),
    *(Attack("nearest beats", by_nearest_beats, span_s) for span_s in (5, 30)),
    *(Attack("rhythm alone", by_rhythm, span_s) for span_s in (5, 30)),
)


@dataclass(frozen=True, slots=True)
class Recognition:
    """How often an attack named the right wearer.

    Args:
        right: Of each person, how many spans were given the right name, shape (people,).
        spans: Of each person, how many spans hold released rows, shape (people,).
    """

    right: tuple[int, ...]
    spans: tuple[int, ...]

    @property
    def rate(self) -> float:
        """The share of spans that were given the right name; NaN without spans."""
        return sum(self.right) / sum(self.spans) if any(self.spans) else float("nan")

    @property
    def chance(self) -> float:
        """The share that a guess gets right."""
        return 1 / len(self.right)

    @property
    def in_words(self) -> str:
        """Right of all, and the rate with its interval in per cent."""
        if not any(self.spans):
            return "–"
        low, high = self.interval
        return f"{sum(self.right)} of {sum(self.spans)}: {100 * self.rate:.0f} % ({100 * low:.0f}–{100 * high:.0f})"

    @property
    def interval(self) -> tuple[float, float]:
        """A 95 % interval of the rate (Wilson 1927), each person counted as one observation: spans of one wearer resemble each other."""
        people, rate = len(self.right), self.rate
        middle = rate + _WILSON_Z**2 / (2 * people)
        away = _WILSON_Z * math.sqrt(rate * (1 - rate) / people + _WILSON_Z**2 / (4 * people**2))
        return max(0.0, (middle - away) / (1 + _WILSON_Z**2 / people)), min(1.0, (middle + away) / (1 + _WILSON_Z**2 / people))


class Attempt(NamedTuple):
    """What the attackers start from; each sequence has one item per person, in one order.

    Args:
        known: What the raw ECG of the first half of each recording shows.
        starts_ns: When the second half begins.
        shown: What the attackers see of the second half.
        detector: Finds their heartbeats.
    """

    known: Sequence[Features]
    starts_ns: Sequence[int]
    shown: Sequence[Trace]
    detector: BeatDetector

    def of(self, people: Sequence[int]) -> Attempt:
        """Return the attempt on some of the people, named by their positions."""
        return self._replace(
            known=[self.known[number] for number in people],
            starts_ns=[self.starts_ns[number] for number in people],
            shown=[self.shown[number] for number in people],
        )

    def on(self, released: Sequence[Trace]) -> Attempt:
        """Return the attempt on what was released of the same people."""
        return self._replace(shown=_second_halves(released, self.starts_ns))


def attempt_on_raw(raw: Sequence[Trace], detector: BeatDetector) -> Attempt:
    """Let the attackers learn from the first half of each recording, and show them the raw second half; each has at least one row."""
    starts_ns = [(int(trace.times_ns[0]) + int(trace.times_ns[-1]) + 1) // 2 for trace in raw]
    known = [features_of(trace.between(0, start_ns), detector) for trace, start_ns in zip(raw, starts_ns, strict=True)]
    return Attempt(known, starts_ns, _second_halves(raw, starts_ns), detector)


def _second_halves(traces: Sequence[Trace], starts_ns: Sequence[int]) -> list[Trace]:
    return [trace.between(start_ns, _NEVER_NS) for trace, start_ns in zip(traces, starts_ns, strict=True)]


def carry_out(attempt: Attempt, attacks: Sequence[Attack] = ATTACKS) -> list[Recognition]:
    """Carry out each attack."""
    spans = {span_s: _features_by_span(attempt, span_s) for span_s in {attack.span_s for attack in attacks}}
    return [_recognition(attempt.known, spans[attack.span_s], attack.attacker) for attack in attacks]


def _features_by_span(attempt: Attempt, span_s: int) -> list[list[Features]]:
    """Return what each span of each person shows. A span without a row is left out."""
    return [
        [features_of(span, attempt.detector) for span in _spans(trace, start_ns, span_s * NANOSECONDS)]
        for start_ns, trace in zip(attempt.starts_ns, attempt.shown, strict=True)
    ]


def _spans(trace: Trace, start_ns: int, length_ns: int) -> list[Trace]:
    number = (trace.times_ns - start_ns) // length_ns
    return [trace.between(start_ns + one * length_ns, start_ns + (one + 1) * length_ns) for one in np.unique(number).tolist()]


def _recognition(known: Sequence[Features], spans: Sequence[Sequence[Features]], attacker: Attacker) -> Recognition:
    right = [sum(attacker(known, span) == number for span in of_person) for number, of_person in enumerate(spans)]
    return Recognition(tuple(right), tuple(map(len, spans)))


def recognition_rows(found: Mapping[str, Sequence[Recognition]]) -> list[tuple[str, ...]]:
    """Return a table with a row for each of `ATTACKS` and a column for each way to release, the first row its heading."""
    rows = [
        (f"{attack.name}, {attack.span_s} s", *(of_way[i].in_words for of_way in found.values()))
        for i, attack in enumerate(ATTACKS)
    ]
    return [("attacker", *found), *rows]
