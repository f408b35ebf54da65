"""Check an audit log: its chain of hashes, a head that was kept elsewhere, and the releases that the journal knows.

A chain finds an entry that was changed, removed or inserted by someone who did not compute the rest anew. Cut ends and chains made anew are
found only by --head (each run logs it and puts it into its report: keep it where the log's writer cannot change it), and cut releases by
--state-dir. Exit codes: 0 nothing found; 1 found; 64 usage, or FILE cannot be read; 69 STATE_DIR cannot be read now; 78 it cannot be used.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from anonymizer.errors import JournalDamaged, StateUnavailable
from disk.durable_file import read_ours
from operations.journal_copy import copied_journal
from service import exit_codes
from service.process import run
from service.settings.arguments import Parser, argument, path_argument
from service.state.intervals import missing
from service.state.trail import Checked, check, owner_of
from service.telemetry.log_writer import make_printable
from service.time_texts import moment_text, span_text


def problems_of(trail: Checked, heads: list[str], state_dir: Path | None) -> Iterator[str]:
    """Yield what is wrong with a trail, one sentence each."""
    yield from trail.problems
    now = moment_text(time.time_ns())
    yield from (f"entry {one['n']} is dated {one['at']}, which has not come yet" for one in trail.entries if one["at"] > now)
    if trail.torn:
        yield f"its last {len(trail.torn)} bytes are no whole entry: a crash left them, or its end was cut off"
    if not trail.entries and not trail.problems:
        yield "it has no entries"
    for head in heads:
        if not trail.holds(head):
            yield f"no entry has the head {head[:12]}…: entries up to it were changed, or cut off, and the chain was made anew"
    if state_dir is not None:
        with copied_journal(state_dir) as (journal, version):
            if not version:
                raise JournalDamaged(f"{state_dir} holds no journal: give the STATE_DIR with which this log was written")
            if trail.entries and trail.entries[0]["what"].get("owner") != owner_of(journal):
                yield f"it is not the log of {state_dir}, but of another STATE_DIR"
            for span in missing(journal.released_intervals(), trail.released):
                yield f"{span_text(span)} was released and is not told: its entry was cut off, or the next start will tell it"
            for span in missing(trail.released, journal.released_intervals()):
                yield f"{span_text(span)} is told as released, and the journal does not know it"


def main(arguments: list[str]) -> int:
    """Run the command; return the exit code."""
    make_printable(sys.stdout)
    options = _parse(arguments)
    try:
        trail = check(read_ours(options.file.resolve()))
        found = list(problems_of(trail, options.head, options.state_dir))
    except OSError as error:
        print(f"{options.file} cannot be read ({error.strerror})")
        return exit_codes.USAGE
    except StateUnavailable as error:
        print(error)
        return exit_codes.UNREACHABLE
    except JournalDamaged as error:
        print(error)
        return exit_codes.CONFIGURATION
    for one in trail.remarks:
        print(f"REMARK  {one}")
    for one in found:
        print(f"FOUND   {one}")
    print(f"{len(trail.entries)} entries, head {trail.head}")
    if not options.head and not found:
        print("The chain holds. Without --head, an end that was cut off or a chain made anew cannot be seen.")
    return exit_codes.DISAGREEMENT if found else exit_codes.DONE


def _head(text: str) -> str:
    if not re.fullmatch("[0-9a-f]{64}", text):
        raise ValueError("64 hexadecimal digits, as logged at the end of a run")
    return text


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", metavar="FILE", type=path_argument, help="the audit log, or a copy of it")
    parser.add_argument(
        "--head", metavar="HASH", type=argument(_head), action="append", default=[], help="a head kept elsewhere; may be repeated"
    )
    parser.add_argument("--state-dir", metavar="FOLDER", type=path_argument, help="compare with the releases of this STATE_DIR")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    run(main)
