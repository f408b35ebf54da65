"""Splits long segments of rows into blocks that are processed in parallel by vectorized code."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

#: A segment is split into at least this many blocks, or not at all.
FEWEST = 4

_Int64s = npt.NDArray[np.int64]
_Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Blocks:
    """The blocks of all segments, in order; each array has shape (blocks,).

    Args:
        starts: First position of each block.
        ends: Position after its last.
        segment_starts: First position of its segment.
        segment_ends: Position after the last of its segment.
    """

    starts: _Int64s
    ends: _Int64s
    segment_starts: _Int64s
    segment_ends: _Int64s

    @classmethod
    def of(cls, lengths: _Int64s, length: int) -> Blocks:
        """Split each segment into blocks of equal size, at least `length`. No segment may be empty.

        A segment of fewer than `FEWEST` blocks stays whole: splitting it would gain too little.
        """
        blocks = np.where(lengths >= FEWEST * length, lengths // length, 1)
        ends = np.cumsum(lengths)
        segment_starts, segment_ends = np.repeat(ends - lengths, blocks), np.repeat(ends, blocks)
        number = np.arange(len(segment_starts)) - np.repeat(np.cumsum(blocks) - blocks, blocks)
        starts = segment_starts + number * (segment_ends - segment_starts) // np.repeat(blocks, blocks)
        return cls(starts, np.append(starts[1:], ends[-1]), segment_starts, segment_ends)

    @classmethod
    def each(cls, lengths: _Int64s) -> Blocks:
        """Return one block per segment."""
        ends = np.cumsum(lengths)
        return cls(ends - lengths, ends, ends - lengths, ends)

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def are_first(self) -> _Bools:
        """Which blocks are the first of their segment."""
        first: _Bools = self.starts == self.segment_starts
        return first

    @property
    def are_last(self) -> _Bools:
        """Which blocks are the last of their segment."""
        last: _Bools = self.ends == self.segment_ends
        return last

    def of_each_position(self, of_each_block: _Int64s) -> _Int64s:
        """Repeat each block's value for each of its positions."""
        return np.repeat(of_each_block, self.ends - self.starts)


def follow_back(sizes: _Int64s, blocks: Blocks, *, run_up: int) -> _Bools:
    """Return which positions end a group, shape (n,).

    The backtracking steps from the end of a segment over one group after the other, by the size given for its last position. Paths from
    different positions soon meet, so each block starts at a guessed position a little after its end. A block whose start differs from
    where the next block's path ends is repeated from there, until all agree.

    Args:
        sizes: Size of the group that ends at each position, shape (n,); arbitrary where no group can end.
        blocks: Each block but a segment's last must be followed by one longer than `run_up`.
        run_up: How many positions after its end a block starts.
    """
    places = blocks.ends.copy()
    inner = np.flatnonzero(~blocks.are_last)
    if len(inner):
        places[inner] = _steps_back(sizes, blocks.ends[inner] + run_up, blocks.ends[inner])
        leads_to = _steps_back(sizes, places, blocks.starts)
        while len(wrong := inner[places[inner] != leads_to[inner + 1]]):
            places[wrong] = leads_to[wrong + 1]
            leads_to[wrong] = _steps_back(sizes, places[wrong], blocks.starts[wrong])
    ends_group = np.zeros(len(sizes), dtype=np.bool_)
    _steps_back(sizes, places, blocks.starts, passed=ends_group)
    return ends_group


def _steps_back(sizes: _Int64s, places: _Int64s, until: _Int64s, *, passed: _Bools | None = None) -> _Int64s:
    """Return where the steps back from each of `places` first reach `until` or pass it; mark in `passed` each group's last position."""
    places = places.copy()
    going = np.flatnonzero(places > until)
    while len(going):
        here = places[going]
        if passed is not None:
            passed[here - 1] = True
        here -= sizes[here - 1]
        places[going] = here
        going = going[here > until[going]]
    return places
