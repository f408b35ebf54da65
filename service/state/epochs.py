"""The part of the journal that records epochs: periods of releases under the same settings, with the promise of their windows."""

from __future__ import annotations

import json
from dataclasses import dataclass

from anonymizer.batch import Promise
from anonymizer.errors import JournalDamaged
from service.state.digests import Digests, of_filters
from service.state.journal_file import WAY_ON, JournalFile
from service.state.late_rows import NEVER_AGAIN


@dataclass(frozen=True, slots=True)
class Epoch:
    """A period of releases under the same settings. A change of any field begins the next epoch.

    Args:
        promise: The promise of its windows.
        window_ns: The length of its windows.
        selection: Digest of the sources and series that are read.
    """

    promise: Promise
    window_ns: int
    selection: str = ""


class Epochs:
    """The epochs of one journal.

    Args:
        file: The journal's file.
    """

    def __init__(self, file: JournalFile) -> None:
        self._file = file

    def last(self) -> Epoch | None:
        """Return the current epoch; None before the first."""
        rows = self._file.rows("SELECT promise, window_ns, selection FROM epochs ORDER BY epoch DESC LIMIT 1")
        promise = self.promise(rows[0][0]) if rows else None
        return None if promise is None else Epoch(promise, rows[0][1], rows[0][2])

    def begin(self, epoch: Epoch, *, now_ns: int) -> None:
        """Record the epoch of every window released from now on.

        A change of the sources that are read ends recounts of earlier windows, whose counts can no longer be compared.
        """
        with self._file.transaction() as db:
            db.execute(
                "UPDATE intervals SET recounts = ? WHERE epoch IN (SELECT epoch FROM epochs WHERE selection <> ?)",
                (NEVER_AGAIN, epoch.selection),
            )
            described = json.dumps(epoch.promise.stated())
            db.execute(
                "INSERT INTO epochs (began_ns, window_ns, promise, selection) VALUES (?, ?, ?, ?)",
                (now_ns, epoch.window_ns, described, epoch.selection),
            )

    def has_key(self, key_id: str) -> bool:
        """Return whether a run has begun under a pseudonym key; empty: without pseudonyms."""
        promises = (self.promise(described) for (described,) in self._file.rows("SELECT promise FROM epochs"))
        return any(promise is not None and promise.key_id == key_id for promise in promises)

    def key_ids(self) -> set[str]:
        """Return the ids of all keys under which windows were released; empty for windows without pseudonyms."""
        rows = self._file.rows("SELECT promise FROM epochs WHERE epoch IN (SELECT epoch FROM intervals)")
        return {promise.key_id for (described,) in rows if (promise := self.promise(described)) is not None}

    def replace_digest_of_filters(self, key: bytes, digest: str, digests: Digests) -> None:
        """Replace the digest of current filters that form 4 made under the pseudonym key, so that no change of settings is seen.

        Args:
            key: The key that form 4 used.
            digest: The plain digest of the current filters.
            digests: Those of the journal.
        """
        before, now = of_filters(key, digest), digests.of_filters(digest)
        if before != now and self._file.rows("SELECT 1 FROM epochs WHERE selection = ?", before):
            with self._file.transaction() as db:
                db.execute("UPDATE epochs SET selection = ? WHERE selection = ?", (now, before))

    def promise(self, described: str | None) -> Promise | None:
        """Return the promise of an epoch; None for an accepted gap, which has no epoch."""
        if described is None:
            return None
        try:
            promise = Promise(**self._file.parsed(described))
        except TypeError:
            promise = None
        if promise is None or not promise.method or (type(promise.k) is not int and not promise.template_digest):
            raise JournalDamaged(f"{self._file.path} is damaged (it contains an invalid promise). {WAY_ON}")
        return promise
