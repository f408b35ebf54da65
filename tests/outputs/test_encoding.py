"""Texts must read back as what they were made from, by anybody."""

from __future__ import annotations

import json
import math
import re
from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from outputs.encoding import joined, source_texts, summary_of, time_text, time_texts, value_texts
from tests.outputs.batches import make_batch, time_ns_of

FINITE = st.floats(allow_nan=False, allow_infinity=False)
WHOLE = st.integers(-(2**60), 2**60).map(float)
TIMES_NS = st.integers(-(2**63) + 1, 2**63 - 1)


@given(st.lists(FINITE | WHOLE | st.sampled_from([0.0, -0.0, 0.5, -145.5]), min_size=1, max_size=20))
def test_a_value_reads_back_as_the_same_float_everywhere(values: list[float]) -> None:
    texts = value_texts(np.array(values)).to_pylist()

    assert [float(text) for text in texts] == values
    assert [json.loads(text) for text in texts] == values


@given(st.lists(st.integers(-5000, 5000), min_size=1, max_size=20))
def test_whole_microvolts_are_written_with_one_zero_behind_the_point(values: list[int]) -> None:
    assert value_texts(np.array(values, dtype=np.float64)).to_pylist() == [f"{value}.0" for value in values]


@given(st.lists(FINITE | WHOLE, min_size=1, max_size=20))
def test_no_value_can_be_taken_for_an_integer_or_a_negative_zero(values: list[float]) -> None:
    texts = value_texts(np.array([*values, -0.0])).to_pylist()

    assert all(isinstance(json.loads(text), float) for text in texts)
    assert all(math.copysign(1, float(text)) == 1 for text in texts if float(text) == 0)


@given(st.lists(TIMES_NS, min_size=1, max_size=20))
def test_a_time_is_written_to_the_nanosecond(times_ns: list[int]) -> None:
    texts = time_texts(np.array(times_ns, dtype=np.int64)).to_pylist()

    assert [time_ns_of(text) for text in texts] == times_ns
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z", text) for text in texts)


@pytest.mark.parametrize("time_ns", [0, 1_762_180_200_000_000_000, 951_782_400_000_000_000, -1_000_000_000])
def test_a_time_is_the_one_the_standard_library_writes(time_ns: int) -> None:
    assert time_text(time_ns) == datetime.fromtimestamp(time_ns / 1e9, UTC).strftime("%Y-%m-%dT%H:%M:%S.000000000Z")


def test_a_part_of_a_column_is_written_as_if_it_were_the_whole() -> None:
    times_ns = np.arange(1000, dtype=np.int64) * 1_000_000_007
    rows = slice(333, 777)

    assert time_texts(times_ns[rows]).to_pylist() == time_texts(times_ns).to_pylist()[rows]
    assert time_texts(times_ns[::3]).to_pylist() == time_texts(times_ns).to_pylist()[::3]


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1, max_size=8), st.data())
def test_rows_are_joined_byte_for_byte(names: list[str], data: st.DataObject) -> None:
    index = data.draw(st.lists(st.integers(0, len(names) - 1), min_size=1, max_size=20))

    written = joined("<", source_texts(np.array(index, dtype=np.int32), names), ">")

    assert written.decode() == "".join(f"<{names[i]}>" for i in index)


def test_a_summary_holds_what_was_promised_and_counted_and_nothing_else() -> None:
    batch = make_batch([(0, "a", 1.0), (1, "b", 1.0), (2, "a", 2.5), (3, "b", 2.5)])

    assert summary_of(batch) == {
        "schema": "1",
        "batch_id": batch.batch_id,
        "window_seconds": 5,
        "rows_read": 7,
        "rows_released": 4,
        "rows_withheld": 1,
        "rows_invalid": 1,
        "rows_duplicate": 1,
        "rows_starred": 0,
        "rows_suppressed": 0,
        "k": 2,
        "k_unit": "record",
        "method": "hierarchy",
        "distinct_values": 2,
        "smallest_group": 2,
        "distinct_sources": 2,
        "settings_digest": "00112233aabbccdd",
        "key_id": "",
        "partial": False,
    }
    assert summary_of(batch, partial=True) == {**summary_of(batch), "partial": True}
