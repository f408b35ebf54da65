"""The fast implementation gives what the plain one gives: the same rows, the same bytes, the same counts."""

from __future__ import annotations

import itertools
import math
import random
from dataclasses import replace
from fractions import Fraction

from hypothesis import given, settings
from hypothesis import strategies as st

from anonymizer.anonymize import WINDOWS_AT_ONCE, anonymize_chunk
from anonymizer.pseudonyms import Pseudonymizer
from anonymizer.windows import WindowRange
from tests.core.both_ways import (
    Ranges,
    WindowSeen,
    recipe_of,
    samples_of,
    shipped_ranges,
    through_the_plain_one,
    through_the_project,
)
from tests.core.plain_anonymizer import PlainSettings, Row
from tests.core.row_strategies import (
    ODD_IDS,
    Chunk,
    chunks_of_any_kind,
    chunks_of_ties,
    chunks_with_few_left_over,
    ranges_of_any_kind,
    settings_of_any_kind,
)


@settings(max_examples=4 * settings().max_examples)
@given(chunk=chunks_of_any_kind(), choices=settings_of_any_kind(), ranges=ranges_of_any_kind())
def test_any_chunk_under_any_settings_comes_out_as_the_specification_says(
    chunk: Chunk, choices: PlainSettings, ranges: Ranges
) -> None:
    expected = through_the_plain_one(chunk.rows, chunk.windows, choices, ranges)

    assert through_the_project(chunk.rows, chunk.windows, choices, ranges) == expected


@settings(max_examples=4 * settings().max_examples)
@given(data=st.data(), choices=settings_of_any_kind(st.integers(2, 5)))
def test_the_right_groups_are_dissolved_when_fewer_than_k_rows_are_left_over(data: st.DataObject, choices: PlainSettings) -> None:
    chunk = data.draw(chunks_with_few_left_over(choices.k))

    expected = through_the_plain_one(chunk.rows, chunk.windows, choices, shipped_ranges())

    assert through_the_project(chunk.rows, chunk.windows, choices, shipped_ranges()) == expected


@given(chunk=chunks_of_any_kind(), choices=settings_of_any_kind(), key=st.binary(min_size=16, max_size=80))
def test_pseudonyms_change_the_ids_and_the_order_of_equal_times_but_no_value(
    chunk: Chunk, choices: PlainSettings, key: bytes
) -> None:
    names = Pseudonymizer(key)

    expected = through_the_plain_one(chunk.rows, chunk.windows, choices, shipped_ranges(), Pseudonymizer(key).released_id)

    assert through_the_project(chunk.rows, chunk.windows, choices, shipped_ranges(), names) == expected


@given(data=st.data(), k=st.integers(2, 6), key=st.binary(min_size=16, max_size=16))
def test_rows_of_one_value_are_cut_in_the_order_of_time_and_raw_id_under_any_pseudonyms(
    data: st.DataObject, k: int, key: bytes
) -> None:
    chunk = data.draw(chunks_of_ties(k))
    names, choices = Pseudonymizer(key), PlainSettings(k=k, method=data.draw(st.sampled_from(("hierarchy", "optimal"))))

    expected = through_the_plain_one(chunk.rows, chunk.windows, choices, shipped_ranges(), Pseudonymizer(key).released_id)

    assert through_the_project(chunk.rows, chunk.windows, choices, shipped_ranges(), names) == expected


@given(chunk=chunks_of_any_kind(), choices=settings_of_any_kind(), order=st.randoms(use_true_random=False))
def test_the_order_of_the_rows_does_not_matter(chunk: Chunk, choices: PlainSettings, order: random.Random) -> None:
    shuffled = order.sample(chunk.rows, len(chunk.rows))

    first = through_the_project(chunk.rows, chunk.windows, choices, shipped_ranges())

    assert through_the_project(shuffled, chunk.windows, choices, shipped_ranges()) == first
    assert through_the_project(sorted(chunk.rows, key=repr), chunk.windows, choices, shipped_ranges()) == first


@given(
    cut_at=st.lists(st.fractions(0, 1, max_denominator=100), max_size=4),
    chunk=chunks_of_any_kind(),
    choices=settings_of_any_kind(),
    ranges=ranges_of_any_kind(),
)
def test_windows_come_out_the_same_however_they_are_put_in_chunks(
    cut_at: list[Fraction], chunk: Chunk, choices: PlainSettings, ranges: Ranges
) -> None:
    whole = through_the_project(chunk.rows, chunk.windows, choices, ranges).windows

    assert _in_parts(cut_at, chunk, choices, ranges) == whole


def _in_parts(cut_at: list[Fraction], chunk: Chunk, choices: PlainSettings, ranges: Ranges) -> tuple[WindowSeen, ...]:
    windows = chunk.windows
    cuts = sorted({round(share * len(windows)) for share in cut_at})
    seen: tuple[WindowSeen, ...] = ()
    for first, stop in zip([0, *cuts], [*cuts, len(windows)], strict=True):
        # Rows of other windows stay in: they are outside the part, and must not matter.
        seen += through_the_project(chunk.rows, windows.part(first, stop), choices, ranges).windows
    return seen


@settings(max_examples=settings().max_examples // 10)
@given(
    seed=st.integers(0, 2**32),
    number=st.integers(WINDOWS_AT_ONCE - 1, WINDOWS_AT_ONCE + 1) | st.integers(2 * WINDOWS_AT_ONCE - 1, 2 * WINDOWS_AT_ONCE + 2),
    choices=settings_of_any_kind(st.integers(2, 4)),
)
def test_more_windows_than_are_worked_on_at_once_come_out_as_the_specification_says(
    seed: int, number: int, choices: PlainSettings
) -> None:
    windows = WindowRange(50 * 7, 50 * (7 + number), 50)
    rows = _rows_at_random(random.Random(seed), windows)

    expected = through_the_plain_one(rows, windows, choices, shipped_ranges())

    assert through_the_project(rows, windows, choices, shipped_ranges()) == expected


def _rows_at_random(chance: random.Random, windows: WindowRange) -> list[Row]:
    spread = chance.choice((2, 6, 40, 2600))
    return [
        Row(
            chance.randrange(windows.start_ns, windows.end_ns), chance.choice(ODD_IDS[:3]), float(chance.randint(-spread, spread))
        )
        for _ in range(chance.randrange(5, 12) * len(windows))
    ]


@given(chunk=chunks_of_any_kind(), choices=settings_of_any_kind())
def test_the_columns_that_leave_have_the_types_that_outputs_rely_on(chunk: Chunk, choices: PlainSettings) -> None:
    result = anonymize_chunk(samples_of(chunk.rows), chunk.windows, recipe_of(choices, shipped_ranges()))

    for batch in (window.batch for window in result.results if window.batch is not None):
        types = [str(column.dtype) for column in (batch.times_ns, batch.source_index, batch.values_uv)]
        assert types == ["int64", "int32", "float64"]
        assert batch.imputed_rows is None or str(batch.imputed_rows.dtype) == "bool"


@given(chunk=chunks_of_any_kind(), choices=settings_of_any_kind())
def test_every_row_is_accounted_for(chunk: Chunk, choices: PlainSettings) -> None:
    seen = through_the_project(chunk.rows, chunk.windows, choices, shipped_ranges())

    assert seen.outside + sum(window.counts.read for window in seen.windows) == len(chunk.rows)
    for window in seen.windows:
        counts = window.counts
        assert counts.read == counts.released + counts.withheld + counts.invalid + counts.duplicate
        assert sum(window.rows_at_level) == counts.released + counts.withheld


@given(data=st.data(), choices=settings_of_any_kind(st.integers(2, 6)))
def test_unless_rows_are_dropped_or_imputed_nothing_is_withheld_from_a_window_of_k(
    data: st.DataObject, choices: PlainSettings
) -> None:
    chunk = data.draw(chunks_of_any_kind() | chunks_with_few_left_over(choices.k))
    choices = replace(choices, residual="regroup")

    for window, rows in zip(
        through_the_project(chunk.rows, chunk.windows, choices, shipped_ranges()).windows, _usable_rows(chunk), strict=True
    ):
        sharers = len({row.source for row in rows} if choices.k_unit == "source" else rows)
        assert window.counts.released == (len(rows) if sharers >= choices.k else 0)
        assert not any(window.imputed)


def _usable_rows(chunk: Chunk) -> list[list[Row]]:
    """Return the rows of each window that can be anonymized, one for each source and time."""
    good = [row for row in chunk.rows if row.source and math.isfinite(row.value_uv)]
    windows = [[row for row in good if window.start_ns <= row.time_ns < window.end_ns] for window in chunk.windows]
    return [
        list({(row.time_ns, row.source): row for row in rows if row.source not in _contradicting(rows)}.values())
        for rows in windows
    ]


def _contradicting(rows: list[Row]) -> set[str | None]:
    return {
        one.source for one, other in itertools.combinations(rows, 2) if one[:2] == other[:2] and one.value_uv != other.value_uv
    }
