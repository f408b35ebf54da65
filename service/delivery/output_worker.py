"""One thread per output: delivers released chunks in order, and records what the output has taken."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import chain

from anonymizer.batch import Batch
from anonymizer.errors import BatchRejected, IntentChanged, OutputDenied, OutputUnavailable, StateUnavailable
from anonymizer.ports import ChunkOutput, GroupOutput, Output, Receipt
from service import crash_points
from service.clock import Stopped
from service.delivery.outbox import Outbox
from service.delivery.write_pool import Job, WritePool
from service.retry import Retry
from service.state.output_positions import OutputPositions
from service.state.spool import SpoolDamaged
from service.telemetry.hub import Telemetry

#: No further batch is handed to a thread while those behind the first one have so many rows, or the first one alone: it is sent in many
#: requests, which keep an output busy.
_ROWS_UNDER_WAY = 200_000

#: An output's answer for a batch: its receipt, if it gives one; or, as an int, how many rows were set aside.
_Answer = Receipt | int | None


class Offer:
    """Writes batches to one output, each after recording the output's intent.

    Args:
        output: Already open.
        positions: Records its intents.
    """

    def __init__(self, output: Output, positions: OutputPositions) -> None:
        self._output = output
        self._positions = positions
        #: By key, as they are on record.
        self._recorded: dict[str, Receipt] = {}

    def announce(self, batches: Sequence[Batch]) -> None:
        """Record the intents of batches that are about to be written in one transaction instead of one each. Raises as `intent` does."""
        self._record([intent for batch in batches if (intent := self._output.intent(batch)) is not None])

    def once(self, batch: Batch) -> Receipt | None:
        """Record the output's intent, unless there is none or it is recorded, then write. Raises as `Output.write` does."""
        while True:
            intent = self._output.intent(batch)
            if intent is not None:
                self._record([intent])
            try:
                return self._output.write(batch)
            except IntentChanged:
                continue

    def receipts_were_recorded(self, receipts: Iterable[Receipt]) -> None:
        """Forget which intents with the same keys are recorded: the receipts have replaced them."""
        for receipt in receipts:
            self._recorded.pop(_key(receipt), None)

    def _record(self, intents: Sequence[Receipt]) -> None:
        if new := [intent for intent in intents if intent != self._recorded.get(_key(intent))]:
            self._positions.record_receipt(self._output.name, *new)
            self._recorded |= {_key(intent): intent for intent in new}


def _key(receipt: Receipt) -> str:
    return str(receipt.get("key", ""))


@dataclass(frozen=True, slots=True)
class _Group:
    """Batches of one chunk that are reported together. `is_last`: the last group of its chunk."""

    chunk: int
    batches: list[Batch]
    is_last: bool


class OutputWorker(threading.Thread):
    """Delivers chunks to one output, in order.

    An output with a concurrency above 1 writes further batches while earlier ones are recorded in the journal.

    Args:
        output: Not yet open.
        outbox: Holds released chunks.
        retry: How to retry the output.
        telemetry: Receives events.
        batch_by_batch: Whether each batch is reported separately.
    """

    def __init__(self, output: Output, outbox: Outbox, retry: Retry, telemetry: Telemetry, *, batch_by_batch: bool) -> None:
        super().__init__(name=output.name, daemon=True)
        self.output = output
        self.failure: Exception | None = None
        self.has_ended = False
        self.was_tried = threading.Event()
        self._outbox = outbox
        self._retry = retry.for_output(output.name)
        # A back-off of its own for STATE_DIR: an output's long Retry-After must not delay journal writes.
        self._state_retry = retry.for_output(output.name)
        self._telemetry = telemetry
        self._batch_by_batch = batch_by_batch
        self._stopping = threading.Event()
        self._is_caught_up = True
        self._offer = Offer(output, outbox.store.journal.outputs)
        self._answers: list[tuple[Batch, _Answer]] = []

    def ask_to_stop(self) -> None:
        """Let the worker end after the current chunk."""
        self._stopping.set()

    def is_idle(self) -> bool:
        """Return whether the output has taken everything released, and all of it is recorded."""
        try:
            # The order matters: nothing may be pending although the last chunk is still being recorded.
            return self._positions.next_pending(self.output.name) is None and self._is_caught_up
        except StateUnavailable:
            # Unknown counts as busy. The caller asks again, and the worker reports the wait for the disk.
            return False

    def run(self) -> None:
        """Open the output, then deliver what is pending and what is released from now on."""
        try:
            self._retry.until_done(self._open)
            self._deliver()
            self.output.close()
        except Stopped:
            pass
        except Exception as error:  # noqa: BLE001  (kept in `failure`: a thread that dies silently would look idle)
            self.failure = error
            self._telemetry.gave_up(self.output, error)
            # What it holds, such as a locked folder, is free again before the process ends.
            self.output.close()
        self.has_ended = True
        self.was_tried.set()
        self._outbox.wake_all()

    def _open(self) -> None:
        try:
            self.output.open(self._positions.receipts(self.output.name))
        except OutputUnavailable as error:
            # A denial does not count as tried: `Retry` raises it (one-shot) or retries it (stream).
            if not isinstance(error, OutputDenied):
                self.was_tried.set()
            raise
        self.was_tried.set()

    def _deliver(self) -> None:
        pool: WritePool[Sequence[Batch], list[_Answer]] = WritePool(self._write, concurrency=self.output.concurrency)
        under_way: deque[tuple[_Group, Job[list[_Answer]]]] = deque()
        try:
            for group in self._groups():
                if group is not None:
                    self._is_caught_up = False
                    if not under_way:
                        self._telemetry.writing(self.output, group.batches)
                    self._announce(group.batches)
                    under_way.append((group, pool.submit(self._offers(group.batches))))
                if under_way and (group is None or self._keeps_pool_busy(under_way)):
                    self._finish_first(under_way)
                elif not under_way:
                    self._wait_for_work()
            while under_way:
                self._finish_first(under_way)
        except SpoolDamaged:
            # Write and record the groups before the damaged one.
            while under_way:
                self._finish_first(under_way)
            raise
        finally:
            pool.close()

    def _announce(self, batches: Sequence[Batch]) -> None:
        """Record all intents of an output that writes several batches at a time: they have keys of their own."""
        if self.output.concurrency > 1:
            # If it fails, each write records its own, with retries.
            with suppress(OutputUnavailable, StateUnavailable):
                self._offer.announce(batches)

    def _offers(self, batches: list[Batch]) -> list[list[Batch]]:
        """Split batches into calls of the output: all, as many as it stores together, or one per batch."""
        if isinstance(self.output, ChunkOutput):
            return [batches]
        return (
            _neighbours(batches, self.output.rows_together)
            if isinstance(self.output, GroupOutput)
            else [[one] for one in batches]
        )

    def _keeps_pool_busy(self, under_way: deque[tuple[_Group, Job[list[_Answer]]]]) -> bool:
        """Return whether enough batches follow the first group to keep the pool's threads busy, or enough rows to fill the memory."""
        first, following = under_way[0][0].batches, [batch for group, _ in list(under_way)[1:] for batch in group.batches]
        if len(first) == 1 and len(first[0]) >= _ROWS_UNDER_WAY:
            return True
        return len(following) >= self.output.concurrency - 1 or sum(map(len, following)) >= _ROWS_UNDER_WAY

    def _groups(self) -> Iterator[_Group | None]:
        """Yield groups to write, in order, and None whenever nothing is pending. Ends before the next chunk after a stop request."""
        for chunk in self._chunks():
            if chunk is None:
                yield None
                continue
            batches = self._state_retry.until_done(partial(self._outbox.batches_of, chunk))
            one_by_one = self._batch_by_batch and not isinstance(self.output, ChunkOutput)
            groups = [[batch] for batch in batches] if one_by_one else [batches]
            for index, group in enumerate(groups):
                yield _Group(chunk, group, is_last=index == len(groups) - 1)

    def _chunks(self) -> Iterator[int | None]:
        """Yield the chunks to write, in order; None when none is pending now; end when asked to stop."""
        last_chunk = 0
        while not self._stopping.is_set():
            chunk = self._state_retry.until_done(partial(self._positions.next_pending, self.output.name, after=last_chunk))
            yield chunk
            last_chunk = chunk or last_chunk

    def _wait_for_work(self) -> None:
        if not self._is_caught_up:
            self._is_caught_up = True
            self._outbox.wake_all()
        self._outbox.wait()

    def _finish_first(self, under_way: deque[tuple[_Group, Job[list[_Answer]]]]) -> None:
        """Wait until the first group is written; record its chunk if the group is the last one."""
        group, job = under_way.popleft()
        answers = list(zip(group.batches, chain.from_iterable(job.results()), strict=True))
        self._answers += answers
        self._telemetry.wrote(
            self.output, sum(len(batch) - (answer if isinstance(answer, int) else 0) for batch, answer in answers)
        )
        if group.is_last:
            self._record_answers(group.chunk)
        if under_way:
            self._telemetry.writing(self.output, under_way[0][0].batches)

    def _record_answers(self, chunk: int) -> None:
        answers, self._answers = self._answers, []
        refused = {batch.batch_id: answer for batch, answer in answers if isinstance(answer, int)}
        receipts = [answer for _, answer in answers if answer is not None and not isinstance(answer, int)]
        self._record_taken(chunk, receipts, sum(len(batch) for batch, _ in answers), refused)

    def _record_taken(self, chunk: int, receipts: Sequence[Receipt], rows: int, refused: Mapping[str, int]) -> None:
        crash_points.reached(crash_points.AFTER_WRITE)
        self._state_retry.until_done(
            lambda: self._positions.record_taken(self.output.name, chunk=chunk, receipts=receipts, rows=rows, set_aside=refused)
        )
        self._offer.receipts_were_recorded(receipts)
        crash_points.reached(crash_points.AFTER_TAKEN)
        self._state_retry.until_done(self._outbox.remove_taken)

    def _write(self, batches: Sequence[Batch]) -> list[_Answer]:
        """Write batches; return the answer for each."""
        crash_points.reached(crash_points.BEFORE_WRITE)
        if isinstance(self.output, ChunkOutput):
            write_chunk = self.output.write_chunk
            receipt = self._retry.until_done(lambda: write_chunk(batches))
            return [receipt, *[None] * (len(batches) - 1)]
        if len(batches) > 1 and isinstance(self.output, GroupOutput):
            write_together = self.output.write_together
            if self._retry.until_done(lambda: write_together(batches)):
                return [None] * len(batches)
        return [self._write_one(batch) for batch in batches]

    def _write_one(self, batch: Batch) -> _Answer:
        try:
            return self._retry.until_done(lambda: self._offer.once(batch))
        except BatchRejected as rejection:
            return self._set_aside(batch, rejection)

    def _set_aside(self, batch: Batch, rejection: BatchRejected) -> int:
        keep = self._outbox.store.set_aside.keep
        count = self._state_retry.until_done(lambda: keep(batch, output=self.output.name, rejection=rejection))
        self._telemetry.rejected(self.output, batch, count, rejection)
        return count

    @property
    def _positions(self) -> OutputPositions:
        return self._outbox.store.journal.outputs


def _neighbours(batches: Sequence[Batch], most_rows: int) -> list[list[Batch]]:
    """Split batches into runs of at most `most_rows` rows each, or of a single batch."""
    runs: list[list[Batch]] = []
    rows = 0
    for batch in batches:
        rows += len(batch)
        if not runs or rows > most_rows:
            runs.append([])
            rows = len(batch)
        runs[-1].append(batch)
    return runs
