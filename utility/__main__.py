"""`make utility`: measures what anonymization costs on the public sample ECG; prints tables and writes a page with plots."""

from __future__ import annotations

import argparse
import os
import platform
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from utility import plots, tables
from utility.goals import goals, sum_of
from utility.page import page
from utility.tables import markdown

PAGE = Path(__file__).resolve().parent.parent / "output" / "utility" / "report.html"

#: Which records are drawn: a clean one, and one with noise and extra beats.
DRAWN = (0, 2)

ALONE = (
    "Each record alone",
    "Mean of six records, windows of 5 s. Lost: percentage points against the raw signal, where negative means that more was found. "
    "÷ optimum: squared error over the least there is, pooled (worst record); of classic output as released.",
)
SHARED = (
    "Six records in the same windows",
    "While k counts rows, others' rows share values too and the error is lower. Where it counts sources, five of six must share each "
    "value and the error is far higher; the optimum is that of k rows, a lower bound. Twenty sources would be needed for k = 20.",
)

RECOGNITION = (
    "Recognition of wearers",
    "Six people of whom the attackers know two and a half minutes of raw ECG, 360 Hz: how often they name the right one in what would be "
    "released of the minutes after, and a 95 % interval. documentation/PRIVACY.md explains the attackers.",
)

RHYTHM = (
    "Without the shape",
    "METHOD=rhythm, windows of 10 s, beats detected again in each window by itself and compared with the annotated ones of that window; "
    "over the windows that are released. Withheld are windows that are noise, whole.",
)

RHYTHM_WINDOWS = (
    "Without the shape, by window",
    "The same for the six records together. In short windows more beats are cut by an edge; in long ones noise weighs less.",
)

WINDOWS = ("Error by k and window", "PRDN in per cent, default settings, mean of six records, each alone.")


def main(arguments: Sequence[str]) -> int:
    """Measure, print and write; return 1 when a goal was missed."""
    parser = argparse.ArgumentParser(prog="python -m utility", description=__doc__)
    parser.add_argument(
        "--page", type=Path, default=PAGE, metavar="FILE", help="where the page goes (default: output/utility/report.html)"
    )
    parser.add_argument("--no-page", action="store_true", help="only print the tables")
    options = parser.parse_args(arguments)
    print(_measured_on(), end="\n\n")
    reached = list(goals())
    print(markdown(tables.goal_rows(reached)), "", sum_of(reached), "", sep="\n")
    others = [
        (*ALONE, tables.alone()),
        (*SHARED, tables.shared()),
        (*WINDOWS, tables.windows()),
        (*RHYTHM, tables.rhythm()),
        (*RHYTHM_WINDOWS, tables.rhythm_windows()),
        (*RECOGNITION, tables.recognition()),
    ]
    for title, remark, rows in others:
        print(f"{title}. {remark}", "", markdown(rows), "", sep="\n")
    if not options.no_page:
        drawn = [*map(plots.overlays, DRAWN), plots.error_by_k_and_window(), plots.r_peaks(), plots.spectra(0)]
        options.page.parent.mkdir(parents=True, exist_ok=True)
        options.page.write_text(page(measured_on=_measured_on(), goals=reached, tables=others, plots=drawn), encoding="utf-8")
        print(f"Page with plots: {options.page}")
    return int(any(goal.is_met is False for goal in reached))


def _measured_on() -> str:
    return (
        f"Measured on {datetime.now(UTC):%Y-%m-%d} with `make utility` on {os.cpu_count()} cores ({platform.machine()}, "
        f"{platform.system()}), "
        f"Python {platform.python_version()}, numpy {version('numpy')}, detector sleepecg {version('sleepecg')}."
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
