"""Simulated wearers: the samples that they measure in any span of time, as a pure function of that span.

A test needs no record of what was sent: it computes the samples again. Wearer *i* (from 0) plays record *i* mod 6 of the sample ECG in a
loop, with an offset and a phase of its own, since real devices are not synchronized.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
import numpy.typing as npt

from testbed.line_protocol import SeriesNames, line_protocol
from testbed.sample_ecg import SAMPLE_HERTZ, read_sample_ecg

#: Nanoseconds in a second.
SECOND_NS = 1_000_000_000

#: Distance between the offsets of two wearers of the same record, in samples, and between the phases of any two, in nanoseconds, before
#: the modulo. A large prime is coprime to the modulus, so no two are equal until all values are taken.
STEP = 15_485_863


@dataclass(frozen=True)
class WornSamples:
    """Samples sorted by tick, then wearer; arrays have shape (n,).

    Args:
        wearer: Index of the wearer, from 0.
        times_ns: Nanoseconds since 1970.
        values_uv: Whole microvolts.
    """

    wearer: npt.NDArray[np.int64]
    times_ns: npt.NDArray[np.int64]
    values_uv: npt.NDArray[np.int64]


class Wearers:
    """Wearers whose devices measure at one rate.

    Args:
        count: Number of wearers.
        hertz: Samples per second of each. Rates other than the recordings' 360 Hz are interpolated linearly and rounded to whole
            microvolts: good enough as load, not for ECG research.
        speed: Playback speed. There are `speed` times as many samples per second; none is dated into the future.

    Raises:
        ValueError: A number is not positive, or `hertz` times `speed` is not whole.
    """

    def __init__(self, count: int, *, hertz: int = SAMPLE_HERTZ, speed: float = 1) -> None:
        if count < 1 or hertz < 1 or speed <= 0:
            raise ValueError(f"wearers, hertz and speed must be positive, got {count}, {hertz} and {speed}")
        if not float(hertz * speed).is_integer():
            raise ValueError(f"hertz times speed must be a whole number of samples per second, got {hertz} × {speed}")
        self.count = count
        self.rate_hz = int(hertz * speed)
        self._records_uv = _records_at(hertz)

    @cached_property
    def source_ids(self) -> tuple[str, ...]:
        """The wearers' ids: `wearer-001` and so on."""
        return tuple(f"wearer-{number:03d}" for number in range(1, self.count + 1))

    @property
    def rows_per_s(self) -> int:
        """Samples per second of all wearers."""
        return self.count * self.rate_hz

    def samples_between(self, start_ns: int, end_ns: int) -> WornSamples:
        """Return what was measured in `[start_ns, end_ns)`: the same samples however a span is split."""
        ticks = self._ticks_around(start_ns, end_ns)
        times_ns = _tick_times_ns(ticks, self.rate_hz)[:, np.newaxis] + self._phases_ns
        tick, wearer = np.nonzero((start_ns <= times_ns) & (times_ns < end_ns))
        place = (ticks[tick] + self._places[wearer]) % self._records_uv.shape[1]
        record = wearer % len(self._records_uv)
        return WornSamples(wearer, times_ns[tick, wearer], self._records_uv[record, place])

    def _ticks_around(self, start_ns: int, end_ns: int) -> npt.NDArray[np.int64]:
        # Ticks are counted from 1970. A phase is shorter than a tick, so no tick before the first can fall into the span; the caller
        # drops samples that are still outside.
        first = start_ns * self.rate_hz // SECOND_NS
        last = end_ns * self.rate_hz // SECOND_NS
        return np.arange(first, last + 1, dtype=np.int64)

    @cached_property
    def _phases_ns(self) -> npt.NDArray[np.int64]:
        return np.arange(self.count, dtype=np.int64) * STEP % (SECOND_NS // self.rate_hz)

    @cached_property
    def _places(self) -> npt.NDArray[np.int64]:
        records, samples = self._records_uv.shape
        places: npt.NDArray[np.int64] = np.arange(self.count, dtype=np.int64) // records * STEP % samples
        return places


def lines_between(wearers: Wearers, start_ns: int, end_ns: int, *, names: SeriesNames = SeriesNames()) -> bytes:  # noqa: B008
    """Return the line protocol of what was measured in `[start_ns, end_ns)`."""
    samples = wearers.samples_between(start_ns, end_ns)
    return line_protocol(
        wearers.source_ids,
        source_index=samples.wearer,
        values_uv=samples.values_uv,
        times_ns=samples.times_ns,
        names=names,
    )


def _tick_times_ns(ticks: npt.NDArray[np.int64], rate_hz: int) -> npt.NDArray[np.int64]:
    # Seconds and remainder separately: the product of a tick's number and a billion would overflow.
    seconds, rest = np.divmod(ticks, rate_hz)
    times_ns: npt.NDArray[np.int64] = seconds * SECOND_NS + rest * SECOND_NS // rate_hz
    return times_ns


@cache
def _records_at(hertz: int) -> npt.NDArray[np.int64]:
    recorded = read_sample_ecg().values_uv.astype(np.int64)
    if hertz == SAMPLE_HERTZ:
        return recorded
    seconds = recorded.shape[1] / SAMPLE_HERTZ
    recorded_s = np.arange(recorded.shape[1]) / SAMPLE_HERTZ
    wanted_s = np.arange(round(seconds * hertz)) / hertz
    # Periodic, as in playback: the first sample follows the last.
    resampled = [np.interp(wanted_s, recorded_s, record, period=seconds) for record in recorded]
    return np.rint(resampled).astype(np.int64)
