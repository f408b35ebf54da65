"""The blur undone: each of these attacks wins back some of the signal. None is prevented; PRIVACY.md has the figures."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from tests.attacks.undoing import (
    Pair,
    average_beats,
    by_five_of_six,
    error_percent,
    in_company,
    released,
    with_a_prior,
    with_a_second_release,
)
from utility.choices import SOURCE
from utility.measurements import Setting
from utility.measurements import error_percent as error_of


def error_left(pairs: Sequence[Pair]) -> float:
    return float(np.mean([error_percent(*pair) for pair in pairs]))


@pytest.fixture(scope="module")
def as_released() -> float:
    return error_left([(signal.raw_uv, signal.released_uv) for signal in released(20)])


def test_what_other_people_teach_takes_away_a_quarter_of_the_error(as_released: float) -> None:
    assert error_left(with_a_prior(20)) < 0.78 * as_released


def test_a_second_release_with_windows_of_another_length_takes_away_a_quarter_of_the_error(as_released: float) -> None:
    assert error_left(with_a_second_release(20)) < 0.75 * as_released


def test_the_average_beat_of_five_minutes_is_off_by_a_quarter_of_the_error(as_released: float) -> None:
    assert error_left(average_beats(20)) < 0.27 * as_released


def test_five_of_six_wearers_who_put_their_rows_together_take_away_a_fifth_of_the_error() -> None:
    assert error_left(by_five_of_six(5)) < 0.8 * error_of(Setting(SOURCE, 360, 5, shared=True))


def test_what_is_left_of_an_ecg_depends_on_who_shares_its_windows() -> None:
    errors = in_company(5)

    assert {len(of_record) for of_record in errors.values()} == {5}
    assert max(max(of_record) / min(of_record) for of_record in errors.values()) > 1.8
