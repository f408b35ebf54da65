"""A page with ECG before and after, drawn as SVG: one file, no network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from service.report.templates import render

_Floats = npt.NDArray[np.float64]

_TEMPLATE = Path(__file__).parent / "template" / "before_after.html"

#: Edges of the curves in the template's drawings.
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 990, 8, 194


@dataclass(frozen=True, slots=True)
class Overlay:
    """The data to draw: some seconds of one wearer; arrays have shape (n,), values are microvolts."""

    title: str
    seconds: _Floats
    before_uv: _Floats
    after_uv: _Floats


@dataclass(frozen=True, slots=True)
class _Panel:
    """One drawing: its curve, and the positions and labels of its axis marks."""

    label: str
    kind: str
    points: str
    heights: list[tuple[float, str]]
    seconds: list[tuple[float, str]]


def page(overlay: Overlay) -> str:
    """Return a self-contained HTML page."""
    difference = overlay.after_uv - overlay.before_uv
    limits = _limits(np.concatenate((overlay.before_uv, overlay.after_uv)))
    panels = [
        _panel(overlay.seconds, overlay.before_uv, limits, "before", "Before: as measured, µV"),
        _panel(overlay.seconds, overlay.after_uv, limits, "after", "After: as released, µV"),
        _panel(overlay.seconds, difference, _around_zero(difference), "difference", "Difference, µV (another scale)"),
    ]
    kept_percent, most_uv = f"{100 * float((difference == 0).mean()):.0f}", f"{np.abs(difference).max():.0f}"
    return render(_TEMPLATE, title=overlay.title, pairs=[], panels=panels, kept_percent=kept_percent, most_uv=most_uv)


def rhythm_page(overlays: Sequence[Overlay]) -> str:
    """Return a page of several wearers under METHOD=rhythm: different hearts before, the same beat at their own times after."""
    pairs = [
        (
            overlay.title,
            _panel(
                overlay.seconds,
                overlay.before_uv,
                _limits(overlay.before_uv),
                "before",
                f"{overlay.title}, before: as measured, µV",
            ),
            _panel(overlay.seconds, overlay.after_uv, (-500.0, 1000.0), "after", f"{overlay.title}, after: as released, µV"),
        )
        for overlay in overlays
    ]
    return render(_TEMPLATE, title="The shape removed, the rhythm kept", pairs=pairs)


def _limits(values: _Floats) -> tuple[float, float]:
    """Return round limits around the values, never equal."""
    step = 10.0 ** np.floor(np.log10(max(float(np.ptp(values)), 1.0)))
    low, high = np.floor(values.min() / step) * step, np.ceil(values.max() / step) * step
    return (float(low), float(high)) if high > low else (float(low) - step, float(high) + step)


def _around_zero(values: _Floats) -> tuple[float, float]:
    """Return limits that are symmetric around zero."""
    most = max(abs(limit) for limit in _limits(values))
    return -most, most


def _panel(seconds: _Floats, values: _Floats, limits: tuple[float, float], kind: str, label: str) -> _Panel:
    low, high = limits
    began_s, length_s = float(seconds[0]), float(seconds[-1] - seconds[0])
    x = np.round(_LEFT + (seconds - began_s) / length_s * (_RIGHT - _LEFT), 1)
    y = np.round(_TOP + (high - values) / (high - low) * (_BOTTOM - _TOP), 1)
    heights = [(_TOP + part * (_BOTTOM - _TOP) / 2, f"{high - part * (high - low) / 2:g}") for part in range(3)]
    marks = [(round(_LEFT + second / length_s * (_RIGHT - _LEFT), 1), f"{second} s") for second in range(int(length_s) + 1)]
    return _Panel(label, kind, " ".join(f"{a},{b}" for a, b in zip(x, y, strict=True)), heights, marks)
