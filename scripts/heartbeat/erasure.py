"""Erases one source's entries from a ledger: the rest is written anew beside it, synced, and renamed, while no command writes."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Collection
from pathlib import Path

from anonymizer.errors import ConfigurationError, StateUnavailable
from anonymizer.pseudonyms import keyed_digest
from disk.durable_file import PRIVATE, mode_of, open_ours, write_durably
from scripts.heartbeat.json_lines import BadJson, decode
from scripts.heartbeat.ledger import LOCK_WAIT_S, locked

#: What a hashed id looks like.
_HASHED = re.compile("[0-9a-f]{64}")


def erase_from_ledger(
    path: Path, is_named_by: Callable[[str], bool], ids: Collection[str], salt: bytes | None, *, is_dry: bool
) -> int:
    """Erase the entries whose `source_id` is the source's, plain or hashed under the salt; return how many.

    Args:
        path: The ledger.
        is_named_by: Whether an id or pseudonym is the source's.
        ids: Its id as it may have been written, to be hashed; empty: only its pseudonym is known.
        salt: Of the ledger; None: it is not known.
        is_dry: Whether to change nothing.

    Raises:
        ConfigurationError: There is no such ledger, a line cannot be understood, or entries are hashed and the salt is not known.
        StateUnavailable: It cannot be written now.
    """
    hashed = {keyed_digest(salt, one.encode()) for one in ids} if salt is not None else set()
    try:
        with io.FileIO(open_ours(path), "r+b") as ledger, locked(ledger, path, exclusive=True, wait_s=LOCK_WAIT_S):
            lines = ledger.readall().splitlines(keepends=True)
            sources = [_source_of(line, f"{path} line {number}") for number, line in enumerate(lines, start=1)]
            if salt is None and any(_HASHED.fullmatch(one) for one in sources) and ids:
                raise ConfigurationError(
                    f"{path} holds hashed ids: set HEART_SALT or HEART_SALT_FILE, under which they were hashed, so that the source is "
                    "recognised among them"
                )
            kept = [line for line, one in zip(lines, sources, strict=True) if not (one and (one in hashed or is_named_by(one)))]
            if len(kept) < len(lines) and not is_dry:
                write_durably(path, b"".join(kept), mode=mode_of(path, otherwise=PRIVATE))
            return len(lines) - len(kept)
    except FileNotFoundError:
        raise ConfigurationError(f"there is no ledger {path}: name it with --ledger") from None
    except OSError as error:
        raise StateUnavailable(f"the ledger {path} cannot be used now ({error.strerror or error}); run it again") from None


def _source_of(line: bytes, place: str) -> str:
    if not line.strip():
        return ""
    try:
        entry = decode(line.decode())
    except (UnicodeDecodeError, BadJson):
        entry = None
    if not isinstance(entry, dict):
        raise ConfigurationError(
            f"{place} is not an entry, so that nobody can say whose it is: fix or remove it, and run this again"
        )
    source = entry.get("source_id", "")
    return source if isinstance(source, str) else ""
