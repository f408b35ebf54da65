"""Attacks that win back some of the signal. Each returns the six records, nearer to the raw ones than what was released."""

from __future__ import annotations

from itertools import combinations

import numpy as np

from anonymizer.samples import make_samples
from anonymizer.windows import NANOSECONDS
from utility.choices import DEFAULT, SOURCE, recipe_of
from utility.fidelity_measures import likeness
from utility.heartbeats import detected_beats
from utility.measurements import WINDOW_S, Setting, outcomes_of
from utility.outcome import Bools, Floats, Signal, outcome_of
from utility.records import records

HERTZ = 360

#: How many values on each side of a row the prior goes by.
TAPS = 10

#: A second release has windows of this length, in seconds.
OTHER_WINDOW_S = 7

#: What is averaged of every beat, in rows around its detection: 200 ms before to 400 ms after.
AROUND_BEAT = np.arange(-72, 144)

Pair = tuple[Floats, Floats]


def error_percent(raw_uv: Floats, other_uv: Floats) -> float:
    """Return PRDN."""
    return 100.0 * float(np.linalg.norm(raw_uv - other_uv) / np.linalg.norm(raw_uv - raw_uv.mean()))


def released(k: int, window_s: int = WINDOW_S) -> list[Signal]:
    """Return the six records, each alone in its windows, default settings."""
    return [signal for outcome in outcomes_of(Setting(DEFAULT, HERTZ, k, window_s)) for signal in outcome.signals()]


def with_a_prior(k: int) -> list[Pair]:
    """Return each record raw, and sharpened by what the other five teach: how raw values differ from released ones and their neighbours.

    Linear regression on the 21 released values about a row, once for values that 2k rows or more share and once for the others.
    """
    signals = released(k)
    around = [_around(signal.released_uv) for signal in signals]
    rare = [_is_rare(signal, k) for signal in signals]
    won = [signal.released_uv.copy() for signal in signals]
    for of_kind in ([mask for mask in rare], [~mask for mask in rare]):
        inputs = [rows[mask] for rows, mask in zip(around, of_kind, strict=True)]
        away = [(one.raw_uv - one.released_uv)[mask] for one, mask in zip(signals, of_kind, strict=True)]
        squares = [rows.T @ rows for rows in inputs]
        products = [rows.T @ moved for rows, moved in zip(inputs, away, strict=True)]
        for number, mask in enumerate(of_kind):
            others = [other for other in range(len(signals)) if other != number]
            weights = np.linalg.lstsq(
                np.sum([squares[other] for other in others], axis=0), np.sum([products[other] for other in others], axis=0)
            )[0]
            won[number][mask] += inputs[number] @ weights
    return [(signal.raw_uv, values) for signal, values in zip(signals, won, strict=True)]


def _around(values_uv: Floats) -> Floats:
    """Return for each row how far the values about it are from its own, and a constant."""
    padded = np.pad(values_uv, TAPS, mode="edge")
    about = np.lib.stride_tricks.sliding_window_view(padded, 2 * TAPS + 1) - values_uv[:, None]
    return np.column_stack((np.delete(about, TAPS, axis=1), np.ones(len(values_uv))))


def _is_rare(signal: Signal, k: int) -> Bools:
    window = (signal.times_ns - signal.times_ns[0]) // (WINDOW_S * NANOSECONDS)
    _, group, rows = np.unique(np.stack((window, signal.released_uv)), axis=1, return_inverse=True, return_counts=True)
    return np.asarray(rows[group.ravel()] < 2 * k)


def with_a_second_release(k: int) -> list[Pair]:
    """Return each record raw, and as the mean of two releases with windows of different lengths."""
    pairs = zip(released(k), released(k, OTHER_WINDOW_S), strict=True)
    return [(first.raw_uv, (first.released_uv + second.released_uv) / 2) for first, second in pairs]


def average_beats(k: int) -> list[Pair]:
    """Return the average beat of each record over five minutes, raw and as released, at the beats detected in what was released."""
    pairs = []
    for signal in released(k):
        beats = np.searchsorted(signal.times_ns, detected_beats(signal.times_ns, signal.released_uv, HERTZ))
        whole = beats[(beats + AROUND_BEAT[0] >= 0) & (beats + AROUND_BEAT[-1] < len(signal.times_ns))]
        about = whole[:, None] + AROUND_BEAT
        pairs.append((signal.raw_uv[about].mean(axis=0), signal.released_uv[about].mean(axis=0)))
    return pairs


def by_five_of_six(k: int) -> list[Pair]:
    """Return each record raw, and as the other five, who know their own rows, work it out; k counts sources."""
    (outcome,) = outcomes_of(Setting(SOURCE, HERTZ, k, shared=True))
    _, group = np.unique(np.stack((outcome.window, outcome.released_uv)), axis=1, return_inverse=True)
    group = group.ravel()
    totals = np.bincount(group, weights=outcome.released_uv)
    pairs = []
    for number in range(len(outcome.source_ids)):
        mine = outcome.source == number
        known = np.bincount(group[~mine], weights=outcome.raw_uv[~mine], minlength=len(totals))
        unknown = np.bincount(group[mine], minlength=len(totals))
        pairs.append((outcome.raw_uv[mine], ((totals - known) / np.maximum(unknown, 1))[group[mine]]))
    return pairs


def in_company(k: int) -> dict[str, list[float]]:
    """Return the error of each record in every company of k − 1 of the other five, k sources sharing each value."""
    errors: dict[str, list[float]] = {record.source_id: [] for record in records(HERTZ)}
    for company in combinations(records(HERTZ), k):
        names = [record.source_id for record in company]
        samples = make_samples(
            np.concatenate([record.times_ns for record in company]),
            np.repeat(np.arange(k), [len(record.times_ns) for record in company]),
            names,
            np.concatenate([record.values_uv for record in company]),
        )
        for signal in outcome_of(samples, recipe_of(SOURCE, k=k, window_s=WINDOW_S), window_s=WINDOW_S).signals():
            errors[signal.source_id].append(likeness(signal).prdn)
    return errors
