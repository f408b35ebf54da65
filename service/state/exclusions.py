"""The part of the journal that records whose rows are not released, and from when on they are again. Ids are kept as keyed digests only."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from service.state.journal_file import JournalFile

#: The time until which a source is excluded that is on the list, or whose rows were erased.
_FOR_EVER_NS = 2**63 - 1

_LIST = "exclusion_list"


@dataclass(frozen=True, slots=True)
class SeenList:
    """A list of excluded sources, and since when it has been unchanged."""

    digest: str
    since_ns: int


class Exclusions:
    """Which sources are excluded, until when.

    Args:
        file: The journal's file.
    """

    def __init__(self, file: JournalFile) -> None:
        self._file = file

    def until_ns(self) -> dict[str, int]:
        """Return, by digest, before which time a source's rows are not released."""
        return dict(self._file.rows("SELECT digest, until_ns FROM exclusions"))

    def listed(self) -> set[str]:
        """Return the digests of the sources that the list excludes now."""
        rows = self._file.rows("SELECT digest FROM exclusions WHERE until_ns = ? AND NOT is_erased", _FOR_EVER_NS)
        return {digest for (digest,) in rows}

    def seen_list(self) -> SeenList | None:
        """Return the list as it was last seen; None if there never was one."""
        rows = self._file.rows("SELECT value FROM facts WHERE name = ?", _LIST)
        if not rows:
            return None
        seen: Mapping[str, object] = self._file.parsed(rows[0][0])
        return SeenList(str(seen.get("digest", "")), int(str(seen.get("since_ns", 0))))

    def record(self, *, seen: SeenList, added: Collection[str], ended: Collection[str], now_ns: int) -> None:
        """Record the list, who is excluded from now on, and whose rows count again if they are measured from now on."""
        described = f'{{"digest": "{seen.digest}", "since_ns": {seen.since_ns}}}'
        with self._file.transaction() as db:
            db.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (_LIST, described))
            db.executemany(
                "INSERT INTO exclusions VALUES (?, ?, ?, 0) ON CONFLICT (digest) DO UPDATE SET until_ns = excluded.until_ns",
                ((digest, now_ns, _FOR_EVER_NS) for digest in added),
            )
            db.executemany(
                "UPDATE exclusions SET until_ns = ? WHERE digest = ? AND NOT is_erased", ((now_ns, digest) for digest in ended)
            )
