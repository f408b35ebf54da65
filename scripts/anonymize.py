"""Replace fields of a dictionary by their keyed digest: the function that the heartbeat commands share, and a command of its own.

A digest is a pseudonym: without a salt made by chance it cannot be traced back; with the salt, that of any value can be computed and
compared. The same value and salt give the same digest, so entries of one source stay together. What is left stays personal data.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

# Run as a command, only this folder is on the path: the project's folder holds `anonymizer`.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from anonymizer.pseudonyms import keyed_digest, stretched
from scripts.heartbeat.command import DONE, Arguments, field_names, name_of, read_input, run, warn, write_result
from scripts.heartbeat.entries import only_objects, trusted
from scripts.heartbeat.json_lines import encode, read_entries
from scripts.heartbeat.salt import SALT_HELP, add_salt_argument, ask_on_terminal, find_salt, warn_of_doubts

DESCRIPTION = f"""Replace fields of JSON objects by their HMAC-SHA256 and write them as JSON Lines to standard output.
Takes any JSON objects; `ingest_heartbeat.py --anonymize` checks them and keeps a ledger.

{SALT_HELP}"""

EXAMPLES = """  python scripts/anonymize.py entries.jsonl > pseudonymized.jsonl
  echo '{"source_id": "wearable-07"}' | python scripts/anonymize.py    (which pseudonym has this source?)"""


def anonymize_data(data: Mapping[str, Any], salt: str | bytes, fields_to_anonymize: Iterable[str]) -> dict[str, Any]:
    """Return a copy of `data` in which each named field that is present is its HMAC-SHA256 under `salt`, in hexadecimal.

    A string is hashed as UTF-8, anything else (None too) as its compact JSON text with sorted keys, in UTF-8. So the number 1 and the
    string "1" have the same digest. Missing fields stay missing; the others are copied shallowly.

    Args:
        data: A dictionary. It is not changed.
        salt: The secret key, as bytes or as text (UTF-8). It is used as it is: the commands refuse weak ones and stretch
            passphrases, this function does neither.
        fields_to_anonymize: Names of fields.

    Raises:
        ValueError: The salt is empty, or a value has no JSON or UTF-8 text (NaN, half of a surrogate pair).
        TypeError: The salt is neither text nor bytes, a value has no JSON form, or the names are one string instead of a list of names.
    """
    key = _key(salt)
    if isinstance(fields_to_anonymize, str):
        raise TypeError("fields_to_anonymize must be a list of names, got one string")
    present = [field for field in fields_to_anonymize if field in data]
    return {**data, **{field: keyed_digest(key, _message(data[field])) for field in present}}


def absent_from_all(entries: Sequence[Mapping[str, Any]], fields: Iterable[str]) -> list[str]:
    """Return the fields that no entry has: most likely a name is misspelled, and the value it should have hidden is still readable."""
    return [field for field in fields if entries and not any(field in entry for entry in entries)]


def warn_of_absent(entries: Sequence[Mapping[str, Any]], fields: Iterable[str]) -> None:
    """Warn about fields that no entry has."""
    for field in absent_from_all(entries, fields):
        warn(f"warning: no entry has the field {field!r}, so nothing was replaced there; is the name right?")


def _key(salt: str | bytes) -> bytes:
    if not isinstance(salt, str | bytes):
        raise TypeError(f"salt must be str or bytes, got {type(salt).__name__}")
    if not salt:
        raise ValueError("salt must not be empty")
    return salt.encode() if isinstance(salt, str) else salt


def _message(value: Any) -> bytes:
    """Return the bytes that are hashed for a value."""
    if isinstance(value, str):
        return value.encode()
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def main(arguments: Sequence[str]) -> int:
    """Run the command."""
    parser = Arguments(DESCRIPTION, EXAMPLES)
    parser.add_input_file()
    parser.add_argument(
        "--fields", type=field_names, default=("source_id",), metavar="A,B", help="what to replace (default: source_id)"
    )
    add_salt_argument(parser)
    asked = parser.read(arguments)
    salt = find_salt(asked.env_file, environment=os.environ, ask=ask_on_terminal, warn=warn)
    entries = list(trusted(only_objects(read_entries(read_input(asked.file), name=name_of(asked.file)))))
    warn_of_doubts(salt, warn=warn)
    warn_of_absent(entries, asked.fields)
    key = stretched(salt)
    for entry in entries:
        write_result(encode(anonymize_data(entry, key, asked.fields)).decode() + "\n")
    return DONE


if __name__ == "__main__":
    sys.exit(run(main))
