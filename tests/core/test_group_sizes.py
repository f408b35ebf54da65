"""No group is formed of fewer than k rows, or sources.

Released values alone cannot show this: rounding gives two groups of k − 1 one value, and a count of rows with that value finds 2k − 2.
So the method itself is asked for its groups; and, in case it tells tales, some windows are made such that no two groups can be released
with the same value and level.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from anonymizer.generalization import NO_GROUP, Generalization
from anonymizer.hierarchy import Residual
from anonymizer.level_hierarchy_anonymizer import LevelHierarchyAnonymizer
from anonymizer.samples import arrange
from anonymizer.windows import WindowRange
from tests.core.both_ways import method_of, samples_of, shipped_ranges
from tests.core.plain_anonymizer import PlainSettings, Row
from tests.core.row_strategies import (
    Chunk,
    chunks_of_any_kind,
    chunks_of_ties,
    chunks_with_few_left_over,
    settings_of_any_kind,
)

#: Wider than any range up to level 6, so that no two of its multiples meet in one.
APART_UV = 100

WITHHELD, REGROUPED = 0, 8


def generalized(chunk: Chunk, method: LevelHierarchyAnonymizer) -> tuple[Generalization, list[int]]:
    """Return what the method makes of a chunk, and the window of each row."""
    samples = samples_of(chunk.rows)
    rows = arrange(samples, chunk.windows, np.arange(len(samples.source_ids)))
    return method.generalize(rows), rows.window_index.tolist()


def rows_of_groups(generalization: Generalization, windows: list[int]) -> Counter[tuple[int, int, float]]:
    """Return how many rows have the same window, level and value, imputed and withheld ones left out."""
    rows = zip(
        windows, generalization.levels.tolist(), generalization.values_uv.tolist(), generalization.imputed.tolist(), strict=True
    )
    return Counter((window, level, value) for window, level, value, imputed in rows if level != WITHHELD and not imputed)


@settings(max_examples=4 * settings().max_examples)
@given(data=st.data(), choices=settings_of_any_kind(st.integers(2, 6)))
def test_every_group_the_method_names_holds_k_and_has_one_value(data: st.DataObject, choices: PlainSettings) -> None:
    chunk = data.draw(chunks_of_any_kind() | chunks_with_few_left_over(choices.k) | chunks_of_ties(choices.k))
    samples = samples_of(chunk.rows)
    rows = arrange(samples, chunk.windows, np.arange(len(samples.source_ids)))

    result = method_of(choices, shipped_ranges()).generalize(rows)
    members = defaultdict(list)
    for row, group in enumerate(result.group_of_row.tolist()):
        members[group].append(row)
    alone = members.pop(NO_GROUP, [])

    assert all(result.imputed[row] or result.levels[row] == WITHHELD for row in alone)
    for found in members.values():
        sharers = rows.source_codes[found] if choices.k_unit == "source" else found
        assert len(set(sharers)) >= choices.k
        assert len(set(zip(rows.window_index[found].tolist(), result.values_uv[found].tolist(), strict=True))) == 1
    assert Counter(rows.window_index[found[0]] for found in members.values()) == Counter(dict(enumerate(result.groups.tolist())))


@given(data=st.data(), k=st.integers(2, 6), max_level=st.integers(1, 7), residual=st.sampled_from(("impute", "drop")))
def test_every_group_of_a_range_holds_at_least_k_rows(data: st.DataObject, k: int, max_level: int, residual: Residual) -> None:
    # Ranges of one level do not overlap, so their midpoints differ: level and midpoint name the group.
    chunk = data.draw(chunks_of_any_kind() | chunks_with_few_left_over(k))
    method = LevelHierarchyAnonymizer(
        shipped_ranges().hierarchy, k, max_level=max_level, residual=residual, imputation="midpoint"
    )

    result, windows = generalized(chunk, method)
    groups = rows_of_groups(result, windows)

    assert all(rows >= k for rows in groups.values())
    assert Counter(window for window, _, _ in groups) == Counter(dict(enumerate(result.groups.tolist())))


@given(seed=st.integers(0, 2**32), k=st.integers(2, 8), max_level=st.integers(1, 6))
def test_every_regrouped_group_holds_at_least_k_rows_and_fewer_than_twice_as_many(seed: int, k: int, max_level: int) -> None:
    # Different multiples of 100 stand alone up to level 6, and the means of groups that do not overlap are more than 1 µV apart.
    chance = random.Random(seed)
    multiples = chance.sample(range(-25, 26), chance.randint(k, 51))
    rows = tuple(Row(time_ns, "a", float(multiple * APART_UV)) for time_ns, multiple in enumerate(multiples))
    method = LevelHierarchyAnonymizer(shipped_ranges().hierarchy, k, max_level=max_level)

    result, windows = generalized(Chunk(rows, WindowRange(0, 100, 100)), method)
    groups = rows_of_groups(result, windows)

    assert {level for _, level, _ in groups} == {REGROUPED}
    assert all(k <= size < 2 * k for size in groups.values())
    assert result.groups.tolist() == [len(groups)]


@given(seed=st.integers(0, 2**32), k=st.integers(2, 5), left_over=st.integers(1, 4))
def test_a_group_dissolved_for_fewer_than_k_rows_makes_groups_of_at_least_k_again(seed: int, k: int, left_over: int) -> None:
    # One cluster of k different values in one range of level 3, and up to k − 1 rows far apart that take it apart.
    chance = random.Random(seed)
    far = chance.sample([multiple for multiple in range(-20, 21) if abs(multiple) > 1], min(left_over, k - 1))
    values = [*range(-4, -4 + k), *(multiple * APART_UV for multiple in far)]
    rows = tuple(Row(time_ns, "a", float(value)) for time_ns, value in enumerate(values))
    method = LevelHierarchyAnonymizer(shipped_ranges().hierarchy, k, max_level=3)

    result, windows = generalized(Chunk(rows, WindowRange(0, 100, 100)), method)

    # k + 1 to 2k − 1 rows are one group: there is no way to cut them.
    assert list(rows_of_groups(result, windows).values()) == [len(values)]
    assert set(result.levels.tolist()) == {REGROUPED}
