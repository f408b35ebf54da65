"""The page of figures: goals are judged by medians, and what was not measured again stays."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import page
from benchmarks.figures import Series
from benchmarks.goals import GOALS, goals_table
from tests.documentation.pages import DOCUMENTATION


def measured(part: str, **values: float) -> dict[str, dict[str, Series]]:
    return {part: {name: Series(name, "", [value]) for name, value in values.items()}}


def test_a_goal_is_met_by_a_median_on_the_right_side_of_it() -> None:
    for goal in GOALS:
        for factor, is_below in ((0.9, True), (1.1, False)):
            series = Series(goal.series, goal.unit, [0.0, goal.limit * factor, 1e9])
            (row,) = goals_table({goal.part: {goal.series: series}}).values()
            assert row.endswith("| met |" if is_below == (goal.bound == "≤") else "| **missed** |")
    assert goals_table({}) == {}


@pytest.mark.parametrize(("time", "error", "verdict"), [(1.1, 1.0, "met"), (0.5, 1.2, "met"), (0.5, 1.0, "**missed**")])
def test_a_quicker_peer_is_behind_only_if_its_error_is_larger(time: float, error: float, verdict: str) -> None:
    names = {"a: peer, theirs ÷ ours": time, "a: peer, squared error, theirs ÷ ours": error, "b: other, theirs ÷ ours": 9.0}

    (row,) = goals_table(measured("peers", **names)).values()

    assert row.endswith(f"| {verdict} |")


def test_a_part_that_is_measured_again_replaces_its_rows_and_no_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = (DOCUMENTATION / "PERFORMANCE.md").read_text(encoding="utf-8")
    copy = tmp_path / "page.md"
    copy.write_text(before, encoding="utf-8")
    series = {"name": "25,920,000 rows, to disk ÷ the fewest", "unit": "", "values": [1.01, 1.02, 1.03]}
    about = {"title": "Growth, 3 rounds", "taken": "2030-01-01", "machine": {"cores": 2, "processor": "P", "commit": "c"}}
    (tmp_path / "growth.json").write_text(json.dumps({**about, "series": [series]}), encoding="utf-8")
    monkeypatch.setattr(page, "PAGE", copy)
    monkeypatch.setattr(page, "FOLDER", tmp_path)

    page.main()

    after = copy.read_text(encoding="utf-8")
    assert "| 50 × the rows, per row | ≤ 1.1 | 1.29 | 1.02 (1.01–1.03) | met |" in after
    assert "2030-01-01; 2 cores, P, commit c) <!-- growth -->" in after
    assert after.count("<!-- growth -->") == 1
    changed = {line for line in after.splitlines() if line not in before.splitlines()}
    assert len(changed) == 4, "the goal's row, the table's title, head and row"
    assert len([part for part in page.LAYOUTS if f"<!-- {part} -->" in after]) == len(page.LAYOUTS)
