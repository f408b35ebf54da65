"""Figures as a picture: a bar for each median, a whisker for its spread; one panel for each unit."""

from __future__ import annotations

from pathlib import Path

from benchmarks.figures import Figures, Series


def plot(figures: Figures, path: Path) -> None:
    """Draw all figures; nothing happens where matplotlib is missing, which only `make utility` needs otherwise."""
    try:
        from matplotlib import use
        from matplotlib.figure import Figure
    except ImportError:
        print("no plot: matplotlib is missing (requirements-utility.txt)")
        return
    use("svg")
    by_unit: dict[str, list[Series]] = {}
    for one in figures.series.values():
        by_unit.setdefault(one.unit, []).append(one)
    heights = [len(each) + 1.5 for each in by_unit.values()]
    drawing = Figure(figsize=(10, 0.32 * sum(heights) + 0.6), layout="constrained")
    drawing.suptitle(figures.title)
    panels = drawing.subplots(len(by_unit), 1, gridspec_kw={"height_ratios": heights}, squeeze=False)[:, 0]
    for panel, (unit, each) in zip(panels, by_unit.items(), strict=True):
        names, medians = [one.name for one in each], [one.median for one in each]
        spread = [[one.median - min(one.values) for one in each], [max(one.values) - one.median for one in each]]
        panel.barh(names, medians, xerr=spread, color="#4c78a8", ecolor="#333333", height=0.6)
        panel.invert_yaxis()
        panel.set_xlabel(unit or "ratio")
        panel.spines[["top", "right"]].set_visible(False)
    drawing.savefig(path)
