"""The journal: which intervals of time were released, under which promise, and which output has taken what.

One SQLite file. Each transaction is on the disk before the call returns (WAL, synchronous=FULL): what the journal says was released stays
released, whatever crashes next. Beside it lies the fence, a small file of its own with every released interval: a journal that knows less
than its fence is an old copy, and working with it would release windows twice.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sqlite3
import threading
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from anonymizer.batch import Promise, WindowCounts
from anonymizer.errors import JournalDamaged
from anonymizer.ports import Receipt
from anonymizer.windows import Window, WindowRange
from service.spool import write_durably

#: Another number means another form; see `_open`.
_FORM = 1

_TABLES = """
CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
CREATE TABLE epochs (
    epoch INTEGER PRIMARY KEY, began_ns INTEGER NOT NULL, window_ns INTEGER NOT NULL, promise TEXT NOT NULL
) STRICT;
CREATE TABLE intervals (
    start_ns INTEGER PRIMARY KEY, end_ns INTEGER NOT NULL, chunk INTEGER NOT NULL, epoch INTEGER NOT NULL, released_ns INTEGER NOT NULL,
    read INTEGER NOT NULL, released INTEGER NOT NULL, withheld INTEGER NOT NULL, invalid INTEGER NOT NULL, duplicate INTEGER NOT NULL,
    starred INTEGER NOT NULL, suppressed INTEGER NOT NULL
) STRICT;
CREATE TABLE chunks (chunk INTEGER PRIMARY KEY AUTOINCREMENT, bytes INTEGER NOT NULL, rows INTEGER NOT NULL) STRICT;
CREATE TABLE outputs (
    name TEXT PRIMARY KEY, position INTEGER NOT NULL, taken INTEGER NOT NULL DEFAULT 0, set_aside INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE TABLE receipts (
    output TEXT NOT NULL, key TEXT NOT NULL, receipt TEXT NOT NULL, PRIMARY KEY (output, key)
) STRICT;
CREATE TABLE positions (stream TEXT PRIMARY KEY, position_ns INTEGER NOT NULL) STRICT;
"""

_STREAM = "streaming"

#: How long another process, such as `scripts/state.py`, may hold the file.
_BUSY_S = 10.0

#: The last chunk that every output has taken; all chunks where there is no output.
_SLOWEST = "(SELECT coalesce(min(position), 9223372036854775807) FROM outputs)"

#: What a person can do whose journal is of no use. The fence, or the backup, knows what must not be released again.
_WAY_ON = (
    "Put a good copy of the journal in its place; or move it away and run: scripts/state.py accept-gap, "
    "which marks everything the fence knows as released, so that none of it is released twice"
)


@dataclass(frozen=True, slots=True)
class Release:
    """One released window, as the journal remembers it."""

    window: Window
    counts: WindowCounts


@dataclass(frozen=True, slots=True)
class Released:
    """A stretch of time that was released, and under which promise; None when it was only accepted as a gap."""

    interval: Window
    promise: Promise | None


@dataclass(frozen=True, slots=True)
class Standing:
    """How far an output is: the last chunk it has taken, and rows by fate."""

    name: str
    position: int
    taken: int
    set_aside: int
    pending: int


class Journal:
    """The memory of one data set. Safe to use from several threads.

    Args:
        folder: STATE_DIR; made when it is not there.
        data_set: Whose memory it is; None for a tool that takes it as it is.
        accepting_gap: Mark everything the fence knows and the journal does not as released, so that it never will be.

    Raises:
        JournalDamaged: It cannot be read, is older than its fence, or belongs to another data set. The message says what to do.
    """

    def __init__(self, folder: Path, *, data_set: str | None, accepting_gap: bool = False) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._lock = threading.RLock()
        self._fence_path = folder / "fence"
        self._path = folder / "journal.sqlite"
        try:
            self._db = self._connect()
            self._check(data_set)
            self._known = self._read_intervals()
        except sqlite3.DatabaseError as error:
            raise JournalDamaged(f"{self._path} cannot be used ({error}). {_WAY_ON}") from None
        if accepting_gap:
            self.accept_gap()
        self._check_fence()

    def close(self) -> None:
        """Let go of the file."""
        with self._lock:
            self._db.close()

    # What was released

    def released_within(self, windows: WindowRange) -> list[Released]:
        """Return every released interval that overlaps the windows, in order."""
        rows = self._rows(
            "SELECT i.start_ns, i.end_ns, e.promise FROM intervals i LEFT JOIN epochs e ON e.epoch = i.epoch "
            "WHERE i.start_ns < :end AND i.start_ns >= coalesce((SELECT max(start_ns) FROM intervals WHERE start_ns <= :start), :start) "
            "AND i.end_ns > :start ORDER BY i.start_ns",
            {"start": windows.start_ns, "end": windows.end_ns},
        )
        return [Released(Window(start, end), Promise(**json.loads(promise)) if promise else None) for start, end, promise in rows]

    def record_release(
        self, releases: Sequence[Release], *, chunk: int, size_bytes: int, now_ns: int, stream_to_ns: int | None
    ) -> None:
        """Fix for ever that these windows were released. Afterwards they may be offered to outputs, and not before.

        Args:
            releases: The windows and their counts.
            chunk: The number their batches are spooled under.
            size_bytes: The size of the spool file.
            now_ns: When.
            stream_to_ns: Where the stream now is; None when a one-shot run releases.
        """
        rows = sum(release.counts.released for release in releases)
        with self._transaction() as db:
            db.execute("INSERT INTO chunks (chunk, bytes, rows) VALUES (?, ?, ?)", (chunk, size_bytes, rows))
            db.executemany(
                "INSERT INTO intervals VALUES (?, ?, ?, (SELECT max(epoch) FROM epochs), ?, ?, ?, ?, ?, ?, ?, ?)",
                ((one.window.start_ns, one.window.end_ns, chunk, now_ns, *dataclasses.astuple(one.counts)) for one in releases),
            )
            if stream_to_ns is not None:
                db.execute("INSERT OR REPLACE INTO positions VALUES (?, ?)", (_STREAM, stream_to_ns))
        self._raise_fence([release.window for release in releases])

    def next_chunk(self) -> int:
        """Return the number for the next chunk: higher than any that was ever released."""
        return int(self._value("SELECT coalesce(max(seq), 0) + 1 FROM sqlite_sequence WHERE name = 'chunks'"))

    # Where the stream is

    def stream_position_ns(self) -> int | None:
        """Return where the stream goes on; None when there never was one."""
        position_ns: int | None = self._value("SELECT position_ns FROM positions WHERE stream = ?", _STREAM)
        return position_ns

    def move_stream(self, position_ns: int) -> None:
        """Remember that the stream has passed windows of which nothing was released. They stay open for a one-shot run."""
        with self._transaction() as db:
            db.execute("INSERT OR REPLACE INTO positions VALUES (?, ?)", (_STREAM, position_ns))

    # Promises

    def last_promise(self) -> tuple[Promise, int] | None:
        """Return promise and window length in nanoseconds of the newest epoch; None before the first."""
        rows = self._rows("SELECT promise, window_ns FROM epochs ORDER BY epoch DESC LIMIT 1")
        return (Promise(**json.loads(rows[0][0])), rows[0][1]) if rows else None

    def begin_epoch(self, promise: Promise, *, window_ns: int, now_ns: int) -> None:
        """Remember what is promised of every window released from now on."""
        with self._transaction() as db:
            described = json.dumps(dataclasses.asdict(promise))
            db.execute("INSERT INTO epochs (began_ns, window_ns, promise) VALUES (?, ?, ?)", (now_ns, window_ns, described))

    # Outputs

    def standings(self) -> list[Standing]:
        """Return how far each output is. For each: all rows released since it came = taken + set aside + pending."""
        rows = self._rows(
            "SELECT o.name, o.position, o.taken, o.set_aside, "
            "coalesce((SELECT sum(c.rows) FROM chunks c WHERE c.chunk > o.position), 0) FROM outputs o ORDER BY o.name"
        )
        return [Standing(*row) for row in rows]

    def add_output(self, name: str) -> None:
        """Let an output begin with the next release; nothing changes for one that is known."""
        with self._transaction() as db:
            db.execute("INSERT OR IGNORE INTO outputs (name, position) VALUES (?, ?)", (name, self.next_chunk() - 1))

    def drop_output(self, name: str) -> None:
        """Forget an output, and what is pending for it."""
        with self._transaction() as db:
            db.execute("DELETE FROM outputs WHERE name = ?", (name,))
            db.execute("DELETE FROM receipts WHERE output = ?", (name,))

    def pending_for(self, name: str) -> list[int]:
        """Return the chunks an output has not yet taken, in order."""
        query = "SELECT chunk FROM chunks WHERE chunk > (SELECT position FROM outputs WHERE name = ?) ORDER BY chunk"
        return [chunk for (chunk,) in self._rows(query, name)]

    def receipts(self, name: str) -> dict[str, Receipt]:
        """Return an output's receipts by their key."""
        return {
            key: json.loads(receipt) for key, receipt in self._rows("SELECT key, receipt FROM receipts WHERE output = ?", name)
        }

    def record_receipt(self, name: str, receipt: Receipt) -> None:
        """Remember something for an output before it writes."""
        with self._transaction() as db:
            self._put_receipts(db, name, [receipt])

    def record_taken(self, name: str, *, chunk: int, receipts: Iterable[Receipt], taken: int, set_aside: int) -> None:
        """Remember that an output has a chunk, with what it must remember of it."""
        with self._transaction() as db:
            self._put_receipts(db, name, receipts)
            db.execute(
                "UPDATE outputs SET position = ?, taken = taken + ?, set_aside = set_aside + ? WHERE name = ?",
                (chunk, taken, set_aside, name),
            )

    def forget_chunks_all_have(self) -> list[int]:
        """Return the chunks that every output has taken, and forget them: their spool files are no longer needed."""
        with self._transaction() as db:
            done = [chunk for (chunk,) in db.execute(f"SELECT chunk FROM chunks WHERE chunk <= {_SLOWEST}")]  # noqa: S608  (a constant)
            db.execute(f"DELETE FROM chunks WHERE chunk <= {_SLOWEST}")  # noqa: S608
        return done

    def spooled(self) -> dict[int, int]:
        """Return the size in bytes of each chunk that some output has not yet taken."""
        return dict(self._rows("SELECT chunk, bytes FROM chunks"))

    def released_intervals(self) -> list[Window]:
        """Return every released stretch of time, neighbours made one, in order."""
        return list(self._known)

    def totals(self) -> WindowCounts:
        """Return the sums over everything that was released."""
        columns = ", ".join(f"coalesce(sum({field.name}), 0)" for field in dataclasses.fields(WindowCounts))
        return WindowCounts(*self._rows(f"SELECT {columns} FROM intervals")[0])  # noqa: S608  (names of our own fields)

    def accept_gap(self) -> int:
        """Mark everything the fence knows and the journal does not as released, so that it never will be; return how many stretches."""
        unknown = _missing(_read_fence(self._fence_path), self._known)
        with self._transaction() as db:
            db.executemany(
                "INSERT INTO intervals VALUES (?, ?, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)",
                ((gap.start_ns, gap.end_ns) for gap in unknown),
            )
        self._raise_fence(unknown)
        return len(unknown)

    def _connect(self) -> sqlite3.Connection:
        is_new = not self._path.exists()
        # Created here, so that from its first byte on only the owner can read it.
        os.close(os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600))
        db = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False, timeout=_BUSY_S)
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        if is_new:
            db.executescript(f"BEGIN; {_TABLES} PRAGMA user_version = {_FORM}; COMMIT;")
        return db

    def _check(self, data_set: str | None) -> None:
        form = int(self._value("PRAGMA user_version"))
        if form != _FORM:
            raise JournalDamaged(f"{self._path} has form {form}, this version knows form {_FORM}. {_WAY_ON}")
        verdict = self._value("PRAGMA quick_check(1)")
        if verdict != "ok":
            raise JournalDamaged(f"{self._path} is damaged ({verdict}). {_WAY_ON}")
        known = self._value("SELECT value FROM facts WHERE name = 'data_set'")
        if data_set is None:
            return
        if known is None:
            with self._transaction() as db:
                db.execute("INSERT INTO facts VALUES ('data_set', ?), ('journal', ?)", (data_set, uuid.uuid4().hex))
        elif known != data_set:
            raise JournalDamaged(
                f"{self._path} belongs to another data set ({known}, this one is {data_set}): another server, bucket, measurement, field "
                "or file. Give each data set a STATE_DIR of its own"
            )

    def _check_fence(self) -> None:
        """See that we know everything the fence knows; a fence that is missing or behind, as after a crash, is brought up to date."""
        unknown = _missing(_read_fence(self._fence_path), self._known)
        if unknown:
            self.close()
            raise JournalDamaged(
                f"{self._path} is older than {self._fence_path}: it does not know of {len(unknown)} stretches of time that were released. "
                f"{_WAY_ON}"
            )
        self._raise_fence()

    def _raise_fence(self, added: Sequence[Window] = ()) -> None:
        self._known = _merged(sorted([*self._known, *added]))
        intervals = [[interval.start_ns, interval.end_ns] for interval in self._known]
        write_durably(self._fence_path, json.dumps({"form": _FORM, "intervals": intervals}).encode())

    def _read_intervals(self) -> list[Window]:
        return _merged(Window(*row) for row in self._rows("SELECT start_ns, end_ns FROM intervals ORDER BY start_ns"))

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    def _rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        with self._lock:
            parameters = values[0] if values and isinstance(values[0], dict) else values
            return self._db.execute(query, parameters).fetchall()

    def _value(self, query: str, *values: Any) -> Any:
        rows = self._rows(query, *values)
        return rows[0][0] if rows else None

    def _put_receipts(self, db: sqlite3.Connection, name: str, receipts: Iterable[Receipt]) -> None:
        rows = [(name, str(receipt.get("key", "")), json.dumps(dict(receipt))) for receipt in receipts]
        db.executemany("INSERT OR REPLACE INTO receipts VALUES (?, ?, ?)", rows)


def _merged(intervals: Iterable[Window]) -> list[Window]:
    """Return ascending intervals with neighbours made one."""
    merged: list[Window] = []
    for interval in intervals:
        if merged and interval.start_ns <= merged[-1].end_ns:
            merged[-1] = Window(merged[-1].start_ns, max(interval.end_ns, merged[-1].end_ns))
        else:
            merged.append(interval)
    return merged


def _missing(wanted: Sequence[Window], known: Sequence[Window]) -> list[Window]:
    """Return the parts of the ascending intervals `wanted` that lie in none of `known`."""
    missing = []
    for interval in wanted:
        start_ns = interval.start_ns
        for other in known:
            if other.end_ns > start_ns and other.start_ns < interval.end_ns:
                if other.start_ns > start_ns:
                    missing.append(Window(start_ns, other.start_ns))
                start_ns = other.end_ns
        if start_ns < interval.end_ns:
            missing.append(Window(start_ns, interval.end_ns))
    return missing


def _read_fence(path: Path) -> list[Window]:
    """Return the intervals the fence holds; none when there is no fence yet.

    Raises:
        JournalDamaged: It cannot be read.
    """
    try:
        return [Window(start_ns, end_ns) for start_ns, end_ns in json.loads(path.read_bytes())["intervals"]]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise JournalDamaged(f"{path} cannot be read ({type(error).__name__}). {_WAY_ON}") from None
