"""An output that keeps batches in memory, for tests and examples. The shortest implementation of the contract.

Delivery: a batch written again replaces itself; all batches are lost when the process ends.
"""

from __future__ import annotations

from collections.abc import Mapping

from anonymizer.batch import Batch
from anonymizer.errors import OutputError
from anonymizer.ports import Receipt


class MemoryOutput:
    """Keeps every batch by its id, in the order of first arrival.

    Args:
        failures: Errors to raise, one per write, before batches are taken.
    """

    kind = "memory"
    concurrency = 1
    name = "memory"

    def __init__(self, failures: tuple[OutputError, ...] = ()) -> None:
        self.batches: dict[str, Batch] = {}
        self._failures = list(failures)

    def open(self, receipts: Mapping[str, Receipt]) -> None:
        """Do nothing."""

    def target(self, batch: Batch) -> str:
        """Return where the batch goes, for the log."""
        return f"{len(self.batches)} batches before this one ({batch.batch_id})"

    def intent(self, batch: Batch) -> None:
        """Return None: nothing outlives the process."""

    def write(self, batch: Batch) -> None:
        """Keep the batch, or raise the next failure."""
        if self._failures:
            raise self._failures.pop(0)
        self.batches[batch.batch_id] = batch

    def close(self) -> None:
        """Do nothing: batches stay readable."""
