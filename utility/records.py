"""The six public sample records, alone or as one data set, at 360 Hz and at 128 Hz."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow.parquet as pa_parquet
from scipy.signal import resample_poly

from anonymizer.samples import Samples, make_samples
from anonymizer.windows import NANOSECONDS, covering_windows
from inputs.file_source import FileSource
from utility.outcome import Floats, Ints

FOLDER = Path(__file__).resolve().parent.parent / "examples" / "mitbih"

#: The records' own rate, and a common rate of wearables.
RATES_HZ = (360, 128)

#: 360 · 16 / 45 = 128.
_UP, _DOWN = 16, 45


@dataclass(frozen=True, slots=True, eq=False)
class Record:
    """One record, alone in its windows.

    Args:
        source_id: Its name.
        hertz: Samples per second.
        times_ns: Nanoseconds since the epoch, shape (n,).
        values_uv: Whole microvolts, shape (n,).
        beats_ns: When cardiologists marked a beat, ascending.
    """

    source_id: str
    hertz: int
    times_ns: Ints
    values_uv: Floats
    beats_ns: Ints

    def samples(self) -> Samples:
        """Return the record as a data set of its own."""
        return make_samples(self.times_ns, np.zeros(len(self.times_ns), dtype=np.int32), [self.source_id], self.values_uv)


@cache
def records(hertz: int) -> tuple[Record, ...]:
    """Return the six records at 360 Hz, as published, or at 128 Hz, resampled and rounded to whole microvolts."""
    samples = _published()
    found = []
    for code, name in enumerate(samples.source_ids):
        mine = samples.source_codes == code
        times_ns, values_uv = samples.times_ns[mine], samples.values_uv[mine]
        if hertz != RATES_HZ[0]:
            values_uv = np.rint(resample_poly(values_uv, _UP, _DOWN))
            times_ns = times_ns[0] + np.arange(len(values_uv)) * NANOSECONDS // hertz
        found.append(Record(name, hertz, times_ns, values_uv, beats_of(name)))
    return tuple(found)


def _published() -> Samples:
    source = FileSource(FOLDER / "six_records.parquet")
    source.open()
    extent = source.extent()
    assert extent is not None, "the sample ECG has rows"
    return source.read(covering_windows(*extent, NANOSECONDS))


@cache
def together(hertz: int) -> Samples:
    """Return all six records as one data set, so that they share their windows."""
    six = records(hertz)
    codes = np.repeat(np.arange(len(six)), [len(record.times_ns) for record in six])
    times_ns, values_uv = (np.concatenate(columns) for columns in zip(*((r.times_ns, r.values_uv) for r in six), strict=True))
    return make_samples(times_ns, codes, [record.source_id for record in six], values_uv)


@cache
def beats_of(source_id: str) -> Ints:
    """Return the times of the beats that cardiologists annotated in a record, ascending, in nanoseconds."""
    table = pa_parquet.read_table(FOLDER / "r_peaks.parquet")
    marked = table["timestamp"].to_numpy().astype("datetime64[ns]").view(np.int64)
    return np.sort(marked[np.array(table["source_id"].to_pylist()) == source_id])
