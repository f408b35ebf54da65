"""The part of the journal that records the files of a data set. Their paths may name wearers, so only digests of them are kept."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from service.state.facts import Facts
from service.state.journal_file import JournalFile

_REQUEST_DIGITS = 8


@dataclass(frozen=True, slots=True)
class PartChanges:
    """What changed in the files of a data set since the last start: paths of added and changed ones, digests of paths of those gone."""

    added: tuple[str, ...]
    changed: tuple[str, ...]
    gone: tuple[str, ...]
    is_first: bool


class DataSetParts:
    """The files of one journal's data set.

    Args:
        file: The journal's file.
        facts: Makes its digests.
    """

    def __init__(self, file: JournalFile, facts: Facts) -> None:
        self._file = file
        self._facts = facts

    def compare(self, parts: Mapping[str, str], *, request: str) -> PartChanges:
        """Return what changed since the last start.

        Args:
            parts: The state of each file that was found, by path.
            request: The glob that chose them; empty: all. Of a file that is missing and was last seen under another glob nothing can be
                said, so that it stays known.
        """
        known, asked, digests = self._known(), self._request(request), self._facts.digests
        now = {path: digests.of_path(path) for path in parts}
        return PartChanges(
            tuple(path for path, one in now.items() if one not in known),
            tuple(path for path, one in now.items() if one in known and known[one][0] != digests.of_state(parts[path])),
            tuple(
                known.keys() - now.values()
                if not request
                else (one for one in known.keys() - now.values() if known[one][1] == asked)
            ),
            is_first=not known,
        )

    def record(self, parts: Mapping[str, str], *, request: str, gone: Collection[str]) -> None:
        """Record the current files, and forget those that are gone, given by the digests of their paths."""
        known, asked, digests = self._known(), self._request(request), self._facts.digests
        now = {digests.of_path(path): (digests.of_state(state), asked) for path, state in parts.items()}
        changed = [(path, " ".join(what)) for path, what in now.items() if known.get(path) != what]
        if changed or gone:
            with self._file.transaction() as db:
                db.executemany("DELETE FROM parts WHERE path = ?", ((path,) for path in gone))
                db.executemany("INSERT OR REPLACE INTO parts VALUES (?, ?)", changed)

    def _known(self) -> dict[str, tuple[str, str]]:
        """Return the state of each file, and the glob under which it was last seen, by path, all as digests."""
        rows = self._file.rows("SELECT path, state FROM parts")
        return {path: (state.partition(" ")[0], state.partition(" ")[2]) for path, state in rows}

    def _request(self, request: str) -> str:
        return self._facts.digests.of_state(f"request {request}")[:_REQUEST_DIGITS]
