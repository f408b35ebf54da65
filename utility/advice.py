"""Recommends k and window length for a user's data: measures each pair of a grid on a sample.

The figures are computed from raw data, over all sources of many windows. Only people who may see the raw data may see them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from anonymizer.samples import Samples
from recognition.attackers import Recognition
from recognition.trial import Way, recognitions
from utility.choices import RECORD, RHYTHM, SOURCE, Choice, is_available, recipe_of
from utility.fidelity_measures import likeness, without_gaps
from utility.heartbeats import agreement, detected_beats, detector, has_detector
from utility.outcome import Ints, Outcome, Signal, outcome_of

#: Fewer windows are not representative, and figures of so few can reveal single rows.
ENOUGH_WINDOWS = 12

#: If more rows are withheld, in per cent, k or the window length does not suit the data.
MOST_WITHHELD_PERCENT = 1.0

#: Least share, in per cent, of raw heartbeats found in the released signal, and of released ones found in the raw signal.
LEAST_BEATS_PERCENT = 99.5

#: Windows that keep so many fewer heartbeats are as good as the best.
MOST_BEATS_LOST_PERCENT = 0.5

#: More people than this make no attacker better, only slower.
MOST_PEOPLE = 50

#: Recognition is tried with windows of this length, and with `METHOD=rhythm` of its default, in seconds. It hardly depends on them.
RECOGNITION_WINDOW_S, RHYTHM_WINDOW_S = 5, 10

#: Above this error, in per cent, the highest waves are visibly cut. A rule of thumb; --most-error sets another.
MOST_ERROR_PERCENT = 10.0


@dataclass(frozen=True, slots=True)
class Trial:
    """The figures of one pair of k and window length; NaN if nothing could be measured.

    Args:
        by_source: Whether k counts sources.
        k: Least number of rows or sources that share each value; 0 with `METHOD=rhythm`, which forms no groups.
        window_s: Length of a window, seconds.
        windows: Windows with at least one row.
        withheld_percent: Rows that would not be released.
        error_percent: PRDN, the mean over all sources.
        worst_error_percent: PRDN of the worst source.
        unchanged_percent: Rows whose released value equals the raw one.
        beats_found_percent: Heartbeats of the raw signal that are found in the released one too; NaN without a detector.
        beats_right_percent: Heartbeats found in the released signal that are in the raw one too; NaN without a detector.
    """

    by_source: bool
    k: int
    window_s: int
    windows: int
    withheld_percent: float
    error_percent: float
    worst_error_percent: float
    unchanged_percent: float
    beats_found_percent: float
    beats_right_percent: float

    def is_good(self, most_error_percent: float) -> bool:
        """Return whether suppression, error and, if there is a detector, lost heartbeats stay within the limits."""
        beats = (self.beats_found_percent, self.beats_right_percent)
        return (
            self.withheld_percent <= MOST_WITHHELD_PERCENT
            and self.error_percent <= most_error_percent
            and all(math.isnan(one) or one >= LEAST_BEATS_PERCENT for one in beats)
        )


def try_out(samples: Samples, choice: Choice, *, k: int, window_s: int) -> Trial:
    """Anonymize the sample and measure what that costs.

    Raises:
        ConfigurationError: The service would refuse the settings.
    """
    outcome = outcome_of(samples, recipe_of(choice, k=k, window_s=window_s), window_s=window_s)
    alike = [likeness(signal) for signal in outcome.signals()]
    found, right = _beats(outcome)
    errors = [one.prdn for one in alike if not math.isnan(one.prdn)]
    return Trial(
        by_source=choice.by_source,
        k=0 if choice.removes_shapes else k,
        window_s=window_s,
        windows=outcome.windows,
        withheld_percent=100.0 * float(np.isnan(outcome.released_uv).mean()),
        error_percent=float(np.mean(errors)) if errors else math.nan,
        worst_error_percent=max(errors, default=math.nan),
        unchanged_percent=100.0 * _mean([one.unchanged for one in alike]),
        beats_found_percent=found,
        beats_right_percent=right,
    )


def _mean(figures: Sequence[float]) -> float:
    known = [figure for figure in figures if not math.isnan(figure)]
    return float(np.mean(known)) if known else math.nan


def _beats(outcome: Outcome) -> tuple[float, float]:
    """Return sensitivity and positive predictive value against the raw signal, per cent over all sources; NaN without a detector."""
    if not has_detector():
        return math.nan, math.nan
    matches = [agreement(*_beats_of(signal)) for signal in outcome.signals()]
    found = sum(int((one.found_ns >= 0).sum()) for one in matches)
    before, after = sum(one.annotated for one in matches), sum(one.detected for one in matches)
    return (100.0 * found / before if before else math.nan), (100.0 * found / after if after else math.nan)


def _beats_of(signal: Signal) -> tuple[Ints, Ints]:
    return (
        detected_beats(signal.times_ns, without_gaps(signal.released_uv), signal.hertz),
        detected_beats(signal.times_ns, signal.raw_uv, signal.hertz),
    )


def recognition(samples: Samples, choices: Sequence[Choice], ks: Sequence[int]) -> dict[str, Sequence[Recognition]]:
    """Return how often the attackers name the right wearer in the raw sample, and in what would be released with each choice and k.

    They have the raw first half of each recording. Empty without a detector, and with fewer than two wearers to tell apart.
    """
    if not has_detector():
        return {}
    if choices == [RHYTHM]:
        choices = [RECORD, SOURCE]
    return dict(recognitions(samples, list(_ways(choices, ks)), detector(), most_people=MOST_PEOPLE))


def _ways(choices: Sequence[Choice], ks: Sequence[int]) -> Iterator[Way]:
    """Yield each choice with each k, and `METHOD=rhythm`, where k has no meaning, once."""
    for choice in choices:
        if not choice.removes_shapes:
            yield from (_way(f"k = {k} {'sources' if choice.by_source else 'rows'}", choice, k, RECOGNITION_WINDOW_S) for k in ks)
    if is_available(RHYTHM):
        yield _way("METHOD=rhythm", RHYTHM, ks[0], RHYTHM_WINDOW_S)


def _way(name: str, choice: Choice, k: int, window_s: int) -> Way:
    return Way(name, recipe_of(choice, k=k, window_s=window_s), window_s)


def advice(trials: Sequence[Trial], *, most_error_percent: float = MOST_ERROR_PERCENT) -> Iterator[str]:
    """Yield a sentence per unit of k: the largest k that is good and its shortest window, or what to try if none is."""
    if not trials[0].k:
        yield _sentence_on_rhythm(trials)
        return
    for by_source in dict.fromkeys(trial.by_source for trial in trials):
        yield _sentence([trial for trial in trials if trial.by_source == by_source], by_source, most_error_percent)


def _sentence_on_rhythm(trials: Sequence[Trial]) -> str:
    said = "METHOD=rhythm keeps heartbeats and no value, so k and error do not apply"
    if any(math.isnan(one.beats_found_percent) for one in trials):
        return f"{said}."
    best = max(one.beats_found_percent for one in trials)
    enough = min(one.window_s for one in trials if one.beats_found_percent >= best - MOST_BEATS_LOST_PERCENT)
    return (
        f"{said}. Take BATCH_SIZE_SECONDS={enough}: the shortest window here that keeps as many of the heartbeats as any, to half a per "
        "cent. What is withheld shows no heartbeats, or none that could be told from noise."
    )


def _sentence(trials: Sequence[Trial], by_source: bool, most_error_percent: float) -> str:
    setting = "K_UNIT=source" if by_source else "K_UNIT=record"
    shortest = {
        k: min((one.window_s for one in trials if one.k == k and one.is_good(most_error_percent)), default=0)
        for k in sorted({one.k for one in trials})
    }
    enough = {k: window_s for k, window_s in shortest.items() if window_s}
    missed = [str(k) for k in shortest if k not in enough]
    if not enough:
        return f"With {setting} nothing in this table will do. {_way_on(trials, by_source)}"
    best = max(enough)
    smaller = "".join(f"; k = {k} does from {window_s} s on" for k, window_s in enough.items() if k != best)
    larger = f" No window here will do for k = {', '.join(missed)}. {_way_on(trials, by_source)}" if missed else ""
    return (
        f"With {setting} take K_VALUE={best} and BATCH_SIZE_SECONDS={enough[best]}: the largest k here, with its shortest window, that "
        f"withholds next to nothing, keeps the error within {most_error_percent:g} % and heartbeats where they were{smaller}.{larger}"
    )


def _way_on(trials: Sequence[Trial], by_source: bool) -> str:
    nothing = sorted({one.k for one in trials if one.withheld_percent == 100.0})
    if by_source and nothing:
        return (
            f"For k = {', '.join(map(str, nothing))} there are too few sources; more of them, longer windows or a smaller k help."
        )
    return f"Longer windows, more {'sources' if by_source else 'wearers'} in a window or a smaller k help."
