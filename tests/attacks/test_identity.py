"""The identity attacks work on raw ECG, and as well on what is released: that is measured, and said on the page, not prevented."""

from __future__ import annotations

import numpy as np
import pytest

from anonymizer.windows import NANOSECONDS
from recognition.attackers import (
    ATTACKS,
    Attack,
    Features,
    Recognition,
    Trace,
    attempt_on_raw,
    by_average_beat,
    by_nearest_beats,
    by_rhythm,
    carry_out,
    features_of,
)
from utility.choices import DEFAULT, RHYTHM
from utility.heartbeats import detector
from utility.measurements import Setting, raw_traces, recognitions, released_traces
from utility.outcome import Floats

WITHOUT_SHAPE = Setting(RHYTHM, 360, 5, window_s=10)

FAST = tuple(attack for attack in ATTACKS if attack.span_s == 30)


def shape(*values: float) -> Floats:
    centred = np.array(values) - np.mean(values)
    return np.asarray(centred / np.linalg.norm(centred))


def features(shapes: list[Floats], intervals: list[list[float]]) -> Features:
    return Features(np.array(shapes).reshape(-1, 3), np.array(intervals).reshape(-1, 2))


def test_each_attacker_goes_by_what_his_name_says() -> None:
    up, down, flat_then_up = shape(0, 1, 2), shape(2, 1, 0), shape(0, 0, 1)
    # On average the first person resembles no one, but one of his beats equals the one seen.
    known = [features([flat_then_up, down], [[0.0, 0.0]]), features([up], [[1.0, 1.0]]), features([], [])]
    seen = features([flat_then_up], [[0.9, 1.0]])

    assert by_average_beat(known, seen) == 1
    assert by_nearest_beats(known, seen) == 0
    assert by_rhythm(known, seen) == 1
    assert {by(known, features([], [])) for by in (by_average_beat, by_nearest_beats, by_rhythm)} == {None}


def test_all_attackers_name_the_right_one_of_six_people_far_more_often_than_by_chance() -> None:
    for found in carry_out(attempt_on_raw(raw_traces(360), detector()), FAST):
        assert sum(found.spans) == 30
        assert found.chance == pytest.approx(1 / 6)
        assert found.rate > 4 * found.chance
        assert found.interval[0] > found.chance


def test_on_noise_they_do_no_better_than_chance() -> None:
    chance = np.random.default_rng(4)
    noise = [Trace(trace.times_ns, chance.normal(0, 200, len(trace.times_ns))) for trace in raw_traces(360)]

    for found in carry_out(attempt_on_raw(raw_traces(360), detector()).on(noise), FAST):
        # Within three standard deviations of 30 fair guesses.
        assert abs(found.rate - 1 / 6) < 3 * np.sqrt(1 / 6 * 5 / 6 / 30)


def test_they_never_see_the_part_of_a_recording_that_they_know() -> None:
    raw = raw_traces(360)
    middle_ns = int(raw[0].times_ns[0]) + 150 * NANOSECONDS
    attempt = attempt_on_raw(raw, detector()).on([trace.between(0, middle_ns) for trace in raw])

    (found,) = carry_out(attempt, [Attack("nearest beats", by_nearest_beats, 30)])
    assert found.spans == (0,) * 6
    assert np.isnan(found.rate)


def test_uneven_times_and_gaps_do_not_stop_them() -> None:
    chance = np.random.default_rng(5)
    (raw, *_) = raw_traces(360)
    kept = np.sort(chance.choice(len(raw.times_ns) // 5, 15_000, replace=False))
    kept = kept[(kept < 5_000) | (kept > 6_000)]
    shapes = features_of(Trace(raw.times_ns[kept], raw.values_uv[kept]), detector()).shapes

    assert len(shapes) > 30
    assert np.median(shapes @ features_of(raw, detector()).shapes.mean(axis=0)) > 0.8


def test_a_beat_that_reaches_into_a_gap_is_left_out() -> None:
    whole = raw_traces(360)[0].between(0, int(raw_traces(360)[0].times_ns[0]) + 60 * NANOSECONDS)
    peak_ns = int(whole.times_ns[np.argmax(whole.values_uv)])
    # Longer than a pause between rows may be, and before the next beat.
    in_gap = (whole.times_ns > peak_ns + NANOSECONDS // 10) & (whole.times_ns < peak_ns + NANOSECONDS * 35 // 100)
    shapes, of_whole = (
        features_of(trace, detector()).shapes for trace in (Trace(whole.times_ns[~in_gap], whole.values_uv[~in_gap]), whole)
    )

    assert len(shapes) == len(of_whole) - 1


@pytest.mark.parametrize("k", [5, 20])
def test_value_k_anonymization_does_not_hide_whose_heart_it_is(k: int) -> None:
    # Were this to fail, PRIVACY.md would have to say something better than it does.
    attempt = attempt_on_raw(raw_traces(360), detector())
    released = attempt.on(released_traces(Setting(DEFAULT, 360, k)))

    for before, after in zip(carry_out(attempt, FAST), carry_out(released, FAST), strict=True):
        assert after.rate >= 0.9 * before.rate


@pytest.mark.parametrize("number", [number for number, attack in enumerate(ATTACKS) if attack.attacker is not by_rhythm])
def test_without_its_shape_a_heart_is_recognised_no_better_than_by_chance(number: int) -> None:
    found = recognitions(WITHOUT_SHAPE)[number]

    assert sum(found.spans) >= 6
    assert found.rate < 2 * found.chance
    # Nearly all spans are given the same name: all people's beats are one.
    assert sum(right > 0 for right in found.right) <= 1


def test_the_rhythm_that_is_kept_identifies_too() -> None:
    # Were this to fail, PRIVACY.md would say less of METHOD=rhythm than is true.
    for number, attack in enumerate(ATTACKS):
        if attack.attacker is by_rhythm:
            assert recognitions(WITHOUT_SHAPE)[number].rate > 2.5 / 6


def test_an_interval_is_as_wide_as_that_of_so_many_people() -> None:
    # Wilson's interval of one right in six, and of six in six, by its formula.
    always_the_first = Recognition((30, 0, 0, 0, 0, 0), (30,) * 6)
    always_right = Recognition((1,) * 6, (1,) * 6)

    assert always_the_first.rate == pytest.approx(always_the_first.chance)
    assert always_the_first.interval == pytest.approx((0.0301, 0.5635), abs=0.0005)
    assert always_right.interval == pytest.approx((0.6097, 1.0), abs=0.0005)
    assert always_right.in_words == "6 of 6: 100 % (61–100)"
    assert Recognition((0, 0), (0, 0)).in_words == "–"
