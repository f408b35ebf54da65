"""Tables that compare the configurations."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from recognition.attackers import recognition_rows
from utility.choices import CLASSIC, DEFAULT, OPTIMAL, RAW, SOURCE, SOURCE_OPTIMAL, is_available
from utility.goals import KS, Goal, verdict_of
from utility.measurements import Setting, error_percent, heartbeats, measure, recognitions
from utility.records import RATES_HZ
from utility.rhythm_measures import SETTING as RHYTHM_SETTING
from utility.rhythm_measures import rhythm_losses

Rows = list[tuple[str, ...]]

#: Any of these as it is printed; the first row is its heading.
Table = Sequence[Sequence[str]]

WINDOWS_S = (2, 5, 10, 30, 60)

#: Six records in a window: no more sources can share a value.
SHARED_KS = (5,)

HEADING = (
    "where",
    "way",
    "PRDN %",
    "r",
    "÷ optimum",
    "Se lost",
    "PPV lost",
    "heart rate, bpm",
    "RMSSD %",
    "R height left %",
    "keep their value %",
    "withheld",
    "invented",
)


def goal_rows(goals: list[Goal]) -> Rows:
    """Return the goals as a table."""
    heading = ("measure", "where", "goal", "measured", "")
    return [heading, *((one.measure, one.setting, one.wanted, one.measured, verdict_of(one)) for one in goals)]


def alone() -> Rows:
    """Return the figures of every configuration, for records that are alone in their windows."""
    return [
        HEADING,
        *(_row(Setting(choice, hertz, k)) for hertz in RATES_HZ for k in KS for choice in (CLASSIC, DEFAULT, OPTIMAL)),
    ]


def shared() -> Rows:
    """Return the figures of every configuration, for six records in the same windows. The optimum is that of k rows, whatever k counts."""
    rows: Rows = [HEADING]
    for hertz in RATES_HZ:
        rows += [_row(Setting(choice, hertz, k, shared=True)) for k in KS for choice in (DEFAULT, OPTIMAL)]
        rows += [_row(Setting(choice, hertz, k, shared=True)) for k in SHARED_KS for choice in (SOURCE, SOURCE_OPTIMAL)]
    return rows


def _row(setting: Setting) -> tuple[str, ...]:
    where = f"{setting.hertz} Hz, k {setting.k}"
    if not is_available(setting.choice):
        return where, setting.choice.name, *("not available",), *("–",) * (len(HEADING) - 3)
    one = measure(setting)
    return (
        where,
        setting.choice.name,
        _text(one.mean(lambda record: record.likeness.prdn), 2),
        _text(one.mean(lambda record: record.likeness.correlation), 4),
        f"{_text(one.pooled_ratio, 2)} ({_text(one.worst_ratio, 2)})" if not setting.shared else _text(one.pooled_ratio, 2),
        _text(one.mean(heartbeats(lambda loss: loss.sensitivity_points)), 2),
        _text(one.mean(heartbeats(lambda loss: loss.predictivity_points)), 2),
        _text(one.mean(heartbeats(lambda loss: loss.rate_bpm)), 2),
        _text(one.mean(heartbeats(lambda loss: loss.rmssd_percent)), 1),
        _text(one.mean(heartbeats(lambda loss: loss.height_percent)), 0),
        _text(100 * one.mean(lambda record: record.likeness.unchanged), 1),
        str(one.rows - one.released),
        str(one.invented),
    )


def _text(number: float, digits: int) -> str:
    return "–" if math.isnan(number) else f"{number:.{digits}f}".replace("-", "−")


def windows() -> Rows:
    """Return the error of default settings for each k and window length."""
    rows: Rows = [("where", *(f"{window_s} s" for window_s in WINDOWS_S))]
    for hertz in RATES_HZ:
        for k in KS:
            errors = [error_percent(Setting(DEFAULT, hertz, k, window_s)) for window_s in WINDOWS_S]
            rows.append((f"{hertz} Hz, k {k}", *(_text(error, 1) for error in errors)))
    return rows


#: What the attackers of `recognition/attackers.py` are shown, as it is called in tables.
SHOWN = {
    "as measured": Setting(RAW, 360, 1),
    "record, k 5": Setting(DEFAULT, 360, 5),
    "record, k 20": Setting(DEFAULT, 360, 20),
    "source, k 5": Setting(SOURCE, 360, 5, shared=True),
    "rhythm": RHYTHM_SETTING,
}


def recognition() -> Rows:
    """Return how often each attacker names the right one of six people, in what was measured and in what would be released."""
    return recognition_rows({name: recognitions(setting) for name, setting in SHOWN.items()})


def rhythm() -> Rows:
    """Return what `METHOD=rhythm` keeps of each record."""
    heading = (
        "record",
        "rows withheld %",
        "heart rate error, bpm: median",
        "mean",
        "mean of raw windows",
        "Se lost",
        "PPV lost",
        "RMSSD %",
    )
    return [
        heading,
        *(
            (
                one.source_id,
                _text(one.withheld_percent, 1),
                _text(float(np.median(one.rate_errors_bpm)), 2),
                _text(float(one.rate_errors_bpm.mean()), 2),
                _text(float(one.raw_rate_errors_bpm.mean()), 2),
                _text(one.sensitivity_points, 2),
                _text(one.predictivity_points, 2),
                _text(one.rmssd_percent, 1),
            )
            for one in rhythm_losses()
        ),
    ]


#: Lengths of windows that METHOD=rhythm is compared for.
RHYTHM_WINDOWS_S = (5, 10, 30)


def rhythm_windows() -> Rows:
    """Return what `METHOD=rhythm` keeps with windows of other lengths, over the six records."""
    heading = ("window", "rows withheld %", "Se lost", "heart rate error, bpm: median", "mean", "mean of raw windows")
    rows: Rows = [heading]
    for window_s in RHYTHM_WINDOWS_S:
        losses = rhythm_losses(window_s)
        errors = (np.concatenate([getattr(one, name) for one in losses]) for name in ("rate_errors_bpm", "raw_rate_errors_bpm"))
        released, raw = errors
        rows.append(
            (
                f"{window_s} s",
                _text(float(np.mean([one.withheld_percent for one in losses])), 1),
                _text(float(np.mean([one.sensitivity_points for one in losses])), 2),
                _text(float(np.nanmedian(released)), 2),
                _text(float(np.nanmean(released)), 2),
                _text(float(np.nanmean(raw)), 2),
            )
        )
    return rows


def markdown(rows: Table) -> str:
    """Return a table in Markdown."""
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([lines[0], "|" + " --- |" * len(rows[0]), *lines[1:]])
