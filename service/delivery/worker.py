"""Brings what was released to one output, in order, and notes what it has taken."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain

from anonymizer.batch import Batch
from anonymizer.errors import BatchRejected, OutputDenied, OutputUnavailable, StateUnavailable
from anonymizer.ports import ChunkOutput, Output, Receipt
from service import crash_points
from service.clock import Stopped
from service.delivery.offer import Offer
from service.delivery.outbox import Outbox
from service.delivery.worker_pool import Job, WorkerPool
from service.retry import Retry
from service.state.output_standings import OutputStandings
from service.state.spool import SpoolDamaged
from service.telemetry.hub import Telemetry

#: What the output said of a batch: its receipt, if it gives any; or how many rows were set aside.
_Answer = Receipt | int | None


@dataclass(frozen=True, slots=True)
class _Group:
    """Batches of one chunk that are reported together; `is_last` of their chunk."""

    chunk: int
    batches: list[Batch]
    is_last: bool


class Worker(threading.Thread):
    """Brings chunks to one output, in order.

    An output that takes several batches at a time is given the next ones while what it took before is put on record: it never waits for us.

    Args:
        output: Not yet open.
        outbox: Where released chunks wait.
        retry: How long to wait for an output.
        telemetry: Told what happens.
        batch_by_batch: Whether each batch is reported by itself.
    """

    def __init__(self, output: Output, outbox: Outbox, retry: Retry, telemetry: Telemetry, *, batch_by_batch: bool) -> None:
        super().__init__(name=output.name, daemon=True)
        self.output = output
        self.failure: Exception | None = None
        self.has_ended = False
        self.was_tried = threading.Event()
        self._outbox = outbox
        self._retry = retry.for_output(output.name)
        # A full disk of ours waits by itself: an output may have asked for minutes.
        self._state_retry = retry.for_output(output.name)
        self._telemetry = telemetry
        self._batch_by_batch = batch_by_batch
        self._stopping = threading.Event()
        self._is_resting = True
        self._offer = Offer(output, outbox.store.journal.outputs)
        self._answers: list[tuple[Batch, _Answer]] = []

    def ask_to_stop(self) -> None:
        """Let the worker end after the chunk in hand."""
        self._stopping.set()

    def is_idle(self) -> bool:
        """Return whether the output has everything that was released, and nothing is left to be put away."""
        try:
            # In this order: nothing pending may mean that the last chunk is just being put away.
            return self._standings.next_pending(self.output.name) is None and self._is_resting
        except StateUnavailable:
            # Not known now, so not idle: the caller asks again, and the worker itself says that it waits for the disk.
            return False

    def run(self) -> None:
        """Open the output, bring it what is pending, and what is released from now on."""
        try:
            self._retry.until_done(self._open)
            self._deliver()
            self.output.close()
        except Stopped:
            pass
        except Exception as error:  # noqa: BLE001  (told by `failure`: a thread that dies in silence would look like one with nothing to do)
            self.failure = error
            self._telemetry.gave_up(self.output, error)
        self.has_ended = True
        self.was_tried.set()
        self._outbox.wake_all()

    def _open(self) -> None:
        try:
            self.output.open(self._standings.receipts(self.output.name))
        except OutputUnavailable as error:
            # One that refuses us is still to be told apart from one that may come back; `Retry` decides.
            if not isinstance(error, OutputDenied):
                self.was_tried.set()
            raise
        self.was_tried.set()

    def _deliver(self) -> None:
        pool: WorkerPool[Sequence[Batch], list[_Answer]] = WorkerPool(self._write, concurrency=self.output.concurrency)
        under_way: deque[tuple[_Group, Job[list[_Answer]]]] = deque()
        try:
            for group in self._groups():
                if group is not None:
                    self._is_resting = False
                    if not under_way:
                        self._telemetry.writing(self.output, group.batches)
                    under_way.append((group, pool.begin(self._offers(group.batches))))
                if under_way and (group is None or self._is_enough(under_way)):
                    self._finish_first(under_way)
                elif not under_way:
                    self._rest()
            while under_way:
                self._finish_first(under_way)
        except SpoolDamaged:
            # What lies before the damage is written, and is put on record.
            while under_way:
                self._finish_first(under_way)
            raise
        finally:
            pool.close()

    def _offers(self, batches: list[Batch]) -> list[list[Batch]]:
        """Return what the output is given at a time: a chunk if it stores chunks, else each batch."""
        return [batches] if isinstance(self.output, ChunkOutput) else [[batch] for batch in batches]

    def _is_enough(self, under_way: deque[tuple[_Group, Job[list[_Answer]]]]) -> bool:
        """Return whether every worker thread stays busy, even when the first group is nearly written."""
        return sum(len(group.batches) for group, _ in under_way) - len(under_way[0][0].batches) >= self.output.concurrency - 1

    def _groups(self) -> Iterator[_Group | None]:
        """Yield what is to be written, in order; None when there is nothing more now. Ends behind a chunk when we are asked to stop."""
        last_chunk = 0
        while not self._stopping.is_set():
            chunk = self._state_retry.until_done(partial(self._standings.next_pending, self.output.name, after=last_chunk))
            if chunk is None:
                yield None
                continue
            batches = self._state_retry.until_done(partial(self._outbox.batches_of, chunk))
            one_by_one = self._batch_by_batch and not isinstance(self.output, ChunkOutput)
            groups = [[batch] for batch in batches] if one_by_one else [batches]
            for index, group in enumerate(groups):
                yield _Group(chunk, group, is_last=index == len(groups) - 1)
            last_chunk = chunk

    def _rest(self) -> None:
        if not self._is_resting:
            self._is_resting = True
            self._outbox.wake_all()
        self._outbox.wait()

    def _finish_first(self, under_way: deque[tuple[_Group, Job[list[_Answer]]]]) -> None:
        """Wait until a group is written, and put its chunk on record once that is complete."""
        group, job = under_way.popleft()
        answers = list(zip(group.batches, chain.from_iterable(job.results()), strict=True))
        self._answers += answers
        self._telemetry.wrote(
            self.output, sum(len(batch) - (answer if isinstance(answer, int) else 0) for batch, answer in answers)
        )
        if group.is_last:
            self._put_on_record(group.chunk)
        if under_way:
            self._telemetry.writing(self.output, under_way[0][0].batches)

    def _put_on_record(self, chunk: int) -> None:
        answers, self._answers = self._answers, []
        refused = {batch.batch_id: answer for batch, answer in answers if isinstance(answer, int)}
        receipts = [answer for _, answer in answers if answer is not None and not isinstance(answer, int)]
        rows = sum(len(batch) for batch, _ in answers)
        crash_points.reached(crash_points.AFTER_WRITE)
        self._state_retry.until_done(
            lambda: self._standings.record_taken(self.output.name, chunk=chunk, receipts=receipts, rows=rows, set_aside=refused)
        )
        self._offer.receipts_were_recorded()
        crash_points.reached(crash_points.AFTER_TAKEN)
        self._state_retry.until_done(self._outbox.remove_taken)

    def _write(self, batches: Sequence[Batch]) -> list[_Answer]:
        """Bring one batch, or a chunk, to the output; return for each its receipt, or how many of its rows were set aside."""
        crash_points.reached(crash_points.BEFORE_WRITE)
        if isinstance(self.output, ChunkOutput):
            write_chunk = self.output.write_chunk
            receipt = self._retry.until_done(lambda: write_chunk(batches))
            return [receipt, *[None] * (len(batches) - 1)]
        (batch,) = batches
        try:
            return [self._retry.until_done(lambda: self._offer.once(batch))]
        except BatchRejected as rejection:
            return [self._set_aside(batch, rejection)]

    def _set_aside(self, batch: Batch, rejection: BatchRejected) -> int:
        keep = self._outbox.store.set_aside.keep
        count = self._state_retry.until_done(lambda: keep(batch, output=self.output.name, rejection=rejection))
        self._telemetry.rejected(self.output, batch, count, rejection)
        return count

    @property
    def _standings(self) -> OutputStandings:
        return self._outbox.store.journal.outputs
