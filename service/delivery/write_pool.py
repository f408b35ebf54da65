"""The threads with which an output worker writes several batches at a time, started in order."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

_T = TypeVar("_T")
_R = TypeVar("_R")


class Job(Generic[_R]):
    """Items submitted to a pool together."""

    def __init__(self, size: int) -> None:
        self._results: dict[int, _R] = {}
        self._left = size
        self._failure: BaseException | None = None
        self._changed = threading.Condition()

    def results(self) -> list[_R]:
        """Wait for all items; return their results in order, or raise the first failure."""
        with self._changed:
            self._changed.wait_for(lambda: not self._left)
        if self._failure is not None:
            raise self._failure
        return [self._results[index] for index in sorted(self._results)]

    def succeeded(self, index: int, result: _R) -> None:
        """Store one result."""
        with self._changed:
            self._results[index] = result
            self._left -= 1
            self._changed.notify_all()

    def failed(self, failure: BaseException) -> None:
        """Count one item as failed, and keep the first failure."""
        with self._changed:
            self._failure = self._failure or failure
            self._left -= 1
            self._changed.notify_all()


class WritePool(Generic[_T, _R]):
    """Starts items in order, at most `concurrency` at a time, and none after a failure.

    Unlike those of `concurrent.futures`, the threads are daemons: a write that hangs must not keep the process alive.

    Args:
        work: Called for each item.
        concurrency: The number of threads.
    """

    def __init__(self, work: Callable[[_T], _R], *, concurrency: int) -> None:
        self._work = work
        self._waiting: queue.SimpleQueue[tuple[Job[_R], int, _T] | None] = queue.SimpleQueue()
        self._failure: BaseException | None = None
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(concurrency)]
        for thread in self._threads:
            thread.start()

    def submit(self, items: Sequence[_T]) -> Job[_R]:
        """Queue items behind those submitted before."""
        job: Job[_R] = Job(len(items))
        for index, item in enumerate(items):
            self._waiting.put((job, index, item))
        return job

    def close(self) -> None:
        """End the threads once the queue is empty."""
        for _ in self._threads:
            self._waiting.put(None)

    def _run(self) -> None:
        while (given := self._waiting.get()) is not None:
            job, index, item = given
            if self._failure is not None:
                job.failed(self._failure)
                continue
            try:
                job.succeeded(index, self._work(item))
            except BaseException as error:  # noqa: BLE001  (raised by `results`, in the thread that asks)
                self._failure = error
                job.failed(error)
