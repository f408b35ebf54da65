"""The example on the page, and everything else on it that can be computed, is what the code does."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

from anonymizer.hierarchy import parse_hierarchy
from anonymizer.windows import NANOSECONDS, WindowRange
from tests.core.both_ways import WindowSeen, shipped_ranges, through_the_project
from tests.core.plain_anonymizer import (
    Member,
    PlainSettings,
    Row,
    climb,
    every_partition,
    mean,
    partition_sizes,
    place,
    shipped_levels,
    squared_error,
    total_error,
)
from tests.documentation.pages import ALGORITHM, ROOT, Table, number, numbers, table_with, text_of
from tests.documentation.sample import CLASSIC

WINDOW = WindowRange(0, 5 * NANOSECONDS, 5 * NANOSECONDS)
DEFAULT = PlainSettings(k=3)


def example() -> Table:
    return table_with(ALGORITHM, "ms", "measured", "whole", "level", "released")


def column(name: str) -> list[float]:
    return [number(row[name]) for row in example()]


def rows() -> list[Row]:
    return [Row(int(number(row["ms"])) * 1_000_000, "a", number(row["measured"])) for row in example()]


def members(values: list[float]) -> list[Member]:
    return sorted(Member(round(value), index, "a") for index, value in enumerate(values))


def released(measured: list[Row], settings: PlainSettings) -> WindowSeen:
    (window,) = through_the_project(measured, WINDOW, settings, shipped_ranges()).windows
    return window


def values_of(window: WindowSeen) -> list[float]:
    return [float(value) for _, _, value in window.rows]


def levels_of(settings: PlainSettings) -> list[float]:
    placing = place(members(column("measured")), shipped_levels(), settings)
    return [placing.of[member].level for member in sorted(placing.of, key=lambda member: member.time_ns)]


def left_after_level_3() -> list[int]:
    return [member.value_uv for member in climb(members(column("measured")), shipped_levels()[:3], 3)[1]]


def test_the_example_on_the_page_is_what_the_code_releases() -> None:
    assert column("whole") == [round(value) for value in column("measured")]
    assert values_of(released(rows(), DEFAULT)) == column("released")
    assert values_of(released(rows(), CLASSIC(k=3))) == column("released, classic")


def test_the_levels_on_the_page_are_those_of_the_definition_and_of_the_code() -> None:
    for settings, name in ((DEFAULT, "level"), (CLASSIC(k=3), "level, classic")):
        assert levels_of(settings) == column(name)
        counted = tuple(column(name).count(level) for level in range(10))
        assert released(rows(), settings).rows_at_level == counted


def test_the_climb_on_the_page_places_the_same_rows_level_by_level() -> None:
    placed_before = 0
    for step in table_with(ALGORITHM, "level", "ranges with three waiting rows or more", "still waiting"):
        level = int(step["level"])
        groups, waiting = climb(members(column("measured")), shipped_levels()[:level], 3)
        shown = step["ranges with three waiting rows or more"]

        here = [group for group in groups if group.level == level]
        told = [[*group.bounds, *(member.value_uv for member in group.members)] for group in here]
        assert ([numbers(shown)] if shown != "none" else []) == told
        assert len(waiting) == int(step["still waiting"]) == 16 - placed_before - sum(len(group.members) for group in here)
        placed_before += sum(len(group.members) for group in here)


def test_the_partitions_on_the_page_are_all_there_are_with_their_errors() -> None:
    left = left_after_level_3()
    shown = table_with(ALGORITHM, "groups", "means", "squared error")
    sizes = sorted((sizes for sizes in every_partition(len(left), 3) if max(sizes) < 6), key=lambda one: total_error(left, one))

    assert len(sizes) == len(shown) == 2
    for row, (first, _) in zip(shown, sizes, strict=True):
        parts = [left[:first], left[first:]]
        assert [numbers(group) for group in row["groups"].split(" and ")] == parts
        assert numbers(row["means"]) == [mean(part) for part in parts]
        assert numbers(row["squared error"]) == [*map(squared_error, parts), total_error(left, [first, len(left) - first])]


def test_the_tie_on_the_page_is_one_and_goes_to_the_smaller_last_group() -> None:
    tied, error = re.findall(r"With (\d+) in place of 462 both have ([\d,]+)", text_of(ALGORITHM))[0]
    left = [int(tied) if value == 462 else value for value in left_after_level_3()]

    assert total_error(left, [3, 4]) == total_error(left, [4, 3]) == number(error)
    assert partition_sizes(left, 3) == [4, 3]
    with_tie = [row if row.value_uv != 462 else row._replace(value_uv=float(tied)) for row in rows()]
    high = [value for value in values_of(released(with_tie, DEFAULT)) if value > 500]
    assert len(high) == 3


def test_fewer_than_k_rows_left_over_would_be_suppressed_with_the_value_the_page_gives() -> None:
    fewer = [row for row in rows() if row.value_uv not in (462, 850)]
    window = released(fewer, CLASSIC(k=3))

    assert (window.rows_at_level[8], window.rows_at_level[9]) == (0, 2)
    assert window.imputed_value_uv == "-7.25"


def test_the_line_of_the_hierarchy_file_on_the_page_is_its_first() -> None:
    first = (ROOT / "anonymizer" / "smarko_hierarchy_ecg.csv").read_text(encoding="utf-8").splitlines()[0]

    assert f"```\n{first}\n```" in text_of(ALGORITHM)


def test_the_command_for_a_hierarchy_of_ones_own_makes_one_that_is_accepted(tmp_path: Path) -> None:
    (command,) = re.findall(r"```sh\n(python -c .*)\n```", text_of(ALGORITHM))
    words = shlex.split(command)
    assert words[-2:] == [">", "wider.csv"]

    made = subprocess.run([sys.executable, *words[1:-2]], cwd=ROOT, capture_output=True, text=True, check=True).stdout

    hierarchy = parse_hierarchy(made)
    assert (hierarchy.first_leaf, hierarchy.last_leaf) == (-5000, 5000)
