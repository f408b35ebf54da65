"""A report as one self-contained HTML file, for a privacy officer to read, print and sign. Its text is in `template/`."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

from jinja2.utils import htmlsafe_json_dumps

from service.report.figures import Figures
from service.report.plots import drawing
from service.report.templates import render
from service.telemetry.totals import FEWEST_WINDOWS
from service.time_texts import date_and_time, length_text, many_text, span_text

_TEMPLATE = Path(__file__).parent / "template" / "report.html"


def page(figures: Figures) -> str:
    """Return the report."""
    data = htmlsafe_json_dumps(dataclasses.asdict(figures), sort_keys=True)
    detail = figures.detail
    return render(
        _TEMPLATE,
        figures=figures,
        windows_drawn=drawing(figures.over_time, {"released": "released", "withheld": "withheld", "empty": "empty"}),
        rows_drawn=drawing(figures.over_time, {"rows_withheld": "withheld", "rows_late": "late"}),
        throughput_drawn=detail and drawing(detail.throughput, {"rows": "released"}, from_zero=True),
        data=data,
        digest=hashlib.sha256(data.encode()).hexdigest(),
        fewest_windows=FEWEST_WINDOWS,
        number="{:,}".format,
        many=many_text,
        moment=date_and_time,
        span_text=span_text,
        length=length_text,
        zip=zip,
    )
