"""Reading the next chunk while the one before it is anonymized: one read at a time, one chunk ahead."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator

from anonymizer.samples import Samples
from service.chunks import Chunk

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


def read_ahead(chunks: Iterable[Chunk], read: Read) -> Iterator[Reading]:
    """Yield each chunk's reading once it has ended; the next one is under way while the caller works on it."""
    waiting = iter(chunks)
    reading = _next(waiting, read)
    while reading is not None:
        reading.wait()
        following = _next(waiting, read)
        yield reading
        reading = following


def _next(waiting: Iterator[Chunk], read: Read) -> Reading | None:
    chunk = next(waiting, None)
    return None if chunk is None else Reading(chunk, read)
