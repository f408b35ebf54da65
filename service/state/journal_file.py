"""The journal's SQLite file: its tables, its transactions, and how damage is detected.

Each transaction is on disk before it returns (WAL, synchronous=FULL). All tables are sealed, because SQLite detects a torn page but not a
flipped bit in a number. The seal is the sum of the digests of all rows. A transaction updates it by the rows that it changes; opening the
file computes it again from all rows (documentation/decisions/017-a-seal-that-adds-up.md).
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from anonymizer.errors import JournalDamaged, StateUnavailable
from disk.durable_file import make_private, open_or_create
from service.state.digests import KEYED, Digests

#: The format version. A file of an earlier version is upgraded when it is opened.
FORMAT_VERSION = 5
_EARLIEST_VERSION = 2

_TABLES = """
CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
CREATE TABLE epochs (
    epoch INTEGER PRIMARY KEY, began_ns INTEGER NOT NULL, window_ns INTEGER NOT NULL, promise TEXT NOT NULL, selection TEXT NOT NULL
) STRICT;
CREATE TABLE intervals (
    start_ns INTEGER PRIMARY KEY, end_ns INTEGER NOT NULL, chunk INTEGER NOT NULL, epoch INTEGER NOT NULL, released_ns INTEGER NOT NULL,
    windows INTEGER NOT NULL, recounts INTEGER NOT NULL, late INTEGER NOT NULL,
    read INTEGER NOT NULL, released INTEGER NOT NULL, withheld INTEGER NOT NULL, invalid INTEGER NOT NULL, duplicate INTEGER NOT NULL,
    starred INTEGER NOT NULL, suppressed INTEGER NOT NULL,
    excluded INTEGER NOT NULL DEFAULT 0, erased INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX recounts ON intervals (recounts, released_ns);
CREATE TABLE chunks (chunk INTEGER PRIMARY KEY AUTOINCREMENT, bytes INTEGER NOT NULL, rows INTEGER NOT NULL) STRICT;
CREATE TABLE spooled (chunks INTEGER NOT NULL, bytes INTEGER NOT NULL) STRICT;
INSERT INTO spooled VALUES (0, 0);
CREATE TABLE outputs (
    name TEXT PRIMARY KEY, since INTEGER NOT NULL, position INTEGER NOT NULL, taken INTEGER NOT NULL DEFAULT 0,
    set_aside INTEGER NOT NULL DEFAULT 0, pending INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE TABLE set_aside (
    output TEXT NOT NULL, batch_id TEXT NOT NULL, rows INTEGER NOT NULL, PRIMARY KEY (output, batch_id)
) STRICT;
CREATE TABLE receipts (
    output TEXT NOT NULL, key TEXT NOT NULL, receipt TEXT NOT NULL, PRIMARY KEY (output, key)
) STRICT;
CREATE TABLE positions (stream TEXT PRIMARY KEY, position_ns INTEGER NOT NULL) STRICT;
"""

#: Tables that were added after version 3. Created if missing; an empty table changes no seal.
_LATER_TABLES = (
    # The files of a data set at the last start.
    "CREATE TABLE IF NOT EXISTS parts (path TEXT PRIMARY KEY, state TEXT NOT NULL) STRICT",
    # The names of spool files written by workers; all others are named after their number.
    "CREATE TABLE IF NOT EXISTS spool_files (chunk INTEGER PRIMARY KEY, name TEXT NOT NULL) STRICT",
    # Sources whose rows are not released: rows measured before `until_ns`, which is the end of time while a source is excluded.
    "CREATE TABLE IF NOT EXISTS exclusions (digest TEXT PRIMARY KEY, since_ns INTEGER NOT NULL, until_ns INTEGER NOT NULL, "
    "is_erased INTEGER NOT NULL) STRICT",
    # Erasures; one without an end is open, and the service does not start.
    "CREATE TABLE IF NOT EXISTS erasures (digest TEXT NOT NULL, began_ns INTEGER PRIMARY KEY, ended_ns INTEGER, strict INTEGER NOT NULL) "
    "STRICT",
    # What the open erasure takes from each place and window, until it is booked.
    "CREATE TABLE IF NOT EXISTS erased_rows (place TEXT NOT NULL, start_ns INTEGER NOT NULL, rows INTEGER NOT NULL, "
    "starred INTEGER NOT NULL, suppressed INTEGER NOT NULL, PRIMARY KEY (place, start_ns)) STRICT",
    # Files that RETENTION_DAYS is about to remove, and what it has removed, in whole windows of one interval each.
    "CREATE TABLE IF NOT EXISTS removing (place TEXT NOT NULL, path TEXT NOT NULL, start_ns INTEGER NOT NULL, end_ns INTEGER NOT NULL, "
    "rows INTEGER NOT NULL, PRIMARY KEY (place, path, start_ns)) STRICT",
    "CREATE TABLE IF NOT EXISTS removed (place TEXT NOT NULL, start_ns INTEGER NOT NULL, end_ns INTEGER NOT NULL, rows INTEGER NOT NULL, "
    "PRIMARY KEY (place, start_ns)) STRICT",
)

#: The upgrade from version 2, which summed up pending rows in every query.
_FROM_VERSION_2 = """
CREATE TABLE spooled (chunks INTEGER NOT NULL, bytes INTEGER NOT NULL) STRICT;
INSERT INTO spooled SELECT count(*), coalesce(sum(bytes), 0) FROM chunks;
ALTER TABLE outputs ADD COLUMN set_aside INTEGER NOT NULL DEFAULT 0;
ALTER TABLE outputs ADD COLUMN pending INTEGER NOT NULL DEFAULT 0;
UPDATE outputs SET
    set_aside = (SELECT coalesce(sum(rows), 0) FROM set_aside WHERE output = name),
    pending = (SELECT coalesce(sum(rows), 0) FROM chunks WHERE chunk > position)
"""

#: The upgrade from version 3, which knew neither exclusion nor erasure.
_FROM_VERSION_3 = """
ALTER TABLE intervals ADD COLUMN excluded INTEGER NOT NULL DEFAULT 0;
ALTER TABLE intervals ADD COLUMN erased INTEGER NOT NULL DEFAULT 0
"""

#: The statements that make a file of a version from one of the version before. Versions from 5 on hold no plain digest and no path.
_UPGRADES = ((3, _FROM_VERSION_2), (4, _FROM_VERSION_3))

#: The sealed tables. Version 2 sealed only those that decide which output is offered what.
_SEALED_IN_VERSION_2 = ("epochs", "chunks", "outputs", "set_aside", "positions")
_SEALED = (
    *_SEALED_IN_VERSION_2,
    "spooled",
    "receipts",
    "intervals",
    "facts",
    "parts",
    "spool_files",
    "exclusions",
    "erasures",
    "erased_rows",
    "removing",
    "removed",
)

_SEAL = "seal"

#: Set while bytes of what an upgrade replaced may be left in the file.
_UNSCRUBBED = "unscrubbed"

_SEAL_BYTES = 16
_SEALS = 1 << 8 * _SEAL_BYTES

#: Integer columns have 64 bits, one of them for the sign.
_LONGEST_NUMBER_BITS = 63

#: How long another process, such as `scripts/state.py`, may hold the file before an error is raised.
_BUSY_S = 10.0

#: Codes that SQLite returns when the disk is full.
_DISK_FULL = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_IOERR}
_LEAST_FREE_BYTES = 1 << 16

#: Failures of the disk or of another process, which may pass. A truncated file is damage instead.
_PASSING = {
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_PROTOCOL,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_INTERRUPT,
}

#: How SQLite's integrity check reports that it could not read a page.
_UNREAD_PAGE = re.compile(r"error code=(\d+)")
_PRIMARY_CODE = 0xFF

#: What an operator can do about a damaged journal. The fence, or a backup, lists what must not be released again.
WAY_ON = (
    "Put a good copy of the journal in its place, after moving journal.sqlite-wal and -shm away; or move all three away and run: "
    "scripts/state.py accept-gap, which marks every interval in the fence as released, so that none is released twice"
)


class JournalFile:
    """An open journal file. Safe to use from several threads.

    Args:
        path: Created if missing; only its owner may read it.
        is_copy: Whether it is a temporary copy, which need not be scrubbed after an upgrade.

    Raises:
        JournalDamaged: It is damaged, or has an unknown format version.
        StateUnavailable: It cannot be used now.
    """

    def __init__(self, path: Path, *, is_copy: bool = False) -> None:
        self.path = path
        self._is_copy = is_copy
        self._lock = threading.RLock()
        #: How much the current transaction has changed the seal so far.
        self._sealed_since = 0
        self._is_in_doubt = False
        try:
            self._open()
        except JournalDamaged:
            # A failed read may look like damage. Real damage is still there on the second attempt.
            self._open()
        try:
            self.scrub_after_upgrade()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the file."""
        with self._lock, suppress(sqlite3.Error):
            self._db.close()

    def rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """Return all rows of a query."""
        with self._in_use():
            parameters = values[0] if values and isinstance(values[0], dict) else values
            return self._db.execute(query, parameters).fetchall()

    def value(self, query: str, *values: Any) -> Any:
        """Return the first value of a query's first row; None if there is no row."""
        rows = self.rows(query, *values)
        return rows[0][0] if rows else None

    def parsed(self, described: str) -> dict[str, Any]:
        """Return the JSON object in a column.

        Raises:
            JournalDamaged: It is not a JSON object, or contains numbers of more than 64 bits.
        """
        try:
            found = json.loads(described, parse_constant=_refuse_constant)
            if isinstance(found, dict) and not any(
                type(value) is int and value.bit_length() > _LONGEST_NUMBER_BITS for value in found.values()
            ):
                return found
        except (ValueError, RecursionError):
            pass
        raise JournalDamaged(f"{self.path} is damaged (a column does not contain the expected JSON object). {WAY_ON}")

    def scrub(self) -> bool:
        """Rewrite the file, so that no byte of a deleted or changed row is left in it or in its log.

        Returns:
            Whether the log was emptied too, which a reader in another process can prevent.
        """
        with self._in_use():
            self._db.execute("PRAGMA secure_delete = ON")
            self._db.execute("VACUUM")
            is_busy = self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
            return not is_busy

    def replaces_plain_text(self, db: sqlite3.Connection) -> None:
        """Record, in a transaction that replaces texts by digests, that `scrub_after_upgrade` has work to do."""
        db.execute("INSERT OR REPLACE INTO facts VALUES (?, '1')", (_UNSCRUBBED,))

    def scrub_after_upgrade(self) -> None:
        """Scrub the file if an upgrade replaced texts by digests. If that fails, as on a full disk, the next start does it."""
        if self._is_copy or not self.rows("SELECT 1 FROM facts WHERE name = ?", _UNSCRUBBED):
            return
        with suppress(StateUnavailable):
            if self.scrub():
                with self.transaction() as db:
                    db.execute("DELETE FROM facts WHERE name = ?", (_UNSCRUBBED,))

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Run an atomic transaction; it is on disk afterwards.

        Raises:
            StateUnavailable: Nothing was changed; the caller may retry.
            JournalDamaged: The file is damaged.
        """
        with self._in_use(), self._all_or_nothing():
            self._sealed_since = 0
            yield self._db
            if self._sealed_since:
                self._put_seal((self._seal() + self._sealed_since) % _SEALS)

    @contextmanager
    def _all_or_nothing(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise

    @contextmanager
    def _in_use(self) -> Iterator[None]:
        """Raise only the project's own errors, and report damage only if a new connection sees it too.

        After a failed system call, SQLite may also report damage, or a missing transaction, although the file is intact.
        """
        with self._lock:
            if self._is_in_doubt:
                self._reopen()
            try:
                with self._translated_errors():
                    yield
            except JournalDamaged:
                self._is_in_doubt = True
                self._reopen()
                raise StateUnavailable(f"{self.path} looked damaged, but is intact after reopening") from None

    def _reopen(self) -> None:
        with suppress(sqlite3.Error):
            self._db.close()
        self._open()
        self._is_in_doubt = False

    def _open(self) -> None:
        with self._translated_errors():
            self._db = _connect(self.path)
            try:
                self._make_tables()
                self._check()
                self._watch_sealed_tables()
            except BaseException:
                self._db.close()
                raise

    def _make_tables(self) -> None:
        if self._db.execute("SELECT 1 FROM sqlite_master").fetchone() is None:
            with self._all_or_nothing():
                self._upgrade(_TABLES)

    def _upgrade(self, statements: str) -> None:
        for statement in (*statements.split(";"), *_LATER_TABLES):
            self._db.execute(statement)
        self._replace_plain_text()
        self._db.execute(f"PRAGMA user_version = {FORMAT_VERSION}")
        self._put_seal(self._sum_of_digests())

    def _replace_plain_text(self) -> None:
        """Replace what versions up to 4 recorded as it is: digests of filters, and paths. The file's digest follows once it is known."""
        db = self._db
        secret = db.execute("SELECT value FROM facts WHERE name = 'journal'").fetchone()
        digests = Digests(secret[0] if secret else "")
        filters = db.execute(
            "SELECT DISTINCT selection FROM epochs WHERE selection <> '' AND selection NOT LIKE ? || '%'", (KEYED,)
        )
        new_filters = [(digests.of_filters(plain), plain) for (plain,) in filters.fetchall()]
        parts = db.execute("SELECT path, state FROM parts").fetchall()
        new_parts = [(digests.of_path(path), digests.of_state(state), path) for path, state in parts]
        if new_filters or new_parts:
            db.executemany("UPDATE epochs SET selection = ? WHERE selection = ?", new_filters)
            db.executemany("UPDATE parts SET path = ?, state = ? WHERE path = ?", new_parts)
            self.replaces_plain_text(db)

    def _check(self) -> None:
        version = self._db.execute("PRAGMA user_version").fetchone()[0]
        if version > FORMAT_VERSION:
            # Nothing is damaged: the advice to move it away would throw a good journal away.
            raise JournalDamaged(
                f"{self.path} has format version {version}, the service knows version {FORMAT_VERSION}: a newer version of the service has "
                "worked with it. Run that version, and leave STATE_DIR as it is; how to go back: OPERATIONS.md, Another version"
            )
        if version < _EARLIEST_VERSION:
            raise JournalDamaged(
                f"{self.path} has format version {version}, the service knows version {FORMAT_VERSION}. {WAY_ON}"
            )
        verdict = self._db.execute("PRAGMA integrity_check(1)").fetchone()[0]
        if (unread := _UNREAD_PAGE.search(verdict)) and int(unread[1]) & _PRIMARY_CODE in _PASSING:
            raise StateUnavailable(f"{self.path} cannot be read now ({verdict.splitlines()[-1]})")
        if verdict != "ok":
            raise JournalDamaged(f"{self.path} is damaged ({verdict}). {WAY_ON}")
        if version > _EARLIEST_VERSION:
            for table in _LATER_TABLES:
                self._db.execute(table)
        if not (self._is_seal_of_version_2_valid() if version == 2 else self._seal() == self._sum_of_digests()):
            raise JournalDamaged(f"{self.path} is damaged (its digest differs). {WAY_ON}")
        if version < FORMAT_VERSION:
            with self._all_or_nothing():
                self._upgrade(";".join(statements for before, statements in _UPGRADES if version < before))

    def _seal(self) -> int:
        found = self._db.execute("SELECT value FROM facts WHERE name = ?", (_SEAL,)).fetchone()
        try:
            return int(found[0], 16) if found else 0
        except ValueError:
            raise JournalDamaged(f"{self.path} is damaged (its seal is invalid). {WAY_ON}") from None

    def _put_seal(self, seal: int) -> None:
        self._db.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (_SEAL, f"{seal:0{2 * _SEAL_BYTES}x}"))

    def _sum_of_digests(self) -> int:
        return sum(_digest(table, *row) for table in _SEALED for row in self._db.execute(f"SELECT * FROM {table}")) % _SEALS

    def _watch_sealed_tables(self) -> None:
        """Make SQLite report every row of a sealed table that this connection adds, changes or removes."""

        def change(sign: int, *row: Any) -> None:
            self._sealed_since += sign * _digest(*row)

        self._db.create_function("row_changed", -1, change)
        # Without this, INSERT OR REPLACE would remove rows without firing a trigger.
        self._db.execute("PRAGMA recursive_triggers = ON")
        for table in _SEALED:
            columns = [name for _, name, *_ in self._db.execute(f"PRAGMA table_info({table})")]
            removed, added = (
                f"SELECT row_changed({sign}, '{table}', {', '.join(f'{row}.{name}' for name in columns)});"
                for sign, row in ((-1, "OLD"), (1, "NEW"))
            )
            for event, report in (("INSERT", added), ("UPDATE", removed + added), ("DELETE", removed)):
                self._db.execute(f"CREATE TEMP TRIGGER {table}_{event} AFTER {event} ON main.{table} BEGIN {report} END")

    def _is_seal_of_version_2_valid(self) -> bool:
        contents = [self._db.execute(f"SELECT * FROM {table} ORDER BY 1, 2").fetchall() for table in _SEALED_IN_VERSION_2]
        found = self._db.execute("SELECT value FROM facts WHERE name = ?", (_SEAL,)).fetchone()
        return hashlib.sha256(repr(contents).encode()).hexdigest() == found[0] if found else not any(contents)

    def _reason(self, error: sqlite3.DatabaseError, code: int) -> str:
        with suppress(OSError):  # a missing folder has nothing to report
            if code & _PRIMARY_CODE in _DISK_FULL and shutil.disk_usage(self.path.parent).free < _LEAST_FREE_BYTES:
                return os.strerror(errno.ENOSPC)
        return str(error)

    @contextmanager
    def _translated_errors(self) -> Iterator[None]:
        """Translate errors into the project's own: StateUnavailable if they may pass, JournalDamaged if not."""
        try:
            yield
        except (sqlite3.IntegrityError, sqlite3.ProgrammingError):
            raise
        except UnicodeDecodeError:
            raise JournalDamaged(f"{self.path} is damaged (it contains invalid UTF-8). {WAY_ON}") from None
        except sqlite3.DatabaseError as error:
            code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT)
            if code & _PRIMARY_CODE in _PASSING and code != sqlite3.SQLITE_IOERR_SHORT_READ:
                raise StateUnavailable(f"{self.path} cannot be used now ({self._reason(error, code)})") from None
            raise JournalDamaged(f"{self.path} cannot be used ({error}). {WAY_ON}") from None
        except OSError as error:
            raise StateUnavailable(f"{self.path} cannot be used now ({error.strerror or error})") from None


def _refuse_constant(constant: str) -> Any:
    raise ValueError(f"the service never writes {constant}")


def _digest(table: str, *row: Any) -> int:
    if table == "facts" and row[0] == _SEAL:
        return 0
    return int.from_bytes(hashlib.blake2b(repr((table, *row)).encode(), digest_size=_SEAL_BYTES).digest(), "big")


def _connect(path: Path) -> sqlite3.Connection:
    # Created before SQLite opens it, so that only the owner can ever read it, and no planted link is followed.
    os.close(open_or_create(path))
    for one in (path, *(path.with_name(f"{path.name}{suffix}") for suffix in ("-journal", "-wal", "-shm"))):
        make_private(one)
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=_BUSY_S)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = FULL")
    # The temporary triggers stay in memory: the folder for temporary files may be full or read-only.
    db.execute("PRAGMA temp_store = MEMORY")
    return db
