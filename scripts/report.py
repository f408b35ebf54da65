"""Write a report of what was released, from the journal, for a privacy officer to read and sign.

    python scripts/report.py --since 2025-11-03 --until 2025-11-04 --to report.html

Reads `.env`, or the file that --env-file names, for STATE_DIR and the settings it shows; the service may be running. A one-shot run
writes its own report, with more detail (documentation/OPERATIONS.md). No report contains rows, values or source ids.
Exit codes: 0 written; 64 usage; 78 the configuration or the state cannot be used.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from anonymizer.errors import ConfigurationError, JournalDamaged, StateUnavailable
from anonymizer.windows import Window
from disk.durable_file import mode_of, write_durably
from operations.journal_copy import copied_journal
from operations.report_from_journal import figures_of
from service import exit_codes
from service.process import run
from service.report.page import page
from service.settings.arguments import Parser, argument, path_argument
from service.settings.declared import Settings
from service.settings.load import load
from service.settings.shown import shown_settings
from service.settings.types import moment
from service.state.trail import told
from service.telemetry.log_writer import make_printable


def main(arguments: list[str]) -> int:
    """Run the command; return the exit code."""
    make_printable(sys.stdout)
    options = _parse(arguments)
    try:
        settings = load(Path(options.env_file or ".env"), os.environ, must_exist=options.env_file is not None).settings
        return told(Path(settings.state_dir), "report", time.time_ns, lambda: _write_report(settings, options))
    except ConfigurationError as error:
        print("\n".join(f"❌ {problem}" for problem in error.problems))
        return exit_codes.CONFIGURATION
    except JournalDamaged as error:
        print(f"❌ {error}")
        return exit_codes.CONFIGURATION
    except StateUnavailable as error:
        print(f"❌ {error}")
        return exit_codes.UNREACHABLE


def _write_report(settings: Settings, options: argparse.Namespace) -> int:
    content = _report(settings, options.since, time.time_ns() if options.until is None else options.until)
    path = Path(options.to)
    try:
        write_durably(path, content.encode(), mode=mode_of(path, otherwise=settings.output_file_mode))
    except OSError as error:
        print(f"❌ {path} cannot be written ({error.strerror or error})")
        return exit_codes.USAGE
    print(f"📄 Report: {path}")
    return exit_codes.DONE


def _report(settings: Settings, since_ns: int, until_ns: int) -> str:
    folder = Path(settings.state_dir)
    try:
        is_there = (folder / "journal.sqlite").is_file()
    except OSError as error:
        raise ConfigurationError(
            f"STATE_DIR {folder} cannot be looked into ({error.strerror or error}): run this as the user that it belongs to"
        ) from None
    if not is_there:
        raise ConfigurationError(f"STATE_DIR {folder} holds no journal: nothing was ever released with it")
    try:
        with copied_journal(folder) as (journal, _):
            figures = figures_of(
                journal,
                Window(since_ns, until_ns),
                now_ns=time.time_ns(),
                pseudonyms=settings.pseudonymize_source_id,
                settings=tuple(shown_settings(settings)),
            )
    except (JournalDamaged, StateUnavailable) as error:
        raise ConfigurationError(str(error)) from None
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
