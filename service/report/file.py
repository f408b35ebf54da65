"""Where reports are put: `STATE_DIR/reports/`, one a run, and the last one as `STATE_DIR/report.html`."""

from __future__ import annotations

import logging
from pathlib import Path

from service.report.figures import Figures
from service.report.page import page
from service.time_texts import as_datetime

_LOG = logging.getLogger("ecg_anonymizer")

LAST = "report.html"


def write_report(figures: Figures, state_dir: Path) -> None:
    """Write a report, and say where; one that cannot be written fails no run."""
    path = state_dir / LAST
    try:
        content = page(figures)
        folder = state_dir / "reports"
        folder.mkdir(exist_ok=True)
        (folder / as_datetime(figures.made_ns).strftime("report-%Y%m%dT%H%M%SZ.html")).write_text(content, encoding="utf-8")
        path.write_text(content, encoding="utf-8")
    except Exception as error:  # noqa: BLE001  (the run it tells of is worth more than a report)
        _LOG.warning("⚠️ The report could not be written to %s: %r", path, error)
    else:
        _LOG.info("📄 Report: %s", path)
