"""Samples on their way in: sources made ascending, rows sorted out, counted and put in order."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anonymizer.samples import NO_SOURCE, Samples, arrange, contradictions_in, make_samples
from anonymizer.windows import NANOSECONDS, WindowRange

YEAR_NS = 365 * 24 * 3600 * NANOSECONDS


def sources_of(samples: Samples) -> list[str | None]:
    return [None if code == NO_SOURCE else samples.source_ids[code] for code in samples.source_codes.tolist()]


@given(ids=st.lists(st.text(max_size=3), min_size=1, max_size=6), data=st.data())
def test_rows_keep_their_source_whatever_order_the_dictionary_comes_in(ids: list[str], data: st.DataObject) -> None:
    codes = data.draw(st.lists(st.integers(-1, len(ids) - 1), max_size=10))

    samples = make_samples([0] * len(codes), codes, ids, [0.0] * len(codes))

    assert sources_of(samples) == [None if code == NO_SOURCE else ids[code] or None for code in codes]
    assert list(samples.source_ids) == sorted(set(samples.source_ids))
    assert "" not in samples.source_ids


def test_columns_have_the_types_that_everything_relies_on_and_no_row_is_shown_when_printed() -> None:
    samples = make_samples([12345], [0], ["wearer-7"], [2])
    types = [str(column.dtype) for column in (samples.times_ns, samples.source_codes, samples.values_uv)]

    assert types == ["int64", "int32", "float64"]
    assert repr(samples) == "Samples(1 rows)"


def test_rows_are_put_in_order_of_time_then_of_the_rank_asked_for() -> None:
    samples = make_samples([5, 5, 3, 5], [0, 1, 2, 2], ["a", "b", "c"], [1.0, 2.0, 3.0, 4.0])

    arranged = arrange(samples, WindowRange(0, 10, 10), np.array([2, 0, 1]))

    assert arranged.values_uv.tolist() == [3.0, 2.0, 4.0, 1.0]
    assert arranged.source_codes.tolist() == [2, 1, 2, 0]


def test_rows_are_counted_where_they_lie() -> None:
    samples = make_samples(
        [-1, 0, 0, 9, 10, 10, 11, 20],
        [0, 0, 0, NO_SOURCE, 0, 0, 0, 0],
        ["a"],
        [1.0, 5.0, 5.0, 1.0, 1.0, math.nan, math.inf, 1.0],
    )

    arranged = arrange(samples, WindowRange(0, 20, 10), np.array([0]))

    assert arranged.read.tolist() == [3, 3]
    assert arranged.invalid.tolist() == [1, 2]
    assert arranged.duplicate.tolist() == [1, 0]
    assert arranged.outside == 2
    assert arranged.values_uv.tolist() == [5.0, 1.0]
    assert arranged.window_index.tolist() == [0, 1]


@pytest.mark.parametrize("sources", [3, 30])
def test_years_of_windows_are_put_in_order_too(sources: int) -> None:
    # 30 sources × 10 years in nanoseconds are more than 63 bits hold.
    assert 30 * 10 * YEAR_NS > 2**63
    chance = random.Random(sources)
    windows = WindowRange(0, 10 * YEAR_NS, YEAR_NS)
    times = [chance.choice((0, 1, YEAR_NS, 10 * YEAR_NS - 1, chance.randrange(10 * YEAR_NS))) for _ in range(400)]
    codes = [chance.randrange(sources) for _ in times]
    values = [float((time_ns + code) % 97) for time_ns, code in zip(times, codes, strict=True)]
    samples = make_samples(times, codes, [f"{number:02}" for number in range(sources)], values)

    arranged = arrange(samples, windows, np.arange(sources))

    once = {(time_ns, code): value for time_ns, code, value in zip(times, codes, values, strict=True)}
    rows = zip(arranged.times_ns.tolist(), arranged.source_codes.tolist(), arranged.values_uv.tolist(), strict=True)
    assert list(rows) == [(*key, once[key]) for key in sorted(once)]
    assert int(arranged.duplicate.sum()) == len(times) - len(once)


def test_sources_that_contradict_themselves_are_counted_by_window_and_how_often_they_do() -> None:
    # Window 0: a at 1 of 20 times, b at 2 of 20, c at none. Window 1: c alone, and fine.
    rows = [(time, source, 0.0) for time in range(20) for source in (0, 1, 2)]
    rows += [(7, 0, 1.0), (7, 1, 1.0), (8, 1, 1.0), (8, 1, 2.0), (8, 1, 2.0), (25, 2, 0.0)]
    times, codes, values = zip(*rows, strict=True)
    samples = make_samples(times, codes, ["a", "b", "c"], values)

    found = contradictions_in(samples, WindowRange(0, 60, 20))

    assert found.rows.tolist() == [21 + 23, 0, 0]
    assert found.contradicting.tolist() == [2, 0, 0]
    assert found.throughout.tolist() == [1, 0, 0]
    assert found.sources.tolist() == [3, 0, 0]


def test_windows_without_rows_are_there_with_counts_of_zero() -> None:
    arranged = arrange(make_samples([], [], [], []), WindowRange(0, 30, 10), np.array([], dtype=np.int64))

    assert (arranged.read.tolist(), arranged.invalid.tolist(), arranged.duplicate.tolist()) == ([0, 0, 0],) * 3
    assert (len(arranged.times_ns), arranged.outside) == (0, 0)
