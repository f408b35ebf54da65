"""Rows are cut in the order of value, time and raw source id, whatever order they come in."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anonymizer.samples import arrange
from anonymizer.value_order import in_value_order
from anonymizer.windows import WindowRange
from tests.core.both_ways import samples_of
from tests.core.plain_anonymizer import Row
from tests.core.row_strategies import Chunk, chunks_of_any_kind


@given(chunk=chunks_of_any_kind(), seed=st.integers(0, 2**32), span=st.sampled_from((3, 2**16 - 1, 2**16, 10**9)))
def test_some_rows_of_a_chunk_stand_in_order_of_window_value_time_and_source(chunk: Chunk, seed: int, span: int) -> None:
    chance = random.Random(seed)
    samples = samples_of(chunk.rows)
    # Pseudonyms stand in another order than the ids: so do rows of one time.
    ranks = np.array(chance.sample(range(len(samples.source_ids)), len(samples.source_ids)), dtype=np.int64)
    rows = arrange(samples, chunk.windows, ranks)
    few = [0, span, *(chance.randint(0, span) for _ in range(3))]
    leaves = np.array([chance.choice(few) - span // 2 for _ in rows.times_ns], dtype=np.int64)
    positions = np.array([place for place in range(len(leaves)) if chance.random() < 0.8], dtype=np.intp)

    def key(place: int) -> tuple[int, ...]:
        return tuple(int(column[place]) for column in (rows.window_index, leaves, rows.times_ns, rows.source_codes))

    assert in_value_order(rows, leaves, positions).tolist() == sorted(positions.tolist(), key=key)


@pytest.mark.parametrize("released_first", [[0, 1, 2], [2, 0, 1]])
def test_equal_values_of_one_time_stand_in_the_order_of_raw_ids(released_first: list[int]) -> None:
    chunk_rows = [(5, source, 7.0) for source in "cab"] + [(4, "c", 7.0), (6, "a", 6.0)]
    samples = samples_of([Row(*row) for row in chunk_rows])
    rows = arrange(samples, WindowRange(0, 10, 10), np.array(released_first))

    order = in_value_order(rows, rows.values_uv.astype(np.int64), np.arange(5))

    told = [(rows.values_uv[place], rows.times_ns[place], samples.source_ids[rows.source_codes[place]]) for place in order]
    assert told == [(6, 6, "a"), (7, 4, "c"), (7, 5, "a"), (7, 5, "b"), (7, 5, "c")]
