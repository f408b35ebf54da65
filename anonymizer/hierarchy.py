"""The value generalization hierarchy: the range of each value at each level.

A hierarchy file has nine comma-separated columns and no header: the leaf (a whole number of microvolts), its range at levels 1 to 7 as
`lo;hi`, both inclusive, and `*`. Leaves are consecutive and ascending; each level's ranges lie inside those of the next.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import numpy.typing as npt

#: Levels with ranges; `STAR` comes after them.
LEVELS = 7

#: Past the last level: regrouped, or `*`.
STAR_LEVEL = 8

#: Fewer than k rows were left: suppressed.
SUPPRESSED_LEVEL = 9

STAR = "*"

#: What happens to rows that no level can place, and what a group's value is: RESIDUAL and IMPUTATION.
Residual = Literal["regroup", "impute", "drop"]
Imputation = Literal["mean", "midpoint"]

_COLUMNS = LEVELS + 2

#: No measurement in microvolts has more than nine digits.
_DIGITS = r"-?[0-9]{1,9}"
_NUMBER = re.compile(_DIGITS)
_RANGE = re.compile(f"{_DIGITS};{_DIGITS}")
_WHOLE_ROW = re.compile(rf"{_DIGITS}(,{_DIGITS};{_DIGITS}){{{LEVELS}}},\*")

#: More problems than this are not listed one by one.
_MOST_PROBLEMS = 20


class HierarchyProblem(ValueError):
    """A hierarchy file is invalid. Carries every problem, each with its row."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(self.problems))


@dataclass(frozen=True, slots=True, eq=False)
class Level:
    """The ranges of one level, ascending.

    Args:
        lows: First value of each range, shape (ranges,), int64.
        highs: Last value of each range, inclusive, shape (ranges,), int64.
        range_of_leaf: Range of each leaf, shape (leaves,), int32.
    """

    lows: npt.NDArray[np.int64]
    highs: npt.NDArray[np.int64]
    range_of_leaf: npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True, eq=False)
class Hierarchy:
    """A checked hierarchy.

    Args:
        first_leaf: The lowest value in microvolts; lower ones are bottom-coded to it.
        leaves: How many consecutive values there are.
        levels: Levels 1 to 7, at positions 0 to 6.
        digest: SHA-256 of the file's content, hexadecimal.
    """

    first_leaf: int
    leaves: int
    levels: tuple[Level, ...]
    digest: str

    @property
    def last_leaf(self) -> int:
        """The highest value in microvolts; higher ones are top-coded to it."""
        return self.first_leaf + self.leaves - 1


# The settings are checked with the hierarchy that the run then uses.
@lru_cache(maxsize=1)
def parse_hierarchy(text: str) -> Hierarchy:
    """Parse the content of a hierarchy file, the last one only once. Raises HierarchyProblem if it is invalid."""
    lines = text.splitlines()
    table, problems = _read_rows(lines)
    if not lines:
        problems = ["the file is empty"]
    if not problems:
        problems = [*_leaf_problems(table), *(problem for level in range(LEVELS) for problem in _level_problems(table, level))]
    if problems:
        more = len(problems) - _MOST_PROBLEMS
        raise HierarchyProblem([*problems[:_MOST_PROBLEMS], *([f"and {more} more"] if more > 0 else [])])
    return Hierarchy(
        first_leaf=int(table[0, 0]),
        leaves=len(table),
        levels=tuple(_make_level(table, level) for level in range(LEVELS)),
        digest=hashlib.sha256(text.encode()).hexdigest(),
    )


def make_hierarchy_text(first_leaf: int, last_leaf: int, widths: Sequence[int]) -> str:
    """Return a hierarchy file's content with ranges of fixed widths, one for each level, counted from `first_leaf`.

    lo = first + w·⌊(v − first) / w⌋, hi = min(lo + w − 1, last).
    """
    rows = []
    for leaf in range(first_leaf, last_leaf + 1):
        lows = [first_leaf + width * ((leaf - first_leaf) // width) for width in widths]
        ranges = [f"{low};{min(low + width - 1, last_leaf)}" for low, width in zip(lows, widths, strict=True)]
        rows.append(",".join([str(leaf), *ranges, STAR]))
    return "\n".join(rows) + "\n"


_Table = npt.NDArray[np.int64]  # shape (leaves, 1 + 2 * LEVELS): leaf, low and high of each level


def _read_rows(lines: Sequence[str]) -> tuple[_Table, list[str]]:
    # A valid file is parsed as one block of numbers; only an invalid one is checked cell by cell.
    if all(map(_WHOLE_ROW.fullmatch, lines)) and lines:
        cells = ",".join([line.removesuffix(f",{STAR}") for line in lines]).replace(";", ",")
        return np.fromstring(cells, dtype=np.int64, sep=",").reshape(len(lines), -1), []
    wrong = ((row, "; ".join(_row_problems(line))) for row, line in enumerate(lines, start=1))
    problems = [f"row {row}: {problem}" for row, problem in wrong if problem]
    return np.empty((0, 1 + 2 * LEVELS), dtype=np.int64), problems


def _row_problems(line: str) -> Iterator[str]:
    cells = line.split(",")
    if len(cells) != _COLUMNS:
        yield f"expected {_COLUMNS} columns (leaf, {LEVELS} ranges lo;hi, {STAR}), got {len(cells)}"
        return
    if not _NUMBER.fullmatch(cells[0]):
        yield f"expected a whole number as leaf, got {cells[0]!r}"
    for level, cell in enumerate(cells[1:-1], start=1):
        if not _RANGE.fullmatch(cell):
            yield f"expected lo;hi with whole numbers at level {level}, got {cell!r}"
    if cells[-1] != STAR:
        yield f"expected {STAR} in the last column, got {cells[-1]!r}"


def _leaf_problems(table: _Table) -> list[str]:
    leaves = table[:, 0]
    wrong = np.flatnonzero(np.diff(leaves) != 1) + 1
    return [f"row {row + 1}: leaves must be consecutive, expected {leaves[row - 1] + 1}, got {leaves[row]}" for row in wrong]


def _level_problems(table: _Table, level: int) -> list[str]:
    leaves, lows, highs = table[:, 0], table[:, 1 + 2 * level], table[:, 2 + 2 * level]
    name = f"level {level + 1}"
    problems = [
        f"row {row + 1}: {name} range {lows[row]};{highs[row]} does not contain its leaf {leaves[row]}"
        for row in np.flatnonzero((lows > leaves) | (highs < leaves))
    ]
    changes = np.flatnonzero((np.diff(lows) != 0) | (np.diff(highs) != 0)) + 1
    problems += [
        f"row {row + 1}: {name} range {lows[row]};{highs[row]} overlaps {lows[row - 1]};{highs[row - 1]} of the row before"
        for row in changes[lows[changes] <= highs[changes - 1]]
    ]
    if level + 1 < LEVELS:
        wider_lows, wider_highs = table[:, 3 + 2 * level], table[:, 4 + 2 * level]
        problems += [
            f"row {row + 1}: {name} range {lows[row]};{highs[row]} does not lie inside the next level's "
            f"{wider_lows[row]};{wider_highs[row]}"
            for row in np.flatnonzero((wider_lows > lows) | (wider_highs < highs))
        ]
    return problems


def _make_level(table: _Table, level: int) -> Level:
    lows, highs = table[:, 1 + 2 * level], table[:, 2 + 2 * level]
    is_first = np.concatenate(([True], (np.diff(lows) != 0)))
    return Level(lows[is_first], highs[is_first], (np.cumsum(is_first) - 1).astype(np.int32))
