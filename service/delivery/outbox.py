"""Released chunks that wait for outputs: in journal and spool, the newest also in memory. Delivery adds them, workers remove them."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from anonymizer.batch import Batch
from service import crash_points
from service.state.journal import Journal
from service.state.set_aside import SetAside
from service.state.spool import Spool

#: How many chunks stay in memory, so that fast outputs need not read them from disk; only the newest if they have more rows together.
_CHUNKS_IN_MEMORY = 2
_ROWS_IN_MEMORY = 500_000

#: The longest sleep of a thread that waits for a change.
NAP_S = 0.5


@dataclass(frozen=True, slots=True)
class Store:
    """The stores that keep a release until every output has taken it."""

    journal: Journal
    spool: Spool
    set_aside: SetAside


class Outbox:
    """Holds released chunks until every output has taken them. Safe to use from several threads.

    Args:
        store: Keeps releases.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self._changed = threading.Condition()
        self._recent: dict[int, list[Batch]] = {}

    def put(self, number: int, batches: list[Batch]) -> None:
        """Add a released chunk, whose spool file, journal entry and fence are on disk."""
        with self._changed:
            self._recent[number] = batches
            while len(self._recent) > 1 and (len(self._recent) > _CHUNKS_IN_MEMORY or self._recent_rows() > _ROWS_IN_MEMORY):
                del self._recent[min(self._recent)]
            self._changed.notify_all()

    def batches_of(self, number: int) -> list[Batch]:
        """Return the batches of a chunk, from memory or from the spool."""
        with self._changed:
            recent = self._recent.get(number)
        return self.store.spool.read(number) if recent is None else recent

    def remove_taken(self) -> None:
        """Remove chunks that every output has taken."""
        for number in self.store.journal.outputs.forget_chunks_all_have():
            crash_points.reached(crash_points.MID_DELETE)
            self.store.spool.remove(number)
            with self._changed:
                self._recent.pop(number, None)
        self.wake_all()

    def _recent_rows(self) -> int:
        return sum(len(batch) for batches in self._recent.values() for batch in batches)

    def wait(self) -> None:
        """Sleep until a change, for at most `NAP_S`."""
        with self._changed:
            self._changed.wait(NAP_S)

    def wake_all(self) -> None:
        """Wake every thread that waits for a change."""
        with self._changed:
            self._changed.notify_all()
