"""What became of every sample of a long run: lost, doubled, or where it belongs, window by window, in every output."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv

from testbed.influxdb_api import InfluxApi
from testbed.wearers import SECOND_NS, Wearers
from tests.faults.oracle import MEASUREMENT
from tests.servers.digest_api import Kept

COLUMNS = ("timestamp", "source_id", "ecg")

_TYPES = {"time_ns": pa.int64(), "source_id": pa.string(), "ecg": pa.float64()}


@dataclass(slots=True)
class Tally:
    """Rows of one output: what it should hold, what was lost of it, and what it holds beyond."""

    rows: int = 0
    lost: int = 0
    doubled: int = 0

    def count(self, expected: int, lost: int, doubled: int) -> None:
        """Add one window."""
        self.rows, self.lost, self.doubled = self.rows + expected, self.lost + lost, self.doubled + doubled

    @property
    def is_good(self) -> bool:
        """Whether nothing was lost or doubled."""
        return not (self.lost or self.doubled)


@dataclass(slots=True)
class Tallies:
    """All outputs, and what an undisturbed run makes of the raw samples by definition."""

    definition: Tally = field(default_factory=Tally)
    influxdb: Tally = field(default_factory=Tally)
    csv: Tally = field(default_factory=Tally)
    api: Tally = field(default_factory=Tally)
    fewest_alike: int = 10**9


def rows_of(content: bytes) -> pa.Table:
    """Return the rows of a CSV file: time in nanoseconds, source, value."""
    table = pa_csv.read_csv(
        io.BytesIO(content),
        convert_options=pa_csv.ConvertOptions(
            column_types={"timestamp": pa.timestamp("ns", tz="UTC"), "source_id": pa.string(), "ecg": pa.float64()}
        ),
    )
    return _rows(table, *COLUMNS)


def rows_in_influxdb(server: InfluxApi, bucket: str, start_ns: int, end_ns: int) -> pa.Table:
    """Return the released rows of a span."""
    answer = server.query_csv(
        f'from(bucket: "{bucket}") |> range(start: time(v: {start_ns}), stop: time(v: {end_ns})) '
        f'|> filter(fn: (r) => r._measurement == "{MEASUREMENT}") |> keep(columns: ["_time", "_value", "source_id"]) |> group()'
    ).strip()
    if not answer:
        return _sorted(pa.table({name: pa.array([], kind) for name, kind in _TYPES.items()}))
    table = pa_csv.read_csv(
        io.BytesIO(answer.encode()),
        convert_options=pa_csv.ConvertOptions(
            column_types={"_time": pa.timestamp("ns", tz="UTC"), "_value": pa.float64(), "source_id": pa.string()}
        ),
    )
    return _rows(table, "_time", "source_id", "_value")


def raw_keys(wearers: Wearers, start_ns: int, end_ns: int) -> pa.Table:
    """Return time and source of every sample that was measured in a span."""
    samples = wearers.samples_between(start_ns, end_ns)
    return _sorted(
        pa.table({"time_ns": samples.times_ns, "source_id": pa.array(wearers.source_ids).take(pa.array(samples.wearer))})
    )


def missing_and_beyond(expected: pa.Table, found: pa.Table) -> tuple[int, int]:
    """Return how many rows of one are not in the other, and the other way round; rows that are there twice count twice."""
    if expected.equals(found):
        return 0, 0
    wanted, held = (Counter(zip(*table.to_pydict().values(), strict=True)) for table in (expected, found))
    return (wanted - held).total(), (held - wanted).total()


def tally_files(tallies: Tallies, expected: bytes, found: Path, keys: pa.Table, *, k: int) -> pa.Table:
    """Count one window's file, and hold what is expected against the definition; return the rows that are expected."""
    wanted = rows_of(expected)
    lost, beyond = missing_and_beyond(keys, wanted.select(["time_ns", "source_id"]))
    tallies.definition.count(len(keys), lost, beyond)
    tallies.fewest_alike = min(
        tallies.fewest_alike, min(pc.value_counts(wanted["ecg"]).field("counts").to_pylist(), default=10**9)
    )
    content = found.read_bytes() if found.exists() else b""
    lines = [Counter(text.splitlines()[1:]) for text in (expected, content)] if content != expected else []
    tallies.csv.count(len(wanted), *(((lines[0] - lines[1]).total(), (lines[1] - lines[0]).total()) if lines else (0, 0)))
    return wanted


def tally_api(tally: Tally, expected: Mapping[str, Kept], found: Mapping[str, Kept], *, conflicting_rows: int) -> None:
    """Count the API's records, request by request."""
    for key, kept in expected.items():
        tally.count(kept.rows, 0 if found.get(key) == kept else kept.rows, 0)
    strange = sum(kept.rows for key, kept in found.items() if expected.get(key) != kept)
    tally.count(0, 0, strange + conflicting_rows)


def windows(start_ns: int, end_ns: int, length_s: int) -> Iterable[tuple[int, int]]:
    """Yield start and end of every window."""
    for at_ns in range(start_ns, end_ns, length_s * SECOND_NS):
        yield at_ns, at_ns + length_s * SECOND_NS


def _rows(table: pa.Table, time: str, source: str, value: str) -> pa.Table:
    times_ns = pc.cast(table[time], pa.int64())
    return _sorted(pa.table({"time_ns": times_ns, "source_id": table[source], "ecg": table[value]}))


def _sorted(table: pa.Table) -> pa.Table:
    return table.sort_by([("time_ns", "ascending"), ("source_id", "ascending")]).combine_chunks()
