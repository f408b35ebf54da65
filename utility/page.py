"""Renders the utility report as one self-contained HTML page, without scripts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from service.report.templates import render
from utility.goals import Goal, sum_of, verdict_of
from utility.plots import Plot
from utility.tables import Table

_TEMPLATE = Path(__file__).parent / "template" / "report.html"


def page(*, measured_on: str, goals: Sequence[Goal], tables: Iterable[tuple[str, str, Table]], plots: Iterable[Plot]) -> str:
    """Return the page.

    Args:
        measured_on: Date, machine and versions, in a sentence.
        goals: With what was measured.
        tables: Title, remark and rows of each further table; the first row is its heading.
        plots: In order.
    """
    rows = [(goal.measure, goal.setting, goal.wanted, goal.measured, verdict_of(goal)) for goal in goals]
    heading = ("measure", "where", "goal", "measured", "")
    return render(_TEMPLATE, measured_on=measured_on, goals=sum_of(goals), goal_rows=[heading, *rows], tables=tables, plots=plots)
