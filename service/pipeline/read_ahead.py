"""Reads ahead: the chunks that follow, and the newest window of a stream before it is due."""

from __future__ import annotations

import math
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial

import numpy as np
import numpy.typing as npt

from anonymizer.errors import SourceError
from anonymizer.samples import Samples, SampleSource, joined, rows_by_source
from anonymizer.windows import NANOSECONDS, WindowRange
from service.pipeline.chunks import Chunk, replaced
from service.pipeline.schedule import Stream

Read = Callable[[Chunk], Samples]

#: A part of a window has at least so many rows: smaller queries cost the server more than they save.
_ROWS_PER_PART = 10_000


class Pending:
    """Samples that a separate thread reads.

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

    def has_ended(self) -> bool:
        """Return whether the read has succeeded or failed."""
        return not self._thread.is_alive()

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
        self.rows = int(chunk.counted.sum())
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
    """Reads the newest window of a stream early and in parts, since outputs wait for it.

    A part is read once it is as old as ALLOWED_LATENESS_SECONDS asks, the last one while the window is counted. The counts decide: a part
    in which a source has another number of rows by then is read again (decision 037). Nothing is read while outputs store the window
    before.

    Args:
        source: Where the rows are.
        stream: Knows the next window, and which time is old enough. It is told to poll at the end of each part.
    """

    def __init__(self, source: SampleSource, stream: Stream) -> None:
        self._source = source
        self._stream = stream
        self._rows = 0
        self._parts = WindowRange(0, 0, 1)
        self._early: list[_Early] = []

    def begin(self) -> None:
        """Begin to read the parts of the next window that are old enough, unless an earlier read is still running."""
        if not (self._rows and self.leaves_time()):
            return
        self._cut(self._stream.next_window)
        begun = sum(len(one.parts) for one in self._early)
        stop = (
            min(self._stream.aged_ns - self._parts.start_ns, self._parts.end_ns - self._parts.start_ns) // self._parts.length_ns
        )
        if stop > begun and all(one.has_ended() for one in self._early):
            self._early.append(_Early(self._source, self._parts.part(begun, stop)))

    def count(self, window: WindowRange) -> tuple[npt.NDArray[np.int64], Callable[[], Samples] | None]:
        """Return the window's count, and what returns its samples; None if they are not being read, because the last window was empty."""
        self._cut(window)
        early, rest = self._early, self._begin_rest() if self._rows else []
        counted = self._source.count_by_source(self._parts)
        counts = dict(zip((part.start_ns for part in self._parts), counted, strict=True))
        self._rows = sum(part.total() for part in counted)
        self._stream.part_ns = window.length_ns // _parts_in(window, self._rows)
        self._early = []

        def take() -> Samples:
            return joined([one.take(counts) for one in early] + [one.take() for one in rest])

        return np.array([self._rows]), take if early or rest else None

    def leaves_time(self) -> bool:
        """Return whether other queries may be sent: not just after a large window was released, while outputs store it."""
        stream = self._stream
        # Negative after a clock was set back.
        aged_ns = stream.aged_ns - stream.next_window.start_ns
        return stream.part_ns == stream.length_ns or not 0 <= aged_ns < stream.length_ns // 2

    def _cut(self, window: WindowRange) -> None:
        """Keep what was begun of this window, and nothing of another."""
        parts = WindowRange(window.start_ns, window.end_ns, self._stream.part_ns)
        if parts != self._parts:
            self._parts, self._early = parts, []

    def _begin_rest(self) -> list[Pending]:
        begun, at_a_time = sum(len(one.parts) for one in self._early), self._source.concurrent_reads
        pieces = np.array_split(np.arange(begun, len(self._parts)), at_a_time)
        spans = [self._parts.part(int(piece[0]), int(piece[-1]) + 1) for piece in pieces if len(piece)]
        return [Pending(partial(self._source.read, span)) for span in spans]


class _Early:
    """Neighbouring parts that are read before the window is due."""

    def __init__(self, source: SampleSource, parts: WindowRange) -> None:
        self.parts = parts
        self._source = source
        self._rows: list[Counter[str]] = []
        self._pending = Pending(self._read)

    def _read(self) -> Samples:
        samples = self._source.read(self.parts)
        # Counted here, since outputs do not wait for it yet.
        self._rows = rows_by_source(samples, self.parts)
        return samples

    def has_ended(self) -> bool:
        """Return whether the read has succeeded or failed."""
        return self._pending.has_ended()

    def take(self, counts: Mapping[int, Counter[str]]) -> Samples:
        """Return the samples; read those parts again in which a source has another number of rows than was counted since.

        Args:
            counts: The rows of each source, by a part's start.
        """
        try:
            samples = self._pending.take()
        except SourceError:
            # It failed before the window was due; only an error from now on matters.
            return self._source.read(self.parts)
        for index, rows in enumerate(self._rows):
            part = self.parts.part(index, index + 1)
            if rows != counts[part.start_ns]:
                samples = replaced(samples, part, self._source.read(part))
        return samples


def _parts_in(window: WindowRange, rows: int) -> int:
    """Return in how many parts of whole seconds a window is read, if it has about so many rows."""
    seconds = window.length_ns // NANOSECONDS
    return max(number for number in range(1, seconds + 1) if seconds % number == 0 and number <= max(1, rows // _ROWS_PER_PART))


def read_ahead(chunks: Iterable[Chunk], read: Read, *, at_a_time: int = 1, most_rows: float = math.inf) -> Iterator[Reading]:
    """Yield each chunk's reading once it has ended; the next ones run while the caller works on it.

    Args:
        chunks: The chunks to read, in order.
        read: Reads one completely, or raises.
        at_a_time: How many reads may run at a time.
        most_rows: No further read begins while those that run and the one that the caller works on have so many rows together.
    """
    waiting, under_way, in_hand = iter(chunks), deque[Reading](), list[Reading]()

    def begin() -> None:
        while len(under_way) < at_a_time and sum(one.rows for one in (*in_hand, *under_way)) < most_rows:
            chunk = next(waiting, None)
            if chunk is None:
                break
            under_way.append(Reading(chunk, read))

    begin()
    while under_way:
        under_way[0].wait()
        in_hand.append(under_way.popleft())
        begin()
        yield in_hand[0]
        in_hand.clear()
        begin()
