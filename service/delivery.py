"""Brings released batches to every output, each at its own pace: a worker an output, its position in the journal, its batches in the spool.

What was released is offered again and again until the output has it, in the order of release, after a restart too, and always as the same
bytes: from the spool, never from the source. A slow or dead output delays only itself, until the spool is full; then reading pauses.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from anonymizer.batch import Batch
from anonymizer.errors import BatchRejected, OutputDenied, OutputUnavailable
from anonymizer.ports import Output, Receipt
from service import crash_points
from service.clock import Clock, Stopped
from service.journal import Journal, Release
from service.lanes import in_lanes
from service.offer import Offer
from service.output_standings import OutputStandings
from service.patience import Patience
from service.set_aside import SetAside
from service.spool import Spool
from service.telemetry import Telemetry

_LOG = logging.getLogger("ecg_anonymizer")

#: So many chunks stay in memory, so that outputs that keep up need not read them back from the disk.
_CHUNKS_IN_MEMORY = 2

#: How long a worker sleeps when nobody wakes it.
_NAP_S = 0.5

#: From this share of SPOOL_MAX_BYTES on somebody should know.
_ALARM_SHARE = 0.5


@dataclass(frozen=True, slots=True)
class Store:
    """Where a release is kept until every output has it."""

    journal: Journal
    spool: Spool
    set_aside: SetAside


class Delivery:
    """Releases chunks of batches, and has them delivered.

    Args:
        outputs: Not yet open; each is opened, written to and closed by its own worker.
        store: Journal, spool and what was set aside.
        patience: How long to wait for an output.
        telemetry: Told what happens.
        clock: Tells when to stop.
        spool_max_bytes: How much may wait for slow outputs.
        batch_by_batch: Whether each batch is reported by itself.
    """

    def __init__(
        self,
        outputs: Sequence[Output],
        store: Store,
        *,
        patience: Patience,
        telemetry: Telemetry,
        clock: Clock,
        spool_max_bytes: int,
        batch_by_batch: bool,
    ) -> None:
        self._store = store
        self._patience = patience
        self._telemetry = telemetry
        self._clock = clock
        self._spool_max_bytes = spool_max_bytes
        self._wake = threading.Condition()
        self._recent: dict[int, list[Batch]] = {}
        self._has_alarmed = False
        self._workers = [_Worker(output, self, patience, telemetry, batch_by_batch=batch_by_batch) for output in outputs]

    def start(self) -> None:
        """Remove what a crash left, and let the workers begin with what is pending."""
        outputs, spool = self._store.journal.outputs, self._store.spool
        spool.remove_unfinished()
        for number in spool.numbers() - set(outputs.spooled()):
            # Spooled but never released: no output has seen it, and the source will be read again.
            spool.remove(number)
        outputs.add_outputs([worker.output.name for worker in self._workers])
        for standing in outputs.standings():
            if standing.pending:
                self._telemetry.pending_at_start(standing.name, standing.pending)
        for worker in self._workers:
            worker.start()

    def release(self, batches: list[Batch], *, stream_to_ns: int | None) -> None:
        """Fix batches for ever, then offer them. A crash before the journal's entry means that their windows are read again.

        Raises:
            OutOfPatience: The disk did not take them.
            Stopped: We were asked to stop before it did.
        """
        journal, spool = self._store.journal, self._store.spool
        number = journal.outputs.next_chunk()
        releases = [Release(batch.window, batch.counts) for batch in batches]
        rows = sum(map(len, batches))
        size_bytes = self._patience.until_done(lambda: spool.write(number, batches))
        crash_points.reached(crash_points.AFTER_SPOOL)
        self._telemetry.releasing(rows)
        self._patience.until_done(
            lambda: journal.record_release(
                releases, chunk=number, size_bytes=size_bytes, now_ns=self._clock.now_ns(), stream_to_ns=stream_to_ns
            )
        )
        self._telemetry.released(rows)
        crash_points.reached(crash_points.BEFORE_FENCE)
        self._patience.until_done(journal.raise_fence)
        crash_points.reached(crash_points.AFTER_RELEASED)
        with self._wake:
            self._recent[number] = batches
            while len(self._recent) > _CHUNKS_IN_MEMORY:
                del self._recent[min(self._recent)]
            self._wake.notify_all()

    def wait_for_room(self, meanwhile: Callable[[], None] = lambda: None) -> None:
        """Return once the spool has room; back-pressure instead of loss.

        Args:
            meanwhile: Called again and again while there is none.

        Raises:
            Stopped: We were asked to stop meanwhile.
        """
        paused = False
        while (waiting := self._spooled_bytes()) >= self._spool_max_bytes and self.is_delivering():
            if not paused:
                self._telemetry.reading_pauses(waiting, self._spool_max_bytes)
                paused = True
            self._nap()
            meanwhile()
            if self._clock.is_stopping():
                raise Stopped
        if paused:
            self._telemetry.reading_goes_on()
        self._alarm(waiting)

    def wait_until_tried(self) -> None:
        """Return once every output was opened or could not be: what refuses us refuses us before anything is read."""
        for worker in self._workers:
            while not (worker.was_tried.wait(_NAP_S) or self._clock.is_stopping()):
                pass

    def is_delivering(self) -> bool:
        """Return whether no worker has given up."""
        return all(worker.failure is None for worker in self._workers)

    def drain(self, *, within_s: float | None = None) -> None:
        """Return once every worker has taken everything that was released, or has ended, or the time is over.

        Args:
            within_s: How long to wait; None: for ever, or until we are asked to stop.
        """
        deadline_s = None if within_s is None else self._clock.monotonic_s() + within_s
        while any(not worker.has_ended and not worker.is_idle() for worker in self._workers):
            if (deadline_s is None and self._clock.is_stopping()) or (
                deadline_s is not None and self._clock.monotonic_s() > deadline_s
            ):
                return
            self._nap()

    def stop(self, grace_s: float) -> None:
        """Let workers bring what is pending for at most `grace_s`, then end; what they do not finish stays in the spool."""
        self.drain(within_s=grace_s)
        for worker in self._workers:
            worker.ask_to_stop()
        self.wake_all()
        for worker in self._workers:
            worker.join(_NAP_S)

    def failures(self) -> list[Exception]:
        """Return why workers gave up."""
        return [worker.failure for worker in self._workers if worker.failure is not None]

    def _spooled_bytes(self) -> int:
        return sum(self._store.journal.outputs.spooled().values())

    def _alarm(self, waiting: int) -> None:
        is_high = waiting > self._spool_max_bytes * _ALARM_SHARE
        if is_high and not self._has_alarmed:
            _LOG.warning("⚠️ The spool is more than half full: %d of %d bytes wait for outputs", waiting, self._spool_max_bytes)
        self._has_alarmed = is_high

    def _nap(self) -> None:
        with self._wake:
            self._wake.wait(_NAP_S)

    # For the workers

    @property
    def store(self) -> Store:
        """Where releases are kept."""
        return self._store

    def wait_for_chunk(self) -> None:
        """Sleep until something was released, or for a moment."""
        self._nap()

    def batches_of(self, number: int) -> list[Batch]:
        """Return the batches of a chunk, from memory or from the spool."""
        with self._wake:
            recent = self._recent.get(number)
        return self._store.spool.read(number) if recent is None else recent

    def chunk_was_taken(self) -> None:
        """Remove what every output has."""
        for number in self._store.journal.outputs.forget_chunks_all_have():
            crash_points.reached(crash_points.MID_DELETE)
            self._store.spool.remove(number)
        self.wake_all()

    def wake_all(self) -> None:
        """Let everybody look who waits for a change."""
        with self._wake:
            self._wake.notify_all()


class _Worker(threading.Thread):
    """Brings chunks to one output, in order."""

    def __init__(
        self, output: Output, delivery: Delivery, patience: Patience, telemetry: Telemetry, *, batch_by_batch: bool
    ) -> None:
        super().__init__(name=output.name, daemon=True)
        self.output = output
        self.failure: Exception | None = None
        self.has_ended = False
        self.was_tried = threading.Event()
        self._delivery = delivery
        self._patience = patience.for_output(output.name)
        self._telemetry = telemetry
        self._batch_by_batch = batch_by_batch
        self._stopping = threading.Event()
        self._is_resting = True
        self._offer = Offer(output, delivery.store.journal.outputs)

    def ask_to_stop(self) -> None:
        """Let the worker end after the batch in hand."""
        self._stopping.set()

    def is_idle(self) -> bool:
        """Return whether the output has everything that was released, and nothing is left to be put away."""
        # In this order: nothing pending may mean that the last chunk is just being put away.
        return not self._delivery.store.journal.outputs.pending_for(self.output.name) and self._is_resting

    def run(self) -> None:
        """Open the output, bring it what is pending, and what is released from now on."""
        try:
            self._patience.until_done(self._open)
            while not self._stopping.is_set():
                pending = self._delivery.store.journal.outputs.pending_for(self.output.name)
                if pending:
                    self._is_resting = False
                    self._take(pending[0])
                    self._is_resting = True
                    self._delivery.wake_all()
                else:
                    self._delivery.wait_for_chunk()
            self.output.close()
        except Stopped:
            pass
        except Exception as error:  # noqa: BLE001  (told by `failure`: a thread that dies in silence would look like one with nothing to do)
            self.failure = error
            self._telemetry.gave_up(self.output, error)
        self.has_ended = True
        self.was_tried.set()
        self._delivery.wake_all()

    def _open(self) -> None:
        try:
            self.output.open(self._delivery.store.journal.outputs.receipts(self.output.name))
        except OutputUnavailable as error:
            # One that refuses us is still to be told apart from one that may come back; that is patience's work.
            if not isinstance(error, OutputDenied):
                self.was_tried.set()
            raise
        self.was_tried.set()

    def _take(self, number: int) -> None:
        batches = self._delivery.batches_of(number)
        receipts: list[Receipt] = []
        refused: dict[str, int] = {}
        for group in [[batch] for batch in batches] if self._batch_by_batch else [batches]:
            self._telemetry.writing(self.output, group)
            answers = in_lanes(self._write, group, lanes=self.output.lanes)
            set_aside = {batch.batch_id: answer for batch, answer in zip(group, answers, strict=True) if isinstance(answer, int)}
            receipts += [answer for answer in answers if answer is not None and not isinstance(answer, int)]
            self._telemetry.wrote(self.output, sum(map(len, group)) - sum(set_aside.values()))
            refused |= set_aside
        crash_points.reached(crash_points.AFTER_WRITE)
        rows = sum(map(len, batches))
        self._patience.until_done(
            lambda: self._standings.record_taken(self.output.name, chunk=number, receipts=receipts, rows=rows, set_aside=refused)
        )
        self._offer.receipts_were_recorded()
        crash_points.reached(crash_points.AFTER_TAKEN)
        self._patience.until_done(self._delivery.chunk_was_taken)

    def _write(self, batch: Batch) -> Receipt | int | None:
        """Bring one batch to the output; return its receipt, or how many of its rows were set aside."""
        crash_points.reached(crash_points.BEFORE_WRITE)
        try:
            return self._patience.until_done(lambda: self._offer.once(batch))
        except BatchRejected as rejection:
            return self._set_aside(batch, rejection)

    def _set_aside(self, batch: Batch, rejection: BatchRejected) -> int:
        keep = self._delivery.store.set_aside.keep
        count = self._patience.until_done(lambda: keep(batch, output=self.output.name, rejection=rejection))
        self._telemetry.rejected(self.output, batch, count, rejection)
        return count

    @property
    def _standings(self) -> OutputStandings:
        return self._delivery.store.journal.outputs
