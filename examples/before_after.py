"""A page with one wearer's ECG before and after, drawn as SVG: no library, no network."""

from __future__ import annotations

import html
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

_Floats = npt.NDArray[np.float64]

_WIDTH, _HEIGHT, _LEFT, _BOTTOM = 1000, 220, 70, 26

_STYLE = """
  :root { color-scheme: light dark; }
  body { font: 16px/1.5 system-ui, sans-serif; max-width: 1080px; margin: 2rem auto; padding: 0 1rem; background: #fff; color: #1b1f24; }
  h1 { font-size: 1.3rem; } h2 { font-size: 1rem; margin: 1.2rem 0 .2rem; font-weight: 600; }
  .notice { background: #fff3cd; color: #5c4400; padding: .5rem .8rem; border-radius: 6px; }
  svg { width: 100%; height: auto; display: block; }
  .before { stroke: #0b62a4; } .after { stroke: #b3380b; } .difference { stroke: #5a5f66; }
  .grid { stroke: #d8dce1; stroke-width: 1; } text { fill: currentColor; font-size: 14px; }
  polyline { fill: none; stroke-width: 1.6; stroke-linejoin: round; }
  @media (prefers-color-scheme: dark) {
    body { background: #14171a; color: #e6e8ea; } .grid { stroke: #33383d; }
    .before { stroke: #6db6f2; } .after { stroke: #f2935c; } .difference { stroke: #a9b0b7; }
    .notice { background: #4a3a00; color: #ffe69c; }
  }
"""


@dataclass(frozen=True, slots=True)
class Overlay:
    """What is drawn: some seconds of one wearer, in microvolts, shape (n,) each."""

    title: str
    seconds: _Floats
    before_uv: _Floats
    after_uv: _Floats


def page(overlay: Overlay) -> str:
    """Return a self-contained HTML page."""
    difference = overlay.after_uv - overlay.before_uv
    limits = _limits(np.concatenate((overlay.before_uv, overlay.after_uv)))
    panels = [
        ("Before: as measured, µV", overlay.before_uv, limits, "before"),
        ("After: as released, µV", overlay.after_uv, limits, "after"),
        ("Difference, µV (another scale)", difference, _around_zero(difference), "difference"),
    ]
    drawn = "\n".join(
        f"<h2>{name}</h2>\n{_panel(overlay.seconds, values, span, kind, name)}" for name, values, span, kind in panels
    )
    return f"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Before and after</title>
<style>{_STYLE}</style>
<h1>{html.escape(overlay.title)}: before and after anonymization</h1>
<p class="notice"><strong>Demo only: contains raw data.</strong> The recording is public (MIT-BIH Arrhythmia Database, PhysioNet).
Never make a page like this of a patient's data.</p>
{drawn}
<p>{_caption(difference)}</p>
</html>
"""


def _caption(difference: _Floats) -> str:
    kept = 100 * float((difference == 0).mean())
    most = np.abs(difference).max()
    return f"{kept:.0f} % of these samples keep their value, which others of the same window share; the rest moved by up to {most:.0f} µV."


def _limits(values: _Floats) -> tuple[float, float]:
    """Return round limits around the values, never equal."""
    step = 10.0 ** np.floor(np.log10(max(float(np.ptp(values)), 1.0)))
    low, high = np.floor(values.min() / step) * step, np.ceil(values.max() / step) * step
    return (float(low), float(high)) if high > low else (float(low) - step, float(high) + step)


def _around_zero(values: _Floats) -> tuple[float, float]:
    """Return limits that lie evenly about zero."""
    most = max(abs(limit) for limit in _limits(values))
    return -most, most


def _panel(seconds: _Floats, values: _Floats, limits: tuple[float, float], kind: str, label: str) -> str:
    low, high = limits
    right, bottom = _WIDTH - 10, _HEIGHT - _BOTTOM
    x = _LEFT + (seconds - seconds[0]) / (seconds[-1] - seconds[0]) * (right - _LEFT)
    y = 8 + (high - values) / (high - low) * (bottom - 8)
    points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))
    lines, texts = [], []
    for value in np.linspace(low, high, 3):
        height = 8 + (high - value) / (high - low) * (bottom - 8)
        lines.append(f'<line class="grid" x1="{_LEFT}" x2="{right}" y1="{height:.1f}" y2="{height:.1f}"/>')
        texts.append(f'<text x="{_LEFT - 8}" y="{height + 5:.1f}" text-anchor="end">{value:g}</text>')
    for second in range(int(seconds[-1] - seconds[0]) + 1):
        across = _LEFT + second / (seconds[-1] - seconds[0]) * (right - _LEFT)
        lines.append(f'<line class="grid" x1="{across:.1f}" x2="{across:.1f}" y1="8" y2="{bottom}"/>')
        texts.append(f'<text x="{across:.1f}" y="{_HEIGHT - 6}" text-anchor="middle">{second} s</text>')
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{html.escape(label)}">{"".join(lines)}'
        f'<polyline class="{kind}" points="{points}"/>{"".join(texts)}</svg>'
    )
