"""The report is one page that needs nothing else, and shows what was measured, misses first of all."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

from utility import plots
from utility.goals import Goal
from utility.page import page


class Reader(HTMLParser):
    """Collects what a page points at, and what stands in its cells."""

    def __init__(self) -> None:
        super().__init__()
        self.points_at: list[str] = []
        self.cells: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open.append(tag)
        self.points_at += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href", "data")]

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "td":
            self.cells.append(data)


def made(*goals: Goal, drawn: tuple[plots.Plot, ...] = ()) -> tuple[str, Reader]:
    text = page(measured_on="Measured <today>", goals=goals, tables=[("T & U", "a < b", [("x",), ("1 < 2",)])], plots=drawn)
    reader = Reader()
    reader.feed(text)
    return text, reader


def test_a_missed_goal_is_said_in_words_and_marked() -> None:
    text, reader = made(Goal("PRDN", "360 Hz", "≤ 3 %", "4 %", False), Goal("r", "360 Hz", "≥ 1", "1", True))

    assert "2 goals: 1 met, 1 missed." in text
    assert '<td class="missed">MISSED</td>' in text
    assert reader.cells[:5] == ["PRDN", "360 Hz", "≤ 3 %", "4 %", "MISSED"]


def test_what_is_written_by_people_is_escaped() -> None:
    text, _ = made()

    assert all(words in text for words in ("Measured &lt;today&gt;", "T &amp; U", "a &lt; b", "1 &lt; 2"))
    assert "Contains raw data" in text


def test_the_page_points_at_nothing_outside_itself_and_runs_nothing() -> None:
    drawn = plots.spectra(0)
    text, reader = made(drawn=(drawn,))

    assert len(drawn.svg) > 10_000
    assert [target for target in reader.points_at if not target.startswith("#")] == []
    assert not re.search(r"<script|@import|url\((?!#)", text)
    assert f'aria-label="{drawn.says[:40]}' in text


def test_the_same_figures_give_the_same_drawing() -> None:
    assert plots.overlays(0).svg == plots.overlays(0).svg


def test_make_utility_runs_the_report() -> None:
    makefile = (Path(__file__).parents[2] / "Makefile").read_text(encoding="utf-8")

    assert re.search(r"^utility: .*\n\t@\$\(RUN\) -m utility$", makefile, re.MULTILINE)
