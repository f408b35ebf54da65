"""The same work for many things, several at a time."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

_T = TypeVar("_T")
_R = TypeVar("_R")


class Job(Generic[_R]):
    """What lanes were given together."""

    def __init__(self, size: int) -> None:
        self._results: dict[int, _R] = {}
        self._left = size
        self._failure: BaseException | None = None
        self._changed = threading.Condition()

    def results(self) -> list[_R]:
        """Return what the work returned for each thing, in order; or raise the first failure. Waits until nothing is under way."""
        with self._changed:
            self._changed.wait_for(lambda: not self._left)
        if self._failure is not None:
            raise self._failure
        return [self._results[index] for index in sorted(self._results)]

    def did(self, index: int, result: _R) -> None:
        """Remember one result."""
        with self._changed:
            self._results[index] = result
            self._left -= 1
            self._changed.notify_all()

    def failed(self, failure: BaseException) -> None:
        """Remember that one thing was not done, and why."""
        with self._changed:
            self._failure = self._failure or failure
            self._left -= 1
            self._changed.notify_all()


class Lanes(Generic[_T, _R]):
    """Threads that do what they are given, in order, at most `lanes` things under way at a time. Nothing is begun after a failure.

    The threads are daemons, unlike those of `concurrent.futures`: a write that hangs must not keep the process from ending.

    Args:
        work: Done for each thing.
        lanes: How many threads.
    """

    def __init__(self, work: Callable[[_T], _R], *, lanes: int) -> None:
        self._work = work
        self._waiting: queue.SimpleQueue[tuple[Job[_R], int, _T] | None] = queue.SimpleQueue()
        self._failure: BaseException | None = None
        self._threads = [threading.Thread(target=self._lane, daemon=True) for _ in range(lanes)]
        for thread in self._threads:
            thread.start()

    def begin(self, things: Sequence[_T]) -> Job[_R]:
        """Have the work done for some things, after those that were given before."""
        job: Job[_R] = Job(len(things))
        for index, thing in enumerate(things):
            self._waiting.put((job, index, thing))
        return job

    def close(self) -> None:
        """Let the threads end once everything is done."""
        for _ in self._threads:
            self._waiting.put(None)

    def _lane(self) -> None:
        while (given := self._waiting.get()) is not None:
            job, index, thing = given
            if self._failure is not None:
                job.failed(self._failure)
                continue
            try:
                job.did(index, self._work(thing))
            except BaseException as error:  # noqa: BLE001  (raised by `results`, in the thread that asks)
                self._failure = error
                job.failed(error)
