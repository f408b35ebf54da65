"""The audit trail: what was started, changed, released and commanded, one JSON line each, in a chain of hashes (AUDIT_LOG).

Each entry holds the hash of the one before, so that a changed, removed or inserted entry is found. Whoever can write the file can compute
the chain anew from any entry on: only a hash that is kept elsewhere, the *head*, finds that. Entries hold times, counts, names of settings
and digests, never ids or values.

The journal decides what was released. Entries follow its transactions, and what a crash kept from being written is added at the next start.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from anonymizer.errors import JournalDamaged, StateUnavailable
from anonymizer.pseudonyms import keyed_digest
from anonymizer.windows import NANOSECONDS, Window
from disk.durable_file import make_folder, open_or_create, read_ours, sync_folder, write_durably
from disk.file_lock import NO_LOCKS, try_to_lock
from service.state.intervals import merged, missing
from service.state.journal import Journal
from service.time_texts import moment_text

#: The hash before the first entry.
START = "0" * 64

#: How each line begins.
_LINE_BEGINS = b'{"at":"'

#: An entry takes milliseconds to write: whoever keeps the file longer hangs.
_LOCK_ATTEMPTS = 40
_BETWEEN_ATTEMPTS_S = 0.05

#: Releases are put together for so long, so that a stream does not write an entry for each window.
BETWEEN_RELEASES_S = 60

#: What Linux says where nobody logged in.
_NO_LOGIN = 2**32 - 1

#: An entry's event.
BEGUN, STARTED, ENDED, SETTINGS, KEY, RELEASED, COMMAND = "begun", "started", "ended", "settings", "key", "released", "command"
REMOVED = "removed"


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


def check(content: bytes, *, head: str = START, entries_before: int = 0) -> Checked:
    """Check the chain in the content of a trail, or in what follows an entry of it.

    Args:
        content: The trail, or what follows.
        head: The hash of the entry before.
        entries_before: How many entries come before.
    """
    *lines, torn = content.split(b"\n")
    entries, last_at, remarks = list[dict[str, Any]](), "", list[str]()
    for number, line in enumerate(lines, start=1 + entries_before):
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
    if (entry["event"] == BEGUN) != (number == 1):
        return None, f"entry {number} is {'no beginning' if number == 1 else 'the beginning of another trail'}"
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
        JournalDamaged: The chain is broken, or another STATE_DIR's, or the file is no trail.
        StateUnavailable: The disk cannot be used now.
    """

    path: Path
    owner: str
    now_ns: Callable[[], int]
    head: str = field(default=START, init=False)
    _number: int = field(default=0, init=False)
    _size: int = field(default=0, init=False)
    _released: list[Window] = field(default_factory=list, init=False)
    _looked_ns: int = field(default=0, init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)
    _told: Checked = field(default_factory=lambda: Checked(()), init=False)

    def __post_init__(self) -> None:
        """Read and check the file."""
        with self._alone() as file:
            content = file.read()
            if not _is_a_trail(content):
                raise JournalDamaged(
                    f"AUDIT_LOG {self.path} holds something else than an audit log, and was not changed: name a file of its own; if it was "
                    "the audit log, keep it as evidence under another name"
                )
            found = self._told = check(content)
            if found.problems:
                raise JournalDamaged(
                    f"AUDIT_LOG {self.path} is damaged: {found.problems[0]}. Keep it as evidence under another name; a new trail begins "
                    "then, which tells all released times again"
                )
            if found.entries and found.entries[0]["what"].get("owner") != self.owner:
                raise JournalDamaged(
                    f"AUDIT_LOG {self.path} is the trail of another STATE_DIR: give each STATE_DIR a file of its own"
                )
            self._released = found.released
            if not found.entries:
                file.truncate(0)
                self._append(file, BEGUN, {"owner": self.owner})
            else:
                self._go_on(file, found)

    def add(self, event: str, what: Mapping[str, Any]) -> None:
        """Append an entry, durably, after those that another process has added since.

        Raises:
            StateUnavailable: It cannot be written now.
        """
        # Old files are removed by a thread of their own.
        with self._lock, self._alone() as file:
            if file.seek(0, os.SEEK_END) > self._size:
                file.seek(self._size)
                more = check(file.read(), head=self.head, entries_before=self._number)
                # What is no entry of ours stays: the next check finds it.
                if not more.problems:
                    self._go_on(file, more)
            self._append(file, event, what)

    def _go_on(self, file: BinaryIO, found: Checked) -> None:
        """Go on after entries that were read. Half a line, which a crash left, is removed, and that told: nothing was told by it yet."""
        self.head, self._number = found.head, self._number + len(found.entries)
        self._size = file.seek(0, os.SEEK_END) - len(found.torn)
        if found.torn:
            file.truncate(self._size)
            self._append(file, "repaired", {"removed_bytes": len(found.torn)})

    def _append(self, file: BinaryIO, event: str, what: Mapping[str, Any]) -> None:
        entry = {"n": self._number + 1, "at": moment_text(self.now_ns()), "event": event, "what": dict(what), "before": self.head}
        line = trail_line(entry)
        size = file.seek(0, os.SEEK_END)
        try:
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
        except OSError:
            # Half a line would break the chain at the next attempt.
            file.truncate(size)
            raise
        self._number, self.head, self._size = self._number + 1, json.loads(line)["hash"], size + len(line)

    @contextmanager
    def _alone(self) -> Iterator[BinaryIO]:
        """Yield the open file, which no other process appends to meanwhile."""
        try:
            make_folder(self.path.parent)
            with os.fdopen(open_or_create(self.path, flags=os.O_RDWR | os.O_APPEND), "r+b") as file:
                _wait_until_free(file.fileno())
                yield file
            if self._number == 1:
                sync_folder(self.path.parent)
        except OSError as error:
            raise StateUnavailable(f"AUDIT_LOG {self.path} cannot be written now ({error.strerror or error})") from None

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


def _is_a_trail(content: bytes) -> bool:
    """Return whether a line is an entry, or all is the half of one that a crash leaves; any other file was named by mistake."""
    return _LINE_BEGINS.startswith(content) or any(line.startswith(_LINE_BEGINS) for line in content.split(b"\n"))


def _wait_until_free(descriptor: int) -> None:
    """Lock an open trail; a file system without locks has one writer at a time or none to tell.

    Raises:
        OSError: Another process keeps it locked.
    """
    for _ in range(_LOCK_ATTEMPTS):
        try:
            if try_to_lock(descriptor):
                return
        except OSError as error:
            if error.errno in NO_LOCKS:
                return
            raise
        time.sleep(_BETWEEN_ATTEMPTS_S)
    raise BlockingIOError(errno.EAGAIN, "another process keeps it locked")


def _in_words(spans: Sequence[Window]) -> Iterator[str]:
    return (f"{moment_text(one.start_ns)} to {moment_text(one.end_ns)}" for one in spans)


#: The file in STATE_DIR that says where its trail is, for commands that read no settings.
PLACE = "audit_log"


def owner_of(journal: Journal) -> str:
    """Return the digest that names a STATE_DIR in its trail."""
    return keyed_digest(journal.facts.name.encode(), b"\0owner of the audit log")[:16]


def open_trail(path: Path, folder: Path, journal: Journal, now_ns: Callable[[], int]) -> Trail:
    """Open the trail of a journal, and remember in its STATE_DIR where it is. Raises as `Trail` does."""
    owner = owner_of(journal)
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


def told(folder: Path, command: str, now_ns: Callable[[], int], do: Callable[[], int]) -> int:
    """Carry out an operator's command; the trail of a STATE_DIR, if it has one, tells it before and after. The service may be running.

    Args:
        folder: The STATE_DIR.
        command: Its name; never what was given to it, which may name a person.
        now_ns: Returns the time.
        do: The command; returns its exit code.

    Raises:
        JournalDamaged: The trail is damaged: the command was not begun.
        StateUnavailable: The trail cannot be written: if that was so before the command, it was not begun.
    """
    trail = trail_of(folder, now_ns)
    if trail is None:
        return do()
    trail.add(COMMAND, {"command": command, "state": "begun", **_user()})
    ended: dict[str, Any] = {"command": command, "state": "ended"}
    try:
        code = do()
    except Exception as error:
        trail.add(COMMAND, {**ended, "failed": type(error).__name__})
        raise
    trail.add(COMMAND, {**ended, "code": code})
    return code


def _user() -> dict[str, int]:
    """Return who runs this process, as numbers: the user, and on Linux the one who logged in, whom `sudo` does not change."""
    found = {"uid": os.getuid()} if hasattr(os, "getuid") else {}
    with suppress(OSError, ValueError):
        login = int(Path("/proc/self/loginuid").read_text(encoding="ascii"))
        if login != _NO_LOGIN:
            found["login_uid"] = login
    return found
