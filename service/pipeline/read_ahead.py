"""Reads the next chunks while the current one is anonymized, as many at a time as the source supports."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator

from anonymizer.samples import Samples
from service.pipeline.chunks import Chunk

Read = Callable[[Chunk], Samples]


class Reading:
    """One chunk, and its samples, which a separate thread reads.

    Args:
        chunk: The chunk to read. An empty one is not read.
        read: Reads it completely, or raises.
    """

    def __init__(self, chunk: Chunk, read: Read) -> None:
        self.chunk = chunk
        self._read = read
        self._samples: Samples | None = None
        self._failure: Exception | None = None
        self._thread: threading.Thread | None = None
        if not chunk.is_empty:
            # A daemon thread: a missing answer must not keep the process alive.
            self._thread = threading.Thread(target=self._run, name="read ahead", daemon=True)
            self._thread.start()

    def wait(self) -> None:
        """Return once the read has succeeded or failed."""
        if self._thread is not None:
            self._thread.join()

    def take(self) -> Samples:
        """Return the samples, or raise the read's error. A second call reads again."""
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
        chunks: The chunks to read, in order.
        read: Reads one completely, or raises.
        at_a_time: How many reads may run at a time.
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
