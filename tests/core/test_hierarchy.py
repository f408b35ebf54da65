"""The hierarchy that ships is the formula's; a user's own is taken exactly when it is of the form described."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anonymizer.hierarchy import Hierarchy, HierarchyProblem, make_hierarchy_text, parse_hierarchy
from tests.core.both_ways import SHIPPED_FILE, Ranges
from tests.core.plain_anonymizer import Level, shipped_levels
from tests.core.row_strategies import small_ranges, text_of_levels

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "make_hierarchy.py"

#: Eight leaves; widths 2, 4 and from level 3 on all of them.
GOOD_ROWS = [
    "0,0;1,0;3,0;7,0;7,0;7,0;7,0;7,*",
    "1,0;1,0;3,0;7,0;7,0;7,0;7,0;7,*",
    "2,2;3,0;3,0;7,0;7,0;7,0;7,0;7,*",
    "3,2;3,0;3,0;7,0;7,0;7,0;7,0;7,*",
    "4,4;5,4;7,0;7,0;7,0;7,0;7,0;7,*",
    "5,4;5,4;7,0;7,0;7,0;7,0;7,0;7,*",
    "6,6;7,4;7,0;7,0;7,0;7,0;7,0;7,*",
    "7,6;7,4;7,0;7,0;7,0;7,0;7,0;7,*",
]


def text_of_rows(rows: Sequence[str]) -> str:
    return "".join(row + "\n" for row in rows)


def with_row(number: int, row: str) -> list[str]:
    """Return the good rows with another one in place of row `number`, counted from 1."""
    return [*GOOD_ROWS[: number - 1], row, *GOOD_ROWS[number:]]


def problems_of(rows: Sequence[str]) -> tuple[str, ...]:
    with pytest.raises(HierarchyProblem) as refused:
        parse_hierarchy(text_of_rows(rows))
    return refused.value.problems


def levels_of(hierarchy: Hierarchy) -> list[Level]:
    leaves = range(hierarchy.first_leaf, hierarchy.last_leaf + 1)
    return [
        {
            leaf: (int(level.lows[place]), int(level.highs[place]))
            for leaf, place in zip(leaves, level.range_of_leaf.tolist(), strict=True)
        }
        for level in hierarchy.levels
    ]


def test_the_shipped_file_is_what_its_script_prints_and_follows_the_formula_leaf_by_leaf() -> None:
    printed = subprocess.run([sys.executable, str(SCRIPT)], capture_output=True, check=True).stdout
    assert printed.replace(b"\r\n", b"\n") == SHIPPED_FILE.read_bytes()

    rows = SHIPPED_FILE.read_text(encoding="utf-8").split("\n")
    assert rows.pop() == ""
    assert len(rows) == 5001

    levels = shipped_levels()
    for leaf, row in zip(range(-2500, 2501), rows, strict=True):
        ranges = [level[leaf] for level in levels]
        assert row == f"{leaf},{','.join(f'{low};{high}' for low, high in ranges)},*"


def test_the_shipped_file_is_read_as_it_is_written() -> None:
    text = SHIPPED_FILE.read_text(encoding="utf-8")

    hierarchy = parse_hierarchy(text)

    assert (hierarchy.first_leaf, hierarchy.last_leaf, hierarchy.leaves) == (-2500, 2500, 5001)
    assert levels_of(hierarchy) == shipped_levels()
    assert hierarchy.digest == hashlib.sha256(SHIPPED_FILE.read_bytes()).hexdigest()


@given(ranges=small_ranges())
def test_any_nested_ranges_are_taken_as_they_are_written(ranges: Ranges) -> None:
    assert levels_of(parse_hierarchy(text_of_levels(list(ranges.levels)))) == list(ranges.levels)


def test_a_file_of_windows_line_ends_or_without_the_last_one_is_taken_and_another_file_has_another_digest() -> None:
    for text in ("\r\n".join(GOOD_ROWS) + "\r\n", "\n".join(GOOD_ROWS)):
        assert levels_of(parse_hierarchy(text)) == levels_of(parse_hierarchy(text_of_rows(GOOD_ROWS)))
    other = parse_hierarchy(text_of_rows([*GOOD_ROWS[:6], "6,6;6,4;7,0;7,0;7,0;7,0;7,0;7,*", "7,7;7,4;7,0;7,0;7,0;7,0;7,0;7,*"]))

    assert other.digest != parse_hierarchy(text_of_rows(GOOD_ROWS)).digest


def test_generated_ranges_are_counted_from_the_first_leaf_and_end_at_the_last() -> None:
    assert make_hierarchy_text(-1, 1, (2, 4, 8, 16, 32, 64, 256)).splitlines() == [
        "-1,-1;0,-1;1,-1;1,-1;1,-1;1,-1;1,-1;1,*",
        "0,-1;0,-1;1,-1;1,-1;1,-1;1,-1;1,-1;1,*",
        "1,1;1,-1;1,-1;1,-1;1,-1;1,-1;1,-1;1,*",
    ]


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ("2,2;3,0;3,0;7,0;7,0;7,0;7,*", "expected 9 columns"),
        ("2,2;3,0;3,0;7,0;7,0;7,0;7,0;7,0;7,*", "expected 9 columns"),
        ("2,2;3,0;3,0;7,0;7,0;7,0;7,0;7", "expected 9 columns"),
        ("2,2;3,0;3,0;7,0;7,0;7,0;7,0;7,*,", "expected 9 columns"),
        ("2;2;3;0;3;0;7;0;7;0;7;0;7;0;7;*", "expected 9 columns"),
        ("", "expected 9 columns"),
        ("leaf,l1,l2,l3,l4,l5,l6,l7,*", "'leaf'"),
        ("x,2;3,0;3,0;7,0;7,0;7,0;7,0;7,*", "'x'"),
        (",2;3,0;3,0;7,0;7,0;7,0;7,0;7,*", "leaf"),
        ("2.0,2;3,0;3,0;7,0;7,0;7,0;7,0;7,*", "'2.0'"),
        ("2.5,2;3,0;3,0;7,0;7,0;7,0;7,0;7,*", "'2.5'"),
        ("1e0,2;3,0;3,0;7,0;7,0;7,0;7,0;7,*", "'1e0'"),
        ("nan,2;3,0;3,0;7,0;7,0;7,0;7,0;7,*", "'nan'"),
        ('"2",2;3,0;3,0;7,0;7,0;7,0;7,0;7,*', "leaf"),
        ("2,2-3,0;3,0;7,0;7,0;7,0;7,0;7,*", "level 1"),
        ("2,2;3;4,0;3,0;7,0;7,0;7,0;7,0;7,*", "level 1"),
        ("2,2;3,0,0;7,0;7,0;7,0;7,0;7,*", "level 2"),
        ("2,2;3,0;,0;7,0;7,0;7,0;7,0;7,*", "level 2"),
        ("2,2;3,;3,0;7,0;7,0;7,0;7,0;7,*", "level 2"),
        ("2,2;3,0;3,0;7,0;7,0;7,0;7,0;x,*", "level 7"),
        ("2,2;3,0;3,0;7,0;7,0;7,0;7,0;7.5,*", "level 7"),
        ("2,2;3,0;3,0;7,0;7,0;7,0;7,*,*", "level 7"),
        ("2,2;3,0;3,0;7,0;7,0;7,0;7,0;7,", "last column"),
        ("2,2;3,0;3,0;7,0;7,0;7,0;7,0;7,**", "last column"),
        ("2,2;3,0;3,0;7,0;7,0;7,0;7,0;7,0;7", "last column"),
        # Commas and semicolons in each other's place: as many of each as a good row has, so the numbers alone would look right.
        ("2;2,3;0,3,0;7,0;7,0;7,0;7,0;7,*", ""),
        # Larger than any measurement.
        ("2,2;3,0;3,0;7,0;7,0;7,0;7,0;99999999999999999999,*", ""),
        ("2,2;3,0;3,0;7,0;7,0;7,0;7,-99999999999999999999;7,*", ""),
    ],
)
def test_a_row_of_another_form_is_refused_with_its_number(row: str, complaint: str) -> None:
    (problem,) = problems_of(with_row(3, row))

    assert problem.startswith("row 3: ")
    assert complaint in problem


@pytest.mark.parametrize("number", ["1_0", "１０"])
def test_a_number_that_only_python_would_read_is_refused_with_its_row(number: str) -> None:
    rows = [row.replace("0;7,*", "0;10,*") for row in GOOD_ROWS]
    rows[2] = rows[2].replace("0;10,*", f"0;{number},*")

    (problem,) = problems_of(rows)

    assert problem.startswith("row 3: ")


def test_an_empty_file_and_a_blank_line_at_the_end_are_refused() -> None:
    with pytest.raises(HierarchyProblem, match="empty"):
        parse_hierarchy("")
    assert problems_of([*GOOD_ROWS, ""])[0].startswith("row 9: ")


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        # Leaf 2 is missing.
        (GOOD_ROWS[:2] + GOOD_ROWS[3:], "row 3: leaves must be consecutive, expected 2, got 3"),
        # Leaf 1 stands twice.
        (GOOD_ROWS[:2] + GOOD_ROWS[1:], "row 3: leaves must be consecutive, expected 2, got 1"),
        (GOOD_ROWS[::-1], "row 2: leaves must be consecutive, expected 8, got 6"),
        # A range somewhere else, and one turned round.
        (with_row(3, "2,4;5,0;3,0;7,0;7,0;7,0;7,0;7,*"), "row 3: level 1 range 4;5 does not contain its leaf 2"),
        (with_row(3, "2,3;2,0;3,0;7,0;7,0;7,0;7,0;7,*"), "row 3: level 1 range 3;2 does not contain its leaf 2"),
        # 1;3 begins where 0;1 ends.
        (with_row(3, "2,1;3,0;3,0;7,0;7,0;7,0;7,0;7,*"), "row 3: level 1 range 1;3 overlaps 0;1 of the row before"),
        # The same low with another high is another range.
        (with_row(2, "1,0;2,0;3,0;7,0;7,0;7,0;7,0;7,*"), "row 2: level 1 range 0;2 overlaps 0;1 of the row before"),
        (with_row(8, "7,6;7,4;7,0;8,0;7,0;7,0;7,0;7,*"), "row 8: level 3 range 0;8 overlaps 0;7 of the row before"),
        # 2;4 is not within 0;3, although 2 is in both.
        (
            [
                *GOOD_ROWS[:2],
                "2,2;4,0;3,0;7,0;7,0;7,0;7,0;7,*",
                "3,2;4,0;3,0;7,0;7,0;7,0;7,0;7,*",
                "4,2;4,4;7,0;7,0;7,0;7,0;7,0;7,*",
                "5,5;5,4;7,0;7,0;7,0;7,0;7,0;7,*",
                *GOOD_ROWS[6:],
            ],
            "row 3: level 1 range 2;4 does not lie inside the next level's 0;3",
        ),
        # Level 7 is narrower than level 6.
        (with_row(1, "0,0;1,0;3,0;7,0;7,0;7,0;7,0;6,*"), "row 1: level 6 range 0;7 does not lie inside the next level's 0;6"),
    ],
)
def test_rows_that_do_not_fit_together_are_refused_with_the_row_and_what_is_wrong(rows: list[str], problem: str) -> None:
    assert problem in problems_of(rows)


def test_a_gap_between_ranges_cannot_be_written_without_a_leaf_outside_its_range() -> None:
    # 0;1 | 3;3 leaves 2 out: whatever row 3 says, it is refused.
    for range_of_two in ("0;1", "3;3"):
        rows = [*GOOD_ROWS[:2], f"2,{range_of_two},0;3,0;7,0;7,0;7,0;7,0;7,*", "3,3;3,0;3,0;7,0;7,0;7,0;7,0;7,*", *GOOD_ROWS[4:]]
        assert f"row 3: level 1 range {range_of_two} does not contain its leaf 2" in problems_of(rows)


@given(ranges=small_ranges(), data=st.data())
def test_no_single_number_can_be_changed_within_a_file_without_its_being_refused(ranges: Ranges, data: st.DataObject) -> None:
    rows = [row.split(",") for row in text_of_levels(list(ranges.levels)).splitlines()]
    # Beyond the first and last leaf a range may reach: there it overlaps nothing.
    row = data.draw(st.integers(1, max(1, len(rows) - 2)))
    if row > len(rows) - 2:
        return
    column, place, change = data.draw(st.integers(0, 7)), data.draw(st.integers(0, 1)), data.draw(st.sampled_from((-9, -1, 1, 9)))
    numbers = rows[row][column].split(";")
    place = min(place, len(numbers) - 1)
    numbers[place] = str(int(numbers[place]) + change)
    rows[row][column] = ";".join(numbers)

    with pytest.raises(HierarchyProblem, match="row "):
        parse_hierarchy(text_of_rows([",".join(cells) for cells in rows]))


def test_every_malformed_row_is_listed_at_once() -> None:
    rows = with_row(3, "2,2;3,*")
    rows[5] = rows[5].replace("*", "+")

    assert [problem.split(":")[0] for problem in problems_of(rows)] == ["row 3", "row 6"]


def test_every_misfit_of_every_level_is_listed_at_once() -> None:
    rows = with_row(3, "2,1;3,0;3,0;7,0;7,0;7,0;7,0;7,*")
    rows[7] = "9,6;7,4;7,0;7,0;7,0;7,0;7,1;7,*"

    problems = problems_of(rows)

    for expected in (
        "row 8: leaves must be consecutive, expected 7, got 9",
        "row 3: level 1 range 1;3 overlaps",
        "row 4: level 1 range 2;3 overlaps",
        "row 8: level 6 range 0;7 does not lie inside",
        "row 8: level 7 range 1;7 does not contain its leaf 9",
        "row 8: level 7 range 1;7 overlaps",
    ):
        assert any(problem.startswith(expected) for problem in problems), expected


def test_two_malformed_cells_of_one_row_are_both_listed() -> None:
    problems = "; ".join(problems_of(with_row(3, "x,2;3,0;3,0;7,0;7,0;7,0;7,0;y,+")))

    assert all(cell in problems for cell in ("'x'", "'0;y'", "'+'"))


@pytest.mark.parametrize(("wrong", "listed", "last"), [(20, 20, "row 20"), (21, 21, "and 1 more"), (500, 21, "and 480 more")])
def test_more_than_twenty_problems_are_summarised(wrong: int, listed: int, last: str) -> None:
    problems = problems_of(["bad"] * wrong)

    assert len(problems) == listed
    assert problems[19].startswith("row 20: ")
    assert problems[-1].startswith(last)


def test_the_message_holds_every_problem() -> None:
    with pytest.raises(HierarchyProblem, match=r"row 1: .*; row 2: "):
        parse_hierarchy("bad\nworse\n")
