"""The soak: wearers at twenty times life, a service with three outputs, random faults for half an hour, then every row is counted.

For a third of the time the API is away, so that a backlog waits through kills and restarts, and is caught up beside live data.

    SOAK_MINUTES=30 SOAK_SEED=1 python -m tests.faults.soak

Nothing may be lost, nothing doubled, and memory and descriptors must not grow. A window counts only if all of its rows were stored before
it was due: rows that come later stay out as promised. The writer knows when the server acknowledged each row; such windows are reported.
"""

from __future__ import annotations

import os
import shutil
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from testbed.influxdb_server import InfluxServer, start_server
from testbed.replay import Replay
from testbed.wearers import SECOND_NS, Wearers
from tests.faults.mischief import Mischief, Subject, Surroundings
from tests.faults.tally import Tallies, Tally, missing_and_beyond, raw_keys, rows_in_influxdb, tally_api, tally_files, windows
from tests.faults.ward import moment
from tests.integration.service_process import run_service
from tests.servers.digest_api import DigestApi
from tests.servers.tcp_proxy import TcpProxy

MINUTES = float(os.environ.get("SOAK_MINUTES", "30"))
SEED = int(os.environ.get("SOAK_SEED", "1"))

#: Six wearers, each with the rows of twenty: 43,200 rows a second.
WEARERS = Wearers(6, speed=20)

WINDOW_S, LATENESS_S, K = 5, 20, 5

#: A process is measured from this age on, in seconds: before, it loads its libraries.
GROWN_UP_S = 8.0

#: How long outputs may take to catch up when the faults are over, in seconds.
SETTLE_S = 600.0

#: The last third of the time may need so much more than the first, MB and descriptors: what a few big requests under way are worth.
MORE_MEMORY_MB, MORE_DESCRIPTORS = 64, 10


@dataclass
class Watch:
    """What the service needs and how late the writer is, sampled every second."""

    memory_mb: list[float] = field(default_factory=list)
    descriptors: list[int] = field(default_factory=list)
    stored_at_ns: list[tuple[int, int]] = field(default_factory=list)

    def look(self, subject: Subject, replay: Replay, born_s: dict[int, float]) -> None:
        """Take one sample."""
        now_ns = time.time_ns()
        self.stored_at_ns.append((replay.stored_until_ns, now_ns))
        pid = subject.service.process.pid
        if time.monotonic() - born_s.setdefault(pid, time.monotonic()) < GROWN_UP_S:
            return
        try:
            pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
            self.descriptors.append(len(list(Path(f"/proc/{pid}/fd").iterdir())))
            self.memory_mb.append(pages * os.sysconf("SC_PAGE_SIZE") / 2**20)
        except OSError:
            return  # It was just killed.

    def late_windows(self, start_ns: int, end_ns: int) -> set[int]:
        """Return the starts of windows of which the last row was not known to be stored when they fell due."""
        late = set()
        for first_ns, last_ns in windows(start_ns, end_ns, WINDOW_S):
            stored_ns = next((at_ns for until_ns, at_ns in self.stored_at_ns if until_ns >= last_ns), None)
            if stored_ns is None or stored_ns > last_ns + LATENESS_S * SECOND_NS:
                late.add(first_ns)
        return late


@dataclass
class Outage:
    """Keeps one output away for a while, and watches how many windows wait for it.

    Args:
        proxy: The way to the output.
        begin_s: When it goes away, on the monotonic clock.
        end_s: When it is back.
        waiting: Returns how many windows wait for it now.
    """

    proxy: TcpProxy
    begin_s: float
    end_s: float
    waiting: Callable[[], int]
    most_waiting: int = 0
    caught_up_after_s: float | None = None
    _is_away: bool = False

    def look(self) -> None:
        """Do what the time asks for. Other faults open the same proxy again, so it is closed at every look."""
        now_s = time.monotonic()
        if self.begin_s <= now_s < self.end_s:
            self._is_away = True
            self.proxy.refuse()
        elif self._is_away:
            self._is_away = False
            self.proxy.pass_all()
        if now_s >= self.begin_s and self.caught_up_after_s is None:
            waiting = self.waiting()
            self.most_waiting = max(self.most_waiting, waiting)
            if now_s >= self.end_s and waiting <= 1:
                self.caught_up_after_s = now_s - self.end_s


class Tokens:
    """Two token files, and what changes them while the service runs."""

    def __init__(self, server: InfluxServer, folder: Path, *, raw: str, released: str) -> None:
        self._server = server
        self._make = {
            "INFLUX_TOKEN": lambda: server.make_token(read=[raw]),
            "INFLUX_OUTPUT_TOKEN": lambda: server.make_token(write=[released]),
        }
        self._files = {name: folder / name for name in self._make}
        self._known: dict[str, str] = {}
        for name in self._make:
            self.rotate(name)
        self.settings: dict[str, object] = {f"{name}_FILE": path for name, path in self._files.items()}

    def rotate(self, name: str) -> None:
        """Make a new token, take the old one away, and put the new one into its file."""
        old, self._known[name] = self._known.get(name), self._make[name]()
        if old:
            self._server.revoke_token(old)
        self._files[name].write_text(self._known[name], encoding="ascii")

    def rotations(self) -> tuple[Callable[[], None], ...]:
        """Return one rotation for each."""
        return tuple(lambda name=name: self.rotate(name) for name in self._make)


@contextmanager
def repeated(action: Callable[[], None], *, every_s: float) -> Iterator[None]:
    """Do something again and again for as long as the block lasts."""
    over = threading.Event()

    def go_on() -> None:
        while not over.wait(every_s):
            action()

    thread = threading.Thread(target=go_on, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def main() -> int:
    """Run the soak, print what became of the rows, and return 1 if one was lost or doubled."""
    folder = Path(tempfile.mkdtemp(prefix="soak-"))
    with ExitStack() as stack:
        server = stack.enter_context(start_server(folder / "influxd"))
        api, undisturbed_api = (stack.enter_context(DigestApi()) for _ in range(2))
        proxies = tuple(stack.enter_context(TcpProxy(port)) for port in (server.port, server.port, api.port))
        for bucket in ("raw", "released"):
            server.make_bucket(bucket)
        tokens = Tokens(server, folder, raw="raw", released="released")
        source, output, to_api = proxies
        shared: dict[str, object] = {
            "INFLUX_ORG": server.org,
            "INFLUX_INPUT_BUCKET": "raw",
            "INFLUX_OUTPUT_BUCKET": "released",
            "OUTPUT_TO_API": "true",
            "CSV_FILENAME_PATTERN": "w_%Y%m%d_%H%M%S.csv",
            "BATCH_SIZE_SECONDS": WINDOW_S,
            # One window a chunk, behind or not: else memory would tell how far behind it is, and not whether it grows.
            "MAX_RECORDS_PER_QUERY": WEARERS.rows_per_s * WINDOW_S,
        }
        start_ns = (time.time_ns() // SECOND_NS // WINDOW_S + 2) * WINDOW_S * SECOND_NS
        end_ns = start_ns + round(MINUTES * 60 / WINDOW_S) * WINDOW_S * SECOND_NS
        settings: dict[str, object] = {
            **shared,
            **tokens.settings,
            "INFLUX_URL": source.url,
            "INFLUX_OUTPUT_URL": output.url,
            "API_ENDPOINT": f"{to_api.url}/ecg",
            "STREAMING_MODE": "true",
            "QUERY_START_TIME": moment(start_ns),
            "ALLOWED_LATENESS_SECONDS": LATENESS_S,
            "API_TIMEOUT_SECONDS": "15",
            "VERBOSE_LOGGING": "false",
        }
        print(
            f"{WEARERS.rows_per_s:,} rows/s for {MINUTES:g} minutes from {moment(start_ns)}, seed {SEED}; logs in {folder}",
            flush=True,
        )
        replay = Replay(WEARERS, server, "raw", stop=threading.Event(), start_ns=start_ns)
        subject = Subject(_made(folder / "service"), settings)
        mischief = Mischief(subject, Surroundings(server, proxies, tokens.rotations()), seed=SEED)
        watch, born_s = Watch(), dict[int, float]()
        csv, began_s = folder / "service" / "csv", time.monotonic()
        outage = Outage(
            to_api,
            began_s + MINUTES * 60 / 6,
            began_s + MINUTES * 60 / 2,
            waiting=lambda: len(list(csv.glob("*.csv"))) - _windows_in(api),
        )
        writer = threading.Thread(target=replay.run, args=(end_ns,), daemon=True)
        with repeated(lambda: watch.look(subject, replay, born_s), every_s=1.0), repeated(outage.look, every_s=0.5):
            writer.start()
            mischief.until(time.monotonic() + (end_ns - time.time_ns()) / SECOND_NS)
            for proxy in proxies:
                proxy.pass_all()
            writer.join(SETTLE_S)
            settled = _settle(csv, server, api, count=round(MINUTES * 60 / WINDOW_S))
        code = subject.end()
        late = watch.late_windows(start_ns, end_ns)
        span = {"QUERY_START_TIME": moment(start_ns), "QUERY_END_TIME": moment(end_ns)}
        alone = {"INFLUX_URL": server.url, "INFLUX_TOKEN": server.token, "API_ENDPOINT": undisturbed_api.endpoint, **span}
        expected_code, log = run_service(
            _made(folder / "undisturbed"), {**shared, **alone, "OUTPUT_TO_INFLUX": "false"}, within_s=10 * SETTLE_S
        )
        assert expected_code == 0, log
        tallies = Tallies()
        for first_ns, last_ns in windows(start_ns, end_ns, WINDOW_S):
            if first_ns not in late:
                _tally_window(tallies, folder, server, first_ns, last_ns)
        spared = {f"-{first_ns}-" for first_ns in late}
        expected, found = (
            {key: kept for key, kept in one.kept().items() if not any(name in key for name in spared)}
            for one in (undisturbed_api, api)
        )
        tally_api(tallies.api, expected, found, conflicting_rows=api.conflicting_rows)
        is_good = _report(
            tallies, mischief, subject, watch, outage, late=len(late), settled=settled, code=code, repeated=api.repeated
        )
    if is_good:
        shutil.rmtree(folder)
    return 0 if is_good else 1


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def _settle(csv: Path, server: InfluxServer, api: DigestApi, *, count: int) -> bool:
    """Wait until every output has as many windows as there are; return whether they got that far."""
    deadline_s = time.monotonic() + SETTLE_S
    flux = (
        'from(bucket: "released") |> range(start: 0) '
        '|> filter(fn: (r) => r._measurement == "ecg_anonymized_windows" and r._field == "k") |> group() |> count()'
    )
    while time.monotonic() < deadline_s:
        in_api = _windows_in(api)
        in_influxdb = sum(int(row["_value"]) for row in server.rows(flux))
        if min(len(list(csv.glob("*.csv"))), in_api, in_influxdb) >= count:
            return True
        time.sleep(1)
    return False


def _windows_in(api: DigestApi) -> int:
    return len({key.partition(":")[0] for key in api.kept()})


def _tally_window(tallies: Tallies, folder: Path, server: InfluxServer, first_ns: int, last_ns: int) -> None:
    name = f"w_{moment(first_ns).replace('-', '').replace(':', '').replace('T', '_').rstrip('Z')}.csv"
    path = folder / "undisturbed" / "csv" / name
    expected = path.read_bytes() if path.exists() else b"timestamp,source_id,ecg\n"
    keys = raw_keys(WEARERS, first_ns, last_ns)
    wanted = tally_files(tallies, expected, folder / "service" / "csv" / name, keys, k=K)
    lost, doubled = missing_and_beyond(wanted, rows_in_influxdb(server, "released", first_ns, last_ns))
    tallies.influxdb.count(len(wanted), lost, doubled)


def _report(
    tallies: Tallies,
    mischief: Mischief,
    subject: Subject,
    watch: Watch,
    outage: Outage,
    *,
    late: int,
    settled: bool,
    code: int,
    repeated: int,
) -> bool:
    print("\n" + ", ".join(f"{name}: {times}" for name, times in sorted(mischief.done.items())) + f"; {subject.lives} lives")
    print(f"{'':<24}{'rows':>14}{'lost':>10}{'doubled':>10}")
    lines: list[tuple[str, Tally]] = [
        ("measured, by definition", tallies.definition),
        ("InfluxDB", tallies.influxdb),
        ("CSV", tallies.csv),
        ("API", tallies.api),
    ]
    for name, tally in lines:
        print(f"{name:<24}{tally.rows:>14,}{tally.lost:>10,}{tally.doubled:>10,}")
    memory_mb, more_memory = _thirds(watch.memory_mb)
    descriptors, more_descriptors = _thirds([float(number) for number in watch.descriptors])
    print(f"resident memory, MB: first third {memory_mb:.0f}, last third {more_memory:.0f} (medians)")
    print(f"descriptors: first third {descriptors:.0f}, last third {more_descriptors:.0f} (medians)")
    print(
        f"{late} windows were stored too late to count; the API was sent {repeated} requests again; fewest alike: {tallies.fewest_alike}"
    )
    caught_up = "never" if outage.caught_up_after_s is None else f"{outage.caught_up_after_s:.0f} s after its return"
    print(
        f"backlog: the API was away for {outage.end_s - outage.begin_s:.0f} s; {outage.most_waiting} windows waited; caught up {caught_up}"
    )
    problems = [f"{name}: rows are missing or too many" for name, tally in lines if not tally.is_good]
    problems += mischief.complaints
    problems += ["it did not settle"] * (not settled) + [f"it ended with code {code}"] * (code != 0)
    problems += ["memory grew"] * (more_memory > memory_mb + MORE_MEMORY_MB)
    problems += ["descriptors grew"] * (more_descriptors > descriptors + MORE_DESCRIPTORS)
    problems += ["the backlog was never caught up"] * (outage.caught_up_after_s is None)
    problems += ["a value is shared by fewer than k rows"] * (tallies.fewest_alike < K)
    for problem in problems:
        print(f"❌ {problem}")
    print("❌ The soak failed" if problems else "✅ 0 lost, 0 doubled")
    return not problems


def _thirds(values: list[float]) -> tuple[float, float]:
    third = max(1, len(values) // 3)
    return (statistics.median(values[:third]), statistics.median(values[-third:])) if values else (0.0, 0.0)


if __name__ == "__main__":
    sys.exit(main())
