"""The part of the journal that records which released rows RETENTION_DAYS removed from which place.

Removal has two steps on record: files are *begun* before the first is removed and *finished* after. So a file that is gone is never taken
for a lost one, whenever the process is killed. Windows stay released: nothing is released again because its rows were removed.
"""

from __future__ import annotations

import itertools
import json
import sqlite3
from bisect import bisect_left
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass

from anonymizer.errors import JournalDamaged
from anonymizer.windows import Window
from service.state.journal_file import WAY_ON, JournalFile

_CLOCK = "retention_clock"


@dataclass(frozen=True, slots=True)
class Part:
    """What a file holds of one entry of the journal.

    Args:
        span: From the start of the first window to the end of the last.
        rows: The rows of these windows.
    """

    span: Window
    rows: int


@dataclass(frozen=True, slots=True)
class HeldFile:
    """A file of released rows: its path in its place, and what it holds; nothing for a report."""

    path: str
    parts: tuple[Part, ...] = ()

    @property
    def rows(self) -> int:
        """How many rows it holds."""
        return sum(part.rows for part in self.parts)


@dataclass(frozen=True, slots=True)
class SeenClock:
    """What the clock said at earlier sweeps.

    Args:
        trusted_ns: The last time that was believed; 0: none.
        doubted_ns: A later time that is not believed yet, when it was first seen; 0: none.
    """

    trusted_ns: int = 0
    doubted_ns: int = 0


class Removals:
    """Removals of one journal. A place is an output, or `set aside by OUTPUT`.

    Args:
        file: The journal's file.
    """

    def __init__(self, file: JournalFile) -> None:
        self._file = file

    def due(self, place: str, *, before_ns: int, after_ns: int, most: int) -> list[Window]:
        """Return released intervals of which a place may still hold rows, in order.

        Args:
            place: The place.
            before_ns: Only what was both measured and released by then.
            after_ns: Only what starts later.
            most: The maximum number to return.
        """
        rows = self._file.rows(
            "SELECT i.start_ns, i.end_ns FROM intervals i WHERE i.start_ns > :after AND i.released_ns <= :before AND i.end_ns <= :before "
            "AND i.epoch > 0 AND i.released > (SELECT coalesce(sum(r.rows), 0) FROM removed r WHERE r.place = :place "
            "AND r.start_ns >= i.start_ns AND r.start_ns < i.end_ns) ORDER BY i.start_ns LIMIT :most",
            {"place": place, "before": before_ns, "after": after_ns, "most": most},
        )
        return [Window(start_ns, end_ns) for start_ns, end_ns in rows]

    def begin(self, place: str, files: Iterable[HeldFile]) -> None:
        """Record that files are about to be removed."""
        with self._file.transaction() as db:
            db.executemany(
                "INSERT OR REPLACE INTO removing VALUES (?, ?, ?, ?, ?)",
                (
                    (place, file.path, part.span.start_ns, part.span.end_ns, part.rows)
                    for file in files
                    for part in file.parts or (Part(Window(0, 1), 0),)
                ),
            )

    def finish(self, place: str, *, gone: Collection[str], kept: Collection[str] = ()) -> None:
        """Record which of the files that were begun are gone, and which could not be removed."""
        with self._file.transaction() as db:
            for path in gone:
                parts = db.execute("SELECT start_ns, end_ns, rows FROM removing WHERE place = ? AND path = ?", (place, path))
                for start_ns, end_ns, rows in parts.fetchall():
                    if rows:
                        _add(db, place, Part(Window(start_ns, end_ns), rows))
                db.execute("DELETE FROM receipts WHERE output = ? AND key = ?", (place, path))
            for path in (*gone, *kept):
                db.execute("DELETE FROM removing WHERE place = ? AND path = ?", (place, path))

    def begun(self) -> dict[str, list[str]]:
        """Return the files that were begun and not finished, as after a crash, by place."""
        found: dict[str, list[str]] = {}
        for place, path in self._file.rows("SELECT DISTINCT place, path FROM removing ORDER BY place, path"):
            found.setdefault(place, []).append(path)
        return found

    def rows_in(self, place: str, span: Window) -> tuple[int, int]:
        """Return how many rows of an entry's interval were removed from a place, and of how many that was only begun."""
        return self._sum("removed", place, span), self._sum("removing", place, span)

    def sums(self, place: str) -> Callable[[Window], tuple[int, int]]:
        """Return `rows_in` of a place, for many intervals."""
        tables = [
            self._file.rows(f"SELECT start_ns, rows FROM {table} WHERE place = ? ORDER BY start_ns", place)
            for table in ("removed", "removing")
        ]
        starts_ns = [[start_ns for start_ns, _ in table] for table in tables]
        before = [[0, *itertools.accumulate(rows for _, rows in table)] for table in tables]

        def rows_in(span: Window) -> tuple[int, int]:
            removed, begun = (
                sums[bisect_left(starts, span.end_ns)] - sums[bisect_left(starts, span.start_ns)]
                for starts, sums in zip(starts_ns, before, strict=True)
            )
            return removed, begun

        return rows_in

    def rows_by_place(self) -> dict[str, int]:
        """Return how many rows were removed from each place."""
        return dict(self._file.rows("SELECT place, sum(rows) FROM removed GROUP BY place ORDER BY place"))

    def merge_before(self, time_ns: int) -> None:
        """Merge neighbours of the same entry of the journal, so that the record grows no faster than the journal."""
        entry = "(SELECT max(i.start_ns) FROM intervals i WHERE i.start_ns <= r.start_ns)"
        found = self._file.rows(
            f"SELECT place, start_ns, end_ns, rows, {entry} FROM removed r WHERE start_ns < ? ORDER BY place, start_ns", time_ns
        )
        runs: list[list[tuple[str, int, int, int, int]]] = []
        for place, start_ns, end_ns, rows, entry_ns in found:
            last = runs[-1][-1] if runs else None
            if last and (last[0], last[4], last[2]) == (place, entry_ns, start_ns):
                runs[-1].append((place, start_ns, end_ns, rows, entry_ns))
            else:
                runs.append([(place, start_ns, end_ns, rows, entry_ns)])
        with self._file.transaction() as db:
            for run in (run for run in runs if len(run) > 1):
                db.executemany("DELETE FROM removed WHERE place = ? AND start_ns = ?", ((one[0], one[1]) for one in run))
                rows = sum(one[3] for one in run)
                db.execute("INSERT INTO removed VALUES (?, ?, ?, ?)", (run[0][0], run[0][1], run[-1][2], rows))

    def last_release_ns(self) -> int:
        """Return when a window was last released, by the clock of then; 0 if none was."""
        return int(self._file.value("SELECT coalesce(max(released_ns), 0) FROM intervals"))

    def clock(self) -> SeenClock:
        """Return what the clock said at earlier sweeps."""
        text = self._file.value("SELECT value FROM facts WHERE name = ?", _CLOCK)
        if text is None:
            return SeenClock()
        try:
            return SeenClock(**{name: int(value) for name, value in self._file.parsed(text).items()})
        except (TypeError, ValueError):
            raise JournalDamaged(f"{self._file.path} is damaged (it holds no times of sweeps). {WAY_ON}") from None

    def remember_clock(self, clock: SeenClock) -> None:
        """Record what the clock says."""
        described = json.dumps({"trusted_ns": clock.trusted_ns, "doubted_ns": clock.doubted_ns})
        with self._file.transaction() as db:
            db.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (_CLOCK, described))

    def _sum(self, table: str, place: str, span: Window) -> int:
        return int(
            self._file.value(
                f"SELECT coalesce(sum(rows), 0) FROM {table} WHERE place = ? AND start_ns >= ? AND start_ns < ?",
                place,
                span.start_ns,
                span.end_ns,
            )
        )


def set_aside_place(output: str) -> str:
    """Return the place of rows that an output refused."""
    return f"set aside by {output}"


def rename_place(db: sqlite3.Connection, old: str, new: str) -> None:
    """Give a place another name, in a transaction."""
    for table in ("removed", "removing"):
        db.execute(f"UPDATE OR REPLACE {table} SET place = ? WHERE place = ?", (new, old))


def forget_place(db: sqlite3.Connection, name: str) -> None:
    """Forget a place with its output, in a transaction: if that comes back, it has taken nothing yet."""
    for table in ("removed", "removing"):
        db.execute(f"DELETE FROM {table} WHERE place = ?", (name,))


def lower_removed(db: sqlite3.Connection, place: str, *, window_ns: int, rows: int) -> None:
    """Lower the rows on record by those of an erased source, which were among the removed ones of a window."""
    for table in ("removed", "removing"):
        db.execute(
            f"UPDATE {table} SET rows = max(0, rows - ?) WHERE place = ? AND start_ns <= ? AND end_ns > ?",
            (rows, place, window_ns, window_ns),
        )


def _add(db: sqlite3.Connection, place: str, part: Part) -> None:
    """Add what was removed; a part that another file holds too, such as of a window in two files, is one record."""
    start_ns, end_ns, rows = part.span.start_ns, part.span.end_ns, part.rows
    known: Sequence[tuple[int, int, int]] = db.execute(
        "SELECT start_ns, end_ns, rows FROM removed WHERE place = ? AND start_ns < ? AND end_ns > ?", (place, end_ns, start_ns)
    ).fetchall()
    for known_start_ns, known_end_ns, known_rows in known:
        start_ns, end_ns, rows = min(start_ns, known_start_ns), max(end_ns, known_end_ns), rows + known_rows
        db.execute("DELETE FROM removed WHERE place = ? AND start_ns = ?", (place, known_start_ns))
    db.execute("INSERT INTO removed VALUES (?, ?, ?, ?)", (place, start_ns, end_ns, rows))
