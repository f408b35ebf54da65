"""Write a report of what was released, from the journal, for a privacy officer to read and sign.

    python scripts/report.py --since 2025-11-03 --until 2025-11-04 --to report.html

Reads `.env`, or the file that --env-file names, for STATE_DIR and the settings it shows; the service may be running. A one-shot run
writes its own report, with more detail (documentation/OPERATIONS.md). No report contains rows, values or source ids.
Exit codes: 0 written; 64 usage; 69 STATE_DIR cannot be read now; 78 the configuration or the state cannot be used.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from anonymizer.errors import ConfigurationError
from anonymizer.windows import Window
from operations.journal_copy import Document, copied_journal, has_journal, write_document
from operations.report_from_journal import figures_of
from service.process import run
from service.report.page import page
from service.settings.arguments import Parser, argument, path_argument
from service.settings.declared import Settings
from service.settings.load import load
from service.settings.shown import shown_settings
from service.settings.types import moment
from service.telemetry.log_writer import make_printable


def main(arguments: list[str]) -> int:
    """Run the command; return the exit code."""
    make_printable(sys.stdout)
    options = _parse(arguments)
    until_ns = time.time_ns() if options.until is None else options.until

    def settings_of() -> Settings:
        return load(Path(options.env_file or ".env"), os.environ, must_exist=options.env_file is not None).settings

    def make(settings: Settings) -> str:
        return _report(settings, options.since, until_ns)

    return write_document(Document("report", make, Path(options.to), lambda _: f"📄 Report: {options.to}"), settings_of, print)


def _report(settings: Settings, since_ns: int, until_ns: int) -> str:
    folder = Path(settings.state_dir)
    if not has_journal(folder):
        raise ConfigurationError(f"STATE_DIR {folder} holds no journal: nothing was ever released with it")
    with copied_journal(folder) as (journal, _):
        figures = figures_of(
            journal,
            Window(since_ns, until_ns),
            now_ns=time.time_ns(),
            pseudonyms=settings.pseudonymize_source_id,
            settings=tuple(shown_settings(settings)),
        )
    return page(figures)


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = Parser(description="Writes a report of what was released, from the journal.")
    parser.add_argument("--since", required=True, type=argument(moment), metavar="TIME", help="start of the span, ISO 8601, UTC")
    parser.add_argument("--until", type=argument(moment), metavar="TIME", help="end of the span (default: now)")
    parser.add_argument(
        "--to", default="report.html", type=path_argument, metavar="PATH", help="the file to write (default: report.html)"
    )
    parser.add_argument("--env-file", metavar="PATH", type=path_argument, help="read settings from this file instead of ./.env")
    options = parser.parse_args(arguments)
    if (time.time_ns() if options.until is None else options.until) <= options.since:
        parser.error("--until must be after --since; without it, --since must be in the past")
    return options


if __name__ == "__main__":
    run(main)
