"""The part of the journal that records late rows: which released windows to count again, and what came after their release."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from anonymizer.windows import Window
from service.state.journal_file import JournalFile

#: How many delays of a JSON list have passed since the release.
_RECOUNTS_DUE = "(SELECT count(*) FROM json_each(?) AS delay WHERE released_ns + delay.value <= ?)"

#: A recount number that is never reached; marks intervals that are not counted again.
NEVER_AGAIN = 1_000_000


@dataclass(frozen=True, slots=True)
class Recount:
    """A released window to count again in the source: rows read then, rows late since, number of recounts."""

    window: Window
    read: int
    late: int
    recounts: int


class LateRows:
    """The late rows of one journal.

    Args:
        file: The journal's file.
    """

    def __init__(self, file: JournalFile) -> None:
        self._file = file

    def total(self) -> int:
        """Return how many rows are known to have arrived after their window's release."""
        return int(self._file.value("SELECT coalesce(sum(late), 0) FROM intervals"))

    def due(self, after_ns: Sequence[int], *, now_ns: int, most: int) -> list[Recount]:
        """Return windows to count again, in order of time. Merged entries are not counted again.

        Args:
            after_ns: How long after the release, ascending; one recount each.
            now_ns: The time.
            most: The maximum number of windows to return.
        """
        due = [
            Recount(Window(start, end), read, late, recounts)
            for done, delay_ns in enumerate(after_ns)
            for start, end, read, late, recounts in self._file.rows(
                "SELECT start_ns, end_ns, read + erased, late, recounts FROM intervals WHERE recounts = ? AND released_ns <= ? "
                "AND windows = 1 ORDER BY released_ns, start_ns LIMIT ?",
                done,
                now_ns - delay_ns,
                most,
            )
        ]
        return sorted(due, key=lambda one: one.window)[:most]

    def record_recounts(self, recounts: Iterable[Recount], *, after_ns: Sequence[int], now_ns: int) -> None:
        """Record the late rows of windows that were counted again. One count satisfies all recounts that were due."""
        with self._file.transaction() as db:
            db.executemany(
                f"UPDATE intervals SET late = ?, recounts = max(recounts + 1, {_RECOUNTS_DUE}) WHERE start_ns = ?",
                ((one.late, json.dumps(list(after_ns)), now_ns, one.window.start_ns) for one in recounts),
            )

    def record(self, late: Mapping[int, int]) -> None:
        """Record the number of late rows of released intervals, by their starts."""
        with self._file.transaction() as db:
            db.executemany(
                "UPDATE intervals SET late = ? WHERE start_ns = ?", ((rows, start_ns) for start_ns, rows in late.items())
            )
