"""`make bench-live`: the latency from a window's end to its release, with 10, 100 and 1000 wearers who send at 128 Hz."""

from __future__ import annotations

import argparse
import math
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.figures import ROOT, Figures
from benchmarks.service_runs import peak_memory_mib, settings_for
from testbed.influxdb_server import InfluxServer, start_server

LATENESS_S = 2
WINDOW_S = 5
HERTZ = 128

#: Windows of the first seconds are not counted.
_WARM_UP_S = 15

#: How long an idle service is observed.
_IDLE_S = 30

_TICKS_PER_S = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100


def measure(figures: Figures, *, wearers: int, minutes: float) -> None:
    """Let wearers send for some minutes, and record the figures."""
    with start_server() as server, tempfile.TemporaryDirectory() as name:
        server.make_bucket("raw_data")
        server.make_bucket("anonymized-data")
        folder = Path(name)
        with _replaying(server, folder, wearers) as generator, _streaming(server, folder) as service:
            processes = {"processor": service.pid, "server's processor": server.pid, "generator's processor": generator.pid}
            time.sleep(_WARM_UP_S)
            began, began_s, began_busy_s = {who: _cpu_s(pid) for who, pid in processes.items()}, time.time(), _busy_s()
            began_mib = _memory_mib(service.pid)
            seen = _watch(server, until_s=began_s + 60 * minutes)
            ended_s = time.time()
            used_s = {who: _cpu_s(pid) - began[who] for who, pid in processes.items()}
            used_s["others' processor"] = _busy_s() - began_busy_s - sum(used_s.values())
            grown_mib, peak_mib = _memory_mib(service.pid) - began_mib, peak_memory_mib(service.pid)
    delays = [delay for start_s, delay in sorted(seen.items()) if start_s >= began_s - WINDOW_S]
    expected = int((ended_s - began_s) / WINDOW_S) - 2
    if len(delays) < expected:
        print(f"  only {len(delays)} of at least {expected} windows became visible")
    third = max(1, len(delays) // 3)
    wearing = f"{wearers:>4} wearers"
    for label, value, unit in (
        ("windows", len(delays), ""),
        ("window end to visible, p50", _percentile(delays, 50), "s"),
        ("window end to visible, p99", _percentile(delays, 99), "s"),
        ("p50 of the last third − of the first", _percentile(delays[-third:], 50) - _percentile(delays[:third], 50), "s"),
        *((who, 100 * seconds / (ended_s - began_s), "% of a core") for who, seconds in used_s.items()),
        ("peak memory", peak_mib, "MiB"),
        ("memory, end − start", grown_mib, "MiB"),
    ):
        figures.add(f"{wearing}, {label}", value, unit)


def measure_behind(figures: Figures, *, wearers: int, behind_s: int) -> None:
    """Start the service after wearers have sent for so long, and record how it catches up."""
    with start_server() as server, tempfile.TemporaryDirectory() as name:
        server.make_bucket("raw_data")
        server.make_bucket("anonymized-data")
        with _replaying(server, Path(name), wearers):
            began = datetime.now(UTC)
            time.sleep(behind_s)
            started_s = time.time()
            with _streaming(server, Path(name), QUERY_START_TIME=began.isoformat()) as service:
                while min(_visible(server).values(), default=math.inf) > LATENESS_S + WINDOW_S:
                    time.sleep(0.1)
                caught_up_s, peak_mib = time.time() - started_s, peak_memory_mib(service.pid)
    figures.add(f"{wearers:>4} wearers, {behind_s} s behind, caught up in", caught_up_s)
    figures.add(f"{wearers:>4} wearers, {behind_s} s behind, peak memory", peak_mib, "MiB")


def idle_percent(server: InfluxServer) -> float:
    """Return the CPU use of an idle stream after its warm-up, in per cent of a core."""
    for name in ("raw_data", "anonymized-data"):
        server.make_bucket(name)
    with tempfile.TemporaryDirectory() as folder, _streaming(server, Path(folder)) as service:
        time.sleep(_WARM_UP_S)
        before_s, began_s = _cpu_s(service.pid), time.monotonic()
        time.sleep(_IDLE_S)
        return 100 * (_cpu_s(service.pid) - before_s) / (time.monotonic() - began_s)


@contextmanager
def _replaying(server: InfluxServer, folder: Path, wearers: int) -> Iterator[subprocess.Popen[bytes]]:
    environment = {
        **os.environ,
        "INFLUX_URL": server.url,
        "INFLUX_ORG": server.org,
        "INFLUX_TOKEN": server.token,
        "WEARERS": str(wearers),
        "HERTZ": str(HERTZ),
    }
    with (folder / "replay.log").open("wb") as log:
        process = subprocess.Popen([sys.executable, "-m", "testbed.replay"], cwd=ROOT, env=environment, stdout=log, stderr=log)
        try:
            yield process
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(30)


@contextmanager
def _streaming(server: InfluxServer, folder: Path, **settings: str) -> Iterator[subprocess.Popen[bytes]]:
    environment = {
        "PATH": os.environ["PATH"],
        **settings_for(server),
        "STREAMING_MODE": "true",
        "ALLOWED_LATENESS_SECONDS": str(LATENESS_S),
        "BATCH_SIZE_SECONDS": str(WINDOW_S),
        "PSEUDONYMIZE_SOURCE_ID": "true",
        "PSEUDONYM_SALT": secrets.token_hex(32),
        "OUTPUT_TO_CSV": "false",
        "STATE_DIR": str(folder / "state"),
        **settings,
    }
    with (folder / "service.log").open("wb") as log:
        process = subprocess.Popen([sys.executable, "central_anonymizer.py"], cwd=ROOT, env=environment, stdout=log, stderr=log)
        try:
            yield process
            if process.poll() is not None:
                raise SystemExit(f"the service ended:\n{(folder / 'service.log').read_text(encoding='utf-8')}")
        finally:
            process.terminate()
            process.wait(30)


def _watch(server: InfluxServer, *, until_s: float) -> dict[int, float]:
    """Return the seconds from each window's end until its summary was first seen, by the window's start."""
    seen: dict[int, float] = {}
    while time.time() < until_s:
        seen = _visible(server) | seen
        time.sleep(0.1)
    return seen


def _visible(server: InfluxServer) -> dict[int, float]:
    """Return how many seconds ago the windows of the last minute that can be seen have ended, by their start."""
    flux = (
        'from(bucket: "anonymized-data") |> range(start: -1m) '
        '|> filter(fn: (r) => r._measurement == "ecg_anonymized_windows" and r._field == "k") '
        '|> map(fn: (r) => ({_time: r._time, seconds: int(v: r._time) / 1000000000})) |> keep(columns: ["seconds"])'
    )
    starts = [int(row["seconds"]) for row in server.rows(flux)]
    return {start_s: time.time() - (start_s + WINDOW_S) for start_s in starts}


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S


def _busy_s() -> float:
    """Return the processor seconds of all processes. Those of others tell whether the machine was quiet."""
    user, nice, system, _, _, *interrupts = Path("/proc/stat").read_text(encoding="ascii").split(maxsplit=8)[1:8]
    return sum(map(int, (user, nice, system, *interrupts))) / _TICKS_PER_S


def _memory_mib(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def _percentile(values: list[float], percent: int) -> float:
    return sorted(values)[min(len(values) - 1, len(values) * percent // 100)] if values else float("nan")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.live", description=__doc__)
    parser.add_argument("--wearers", type=int, nargs="+", default=[10, 100, 1000], help="how many (default 10 100 1000)")
    parser.add_argument("--minutes", type=float, default=5.0, help="for how long each (default 5)")
    parser.add_argument(
        "--behind", type=int, default=60, metavar="SECONDS", help="how late the service starts once more (default 60)"
    )
    options = parser.parse_args()
    figures = Figures(f"Live: {HERTZ} Hz, windows of {WINDOW_S} s, lateness {LATENESS_S} s, {options.minutes:g} minutes each")
    for wearers in options.wearers:
        measure(figures, wearers=wearers, minutes=options.minutes)
        measure_behind(figures, wearers=wearers, behind_s=options.behind)
        figures.keep("live")
    figures.show()


if __name__ == "__main__":
    main()
