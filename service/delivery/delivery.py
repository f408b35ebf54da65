"""Delivers released batches: one worker per output; the journal has its position, the spool its pending batches.

A batch is retried until the output has taken it, in the order of release, across restarts, and always with the same bytes: from the spool,
never from the source. A slow or dead output delays only itself, until the spool is full; then the service pauses reading.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence

from anonymizer.batch import Batch
from anonymizer.errors import StateUnavailable
from anonymizer.ports import Output
from service import crash_points
from service.clock import Clock, Stopped
from service.delivery.outbox import NAP_S, Outbox, Store
from service.delivery.output_worker import OutputWorker
from service.delivery.remote_output_worker import Courier, RemoteOutputWorker
from service.log_event import LogEvent
from service.retry import Retry
from service.state.journal import Release
from service.state.shared_spool import MixedSpool, SharedSpool, Spooled
from service.state.spool import SpoolDamaged
from service.telemetry.hub import Telemetry

_SPOOL_HALF_FULL = LogEvent(
    "spool_half_full", "⚠️ The spool is more than half full: %d of %d bytes wait for outputs", "bytes limit_bytes", logging.WARNING
)
_SPOOL_FILE_MOVED_ASIDE = LogEvent(
    "spool_file_moved_aside",
    "⚠️ Spool file %d may hold released rows that no output waits for; it was moved to %s",
    "number path",
    logging.WARNING,
)

#: Above this share of SPOOL_MAX_BYTES the service warns.
_WARNING_SHARE = 0.5


class Delivery:
    """Releases chunks of batches and delivers them.

    Args:
        outputs: Not yet open; each is opened, written to and closed by its own worker.
        store: Journal, spool, and set-aside rows.
        retry: How to retry outputs.
        telemetry: Receives events.
        clock: Knows whether a stop was requested.
        spool_max_bytes: Size limit of the spool.
        batch_by_batch: Whether each batch is reported separately.
        couriers: By output name: lets other processes write what workers spooled. This process writes to all other outputs.
    """

    def __init__(
        self,
        outputs: Sequence[Output],
        store: Store,
        *,
        retry: Retry,
        telemetry: Telemetry,
        clock: Clock,
        spool_max_bytes: int,
        batch_by_batch: bool,
        couriers: Mapping[str, Courier] | None = None,
    ) -> None:
        self._store = store
        self._retry = retry
        self._telemetry = telemetry
        self._clock = clock
        self._spool_max_bytes = spool_max_bytes
        self.outbox = Outbox(store)
        self._has_warned = False
        by_name = couriers or {}
        self._workers = [
            RemoteOutputWorker(output, self.outbox, retry, telemetry, by_name[output.name])
            if output.name in by_name
            else OutputWorker(output, self.outbox, retry, telemetry, batch_by_batch=batch_by_batch)
            for output in outputs
        ]

    def start(self) -> None:
        """Clean up after a crash, and start the workers, which begin with pending chunks."""
        outputs, spool = self._store.journal.outputs, self._store.spool
        spool.remove_unfinished()
        given_up = outputs.given_up()
        for number in sorted(spool.numbers() - set(outputs.spooled_chunks())):
            if self._is_obsolete(number, given_up):
                spool.remove(number)
            elif kept := spool.move_aside(number):
                _SPOOL_FILE_MOVED_ASIDE.log(number, kept)
        outputs.add_outputs([worker.output.name for worker in self._workers])
        for standing in outputs.positions():
            if standing.pending:
                self._telemetry.pending_at_start(standing.name, standing.pending)
        for worker in self._workers:
            worker.start()

    def _is_obsolete(self, number: int, given_up: Collection[int]) -> bool:
        """Return whether a spool file can be removed: every output has taken it, or it was never released, so the source is read again."""
        journal = self._store.journal
        if number < journal.outputs.next_chunk():
            return number not in given_up
        try:
            windows = [batch.window for batch in self._store.spool.read(number)]
        except (SpoolDamaged, StateUnavailable):
            return False
        # Keep it if its windows are released: the file may be their only copy.
        return not any(journal.entries_within(window) for window in windows)

    def release(self, batches: list[Batch], *, stream_to_ns: int | None, releases: Sequence[Release] = ()) -> None:
        """Make batches final, then offer them to outputs. After a crash before the journal entry, their windows are read again.

        Args:
            batches: Certified.
            stream_to_ns: The stream's new position; None in a one-shot run.
            releases: What the journal records of them; empty: their own counts, which know nothing of excluded rows.

        Raises:
            RetriesExhausted: The disk cannot write them. If it failed at the fence, the chunk is released, and delivered after a restart.
            Stopped: The service was asked to stop first; the same applies.
        """
        spool = self._store.spool
        number = self._retry.until_done(self._store.journal.outputs.next_chunk)
        size_bytes = self._retry.until_done(lambda: spool.write(number, batches))
        releases = releases or [Release(batch.window, batch.counts) for batch in batches]
        self._make_final(number, releases, Spooled("", size_bytes), stream_to_ns=stream_to_ns)
        self.outbox.put(number, batches)

    def release_spooled(self, releases: Sequence[Release], spooled: Spooled) -> None:
        """Make a chunk final that a worker has spooled, then offer it. Raises as `release` does."""
        spool = self._store.spool
        assert isinstance(spool, MixedSpool), "workers share a spool"
        self._retry.until_done(lambda: _check_visible(spool.shared, spooled))
        number = self._retry.until_done(self._store.journal.outputs.next_chunk)
        # Before the journal offers it to workers, who ask for its name.
        spool.add(number, spooled.name)
        self._make_final(number, releases, spooled, stream_to_ns=None)
        self.outbox.wake_all()

    def _make_final(self, number: int, releases: Sequence[Release], spooled: Spooled, *, stream_to_ns: int | None) -> None:
        journal = self._store.journal
        rows = sum(release.counts.released for release in releases)
        crash_points.reached(crash_points.AFTER_SPOOL)
        self._telemetry.releasing(rows)
        self._retry.until_done(
            lambda: journal.record_release(
                releases,
                chunk=number,
                size_bytes=spooled.size_bytes,
                now_ns=self._clock.now_ns(),
                stream_to_ns=stream_to_ns,
                spool_name=spooled.name,
            )
        )
        self._telemetry.released(rows)
        crash_points.reached(crash_points.BEFORE_FENCE)
        self._retry.until_done(journal.raise_fence)
        crash_points.reached(crash_points.AFTER_RELEASED)

    def wait_for_room(self, meanwhile: Callable[[], None] = lambda: None) -> None:
        """Return once the spool is below its limit, or a worker has given up: back-pressure instead of loss.

        Args:
            meanwhile: Called repeatedly while the spool is full.

        Raises:
            RetriesExhausted: The journal cannot be read.
            Stopped: The service was asked to stop.
        """
        paused = False
        while (waiting := self._retry.until_done(self._spooled_bytes)) >= self._spool_max_bytes and self.is_delivering():
            if not paused:
                self._telemetry.reading_pauses(waiting, self._spool_max_bytes)
                paused = True
            self.outbox.wait()
            meanwhile()
            if self._clock.is_stopping():
                raise Stopped
        if paused:
            self._telemetry.reading_resumes()
        self._warn_if_half_full(waiting)

    def wait_until_tried(self) -> None:
        """Return once every output has been tried, or a stop was requested, so that a denial is known before anything is read."""
        for worker in self._workers:
            while not (worker.was_tried.wait(NAP_S) or self._clock.is_stopping()):
                pass

    def is_delivering(self) -> bool:
        """Return whether no worker has given up."""
        return all(worker.failure is None for worker in self._workers)

    def drain(self, *, within_s: float | None = None) -> None:
        """Return once every worker has delivered everything or ended, or `within_s` has passed.

        Args:
            within_s: How long to wait; None: until done or a stop request.
        """
        deadline_s = None if within_s is None else self._clock.monotonic_s() + within_s
        while any(not worker.has_ended and not worker.is_idle() for worker in self._workers):
            if (deadline_s is None and self._clock.is_stopping()) or (
                deadline_s is not None and self._clock.monotonic_s() > deadline_s
            ):
                return
            self.outbox.wait()

    def stop(self, grace_s: float) -> None:
        """Let workers deliver for at most `grace_s`, then ask them to stop; unfinished batches stay in the spool."""
        self.drain(within_s=grace_s)
        for worker in self._workers:
            worker.ask_to_stop()
        self.outbox.wake_all()
        for worker in self._workers:
            worker.join(NAP_S)

    def failures(self) -> list[Exception]:
        """Return the exceptions with which workers ended."""
        return [worker.failure for worker in self._workers if worker.failure is not None]

    def _spooled_bytes(self) -> int:
        return self._store.journal.outputs.spooled().size_bytes

    def _warn_if_half_full(self, waiting: int) -> None:
        is_high = waiting > self._spool_max_bytes * _WARNING_SHARE
        if is_high and not self._has_warned:
            _SPOOL_HALF_FULL.log(waiting, self._spool_max_bytes)
        self._has_warned = is_high


def _check_visible(shared: SharedSpool, spooled: Spooled) -> None:
    """Raise StateUnavailable unless this process can see a worker's spool file: after the release it may be the only copy."""
    if not shared.holds(spooled):
        raise StateUnavailable(
            f"SPOOL_URL {shared.address} does not contain a file that a worker has written: is it the same folder or bucket on every "
            "machine, and its disk mounted?"
        )
