"""Reading the next chunks while the one before them is anonymized, as many at a time as the source takes."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator

from anonymizer.samples import Samples
from service.pipeline.chunks import Chunk

Read = Callable[[Chunk], Samples]


class Reading:
    """One chunk, and its samples, which are read by a thread of their own.

    Args:
        chunk: What to read; nothing is, when it is empty.
        read: Reads it completely, or raises.
    """

    def __init__(self, chunk: Chunk, read: Read) -> None:
        self.chunk = chunk
        self._read = read
        self._samples: Samples | None = None
        self._failure: Exception | None = None
        self._thread: threading.Thread | None = None
        if not chunk.is_empty:
            # A daemon: an answer that does not come must not keep the process from ending.
            self._thread = threading.Thread(target=self._run, name="read ahead", daemon=True)
            self._thread.start()

    def wait(self) -> None:
        """Return once the read has ended, well or not."""
        if self._thread is not None:
            self._thread.join()

    def take(self) -> Samples:
        """Return the samples, or raise what reading them raised. Asked again, it reads again."""
        self.wait()
        samples, failure, self._samples, self._failure = self._samples, self._failure, None, None
        if failure is not None:
            raise failure
        return self._read(self.chunk) if samples is None else samples

    def _run(self) -> None:
        try:
            self._samples = self._read(self.chunk)
        except Exception as error:  # noqa: BLE001  (raised by `take`, in the thread that asks)
            self._failure = error


def read_ahead(chunks: Iterable[Chunk], read: Read, *, at_a_time: int = 1) -> Iterator[Reading]:
    """Yield each chunk's reading once it has ended; the next ones run while the caller works on it.

    Args:
        chunks: What to read, in order.
        read: Reads one completely, or raises.
        at_a_time: How many reads may be under way.
    """
    waiting, under_way = iter(chunks), deque[Reading]()

    def begin() -> None:
        while len(under_way) < at_a_time and (chunk := next(waiting, None)) is not None:
            under_way.append(Reading(chunk, read))

    begin()
    while under_way:
        under_way[0].wait()
        reading = under_way.popleft()
        begin()
        yield reading
