"""Baselines of the server alone: to read, to write prepared requests, and to copy rows by a task of its own."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from anonymizer.windows import NANOSECONDS, WindowRange
from inputs.flux_csv import TIME_TYPE, read_tables, times_as_ns
from testbed.influxdb_server import InfluxServer
from testbed.replay import load
from testbed.wearers import Wearers
from transport.influx_connection import Address, InfluxConnection

#: Start of the data.
START_S = 1762180200
START_NS = START_S * NANOSECONDS

#: As the service does, unless told otherwise.
LINES_PER_WRITE = 50_000
_WINDOW_NS = 5 * NANOSECONDS
_MINUTES_PER_READ = 5


@dataclass(frozen=True, slots=True)
class RawEcg:
    """Real ECG in a bucket.

    Args:
        server: The server.
        bucket: The raw bucket.
        wearers: Number of wearers.
        minutes: Duration.
        hertz: Samples per second of each wearer.
    """

    server: InfluxServer
    bucket: str
    wearers: int
    minutes: int
    hertz: int = 360

    @property
    def rows(self) -> int:
        """Number of rows."""
        return self.wearers * self.minutes * 60 * self.hertz

    @property
    def end_ns(self) -> int:
        """End of the data."""
        return START_NS + self.minutes * 60 * NANOSECONDS

    @property
    def end(self) -> str:
        """End of the data, in the format of settings."""
        return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self.end_ns // NANOSECONDS))

    def load(self) -> None:
        """Create the bucket and fill it."""
        self.server.make_bucket(self.bucket)
        load(self.server, self.bucket, Wearers(self.wearers, hertz=self.hertz), start_ns=START_NS, end_ns=self.end_ns)


def processor_seconds(server: InfluxServer) -> float:
    """Return the processor seconds that the server has used so far, as the operating system counts them."""
    after_name = Path(f"/proc/{server.pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return sum(map(int, after_name[11:13])) / os.sysconf("SC_CLK_TCK")


def connect(server: InfluxServer) -> InfluxConnection:
    """Return a connection like the service's."""
    return InfluxConnection(Address(url=server.url, org=server.org, timeout_s=120), lambda: server.token)


def seconds_to_read(raw: RawEcg) -> float:
    """Return the seconds of the service's own queries; the answers are discarded."""
    connection = connect(raw.server)
    started_s = time.perf_counter()
    for flux in _queries(raw, raw.bucket, "ecg"):
        with connection.answer_to(flux) as blocks:
            for _ in blocks:
                pass
    return time.perf_counter() - started_s


def released_lines(raw: RawEcg, released: str) -> list[bytes]:
    """Return the released rows of a bucket as prepared requests, in the service's order: by window, then source."""
    connection = connect(raw.server)
    requests: list[bytes] = []
    for flux in _queries(raw, released, "ecg_anonymized"):
        with connection.answer_to(flux) as blocks:
            requests += _as_lines([b"".join(blocks)])
    return requests


def seconds_to_write(server: InfluxServer, bucket: str, requests: list[bytes], *, connections: int) -> float:
    """Return the seconds to store prepared requests in a new bucket."""
    server.make_bucket(bucket)
    waiting, lock = iter(requests), threading.Lock()

    def send_all(connection: InfluxConnection) -> None:
        while True:
            with lock:
                lines = next(waiting, None)
            if lines is None:
                return
            connection.write(bucket, lines)

    workers = [threading.Thread(target=send_all, args=(connect(server),)) for _ in range(connections)]
    started_s = time.perf_counter()
    for one in workers:
        one.start()
    for one in workers:
        one.join()
    return time.perf_counter() - started_s


def seconds_to_copy(raw: RawEcg, copy: str) -> float:
    """Return the seconds that the server takes to copy the raw rows to a new bucket, without anonymization."""
    raw.server.make_bucket(copy)
    started_s = time.perf_counter()
    raw.server.query_csv(
        f'from(bucket: "{raw.bucket}") |> range(start: time(v: {START_NS}), stop: time(v: {raw.end_ns})) '
        f'|> to(bucket: "{copy}") |> count() |> yield()'
    )
    return time.perf_counter() - started_s


def _queries(raw: RawEcg, bucket: str, measurement: str) -> Iterator[str]:
    for part in WindowRange(START_NS, raw.end_ns, min(_MINUTES_PER_READ, raw.minutes) * 60 * NANOSECONDS):
        yield (
            f'from(bucket: "{bucket}") |> range(start: time(v: {part.start_ns}), stop: time(v: {part.end_ns})) '
            f'|> filter(fn: (r) => r["_measurement"] == "{measurement}") |> keep(columns: ["_time", "_value", "source_id"]) '
            '|> group() |> yield(name: "r")'
        )


def _as_lines(blocks: Iterable[bytes]) -> Iterator[bytes]:
    for table in read_tables(blocks):
        times, values, ids = table.columns([("_time", TIME_TYPE), ("_value", pa.string()), ("source_id", pa.string())])
        lines = pc.binary_join_element_wise(
            "ecg_anonymized,source_id=", ids, " ecg=", values, ".0 ", pc.cast(times_as_ns(times), pa.string()), ""
        )
        times_ns = times_as_ns(times).to_numpy()
        sources = pc.rank(ids.combine_chunks(), tiebreaker="dense").to_numpy()
        ordered = lines.take(pa.array(np.lexsort((times_ns, sources, times_ns // _WINDOW_NS)))).to_pylist()
        for first in range(0, len(ordered), LINES_PER_WRITE):
            yield "\n".join(ordered[first : first + LINES_PER_WRITE]).encode()
