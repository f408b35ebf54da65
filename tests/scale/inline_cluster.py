"""Workers that are threads of this process: what Dask may do to tasks and answers, whenever a test wants it to.

Run as a program it is the service with such workers: `python -m tests.scale.inline_cluster`.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar

import service.scale.workforce
from anonymizer.errors import ConfigurationError
from service.process import run

Task = dict[str, Any]
Work = Callable[[Task], Any]


def do(work: Work, task: Task) -> Any:
    """Do a task as a worker of several threads does."""
    return work(task)


class InlineFuture:
    """A task that was given to a thread."""

    def __init__(self) -> None:
        self.status = "pending"
        self._done = threading.Event()
        self._answer: Any = None

    def add_done_callback(self, call: Callable[[Any], None]) -> None:
        def wait() -> None:
            self._done.wait()
            call(self)

        threading.Thread(target=wait, daemon=True).start()

    def result(self, timeout: float) -> Any:
        if self.status != "finished":
            raise RuntimeError("a text that must not be shown")
        return self._answer

    def release(self) -> None:
        pass

    def end(self, status: str, answer: Any = None) -> None:
        self._answer, self.status = answer, status
        self._done.set()


class InlineCluster:
    """Stands in for `service.scale.cluster.Cluster`.

    Args:
        given: As for that class.
    """

    #: Does a task, or does something else to it; a test puts its own here.
    perform: Callable[[Work, Task], Any] = staticmethod(do)
    #: What `perform` raised that is no loss of a worker: a mistake of the test, or what it asserts.
    failed: ClassVar[list[BaseException]] = []

    def __init__(self, *given: Any) -> None:
        self._clock = given[2]
        self._pool = ThreadPoolExecutor(4)
        self._chance = random.Random(17)
        self.generation = 1
        self.submitted = 0

    def open(self) -> None:
        pass

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)

    def most_at_a_time(self) -> int:
        return 6

    def submit(self, function: Work, task: Task, priority: int) -> tuple[InlineFuture, int, frozenset[str]]:
        future, pause_s = InlineFuture(), self._chance.uniform(0, 0.02)
        self.submitted += 1
        self._pool.submit(self._run, future, function, task, pause_s)
        return future, self.generation, frozenset()

    def _run(self, future: InlineFuture, function: Work, task: Task, pause_s: float) -> None:
        # So chunks finish out of order.
        time.sleep(pause_s)
        status, answer = "error", None
        try:
            status, answer = "finished", type(self).perform(function, task)
        except ConnectionError:
            pass
        except BaseException as error:  # noqa: BLE001
            self.failed.append(error)
        finally:
            # Without an end, the service would wait for ever.
            future.end(status, answer)

    def see_that_it_works(self) -> None:
        pass

    def is_stranded(self, fit: frozenset[str]) -> bool:
        return False

    def is_stopping(self) -> bool:
        return bool(self._clock.is_stopping())

    def refuse_worker_of(self, future: InlineFuture, said: str) -> None:
        raise ConfigurationError(f"{said}: no other worker is left")


def main() -> None:
    """Be the service, with such workers."""
    import central_anonymizer

    service.scale.workforce.Cluster = InlineCluster  # type: ignore[attr-defined, assignment]
    run(central_anonymizer.main)


if __name__ == "__main__":
    main()
