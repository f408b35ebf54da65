"""The identity attack works on raw ECG, and as well on what is released: that is measured, and said on the page, not prevented."""

from __future__ import annotations

import numpy as np
import pytest

from anonymizer.windows import NANOSECONDS
from tests.attacks.linkage import HERTZ, as_measured, as_released, recognised
from utility.choices import DEFAULT
from utility.records import records


def test_of_six_people_the_attacker_names_the_right_one_far_more_often_than_by_chance() -> None:
    found = recognised(as_measured())

    assert found.windows == 180
    assert found.chance == pytest.approx(1 / 6)
    assert found.rate > 3 * found.chance


def test_on_noise_he_does_no_better_than_chance() -> None:
    chance = np.random.default_rng(4)
    noise = [(record.times_ns, chance.normal(0, 200, len(record.times_ns))) for record in records(HERTZ)]

    # Within three standard deviations of 180 fair guesses.
    assert abs(recognised(noise).rate - 1 / 6) < 3 * np.sqrt(1 / 6 * 5 / 6 / 180)


def test_he_never_sees_the_part_of_a_recording_that_he_knows() -> None:
    middle_ns = records(HERTZ)[0].times_ns[0] + 150 * NANOSECONDS
    only_known = [(times_ns[times_ns < middle_ns], values_uv[times_ns < middle_ns]) for times_ns, values_uv in as_measured()]

    with pytest.raises(IndexError):
        recognised(only_known)


@pytest.mark.parametrize("k", [5, 20])
def test_value_k_anonymization_does_not_hide_whose_heart_it_is(k: int) -> None:
    # Were this to fail, PRIVACY.md would have to say something better than it does.
    assert recognised(as_released(DEFAULT, k)).rate > 0.9 * recognised(as_measured()).rate
