"""A test that asks the wearers what they measured gets the truth, however the replay cut the time."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from testbed.line_protocol import SeriesNames
from testbed.sample_ecg import read_sample_ecg
from testbed.wearers import SECOND_NS, Wearers, lines_between

START_NS = 1_762_180_200 * SECOND_NS

RATES = [(360, 1), (128, 1), (128, 10), (7, 1), (360, 0.5), (1, 1)]


@pytest.mark.parametrize(("hertz", "speed"), RATES)
@given(cuts_ns=st.lists(st.integers(0, 2 * SECOND_NS), max_size=8), offset_ns=st.integers(0, 400 * SECOND_NS))
@settings(max_examples=25, deadline=None)
def test_no_row_is_lost_or_doubled_wherever_a_span_is_cut(hertz: int, speed: float, cuts_ns: list[int], offset_ns: int) -> None:
    wearers = Wearers(13, hertz=hertz, speed=speed)
    first_ns = START_NS + offset_ns
    last_ns = first_ns + 2 * SECOND_NS
    edges_ns = sorted([first_ns, last_ns, *(first_ns + cut_ns for cut_ns in cuts_ns)])

    pieces = [lines_between(wearers, start_ns, end_ns) for start_ns, end_ns in pairwise(edges_ns)]

    whole = lines_between(wearers, first_ns, last_ns)
    assert sorted(b"".join(pieces).splitlines()) == sorted(whole.splitlines())


def test_a_cut_at_the_very_moment_of_a_sample_puts_it_in_the_later_span() -> None:
    wearers = Wearers(40, hertz=360)
    for time_ns in wearers.samples_between(START_NS, START_NS + SECOND_NS // 10).times_ns.tolist():
        assert time_ns not in wearers.samples_between(time_ns - SECOND_NS, time_ns).times_ns
        assert time_ns in wearers.samples_between(time_ns, time_ns + 1).times_ns


@pytest.mark.parametrize(("hertz", "speed"), RATES)
@pytest.mark.parametrize("start_ns", [START_NS, START_NS + 1, START_NS + 123_456_789])
def test_every_wearer_measures_exactly_its_rate_within_the_span_and_never_twice_at_one_time(
    hertz: int, speed: float, start_ns: int
) -> None:
    wearers = Wearers(20, hertz=hertz, speed=speed)
    samples = wearers.samples_between(start_ns, start_ns + 2 * SECOND_NS)

    assert wearers.rows_per_s == 20 * wearers.rate_hz
    assert np.bincount(samples.wearer, minlength=20).tolist() == [2 * wearers.rate_hz] * 20
    assert samples.times_ns.min() >= start_ns
    assert samples.times_ns.max() < start_ns + 2 * SECOND_NS
    assert len(set(zip(samples.wearer.tolist(), samples.times_ns.tolist(), strict=True))) == samples.times_ns.size


def test_the_samples_of_a_wearer_are_as_far_apart_as_the_rate_says() -> None:
    samples = Wearers(3, hertz=360).samples_between(START_NS, START_NS + 5 * SECOND_NS)

    gaps_ns = np.diff(samples.times_ns[samples.wearer == 2])

    assert set(gaps_ns.tolist()) == {2_777_777, 2_777_778}


@pytest.mark.parametrize("wearer", [0, 5, 6, 11])
def test_a_wearer_plays_its_whole_record_round_and_round(wearer: int) -> None:
    record = read_sample_ecg().values_uv[wearer % 6]
    samples = Wearers(12, hertz=360).samples_between(START_NS, START_NS + 600 * SECOND_NS)

    played = samples.values_uv[samples.wearer == wearer]

    assert played[: record.size].tolist() == played[record.size :].tolist()
    assert any(np.array_equal(np.roll(record, -place), played[: record.size]) for place in _places_of(record, played))


def test_no_two_wearers_are_at_the_same_place_of_a_record_or_tick_together() -> None:
    samples = Wearers(600, hertz=128).samples_between(START_NS, START_NS + 2 * SECOND_NS)

    assert len({samples.values_uv[samples.wearer == wearer].tobytes() for wearer in range(600)}) == 600
    assert np.unique(samples.times_ns).size == samples.times_ns.size


def test_another_rate_goes_through_the_recorded_values_where_both_have_a_sample() -> None:
    # 128 and 360 Hz meet every 1/8 s: every 16th sample of the one is every 45th of the other.
    record = read_sample_ecg().values_uv[0]
    samples = Wearers(1, hertz=128).samples_between(START_NS, START_NS + 300 * SECOND_NS)

    shared = {tuple(np.roll(samples.values_uv, -first)[::16].tolist()) for first in range(16)}

    assert any(tuple(np.roll(record[::45], -place).tolist()) in shared for place in range(record[::45].size))


def test_another_rate_lies_on_the_line_between_its_neighbours_even_where_the_record_begins_again() -> None:
    samples = Wearers(1, hertz=1440).samples_between(START_NS, START_NS + 300 * SECOND_NS)
    recorded_uv = set(read_sample_ecg().values_uv[0].tolist())
    quarters = [samples.values_uv[first::4] for first in range(4)]
    (exact,) = [first for first in range(4) if set(quarters[first].tolist()) <= recorded_uv]
    before, *between, after = (np.roll(samples.values_uv, -exact - step)[::4] for step in range(5))

    for quarter, values_uv in enumerate(between, start=1):
        assert np.abs(values_uv - (before + (after - before) * quarter / 4)).max() <= 0.5


def test_speed_plays_the_same_values_in_less_time() -> None:
    normal = Wearers(1, hertz=128).samples_between(0, 10 * SECOND_NS)
    fast = Wearers(1, hertz=128, speed=10).samples_between(0, SECOND_NS)

    assert fast.values_uv.tolist() == normal.values_uv.tolist()


def test_wearers_are_numbered_from_one_and_named_as_asked() -> None:
    names = SeriesNames(measurement="raw", field="mv", source_tag="device")

    lines = lines_between(Wearers(1000, hertz=1), START_NS, START_NS + SECOND_NS, names=names).decode()

    assert lines.count("\n") == 1000
    assert "raw,device=wearer-001 mv=" in lines
    assert "raw,device=wearer-1000 mv=" in lines


@pytest.mark.parametrize(
    ("count", "hertz", "speed"), [(0, 360, 1), (1, 0, 1), (1, 360, 0), (1, 360, -1), (1, 3, 0.5), (1, 1, float("nan"))]
)
def test_numbers_that_make_no_sense_are_refused(count: int, hertz: int, speed: float) -> None:
    with pytest.raises(ValueError, match=r"must be"):
        Wearers(count, hertz=hertz, speed=speed)


def _places_of(record: np.ndarray, played: np.ndarray) -> list[int]:
    """Return where `record` could have been entered: where it has the first ten values played."""
    beginning = played[:10]
    around = np.concatenate([record, record[:10]])
    return [
        int(place) for place in np.flatnonzero(record == beginning[0]) if np.array_equal(around[place : place + 10], beginning)
    ]
