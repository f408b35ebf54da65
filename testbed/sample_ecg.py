"""The ECG that comes with this project: `examples/mitbih`, six records of five minutes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from testbed.line_protocol import SeriesNames, line_protocol

SAMPLE_FILE = Path(__file__).parent.parent / "examples" / "mitbih" / "six_records.parquet"

#: The rate it was recorded at.
SAMPLE_HERTZ = 360


@dataclass(frozen=True)
class SampleEcg:
    """The records, all of the same length and times.

    Args:
        source_ids: One per record.
        times_ns: When each sample was measured, nanoseconds since 1970.
        values_uv: Whole microvolts, a row per record and a column per time.
    """

    source_ids: tuple[str, ...]
    times_ns: npt.NDArray[np.int64]
    values_uv: npt.NDArray[np.int16]

    def lines(self, names: SeriesNames, *, per_request: int) -> Iterator[bytes]:
        """Yield line protocol for all samples at their own times, at most about `per_request` lines at a time."""
        records = len(self.source_ids)
        columns = max(1, per_request // records)
        for first in range(0, self.times_ns.size, columns):
            times_ns = self.times_ns[first : first + columns]
            yield line_protocol(
                self.source_ids,
                source_index=np.tile(np.arange(records), times_ns.size),
                values_uv=self.values_uv[:, first : first + columns].T.ravel(),
                times_ns=np.repeat(times_ns, records),
                names=names,
            )


@cache
def read_sample_ecg() -> SampleEcg:
    """Return the records as they are in the file. Read once; the arrays are shared, and so read-only."""
    table = pq.read_table(SAMPLE_FILE, columns=["timestamp", "source_id", "ecg"])
    sources = table["source_id"].cast(pa.string()).to_numpy()
    times_ns = table["timestamp"].to_numpy().astype("datetime64[ns]").view(np.int64)
    values_uv = table["ecg"].to_numpy()
    source_ids = tuple(sorted(set(sources)))
    of_each = [np.flatnonzero(sources == source_id) for source_id in source_ids]
    assert all(np.array_equal(times_ns[rows], times_ns[of_each[0]]) for rows in of_each), "the records do not share their times"
    sample = SampleEcg(source_ids, times_ns[of_each[0]], np.stack([values_uv[rows] for rows in of_each]))
    for array in (sample.times_ns, sample.values_uv):
        array.flags.writeable = False
    return sample
