"""Pieces of HTML and of sentences that a report is put together from."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence

from anonymizer.windows import Window
from service.time_texts import date_and_time, span_text

#: More stretches of time than this are counted, not listed.
_MOST_SPANS = 20


def section(title: str, content: Iterable[str]) -> str:
    """Return a part of the report under its heading."""
    return f"<section>\n<h2>{title}</h2>\n{''.join(content)}\n</section>\n"


def table(rows: Sequence[tuple[str, str]], *, kind: str = "named") -> str:
    """Return a table of a name and a value a line."""
    cells = "".join(f'<tr><th scope="row">{html.escape(name)}</th><td>{html.escape(value)}</td></tr>' for name, value in rows)
    return f'<table class="{kind}">{cells}</table>'


def wide_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table with headings over its columns."""
    head = "".join(f'<th scope="col">{html.escape(one)}</th>' for one in heads)
    body = "".join(f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f'<table class="wide"><tr>{head}</tr>{body}</table>'


def spans_text(spans: Sequence[Window]) -> str:
    """Return stretches of time, a line each, and how many more there are if there are many."""
    if not spans:
        return "nothing"
    shown = "<br>".join(f"{span_text(span)} UTC" for span in spans[:_MOST_SPANS])
    more = len(spans) - _MOST_SPANS
    return shown if more <= 0 else f"{shown}<br>and {more:,} stretches more"


def day(time_ns: int) -> str:
    """Return the date, in UTC."""
    return date_and_time(time_ns)[:10]
