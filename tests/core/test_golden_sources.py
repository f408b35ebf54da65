"""Windows worked out by hand where k counts sources: k is 2, and rows stand at times 0, 1, 2 … unless a case says otherwise."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest

from anonymizer.batch import WindowCounts
from anonymizer.level_hierarchy_anonymizer import LevelHierarchyAnonymizer
from tests.core.both_ways import Way, one_window, shipped_ranges
from tests.core.plain_anonymizer import PlainSettings, Row

DEFAULT = PlainSettings(k=2, k_unit="source")
OPTIMAL = PlainSettings(k=2, k_unit="source", method="optimal")


@dataclass(frozen=True)
class Golden:
    """Rows such as `0a 4b`, what is released for each, and how many end at which level (0 withheld, 8 past the last level)."""

    name: str
    rows: str
    released_uv: list[float]
    rows_at_level: dict[int, int] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.name

    def check(self, way: Way, settings: PlainSettings) -> None:
        window = one_window(way, rows_of(self.rows), settings)
        assert [float(value) for _, _, value in window.rows] == self.released_uv
        assert {level: rows for level, rows in enumerate(window.rows_at_level) if rows} == self.rows_at_level


def rows_of(text: str) -> list[Row]:
    return [Row(time_ns, word[-1], float(word[:-1])) for time_ns, word in enumerate(text.split())]


OF_EITHER_METHOD = [
    Golden("no row", "", []),
    Golden("k − 1 sources are withheld, however many their rows", "0a 0a 0a 0a 1a 7a", [], {0: 6}),
    # 4, 0 and 1000 share no range up to level 3; a and b are all there are. 1004 / 3 = 334.67.
    Golden("k sources in three rows are one group", "4a 0b 1000a", [335, 335, 335], {8: 3}),
    # Every group needs b, which has one row. 20 / 6 = 3.33.
    Golden("one source with many rows shares the one row of another", "0a 1a 2a 10b 3a 4a", [3, 3, 3, 3, 3, 3], {8: 6}),
    # a and b are never within one range; by rows 0 0 and 500 500 would do.
    Golden("rows that are alike but of one source do not make a group", "0a 0a 500b 500b", [250, 250, 250, 250], {8: 4}),
]

OF_THE_DEFAULT = [
    Golden("k sources in one range", "0a 1b", [0, 0], {1: 2}),
    Golden("k + 1 sources in one range", "0a 1b 1c", [1, 1, 1], {1: 3}),
    # [0, 1] holds three rows of a alone; [0, 3] holds b too. 4 / 4 = 1.
    Golden("three rows of one source wait for the range that holds another's", "0a 0a 1a 3b", [1, 1, 1, 1], {2: 4}),
    # 16 / 6 = 2.67: the rows of one source count for the mean.
    Golden("a group's mean is that of its rows", "2a 2a 3a 3a 3a 3b", [3, 3, 3, 3, 3, 3], {1: 6}),
    Golden("two far clusters with k sources each", "0a 1000a 0b 1000b 0a", [0, 1000, 0, 1000, 0], {1: 5}),
    # 10 and 12 are of a alone, too few sources to stand alone though they are k rows. Both are nearer to 0 0 than to 100 100, and
    # 0a 0b 10a 12a cannot be cut, b having one row. 22 / 4 = 5.5 rounds to the even 6.
    Golden(
        "a residual of fewer than k sources dissolves the nearest group",
        "0a 0b 10a 12a 100a 100b",
        [6, 6, 6, 6, 100, 100],
        {1: 2, 8: 4},
    ),
    # 10a takes 0 0, 90a takes 100 100. In order: 0a 0b 10a 90a 100a 100b. Only 0a 0b … and … 100b can be apart, and they are best with
    # the two in the middle one on each side: 10 / 3 and 290 / 3.
    Golden(
        "a residual of one source dissolves a group for each of its rows, and the union is cut afresh",
        "0a 0b 10a 90a 100a 100b",
        [3, 3, 3, 97, 97, 97],
        {8: 6},
    ),
    # 8b is in [8, 9] [8, 11] [4, 11] alone; 100a likewise. Two rows of two sources: 54 each.
    Golden("a residual of k sources is grouped without anybody else", "0a 0b 8b 100a", [0, 0, 54, 54], {1: 2, 8: 2}),
]

OF_THE_OPTIMAL = [
    Golden("k + 1 sources", "0a 1b 1c", [1, 1, 1], {8: 3}),
    Golden("two far clusters with k sources each", "0a 1000a 0b 1000b 0a", [0, 1000, 0, 1000, 0], {8: 5}),
    # 0a 1a 2b | 8a 9b: error 2 + 0.5. 0a 1a 2b cannot be cut. 3 / 3 and 17 / 2 = 8.5, to the even 8.
    Golden("a group is as large as it must be to hold k sources", "0a 1a 2b 8a 9b", [1, 1, 1, 8, 8], {8: 5}),
    # 0a 0b | 10a 10b 12a and 0a 0b | 10a 10b … no source follows the last 12a: 32 / 3 = 10.67.
    Golden("a source with the highest values all to itself joins those below", "0a 0b 10a 10b 12a", [0, 0, 11, 11, 11], {8: 5}),
    # 0a 5b 10a 15b: 0 5 | 10 15 has error 25, one group 125.
    Golden("sources that take turns are cut wherever k of them are", "0a 5b 10a 15b", [2, 2, 12, 12], {8: 4}),
    # 0a 0b 5a 10b 10a: with 5a on the left, error 16.67, or on the right, 16.67: the smaller last group.
    Golden("of two equal errors the smaller last group", "0a 0b 5a 10b 10a", [2, 2, 2, 10, 10], {8: 5}),
]


@pytest.mark.parametrize("settings", [DEFAULT, OPTIMAL], ids=["hierarchy", "optimal"])
@pytest.mark.parametrize("golden", OF_EITHER_METHOD, ids=str)
def test_both_methods_release_what_the_definition_says(way: Way, golden: Golden, settings: PlainSettings) -> None:
    golden.check(way, settings)


@pytest.mark.parametrize("golden", OF_THE_DEFAULT, ids=str)
def test_the_default_settings_release_what_the_definition_says(way: Way, golden: Golden) -> None:
    golden.check(way, DEFAULT)


@pytest.mark.parametrize("golden", OF_THE_OPTIMAL, ids=str)
def test_the_optimal_method_releases_what_the_definition_says(way: Way, golden: Golden) -> None:
    golden.check(way, OPTIMAL)


def test_the_same_rows_make_other_groups_where_k_counts_rows(way: Way) -> None:
    rows = rows_of("0a 0a 500b 500b")

    window = one_window(way, rows, replace(DEFAULT, k_unit="record"))

    assert [value for _, _, value in window.rows] == ["0.0", "0.0", "500.0", "500.0"]


def test_equal_values_are_told_apart_by_time_and_then_by_source(way: Way) -> None:
    # 0 4 | 4 8 is the only cut in two groups of two sources. Of the two rows of 4 the first goes down: (0 + 4) / 2, the other (4 + 8) / 2.
    rows = [Row(0, "d", 8.0), Row(1, "a", 0.0), Row(9, "c", 4.0), Row(9, "b", 4.0)]

    by_source = one_window(way, rows, OPTIMAL)
    by_time = one_window(way, [*rows[:2], Row(8, "c", 4.0), rows[3]], OPTIMAL)

    assert by_source.rows[-2:] == ((9, "b", "2.0"), (9, "c", "6.0"))
    assert by_time.rows[-2:] == ((8, "c", "2.0"), (9, "b", "6.0"))


def test_dropped_rows_are_withheld_though_there_are_k_of_them(way: Way) -> None:
    window = one_window(way, rows_of("0a 0b 500a 500a 500a"), replace(DEFAULT, residual="drop"))

    assert [(time_ns, value) for time_ns, _, value in window.rows] == [(0, "0.0"), (1, "0.0")]
    assert window.counts == WindowCounts(read=5, released=2, withheld=3)


def test_a_range_that_holds_k_sources_is_released_as_its_midpoint_if_asked_for(way: Way) -> None:
    # [0, 3] as above: (0 + 3) / 2.
    window = one_window(way, rows_of("0a 0a 1a 3b"), replace(DEFAULT, imputation="midpoint"))

    assert {value for _, _, value in window.rows} == {"1.5"}


def test_a_source_that_contradicts_itself_does_not_count_towards_k_sources(way: Way) -> None:
    # k 2 sources: b alone is too few once a is gone, b and c are enough.
    rows = [Row(0, "a", 3.0), Row(0, "a", 3.0), Row(1, "a", 3.0), Row(1, "a", 9.0), Row(0, "b", 3.0)]

    assert one_window(way, rows, DEFAULT).counts == WindowCounts(read=5, withheld=4, duplicate=1)
    assert one_window(way, [*rows, Row(0, "c", 3.0)], DEFAULT).counts == WindowCounts(read=6, released=2, withheld=3, duplicate=1)


def test_more_sources_than_a_number_has_bits_are_told_apart(way: Way) -> None:
    # k 66: sources 0 to 65 of one value each, in one range.
    rows = [Row(0, f"{number:03d}", float(number % 2)) for number in range(66)]
    settings = PlainSettings(k=66, k_unit="source")

    # 65 of them twice; and 65 of them in the range, one far away.
    too_few = one_window(way, [*rows[:65], Row(1, "000", 0.0)], settings)
    one_far_away = one_window(way, [*rows[:65], Row(0, "065", 500.0)], settings)

    assert one_window(way, rows, settings).rows_at_level[1] == 66
    assert too_few.rows_at_level[0] == 66
    assert one_far_away.rows_at_level[8] == 66


def test_rows_cannot_be_imputed_where_k_counts_sources() -> None:
    with pytest.raises(ValueError, match="cannot be imputed"):
        LevelHierarchyAnonymizer(shipped_ranges().hierarchy, 5, residual="impute", k_unit="source")
