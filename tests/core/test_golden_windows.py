"""Windows worked out by hand, under the classic settings and the default ones.

The ranges that the cases use, from lo = −2500 + w·⌊(v + 2500) / w⌋, hi = lo + w − 1 (see `test_plain_anonymizer`):

    level       1 (w 2)   2 (w 4)     3 (w 8)              7 (w 256)
    about 0     [0, 1]    [0, 3]      [−4, 3]              [−196, 59]
    about 10    [10, 11]  [8, 11]     [4, 11]              [−196, 59]
    above       even lo   multiple of 4   … [12, 19] [20, 27]   [60, 315] [316, 571] [572, 827] [828, 1083]

Rows stand at times 0, 1, 2 … of one source unless a case says otherwise, so released values are listed in the order of the rows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from anonymizer.batch import WindowCounts
from anonymizer.windows import WindowRange
from tests.core.both_ways import (
    ONE_WINDOW,
    Way,
    WindowSeen,
    one_window,
    shipped_ranges,
    through_the_plain_one,
    through_the_project,
)
from tests.core.plain_anonymizer import PlainSettings, Row


def classic(k: int, max_level: int = 7) -> PlainSettings:
    return PlainSettings(k=k, max_level=max_level, residual="impute", imputation="midpoint")


def default(k: int) -> PlainSettings:
    return PlainSettings(k=k, max_level=3, residual="regroup", imputation="mean")


def optimal(k: int) -> PlainSettings:
    return PlainSettings(k=k, method="optimal")


def values_of(window: WindowSeen) -> list[float]:
    return [float(value) for _, _, value in window.rows]


def levels_of(window: WindowSeen) -> dict[int, int]:
    return {level: rows for level, rows in enumerate(window.rows_at_level) if rows}


@dataclass(frozen=True)
class Golden:
    """Values in, values out, and how many rows end at which level (0 withheld, 8 regrouped or starred, 9 suppressed)."""

    name: str
    measured_uv: list[float]
    released_uv: list[float]
    rows_at_level: dict[int, int] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.name


def rows_of(values: Sequence[float]) -> list[Row]:
    return [Row(time_ns, "a", value) for time_ns, value in enumerate(values)]


CLASSIC_WITH_K_3 = [
    Golden("no row", [], []),
    Golden("one row is withheld", [7], [], {0: 1}),
    Golden("k − 1 rows are withheld, even equal ones", [7, 7], [], {0: 2}),
    # 0 and 1 are [0, 1].
    Golden("k rows of one range of level 1", [0, 1, 1], [0.5, 0.5, 0.5], {1: 3}),
    # [0, 1] holds two and [2, 3] one; [0, 3] holds three.
    Golden("k rows of one range of level 2", [0, 0, 2], [1.5, 1.5, 1.5], {2: 3}),
    # [0, 3] holds two and [−4, −1] one; [−4, 3] holds three: (−4 + 3) / 2.
    Golden("k rows of one range of level 3", [-1, 0, 2], [-0.5, -0.5, -0.5], {3: 3}),
    # 10 and 20: level 3 [4, 11] [20, 27], level 4 [−4, 11] [12, 27], level 5 [−4, 27], with 0: (−4 + 27) / 2.
    Golden("k rows of one range of level 5", [0, 10, 20], [11.5, 11.5, 11.5], {5: 3}),
    # −100 and 50 share no range below [−196, 59]: (−196 + 59) / 2.
    Golden("k rows of one range of level 7", [-100, 50, 50], [-68.5, -68.5, -68.5], {7: 3}),
    # 0 is in [−196, 59], 1000 in [828, 1083], 2000 in [1852, 2107]: none placed, so there is nothing to impute from.
    Golden("k rows far apart are withheld: no value could be imputed", [0, 1000, 2000], [], {0: 3}),
    # One left over is suppressed and gets the mean of the placed rows' values, 0.5.
    Golden("k + 1 rows, one left over", [0, 1, 1, 500], [0.5, 0.5, 0.5, 0.5], {1: 3, 9: 1}),
    Golden("k + 1 rows, all placed", [0, 1, 1, 0], [0.5, 0.5, 0.5, 0.5], {1: 4}),
    # 500 in [316, 571], 900 in [828, 1083].
    Golden("k − 1 left over are suppressed", [500, 0, 1, 1, 900], [0.5, 0.5, 0.5, 0.5, 0.5], {1: 3, 9: 2}),
    # 2000 in [1852, 2107].
    Golden("k left over are starred", [500, 0, 1, 1, 900, 2000], [0.5, 0.5, 0.5, 0.5, 0.5, 0.5], {1: 3, 8: 3}),
    # Means weigh rows, not groups, and are not rounded: (3 · 0.5 + 4 · 10.5) / 7 = 43.5 / 7.
    Golden(
        "the imputed mean weighs every placed row and is not rounded",
        [0, 0, 0, 10, 10, 10, 10, 900],
        [0.5, 0.5, 0.5, 10.5, 10.5, 10.5, 10.5, 43.5 / 7],
        {1: 7, 9: 1},
    ),
    # Were the rows' own values part of it, 2000 + 2000 + 0.5 · 3 would make it 800.3.
    Golden("the imputed mean does not depend on the rows that carry it", [0, 0, 0, 2000, 2000], [0.5] * 5, {1: 3, 9: 2}),
    Golden("all equal", [7, 7, 7, 7, 7], [6.5] * 5, {1: 5}),
    # 1000 = −2500 + 2 · 1750 begins a range.
    Golden("two far clusters", [0, 1000, 0, 1000, 0, 1000], [0.5, 1000.5, 0.5, 1000.5, 0.5, 1000.5], {1: 6}),
    # −8 = −2500 + 2 · 1246 begins [−8, −7].
    Golden("all values negative", [-7, -7, -8], [-7.5, -7.5, -7.5], {1: 3}),
    Golden("zero is a value like any other", [0, 0, 0], [0.5, 0.5, 0.5], {1: 3}),
    # [0, 1] takes the zeros at level 1. From then on every range around 2 and 3 holds just these two.
    Golden("rows placed at a finer level do not count again", [0, 0, 0, 2, 3], [0.5] * 5, {1: 3, 9: 2}),
]


@pytest.mark.parametrize("golden", CLASSIC_WITH_K_3, ids=str)
def test_the_classic_settings_release_what_the_definition_says(way: Way, golden: Golden) -> None:
    window = one_window(way, rows_of(golden.measured_uv), classic(3))

    assert values_of(window) == golden.released_uv
    assert levels_of(window) == golden.rows_at_level


DEFAULT_WITH_K_3 = [
    Golden("no row", [], []),
    Golden("one row is withheld", [7], [], {0: 1}),
    Golden("k − 1 rows are withheld, even equal ones", [7, 7], [], {0: 2}),
    # 2 / 3 rounds to 1.
    Golden("k rows of one range of level 1", [0, 1, 1], [1, 1, 1], {1: 3}),
    Golden("k rows of one range of level 2", [0, 0, 2], [1, 1, 1], {2: 3}),
    # 1 / 3 rounds to 0.
    Golden("k rows of one range of level 3", [-1, 0, 2], [0, 0, 0], {3: 3}),
    # Level 4 is not asked: 30 / 3.
    Golden("k rows of no range up to level 3 are regrouped", [0, 10, 20], [10, 10, 10], {8: 3}),
    Golden("k rows far apart are regrouped", [0, 1000, 2000], [1000, 1000, 1000], {8: 3}),
    # 502 / 4 = 125.5 rounds to the even 126.
    Golden("k + 1 rows, the one left over dissolves the only group", [0, 1, 1, 500], [126, 126, 126, 126], {8: 4}),
    Golden("all equal", [7, 7, 7, 7, 7], [7] * 5, {1: 5}),
    Golden("two far clusters", [0, 1000, 0, 1000, 0, 1000], [0, 1000, 0, 1000, 0, 1000], {1: 6}),
    # −22 / 3 = −7.33…
    Golden("all values negative", [-7, -7, -8], [-7, -7, -7], {1: 3}),
    # −1 / 3 rounds to zero, and zero has no sign.
    Golden("a mean just below zero", [-1, 0, 0], [0, 0, 0], {3: 3}),
    Golden("zero is a value like any other", [0, 0, 0], [0, 0, 0], {1: 3}),
    # 8: ranges [8, 9] [8, 11] [4, 11] hold it alone; so do [100, …] and [200, …] the others. 0 0 0 stays: 308 / 3 = 102.67.
    Golden("k left over are grouped without anybody else", [8, 0, 0, 0, 100, 200], [103, 0, 0, 0, 103, 103], {1: 3, 8: 3}),
    # 100 200 300 | 1000 1100 1200.
    Golden("2k left over make two groups", [1000, 300, 100, 1200, 200, 1100], [1100, 200, 200, 1100, 200, 1100], {8: 6}),
    # 10 is 10 away from 0 and from 20: the lower is dissolved. (0 + 0 + 0 + 10) / 4 = 2.5 rounds to the even 2.
    Golden(
        "one left over, as near to two groups, dissolves the lower",
        [20, 0, 10, 0, 20, 0, 20],
        [20, 2, 2, 2, 20, 2, 20],
        {1: 3, 8: 4},
    ),
    # −10 is nearer to 0.
    Golden("one left over below all groups", [-10, 0, 0, 0, 20, 20, 20], [-2, -2, -2, -2, 20, 20, 20], {1: 3, 8: 4}),
    # 90 is nearer to 100. (90 + 100 + 100 + 100) / 4 = 97.5 rounds to the even 98.
    Golden("one left over dissolves the nearer group", [0, 0, 0, 90, 100, 100, 100], [0, 0, 0, 98, 98, 98, 98], {1: 3, 8: 4}),
    # 10 takes 0 0 0, 90 takes 100 100 100. Of 0 0 0 10 90 100 100 100, four and four have error 75 + 75, less than 3 + 5 or 5 + 3.
    Golden(
        "k − 1 left over dissolve a group each, and the union is cut afresh",
        [0, 0, 0, 10, 90, 100, 100, 100],
        [2, 2, 2, 2, 98, 98, 98, 98],
        {8: 8},
    ),
    # 10 and 12 ([4, 11] and [12, 19]) both take 0 0 0; 100 100 100 stays. 22 / 5 = 4.4.
    Golden(
        "k − 1 left over may dissolve the same group",
        [0, 0, 0, 10, 12, 100, 100, 100],
        [4, 4, 4, 4, 4, 100, 100, 100],
        {1: 3, 8: 5},
    ),
]


@pytest.mark.parametrize("golden", DEFAULT_WITH_K_3, ids=str)
def test_the_default_settings_release_what_the_definition_says(way: Way, golden: Golden) -> None:
    window = one_window(way, rows_of(golden.measured_uv), default(3))

    assert values_of(window) == golden.released_uv
    assert levels_of(window) == golden.rows_at_level


OPTIMAL_WITH_K_3 = [
    Golden("no row", [], []),
    Golden("one row is withheld", [7], [], {0: 1}),
    Golden("k − 1 rows are withheld, even equal ones", [7, 7], [], {0: 2}),
    # 2 / 3 rounds to 1; no level is climbed, so all of them are past the last.
    Golden("k rows", [0, 1, 1], [1, 1, 1], {8: 3}),
    Golden("k rows far apart", [0, 1000, 2000], [1000, 1000, 1000], {8: 3}),
    # 502 / 4 = 125.5 rounds to the even 126: 500 is alone.
    Golden("k + 1 rows", [0, 1, 1, 500], [126, 126, 126, 126], {8: 4}),
    Golden("2k − 1 rows cannot be cut", [0, 0, 0, 100, 100], [40, 40, 40, 40, 40], {8: 5}),
    Golden("all equal", [7, 7, 7, 7, 7], [7] * 5, {8: 5}),
    Golden("two far clusters", [0, 1000, 0, 1000, 0, 1000], [0, 1000, 0, 1000, 0, 1000], {8: 6}),
    # 0 0 0 4 | 9 9 9 has error 12, 0 0 0 | 4 9 9 9 has 18.75. 4 / 4 = 1.
    Golden("the cut with the smaller error is taken", [0, 0, 0, 4, 9, 9, 9], [1, 1, 1, 1, 9, 9, 9], {8: 7}),
    # 0 0 0 5 | 10 10 10 and 0 0 0 | 5 10 10 10 both have error 18.75: the smaller last group. 5 / 4 = 1.25.
    Golden("of two equal errors the smaller last group", [0, 0, 0, 5, 10, 10, 10], [1, 1, 1, 1, 10, 10, 10], {8: 7}),
    # −22 / 3 = −7.33…
    Golden("all values negative", [-7, -7, -8], [-7, -7, -7], {8: 3}),
    Golden("a mean just below zero is zero without a sign", [-1, 0, 0], [0, 0, 0], {8: 3}),
    # Halves to even: 0.5 to 0, 1.5 and 2.5 to 2. 4 / 3 = 1.33.
    Golden("values are rounded before they are averaged", [0.5, 1.5, 2.5], [1, 1, 1], {8: 3}),
    # Coded to 2500: 5000 / 4 = 1250 and not 2.5e299.
    Golden("values beyond the hierarchy count as its ends", [0, 0, 9000, 1e300], [1250, 1250, 1250, 1250], {8: 4}),
]


@pytest.mark.parametrize("golden", OPTIMAL_WITH_K_3, ids=str)
def test_the_optimal_method_releases_what_the_definition_says(way: Way, golden: Golden) -> None:
    window = one_window(way, rows_of(golden.measured_uv), optimal(3))

    assert values_of(window) == golden.released_uv
    assert [repr(value) for value in values_of(window)] == [repr(float(value)) for value in golden.released_uv]
    assert levels_of(window) == golden.rows_at_level
    assert not any(window.imputed)


def test_of_two_groups_with_equal_means_the_one_of_the_finer_level_is_dissolved(way: Way) -> None:
    # k 4. Level 1: 0 0 1 1 fill [0, 1], mean 0.5. Of −1 −1 2 2, [−2, −1], [2, 3], [−4, −1] and [0, 3] hold two each, [−4, 3] all four:
    # level 3, mean 0.5 too. 100 is as far from both. 0 0 1 1 100: 102 / 5 = 20.4. The others keep 0.5, which rounds to the even 0.
    window = one_window(way, rows_of([0, 0, 1, 1, -1, -1, 2, 2, 100]), default(4))

    assert values_of(window) == [20, 20, 20, 20, 0, 0, 0, 0, 20]
    assert levels_of(window) == {3: 4, 8: 5}


def test_of_two_groups_as_near_the_lower_is_dissolved_even_where_it_is_of_the_wider_level(way: Way) -> None:
    # k 2. −4 and 2 meet at level 3 in [−4, 3], mean −1; 41 41 at level 1. 20 is 21 away from both. (−4 + 2 + 20) / 3 = 6.
    window = one_window(way, rows_of([-4, 2, 20, 41, 41]), default(2))

    assert values_of(window) == [6, 6, 6, 41, 41]
    assert levels_of(window) == {1: 2, 8: 3}


def test_distances_that_are_equal_are_equal_also_where_means_are_not_whole(way: Way) -> None:
    # 21 is 20⅔ away from 1/3 and from 41⅔: the lower. (0 + 0 + 1 + 21) / 4 = 5.5 rounds to the even 6. 41⅔ is released as 42.
    # As floats, 21 − 1/3 = 20.666666666666668 and 125/3 − 21 = 20.666666666666664.
    window = one_window(way, rows_of([0, 0, 1, 21, 41, 42, 42]), default(3))

    assert values_of(window) == [6, 6, 6, 6, 42, 42, 42]


def test_groups_are_chosen_by_their_means_also_where_midpoints_are_released(way: Way) -> None:
    # k 2, ranges [0, 1] and [20, 21]. 11 is 10 away from the mean 1 and from the mean 21: the lower, (1 + 1 + 11) / 3 = 4.33.
    # By midpoints, 0.5 and 20.5, the upper would be nearer. It is released as 20.5.
    settings = PlainSettings(k=2, max_level=3, residual="regroup", imputation="midpoint")
    window = one_window(way, rows_of([1, 1, 11, 21, 21]), settings)

    assert values_of(window) == [4, 4, 4, 20.5, 20.5]


def test_dropped_rows_are_withheld_and_the_others_keep_their_groups(way: Way) -> None:
    settings = PlainSettings(k=3, max_level=3, residual="drop", imputation="mean")
    window = one_window(way, rows_of([0, 500, 0, 0]), settings)

    assert [(time_ns, value) for time_ns, _, value in window.rows] == [(0, "0.0"), (2, "0.0"), (3, "0.0")]
    assert window.counts == WindowCounts(read=4, released=3, withheld=1)
    assert levels_of(window) == {0: 1, 1: 3}


def test_imputed_rows_are_counted_marked_and_carry_the_value_the_batch_declares(way: Way) -> None:
    suppressed = one_window(way, rows_of([0, 500, 0, 0]), classic(3))
    starred = one_window(way, rows_of([0, 500, 0, 0, 900, 2000]), classic(3))
    none = one_window(way, rows_of([0, 0, 0]), classic(3))

    assert suppressed.counts == WindowCounts(read=4, released=4, suppressed=1)
    assert starred.counts == WindowCounts(read=6, released=6, starred=3)
    assert suppressed.imputed == (False, True, False, False)
    assert starred.imputed == (False, True, False, False, True, True)
    assert (suppressed.imputed_value_uv, starred.imputed_value_uv, none.imputed_value_uv) == ("0.5", "0.5", "None")


@pytest.mark.parametrize(
    ("measured_uv", "released_uv"),
    [
        # 0 and 2. Rounded up, 1 and 2 would have the mean 1.5 and be released as 2.
        ([0.5, 1.5], 1),
        # 2 and 4. Rounded up, 3 and 4 would be released as 4.
        ([2.5, 3.5], 3),
        # 0 and −2. Rounded up, 0 and −1 would be released as 0; away from zero, −1 and −2 as −2.
        ([-0.5, -1.5], -1),
        # 0 and 2, as above: what is not quite a half is no half.
        ([0.4999999999999999, 1.5000000000000002], 1),
    ],
)
def test_halves_are_rounded_to_the_even_neighbour_before_rows_are_grouped(
    way: Way, measured_uv: list[float], released_uv: float
) -> None:
    window = one_window(way, rows_of(measured_uv), default(2))

    assert values_of(window) == [released_uv, released_uv]


def test_means_are_rounded_to_the_even_neighbour(way: Way) -> None:
    # 20.5 to 20 and 22.5 to 22, but 45.5 to 46 (45 and 46 meet at level 2, in [44, 47]).
    window = one_window(way, rows_of([20, 21, 22, 23, 45, 46]), default(2))

    assert values_of(window) == [20, 20, 22, 22, 46, 46]


def test_values_are_rounded_before_they_are_averaged(way: Way) -> None:
    # 0.4 + 0.4 + 0.9 would have the mean 0.57 and be released as 1; 0 + 0 + 1 is released as 0.
    window = one_window(way, rows_of([0.4, 0.4, 0.9]), default(3))

    assert values_of(window) == [0, 0, 0]


@pytest.mark.parametrize("measured_uv", [[-0.3] * 3, [-0.0] * 3, [-0.5] * 3, [-1, 0, 0]])
def test_zero_is_never_released_as_minus_zero(way: Way, measured_uv: list[float]) -> None:
    window = one_window(way, rows_of(measured_uv), default(3))

    assert [value for _, _, value in window.rows] == ["0.0", "0.0", "0.0"]


def test_an_imputed_zero_is_not_minus_zero_either(way: Way) -> None:
    # Means −1 and 1, three rows each: 0 for the seventh.
    settings = PlainSettings(k=3, max_level=1, residual="impute", imputation="mean")
    window = one_window(way, rows_of([-1, -1, -1, 1, 1, 1, 900]), settings)

    assert window.imputed_value_uv == "0.0"
    assert window.rows[-1] == (6, "a", "0.0")


def test_values_above_the_hierarchy_are_top_coded_and_counted(way: Way) -> None:
    # 2500.4 and 2499.5 round to 2500 and are within; 2500.6 rounds to 2501. The last range of level 1 is [2500, 2500].
    measured = rows_of([9000, 2500.4, 2499.5, 2500.6, 1e300])

    by_default, classically = one_window(way, measured, default(5)), one_window(way, measured, classic(5))

    assert values_of(by_default) == values_of(classically) == [2500] * 5
    assert levels_of(by_default) == {1: 5}
    assert by_default.coded == classically.coded == 3


def test_values_below_the_hierarchy_are_bottom_coded_and_counted(way: Way) -> None:
    # −2500.5 rounds to the even −2500 and is within. The first range is [−2500, −2499].
    measured = rows_of([-3715, -2500.5, -2501, -1e300])

    by_default, classically = one_window(way, measured, default(4)), one_window(way, measured, classic(4))

    assert values_of(by_default) == [-2500] * 4
    assert values_of(classically) == [-2499.5] * 4
    assert by_default.coded == classically.coded == 3


def test_coded_values_count_as_the_ends_of_the_hierarchy_in_every_mean(way: Way) -> None:
    # Nothing is placed: (0 + 1000 + 2500) / 3 = 1166.67, whatever 1e300 was.
    window = one_window(way, rows_of([0, 1000, 1e300]), default(3))

    assert values_of(window) == [1167] * 3


def test_rows_without_a_finite_number_or_a_source_are_invalid_and_count_for_nothing(way: Way) -> None:
    rows = [
        Row(0, "a", 4.0),
        Row(1, "a", math.nan),
        Row(2, "a", math.inf),
        Row(3, "a", -math.inf),
        Row(4, None, 4.0),
        Row(5, "", 4.0),
        Row(6, "a", 4.0),
    ]
    two_are_enough, two_are_too_few = one_window(way, rows, default(2)), one_window(way, rows, default(3))

    assert two_are_enough.rows == ((0, "a", "4.0"), (6, "a", "4.0"))
    assert two_are_enough.counts == WindowCounts(read=7, released=2, invalid=5)
    assert two_are_too_few.rows == ()
    assert two_are_too_few.counts == WindowCounts(read=7, withheld=2, invalid=5)


def test_a_source_with_two_values_for_one_time_loses_its_rows_of_that_window_before_k_is_counted(way: Way) -> None:
    contradicting = [Row(0, "a", 9.0), Row(0, "a", 3.0), Row(0, "a", 3.0), Row(5, "a", 4.0), Row(5, "a", math.nan)]
    others = [Row(0, "b", 7.0), Row(5, "b", 4.0), Row(15, "a", 1.0), Row(16, "a", 1.0)]

    first, second = way([*contradicting, *others], WindowRange(0, 20, 10), default(2), shipped_ranges()).windows
    too_few = one_window(way, [*contradicting, *others[:2]], default(3))

    # 9 and 3 contradict each other; the further 3 is alike in all, NaN is no value. (7 + 4) / 2 = 5.5, half to even: 6.
    assert first.rows == ((0, "b", "6.0"), (5, "b", "6.0"))
    assert first.counts == WindowCounts(read=7, released=2, withheld=3, invalid=1, duplicate=1)
    assert first.contradictory == 3
    assert second.rows == ((15, "a", "1.0"), (16, "a", "1.0"))
    assert second.contradictory == 0
    assert (too_few.counts.withheld, too_few.contradictory, too_few.rows_at_level[0]) == (5, 3, 5)


def test_a_number_stands_beside_rows_of_its_time_that_hold_none(way: Way) -> None:
    rows = [Row(0, "a", math.nan), Row(0, "a", 2.0), Row(0, "a", math.inf), Row(1, "a", 2.0), Row(1, "a", -0.0), Row(1, "b", 2.0)]

    assert one_window(way, rows[:4], default(2)).counts == WindowCounts(read=4, released=2, invalid=2)
    # Zero has one value, whatever its sign.
    zeros = [Row(0, "a", 0.0), Row(0, "a", -0.0), Row(1, "a", 0.0)]
    assert one_window(way, zeros, default(2)).counts == WindowCounts(read=3, released=2, duplicate=1)


def test_the_end_of_a_window_belongs_to_the_next_and_rows_of_no_window_are_only_counted(way: Way) -> None:
    # Windows [10, 20) and [20, 30).
    rows = [Row(time_ns, "a", 0.0) for time_ns in (9, 10, 19, 20, 21, 29, 30, 31)]

    seen = way(rows, WindowRange(10, 30, 10), default(2), shipped_ranges())

    assert [[time_ns for time_ns, _, _ in window.rows] for window in seen.windows] == [[10, 19], [20, 21, 29]]
    assert seen.outside == 3


def test_windows_do_not_share_rows(way: Way) -> None:
    # Two rows in each of [0, 10) and [10, 20): k 3 is reached in neither.
    rows = [Row(time_ns, "a", 0.0) for time_ns in (0, 9, 10, 19)]

    seen = way(rows, WindowRange(0, 20, 10), default(3), shipped_ranges())

    assert [window.counts for window in seen.windows] == [WindowCounts(read=2, withheld=2)] * 2


def test_every_source_gets_its_own_value_back_where_times_are_equal_and_rows_unsorted(way: Way) -> None:
    rows = [
        Row(5, "c", 1000.0),
        Row(0, "b", 500.0),
        Row(5, "a", 0.0),
        Row(5, "b", 500.0),
        Row(0, "c", 1000.0),
        Row(0, "a", 0.0),
    ]
    window = one_window(way, rows, default(2))

    assert window.rows == (
        (0, "a", "0.0"),
        (0, "b", "500.0"),
        (0, "c", "1000.0"),
        (5, "a", "0.0"),
        (5, "b", "500.0"),
        (5, "c", "1000.0"),
    )


def test_equal_values_are_told_apart_by_time_and_then_by_source(way: Way) -> None:
    # k 4. No range of level 1 holds four, so 0 0 0 4 4 8 8 8 are regrouped: the only cut in two is four and four.
    # Of the two rows of 4, the first in order joins the 0s, (0 + 0 + 0 + 4) / 4 = 1, the other the 8s, (4 + 24) / 4 = 7.
    rows = [Row(time_ns, "a", 8.0) for time_ns in (0, 1, 2)]
    rows += [Row(9, "b", 4.0), Row(9, "a", 4.0)]
    rows += [Row(time_ns, "a", 0.0) for time_ns in (3, 4, 5)]
    settings = PlainSettings(k=4, max_level=1)

    # Both at time 9: source a comes first. With b at 8: b does.
    by_source = one_window(way, rows, settings)
    by_time = one_window(way, [*rows[:3], Row(8, "b", 4.0), *rows[4:]], settings)

    assert by_source.rows[-2:] == ((9, "a", "1.0"), (9, "b", "7.0"))
    assert by_time.rows[-2:] == ((8, "b", "1.0"), (9, "a", "7.0"))


class Reversed:
    """Pseudonyms that stand in the opposite order of the ids."""

    def released_id(self, source_id: str) -> str:
        return {"a": "z", "b": "y"}[source_id]

    def released_ids(self, source_ids: Sequence[str]) -> tuple[str, ...]:
        return tuple(map(self.released_id, source_ids))


def test_equal_values_and_times_are_told_apart_by_the_raw_id_whatever_the_pseudonyms_are() -> None:
    # As above: k 4, 0 0 0 4 | 4 8 8 8, both 4 at one time. Source a goes down though its pseudonym, z, comes after b's, y.
    rows = [Row(9, "a", 4.0), Row(9, "b", 4.0)]
    rows += [Row(time_ns, "a", value) for time_ns, value in enumerate((0.0, 0.0, 0.0, 8.0, 8.0, 8.0))]
    settings = PlainSettings(k=4, max_level=1)

    (fast,) = through_the_project(rows, ONE_WINDOW, settings, shipped_ranges(), Reversed()).windows
    (plain,) = through_the_plain_one(rows, ONE_WINDOW, settings, shipped_ranges(), Reversed().released_id).windows

    assert fast.rows[-2:] == plain.rows[-2:] == ((9, "y", "7.0"), (9, "z", "1.0"))


def test_rows_that_leave_with_the_value_they_came_with_are_counted_for_the_operator(way: Way) -> None:
    # 0 0 stay what they were; 4 5 become 4.5, released as 4: one of them is what it was. 8.2 8.2 become 8: none is.
    window = one_window(way, rows_of([0, 0, 4, 5, 8.2, 8.2]), default(2))

    assert values_of(window) == [0, 0, 4, 4, 8, 8]
    assert window.unchanged == 3
