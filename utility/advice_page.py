"""The advice as a page with plots of the figures. It shows no signal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from service.report.templates import render
from utility.advice import Trial
from utility.plots import STYLE, svg_of

_TEMPLATE = Path(__file__).parent / "template" / "advice.html"

_PANELS: tuple[tuple[str, Callable[[Trial], float]], ...] = (
    ("error (PRDN), %", lambda trial: trial.error_percent),
    ("rows withheld, %", lambda trial: trial.withheld_percent),
    ("heartbeats found again, %", lambda trial: trial.beats_found_percent),
)

_MARKERS = "os^DvPX*"


def advice_page(
    trials: Sequence[Trial], *, most_error_percent: float, recognised: tuple[str, Sequence[Sequence[str]]] = ("", ())
) -> str:
    """Return an HTML page with one row of plots per unit of k.

    Args:
        trials: The figures to draw.
        most_error_percent: The largest error that is good enough.
        recognised: A remark on how often attackers name the right wearer, and a table of it whose first row is the heading.
    """
    drawings = [
        _drawing(trials, by_source, most_error_percent) for by_source in dict.fromkeys(trial.by_source for trial in trials)
    ]
    remark, rows = recognised
    return render(_TEMPLATE, drawings=drawings, remark=remark, rows=rows)


def _drawing(trials: Sequence[Trial], by_source: bool, most_error_percent: float) -> str:
    shown = [trial for trial in trials if trial.by_source == by_source]
    # METHOD=rhythm keeps no value, so that there is no error of values.
    drawn = _PANELS if shown[0].k else _PANELS[1:]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(11, 3.4), layout="constrained")
        panels = figure.subplots(1, len(drawn))
        for axes, (title, of) in zip(panels, drawn, strict=True):
            _lines(axes, shown, of)
            axes.set(title=title, xlabel="window, seconds")
        *errors, withheld, beats = panels
        for axes in errors:
            axes.axhline(most_error_percent, color="#777777", linestyle=":", linewidth=0.9)
            axes.set_ylim(bottom=0)
        withheld.set_ylim(-3, 103)
        beats.set_ylim(min([95.0, *(trial.beats_found_percent for trial in shown if trial.beats_found_percent < 95)]) - 2, 100.5)
        if shown[0].k:
            figure.suptitle(f"k counts {'sources' if by_source else 'rows'}")
        return svg_of(figure)


def _lines(axes: Axes, trials: Sequence[Trial], of: Callable[[Trial], float]) -> None:
    for number, k in enumerate(sorted({trial.k for trial in trials})):
        of_k = [trial for trial in trials if trial.k == k]
        axes.plot(
            [one.window_s for one in of_k],
            [of(one) for one in of_k],
            marker=_MARKERS[number % len(_MARKERS)],
            label=f"k = {k}" if k else "METHOD=rhythm",
        )
    seconds = sorted({trial.window_s for trial in trials})
    axes.set_xscale("log")
    axes.set_xticks(seconds, labels=map(str, seconds))
    axes.minorticks_off()
    axes.legend()
