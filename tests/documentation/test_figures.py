"""Figures on a page are what the sample ECG gives today, to the last digit, and say how to measure them."""

from __future__ import annotations

import pytest

from tests.documentation.figures import FIGURES, main
from tests.documentation.pages import ROOT
from tests.documentation.timings import TIMINGS


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_on_a_page_is_what_the_sample_ecg_gives(name: str) -> None:
    measure, page = FIGURES[name]
    text = (ROOT / page).read_text(encoding="utf-8")

    assert "\n".join(measure()) in text
    assert f"`python -m tests.documentation.figures {name}`" in text


def test_the_command_prints_the_figure_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["phases"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[:2] == ["phases:", "| times are released | linked rightly across a change of key |"]


def test_a_figure_that_is_not_there_is_refused_with_those_that_are(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["utility"])
    assert "no figure is called utility; there are: unchanged" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "page"),
    [("cost", "documentation/ALGORITHM.md"), ("client", "documentation/decisions/006-official-client-as-transport-only.md")],
)
def test_times_are_measured_for_the_same_work_as_on_the_page(name: str, page: str) -> None:
    measured = [line.split("|")[1:3] for line in TIMINGS[name]()]
    text = (ROOT / page).read_text(encoding="utf-8")

    assert f"`python -m tests.documentation.timings {name}`" in text
    assert all("|".join(["", *cells, ""]) in text for cells in measured)
