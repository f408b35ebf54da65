"""Reads chunks before they are asked for: those that follow, and the newest window of a stream while it is counted."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial

import numpy as np
import numpy.typing as npt

from anonymizer.samples import Samples, SampleSource, joined
from anonymizer.windows import WindowRange
from service.pipeline.chunks import Chunk

Read = Callable[[Chunk], Samples]

#: A window that is expected to have at least so many rows is read in as many parts as the source answers at a time.
_MANY_ROWS = 50_000


class Pending:
    """Samples that a thread of their own reads.

    Args:
        read: Reads them, or raises.
    """

    def __init__(self, read: Callable[[], Samples]) -> None:
        self._read = read
        self._samples: Samples | None = None
        self._failure: Exception | None = None
        # A daemon thread: a missing answer must not keep the process alive.
        self._thread = threading.Thread(target=self._run, name="read ahead", daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Return once the read has succeeded or failed."""
        self._thread.join()

    def take(self) -> Samples:
        """Return the samples, or raise the read's error. A second call reads again."""
        self.wait()
        samples, failure, self._samples, self._failure = self._samples, self._failure, None, None
        if failure is not None:
            raise failure
        return self._read() if samples is None else samples

    def _run(self) -> None:
        try:
            self._samples = self._read()
        except Exception as error:  # noqa: BLE001  (raised by `take`, in the thread that asks)
            self._failure = error


class Reading:
    """One chunk, and its samples, which a separate thread reads.

    Args:
        chunk: The chunk to read. An empty one is not read.
        read: Reads it completely, or raises.
    """

    def __init__(self, chunk: Chunk, read: Read) -> None:
        self.chunk = chunk
        self._read = partial(read, chunk)
        self._pending = None if chunk.is_empty else Pending(self._read)

    def wait(self) -> None:
        """Return once the read has succeeded or failed."""
        if self._pending is not None:
            self._pending.wait()

    def take(self) -> Samples:
        """Return the samples, or raise the read's error. A second call reads again."""
        return self._read() if self._pending is None else self._pending.take()


class NewestWindow:
    """Counts and reads the newest window of a stream at the same time, since outputs wait for it.

    The count may then include rows that came after the read; `read_completely` reads such a window again.

    Args:
        source: Where the rows are.
    """

    def __init__(self, source: SampleSource) -> None:
        self._source = source
        self._rows = 0

    def count(self, window: WindowRange) -> tuple[npt.NDArray[np.int64], Callable[[], Samples] | None]:
        """Return the window's count, and what returns its samples; None if they are not being read, because the last window was empty."""
        early = self._begin(window) if self._rows else None
        counted = self._source.count(window)
        self._rows = int(counted.sum())
        return counted, early

    def _begin(self, window: WindowRange) -> Callable[[], Samples]:
        parts = self._source.concurrent_reads if self._rows >= _MANY_ROWS else 1
        pieces = WindowRange(window.start_ns, window.end_ns, window.length_ns // parts)
        pending = [Pending(partial(self._source.read, pieces.part(index, index + 1))) for index in range(parts)]
        return lambda: joined([one.take() for one in pending])


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
