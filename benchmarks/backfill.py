"""`make bench`: a backfill from InfluxDB to InfluxDB, server included, beside what the server's own read and write of the same rows take.

Read alone is the service's query with its bytes thrown away; write alone is the released rows, ready-made, over one connection. The three
are taken in turn, several times, so that a machine that changes its speed changes all of them.
"""

from __future__ import annotations

import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from anonymizer.windows import NANOSECONDS, WindowRange
from testbed.influxdb_server import InfluxServer, start_server
from testbed.replay import load
from testbed.wearers import Wearers
from transport.influxdb import Address, InfluxConnection

ROOT = Path(__file__).resolve().parent.parent

WEARERS = int(os.environ.get("WEARERS", "6"))
MINUTES = int(os.environ.get("MINUTES", "30"))
REPEATS = int(os.environ.get("REPEATS", "3"))

_START_S = 1762180200
_ROWS = WEARERS * MINUTES * 60 * 360
_LINES_PER_WRITE = 20_000
_MINUTES_PER_READ = 5


def main() -> None:
    """Print the table."""
    with start_server() as server, tempfile.TemporaryDirectory() as folder:
        server.make_bucket("raw_data")
        start_ns = _START_S * NANOSECONDS
        load(server, "raw_data", Wearers(WEARERS), start_ns=start_ns, end_ns=start_ns + MINUTES * 60 * NANOSECONDS)
        print(
            f"{_ROWS:,} rows: {WEARERS} wearers, {MINUTES} min, 360 Hz, InfluxDB {server.version}, {os.cpu_count()} cores, {REPEATS} rounds"
        )
        seconds: dict[str, list[float]] = {"read alone": [], "write alone": [], "service": []}
        for number in range(REPEATS):
            seconds["read alone"].append(_read_alone(server))
            released = f"released-{number}"
            server.make_bucket(released)
            seconds["service"].append(_service(server, released, Path(folder)))
            seconds["write alone"].append(_write_alone(server, released, f"copy-{number}"))
        _print_table(seconds)


def _read_alone(server: InfluxServer) -> float:
    connection = InfluxConnection(Address(url=server.url, org=server.org), server.token)
    started_s = time.perf_counter()
    for _ in _answers(connection, "raw_data", "ecg"):
        pass
    return time.perf_counter() - started_s


def _answers(connection: InfluxConnection, bucket: str, measurement: str) -> Iterator[bytes]:
    length_ns = _MINUTES_PER_READ * 60 * NANOSECONDS
    start_ns = _START_S * NANOSECONDS
    for part in WindowRange(start_ns, start_ns + MINUTES * 60 * NANOSECONDS, length_ns):
        yield connection.query(
            f'from(bucket: "{bucket}") |> range(start: time(v: {part.start_ns}), stop: time(v: {part.end_ns})) '
            f'|> filter(fn: (r) => r["_measurement"] == "{measurement}") |> keep(columns: ["_time", "_value", "source_id"]) |> group()'
        )


def _write_alone(server: InfluxServer, released: str, copy: str) -> float:
    """Store the service's own rows once more, elsewhere; only the requests are timed."""
    server.make_bucket(copy)
    connection = InfluxConnection(Address(url=server.url, org=server.org), server.token)
    spent_s = 0.0
    for answer in _answers(connection, released, "ecg_anonymized"):
        for lines in _as_lines(answer):
            started_s = time.perf_counter()
            connection.write(copy, lines)
            spent_s += time.perf_counter() - started_s
    return spent_s


def _as_lines(answer: bytes) -> Iterator[bytes]:
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    from inputs.flux_csv import TIME_TYPE, read_tables, times_as_ns

    for table in read_tables(answer):
        times, values, ids = table.columns([("_time", TIME_TYPE), ("_value", pa.string()), ("source_id", pa.string())])
        lines = pc.binary_join_element_wise(
            "ecg_anonymized,source_id=", ids, " ecg=", values, ".0 ", pc.cast(times_as_ns(times), pa.string()), ""
        )
        ordered = lines.take(pa.array(np.argsort(times_as_ns(times).to_numpy(), kind="stable"))).to_pylist()
        for first in range(0, len(ordered), _LINES_PER_WRITE):
            yield "\n".join(ordered[first : first + _LINES_PER_WRITE]).encode()


def _service(server: InfluxServer, released: str, folder: Path) -> float:
    """Run the program on all rows; return the seconds it names, start-up left out."""
    settings = {
        "INFLUX_URL": server.url,
        "INFLUX_ORG": server.org,
        "INFLUX_TOKEN": server.token,
        "INFLUX_OUTPUT_BUCKET": released,
        "QUERY_START_TIME": "2025-11-03T14:30:00Z",
        "QUERY_END_TIME": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(_START_S + MINUTES * 60)),
        "PSEUDONYMIZE_SOURCE_ID": "true",
        "PSEUDONYM_SALT": "a key for measurements only",
        "OUTPUT_TO_CSV": "false",
        "VERBOSE_LOGGING": "false",
        "STATE_DIR": str(folder / released),
    }
    environment = {"PATH": os.environ["PATH"], **settings}
    done = subprocess.run(
        [sys.executable, str(ROOT / "central_anonymizer.py")],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    sums = re.search(r"in ([\d.]+) s; (\d+) rows read = (\d+) released", done.stdout)
    if done.returncode != 0 or sums is None or int(sums[3]) != _ROWS:
        raise SystemExit(f"the service did not release every row:\n{done.stdout}{done.stderr}")
    return float(sums[1])


def _print_table(seconds: dict[str, list[float]]) -> None:
    print(f"\n{'':<22} {'median s':>9} {'least':>7} {'most':>7} {'M rows/s':>9}")
    for name, each in seconds.items():
        middle = statistics.median(each)
        print(f"{name:<22} {middle:>9.2f} {min(each):>7.2f} {max(each):>7.2f} {_ROWS / middle / 1e6:>9.3f}")
    ratios = [c / (a + b) for a, b, c in zip(seconds["read alone"], seconds["write alone"], seconds["service"], strict=True)]
    print(
        f"service ÷ (read alone + write alone), one connection: {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
    )


if __name__ == "__main__":
    main()
