"""The method of the specification, written down a second time: slow, plain and exact.

Nothing here is shared with `anonymizer`: lists, dictionaries, loops, and `Fraction` wherever a mean or a squared error is meant.
The fast implementation is right when both give the same rows. This module is read beside the specification, so it follows its order.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Literal, NamedTuple

from tests.core.plain_source_groups import SourceRow, source_group_sizes

Residual = Literal["regroup", "impute", "drop"]
Imputation = Literal["mean", "midpoint"]
Method = Literal["hierarchy", "optimal"]
Unit = Literal["record", "source"]

#: One level: the inclusive range that each whole value belongs to.
Level = Mapping[int, tuple[int, int]]

WITHHELD, STARRED, SUPPRESSED = 0, 8, 9


class Row(NamedTuple):
    """One row as it was read; a source of None or "" is no source."""

    time_ns: int
    source: str | None
    value_uv: float


class ReleasedRow(NamedTuple):
    """One row as it leaves."""

    time_ns: int
    released_id: str
    value_uv: float


class Member(NamedTuple):
    """One row on its way, named so that tuples sort in the order of the specification: value, time, raw source id."""

    value_uv: int
    time_ns: int
    source: str


@dataclass(frozen=True)
class PlainSettings:
    """What shapes the values of a window."""

    k: int = 5
    max_level: int = 3
    residual: Residual = "regroup"
    imputation: Imputation = "mean"
    method: Method = "hierarchy"
    k_unit: Unit = "record"


@dataclass
class PlainWindow:
    """What becomes of one window."""

    read: int = 0
    invalid: int = 0
    duplicate: int = 0
    contradictory: int = 0
    coded: int = 0
    unchanged: int = 0
    groups: int = 0
    rows: list[ReleasedRow] = field(default_factory=list)
    imputed: list[bool] = field(default_factory=list)
    imputed_value_uv: float | None = None
    rows_at_level: list[int] = field(default_factory=lambda: [0] * 10)

    @property
    def released(self) -> int:
        """Rows that leave."""
        return len(self.rows)

    @property
    def withheld(self) -> int:
        """Rows that could have been anonymized, or contradict each other, and do not leave."""
        return self.read - self.invalid - self.duplicate - self.released


@dataclass(frozen=True)
class Group:
    """Rows placed in one range of one level."""

    level: int
    bounds: tuple[int, int]
    members: tuple[Member, ...]

    @property
    def mean_uv(self) -> Fraction:
        """The exact mean of the members."""
        return mean(member.value_uv for member in self.members)


class Placed(NamedTuple):
    """What one row gets."""

    value_uv: float
    level: int


class Placing(NamedTuple):
    """What the rows of a window get: nothing for those that are withheld."""

    of: dict[Member, Placed]
    groups: int
    imputed_value_uv: float | None


NOTHING_PLACED = Placing({}, 0, None)


def shipped_levels() -> list[Level]:
    """Return the seven levels by the formula of the specification."""
    return [
        {v: (lo := -2500 + w * ((v + 2500) // w), min(lo + w - 1, 2500)) for v in range(-2500, 2501)}
        for w in (2, 4, 8, 16, 32, 64, 256)
    ]


def anonymize_windows(
    rows: Iterable[Row],
    *,
    start_ns: int,
    length_ns: int,
    windows: int,
    levels: Sequence[Level],
    settings: PlainSettings,
    release_id: Callable[[str], str] = str,
) -> tuple[list[PlainWindow], int]:
    """Return what becomes of each window, and how many rows lie in none of them."""
    rows_of: dict[int, list[Row]] = {index: [] for index in range(windows)}
    outside = 0
    for row in rows:
        index = (row.time_ns - start_ns) // length_ns
        if index in rows_of:
            rows_of[index].append(row)
        else:
            outside += 1
    return [anonymize_window(rows_of[index], levels, settings, release_id) for index in range(windows)], outside


def anonymize_window(
    rows: Sequence[Row], levels: Sequence[Level], settings: PlainSettings, release_id: Callable[[str], str] = str
) -> PlainWindow:
    """Return what becomes of the rows of one window."""
    result = PlainWindow(read=len(rows))
    usable: list[tuple[int, str, float]] = []
    for row in rows:
        if not row.source or not math.isfinite(row.value_uv):
            result.invalid += 1
        elif (row.time_ns, row.source, row.value_uv) in usable:
            result.duplicate += 1
        else:
            usable.append((row.time_ns, row.source, row.value_uv))

    values_at = Counter((time_ns, source) for time_ns, source, _ in usable)
    contradicting = {source for (_, source), values in values_at.items() if values > 1}
    measured = {(time_ns, source): value_uv for time_ns, source, value_uv in usable if source not in contradicting}
    result.contradictory = len(usable) - len(measured)

    first, last = min(levels[0]), max(levels[0])
    members = []
    for (time_ns, source), value_uv in measured.items():
        rounded = round(value_uv)  # Python rounds halves to even, exactly, to an int of any size
        result.coded += not first <= rounded <= last
        members.append(Member(max(first, min(last, rounded)), time_ns, source))
    members.sort()

    placing = place(members, levels, settings)
    result.groups = placing.groups
    result.imputed_value_uv = placing.imputed_value_uv
    result.rows_at_level[WITHHELD] = len(members) - len(placing.of) + result.contradictory
    for time_ns, released_id, member in sorted((member.time_ns, release_id(member.source), member) for member in placing.of):
        placed = placing.of[member]
        result.rows.append(ReleasedRow(time_ns, released_id, placed.value_uv))
        result.imputed.append(placing.imputed_value_uv is not None and placed.level >= STARRED)
        result.rows_at_level[placed.level] += 1
        result.unchanged += placed.value_uv == measured[time_ns, member.source]
    return result


def place(members: Sequence[Member], levels: Sequence[Level], settings: PlainSettings) -> Placing:
    """Return what each member that leaves gets."""
    if sharers(members, settings.k_unit) < settings.k:
        return NOTHING_PLACED

    if settings.method == "optimal":
        together = partition(members, settings)
        return Placing(regrouped_rows(together), len(together), None)

    groups, residual = climb(members, levels[: settings.max_level], settings.k, settings.k_unit)

    regrouped: list[list[Member]] = []
    if settings.residual == "regroup" and residual:
        if sharers(residual, settings.k_unit) < settings.k:
            groups, residual = dissolve(groups, residual)
        regrouped = partition(residual, settings)

    placed: dict[Member, Placed] = {}
    for group in groups:
        for member in group.members:
            placed[member] = Placed(group_value(group, settings.imputation), group.level)
    placed |= regrouped_rows(regrouped)

    formed = len(groups) + len(regrouped)
    if settings.residual == "impute" and residual:
        return impute(placed, residual, settings.k, formed)
    return Placing(placed, formed, None)


def regrouped_rows(groups: Sequence[Sequence[Member]]) -> dict[Member, Placed]:
    """Return what the members of groups without a range get: their mean, past the last level."""
    return {member: Placed(whole(mean(one.value_uv for one in group)), STARRED) for group in groups for member in group}


def impute(placed: Mapping[Member, Placed], residual: Sequence[Member], k: int, formed: int) -> Placing:
    """Give the residual the mean of the values that the placed rows are released with; without any, withhold the window."""
    if not placed:
        return NOTHING_PLACED
    imputed = as_float(mean(one.value_uv for one in placed.values()))
    level = STARRED if len(residual) >= k else SUPPRESSED
    return Placing({**placed, **{member: Placed(imputed, level) for member in residual}}, formed, imputed)


def sharers(members: Sequence[Member], unit: Unit) -> int:
    """Return how many rows, or different sources, the members are."""
    return len({member.source for member in members} if unit == "source" else members)


def climb(members: Sequence[Member], levels: Sequence[Level], k: int, unit: Unit = "record") -> tuple[list[Group], list[Member]]:
    """Return the groups that ranges of at least k rows, or sources, make, level by level, and the rows left over."""
    groups: list[Group] = []
    waiting = list(members)
    for number, level in enumerate(levels, start=1):
        in_range: dict[tuple[int, int], list[Member]] = {}
        for member in waiting:
            in_range.setdefault(level[member.value_uv], []).append(member)
        waiting = []
        for bounds, found in in_range.items():
            if sharers(found, unit) >= k:
                groups.append(Group(number, bounds, tuple(found)))
            else:
                waiting.extend(found)
    return groups, sorted(waiting)


def dissolve(groups: Sequence[Group], residual: Sequence[Member]) -> tuple[list[Group], list[Member]]:
    """Return the groups that stay, and the residual with the members of each row's nearest group.

    Every row chooses among all groups that the levels made, whatever the other rows choose.
    """
    chosen = set()
    for row in residual:
        by_distance = [
            (abs(group.mean_uv - row.value_uv), group.mean_uv, group.level, number) for number, group in enumerate(groups)
        ]
        chosen.add(min(by_distance)[-1])
    kept = [group for number, group in enumerate(groups) if number not in chosen]
    freed = [member for number in chosen for member in groups[number].members]
    return kept, sorted([*residual, *freed])


def partition(ordered: Sequence[Member], settings: PlainSettings) -> list[list[Member]]:
    """Return the members, in their order, in groups of at least k rows, or sources, with the least squared error, or little."""
    if settings.k_unit == "source":
        sizes = source_group_sizes([SourceRow(member.value_uv, member.source) for member in ordered], settings.k)
    else:
        sizes = partition_sizes([member.value_uv for member in ordered], settings.k)
    groups, start = [], 0
    for size in sizes:
        groups.append(list(ordered[start : start + size]))
        start += size
    return groups


def partition_sizes(values: Sequence[int], k: int) -> list[int]:
    """Return the sizes of the contiguous groups of at least `k` values with the least squared error, by dynamic programming.

    Of two partitions with equal error the one with the smaller last group, then by the same rule before it. A group of 2k or more
    is never needed: cut in two, its error does not grow, and the last part is smaller.
    """
    best: list[tuple[Fraction, list[int]] | None] = [(Fraction(0), [])]
    for stop in range(1, len(values) + 1):
        found: tuple[Fraction, list[int]] | None = None
        for size in range(k, min(2 * k - 1, stop) + 1):
            before = best[stop - size]
            if before is None:
                continue
            error = before[0] + squared_error(values[stop - size : stop])
            # Sizes grow: of two with equal error the earlier, with the smaller last group, stays.
            if found is None or error < found[0]:
                found = (error, [*before[1], size])
        best.append(found)
    last = best[-1]
    assert last is not None, f"{len(values)} values cannot make a group of {k}"
    return last[1]


def partition_sizes_by_trying_all(values: Sequence[int], k: int) -> list[int]:
    """Return what `partition_sizes` must, by looking at every contiguous partition, groups of any size from `k` on."""
    return min(every_partition(len(values), k), key=lambda sizes: (total_error(values, sizes), sizes[::-1]))


def every_partition(n: int, k: int) -> Iterator[list[int]]:
    """Yield the sizes of every way to cut `n` values in groups of at least `k`."""
    if n == 0:
        yield []
    for last in range(k, n + 1):
        for before in every_partition(n - last, k):
            yield [*before, last]


def total_error(values: Sequence[int], sizes: Sequence[int]) -> Fraction:
    """Return the squared error of `values` cut in groups of `sizes`, in order."""
    error, start = Fraction(0), 0
    for size in sizes:
        error += squared_error(values[start : start + size])
        start += size
    return error


def squared_error(values: Sequence[int]) -> Fraction:
    """Return the sum of squared distances from the mean, exactly.

    By the definition this is Σ (v − mean)². It is written as (n Σ v² − (Σ v)²) / n, the same number, as one division instead of n.
    """
    n = len(values)
    return Fraction(n * sum(v * v for v in values) - sum(values) ** 2, n)


def group_value(group: Group, imputation: Imputation) -> float:
    """Return the released value of a group that a range made."""
    if imputation == "mean":
        return whole(group.mean_uv)
    lo, hi = group.bounds
    return as_float(Fraction(lo + hi, 2))


def mean(values: Iterable[int | float]) -> Fraction:
    """Return the exact mean."""
    exact = [Fraction(value) for value in values]
    return sum(exact, Fraction(0)) / len(exact)


def whole(value: Fraction) -> float:
    """Return the nearest whole number, halves to even; zero is never negative."""
    return float(round(value))


def as_float(value: Fraction) -> float:
    """Return the nearest float; zero is never negative."""
    return value.numerator / value.denominator
