"""Append heartbeat entries to the ledger: as they are, or with `--anonymize` under pseudonyms. All or none."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# Run as a command, only this folder is on the path: the project's folder holds `anonymizer`.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from anonymizer.pseudonyms import Pseudonymizer, stretched
from scripts.anonymize import anonymize_data, warn_of_absent
from scripts.heartbeat.command import (
    DONE,
    Arguments,
    UsageError,
    counted,
    field_names,
    ignore_ctrl_c,
    name_of,
    read_input,
    report,
    run,
    warn,
)
from scripts.heartbeat.entries import can_be_replaced, checked, trusted
from scripts.heartbeat.json_lines import encode, read_entries
from scripts.heartbeat.ledger import LEDGER_NAME, append, is_same_file
from scripts.heartbeat.salt import SALT_HELP, add_salt_argument, ask_on_terminal, find_salt, warn_of_doubts
from service.settings.arguments import path_argument

SOURCE_FIELD = "source_id"

DESCRIPTION = f"""Check heartbeat entries and append them to {LEDGER_NAME}: all of them, or none.
With --anonymize, {SOURCE_FIELD} is replaced by its HMAC-SHA256 under the salt before anything is written: a pseudonym. The ledger stays
personal data; times, metrics and notes are written as they are.

{SALT_HELP}"""

EXAMPLES = """  python scripts/ingest_heartbeat.py entries.jsonl
  export HEART_SALT_FILE=heart_salt
  some_program | python scripts/ingest_heartbeat.py --anonymize
  python scripts/ingest_heartbeat.py entries.json --anonymize --fields source_id,notes --ledger shared.jsonl"""


def main(arguments: Sequence[str]) -> int:
    """Run the command."""
    asked = _read_arguments(arguments)
    # The prompt comes before the entries are read: both may come from the same terminal.
    salt = find_salt(asked.env_file, environment=os.environ, ask=ask_on_terminal, warn=warn) if asked.anonymize else None
    entries = list(trusted(checked(read_entries(read_input(asked.file), name=name_of(asked.file)))))
    if salt is not None:
        warn_of_doubts(salt, warn=warn)
        salt = stretched(salt)
        entries = _pseudonymized(entries, salt, asked.fields)
    if entries:
        append(asked.ledger, b"".join(encode(entry) + b"\n" for entry in entries), when_safe=ignore_ctrl_c)
    report(f"{counted(len(entries))} appended to {asked.ledger}, {_how(salt, asked.fields)}")
    return DONE


def _read_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    parser = Arguments(DESCRIPTION, EXAMPLES)
    parser.add_input_file()
    parser.add_argument("--anonymize", action="store_true", help=f"replace {SOURCE_FIELD} by a pseudonym")
    parser.add_argument(
        "--fields", type=field_names, metavar="A,B", help=f"with --anonymize: replace these instead of {SOURCE_FIELD}"
    )
    parser.add_argument(
        "--ledger", type=path_argument, default=Path(LEDGER_NAME), metavar="PATH", help=f"default: {LEDGER_NAME} in this folder"
    )
    add_salt_argument(parser)
    asked = parser.read(arguments)
    _refuse_contradictions(asked)
    asked.fields = asked.fields or (SOURCE_FIELD,)
    return asked


def _refuse_contradictions(asked: argparse.Namespace) -> None:
    """Raise UsageError for arguments that contradict each other."""
    if not asked.anonymize and (asked.fields or asked.env_file):
        raise UsageError("--fields and --env-file do nothing without --anonymize; add it, or leave them out")
    unfit = [field for field in asked.fields or () if not can_be_replaced(field)]
    if unfit:
        raise UsageError(f"--fields cannot name {', '.join(unfit)}: the ledger would no longer be valid with a digest there")
    if is_same_file(asked.file, asked.ledger):
        raise UsageError(f"{name_of(asked.file)} is the ledger itself; name another with --ledger")
    if asked.fields and SOURCE_FIELD not in asked.fields:
        warn(f"warning: --fields does not name {SOURCE_FIELD}, so it is written as it is")


def _pseudonymized(entries: Sequence[dict[str, Any]], salt: bytes, fields: Sequence[str]) -> list[dict[str, Any]]:
    warn_of_absent(entries, fields)
    return [anonymize_data(entry, salt, fields) for entry in entries]


def _how(salt: bytes | None, fields: Sequence[str]) -> str:
    """Describe how entries were written. The salt's id shows whether it is the usual salt or a mistyped one."""
    return "as they are" if salt is None else f"{', '.join(fields)} replaced under the salt with id {Pseudonymizer(salt).key_id}"


if __name__ == "__main__":
    sys.exit(run(main))
