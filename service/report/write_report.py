"""Writes reports: one per run into `STATE_DIR/reports/`, the last one also as `STATE_DIR/report.html`."""

from __future__ import annotations

import logging
from pathlib import Path

from disk.durable_file import PRIVATE, folder_mode, make_folder, mode_of, write_durably
from service.log_event import LogEvent
from service.report.figures import Figures
from service.time_texts import as_datetime

_REPORT_WRITTEN = LogEvent("report_written", "📄 Report: %s", "path")
_REPORT_FAILED = LogEvent("report_failed", "⚠️ The report could not be written to %s: %r", "path reason", logging.WARNING)

LAST = "report.html"


def write_report(figures: Figures, state_dir: Path, *, file_mode: int = PRIVATE) -> None:
    """Write a report and log where. A failure is logged and does not fail the run. An existing last report keeps its permissions."""
    path = state_dir / LAST
    try:
        # Imported only here: it loads the template engine.
        from service.report.page import page

        content = page(figures).encode()
        folder = state_dir / "reports"
        make_folder(folder, folder_mode(file_mode))
        kept = folder / as_datetime(figures.made_ns).strftime("report-%Y%m%dT%H%M%SZ.html")
        for one in (kept, path):
            write_durably(one, content, mode=mode_of(one, otherwise=file_mode))
    except Exception as error:  # noqa: BLE001  (a report must not fail its run)
        _REPORT_FAILED.log(path, error)
    else:
        _REPORT_WRITTEN.log(path)
