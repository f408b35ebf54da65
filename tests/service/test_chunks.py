"""One chunk: planned without cutting a window, read whole or not at all, and nothing released that fails verification."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import service.pipeline.chunks
from anonymizer.anonymize import Recipe
from anonymizer.batch import Batch, Certificate, Promise
from anonymizer.errors import PrivacyViolation, SourceUnavailable
from anonymizer.hierarchy import parse_hierarchy
from anonymizer.level_hierarchy_anonymizer import LevelHierarchyAnonymizer
from anonymizer.pseudonyms import KeptIds
from anonymizer.windows import MOST_WINDOWS, NANOSECONDS, WindowRange
from service.pipeline.chunks import Chunk, finish_chunk, from_full_hour, part_of, plan_by_hour, plan_chunks
from service.settings.declared import SHIPPED_HIERARCHY
from tests.service.fakes import FakeSource

S = NANOSECONDS
WINDOWS = WindowRange(0, 20 * S, 5 * S)
ROWS = [(t / 10, f"wearer-{t % 2}", float(t % 3)) for t in range(200)]
RECIPE = Recipe(
    method=LevelHierarchyAnonymizer(parse_hierarchy(SHIPPED_HIERARCHY.read_text()), k=5),
    names=KeptIds(),
    promise=Promise(5, "record", "hierarchy"),
    data_set="fake",
)


def chunk_of(source: FakeSource) -> Chunk:
    return Chunk(WINDOWS, source.count(WINDOWS))


@given(counted=st.lists(st.integers(0, 50), max_size=60), most_rows=st.integers(1, 200))
def test_chunks_cover_every_window_once_and_only_a_single_window_may_be_larger_than_asked(
    counted: list[int], most_rows: int
) -> None:
    windows = WindowRange(0, len(counted) * S, S)

    chunks = list(plan_chunks(windows, np.array(counted, dtype=np.int64), most_rows=most_rows))

    assert [window for chunk in chunks for window in chunk.windows] == list(windows)
    assert [int(rows) for chunk in chunks for rows in chunk.counted] == counted
    assert all(chunk.counted.sum() <= most_rows or len(chunk.windows) == 1 for chunk in chunks)
    assert all(chunk.is_empty or chunk.counted.all() for chunk in chunks)


def test_the_first_chunks_are_small_so_that_outputs_need_not_wait_for_a_large_one() -> None:
    chunks = list(plan_chunks(WindowRange(0, 100 * S, S), np.ones(100, dtype=np.int64), most_rows=24))

    assert [len(chunk.windows) for chunk in chunks] == [3, 6, 12, 24, 24, 24, 7]


def test_a_chunk_has_a_largest_number_of_windows_however_empty_they_are() -> None:
    windows = WindowRange(0, 10_000 * S, S)

    chunks = list(plan_chunks(windows, np.ones(10_000, dtype=np.int64), most_rows=10**9))

    assert max(len(chunk.windows) for chunk in chunks) == MOST_WINDOWS


def test_a_short_read_is_made_good_by_reading_the_short_windows_again() -> None:
    source = FakeSource(ROWS)
    source.short_reads = 1

    finished = finish_chunk(source, chunk_of(source), RECIPE)

    assert [result.counts.read for result in finished.results] == [50, 50, 50, 50]
    assert [(kind, len(windows)) for kind, windows in source.questions] == [("count", 4), ("read", 4), ("count", 1), ("read", 1)]


def test_a_chunk_that_stays_short_is_not_released() -> None:
    source = FakeSource(ROWS)
    chunk = chunk_of(source)
    source.short_reads = 100

    with pytest.raises(SourceUnavailable, match="fewer rows than the source counts"):
        finish_chunk(source, chunk, RECIPE)


@pytest.mark.parametrize("change", [1, 0, -1])
def test_rows_that_come_or_vanish_after_the_count_are_taken_or_not_and_keep_nothing_from_ending(change: int) -> None:
    source = FakeSource(ROWS)
    chunk = chunk_of(source)
    source.rows = [*ROWS[change == -1 :], *[(1.05, "wearer-0", 1.0)][: max(change, 0)]]

    finished = finish_chunk(source, chunk, RECIPE)

    assert [result.counts.read for result in finished.results] == [50 + change, 50, 50, 50]
    assert change or [result.counts.released for result in finished.results] == [50, 50, 50, 50]


def test_a_source_with_two_values_of_one_time_loses_its_rows_of_that_window_and_the_other_goes_on() -> None:
    time, wearer, value = ROWS[70]
    source = FakeSource([*ROWS, ROWS[50], (time, wearer, value + 1)])

    finished = finish_chunk(source, chunk_of(source), RECIPE)

    assert [result.counts.withheld for result in finished.results] == [0, 26, 0, 0]
    assert [result.statistics.contradictory for result in finished.results] == [0, 26, 0, 0]
    assert [result.counts.released for result in finished.results] == [50, 25, 50, 50]
    assert [result.counts.duplicate for result in finished.results] == [0, 1, 0, 0]
    assert finished.contradictions.rows.tolist() == [0, 26, 0, 0]


def test_a_row_that_the_source_repeats_counts_once() -> None:
    source = FakeSource([*ROWS, *ROWS[60:70], ROWS[60]])

    finished = finish_chunk(source, chunk_of(source), RECIPE)

    assert [result.counts.duplicate for result in finished.results] == [0, 11, 0, 0]
    assert [result.counts.released for result in finished.results] == [50, 50, 50, 50]


def test_a_batch_that_fails_verification_is_withheld_and_the_others_are_released(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def verify(batch: Batch) -> Certificate:
        if batch.window.start_ns == 5 * S:
            raise PrivacyViolation(f"batch {batch.batch_id} is a test's victim")
        return Certificate(3, 5, 2)

    monkeypatch.setattr(service.pipeline.chunks, "verify", verify)
    source = FakeSource(ROWS)

    finished = finish_chunk(source, chunk_of(source), RECIPE)

    assert finished.violations == 1
    assert [result.batch is None for result in finished.results] == [False, True, False, False]
    assert [result.counts.withheld for result in finished.results] == [0, 50, 0, 0]
    assert all(result.counts.are_conserved() for result in finished.results)
    assert "test's victim" in caplog.text


@pytest.mark.parametrize("length_s", [1, 5, 7, 60, 3600, 5400, 86400])
def test_an_hour_is_cut_into_the_same_chunks_wherever_a_run_begins(length_s: int) -> None:
    length_ns, hour_ns, most_rows = length_s * S, 3600 * S, 1000
    chance = np.random.default_rng(length_s)
    everything = WindowRange(0, 3 * max(hour_ns, length_ns) // length_ns * length_ns, length_ns)
    counted = chance.integers(0, 60, len(everything)) * (chance.random(len(everything)) < 0.9)
    whole = list(plan_by_hour(everything, counted, most_rows=most_rows))

    assert [one for chunk in whole for one in chunk.windows] == list(everything)
    for chunk in whole:
        starts_ns = [window.start_ns // hour_ns for window in chunk.windows]
        assert len(set(starts_ns)) == 1, "none reaches over an hour"
        assert chunk.counted.sum() <= most_rows or len(chunk.windows) == 1
    for one, following in itertools.pairwise(chunk for chunk in whole if not chunk.is_empty):
        in_one_hour = one.windows.start_ns // hour_ns == following.windows.start_ns // hour_ns
        if in_one_hour and one.windows.end_ns == following.windows.start_ns:
            assert one.counted.sum() + following.counted[0] > most_rows, "the first ones are no smaller than others"

    for first in chance.integers(0, len(everything), 20).tolist():
        rest = everything.part(first, len(everything))
        extended = from_full_hour(rest)
        assert extended.start_ns // hour_ns == rest.start_ns // hour_ns
        planned = plan_by_hour(extended, counted[len(counted) - len(extended) :], most_rows=most_rows)
        parts = [part for chunk in planned if (part := part_of(chunk, rest))]
        edges = {chunk.windows.start_ns for chunk in whole}
        assert [one for part in parts for one in part.windows] == list(rest)
        assert {part.windows.start_ns for part in parts[1:]} <= edges
        assert all(len(part.counted) == len(part.windows) for part in parts)
