"""Check ledgers against the schema of heartbeat entries, and name every bad line with its problem."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

# When run as a command, only this folder is on the path; `anonymizer` is in the project's folder.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from scripts.heartbeat.command import DONE, INVALID, Arguments, counted, name_of, report, run, warn
from scripts.heartbeat.entries import checked
from scripts.heartbeat.ledger import LEDGER_NAME, read_ledger

DESCRIPTION = """Check each line of one or more ledgers. Problems go to standard error, one per line: FILE:LINE: FIELD: PROBLEM.
The schema is scripts/heartbeat/heartbeat.schema.json; it is the same before and after pseudonyms: both are text."""

EXAMPLES = """  python scripts/validate_heart.py
  python scripts/validate_heart.py january.jsonl february.jsonl
  python scripts/validate_heart.py - < heart_ledger.jsonl"""


def main(arguments: Sequence[str]) -> int:
    """Run the command."""
    parser = Arguments(DESCRIPTION, EXAMPLES)
    parser.add_argument(
        "ledgers", nargs="*", default=[LEDGER_NAME], metavar="ledger", help=f"- is standard input (default: {LEDGER_NAME})"
    )
    # A list, not a generator: every ledger is checked, even after an invalid one.
    valid = [is_valid(path) for path in parser.read(arguments).ledgers]
    return DONE if all(valid) else INVALID


def is_valid(path: str) -> bool:
    """Check one ledger, report each bad line, and return whether all are valid."""
    entries = invalid = 0
    for entry in checked(read_ledger(path)):
        entries += 1
        invalid += bool(entry.problems)
        for problem in entry.problems:
            warn(f"{entry.place}: {problem}")
    report(f"{name_of(path)}: {counted(entries)}, {f'{invalid} invalid' if invalid else 'all valid'}")
    return not invalid


if __name__ == "__main__":
    sys.exit(run(main))
