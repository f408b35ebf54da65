"""A clinic on the shared server: buckets and tokens of one test's own, and what its outputs hold."""

from __future__ import annotations

import csv
import hashlib
import hmac
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from uuid import uuid4

from testbed.influxdb_server import InfluxServer
from testbed.sample_ecg import read_sample_ecg
from tests.integration.service_process import KEY

#: Where the sample ECG lies in time, and its first minute.
FIRST_MINUTE = {"QUERY_START_TIME": "2025-11-03T14:30:00Z", "QUERY_END_TIME": "2025-11-03T14:31:00Z"}
START_NS = 1762180200 * 10**9
RECORDS = ("mitbih-100", "mitbih-102", "mitbih-104", "mitbih-105", "mitbih-106", "mitbih-108")

#: Time in RFC 3339 with nine digits, and released id.
Key = tuple[str, str]


class Clinic:
    """Two buckets of one test on the shared server, a token that can only read one and a token that can only write the other."""

    def __init__(self, server: InfluxServer) -> None:
        self.server = server
        self.raw, self.released = f"raw-{uuid4().hex}", f"released-{uuid4().hex}"
        server.make_bucket(self.raw)
        server.make_bucket(self.released)
        self.settings: dict[str, object] = {
            "INFLUX_URL": server.url,
            "INFLUX_ORG": server.org,
            "INFLUX_TOKEN": server.make_token(read=[self.raw]),
            "INFLUX_OUTPUT_TOKEN": server.make_token(write=[self.released]),
            "INFLUX_INPUT_BUCKET": self.raw,
            "INFLUX_OUTPUT_BUCKET": self.released,
            "PSEUDONYMIZE_SOURCE_ID": "true",
            "PSEUDONYM_SALT": KEY,
            "RETRY_BUDGET_SECONDS": "2",
        }

    def fill(self, rows: int = 20, *, seconds: Iterable[int] = (0,)) -> None:
        """Put rows of one wearer, a millisecond apart, into the raw bucket, from some seconds on."""
        times_ns = (START_NS + second * 10**9 + index * 10**6 for second in seconds for index in range(rows))
        lines = (f"ecg,source_id=a ecg={number % 2} {time_ns}" for number, time_ns in enumerate(times_ns))
        self.server.write_lines(self.raw, "\n".join(lines).encode())

    def stored(self, *, measurement: str = "ecg_anonymized", tag: str = "source_id") -> dict[Key, float]:
        """Return every released point, by nanosecond time and id."""
        flux = (
            f'from(bucket: "{self.released}") |> range(start: 0) |> filter(fn: (r) => r._measurement == {flux_text(measurement)})'
        )
        return {(nanoseconds(row["_time"]), row[tag]): float(row["_value"]) for row in self.server.rows(flux)}


def nanoseconds(text: str) -> str:
    """Return an RFC 3339 time with all nine digits of its fraction."""
    whole, _, fraction = text.removesuffix("Z").partition(".")
    return f"{whole}.{fraction.ljust(9, '0')}Z"


def flux_text(text: str) -> str:
    return json.dumps(text).replace("${", "\\${")


def csv_rows(folder: Path) -> dict[Key, float]:
    rows: dict[Key, float] = {}
    for path in sorted(folder.glob("*.csv")):
        with path.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                key = (row["timestamp"], row["source_id"])
                assert key not in rows, "one row for each time and source"
                rows[key] = float(row["ecg"])
    return rows


def api_rows(payloads: Iterable[Any]) -> dict[Key, float]:
    rows: dict[Key, float] = {}
    for payload in payloads:
        for record in payload["records"]:
            key = (record["timestamp"], record["source_id"])
            assert key not in rows, "one row for each time and source"
            rows[key] = record["ecg"]
    return rows


def load_first_minute(clinic: Clinic, *, seconds: int = 60) -> dict[Key, int]:
    """Put the first minute of the six records, or less of it, into the raw bucket; return it by time and pseudonym."""
    ecg = read_sample_ecg()
    rows = seconds * 360
    lines, raw = [], {}
    for position, record in enumerate(RECORDS):
        pseudonym = hmac.new(KEY.encode(), record.encode(), hashlib.sha256).hexdigest()
        for index in range(rows):
            offset_ns = index * 10**9 // 360
            value = int(ecg.values_uv[position][index])
            lines.append(f"ecg,source_id={record} ecg={value}i {START_NS + offset_ns}")
            seconds, nanoseconds = divmod(offset_ns, 10**9)
            raw[(f"2025-11-03T14:30:{seconds:02d}.{nanoseconds:09d}Z", pseudonym)] = value
    clinic.server.write_lines(clinic.raw, "\n".join(lines).encode())
    return raw
