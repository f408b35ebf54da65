"""Attack 2: a published level or range, less what was released at finer ones, narrows a row."""

from __future__ import annotations

import numpy as np
import pytest

from tests.attacks.downcoding import Downcoded, counted_on, downcode
from tests.documentation.sample import CLASSIC, alone, batches_of, windows
from utility.choices import OPTIMAL, SOURCE, SOURCE_OPTIMAL, Choice
from utility.measurements import Setting, outcomes_of

MIDPOINTS = Choice("midpoints", {"IMPUTATION": "midpoint"})


def test_midpoints_narrow_rows_and_are_right_about_them() -> None:
    narrowed = above = 0
    for record in alone():
        for number, batch in enumerate(batches_of(record, CLASSIC(k=5))):
            raw = record.values_uv[windows().index_of(record.times_ns) == number]
            found = downcode(batch.values_uv)
            above += found.above
            for value, excluded in found.excluded.items():
                rows = raw[batch.values_uv == value]
                narrowed += len(rows)
                assert not any(((rows >= low) & (rows <= high)).any() for low, high in excluded)
    assert narrowed > above / 10


def downcoded(choice: Choice, k: int) -> list[Downcoded]:
    """Return what the attack gets out of every window of the records, alone or together, as the service's settings have it.

    At 128 Hz, where values are whole microvolts: those of 360 Hz lie 5 µV apart, too far for two levels of the default to nest.
    """
    return [
        downcode(outcome.released_uv[outcome.window == number])
        for outcome in outcomes_of(Setting(choice, 128, k, shared=choice.by_source))
        for number in np.unique(outcome.window)
    ]


def test_midpoints_would_narrow_rows_with_the_levels_of_the_default_too() -> None:
    assert sum(one.narrowed for one in downcoded(MIDPOINTS, 5)) > 1000


@pytest.mark.parametrize(("hertz", "claimed", "right"), [(360, 0.78, 0.99), (128, 0.13, 0.7)])
def test_how_many_rows_share_a_mean_tells_its_range_of_level_1(hertz: int, claimed: float, right: float) -> None:
    # Were this to fail, means would tell less than PRIVACY.md says.
    found = counted_on(hertz, 5)

    assert found.claimed / found.rows == pytest.approx(claimed, abs=0.01)
    assert found.claimed_rightly / found.claimed > right


def test_the_step_of_the_converter_tells_which_rows_keep_their_value() -> None:
    found = counted_on(360, 5)

    assert found.on_step / found.rows > 0.9
    assert found.on_step_rightly / found.on_step > 0.98


@pytest.mark.parametrize(("hertz", "most"), [(360, 0.0), (128, 0.03)])
def test_of_rows_in_wider_ranges_few_are_narrowed_by_the_counts(hertz: int, most: float) -> None:
    found = counted_on(hertz, 5)

    assert found.wider > 10_000
    assert found.narrowed <= most * found.wider
    assert found.narrowed_rightly == found.narrowed


@pytest.mark.parametrize(
    ("choice", "hertz", "rightly", "narrowed"),
    [
        (OPTIMAL, 360, 1.0, 0.10),
        (OPTIMAL, 128, 0.92, 0.02),
        (SOURCE, 360, 0.87, 0.01),
        (SOURCE, 128, 0.64, 0.02),
        (SOURCE_OPTIMAL, 360, 0.86, 0.37),
        (SOURCE_OPTIMAL, 128, 0.62, 0.93),
    ],
    ids=lambda one: getattr(one, "name", str(one)),
)
def test_the_counts_tell_no_more_of_other_ways_to_form_groups_than_the_page_says(
    choice: Choice, hertz: int, rightly: float, narrowed: float
) -> None:
    found = counted_on(hertz, 5, choice)

    assert found.claimed_rightly <= rightly * found.claimed
    assert found.narrowed <= narrowed * found.wider
    # A reader who takes out ranges that only seem to be at level 1 errs, and cannot tell where.
    assert found.narrowed_rightly < 0.99 * found.narrowed


def test_the_midpoint_of_the_example_tells_what_the_page_says() -> None:
    # 7.5 means [4, 11] and 10.5 means [10, 11], which is released too.
    found = downcode(np.array([10.5] * 3 + [7.5] * 3))

    assert found.excluded == {7.5: [(10, 11)]}
