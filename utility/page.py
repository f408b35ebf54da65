"""The utility report as one HTML page that needs nothing else: no network, no script, no other file."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence

from utility.goals import Goal, sum_of, verdict_of
from utility.plots import Plot
from utility.tables import Table

_STYLE = """
  body { font: 16px/1.5 system-ui, sans-serif; max-width: 1120px; margin: 2rem auto; padding: 0 1rem; background: #fff; color: #1b1f24; }
  h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
  table { border-collapse: collapse; font-size: .85rem; } .wide { overflow-x: auto; }
  th, td { border-bottom: 1px solid #dde1e6; padding: .25rem .7rem; text-align: left; vertical-align: top; }
  th { background: #f5f7f9; } td:nth-child(-n+2) { white-space: nowrap; } td + td { font-variant-numeric: tabular-nums; }
  .missed { background: #ffe0d6; font-weight: 600; } .none { color: #5b6570; }
  .notice { background: #fff3cd; color: #5c4400; padding: .5rem .8rem; border-radius: 6px; }
  figure { margin: 1rem 0 2rem; } figure svg { width: 100%; height: auto; } figcaption { font-size: .9rem; color: #444c55; }
"""


def page(*, measured_on: str, goals: Sequence[Goal], tables: Iterable[tuple[str, str, Table]], plots: Iterable[Plot]) -> str:
    """Return the page.

    Args:
        measured_on: Date, machine and versions, in a sentence.
        goals: With what was measured.
        tables: Title, remark and rows of each further table; the first row is its heading.
        plots: In order.
    """
    goal_rows = [("measure", "where", "goal", "measured", ""), *((*_words(goal), verdict_of(goal)) for goal in goals)]
    parts = [
        "<h1>What anonymization costs</h1>",
        f"<p>{html.escape(measured_on)}</p>",
        '<p class="notice">Contains raw data. The recordings are public (MIT-BIH Arrhythmia Database, PhysioNet); never make a page '
        "like this of a patient's data.</p>",
        f"<h2>Goals</h2><p>{html.escape(sum_of(goals))} Each record alone in its windows of 5 s, the hard case.</p>",
        _table(goal_rows),
        *(f"<h2>{html.escape(title)}</h2><p>{html.escape(remark)}</p>{_table(rows)}" for title, remark, rows in tables),
        *map(_figure, plots),
    ]
    body = "\n".join(parts)
    return (
        '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>What anonymization costs</title>\n<style>{_STYLE}</style>\n{body}\n</html>\n"
    )


def _words(goal: Goal) -> tuple[str, str, str, str]:
    return goal.measure, goal.setting, goal.wanted, goal.measured


def _table(rows: Table) -> str:
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in rows[0])
    lines = "\n".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows[1:])
    return f'<div class="wide"><table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{lines}\n</tbody></table></div>'


def _cell(text: str) -> str:
    kind = {"MISSED": ' class="missed"', "not available": ' class="none"', "–": ' class="none"'}.get(text, "")
    return f"<td{kind}>{html.escape(text)}</td>"


def _figure(plot: Plot) -> str:
    drawing = plot.svg.replace("<svg", f'<svg role="img" aria-label="{html.escape(plot.says)}"', 1)
    return f"<h2>{html.escape(plot.title)}</h2>\n<figure>{drawing}<figcaption>{html.escape(plot.says)}</figcaption></figure>"
