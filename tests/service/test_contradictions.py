"""Most sources in most windows: refused before the first release. Anything less: only the rows of the source and window are lost."""

from __future__ import annotations

import numpy as np
import pytest

from anonymizer.errors import SourceRefused
from anonymizer.samples import Contradictions
from anonymizer.windows import NANOSECONDS, Window, WindowRange
from service.pipeline.contradictions import Judgement, refuse_contradictory
from tests.service.fakes import FakeSource

S = NANOSECONDS
YEAR = 365 * 86_400

#: Rows of three wearers in ten windows of five seconds, ten rows a window each.
ROWS = [(t / 2, wearer, float(t % 7)) for t in range(100) for wearer in "abc"]


def found(*windows: tuple[int, int, int]) -> Contradictions:
    """Return windows as (sources, contradicting, throughout)."""
    sources, contradicting, throughout = (np.array(column) for column in zip(*windows, strict=True))
    return Contradictions(contradicting, contradicting, throughout, sources)


def is_refused(*windows: tuple[int, int, int], good: int = 0) -> bool:
    judgement = Judgement()
    judgement.add_good(good)
    judgement.add(found(*windows), len(windows))
    try:
        judgement.refuse(FakeSource())
    except SourceRefused:
        return True
    return False


def test_a_refusal_says_what_to_do_and_how_the_series_differ() -> None:
    judgement = Judgement()
    judgement.add(found((2, 2, 2)), 1)

    with pytest.raises(SourceRefused, match=r"in 1 of 1 windows .* INFLUX_TAG_FILTER.* 'lead'"):
        judgement.refuse(FakeSource())


@pytest.mark.parametrize(
    ("windows", "refused"),
    [
        ([(6, 4, 0)] * 4, True),
        ([(6, 3, 3)] * 4, False),
        ([(6, 6, 6)] * 2 + [(6, 0, 0)] * 2, False),
        ([(6, 6, 6)] * 3 + [(0, 0, 0)] * 2, True),
        ([(1, 1, 1)], True),
        ([(1, 1, 0)], False),
        ([(1, 1, 0)] * 2, False),
        ([(1, 1, 1)] * 2, True),
        ([(2, 1, 1)], False),
        ([(0, 0, 0)], False),
    ],
)
def test_most_sources_in_most_windows_are_refused_and_one_bad_point_is_not(
    windows: list[tuple[int, int, int]], refused: bool
) -> None:
    assert is_refused(*windows) is refused


def test_windows_that_were_released_before_speak_for_a_source() -> None:
    left_over = [(1, 1, 1)] * 3

    assert is_refused(*left_over)
    assert not is_refused(*left_over, good=57)


def again(*seconds: int, wearers: str = "abc") -> list[tuple[float, str, float]]:
    return [(second, wearer, 99.0) for second in seconds for wearer in wearers]


@pytest.mark.parametrize("knows_repeats", [False, True])
@pytest.mark.parametrize(
    ("more", "refused"),
    [
        (again(*range(0, 30, 5)), True),
        (again(*range(20, 50, 5)), True),
        (again(*range(0, 25, 5)), False),
        (again(*range(50), wearers="a"), False),
        (again(*range(50), wearers="ab"), True),
    ],
)
def test_a_file_is_judged_by_all_its_windows_whatever_comes_first(
    more: list[tuple[float, str, float]], refused: bool, knows_repeats: bool
) -> None:
    far_away = [(10 * YEAR + time, wearer, value) for time, wearer, value in [*ROWS, *more] if time >= 25]
    source = FakeSource([*(row for row in [*ROWS, *more] if row[0] < 25), *far_away])
    windows = WindowRange(0, (10 * YEAR + 50) * S, 5 * S)
    if knows_repeats:
        at_ns = (int(time + (time >= 25) * 10 * YEAR) * S for time, _, _ in more)
        source.repeats = [Window(time_ns, time_ns + 1) for time_ns in at_ns]

    try:
        refuse_contradictory(source, windows, most_rows=60)
    except SourceRefused:
        assert refused
    else:
        assert not refused
    assert len(source.questions) < 20, "years without rows are not counted"
