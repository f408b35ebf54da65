"""A pool of worker threads that starts items in order."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

_T = TypeVar("_T")
_R = TypeVar("_R")


class Job(Generic[_R]):
    """Items given to a worker pool together."""

    def __init__(self, size: int) -> None:
        self._results: dict[int, _R] = {}
        self._left = size
        self._failure: BaseException | None = None
        self._changed = threading.Condition()

    def results(self) -> list[_R]:
        """Return the results in order, or raise the first failure. Waits until nothing is running."""
        with self._changed:
            self._changed.wait_for(lambda: not self._left)
        if self._failure is not None:
            raise self._failure
        return [self._results[index] for index in sorted(self._results)]

    def did(self, index: int, result: _R) -> None:
        """Keep one result."""
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


class WorkerPool(Generic[_T, _R]):
    """Starts items in order, at most `concurrency` at a time, and none after a failure.

    The threads are daemons, unlike those of `concurrent.futures`: a write that hangs must not keep the process from ending.

    Args:
        work: Called for each item.
        concurrency: How many threads.
    """

    def __init__(self, work: Callable[[_T], _R], *, concurrency: int) -> None:
        self._work = work
        self._waiting: queue.SimpleQueue[tuple[Job[_R], int, _T] | None] = queue.SimpleQueue()
        self._failure: BaseException | None = None
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(concurrency)]
        for thread in self._threads:
            thread.start()

    def begin(self, items: Sequence[_T]) -> Job[_R]:
        """Queue items behind those queued before."""
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
                job.did(index, self._work(item))
            except BaseException as error:  # noqa: BLE001  (raised by `results`, in the thread that asks)
                self._failure = error
                job.failed(error)
