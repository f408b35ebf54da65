"""ECG must still be ECG: every goal is met on the recordings in the repository, and every figure on the page is today's."""

from __future__ import annotations

import re

import pytest

from tests.documentation.pages import UTILITY, text_of
from utility import tables
from utility.goals import Goal, goals, sum_of, verdict_of


@pytest.fixture(scope="module")
def reached() -> list[Goal]:
    return list(goals())


def test_every_goal_is_met_on_the_public_recordings(reached: list[Goal]) -> None:
    assert [goal for goal in reached if not goal.is_met] == []


def test_no_goal_is_left_out(reached: list[Goal]) -> None:
    asked_for = {goal.measure for goal in reached}

    assert len(reached) == 51
    for words in (
        "squared error",
        "PRDN",
        "Pearson",
        "Se lost",
        "PPV lost",
        "heart rate",
        "RMSSD",
        "withheld",
        "invented",
        "right wearer named",
        "outside check cannot explain",
    ):
        assert any(words in measure for measure in asked_for), words


def test_every_figure_on_the_page_is_what_is_measured_today(reached: list[Goal]) -> None:
    text = text_of(UTILITY)

    for rows in (
        tables.goal_rows(reached),
        tables.alone(),
        tables.shared(),
        tables.windows(),
        tables.rhythm(),
        tables.rhythm_windows(),
    ):
        assert tables.markdown(rows) in text
    assert sum_of(reached) in text
    assert re.search(r"Measured on \d{4}-\d\d-\d\d on .* with `make utility`", text)


@pytest.mark.parametrize(
    ("is_met", "word", "said"),
    [
        (True, "met", "1 goals: 1 met, 0 missed."),
        (False, "MISSED", "1 goals: 0 met, 1 missed."),
        (None, "not available", "1 goals: 0 met, 0 missed, 1 not available."),
    ],
)
def test_a_goal_that_is_missed_is_called_so(is_met: bool | None, word: str, said: str) -> None:
    goal = Goal("m", "w", "≤ 1", "2", is_met)

    assert (verdict_of(goal), sum_of([goal])) == (word, said)
