"""What another state folder released is found wherever this journal knows of nothing, with few questions."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from anonymizer.windows import HOUR_NS, Window
from inputs.window_summaries import WindowSummaries
from service.pipeline.released_elsewhere import unknown_releases
from tests.service.journals import S, new_journal, release

DAY_NS = 24 * HOUR_NS


class Bucket:
    """An output bucket that holds summaries of some windows, and notes for which times it is asked."""

    def __init__(self, windows: list[Window]) -> None:
        self.windows = windows
        self.asked: list[Window] = []

    def released(self, labels: tuple[str, ...], span: Window) -> list[Window]:
        self.asked.append(span)
        return [one for one in self.windows if one.end_ns > span.start_ns and one.start_ns < span.end_ns]


def hours(*starts: int) -> list[Window]:
    return [Window(start * HOUR_NS, (start + 1) * HOUR_NS) for start in starts]


def found(folder: Path, bucket: Bucket, known: list[Window], span: Window) -> list[Window]:
    journal = new_journal(folder)
    release(journal, *((one.start_ns // S, one.end_ns // S) for one in known), fence=False)
    try:
        return unknown_releases(cast(WindowSummaries, bucket), journal, ("label",), span)
    finally:
        journal.close()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40)
@given(known=st.sets(st.integers(0, 99), min_size=1), elsewhere=st.sets(st.integers(0, 99)))
def test_every_window_that_only_the_bucket_knows_is_found(
    known: set[int], elsewhere: set[int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    bucket = Bucket(hours(*sorted(elsewhere)))

    unknown = found(tmp_path_factory.mktemp("state"), bucket, hours(*sorted(known)), Window(0, 100 * HOUR_NS))

    covered = {hour for one in unknown for hour in range(one.start_ns // HOUR_NS, one.end_ns // HOUR_NS)}
    assert covered == elsewhere - known


def test_the_gaps_of_a_day_are_one_question_and_what_lies_between_days_with_gaps_is_not_asked_for(tmp_path: Path) -> None:
    # Every other hour of the first day was withheld, and one hour ten days later.
    withheld = [*range(1, 24, 2), 250]
    bucket = Bucket([])

    found(tmp_path, bucket, hours(*(hour for hour in range(300) if hour not in withheld)), Window(0, 300 * HOUR_NS))

    assert len(bucket.asked) == 2
    assert sum(one.end_ns - one.start_ns for one in bucket.asked) <= DAY_NS + HOUR_NS
