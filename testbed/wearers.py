"""Wearers who never stop sending ECG: which samples they measured in any span of time, as a pure function of that span.

A test needs no record of what was sent: it asks again. Wearer *i* (from 0) plays record *i* mod 6 of the sample ECG round and round,
from a place of its own, at moments of its own: real devices do not tick together.
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

#: How far apart two wearers of the same record start in it, in samples, and any two tick, in nanoseconds, before both are wrapped
#: around. A large prime has no factor in common with what it is wrapped by, so no two are the same until all places are taken.
STEP = 15_485_863


@dataclass(frozen=True)
class WornSamples:
    """Samples in the order of their ticks, those of one tick in the order of wearers. The three arrays are of one length.

    Args:
        wearer: Which wearer, counted from 0.
        times_ns: When, in nanoseconds since 1970.
        values_uv: What, in whole microvolts.
    """

    wearer: npt.NDArray[np.int64]
    times_ns: npt.NDArray[np.int64]
    values_uv: npt.NDArray[np.int64]


class Wearers:
    """A number of wearers whose devices all measure at one rate.

    Args:
        count: How many.
        hertz: Samples per second of each. Other rates than the recordings' 360 Hz are interpolated linearly and rounded to whole
            microvolts: good enough to be the right load, not to be ECG research.
        speed: How many times faster than life the recordings are played. There are `speed` times as many samples per second, measured
            at the time they say: nothing is dated into the future.

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
        """The wearers' names: `wearer-001` and so on."""
        return tuple(f"wearer-{number:03d}" for number in range(1, self.count + 1))

    @property
    def rows_per_s(self) -> int:
        """Samples per second of all of them."""
        return self.count * self.rate_hz

    def samples_between(self, start_ns: int, end_ns: int) -> WornSamples:
        """Return what was measured in `[start_ns, end_ns)`, always the same for the same span, however spans are cut."""
        ticks = self._ticks_around(start_ns, end_ns)
        times_ns = _tick_times_ns(ticks, self.rate_hz)[:, np.newaxis] + self._phases_ns
        tick, wearer = np.nonzero((start_ns <= times_ns) & (times_ns < end_ns))
        place = (ticks[tick] + self._places[wearer]) % self._records_uv.shape[1]
        record = wearer % len(self._records_uv)
        return WornSamples(wearer, times_ns[tick, wearer], self._records_uv[record, place])

    def _ticks_around(self, start_ns: int, end_ns: int) -> npt.NDArray[np.int64]:
        # Ticks are counted from 1970. A phase delays one by less than the next comes, so none before the first gets into the span;
        # the caller drops what is still outside.
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
    # Second and remainder apart: the product of a tick's number and a billion would not fit.
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
    # Periodic: past the last sample comes the first again, as when it is played.
    resampled = [np.interp(wanted_s, recorded_s, record, period=seconds) for record in recorded]
    return np.rint(resampled).astype(np.int64)
