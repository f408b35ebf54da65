"""Attack 9: windows so small, or values so far out, that one row stands alone with its own value, as the top of an R wave does."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anonymizer.anonymize import anonymize_chunk
from anonymizer.batch import Batch
from anonymizer.samples import make_samples
from anonymizer.windows import NANOSECONDS, WindowRange
from tests.documentation.sample import Floats, alone, windows
from utility.choices import CLASSIC, DEFAULT, OPTIMAL, Choice, recipe_of

ONE_WINDOW = WindowRange(0, 5 * NANOSECONDS, 5 * NANOSECONDS)

DROP = Choice("drop", {"RESIDUAL": "drop"})
WIDEST = Choice("max level 7", {"MAX_LEVEL": "7"})

CHOICES = [CLASSIC, DEFAULT, OPTIMAL, DROP, WIDEST]


def lone_rows(values_uv: Floats) -> int:
    """Attack: return how many rows have a value that no other row of the window has."""
    return sum(rows == 1 for rows in Counter(values_uv.tolist()).values())


def released(values_uv: list[int], choice: Choice, k: int) -> Batch | None:
    samples = make_samples(np.arange(len(values_uv)), np.zeros(len(values_uv), dtype=np.int32), ["a"], values_uv)
    return anonymize_chunk(samples, ONE_WINDOW, recipe_of(choice, k=k, window_s=5)).results[0].batch


def test_rounding_to_a_grid_leaves_the_tops_of_r_waves_alone() -> None:
    record = alone()[0]
    first_window = record.values_uv[record.times_ns < windows().window(0).end_ns]

    # Even to a grid of 64 µV, which is coarser than anything the default does to most rows.
    assert lone_rows(np.rint(first_window / 64) * 64) > 0


@pytest.mark.parametrize("choice", CHOICES, ids=lambda choice: choice.name)
@given(rest=st.lists(st.integers(-30, 30), max_size=12), outlier=st.integers(-2600, 2600), k=st.integers(2, 6))
def test_an_outlier_in_a_tiny_window_is_withheld_or_grouped(choice: Choice, rest: list[int], outlier: int, k: int) -> None:
    batch = released([*rest, outlier], choice, k)

    if len(rest) + 1 < k:
        assert batch is None
    if batch is None:
        return
    groups = Counter(batch.values_uv.tolist())
    if batch.imputed_rows is not None:
        # The classic way out: a value made of all others, which says nothing of those that carry it.
        others = batch.values_uv[~batch.imputed_rows]
        assert batch.values_uv[batch.imputed_rows] == pytest.approx(others.mean())
        groups = Counter(others.tolist())
    assert min(groups.values()) >= k


@pytest.mark.parametrize("choice", [DEFAULT, OPTIMAL], ids=lambda choice: choice.name)
@pytest.mark.parametrize("k", [2, 5, 20])
def test_the_highest_row_of_every_window_of_a_record_shares_its_value_with_k_minus_one_others(choice: Choice, k: int) -> None:
    record = alone()[0]
    results = anonymize_chunk(record, windows(), recipe_of(choice, k=k, window_s=5)).results

    for result in results:
        assert result.batch is not None
        assert (result.batch.values_uv == result.batch.values_uv.max()).sum() >= k
