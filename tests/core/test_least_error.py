"""The figure that reports set errors against is the least there is, and a lower bound where k counts sources."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anonymizer.least_error import least_squared_errors
from anonymizer.samples import arrange
from tests.core.both_ways import method_of, samples_of, shipped_ranges
from tests.core.plain_anonymizer import PlainSettings, Row, partition_sizes, total_error
from tests.core.row_strategies import Chunk, chunks_of_any_kind, settings_of_any_kind
from tests.core.test_golden_sources import WINDOW, rows_of


def errors_of(chunk: Chunk, settings: PlainSettings) -> list[float]:
    """Return each window's squared error under a method, of released rows from their group's mean; NaN where a row is left out."""
    samples = samples_of(chunk.rows)
    rows = arrange(samples, chunk.windows, np.arange(len(samples.source_ids)))
    groups = method_of(settings, shipped_ranges()).generalize(rows).group_of_row
    values = np.clip(np.rint(rows.values_uv), -2500, 2500)
    errors = [0.0 if (rows.window_index == window).any() else math.nan for window in range(len(chunk.windows))]
    for group in set(groups.tolist()):
        found = values[groups == group]
        error = math.nan if group < 0 else float(((found - found.mean()) ** 2).sum())
        for window in set(rows.window_index[groups == group].tolist()):
            errors[window] += error
    return errors


def test_it_is_the_error_of_the_best_groups_by_hand() -> None:
    # 0 0 | 10 12: 1 + 1. By sources, all four in one group: 22 / 4 = 5.5, 2 · 30.25 + 20.25 + 42.25.
    rows = tuple(rows_of("0a 0a 10b 12b"))

    assert least_squared_errors(samples_of(rows), WINDOW, shipped_ranges().hierarchy, 2).tolist() == [2.0]
    assert errors_of(Chunk(rows, WINDOW), PlainSettings(k=2, method="optimal")) == [2.0]
    assert errors_of(Chunk(rows, WINDOW), PlainSettings(k=2, method="optimal", k_unit="source")) == [123.0]


@given(chunk=chunks_of_any_kind(), k=st.integers(2, 5))
def test_it_is_the_least_error_of_every_window(chunk: Chunk, k: int) -> None:
    least = least_squared_errors(samples_of(chunk.rows), chunk.windows, shipped_ranges().hierarchy, k).tolist()

    samples = samples_of(chunk.rows)
    rows = arrange(samples, chunk.windows, np.arange(len(samples.source_ids)))
    for window, error in enumerate(least):
        values = sorted(max(-2500, min(2500, round(value))) for value in rows.values_uv[rows.window_index == window].tolist())
        if len(values) < k:
            assert math.isnan(error)
        else:
            assert error == pytest.approx(float(total_error(values, partition_sizes(values, k))), abs=1e-6)


@given(chunk=chunks_of_any_kind(), choices=settings_of_any_kind())
def test_no_method_has_less(chunk: Chunk, choices: PlainSettings) -> None:
    least = least_squared_errors(samples_of(chunk.rows), chunk.windows, shipped_ranges().hierarchy, choices.k).tolist()

    for lower, error in zip(least, errors_of(chunk, choices), strict=True):
        assert math.isnan(error) or error >= lower - 1e-6


def test_windows_without_enough_rows_have_none() -> None:
    rows = [Row(0, "a", 5.0)]

    assert np.isnan(least_squared_errors(samples_of(rows), WINDOW, shipped_ranges().hierarchy, 2)).tolist() == [True]
    assert np.isnan(least_squared_errors(samples_of([]), WINDOW, shipped_ranges().hierarchy, 2)).tolist() == [True]
