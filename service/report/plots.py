"""Positions of bars, axis marks and labels in a plot over time; the template decides their appearance."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from anonymizer.windows import NANOSECONDS
from service.report.figures import Plot
from service.time_texts import as_datetime

#: More labels than this would overlap on the time axis.
_MOST_LABELS = 7

#: A narrow screen has room for every third label, and for none that begins this far right.
_EACH_MAJOR, _NARROW_PERCENT = 3, 70

#: The gap between two bars, as a fraction of the plot's width.
_GAP = 0.0012

#: The minimum height of a bar, so that a value above zero is visible.
_LEAST_HEIGHT = 0.01


@dataclass(frozen=True, slots=True)
class Bar:
    """A segment of a stacked bar. The plot is one unit wide per interval and 1 unit high, measured from the top."""

    kind: str
    x: int
    y: float
    height: float


@dataclass(frozen=True, slots=True)
class Label:
    """A label of the time axis: where it begins, and whether a narrow screen shows it."""

    text: str
    left_percent: float
    is_major: bool


@dataclass(frozen=True, slots=True)
class Drawing:
    """Stacked bars, one per interval; the marks of the axis from the top down; the kinds of segments."""

    width: int
    bar_width: float
    bars: tuple[Bar, ...]
    axis: tuple[str, str, str]
    labels: tuple[Label, ...]
    kinds: tuple[str, ...]


def drawing(plot: Plot, kinds: Mapping[str, str], *, from_zero: bool = False) -> Drawing:
    """Return the positions of all elements.

    Args:
        plot: Sums over time.
        kinds: The series to draw, and the kind of each; series that the plot lacks are skipped.
        from_zero: Whether times count from 0 instead of being times of day.
    """
    series = {kinds[name]: values for name, values in plot.series if name in kinds}
    top = _round_up(max(map(sum, zip(*series.values(), strict=True)), default=0))
    axis = (_short(top), _short(top / 2), _short(0))
    labels = tuple(_labels(plot, from_zero=from_zero))
    width = len(plot.starts_ns)
    return Drawing(width, 1 - _GAP * width, tuple(_bars(series, top)), axis, labels, tuple(series))


def _bars(series: Mapping[str, tuple[float, ...]], top: float) -> Iterator[Bar]:
    for x, values in enumerate(zip(*series.values(), strict=True)):
        y = 1.0
        for kind, value in zip(series, values, strict=True):
            if value > 0:
                height = max(value / top, _LEAST_HEIGHT)
                y = max(y - height, 0.0)
                yield Bar(kind, x, y, height)


def _labels(plot: Plot, *, from_zero: bool) -> Iterator[Label]:
    number = len(plot.starts_ns)
    time_format = "%d %b %H:%M" if number * plot.width_ns > 86_400 * NANOSECONDS else "%H:%M:%S"
    for count, index in enumerate(range(0, number, math.ceil(number / _MOST_LABELS) or 1)):
        time_ns, left_percent = plot.starts_ns[index], 100 * index / number
        text = f"{time_ns / NANOSECONDS:.3g} s" if from_zero else as_datetime(time_ns).strftime(time_format)
        yield Label(text, left_percent, count % _EACH_MAJOR == 0 and left_percent <= _NARROW_PERCENT)


def _round_up(value: float) -> float:
    """Return the next 1, 2 or 5 followed by zeros; at least 1."""
    if value <= 1:
        return 1.0
    size = 10.0 ** math.floor(math.log10(value))
    return float(next(step * size for step in (1, 2, 5, 10) if step * size >= value))


def _short(value: float) -> str:
    """Return a text such as `250`, `2.5 k` or `1 M`."""
    for size, letter in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if value >= size:
            return f"{value / size:.3g}{letter}"
    return f"{value:.3g}"
