"""The part of the journal that records erasures: which one is open, what it takes from each place, and the books when it ends.

While one is open the service does not start: its places are between two states. An erasure that was interrupted is run again: places
that were done have nothing left to take, and what each was to lose is on record before the place changes.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from anonymizer.errors import JournalDamaged
from anonymizer.ports import Receipt
from service.state.journal_file import JournalFile
from service.state.output_positions import LOST_CHUNK
from service.state.removals import lower_removed, set_aside_place

_FOR_EVER_NS = 2**63 - 1

#: Receipts of files that an erasure replaces are recorded under the output's name with this before it, until the books are made.
_STAGED = "erasing "


@dataclass(frozen=True, slots=True)
class OpenErasure:
    """An erasure that has not ended.

    Args:
        digest: The keyed digest of the source.
        began_ns: When it began.
        strict: Whether rows go too whose value fewer than k still share.
    """

    digest: str
    began_ns: int
    strict: bool


@dataclass(frozen=True, slots=True)
class Taken:
    """What a place loses of a window.

    Args:
        start_ns: The window's start.
        rows: All rows.
        imputed: Of these, rows with an imputed value.
    """

    start_ns: int
    rows: int
    imputed: int = 0


class Erasures:
    """Erasures of one journal.

    Args:
        file: The journal's file.
    """

    def __init__(self, file: JournalFile) -> None:
        self._file = file

    def open_one(self) -> OpenErasure | None:
        """Return the erasure that has not ended; None if there is none."""
        rows = self._file.rows("SELECT digest, began_ns, strict FROM erasures WHERE ended_ns IS NULL")
        return OpenErasure(rows[0][0], rows[0][1], bool(rows[0][2])) if rows else None

    def refuse_open_one(self) -> None:
        """Raise JournalDamaged while an erasure is open: places are between two states."""
        if erasure := self.open_one():
            raise JournalDamaged(
                f"{self._file.path} has an open erasure, which was interrupted: run the same scripts/state.py erase again, with --yes and "
                f"the id or pseudonym that it was begun with{' and --strict' if erasure.strict else ''}; until then nothing is released or "
                "delivered"
            )

    def begin(self, erasure: OpenErasure) -> None:
        """Open an erasure, and exclude its source for ever."""
        with self._file.transaction() as db:
            db.execute("INSERT INTO erasures VALUES (?, ?, NULL, ?)", (erasure.digest, erasure.began_ns, erasure.strict))
            db.execute("INSERT OR REPLACE INTO exclusions VALUES (?, ?, ?, 1)", (erasure.digest, erasure.began_ns, _FOR_EVER_NS))

    def record(self, place: str, taken: Iterable[Taken]) -> None:
        """Record what a place is about to lose. Of a place that was interrupted, the larger figure holds."""
        with self._file.transaction() as db:
            db.executemany(
                "INSERT INTO erased_rows VALUES (?, ?, ?, ?, 0) ON CONFLICT (place, start_ns) DO UPDATE SET "
                "rows = max(rows, excluded.rows), starred = max(starred, excluded.starred)",
                ((place, one.start_ns, one.rows, one.imputed) for one in taken),
            )

    def recorded(self, place: str = "") -> dict[int, Taken]:
        """Return what each window loses, by its start: the most that any place loses, or what one place does."""
        rows = self._file.rows(
            "SELECT start_ns, max(rows), max(starred) FROM erased_rows WHERE ?1 IN ('', place) GROUP BY start_ns", place
        )
        return {start_ns: Taken(start_ns, count, imputed) for start_ns, count, imputed in rows}

    def rows_by_place(self) -> dict[str, int]:
        """Return how many rows each place loses."""
        return dict(self._file.rows("SELECT place, sum(rows) FROM erased_rows GROUP BY place ORDER BY place"))

    def stage_receipt(self, output: str, receipt: Receipt) -> None:
        """Record what an output's receipt will be once a file is replaced, before it is."""
        with self._file.transaction() as db:
            db.execute(
                "INSERT OR REPLACE INTO receipts VALUES (?, ?, ?)",
                (_STAGED + output, str(receipt["key"]), json.dumps(dict(receipt))),
            )

    def staged(self, output: str) -> dict[str, Receipt]:
        """Return the receipts that were staged for an output, by key."""
        rows = self._file.rows("SELECT key, receipt FROM receipts WHERE output = ?", _STAGED + output)
        return {key: self._file.parsed(receipt) for key, receipt in rows}

    def rename_spool_file(self, chunk: int, name: str) -> None:
        """Record under which name a worker's spool file is from now on."""
        with self._file.transaction() as db:
            db.execute("UPDATE spool_files SET name = ? WHERE chunk = ?", (name, chunk))

    def hold_back(self, output: str, keys: Iterable[str]) -> None:
        """Mark batches that an output may have taken already, and that must not be sent in another form."""
        with self._file.transaction() as db:
            db.executemany(
                "UPDATE receipts SET receipt = json_set(receipt, '$.taken_back', json('true')) WHERE output = ? AND key = ?",
                ((output, key) for key in keys),
            )

    def book(self, *, spooled_bytes: Mapping[int, int]) -> None:
        """Lower the books by what is on record: of windows, outputs and chunks, at once. Books that are made are not made again.

        Args:
            spooled_bytes: The sizes of all spool files, by chunk.
        """
        taken = self.recorded()
        with self._file.transaction() as db:
            chunk_of = {start_ns: _lower_window(db, one) for start_ns, one in taken.items()}
            for (name,) in db.execute("SELECT name FROM outputs").fetchall():
                aside = {
                    start_ns: rows
                    for start_ns, rows in db.execute(
                        "SELECT start_ns, rows FROM erased_rows WHERE place = ?", (set_aside_place(name),)
                    )
                }
                _lower_output(db, name, taken, chunk_of, aside)
            _lower_chunks(db, taken, chunk_of, spooled_bytes)
            for output, key, receipt in db.execute(
                "SELECT output, key, receipt FROM receipts WHERE output LIKE ? || '%'", (_STAGED,)
            ).fetchall():
                is_new = {name: value for name, value in json.loads(receipt).items() if name != "digest"}
                db.execute(
                    "UPDATE receipts SET receipt = ? WHERE output = ? AND key = ?",
                    (json.dumps(is_new), output.removeprefix(_STAGED), key),
                )
            db.execute("DELETE FROM receipts WHERE output LIKE ? || '%'", (_STAGED,))
            db.execute("DELETE FROM erased_rows")

    def end(self, *, now_ns: int) -> None:
        """End the open erasure; the service may start again."""
        with self._file.transaction() as db:
            db.execute("UPDATE erasures SET ended_ns = ? WHERE ended_ns IS NULL", (now_ns,))

    def scrub(self) -> None:
        """Leave no byte of what was deleted in the journal's file or log."""
        self._file.scrub()


def _lower_window(db: sqlite3.Connection, taken: Taken) -> int:
    """Lower the counts of the entry that a window is in; return its chunk."""
    found = db.execute(
        "SELECT start_ns, chunk, released, starred, suppressed FROM intervals WHERE start_ns <= ? AND end_ns > ? "
        "ORDER BY start_ns DESC LIMIT 1",
        (taken.start_ns, taken.start_ns),
    ).fetchone()
    if found is None:
        return 0
    entry_ns, chunk, released, starred, suppressed = found
    rows = min(taken.rows, released)
    of_starred = min(taken.imputed, starred)
    db.execute(
        "UPDATE intervals SET read = read - ?1, released = released - ?1, erased = erased + ?1, starred = starred - ?2, "
        "suppressed = suppressed - ?3 WHERE start_ns = ?4",
        (rows, of_starred, min(taken.imputed - of_starred, suppressed), entry_ns),
    )
    return int(chunk)


def _lower_output(
    db: sqlite3.Connection, name: str, taken: Mapping[int, Taken], chunk_of: Mapping[int, int], aside: Mapping[int, int]
) -> None:
    since, position = db.execute("SELECT since, position FROM outputs WHERE name = ?", (name,)).fetchone()
    refused = dict(db.execute("SELECT batch_id, rows FROM set_aside WHERE output = ?", (name,)))
    for start_ns, one in taken.items():
        chunk = chunk_of[start_ns]
        lower_removed(db, name, window_ns=start_ns, rows=one.rows)
        if chunk <= since:
            continue
        lost = f"{LOST_CHUNK}{chunk}"
        if lost in refused:
            _lower_set_aside(db, name, lost, one.rows)
        elif chunk <= position:
            of_refused = min(aside.get(start_ns, 0), one.rows)
            db.execute("UPDATE outputs SET taken = taken - ? WHERE name = ?", (one.rows - of_refused, name))
            for batch_id in _batches_at(refused, start_ns) if of_refused else ():
                _lower_set_aside(db, name, batch_id, of_refused)


def _batches_at(refused: Iterable[str], start_ns: int) -> list[str]:
    return [batch_id for batch_id in refused if batch_id.split("-")[-2:-1] == [str(start_ns)]]


def _lower_set_aside(db: sqlite3.Connection, name: str, batch_id: str, rows: int) -> None:
    db.execute("UPDATE set_aside SET rows = rows - ? WHERE output = ? AND batch_id = ?", (rows, name, batch_id))
    db.execute("DELETE FROM set_aside WHERE output = ? AND batch_id = ? AND rows <= 0", (name, batch_id))
    db.execute(
        "UPDATE outputs SET set_aside = (SELECT coalesce(sum(rows), 0) FROM set_aside WHERE output = ?1) WHERE name = ?1", (name,)
    )


def _lower_chunks(
    db: sqlite3.Connection, taken: Mapping[int, Taken], chunk_of: Mapping[int, int], spooled_bytes: Mapping[int, int]
) -> None:
    for chunk, rows in _rows_by_chunk(taken, chunk_of).items():
        db.execute("UPDATE chunks SET rows = rows - ?, bytes = ? WHERE chunk = ?", (rows, spooled_bytes.get(chunk, 0), chunk))
    gone = [chunk for (chunk,) in db.execute("SELECT chunk FROM chunks WHERE rows <= 0")]
    db.executemany("DELETE FROM chunks WHERE chunk = ?", ((chunk,) for chunk in gone))
    db.executemany("DELETE FROM spool_files WHERE chunk = ?", ((chunk,) for chunk in gone))
    db.execute("UPDATE spooled SET (chunks, bytes) = (SELECT count(*), coalesce(sum(bytes), 0) FROM chunks)")
    db.execute("UPDATE outputs SET pending = (SELECT coalesce(sum(rows), 0) FROM chunks WHERE chunk > position)")


def _rows_by_chunk(taken: Mapping[int, Taken], chunk_of: Mapping[int, int]) -> dict[int, int]:
    sums: dict[int, int] = {}
    for start_ns, one in taken.items():
        sums[chunk_of[start_ns]] = sums.get(chunk_of[start_ns], 0) + one.rows
    return sums
