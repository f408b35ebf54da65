"""The plots of the utility report, each as SVG for an HTML page."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.signal import welch

from utility.choices import CLASSIC, DEFAULT, OPTIMAL, SOURCE, Choice, is_available
from utility.fidelity_measures import without_gaps
from utility.goals import KS
from utility.measurements import Measured, Setting, error_percent, heartbeats, measure, outcomes_of
from utility.outcome import Floats, Signal
from utility.records import RATES_HZ, records
from utility.tables import WINDOWS_S

#: Okabe and Ito's colours, which colour-blind readers can tell apart.
RAW_COLOUR = "#777777"
COLOUR_OF = {CLASSIC.name: "#d55e00", DEFAULT.name: "#0072b2", OPTIMAL.name: "#009e73", SOURCE.name: "#cc79a7"}
MARKER_OF = {CLASSIC.name: "s", DEFAULT.name: "o", OPTIMAL.name: "^", SOURCE.name: "D"}

#: What is drawn of a record: three seconds from the second minute on.
FROM_S, SECONDS = 60, 3

#: The mildest and the hardest measured setting.
ENDS = ((360, 5), (128, 20))


#: How every plot looks.
STYLE: Any = {
    "svg.fonttype": "none",  # text stays text: small, and readers can find it
    "svg.hashsalt": "utility",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "lines.linewidth": 1.1,
    "legend.frameon": False,
}


@dataclass(frozen=True, slots=True)
class Plot:
    """One plot: a text alternative, and the drawing."""

    title: str
    says: str
    svg: str


def drawn_choices() -> list[Choice]:
    """Return the choices that this version of the service supports."""
    return [choice for choice in (CLASSIC, DEFAULT, OPTIMAL, SOURCE) if is_available(choice)]


def overlays(record: int) -> Plot:
    """Draw three seconds of one record before and after: a row for each choice, gentle settings left, hard ones right."""
    name = records(360)[record].source_id
    choices = drawn_choices()
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(11, 1.9 * len(choices)), layout="constrained")
        table = figure.subplots(len(choices), len(ENDS), sharex=True, squeeze=False)
        for row, choice in zip(table, choices, strict=True):
            for axes, (hertz, k) in zip(row, ENDS, strict=True):
                _overlay(axes, choice, hertz, k, name)
        for axes in table[-1]:
            axes.set_xlabel("seconds")
        return Plot(
            f"{name}: before and after",
            f"Three seconds of {name} as measured (grey) and as released, for each way to anonymize. With few rows in a window and a "
            "large k (right), the classic way flattens R waves wholly, the others cut the highest to the mean of their group.",
            svg_of(figure),
        )


def _overlay(axes: Axes, choice: Choice, hertz: int, k: int, name: str) -> None:
    # Six sources can share a value among five of them, never among twenty.
    k = min(k, 5) if choice.by_source else k
    signal = signal_of(Setting(choice, hertz, k, shared=choice.by_source), name)
    rows = _drawn_rows(signal)
    seconds = (signal.times_ns[rows] - signal.times_ns[rows][0]) / 1e9
    axes.plot(seconds, signal.raw_uv[rows], color=RAW_COLOUR, linewidth=2.4, alpha=0.55, label="as measured")
    axes.plot(seconds, signal.released_uv[rows], color=COLOUR_OF[choice.name], label="as released")
    shared = ", six records in the windows" if choice.by_source else ""
    axes.set_title(f"{choice.name}: {hertz} Hz, k = {k}{shared}", loc="left")
    axes.set_ylabel("µV")
    axes.legend(loc="upper right", ncols=2, fontsize=7)
    axes.margins(y=0.18)


def _drawn_rows(signal: Signal) -> slice:
    start_ns = signal.times_ns[0] + FROM_S * 10**9
    first, stop = np.searchsorted(signal.times_ns, (start_ns, start_ns + SECONDS * 10**9))
    return slice(int(first), int(stop))


def signal_of(setting: Setting, name: str) -> Signal:
    """Return one record before and after."""
    (signal,) = (signal for outcome in outcomes_of(setting) for signal in outcome.signals() if signal.source_id == name)
    return signal


def error_by_k_and_window() -> Plot:
    """Draw PRDN over the window's length for each k, default settings."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(11, 3.4), layout="constrained")
        for axes, hertz in zip(figure.subplots(1, len(RATES_HZ), sharey=True), RATES_HZ, strict=True):
            for k, marker in zip(KS, "os^", strict=True):
                errors = [error_percent(Setting(DEFAULT, hertz, k, window_s)) for window_s in WINDOWS_S]
                axes.plot(WINDOWS_S, errors, marker=marker, label=f"k = {k}")
            axes.set_xscale("log")
            axes.set_yscale("log")
            axes.set_xticks(WINDOWS_S, labels=map(str, WINDOWS_S))
            axes.set_yticks((1, 2, 5, 10, 20, 50), labels=("1", "2", "5", "10", "20", "50"))
            axes.minorticks_off()
            axes.set(title=f"default, {hertz} Hz", xlabel="window, seconds", ylabel="PRDN, % (mean of six)")
            axes.legend()
        return Plot(
            "Error by k and window",
            "The error falls as windows grow longer and rises with k; at 128 Hz it is two to three times that at 360 Hz, "
            "as fewer rows share a window.",
            svg_of(figure),
        )


def r_peaks() -> Plot:
    """Draw how many annotated beats the detector still finds, and how many of its detections are beats."""
    where = [(hertz, k) for hertz in RATES_HZ for k in KS]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(11, 3.6), layout="constrained")
        left, right = figure.subplots(1, 2, sharey=True)
        for choice in (choice for choice in drawn_choices() if not choice.by_source):
            measured = [measure(Setting(choice, hertz, k)) for hertz, k in where]
            for axes, of in ((left, _sensitivity), (right, _predictivity)):
                style = {"color": COLOUR_OF[choice.name], "marker": MARKER_OF[choice.name], "label": choice.name}
                axes.plot(range(len(where)), [of(one) for one in measured], linestyle="--", linewidth=0.7, **style)
        for axes, of, title in ((left, _sensitivity, "sensitivity"), (right, _predictivity, "positive predictive value")):
            raw = [_of_raw(hertz, of is _sensitivity) for hertz, _ in where]
            axes.plot(range(len(where)), raw, color=RAW_COLOUR, linewidth=5, alpha=0.4, label="as measured", zorder=0)
            axes.set_xticks(range(len(where)), labels=[f"{hertz} Hz\nk {k}" for hertz, k in where])
            axes.set(title=f"R peaks: {title}", ylabel="% (mean of six)")
            axes.legend(loc="lower left")
        return Plot(
            "R peaks",
            "In default and optimal output the detector finds the beats that it finds in the raw signal, and takes up to two in a "
            "hundred more for beats that are none; in classic output both figures fall.",
            svg_of(figure),
        )


def _sensitivity(measured: Measured) -> float:
    return measured.mean(heartbeats(lambda loss: loss.sensitivity))


def _predictivity(measured: Measured) -> float:
    return measured.mean(heartbeats(lambda loss: loss.predictivity))


def _of_raw(hertz: int, sensitivity: bool) -> float:
    """Return the detector's figure on the raw signal: that on a released one plus what was lost."""
    measured = measure(Setting(DEFAULT, hertz, KS[0]))
    if sensitivity:
        return _sensitivity(measured) + measured.mean(heartbeats(lambda loss: loss.sensitivity_points))
    return _predictivity(measured) + measured.mean(heartbeats(lambda loss: loss.predictivity_points))


def spectra(record: int) -> Plot:
    """Draw the power spectrum of one record before and after."""
    name = records(360)[record].source_id
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(11, 3.6), layout="constrained")
        for axes, (hertz, k) in zip(figure.subplots(1, len(ENDS), sharey=True), ENDS, strict=True):
            for choice in (choice for choice in drawn_choices() if not choice.by_source):
                signal = signal_of(Setting(choice, hertz, k), name)
                _spectrum(axes, without_gaps(signal.released_uv), hertz, COLOUR_OF[choice.name], choice.name)
            _spectrum(axes, signal.raw_uv, hertz, RAW_COLOUR, "as measured", wide=True)
            axes.set(title=f"{name}: {hertz} Hz, k = {k}", xlabel="Hz", ylabel="µV² / Hz", xlim=(0, min(hertz / 2, 100)))
            axes.legend()
        return Plot(
            "Spectra",
            "At 360 Hz and k = 5 default and optimal output have the spectrum of the raw signal. At 128 Hz and k = 20 they have it up to "
            "about 15 Hz, lose part of the R waves' power from there to 40 Hz, and above carry the noise of steps between groups; one "
            "covers the other. "
            "Of classic output at 128 Hz and k = 20 little is left from 2 Hz on.",
            svg_of(figure),
        )


def _spectrum(
    axes: Axes,
    values_uv: Floats,
    hertz: int,
    colour: str,
    label: str,
    *,
    wide: bool = False,
) -> None:
    frequencies, power = welch(values_uv, fs=hertz, nperseg=4 * hertz)
    style = {"linewidth": 3.5, "alpha": 0.4, "zorder": 0} if wide else {}
    axes.semilogy(frequencies[1:], power[1:], color=colour, label=label, **style)


def svg_of(figure: Figure) -> str:
    """Return the drawing as an `svg` element: same figures, same text."""
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    drawing = text.getvalue()
    return drawing[drawing.index("<svg") :]
