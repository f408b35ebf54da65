"""Write a draft of a data protection impact assessment (GDPR Art. 35) in Markdown, from `.env`, the journal and measured figures.

    python scripts/dpia.py --env-file .env --to dpia.md

What only the site knows is marked […]. It holds no ids, values or secrets, and makes no decision. The service may be running.
Exit codes: 0 written; 64 usage; 69 STATE_DIR cannot be read now; 78 the configuration or the state cannot be used.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from anonymizer.errors import ConfigurationError
from anonymizer.weak_keys import why_refused
from operations.dpia import EVERYTHING, Site, draft
from operations.journal_copy import Document, copied_journal, has_journal, write_document
from operations.report_from_journal import figures_of
from service.process import run
from service.report.figures import Figures
from service.settings.arguments import Parser, path_argument
from service.settings.declared import Settings
from service.settings.load import load
from service.telemetry.log_writer import make_printable

#: With this word begins what `scripts/advise.py` prints about recognition.
_RECOGNITION = "Recognition"


def main(arguments: list[str]) -> int:
    """Run the command; return the exit code."""
    make_printable(sys.stdout)
    options = _parse(arguments)

    def settings_of() -> Settings:
        return load(Path(options.env_file), os.environ, must_exist=options.env_file_given).settings

    def make(settings: Settings) -> str:
        return draft(Site(settings, _figures(settings), _key_doubt(settings), _linkage(options.linkage), time.time_ns()))

    def said(content: str) -> str:
        return f"📄 Draft: {options.to}, with {content.count('[…]')} places to fill in"

    return write_document(Document("dpia", make, options.to, said), settings_of, print)


def _figures(settings: Settings) -> Figures | None:
    folder = Path(settings.state_dir)
    if not has_journal(folder):
        return None
    with copied_journal(folder) as (journal, _):
        return figures_of(journal, EVERYTHING, now_ns=time.time_ns(), pseudonyms=settings.pseudonymize_source_id, settings=())


def _key_doubt(settings: Settings) -> str:
    return why_refused(settings.pseudonym_salt.key()) if settings.pseudonymize_source_id else ""


def _linkage(path: Path | None) -> str:
    """Return what a saved output of `scripts/advise.py` says about recognition. The rest, computed from raw data, is left out."""
    if path is None:
        return ""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ConfigurationError(f"--linkage {path} cannot be read ({reason})") from None
    found = "\n".join(_paragraph(lines))
    if not found:
        raise ConfigurationError(
            f"--linkage {path} holds no line that begins with {_RECOGNITION}: is it what scripts/advise.py printed?"
        )
    return found


def _paragraph(lines: list[str]) -> Iterator[str]:
    """Yield the lines about recognition: the remark, and the table after it."""
    begin = next((at for at, line in enumerate(lines) if line.startswith(_RECOGNITION)), len(lines))
    table_is_over = False
    for line in lines[begin:]:
        table_is_over = table_is_over or line.startswith(("Sample:", "CONFIDENTIAL"))
        if table_is_over:
            return
        yield line


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env-file", metavar="PATH", type=path_argument, help="read settings from this file instead of ./.env")
    parser.add_argument(
        "--to", default=Path("dpia.md"), type=path_argument, metavar="PATH", help="the file to write (default: dpia.md)"
    )
    parser.add_argument(
        "--linkage", type=path_argument, metavar="PATH", help="what scripts/advise.py printed about this site's data"
    )
    options = parser.parse_args(arguments)
    options.env_file_given = options.env_file is not None
    options.env_file = options.env_file or Path(".env")
    return options


if __name__ == "__main__":
    run(main)
