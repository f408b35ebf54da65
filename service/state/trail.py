"""The audit trail: what was started, changed, released and commanded, one JSON line each, in a chain of hashes (AUDIT_LOG).

Each entry holds the hash of the one before, so that a changed, removed or inserted entry is found. Whoever can write the file can compute
the chain anew from any entry on: only a hash that is kept elsewhere, the *head*, finds that. Entries hold times, counts, names of settings
and digests, never ids or values.

The journal decides what was released. Entries follow its transactions, and what a crash kept from being written is added at the next start.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from anonymizer.errors import JournalDamaged, StateUnavailable
from anonymizer.pseudonyms import keyed_digest
from anonymizer.windows import NANOSECONDS, Window
from disk.durable_file import make_folder, open_or_create, read_ours, sync_folder, write_durably
from service.state.intervals import merged, missing
from service.state.journal import Journal
from service.time_texts import moment_text

#: The hash before the first entry.
START = "0" * 64

#: Releases are put together for so long, so that a stream does not write an entry for each window.
BETWEEN_RELEASES_S = 60

#: An entry's event.
BEGUN, STARTED, ENDED, SETTINGS, KEY, RELEASED, COMMAND = "begun", "started", "ended", "settings", "key", "released", "command"


@dataclass(frozen=True, slots=True)
class Checked:
    """What a trail tells, as far as its chain holds.

    Args:
        entries: The entries before the first problem.
        head: The hash of the last of them.
        problems: Why the chain does not hold, one sentence each; the first one ends the reading.
        remarks: What no chain decides but a reader should look at.
        torn: Bytes after the last line end, as a crash leaves them.
    """

    entries: tuple[dict[str, Any], ...]
    head: str = START
    problems: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    torn: bytes = b""

    @property
    def released(self) -> list[Window]:
        """The times whose release it tells, merged."""
        spans = (Window(start, end) for one in self.entries if one["event"] == RELEASED for start, end in one["what"]["spans_ns"])
        return merged(sorted(spans))

    def last(self, event: str) -> Mapping[str, Any]:
        """Return what the last entry of an event holds; nothing without one."""
        return next((one["what"] for one in reversed(self.entries) if one["event"] == event), {})

    def holds(self, head: str) -> bool:
        """Return whether an entry has this hash."""
        return any(one["hash"] == head for one in self.entries)


def check(content: bytes) -> Checked:
    """Check the chain in the content of a trail."""
    *lines, torn = content.split(b"\n")
    entries, head, last_at, remarks = list[dict[str, Any]](), START, "", list[str]()
    for number, line in enumerate(lines, start=1):
        entry, problem = _entry(line, number, head)
        if entry is None:
            return Checked(tuple(entries), head, (problem,), tuple(remarks))
        if entry["at"] < last_at:
            remarks.append(f"entry {number} is earlier than the one before: a clock was set back")
        entries.append(entry)
        head, last_at = entry["hash"], entry["at"]
    return Checked(tuple(entries), head, (), tuple(remarks), torn)


def _entry(line: bytes, number: int, head: str) -> tuple[dict[str, Any] | None, str]:
    """Return an entry, or None and what is wrong with it."""
    try:
        entry = json.loads(line)
        stated = entry["hash"]
        is_whole = line == trail_line({name: value for name, value in entry.items() if name != "hash"})[:-1]
        is_ours = entry["n"] == number and entry["before"] == head and isinstance(entry["at"], str) and "event" in entry
        _ = [Window(*span) for span in entry["what"].get("spans_ns", ())]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None, f"entry {number} cannot be read: it was changed by hand, or the disk damaged it"
    if not is_whole:
        return None, f"entry {number} was changed: its hash is not that of its content"
    if not is_ours:
        return None, f"entry {number} does not follow the one before: entries were removed, added or put in another order"
    assert len(stated) == len(START)
    return entry, ""


def trail_line(entry: Mapping[str, Any]) -> bytes:
    """Return an entry's line, with its hash."""
    body = json.dumps(entry, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    digest = hashlib.sha256(body.encode()).hexdigest()
    return json.dumps({**entry, "hash": digest}, separators=(",", ":"), ensure_ascii=False, sort_keys=True).encode() + b"\n"


@dataclass(slots=True)
class Trail:
    """The open trail of one STATE_DIR, which the holder of its lock writes.

    Args:
        path: The file; created, readable by its owner only, with the first entry.
        owner: A digest that names the STATE_DIR.
        now_ns: Returns the time.

    Raises:
        JournalDamaged: The chain is broken, or another STATE_DIR's.
        StateUnavailable: The disk cannot be used now.
    """

    path: Path
    owner: str
    now_ns: Callable[[], int]
    head: str = field(default=START, init=False)
    _number: int = field(default=0, init=False)
    _released: list[Window] = field(default_factory=list, init=False)
    _looked_ns: int = field(default=0, init=False)
    _told: Checked = field(default_factory=lambda: Checked(()), init=False)

    def __post_init__(self) -> None:
        """Read and check the file."""
        found = self._read()
        if found.problems:
            raise JournalDamaged(
                f"AUDIT_LOG {self.path} is damaged: {found.problems[0]}. Keep it as evidence under another name; a new trail begins then, "
                "which tells all released times again"
            )
        if found.entries and found.entries[0]["what"].get("owner") != self.owner:
            raise JournalDamaged(
                f"AUDIT_LOG {self.path} is the trail of another STATE_DIR: give each STATE_DIR a file of its own"
            )
        self.head, self._number, self._released, self._told = found.head, len(found.entries), found.released, found
        if found.torn:
            self._cut(found.torn)
        if not found.entries:
            self.add(BEGUN, {"owner": self.owner})

    def add(self, event: str, what: Mapping[str, Any]) -> None:
        """Append an entry, durably.

        Raises:
            StateUnavailable: It cannot be written now.
        """
        entry = {"n": self._number + 1, "at": moment_text(self.now_ns()), "event": event, "what": dict(what), "before": self.head}
        line = trail_line(entry)
        try:
            make_folder(self.path.parent)
            with os.fdopen(open_or_create(self.path, flags=os.O_RDWR | os.O_APPEND), "ab") as file:
                size = file.seek(0, os.SEEK_END)
                try:
                    file.write(line)
                    file.flush()
                    os.fsync(file.fileno())
                except OSError:
                    # Half a line would break the chain at the next attempt.
                    file.truncate(size)
                    raise
            if not self._number:
                sync_folder(self.path.parent)
        except OSError as error:
            raise StateUnavailable(f"AUDIT_LOG {self.path} cannot be written now ({error.strerror or error})") from None
        self._number, self.head = self._number + 1, json.loads(line)["hash"]

    def started(self, *, version: str, key_id: str, selection: str, settings: Mapping[str, str]) -> None:
        """Tell a start, and what changed since the last one."""
        self.add(STARTED, {"version": version, "key_id": key_id})
        before = dict(self._told.last(SETTINGS).get("settings", {}))
        now = {**settings, "(what is read, as a keyed digest)": selection}
        if changed := {name: text for name, text in now.items() if before.get(name) != text}:
            self.add(SETTINGS, {"settings": now, "changed": sorted(changed) if before else []})
        known = self._told.last(STARTED)
        if known and known["key_id"] != key_id:
            self.add(KEY, {"from": known["key_id"], "to": key_id})

    def follow(self, released: Sequence[Window], *, at_once: bool = False) -> None:
        """Tell releases that the trail does not know, at most once in `BETWEEN_RELEASES_S`.

        Args:
            released: All released intervals, in order.
            at_once: Whether not to wait.
        """
        if not at_once and 0 <= self.now_ns() - self._looked_ns < BETWEEN_RELEASES_S * NANOSECONDS:
            return
        if new := missing(released, self._released):
            self.add(RELEASED, {"spans_ns": [[one.start_ns, one.end_ns] for one in new], "in_words": list(_in_words(new))})
            self._released = merged(sorted([*self._released, *new]))
        self._looked_ns = self.now_ns()

    def _read(self) -> Checked:
        try:
            return check(read_ours(self.path))
        except FileNotFoundError:
            return Checked(())
        except OSError as error:
            raise StateUnavailable(f"AUDIT_LOG {self.path} cannot be read now ({error.strerror or error})") from None

    def _cut(self, torn: bytes) -> None:
        """Remove half a line that a crash left, and tell it: nothing was told by it yet."""
        try:
            os.truncate(self.path, self.path.stat().st_size - len(torn))
        except OSError as error:
            raise StateUnavailable(f"AUDIT_LOG {self.path} cannot be written now ({error.strerror or error})") from None
        self.add("repaired", {"removed_bytes": len(torn)})


def _in_words(spans: Sequence[Window]) -> Iterator[str]:
    return (f"{moment_text(one.start_ns)} to {moment_text(one.end_ns)}" for one in spans)


#: The file in STATE_DIR that says where its trail is, for commands that read no settings.
PLACE = "audit_log"


def open_trail(path: Path, folder: Path, journal: Journal, now_ns: Callable[[], int]) -> Trail:
    """Open the trail of a journal, and remember in its STATE_DIR where it is. Raises as `Trail` does."""
    owner = keyed_digest(journal.name.encode(), b"\0owner of the audit log")[:16]
    trail = Trail(path, owner, now_ns)
    place = json.dumps({"path": str(path.absolute()), "owner": owner}).encode()
    try:
        if not (folder / PLACE).exists() or read_ours(folder / PLACE) != place:
            write_durably(folder / PLACE, place)
    except OSError as error:
        raise StateUnavailable(f"{folder / PLACE} cannot be written now ({error.strerror or error})") from None
    return trail


def trail_of(folder: Path, now_ns: Callable[[], int]) -> Trail | None:
    """Return the trail that a STATE_DIR last had; None if it never had one. Raises as `Trail` does."""
    try:
        place = json.loads(read_ours(folder / PLACE))
        return Trail(Path(place["path"]), str(place["owner"]), now_ns)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StateUnavailable(f"{folder / PLACE} cannot be read now ({error.strerror or error})") from None
    except (ValueError, KeyError, TypeError):
        raise JournalDamaged(f"{folder / PLACE} is damaged: remove it; the service writes it anew at its next start") from None
