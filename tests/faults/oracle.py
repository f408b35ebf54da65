"""The oracle: what every output must hold, and how far what it does hold is from that, in rows lost, doubled and changed.

It knows every sample that was written to the raw bucket. What a fault must not change it takes from a run of the same program that nothing
disturbs, with the same settings and a fresh state folder: InfluxDB point for point, CSV byte for byte, the API's store payload for payload.
What no run may get wrong, disturbed or not, it checks by definition: the rows of a window are those that were measured in it, and no value
is shared by fewer than k of them.
"""

from __future__ import annotations

import csv
import hashlib
import hmac
import io
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from testbed.influxdb_api import InfluxApi
from testbed.wearers import SECOND_NS, Wearers
from tests.integration.clinic import Key, nanoseconds
from tests.integration.service_process import KEY

MEASUREMENT = "ecg_anonymized"


@dataclass(frozen=True, slots=True)
class Holdings:
    """What the outputs hold.

    Args:
        points: InfluxDB's rows.
        summaries: InfluxDB's window summaries, by start, each field by name.
        files: CSV files by name, but not those that were moved aside.
        payloads: What the API keeps, as canonical JSON, once for each time it was stored.
    """

    points: Mapping[Key, float]
    summaries: Mapping[str, Mapping[str, str]]
    files: Mapping[str, bytes]
    payloads: Counter[str]

    def csv_lines(self) -> Counter[bytes]:
        """Return every line of every file but the headers; one without its end is none."""
        return Counter(line for content in self.files.values() for line in content.splitlines(keepends=True)[1:])

    def api_records(self) -> Counter[tuple[str, str, float]]:
        """Return every record the API holds."""
        return Counter(
            (record["timestamp"], record["source_id"], record["ecg"])
            for payload, times in self.payloads.items()
            for record in json.loads(payload)["records"]
            for _ in range(times)
        )


@dataclass(frozen=True, slots=True)
class Difference:
    """How far one output is from what it must hold, in rows; a changed row counts as lost too. Bytes may differ where rows do not."""

    lost: int
    doubled: int
    differs: bool

    def __str__(self) -> str:
        return f"{self.lost} lost, {self.doubled} doubled" + (", bytes differ" if self.differs else "")


def differences(expected: Holdings, found: Holdings) -> dict[str, Difference]:
    """Return for each output how far what was found is from what was expected."""
    return {
        "InfluxDB rows": _difference(_points(expected), _points(found)),
        "InfluxDB summaries": _difference(_summaries(expected), _summaries(found)),
        "CSV": _difference(expected.csv_lines(), found.csv_lines(), differs=dict(expected.files) != dict(found.files)),
        "API": _difference(expected.api_records(), found.api_records(), differs=expected.payloads != found.payloads),
    }


def assert_same(expected: Holdings, found: Holdings) -> None:
    """Fail with numbers unless nothing was lost and nothing doubled in any output."""
    wrong = {name: one for name, one in differences(expected, found).items() if one != Difference(0, 0, differs=False)}
    assert not wrong, "\n".join(f"{name}: {one}" for name, one in wrong.items())


def assert_by_definition(raw: Mapping[Key, int], released: Mapping[Key, float], *, window_s: int, k: int) -> None:
    """Fail unless every window of at least k rows holds exactly the rows that were measured in it, and each value k times or more."""
    rows_in, rows_out = _by_window(raw, window_s), _by_window(released, window_s)
    for window in rows_in.keys() | rows_out.keys():
        measured, given = rows_in.get(window, {}), rows_out.get(window, {})
        should = measured.keys() if len(measured) >= k else set()
        assert given.keys() == should, f"window {window}: {len(measured)} rows in, {len(given)} out, not the same keys"
        rarest = min(Counter(given.values()).values(), default=k)
        assert rarest >= k, f"window {window}: a value is shared by {rarest} rows, fewer than {k}"


def raw_samples(wearers: Wearers, start_ns: int, end_ns: int) -> dict[Key, int]:
    """Return what wearers measured, by time and the pseudonym that the tests' key gives them."""
    names = [pseudonym(source_id) for source_id in wearers.source_ids]
    samples = wearers.samples_between(start_ns, end_ns)
    rows = zip(samples.times_ns.tolist(), samples.wearer.tolist(), samples.values_uv.tolist(), strict=True)
    return {(time_text(time_ns), names[wearer]): value for time_ns, wearer, value in rows}


def pseudonym(source_id: str) -> str:
    """Return a keyed pseudonym by definition."""
    return hmac.new(KEY.encode(), source_id.encode(), hashlib.sha256).hexdigest()


def time_text(time_ns: int) -> str:
    """Return a time in RFC 3339 with nine digits."""
    seconds, rest = divmod(time_ns, SECOND_NS)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest:09d}Z"


def points_in(server: InfluxApi, bucket: str) -> dict[Key, float]:
    """Return every released point of a bucket."""
    answer = server.query_csv(
        f'from(bucket: "{bucket}") |> range(start: 0, stop: 2200-01-01T00:00:00Z) '
        f'|> filter(fn: (r) => r._measurement == "{MEASUREMENT}") |> keep(columns: ["_time", "_value", "source_id"]) |> group()'
    )
    rows = csv.DictReader(io.StringIO(answer.strip(), newline=""))
    return {(nanoseconds(row["_time"]), row["source_id"]): float(row["_value"]) for row in rows}


def summaries_in(server: InfluxApi, bucket: str) -> dict[str, dict[str, str]]:
    """Return every window summary of a bucket, by the window's start."""
    rows = server.rows(
        f'from(bucket: "{bucket}") |> range(start: 0, stop: 2200-01-01T00:00:00Z) '
        f'|> filter(fn: (r) => r._measurement == "{MEASUREMENT}_windows") '
        '|> pivot(rowKey: ["_time"], columnKey: ["_field"], valueColumn: "_value") |> group()'
    )
    bookkeeping = {"", "result", "table", "_start", "_stop", "_time", "_measurement"}
    return {nanoseconds(row["_time"]): {name: value for name, value in row.items() if name not in bookkeeping} for row in rows}


def files_in(folder: Path) -> dict[str, bytes]:
    """Return the CSV files of a folder."""
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.csv"))}


def payloads_of(stored: Iterable[Any]) -> Counter[str]:
    """Return what an API stored."""
    return Counter(json.dumps(payload, sort_keys=True) for payload in stored)


def _difference(expected: Counter[Any], found: Counter[Any], *, differs: bool = False) -> Difference:
    return Difference(lost=(expected - found).total(), doubled=(found - expected).total(), differs=differs)


def _points(held: Holdings) -> Counter[tuple[Key, float]]:
    return Counter(held.points.items())


def _summaries(held: Holdings) -> Counter[tuple[str, tuple[tuple[str, str], ...]]]:
    return Counter((start, tuple(sorted(fields.items()))) for start, fields in held.summaries.items())


def _by_window(rows: Mapping[Key, float], window_s: int) -> dict[int, dict[Key, float]]:
    windows: dict[int, dict[Key, float]] = {}
    for key, value in rows.items():
        windows.setdefault(_second(key) // window_s, {})[key] = value
    return windows


def _second(key: Key) -> int:
    return int(datetime.fromisoformat(f"{key[0][:19]}+00:00").timestamp())
