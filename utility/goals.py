"""Fidelity goals for anonymized ECG: each goal, the measured figure, and whether it is met.

The goals apply to records that are alone in their windows, the hardest case: several wearers in a window share the error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from recognition.attackers import ATTACKS, by_rhythm
from utility.choices import DEFAULT, OPTIMAL, is_available
from utility.measurements import Measured, OfRecord, Setting, heartbeats, measure, recognitions
from utility.records import RATES_HZ
from utility.rhythm_measures import SETTING as RHYTHM_SETTING
from utility.rhythm_measures import rhythm_losses

KS = (5, 10, 20)

#: (Hz, k) with absolute goals for heartbeats and heart rate; elsewhere they are compared with the optimum.
TIGHT = ((360, 5), (360, 10), (128, 5))

#: Tolerance for rounding of sums, and of groups whose means round to the same value.
EQUAL = 0.001


@dataclass(frozen=True, slots=True)
class Goal:
    """One goal.

    Args:
        measure: What is measured.
        setting: Sampling rate and k.
        wanted: The goal, as text.
        measured: The figure, as text.
        is_met: Whether the goal is met; None if the settings are not available in this version.
    """

    measure: str
    setting: str
    wanted: str
    measured: str
    is_met: bool | None


def goals() -> Iterator[Goal]:
    """Measure every goal, in the order of the table."""
    yield from _squared_errors()
    yield from _prdn()
    yield from _correlations()
    yield from _heartbeats()
    yield from _rhythm()
    yield from _rows()
    yield from _without_shape()


def _squared_errors() -> Iterator[Goal]:
    for hertz, k in _everywhere():
        one = measure(Setting(DEFAULT, hertz, k))
        yield Goal(
            "squared error ÷ optimum, default: pooled (worst record)",
            _where(hertz, k),
            "≤ 1.2 (≤ 1.35)",
            f"{one.pooled_ratio:.3f} ({one.worst_ratio:.3f})",
            one.pooled_ratio <= 1.2 and one.worst_ratio <= 1.35,
        )
    for hertz, k in _everywhere():
        yield _of_optimal(
            "squared error ÷ optimum, optimal",
            hertz,
            k,
            "1.00",
            lambda one: (f"{one.worst_ratio:.4f}", one.worst_ratio <= 1 + EQUAL),
        )


def _prdn() -> Iterator[Goal]:
    one = measure(Setting(DEFAULT, 360, 5))
    mean, worst = one.mean(_prdn_of), one.worst(_prdn_of)
    yield Goal(
        "PRDN: mean of six (worst)",
        _where(360, 5),
        "≤ 3 % (≤ 3.3 %)",
        f"{mean:.2f} % ({worst:.2f} %)",
        mean <= 3 and worst <= 3.3,
    )


def _correlations() -> Iterator[Goal]:
    for hertz, k, least in ((360, 5, 0.9995), (128, 5, 0.998), (128, 20, 0.975)):
        r = measure(Setting(DEFAULT, hertz, k)).mean(lambda record: record.likeness.correlation)
        yield Goal("Pearson r, mean of six", _where(hertz, k), f"≥ {least}", f"{r:.4f}", r >= least)


def _heartbeats() -> Iterator[Goal]:
    for what, of in (("Se", _se_lost), ("PPV", _ppv_lost)):
        for hertz, k in _everywhere():
            lost = measure(Setting(DEFAULT, hertz, k)).mean(of)
            name = f"R-peak {what} lost, points"
            if (hertz, k) in TIGHT:
                yield Goal(name, _where(hertz, k), "≤ 0.5", _signed(lost), lost <= 0.5)
            else:
                yield _of_optimal(name, hertz, k, "≤ 0.5 more than optimal", partial(_no_worse, lost, of))


def _no_worse(lost: float, of: Callable[[OfRecord], float], optimal: Measured) -> tuple[str, bool]:
    return f"{_signed(lost)}, optimal {_signed(optimal.mean(of))}", lost - optimal.mean(of) <= 0.5


def _signed(points: float) -> str:
    return f"{points:.2f}".replace("-", "−")


def _rhythm() -> Iterator[Goal]:
    for hertz, k in TIGHT:
        bpm = measure(Setting(DEFAULT, hertz, k)).mean(heartbeats(lambda loss: loss.rate_bpm))
        yield Goal("heart rate error, bpm", _where(hertz, k), "≤ 0.5", f"{bpm:.2f}", bpm <= 0.5)
    for hertz, k in _everywhere():
        error = measure(Setting(DEFAULT, hertz, k)).mean(heartbeats(lambda loss: loss.rmssd_percent))
        yield Goal("RMSSD error, mean of six", _where(hertz, k), "≤ 5 %", f"{error:.1f} %", error <= 5)


def _rows() -> Iterator[Goal]:
    default = [measure(Setting(DEFAULT, hertz, k)) for hertz, k in _everywhere()]
    withheld, invented = sum(one.withholdable for one in default), sum(one.invented for one in default)
    yield Goal("rows withheld in windows that hold ≥ k rows, default", "all of the above", "0", str(withheld), withheld == 0)
    yield Goal("rows with an invented value, default", "all of the above", "0", str(invented), invented == 0)
    if is_available(OPTIMAL):
        withheld = sum(measure(Setting(OPTIMAL, hertz, k)).withholdable for hertz, k in _everywhere())
        yield Goal("rows withheld in windows that hold ≥ k rows, optimal", "all of the above", "0", str(withheld), withheld == 0)


def _without_shape() -> Iterator[Goal]:
    yield from _recognition_by_shape()
    losses = rhythm_losses()
    released, raw = (
        np.concatenate(errors) for errors in zip(*((one.rate_errors_bpm, one.raw_rate_errors_bpm) for one in losses), strict=True)
    )
    median, mean, of_raw = float(np.median(released)), float(released.mean()), float(raw.mean())
    yield _of_rhythm("heart rate error in a window, bpm: median", "≤ 0.1", f"{median:.2f}", median <= 0.1)
    yield _of_rhythm("heart rate error in a window, bpm: mean", "≤ raw windows", f"{mean:.2f}, raw {of_raw:.2f}", mean <= of_raw)
    checked, unexplained = sum(one.released for one in losses), sum(one.unexplained for one in losses)
    name = "rows the outside check cannot explain"
    yield _of_rhythm(name, "0", f"{unexplained} of {checked:,}", unexplained == 0 and checked > 0)
    for name, most, figures in (
        ("R-peak Se lost, points", 0.5, [one.sensitivity_points for one in losses]),
        ("R-peak PPV lost, points", 0.5, [one.predictivity_points for one in losses]),
        ("RMSSD error, %, mean of six", 2, [one.rmssd_percent for one in losses]),
        ("rows withheld as noise, %, mean of six", 10, [one.withheld_percent for one in losses]),
    ):
        figure = float(np.mean(figures))
        yield _of_rhythm(name, f"≤ {most}", _signed(figure), figure <= most)


def _recognition_by_shape() -> Iterator[Goal]:
    for attack, found in zip(ATTACKS, recognitions(RHYTHM_SETTING), strict=True):
        if attack.attacker is not by_rhythm and attack.span_s <= 30:
            name = f"right wearer named, {attack.name}, {attack.span_s} s"
            yield _of_rhythm(name, "≤ 2 × chance", found.in_words, found.rate <= 2 * found.chance)


def _of_rhythm(name: str, wanted: str, measured: str, is_met: bool) -> Goal:
    return Goal(
        name, f"{RHYTHM_SETTING.choice.name}, {RHYTHM_SETTING.hertz} Hz, {RHYTHM_SETTING.window_s} s", wanted, measured, is_met
    )


def _of_optimal(name: str, hertz: int, k: int, wanted: str, judge: Callable[[Measured], tuple[str, bool]]) -> Goal:
    if not is_available(OPTIMAL):
        return Goal(name, _where(hertz, k), wanted, "not available", None)
    measured, is_met = judge(measure(Setting(OPTIMAL, hertz, k)))
    return Goal(name, _where(hertz, k), wanted, measured, is_met)


def _everywhere() -> Iterator[tuple[int, int]]:
    yield from ((hertz, k) for hertz in RATES_HZ for k in KS)


def _where(hertz: int, k: int) -> str:
    return f"{hertz} Hz, k {k}"


def _prdn_of(record: OfRecord) -> float:
    return record.likeness.prdn


_se_lost = heartbeats(lambda loss: loss.sensitivity_points)
_ppv_lost = heartbeats(lambda loss: loss.predictivity_points)


def verdict_of(goal: Goal) -> str:
    """Return a goal's verdict, as text."""
    if goal.is_met is None:
        return "not available"
    return "met" if goal.is_met else "MISSED"


def sum_of(goals: Sequence[Goal]) -> str:
    """Return a sentence that counts the verdicts."""
    verdicts = [verdict_of(goal) for goal in goals]
    said = f"{len(goals)} goals: {verdicts.count('met')} met, {verdicts.count('MISSED')} missed"
    return f"{said}, {verdicts.count('not available')} not available." if "not available" in verdicts else f"{said}."
