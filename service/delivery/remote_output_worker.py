"""Lets other processes write released chunks to one output, several at a time, and records in order what it has taken.

Only for outputs to which any process may write, repeatedly: two processes may write the same chunk at the same time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from anonymizer.errors import BatchRejected
from anonymizer.ports import Output, Receipt
from service import crash_points
from service.delivery.outbox import Outbox
from service.delivery.output_worker import OutputWorker
from service.retry import Retry
from service.state.shared_spool import MixedSpool
from service.telemetry.hub import Telemetry


@dataclass(frozen=True, slots=True)
class Delivered:
    """An output's answer to another process.

    Args:
        receipts: The output's receipts.
        refused: The refusals of batches, by position in the chunk.
    """

    receipts: tuple[Receipt, ...]
    refused: Mapping[int, BatchRejected]


class Errand(Protocol):
    """One chunk on its way to an output."""

    def wait(self) -> None:
        """Return once there is an answer, or trouble. Raises Stopped."""

    def answer(self) -> Delivered:
        """Return the output's answer. A call after an exception starts over.

        Raises:
            OutputUnavailable: The output cannot take it now.
            StateUnavailable: The spool cannot be read now.
            WorkersUnavailable: There is no process to write it.
            SpoolDamaged: The spool file is damaged.
            Stopped: The service was asked to stop meanwhile.
        """


class Courier(Protocol):
    """Lets other processes write to one output."""

    def begin(self, name: str, receipts: Mapping[str, Receipt]) -> Errand:
        """Let a process write the spool file of that name."""

    def most_at_a_time(self) -> int:
        """Return how many chunks may be in progress."""


class RemoteOutputWorker(OutputWorker):
    """Delivers chunks to one output through a courier.

    Args:
        output: Not yet open. It is opened here too, and what an earlier run spooled here is written here.
        outbox: Where released chunks wait.
        retry: How to retry the output.
        telemetry: Told what happens.
        courier: Has others write.
    """

    def __init__(self, output: Output, outbox: Outbox, retry: Retry, telemetry: Telemetry, courier: Courier) -> None:
        super().__init__(output, outbox, retry, telemetry, batch_by_batch=False)
        self._courier = courier

    def _deliver(self) -> None:
        under_way: deque[tuple[int, Errand]] = deque()
        receipts = self._positions.receipts(self.output.name)
        for chunk in self._chunks():
            if chunk is not None:
                self._is_caught_up = False
                name = self._name_of(chunk)
                if name is None:
                    self._finish_all(under_way)
                    self._deliver_here(chunk)
                else:
                    under_way.append((chunk, self._courier.begin(name, receipts)))
            if under_way and (chunk is None or len(under_way) >= self._courier.most_at_a_time()):
                self._finish_next(under_way)
            elif chunk is None:
                self._wait_for_work()
        self._finish_all(under_way)

    def _name_of(self, chunk: int) -> str | None:
        spool = self._outbox.store.spool
        return spool.name_of(chunk) if isinstance(spool, MixedSpool) else None

    def _finish_all(self, under_way: deque[tuple[int, Errand]]) -> None:
        while under_way:
            self._finish_next(under_way)

    def _finish_next(self, under_way: deque[tuple[int, Errand]]) -> None:
        """Wait until the first chunk is written, and record it. Later chunks may already be written, and are recorded in their turn."""
        chunk, errand = under_way.popleft()
        crash_points.reached(crash_points.BEFORE_WRITE)
        # Waiting for its turn is not a retry, so it does not count against RETRY_BUDGET_SECONDS.
        errand.wait()
        delivered = self._retry.until_done(errand.answer)
        rows = self._state_retry.until_done(partial(self._positions.rows_of, chunk))
        refused = self._set_all_aside(chunk, delivered.refused) if delivered.refused else {}
        self._telemetry.wrote(self.output, rows - sum(refused.values()))
        self._record_taken(chunk, delivered.receipts, rows, refused)

    def _set_all_aside(self, chunk: int, refused: Mapping[int, BatchRejected]) -> dict[str, int]:
        batches = self._state_retry.until_done(partial(self._outbox.batches_of, chunk))
        return {batches[at].batch_id: self._set_aside(batches[at], rejection) for at, rejection in refused.items()}

    def _deliver_here(self, chunk: int) -> None:
        """Write a chunk that this machine spooled, as in a run without Dask workers."""
        batches = self._state_retry.until_done(partial(self._outbox.batches_of, chunk))
        for offered in self._offers(batches):
            self._answers += zip(offered, self._write(offered), strict=True)
        self._telemetry.wrote(
            self.output, sum(len(batch) - (answer if isinstance(answer, int) else 0) for batch, answer in self._answers)
        )
        self._record_answers(chunk)
