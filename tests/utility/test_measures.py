"""What measures utility measures what it says: against brute force, against signals whose answer is known, and by hand."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anonymizer.batch import WindowCounts
from anonymizer.samples import NO_SOURCE, make_samples
from anonymizer.windows import NANOSECONDS
from utility.choices import CLASSIC, DEFAULT, OPTIMAL, SOURCE, Choice, recipe_of
from utility.fidelity_measures import heartbeat_loss, likeness, without_gaps
from utility.heartbeats import NEAR_NS, agreement, detected_beats, heart_rate_bpm, rmssd_error
from utility.least_error import least_squared_error, squared_error_as_released, squared_error_of_groups
from utility.outcome import Ints, Outcome, Signal, outcome_of
from utility.records import records

MS = 1_000_000


# The least error there is


def outcome_of_windows(windows: Sequence[Sequence[float]], released: Sequence[Sequence[float]] | None = None) -> Outcome:
    window = np.concatenate([np.full(len(values), number) for number, values in enumerate(windows)])
    raw = np.concatenate([np.array(values, dtype=np.float64) for values in windows])
    out = raw if released is None else np.concatenate([np.array(values, dtype=np.float64) for values in released])
    zeros = np.zeros(len(raw), dtype=np.int64)
    return Outcome(("a",), zeros, window, np.arange(len(raw)), raw, out, WindowCounts(), len(windows), 0, 0)


def least_by_trying_all(values: Sequence[float], k: int) -> float:
    """Return the least error of every way to put the values into groups of at least k, contiguous or not."""

    def ways(left: tuple[float, ...]) -> list[float]:
        if not left:
            return [0.0]
        first, rest = left[0], left[1:]
        found = []
        for size in range(k - 1, len(rest) + 1):
            for others in itertools.combinations(range(len(rest)), size):
                group = np.array([first, *(rest[i] for i in others)])
                remaining = tuple(value for i, value in enumerate(rest) if i not in others)
                if remaining and len(remaining) < k:
                    continue
                found += [float(((group - group.mean()) ** 2).sum()) + error for error in ways(remaining)]
        return found

    return min(ways(tuple(values)))


@given(st.lists(st.integers(-50, 50), min_size=2, max_size=8), st.integers(2, 4))
def test_the_least_error_is_the_least_of_all_ways_to_form_groups(values: list[int], k: int) -> None:
    expected = least_by_trying_all(values, k) if len(values) >= k else 0.0

    assert least_squared_error(outcome_of_windows([values]), k) == pytest.approx(expected, abs=1e-6)


def test_windows_side_by_side_do_not_touch_each_other() -> None:
    windows = [[1, 2, 3, 50, 51, 52, 53], [7, 7], [100, -100, 5, 6, 7, 8]]

    together = least_squared_error(outcome_of_windows(windows), 3)

    # The window of two is withheld, and has no error.
    assert together == pytest.approx(sum(least_by_trying_all(values, 3) for values in windows if len(values) >= 3))


def test_the_error_of_groups_is_about_their_means_and_that_of_a_release_about_what_was_released() -> None:
    outcome = outcome_of_windows([[1, 2, 4], [10, 20]], [[2, 2, 2], [15, 15]])

    assert squared_error_of_groups(outcome) == pytest.approx((4 / 3) ** 2 + (1 / 3) ** 2 + (5 / 3) ** 2 + 50)
    assert squared_error_as_released(outcome) == 1 + 0 + 4 + 25 + 25


def test_values_beyond_the_hierarchy_count_as_its_ends() -> None:
    assert squared_error_as_released(outcome_of_windows([[9000.0, -9000.0]], [[2500.0, -2500.0]])) == 0


@pytest.mark.parametrize("choice", [CLASSIC, DEFAULT, OPTIMAL], ids=lambda choice: choice.name)
def test_no_way_to_anonymize_has_less_error_than_the_least(choice: Choice) -> None:
    record = records(128)[3]
    outcome = outcome_of(record.samples(), recipe_of(choice, k=5, window_s=5), window_s=5)

    assert squared_error_as_released(outcome) >= least_squared_error(outcome, 5)


# Samples beside what is released of them


@pytest.mark.parametrize("is_sorted", [True, False])
def test_rows_stand_beside_their_own_release_whatever_order_they_came_in(is_sorted: bool) -> None:
    # Two sources in two windows; a duplicate, an invalid row, one without a source. With k = 2 and pairs of equal values nothing changes.
    rows = [(t, s, 100.0 * s + 10 * (t // 2)) for t in range(8) for s in (0, 1)]
    rows += [(0, 0, 0.0), (9, 1, float("nan")), (9, NO_SOURCE, 1.0)]
    order = np.random.default_rng(2).permutation(len(rows))
    in_order = sorted(rows, key=lambda row: (row[1], row[0])) if is_sorted else [rows[i] for i in order]
    times, codes, values = zip(*in_order, strict=True)
    samples = make_samples(np.array(times) * NANOSECONDS, codes, ["a", "b"], values)

    outcome = outcome_of(samples, recipe_of(DEFAULT, k=2, window_s=4), window_s=4)

    first, second = outcome.signals()
    assert (first.source_id, second.source_id) == ("a", "b")
    assert first.times_ns.tolist() == [t * NANOSECONDS for t in range(8)]
    assert first.raw_uv.tolist() == first.released_uv.tolist() == [0, 0, 10, 10, 20, 20, 30, 30]
    assert second.released_uv.tolist() == [100, 100, 110, 110, 120, 120, 130, 130]
    assert (outcome.counts.read, outcome.counts.duplicate, outcome.counts.invalid) == (19, 1, 2)
    assert first.hertz == 1.0


def test_what_is_withheld_is_missing_and_only_held_against_us_where_there_was_enough() -> None:
    # The first window has three rows of one source, the second one row.
    samples = make_samples(np.array([0, 1, 2, 5]) * NANOSECONDS, [0, 0, 0, 0], ["a"], [1.0, 2.0, 3.0, 9.0])

    for choice, released in ((DEFAULT, [2.0, 2.0, 2.0]), (SOURCE, [np.nan] * 3)):
        outcome = outcome_of(samples, recipe_of(choice, k=2, window_s=5), window_s=5)
        assert np.array_equal(outcome.released_uv, [*released, np.nan], equal_nan=True)
        assert (outcome.windows, outcome.withheld_windows) == (2, 1 if choice is DEFAULT else 2)
        assert outcome.withholdable_rows == 0


# Likeness and heartbeats


def signal(raw: Sequence[float], released: Sequence[float]) -> Signal:
    return Signal("a", np.arange(len(raw)) * NANOSECONDS // 4, np.array(raw, dtype=float), np.array(released, dtype=float))


def test_prdn_and_correlation_are_those_of_the_definition() -> None:
    # raw − mean = −3, −1, 1, 3: its norm is √20; the difference is 0, 1, 0, −2: √5.
    alike = likeness(signal([0, 2, 4, 6], [0, 3, 4, 4]))

    assert alike.prdn == pytest.approx(100 * np.sqrt(5 / 20))
    assert alike.correlation == pytest.approx(np.corrcoef([0, 2, 4, 6], [0, 3, 4, 4])[0, 1])
    assert alike.unchanged == 0.5


def test_rows_that_were_not_released_are_left_out_and_nothing_released_is_no_figure() -> None:
    assert likeness(signal([0, 2, 999], [0, 2, np.nan])).prdn == 0
    assert np.isnan(likeness(signal([0, 2], [np.nan, np.nan])).prdn)
    assert without_gaps(np.array([np.nan, 1.0, np.nan, 3.0, np.nan])).tolist() == [1, 1, 2, 3, 3]


def beats(*ms: int) -> Ints:
    return np.array(ms, dtype=np.int64) * MS


@pytest.mark.parametrize(
    ("detected", "annotated", "found"),
    [
        (beats(100, 900), beats(100, 900), [100, 900]),
        (beats(250), beats(100), [250]),
        (beats(251), beats(100), [-1]),
        (beats(), beats(100), [-1]),
        (beats(60, 110), beats(100), [110]),
        (beats(110), beats(100, 130), [110, -1]),
        (beats(90, 400, 1000), beats(100, 1010), [90, 1000]),
    ],
)
def test_each_annotated_beat_is_matched_with_the_nearest_detection_within_150_ms_once(
    detected: Ints, annotated: Ints, found: list[int]
) -> None:
    matched = agreement(detected, annotated)

    assert matched.found_ns.tolist() == [ms * MS if ms >= 0 else -1 for ms in found]
    assert NEAR_NS == 150 * MS
    if len(detected):
        assert matched.predictivity == sum(ms >= 0 for ms in found) / len(detected)


def test_rates_are_those_of_the_definition() -> None:
    assert heart_rate_bpm(beats(0, 1000, 2000)) == 60
    assert heart_rate_bpm(beats(0, 500, 1000)) == 120
    # Intervals of 800, 900, 1000 ms: differences 100 and 100, RMSSD 100; the other has differences 100 and 300.
    raw, other = beats(0, 800, 1700, 2700), beats(0, 800, 1700, 2900)
    assert rmssd_error(agreement(raw, raw), agreement(other, other)) == pytest.approx(np.sqrt((100**2 + 300**2) / 2) / 100 - 1)


def test_the_detector_finds_the_annotated_beats_of_clean_ecg_at_both_rates() -> None:
    for hertz in (360, 128):
        record = records(hertz)[0]
        seen = agreement(detected_beats(record.times_ns, record.values_uv, hertz), record.beats_ns)
        assert seen.sensitivity > 0.99
        assert seen.predictivity > 0.99


def test_nothing_is_lost_where_nothing_changed_and_everything_where_nothing_is_left() -> None:
    record = records(128)[0]
    kept = heartbeat_loss(Signal("a", record.times_ns, record.values_uv, record.values_uv), record.beats_ns, 128)
    flat = heartbeat_loss(Signal("a", record.times_ns, record.values_uv, record.values_uv * 0), record.beats_ns, 128)
    lower = heartbeat_loss(
        Signal(
            "a",
            record.times_ns,
            record.values_uv,
            np.median(record.values_uv) + (record.values_uv - np.median(record.values_uv)) / 2,
        ),
        record.beats_ns,
        128,
    )

    assert (kept.sensitivity_points, kept.predictivity_points, kept.rate_bpm, kept.rmssd_percent, kept.height_percent) == (
        0,
        0,
        0,
        0,
        100,
    )
    assert flat.sensitivity == 0
    assert lower.height_percent == pytest.approx(50)


def test_128_hz_are_five_minutes_of_whole_microvolts() -> None:
    for record in records(128):
        assert len(record.times_ns) == 300 * 128
        assert record.times_ns[128] - record.times_ns[0] == NANOSECONDS
        assert (record.values_uv == np.rint(record.values_uv)).all()
