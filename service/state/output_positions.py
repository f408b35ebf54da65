"""The part of the journal that records, per output, the chunks it has taken, its receipts, and the rows it refused.

Pending rows are counted as chunks come and go, never summed: the cost of a query does not depend on how many chunks wait.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from anonymizer.ports import Receipt
from service.state.journal_file import JournalFile
from service.state.removals import forget_place, rename_place, set_aside_place

#: The last chunk that every output has taken; all chunks if there is no output.
_SLOWEST = "(SELECT coalesce(min(position), 9223372036854775807) FROM outputs)"

#: With a chunk's number appended, it replaces the chunk's batches if their spool file was lost.
LOST_CHUNK = "lost-chunk-"

#: Names of lost chunks. The range uses the index, since many batches may be set aside; `.` is the character after `-`.
GIVEN_UP = (
    "SELECT batch_id FROM set_aside WHERE output IN (SELECT name FROM outputs) "
    f"AND batch_id > '{LOST_CHUNK}' AND batch_id < '{LOST_CHUNK[:-1]}.'"
)


@dataclass(frozen=True, slots=True)
class OutputPosition:
    """An output's position, and its rows by outcome: `since` is the chunk before its first, `position` the last one it has taken."""

    name: str
    since: int
    position: int
    taken: int
    set_aside: int
    pending: int


@dataclass(frozen=True, slots=True)
class Spooled:
    """The number of chunks that some output has not yet taken, and their total size."""

    chunks: int
    size_bytes: int


class OutputPositions:
    """Positions, receipts and refusals of each output, independent of the others. Chunks are numbered in the order of release.

    Args:
        file: The journal's file.
    """

    def __init__(self, file: JournalFile) -> None:
        self._file = file
        self._offered_to = 0

    def next_chunk(self) -> int:
        """Return the number of the next chunk, which is higher than that of any released chunk."""
        # SQLite's own counter is not sealed. If it were too low, the chunk would never be offered to an output beyond it.
        return int(
            self._file.value(
                "SELECT 1 + max(coalesce((SELECT max(seq) FROM sqlite_sequence WHERE name = 'chunks'), 0), "
                "coalesce((SELECT max(position) FROM outputs), 0), coalesce((SELECT max(chunk) FROM chunks), 0))"
            )
        )

    def positions(self) -> list[OutputPosition]:
        """Return each output's position. For each: rows released since it was added = taken + set aside + pending."""
        rows = self._file.rows("SELECT name, since, position, taken, set_aside, pending FROM outputs ORDER BY name")
        return [OutputPosition(*row) for row in rows]

    def add_outputs(self, names: Sequence[str]) -> None:
        """Add new outputs, which start with the next release; known ones do not change.

        The first outputs of a journal start with the chunks that already wait: batches that a lost journal had released.
        """
        with self._file.transaction() as db:
            is_first = db.execute("SELECT 1 FROM outputs").fetchone() is None
            waiting = db.execute("SELECT min(chunk) FROM chunks").fetchone()[0]
            position = (waiting if is_first and waiting is not None else self.next_chunk()) - 1
            db.executemany(
                "INSERT OR IGNORE INTO outputs (name, since, position, pending) "
                "SELECT ?1, ?2, ?2, coalesce(sum(rows), 0) FROM chunks WHERE chunk > ?2",
                ((name, position) for name in names),
            )

    def rename_outputs(self, new_names: Mapping[str, str]) -> None:
        """Rename outputs, given as a map from old to new name; nothing else about them changes."""
        with self._file.transaction() as db:
            for old, new in new_names.items():
                db.execute("UPDATE outputs SET name = ? WHERE name = ?", (new, old))
                db.execute("UPDATE receipts SET output = ? WHERE output = ?", (new, old))
                db.execute("UPDATE set_aside SET output = ? WHERE output = ?", (new, old))
                rename_place(db, old, new)
                rename_place(db, set_aside_place(old), set_aside_place(new))

    def drop_output(self, name: str) -> None:
        """Forget an output and its pending rows."""
        with self._file.transaction() as db:
            db.execute("DELETE FROM outputs WHERE name = ?", (name,))
            db.execute("DELETE FROM receipts WHERE output = ?", (name,))
            db.execute("DELETE FROM set_aside WHERE output = ?", (name,))
            forget_place(db, name)
            forget_place(db, set_aside_place(name))
            _forget_chunks_all_have(db)

    def record_chunk(self, db: sqlite3.Connection, chunk: int, *, size_bytes: int, rows: int, spool_name: str = "") -> None:
        """Make a chunk pending for every output, in the transaction that releases it. It is offered after `offer_up_to`."""
        db.execute("INSERT INTO chunks (chunk, bytes, rows) VALUES (?, ?, ?)", (chunk, size_bytes, rows))
        if spool_name:
            db.execute("INSERT INTO spool_files VALUES (?, ?)", (chunk, spool_name))
        db.execute("UPDATE spooled SET chunks = chunks + 1, bytes = bytes + ?", (size_bytes,))
        db.execute("UPDATE outputs SET pending = pending + ? WHERE position < ?", (rows, chunk))

    def offer_up_to(self, chunk: int) -> None:
        """Let outputs be offered the chunks up to this one, whose fence is on disk."""
        self._offered_to = chunk

    def next_pending(self, name: str, *, after: int = 0) -> int | None:
        """Return an output's next chunk later than `after`; None if there is none."""
        chunk: int | None = self._file.value(
            "SELECT chunk FROM chunks WHERE chunk > max(?, (SELECT position FROM outputs WHERE name = ?)) AND chunk <= ? "
            "ORDER BY chunk LIMIT 1",
            after,
            name,
            self._offered_to,
        )
        return chunk

    def receipts(self, name: str) -> dict[str, Receipt]:
        """Return an output's receipts by key."""
        rows = self._file.rows("SELECT key, receipt FROM receipts WHERE output = ?", name)
        return {key: self._file.parsed(receipt) for key, receipt in rows}

    def record_receipt(self, name: str, *receipts: Receipt) -> None:
        """Record an output's intent before it writes, or several together."""
        with self._file.transaction() as db:
            _put_receipts(db, name, receipts)

    def record_taken(
        self, name: str, *, chunk: int, receipts: Iterable[Receipt], rows: int, set_aside: Mapping[str, int] | None = None
    ) -> None:
        """Record that an output has taken a chunk, with its receipts.

        Args:
            name: The output.
            chunk: The chunk; the output has taken all earlier ones.
            receipts: The output's receipts for its batches.
            rows: The number of rows in the chunk.
            set_aside: The number of refused rows that were set aside, by batch id.
        """
        refused = dict(set_aside or {})
        with self._file.transaction() as db:
            _put_receipts(db, name, receipts)
            for batch_id, count in refused.items():
                _put_set_aside(db, name, batch_id, count)
            db.execute(
                "UPDATE outputs SET taken = taken + ?, position = ?, "
                "pending = pending - (SELECT coalesce(sum(rows), 0) FROM chunks WHERE chunk > position AND chunk <= ?) WHERE name = ?",
                (rows - sum(refused.values()), chunk, chunk, name),
            )

    def set_aside_for(self, name: str) -> dict[str, int]:
        """Return how many rows an output refused, by batch id."""
        return dict(self._file.rows("SELECT batch_id, rows FROM set_aside WHERE output = ? ORDER BY batch_id", name))

    def record_taken_after_all(self, name: str, batch_id: str, *, receipt: Receipt | None, still_refused: int = 0) -> None:
        """Record that an output has taken rows that it had refused, all but `still_refused`."""
        with self._file.transaction() as db:
            _put_receipts(db, name, [] if receipt is None else [receipt])
            refused = _refused_rows(db, name, batch_id)
            db.execute("UPDATE outputs SET taken = taken + ? WHERE name = ?", (refused - still_refused, name))
            _put_set_aside(db, name, batch_id, still_refused)

    def rows_of(self, chunk: int) -> int:
        """Return how many rows a chunk has; 0 for one that every output has taken."""
        return int(self._file.value("SELECT rows FROM chunks WHERE chunk = ?", chunk) or 0)

    def give_up_chunk(self, chunk: int) -> int:
        """Count a chunk whose spool file is lost as set aside for every output that lacks it; return its number of rows."""
        with self._file.transaction() as db:
            found = db.execute("SELECT rows, bytes FROM chunks WHERE chunk = ?", (chunk,)).fetchone()
            if found is None:
                return 0
            rows, size_bytes = found
            lacking = [name for (name,) in db.execute("SELECT name FROM outputs WHERE position < ?", (chunk,))]
            for name in lacking:
                _put_set_aside(db, name, f"{LOST_CHUNK}{chunk}", rows)
                db.execute("UPDATE outputs SET pending = pending - ? WHERE name = ?", (rows, name))
            db.execute("DELETE FROM chunks WHERE chunk = ?", (chunk,))
            db.execute("DELETE FROM spool_files WHERE chunk = ?", (chunk,))
            db.execute("UPDATE spooled SET chunks = chunks - 1, bytes = bytes - ?", (size_bytes,))
        return int(rows)

    def given_up(self) -> set[int]:
        """Return the numbers of the chunks that were given up."""
        rows = self._file.rows(GIVEN_UP)
        return {int(batch_id.removeprefix(LOST_CHUNK)) for (batch_id,) in rows}

    def forget_chunks_all_have(self) -> list[int]:
        """Forget the chunks that every output has taken, and return them: their spool files are no longer needed."""
        if self._file.value(f"SELECT 1 FROM chunks WHERE chunk <= {_SLOWEST} LIMIT 1") is None:
            return []
        with self._file.transaction() as db:
            return _forget_chunks_all_have(db)

    def spooled(self) -> Spooled:
        """Return how many chunks wait for outputs, and their size."""
        return Spooled(*self._file.rows("SELECT chunks, bytes FROM spooled")[0])

    def spooled_chunks(self) -> list[int]:
        """Return every chunk that some output has not yet taken, in order."""
        return [chunk for (chunk,) in self._file.rows("SELECT chunk FROM chunks ORDER BY chunk")]

    def spool_names(self) -> dict[int, str]:
        """Return the names of spool files that are not called after their chunk's number, by that."""
        return dict(self._file.rows("SELECT chunk, name FROM spool_files"))


def _forget_chunks_all_have(db: sqlite3.Connection) -> list[int]:
    done = db.execute(f"SELECT chunk, bytes FROM chunks WHERE chunk <= {_SLOWEST}").fetchall()
    db.execute(f"DELETE FROM chunks WHERE chunk <= {_SLOWEST}")
    db.execute(f"DELETE FROM spool_files WHERE chunk <= {_SLOWEST}")
    db.execute("UPDATE spooled SET chunks = chunks - ?, bytes = bytes - ?", (len(done), sum(size for _, size in done)))
    return [chunk for chunk, _ in done]


def _put_receipts(db: sqlite3.Connection, name: str, receipts: Iterable[Receipt]) -> None:
    for receipt in receipts:
        key = str(receipt.get("key", ""))
        if receipt.get("forget"):
            db.execute("DELETE FROM receipts WHERE output = ? AND key = ?", (name, key))
        else:
            db.execute("INSERT OR REPLACE INTO receipts VALUES (?, ?, ?)", (name, key, json.dumps(dict(receipt))))


def _put_set_aside(db: sqlite3.Connection, name: str, batch_id: str, rows: int) -> None:
    """Set how many rows of a batch an output refused; zero removes the entry."""
    more = rows - _refused_rows(db, name, batch_id)
    if rows:
        db.execute("INSERT OR REPLACE INTO set_aside VALUES (?, ?, ?)", (name, batch_id, rows))
    else:
        db.execute("DELETE FROM set_aside WHERE output = ? AND batch_id = ?", (name, batch_id))
    db.execute("UPDATE outputs SET set_aside = set_aside + ? WHERE name = ?", (more, name))


def _refused_rows(db: sqlite3.Connection, name: str, batch_id: str) -> int:
    found = db.execute("SELECT rows FROM set_aside WHERE output = ? AND batch_id = ?", (name, batch_id)).fetchone()
    return int(found[0]) if found else 0
