"""Attackers who name the wearer of a released signal, and how often they are right.

Each has raw ECG of some people and looks at spans of what was released of the time after. None of them knows a setting, and nothing is
tuned to the people. A released signal is times and values to them; how it was made does not matter.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from anonymizer.windows import NANOSECONDS
from utility.heartbeats import detected_beats
from utility.outcome import Floats, Ints, Signal

#: What is taken of every beat: 200 ms before its detection to 400 ms after, every 5 ms.
_AROUND_BEAT_NS = np.arange(-200, 400, 5) * 1_000_000

#: Rows further apart than this are a gap; beats that reach into one are left out.
_GAP_NS = 200_000_000

#: More raw beats of one person than this, evenly chosen, make no attacker better, only slower.
_MOST_KNOWN = 500

#: How many samples of wearers the interval is taken from, and the share of these it holds.
_RESAMPLES, _CONFIDENCE = 10_000, 0.95


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


def trace_of(signal: Signal) -> Trace:
    """Return what would be released of a source."""
    out = ~np.isnan(signal.released_uv)
    return Trace(signal.times_ns[out], signal.released_uv[out])


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


def features_of(trace: Trace) -> Features:
    """Return the beats that a common detector finds in a trace, and the intervals between them."""
    if len(trace.times_ns) < 2:
        return Features(np.empty((0, len(_AROUND_BEAT_NS))), np.empty((0, 2)))
    hertz = NANOSECONDS / float(np.median(np.diff(trace.times_ns)))
    beats_ns = detected_beats(trace.times_ns, trace.values_uv, hertz)
    logarithms = np.log(np.diff(beats_ns) / NANOSECONDS)
    return Features(_shapes(trace, beats_ns), np.stack((logarithms[:-1], logarithms[1:]), axis=1))


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
    def interval(self) -> tuple[float, float]:
        """A 95 % interval of the rate.

        Spans of one wearer resemble each other, so wearers are what is drawn anew (bootstrap): for few people it is wide, as it must be.
        """
        if not any(self.spans):
            return float("nan"), float("nan")
        people = len(self.right)
        drawn = np.random.default_rng(0).multinomial(people, np.full(people, 1 / people), size=_RESAMPLES)
        spans = drawn @ self.spans
        rates = (drawn @ self.right)[spans > 0] / spans[spans > 0]
        low, high = np.quantile(rates, ((1 - _CONFIDENCE) / 2, (1 + _CONFIDENCE) / 2)).tolist()
        return low, high


class Attempt(NamedTuple):
    """What the attackers start from.

    Args:
        known: What each person's raw ECG of the first half shows.
        released: What was released of each person, in the same order.
        start_ns: When the second half begins, of which the attackers see what was released.
        stop_ns: When it ends.
    """

    known: Sequence[Features]
    released: Sequence[Trace]
    start_ns: int
    stop_ns: int


def attempt_on(raw: Sequence[Trace], released: Sequence[Trace]) -> Attempt:
    """Give the attackers the raw first half of a recording, and what was released of the second."""
    start_ns = min(int(trace.times_ns[0]) for trace in raw)
    stop_ns = max(int(trace.times_ns[-1]) for trace in raw) + 1
    middle_ns = (start_ns + stop_ns) // 2
    return Attempt([features_of(trace.between(start_ns, middle_ns)) for trace in raw], released, middle_ns, stop_ns)


def carry_out(attempt: Attempt, attacks: Sequence[Attack] = ATTACKS) -> list[Recognition]:
    """Carry out each attack."""
    shown = {span_s: _features_by_span(attempt, span_s) for span_s in {attack.span_s for attack in attacks}}
    return [_recognition(attempt.known, shown[attack.span_s], attack.attacker) for attack in attacks]


def _features_by_span(attempt: Attempt, span_s: int) -> list[list[Features]]:
    """Return what each whole or last span of each person shows; spans without a row are none."""
    starts_ns = range(attempt.start_ns, attempt.stop_ns, span_s * NANOSECONDS)
    spans = [[trace.between(start_ns, start_ns + span_s * NANOSECONDS) for start_ns in starts_ns] for trace in attempt.released]
    return [[features_of(span) for span in of_person if len(span.times_ns)] for of_person in spans]


def _recognition(known: Sequence[Features], spans: Sequence[Sequence[Features]], attacker: Attacker) -> Recognition:
    right = [sum(attacker(known, span) == number for span in of_person) for number, of_person in enumerate(spans)]
    return Recognition(tuple(right), tuple(map(len, spans)))
