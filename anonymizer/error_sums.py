"""The dynamic program of optimal microaggregation, with exact sums of squared errors, for many *stretches* of ascending values in parallel.

least(e) = min over sizes s = k … 2k − 1 of least(e − s) + error of the s values before place e, for each place e in turn. Only differences
between sums matter, so a stretch (a block with its run-up) may begin in the middle of a segment.

The error of s values is (s Σx² − (Σx)²) / s µV². In units of 1 / lcm(all sizes) µV², called *parts*, it is an integer. If all sums fit
64 bits, each is one integer of parts. Otherwise each is two numbers: *coarse*, a float in µV², and *fine*, its parts modulo 2⁶⁴. If the
coarse numbers of two sums are close, the fine ones give their exact difference.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

_Int64s = npt.NDArray[np.int64]
_Float64s = npt.NDArray[np.float64]
_Bools = npt.NDArray[np.bool_]
_Number = TypeVar("_Number", np.int64, np.float64)

#: Beyond k = 21 a µV² has this many parts, and each group's error is rounded down to one.
ROUNDED_PARTS = 2**40

#: Sums of rounded errors that differ by no more than this many parts, about a millionth of a µV², count as equal.
_ROUNDING = 2**20

#: In parts; larger than every sum that can be chosen, and three times this still fits 64 bits.
_UNREACHABLE = 2**60

#: A sum that is further above the least than this, in µV², is not it. Coarse sums are far more exact. With a half more, for rounding to
#: whole µV², it has fewer than 2⁶³ parts at every k, five more bits for the size included: 5.3e18 at k = 21.
_NEAR = 0.25

_LARGEST = np.int64(2**63 - 1)

#: Numbers processed at once: this many fit the CPU's cache.
_AT_ONCE = 2**17


@dataclass(frozen=True, slots=True, eq=False)
class Profile:
    """The least sums at 2k − 1 consecutive places of each stretch, shape (2k − 1, stretches).

    Args:
        coarse: In µV², as exact as floats are; infinite where no group can end.
        fine: In parts, modulo 2⁶⁴.
    """

    coarse: _Float64s
    fine: _Int64s

    @classmethod
    def guessed(cls, k: int, stretches: int) -> Profile:
        """Return a guess for the middle of a segment: all places alike."""
        shape = (2 * k - 1, stretches)
        return cls(np.zeros(shape), np.zeros(shape, dtype=np.int64))

    def set_before_any_row(self, stretches: _Bools) -> None:
        """Set some stretches to the state before the first row of a segment: a group can begin at the last place only."""
        self.coarse[:-1, stretches] = np.inf
        self.coarse[-1, stretches] = 0.0
        self.fine[:, stretches] = 0

    def put(self, stretches: npt.NDArray[np.intp], profile: Profile) -> None:
        """Replace the profiles of some stretches."""
        self.coarse[:, stretches], self.fine[:, stretches] = profile.coarse, profile.fine

    def of(self, stretches: npt.NDArray[np.intp] | slice) -> Profile:
        """Return the profiles of some stretches, relative to their last place."""
        coarse, fine = self.coarse[:, stretches], self.fine[:, stretches]
        return Profile(coarse - coarse[-1], fine - fine[-1])

    def agrees_with(self, other: Profile) -> _Bools:
        """Return for which stretches both profiles, relative to their last place, are equal, shape (stretches,), bool."""
        near = np.abs(self.coarse - other.coarse) < _NEAR
        same: _Bools = (near & (self.fine == other.fine)).all(axis=0)
        return same


@dataclass(frozen=True, slots=True, eq=False)
class Stretches:
    """Sums over the values before each place, for stretches of one length.

    The first 2k − 1 places are those of the profile a stretch begins with; places before its segment repeat the segment's first.

    Args:
        sums: Σx before each place, shape (2k − 1 + rows, stretches).
        squares: Σx² before each place, the same shape.
    """

    sums: _Int64s
    squares: _Int64s

    def numerators(self, first: int, stop: int, size: int) -> _Int64s:
        """Return s Σx² − (Σx)² of the `size` values before each of the places `first` … `stop` − 1."""
        sums = self.sums[first:stop] - self.sums[first - size : stop - size]
        squares = self.squares[first:stop] - self.squares[first - size : stop - size]
        squares *= size
        sums *= sums
        squares -= sums
        return squares


@dataclass(frozen=True, slots=True, eq=False)
class LeastSums:
    """The result of the recurrence for stretches of one length.

    Args:
        sizes: Size of the last group at each place after the profile's, shape (rows, stretches).
        fine: The sums at every place, the profile's too, in parts, with `shift` bits more at the end.
        shift: How many bits more.
        coarse: The same in µV²; None if `fine` holds the whole sums.
        k: The smallest size.
        parts: Parts of a µV².
    """

    sizes: _Int64s
    fine: _Int64s
    shift: int
    coarse: _Float64s | None
    k: int
    parts: int

    def profile(self, rows: _Int64s) -> Profile:
        """Return each stretch's profile after `rows` of its rows, shape (stretches,); after 0 it is the start profile."""
        places = rows + np.arange(2 * self.k - 1)[:, None]
        column = np.arange(len(rows))
        # The difference is taken before bits are dropped: modulo 2⁶⁴ it is the same for every starting value.
        fine = (self.fine[places, column] - self.fine[places[-1], column]) >> self.shift
        return Profile(fine / self.parts if self.coarse is None else self.coarse[places, column], fine)


def least_sums(stretches: Stretches, k: int, parts: int, start: Profile) -> LeastSums:
    """Run the recurrence. Of two sizes with equal sums the smaller is chosen.

    Args:
        stretches: Stretches of one length.
        k: The smallest size.
        parts: Parts of a µV²: the least common multiple of all sizes, or `ROUNDED_PARTS`.
        start: The profiles with which the stretches begin.
    """
    shift = (k - 1).bit_length()
    if parts != ROUNDED_PARTS and _most(stretches, k, start) * (parts << shift) < _UNREACHABLE / 2:
        return _in_one_number(stretches, k, parts, start, shift)
    return _in_two_numbers(stretches, k, parts, start, 0 if parts == ROUNDED_PARTS else shift)


def _most(stretches: Stretches, k: int, start: Profile) -> float:
    """Return an upper bound of all sums, in µV²: the cost of groups of k values each, plus that of the worst groups."""
    places, longest = len(stretches.sums), 2 * k - 1
    every_k = stretches.numerators(longest, places, k)[k - 1 :: k].sum(axis=0).max(initial=0) / k
    worst = stretches.numerators(longest, places, longest).max(initial=0) / longest
    begun = np.abs(start.coarse[np.isfinite(start.coarse)]).max(initial=0.0)
    return float(every_k + 4 * worst + begun + 1)


def _in_one_number(stretches: Stretches, k: int, parts: int, start: Profile, shift: int) -> LeastSums:
    # The last `shift` bits of a candidate hold its last group's size − k: of equal sums, the one with the smaller group is the minimum.
    places, columns = stretches.sums.shape
    begun = 2 * k - 1
    keeps = np.int64(-1 << shift)
    sums = np.empty((places, columns), dtype=np.int64)
    sums[:begun] = np.where(np.isfinite(start.coarse), start.fine << shift, _UNREACHABLE)
    least = np.empty((places - begun, columns), dtype=np.int64)
    before = _sums_before(sums, k)
    for first, stop in _tiles(begun, places, k, columns):
        candidates = np.empty((k, stop - first, columns), dtype=np.int64)
        for larger in range(k):
            numerators = stretches.numerators(first, stop, k + larger)
            np.multiply(numerators, parts // (k + larger) << shift, out=numerators)
            np.add(numerators, larger, out=candidates[larger])
        for here in _batches(first, stop, k):
            of_places, chosen = (
                candidates[:, here.start - first : here.stop - first],
                least[here.start - begun : here.stop - begun],
            )
            of_places += before[:, here.start - begun : here.stop - begun]
            np.minimum.reduce(of_places, axis=0, out=chosen)
            np.bitwise_and(chosen, keeps, out=sums[here])
    return LeastSums((least & ~keeps) + k, sums, shift, None, k, parts)


def _in_two_numbers(stretches: Stretches, k: int, parts: int, start: Profile, shift: int) -> LeastSums:
    places, columns = stretches.sums.shape
    begun = 2 * k - 1
    keeps = np.int64(-1 << shift)
    unit = np.int64(parts << shift)
    coarse, fine = np.empty((places, columns)), np.empty((places, columns), dtype=np.int64)
    coarse[:begun] = np.where(np.isfinite(start.coarse), start.coarse, float(_UNREACHABLE))
    fine[:begun] = start.fine << shift
    coarse_before, fine_before = _sums_before(coarse, k), _sums_before(fine, k)
    larger = np.empty((places - begun, columns), dtype=np.int64)
    for first, stop in _tiles(begun, places, k, 2 * columns):
        coarse_candidates, fine_candidates = _candidates(stretches, first, stop, k, parts, shift)
        for here in _batches(first, stop, k):
            about = coarse_candidates[:, here.start - first : here.stop - first]
            exact = fine_candidates[:, here.start - first : here.stop - first]
            about += coarse_before[:, here.start - begun : here.stop - begun]
            exact += fine_before[:, here.start - begun : here.stop - begun]
            lowest = np.minimum.reduce(about, axis=0)
            # Relative to a whole number of µV² near the minimum, close sums fit 64 bits; all others are excluded.
            whole = np.rint(lowest)
            base = whole.astype(np.int64) * unit
            exact -= base
            np.putmask(exact, about > lowest + _NEAR, _LARGEST)
            least = np.minimum.reduce(exact, axis=0)
            chosen = larger[here.start - begun : here.stop - begun]
            if parts == ROUNDED_PARTS:
                chosen[:] = (exact <= least + _ROUNDING).argmax(axis=0)
                least = np.take_along_axis(exact, chosen[None], axis=0)[0]
            else:
                np.bitwise_and(least, ~keeps, out=chosen)
                least &= keeps
            coarse[here] = whole + least / unit
            fine[here] = least + base
    return LeastSums(larger + k, fine, shift, coarse, k, parts)


def _candidates(stretches: Stretches, first: int, stop: int, k: int, parts: int, shift: int) -> tuple[_Float64s, _Int64s]:
    """Return the errors of the groups of each size before some places, coarse and fine, shape (k, places, stretches)."""
    shape = (k, stop - first, stretches.sums.shape[1])
    coarse, fine = np.empty(shape), np.empty(shape, dtype=np.int64)
    for larger in range(k):
        size = k + larger
        numerators = stretches.numerators(first, stop, size)
        np.multiply(numerators, 1.0 / size, out=coarse[larger])
        if parts == ROUNDED_PARTS:
            whole, rest = np.divmod(numerators, size)
            fine[larger] = whole * parts + rest * parts // size
        else:
            numerators *= parts // size << shift
            np.add(numerators, larger, out=fine[larger])
    return coarse, fine


def _sums_before(sums: npt.NDArray[_Number], k: int) -> npt.NDArray[_Number]:
    """Return a view: the sums before the last group of each size that ends at each place, shape (k, places − 2k + 1, stretches).

    It shows later changes of `sums`.
    """
    of_sizes = np.lib.stride_tricks.sliding_window_view(sums[: len(sums) - k], k, axis=0)
    return np.moveaxis(of_sizes[..., ::-1], -1, 0)


def _tiles(first: int, stop: int, k: int, numbers_a_size: int) -> Iterator[tuple[int, int]]:
    """Yield ranges of places whose candidates are computed at once, each but the last a multiple of k."""
    step = k * max(1, _AT_ONCE // max(1, k * k * numbers_a_size))
    for begin in range(first, stop, step):
        yield begin, min(begin + step, stop)


def _batches(first: int, stop: int, k: int) -> Iterator[slice]:
    """Yield k places at a time: as each group has at least k values, none of their sums depends on another."""
    for begin in range(first, stop, k):
        yield slice(begin, min(begin + k, stop))
