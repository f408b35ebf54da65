"""Plots, drawn by hand so that a report is one file that needs nothing: bars over time as SVG, and bars side by side as a table."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence

from anonymizer.windows import NANOSECONDS
from service.time_texts import as_datetime

_WIDTH, _HEIGHT, _LEFT, _TOP, _BOTTOM = 900, 200, 66, 10, 26

#: More labels than this on the axis of time would run into each other.
_MOST_LABELS = 7

#: How long a label of the axis of time is on a narrow screen.
_NARROW_LABEL = 200

Series = Sequence[tuple[str, str, Sequence[float]]]


def bars_over_time(starts_ns: Sequence[int], series: Series, *, title: str, from_zero: bool = False) -> str:
    """Return stacked bars, one for each stretch of time.

    Args:
        starts_ns: Where each stretch begins.
        series: Name, CSS class and values of each part of a bar.
        title: For those who hear the page instead of seeing it.
        from_zero: Whether times are counted from 0 instead of being times of day.
    """
    if not starts_ns:
        return '<p class="none">Nothing to show.</p>'
    sums = [sum(values) for values in zip(*(values for _, _, values in series), strict=True)]
    top = _round_up(max(sums, default=0))
    right, base = _WIDTH - 10, _HEIGHT - _BOTTOM
    each = (right - _LEFT) / len(starts_ns)
    drawn = list(_grid(top, base, right))
    heights = [0.0] * len(starts_ns)
    for _, kind, values in series:
        for index, value in enumerate(values):
            height = value / top * (base - _TOP)
            if height > 0:
                y = base - heights[index] - height
                width = max(each - 1, 1)
                drawn.append(
                    f'<rect class="{kind}" x="{_LEFT + index * each:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"/>'
                )
                heights[index] += height
    step = math.ceil(len(starts_ns) / _MOST_LABELS)
    labelled = range(0, len(starts_ns), step)
    spans_days = (starts_ns[-1] - starts_ns[0]) > 86_400 * NANOSECONDS
    for number, index in enumerate(labelled):
        label = _seconds(starts_ns[index]) if from_zero else _moment(starts_ns[index], with_day=spans_days)
        x = _LEFT + index * each
        # On a narrow screen letters are larger: there is room for every other label, and for none that begins at the right end.
        kind = ' class="wide-only"' if number % 2 or x > _WIDTH - _NARROW_LABEL else ""
        drawn.append(f'<text{kind} x="{x:.1f}" y="{base + 5}" dominant-baseline="hanging">{label}</text>')
    return f"{_svg(drawn, title)}{_legend(series)}"


def bars(rows: Sequence[tuple[str, float]], kind: str, *, title: str) -> str:
    """Return a table of a label, a bar and a figure a line: unlike a drawing, it fits any screen and can be read aloud."""
    most = max((value for _, value in rows), default=0) or 1
    lines = "".join(
        f'<tr><th scope="row">{html.escape(label)}</th>'
        f'<td class="bar"><i class="{kind}" style="width: {100 * value / most:.1f}%"></i></td>'
        f"<td>{value:,.0f}</td></tr>"
        for label, value in rows
    )
    return f'<table class="bars" aria-label="{html.escape(title)}">{lines}</table>'


def _svg(drawn: Sequence[str], title: str) -> str:
    return f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{html.escape(title)}">{"".join(drawn)}</svg>'


def _legend(series: Series) -> str:
    if len(series) < 2:
        return ""
    names = "".join(f'<span><i class="{kind}"></i>{html.escape(name)}</span>' for name, kind, _ in series)
    return f'<p class="legend">{names}</p>'


def _grid(top: float, base: int, right: int) -> list[str]:
    drawn = []
    for part in (0, 0.5, 1):
        y = base - part * (base - _TOP)
        drawn.append(f'<line class="grid" x1="{_LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        drawn.append(f'<text x="{_LEFT - 8}" y="{y + 5:.1f}" text-anchor="end">{_short(top * part)}</text>')
    return drawn


def _round_up(value: float) -> float:
    """Return the next 1, 2 or 5 followed by zeros; at least 1."""
    if value <= 1:
        return 1.0
    size = 10.0 ** math.floor(math.log10(value))
    return float(next(step * size for step in (1, 2, 5, 10) if step * size >= value))


def _short(value: float) -> str:
    """Return such as `250`, `2.5 k` or `1 M`."""
    for size, letter in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if value >= size:
            return f"{value / size:.3g}{letter}"
    return f"{value:.3g}"


def _moment(time_ns: int, *, with_day: bool) -> str:
    return as_datetime(time_ns).strftime("%d %b %H:%M" if with_day else "%H:%M:%S")


def _seconds(time_ns: int) -> str:
    return f"{time_ns / NANOSECONDS:.3g} s"
