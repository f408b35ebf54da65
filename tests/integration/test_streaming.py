"""Streaming on a real InfluxDB 2 with wearers that send as they live: every due window once, soon, and a clean end."""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from inputs.influx_dialect import InfluxSeries
from inputs.influx_source import InfluxSource
from service.pipeline import read_ahead
from service.pipeline.chunks import Chunk, read_completely
from service.pipeline.schedule import Stream
from testbed.influxdb_api import InfluxApi
from testbed.replay import BucketWriter, Replay, load
from testbed.wearers import Wearers
from tests.integration.clinic import Clinic
from tests.integration.service_process import Service, state
from tests.service.fakes import FakeClock
from transport.influx_connection import Address, InfluxConnection

pytestmark = pytest.mark.influxdb

#: How long wearers are replayed. Two minutes by `make test-live`, less in `make test`.
LIVE_SECONDS = int(os.environ.get("LIVE_SECONDS", "9"))

LATENESS_S = 2
WINDOW_S = 2

#: How soon after it is due a window is visible. While other tests run beside this one, it is only told from a stream that sleeps on.
SOON_S, PAUSE_S = (1.5, 5) if LIVE_SECONDS >= 60 else (15.0, 60)


class Taking(InfluxApi):
    """A server that notes how old the oldest row was when it had taken it."""

    oldest_s = 0.0

    def write_lines(self, bucket: str, lines: bytes) -> None:
        super().write_lines(bucket, lines)
        first_ns = min(int(line.rpartition(b" ")[2]) for line in lines.splitlines())
        self.oldest_s = max(self.oldest_s, time.time() - first_ns / 10**9)


@contextmanager
def wearing(server: BucketWriter, bucket: str, wearers: Wearers) -> Iterator[Replay]:
    """Let wearers send for as long as the block lasts."""
    stop = threading.Event()
    replay = Replay(wearers, server, bucket, stop=stop)
    thread = threading.Thread(target=replay.run, daemon=True)
    thread.start()
    try:
        yield replay
    finally:
        stop.set()
        thread.join(timeout=10)


def test_every_window_that_falls_due_is_released_once_and_soon(clinic: Clinic, tmp_path: Path) -> None:
    settings = {
        **clinic.settings,
        "STREAMING_MODE": "true",
        "ALLOWED_LATENESS_SECONDS": LATENESS_S,
        "BATCH_SIZE_SECONDS": WINDOW_S,
        "STREAMING_INTERVAL": PAUSE_S,
    }
    seen_after_s: dict[int, float] = {}
    # So many rows that seconds are read before their window is due.
    wearers, late_rows = Wearers(30), dict[int, bool]()
    taking = Taking(clinic.server.url, org=clinic.server.org, token=clinic.server.token)

    with wearing(taking, clinic.raw, wearers), Service(tmp_path, settings) as service:
        service.wait_for("Connected to InfluxDB")
        began_s = time.time()
        while time.time() < began_s + LIVE_SECONDS or (len(seen_after_s) < 3 and time.time() < began_s + 60):
            window_end_s = int(time.time() - 1.4) // WINDOW_S * WINDOW_S
            if window_end_s not in late_rows:
                # A row of the second that was read 0.4 s ago, 0.6 s before its window is due.
                clinic.server.write_lines(clinic.raw, f"ecg,source_id=late ecg=7.0 {window_end_s - 2}500000000".encode())
                late_rows[window_end_s] = time.time() < window_end_s + LATENESS_S
            for start_s in summaries(clinic):
                seen_after_s.setdefault(start_s, time.time() - (start_s + WINDOW_S))
            time.sleep(0.05)
        code = service.stop()
        log = service.log

    starts = sorted(seen_after_s)
    first_due = -(-int(began_s) // WINDOW_S) * WINDOW_S
    assert code == 0, log
    assert starts == list(range(starts[0], starts[-1] + 1, WINDOW_S)), "no window left out"
    assert len(starts) >= 3
    assert starts[0] <= first_due + SOON_S
    assert starts[-1] >= began_s + LIVE_SECONDS - LATENESS_S - 2 * WINDOW_S - SOON_S
    assert min(seen_after_s.values()) >= LATENESS_S, "no window before it was due"
    visible_s = sorted(seen_after_s.values())
    p50, p99 = visible_s[len(visible_s) // 2], visible_s[min(len(visible_s) - 1, len(visible_s) * 99 // 100)]
    print(f"{len(starts)} windows; window end to visible: p50 {p50:.2f} s, p99 {p99:.2f} s, lateness {LATENESS_S} s")
    assert p99 <= LATENESS_S + SOON_S
    rows = wearers.rows_per_s * WINDOW_S
    without, with_late_row = (log.count(f"Successfully pushed {count} points") for count in (rows, rows + 1))
    assert log.count("📦 Processing batch") >= len(starts)
    if taking.oldest_s < LATENESS_S:  # else the machine was too busy for the wearers, and some of their rows came late
        assert log.count("📦 Processing batch") == without + with_late_row, "no row missing, none twice"
        came_in_time = [start_s for start_s in starts if late_rows.get(start_s + WINDOW_S)]
        assert with_late_row >= len(came_in_time), "rows that come after an early read are released"


def test_a_window_read_early_is_what_the_server_holds_when_it_falls_due(clinic: Clinic, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read_ahead, "_ROWS_PER_PART", 4)
    server, first_s = clinic.server, int(time.time()) // 5 * 5 - 100
    connection = InfluxConnection(Address(url=server.url, org=server.org, timeout_s=10.0), lambda: server.token)
    source = InfluxSource(connection, InfluxSeries(bucket=clinic.raw, measurement="ecg", field="ecg", source_tag="source_id"))
    source.open()
    monkeypatch.setattr(source, "now_ns", lambda: None)
    monkeypatch.setattr(source, "clock_check_in_s", lambda: math.inf)

    def send(name: str, *at_s: float) -> None:
        lines = "\n".join(f"ecg,source_id={name} ecg={at} {round((first_s + at) * 10**9)}" for at in at_s)
        server.write_lines(clinic.raw, lines.encode())

    def delete(name: str, since_s: float, before_s: float) -> None:
        start, stop = (datetime.fromtimestamp(first_s + at_s, UTC).isoformat() for at_s in (since_s, before_s))
        question = {"start": start, "stop": stop, "predicate": f'source_id="{name}"'}
        server.ask("POST", "/api/v2/delete", params={"org": server.org, "bucket": clinic.raw}, json=question)

    send("a", *np.arange(-5, 5, 0.25))
    send("b", *np.arange(0, 5, 0.5))
    # Of the window [0, 5), the seconds 0 and 1 are read at 4.5, when half of it is 2 s old; 2 at 5, 3 at 6, and 4 at 7, when it is due.
    changes = [
        (5.5, lambda: send("late", 1.25)),
        (5.6, lambda: delete("b", 0, 0.75)),
        (5.7, lambda: delete("b", 2, 2.75)),
        (5.8, lambda: send("instead", 2.25, 2.5)),
        (6.5, lambda: send("later", 3.25, 4.25)),
        (6.6, lambda: send("a", 1.125)),
        (6.7, lambda: delete("b", 3, 3.75)),
    ]
    clock = FakeClock(first_s + 0.5)
    s = 10**9
    stream = Stream(source, clock, (first_s - 5) * s, 5 * s, LATENESS_S * s, interval_s=0.5)
    newest, reads = read_ahead.NewestWindow(source, stream), 0
    for windows in stream:
        while changes and clock.now_s >= first_s + changes[0][0]:
            changes.pop(0)[1]()
        if not windows:
            newest.begin()
            for early in newest._early:
                early._pending.wait()
            reads = max(reads, len(newest._early))
        else:
            chunk = Chunk(windows, *newest.count(windows))
            if windows.start_ns == first_s * s:
                break
    samples = read_completely(source, chunk)
    source.close()

    held = server.rows(
        f'from(bucket: "{clinic.raw}") |> range(start: {first_s}, stop: {first_s + 5}) |> group() '
        '|> map(fn: (r) => ({at: int(v: r._time), source_id: r.source_id})) |> keep(columns: ["at", "source_id"])'
    )
    released = zip(samples.times_ns.tolist(), (samples.source_ids[code] for code in samples.source_codes), strict=True)
    assert (reads, changes) == (3, [])
    assert sorted(released) == sorted((int(row["at"]), row["source_id"]) for row in held)
    assert len(held) == 20 + 10 + 6 - 6, "as many as before: the count of the whole window would not tell"


def summaries(clinic: Clinic) -> list[int]:
    """Return the starts of the windows that are visible in the output bucket, in seconds."""
    flux = (
        f'from(bucket: "{clinic.released}") |> range(start: -10m) '
        '|> filter(fn: (r) => r._measurement == "ecg_anonymized_windows" and r._field == "k") '
        '|> map(fn: (r) => ({_time: r._time, seconds: int(v: r._time) / 1000000000})) |> keep(columns: ["seconds"])'
    )
    return [int(row["seconds"]) for row in clinic.server.rows(flux)]


def test_a_stream_that_starts_in_the_past_catches_up_with_many_windows_a_query_and_is_verified_while_it_runs(
    clinic: Clinic, tmp_path: Path
) -> None:
    now_s = int(time.time()) // 5 * 5
    start_s = now_s - 600
    load(clinic.server, clinic.raw, Wearers(2, hertz=128), start_ns=start_s * 10**9, end_ns=now_s * 10**9)
    start = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(start_s))
    settings = {**clinic.settings, "STREAMING_MODE": "true", "QUERY_START_TIME": start, "VERBOSE_LOGGING": "false"}

    readable = {"INFLUX_VERIFY_TOKEN": clinic.server.make_token(read=[clinic.raw, clinic.released])}
    during = list[tuple[int, str]]()
    with Service(tmp_path, settings) as service:
        service.wait_for("Processing batch")
        # Windows are released between the reads of journal, bucket and outputs.
        during.append(state(tmp_path, "verify", environment=readable))
        deadline = time.monotonic() + 60
        while len(clinic.stored()) < (600 - 15) * 2 * 128 and time.monotonic() < deadline:
            time.sleep(0.2)
        during += [state(tmp_path, command, environment=readable) for command in ("show", "verify")]
        service.stop()
        log = service.log

    assert len(clinic.stored()) >= (600 - 15) * 2 * 128, log
    assert log.count("📦 Processing batch") < 20
    assert [code for code, _ in during] == [0] * len(during), during
    assert "OK: journal, source and outputs agree." in during[0][1]
