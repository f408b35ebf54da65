"""What is said about the signal that is left, held against the textbook's formulas."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anonymizer.fidelity_sums import Fidelity, fidelity_of

windows = st.lists(st.tuples(st.integers(0, 3), st.integers(-500, 500), st.integers(-9, 9)), min_size=1, max_size=40)


def columns(window: list[tuple[int, int, int]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    sources = np.array([source for source, _, _ in window], dtype=np.int32)
    raw = np.array([value for _, value, _ in window], dtype=np.float64)
    return raw, raw + np.array([error for _, _, error in window]), sources


@given(st.lists(windows, min_size=1, max_size=4))
def test_correlation_and_prdn_are_those_of_all_rows_each_source_around_its_own_mean(
    several: list[list[tuple[int, int, int]]],
) -> None:
    together = Fidelity()
    raw_parts, released_parts, errors = [], [], []
    for window in several:
        raw, released, sources = columns(window)
        together += fidelity_of(raw, released, sources)
        for source in set(sources.tolist()):
            rows = sources == source
            raw_parts.append(raw[rows] - raw[rows].mean())
            released_parts.append(released[rows] - released[rows].mean())
        errors.append(raw - released)
    x, y, error = map(np.concatenate, (raw_parts, released_parts, errors))

    assert together.rows == len(x)
    if x.any() and y.any():
        assert together.correlation == pytest.approx((x @ y) / (np.linalg.norm(x) * np.linalg.norm(y)), abs=1e-9)
    if x.any():
        assert together.prdn_percent == pytest.approx(100 * np.linalg.norm(error) / np.linalg.norm(x), abs=1e-9)


def test_a_signal_that_never_changes_has_no_figures() -> None:
    flat = fidelity_of(np.full(5, 3.0), np.full(5, 3.0), np.zeros(5, dtype=np.int32))

    assert math.isnan(flat.correlation)
    assert math.isnan(flat.prdn_percent)


def test_wearers_at_different_heights_do_not_flatter() -> None:
    """Of two wearers whose beats are lost altogether, the distance between them says nothing."""
    sources = np.repeat(np.array([0, 1], dtype=np.int32), 4)
    raw = np.array([0.0, 9.0, 0.0, 9.0, 1000.0, 1009.0, 1000.0, 1009.0])
    released = np.repeat([4.0, 1004.0], 4) + np.array([0.0, 0.0, 1.0, 1.0] * 2)

    assert fidelity_of(raw, released, sources).correlation == pytest.approx(0.0)
    assert np.corrcoef(raw, released)[0, 1] > 0.99


def test_no_rows_are_no_figures_and_change_none() -> None:
    some = fidelity_of(*columns([(0, 1, 1), (0, 5, 0)]))

    assert some + fidelity_of(np.empty(0), np.empty(0), np.empty(0, dtype=np.int32)) == some
