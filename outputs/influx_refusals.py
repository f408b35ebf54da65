"""Finds the lines that a server will never store, by bisection, while it stores all others.

Only a success counts. A refusal says little: one kind stores the valid lines of the request, another stores nothing, and the number of
dropped points it states is wrong if there are two reasons. Sending lines again is harmless, since the same point replaces itself. A stored
row may still be reported as refused: an old row is accepted together with a younger one of its shard, and refused alone.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt

from outputs.influx_lines import Lines

#: A field has one type per shard, and no shard is shorter than an hour.
_SHORTEST_SHARD_NS = 3600 * 1_000_000_000

_Numbers = npt.NDArray[np.int64]


class Why(enum.Enum):
    """Why a server will never store a line."""

    TOO_OLD = "older than the bucket keeps rows"
    TYPE = "in a part of the bucket where the field has another type"
    TOO_LARGE = "too large for a request, even alone (413)"
    MALFORMED = "refused"


class Refused(Exception):
    """A request was refused for good.

    Args:
        why: The reason.
        message: The server's message, without any row that it quoted.
    """

    def __init__(self, why: Why, message: str) -> None:
        super().__init__(message)
        self.why = why
        self.message = message


class RowByRow:
    """Stores the lines of one batch, however many of them are refused.

    Args:
        lines: The lines.
        send: Stores some of the lines, given by their indices, or raises Refused.
        concurrency: Most concurrent calls of `send`.
    """

    def __init__(self, lines: Lines, send: Callable[[_Numbers], None], *, concurrency: int = 1) -> None:
        self._lines = lines
        self._send = send
        self._concurrency = concurrency
        self._too_large_bytes = math.inf
        #: The refusal of each refused line, by the line's index.
        self.refused: dict[int, Refused] = {}

    def store(self, most_lines: int) -> None:
        """Store every line that the server accepts, in requests of at most `most_lines`."""
        numbers = np.arange(len(self._lines))
        parts = [numbers[first : first + most_lines] for first in range(0, len(numbers), most_lines)]
        for part, refusal in zip(parts, self._ask_all(parts), strict=True):
            if refusal is not None:
                self._divide(part, refusal)

    def _ask_all(self, parts: list[_Numbers]) -> list[Refused | None]:
        concurrency = min(self._concurrency, len(parts))
        if concurrency <= 1:
            return [self._ask(part) for part in parts]
        with ThreadPoolExecutor(concurrency) as pool:
            return list(pool.map(self._ask, parts))

    def _divide(self, picked: _Numbers, refusal: Refused) -> None:
        if refusal.why is Why.TOO_LARGE:
            picked = self._without_too_large(picked, refusal)
        elif len(picked) == 1 or self._refuses_all(picked, refusal):
            self.refused |= dict.fromkeys(picked.tolist(), refusal)
            return
        for half in self._halves(picked, refusal.why):
            of_half = self._ask(half)
            if of_half is not None:
                self._divide(half, of_half)

    def _ask(self, picked: _Numbers) -> Refused | None:
        try:
            self._send(picked)
        except Refused as refusal:
            return refusal
        return None

    def _without_too_large(self, picked: _Numbers, refusal: Refused) -> _Numbers:
        """Return the lines that are smaller than every line that was too large alone; mark the others as refused."""
        sizes = self._lines.sizes(picked)
        if len(picked) == 1:
            self._too_large_bytes = min(self._too_large_bytes, int(sizes[0]))
        self.refused |= dict.fromkeys(picked[sizes >= self._too_large_bytes].tolist(), refusal)
        return picked[sizes < self._too_large_bytes]

    def _refuses_all(self, picked: _Numbers, refusal: Refused) -> bool:
        """Return whether the oldest and the youngest line are refused for a reason that then applies to all lines between them.

        Without this, a window that is too old would cost two requests per row.
        """
        times_ns = self._lines.times_ns[picked]
        oldest, youngest = int(times_ns.argmin()), int(times_ns.argmax())
        # What is older than a row that is too old is too old as well. Within an hour, the field's type changes at most once.
        holds_in_between = {
            Why.TOO_OLD: True,
            Why.TYPE: int(times_ns[youngest] - times_ns[oldest]) < _SHORTEST_SHARD_NS,
            # Only a source id can make a line malformed: times and values are numbers that the service formatted.
            Why.MALFORMED: len(self._sources(picked)) == 1,
        }
        return holds_in_between[refusal.why] and all(
            (of_end := self._ask(picked[end : end + 1])) is not None and of_end.why is refusal.why for end in (youngest, oldest)
        )

    def _halves(self, picked: _Numbers, why: Why) -> Iterator[_Numbers]:
        sources = self._sources(picked)
        if why is Why.MALFORMED and len(sources) > 1:
            in_first = np.isin(self._lines.source_index[picked], sources[: len(sources) // 2])
            yield from (picked[in_first], picked[~in_first])
        else:
            by_time = picked[np.argsort(self._lines.times_ns[picked], kind="stable")]
            yield from (np.sort(half) for half in np.array_split(by_time, 2) if len(half))

    def _sources(self, picked: _Numbers) -> npt.NDArray[np.int32]:
        return np.unique(self._lines.source_index[picked])
