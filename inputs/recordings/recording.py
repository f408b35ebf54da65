"""A recording in any format: one channel, sampled at a fixed rate, read in parts.

No message here or in a reader shows header text, which may name a patient. Channel labels are shown only as `channels.py` allows.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from anonymizer.windows import NANOSECONDS
from inputs.input_file import InputFile

#: Higher sampling frequencies are refused.
MOST_HZ = 1_000_000

#: Times and the windows around them must fit into 64-bit nanoseconds: the years 1678 to 2261.
_FIRST_NS, _END_NS = (int(np.datetime64(day, "ns").astype(np.int64)) for day in ("1678-01-01", "2262-01-01"))

#: Microvolts per unit of voltage, as spelled in headers. The micro sign is U+00B5 or U+03BC.
_MICROVOLTS = {
    "nv": Fraction(1, 1000),
    "uv": Fraction(1),
    "\N{MICRO SIGN}v": Fraction(1),
    "\N{GREEK SMALL LETTER MU}v": Fraction(1),
    "mv": Fraction(1000),
    "v": Fraction(1_000_000),
}

_DECIMAL = re.compile(r"[+-]?(\d{1,40}(\.\d{0,40})?|\.\d{1,40})([eE][+-]?\d{1,2})?", re.ASCII)


class Unreadable(Exception):
    """A recording cannot be read. The message continues a sentence that begins with the file, and shows nothing of its header."""


class RecordedFile:
    """A file of a recording. It is opened for each read, and refused if it has changed in between.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            # Opening a pipe would block until it has a writer.
            raise FileNotFoundError(2, "is not a file")
        self.name = path.name
        self._held = InputFile(path)
        self.size = self._held.size
        self.digest = self._held.sha256()
        self._held.close()

    @contextmanager
    def opened(self) -> Iterator[BinaryIO]:
        """Open the file; before and after reading, check that it is unchanged since it was first opened."""
        again = self._held.again()
        try:
            with again.unchanged():
                yield again.file
        finally:
            again.close()

    def read(self, begin: int, length: int) -> bytes:
        """Return `length` bytes, or raise Unreadable if the file has fewer."""
        with self.opened() as file:
            return read_from(file, begin, length)


def read_from(file: BinaryIO, begin: int, length: int) -> bytes:
    """Return `length` bytes of an open file, or raise Unreadable if it has fewer."""
    file.seek(begin)
    found = file.read(length)
    if len(found) < length:
        raise Unreadable("is cut off. Copy it again")
    return found


@dataclass(frozen=True, slots=True)
class Calibration:
    """Converts digital values to microvolts: `digit · gain + offset`, both computed exactly from the header and rounded once.

    Args:
        gain_uv: Microvolts per digital step.
        offset_uv: Microvolts of the digital value 0.
    """

    gain_uv: Fraction
    offset_uv: Fraction

    def microvolts(self, digits: npt.NDArray[np.integer]) -> npt.NDArray[np.float64]:
        """Return digital values in microvolts."""
        return digits.astype(np.float64) * float(self.gain_uv) + float(self.offset_uv)


@dataclass(frozen=True, slots=True)
class Run:
    """Samples without a gap between them.

    Args:
        first: Number of the first sample, from 0.
        start_ns: Time of the first sample.
    """

    first: int
    start_ns: int


@dataclass(frozen=True, slots=True)
class Recording:
    """One channel of a file.

    Args:
        runs: The starts of its runs, in order of time.
        rows: Number of samples.
        period_ns: Time between two samples of a run.
        read: Returns the microvolts of samples `first` … `stop - 1`; NaN where there is no sample.
        has_start: Whether the file states its start; otherwise INPUT_START_TIME does.
        has_zone: Whether the start has a time zone.
    """

    runs: tuple[Run, ...]
    rows: int
    period_ns: Fraction
    read: Callable[[int, int], npt.NDArray[np.float64]]
    has_start: bool = True
    has_zone: bool = False
    _firsts: tuple[int, ...] = field(init=False, default=())

    def __post_init__(self) -> None:
        if not self.rows:
            raise Unreadable("has no samples")
        object.__setattr__(self, "_firsts", tuple(run.first for run in self.runs))
        ends = [*self._firsts[1:], self.rows]
        last_ns = _FIRST_NS - 1
        for run, end in zip(self.runs, ends, strict=True):
            if run.start_ns <= last_ns:
                raise Unreadable("has parts that overlap in time, or times outside the years 1678 to 2261")
            last_ns = run.start_ns + int((end - run.first - 1) * self.period_ns)
        if last_ns >= _END_NS:
            raise Unreadable("has times outside the years 1678 to 2261")

    def times_ns(self, first: int, stop: int) -> npt.NDArray[np.int64]:
        """Return the times of samples `first` … `stop - 1`, ascending."""
        found = []
        while first < stop:
            at = bisect_right(self._firsts, first) - 1
            end = min(stop, *self._firsts[at + 1 : at + 2], self.rows)
            run = self.runs[at]
            found.append(times_of_samples(run.start_ns, self.period_ns, first - run.first, end - run.first))
            first = end
        return np.concatenate(found)


def times_of_samples(start_ns: int, period_ns: Fraction, first: int, stop: int) -> npt.NDArray[np.int64]:
    """Return start + ⌊n · period⌋ for n = first … stop - 1: computed in integers, so that no error accumulates."""
    whole, rest = divmod(period_ns.numerator, period_ns.denominator)
    # Python integers where the product would overflow; no common sampling frequency needs them.
    kind = np.int64 if stop * rest < 2**63 else object
    n = np.arange(first, stop, dtype=kind)
    found: npt.NDArray[np.int64] = (start_ns + n * whole + n * rest // period_ns.denominator).astype(np.int64)
    return found


def period_of(hertz: Fraction) -> Fraction:
    """Return the nanoseconds between two samples."""
    if not 0 < hertz <= MOST_HZ:
        raise Unreadable(f"has a sampling frequency that is not above 0 and at most {MOST_HZ:,} Hz")
    return NANOSECONDS / hertz


def microvolts_of(unit: str) -> Fraction:
    """Return the microvolts of a unit."""
    plain = unit.strip(" \0")
    # Upper case is common (`UV`), but a capital M means mega.
    found = None if plain.startswith("M") else _MICROVOLTS.get(plain.lower())
    if found is None:
        raise Unreadable(
            "gives the values of the chosen channel in a unit that is not nV, uV, mV or V, so they cannot be converted to microvolts"
        )
    return found


def number_of(text: str, what: str) -> Fraction:
    """Return the exact value of a decimal number of a header.

    Args:
        text: The field.
        what: What the field means, for the error message.
    """
    plain = text.strip(" \0")
    if not _DECIMAL.fullmatch(plain):
        raise Unreadable(f"is damaged: its header has no number where {what} belongs")
    return Fraction(plain)


def whole_number_of(text: str, what: str, *, least: int = 0) -> int:
    """Return a whole number of a header that is at least `least`."""
    number = number_of(text, what)
    if number.denominator != 1 or number < least:
        raise Unreadable(f"is damaged: {what} in its header is below {least} or not a whole number")
    return int(number)


def utc_ns(date: Sequence[int], clock: Sequence[int]) -> int | None:
    """Return the time of (year, month, day) and (hour, minute, second) in UTC; None if it does not exist."""
    (year, month, day), (hour, minute, second) = date, clock
    try:
        moment = datetime(year, month, day, hour, minute, second, tzinfo=UTC)
    except ValueError:
        return None
    return int(moment.timestamp()) * NANOSECONDS


@dataclass(frozen=True, slots=True)
class Start:
    """The time of the first sample, as stated in a header.

    Args:
        start_ns: The time; None if the header states none.
        has_zone: Whether it has a time zone; without one it is UTC.
    """

    start_ns: int | None = None
    has_zone: bool = False


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to read from each file.

    Args:
        channel: Label, or number from 1, of the channel; empty if there is one only.
        start_ns: The time of the first sample, for files that do not state it.
    """

    channel: str = ""
    start_ns: int | None = None

    def start_of(self, found: Start) -> int:
        """Return the start of a recording."""
        start_ns = self.start_ns if found.start_ns is None else found.start_ns
        if start_ns is None:
            raise Unreadable("does not say when it was recorded: set INPUT_START_TIME to the time of its first sample")
        return start_ns


#: Opens one recording, given its files and what to read.
Opener = Callable[[Sequence[RecordedFile], Wanted], Recording]
