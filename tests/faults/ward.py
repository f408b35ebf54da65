"""A ward: wearers whose every sample is known, a service of its own with all three outputs, and what it takes to do it harm."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import pytest

from testbed.influxdb_server import InfluxServer
from testbed.replay import load
from testbed.wearers import SECOND_NS, Wearers
from tests.faults.oracle import (
    MEASUREMENT,
    Holdings,
    assert_by_definition,
    assert_same,
    files_in,
    payloads_of,
    points_in,
    raw_samples,
    summaries_in,
)
from tests.integration.clinic import START_NS
from tests.integration.service_process import KEY, Service, run_service, state
from tests.servers.api_server import ApiServer

#: `make test-faults` does everything often; `make test` does everything.
FULL = bool(os.environ.get("FAULTS_FULL"))

#: Marks what is one more way to the same fault.
variant = pytest.mark.skipif(not FULL, reason="a variant of another test; make test-faults runs it")

#: What a process that was killed ends with.
KILLED = -signal.SIGKILL

#: Where a run reads and writes, and how patient it is, does not change what comes out.
PLUMBING = {"INFLUX_URL", "INFLUX_TOKEN", "INFLUX_OUTPUT_URL", "INFLUX_OUTPUT_TOKEN", "INFLUX_OUTPUT_BUCKET", "INFLUX_TOKEN_FILE"}
PLUMBING |= {"INFLUX_OUTPUT_TOKEN_FILE", "API_ENDPOINT", "API_TOKEN", "API_TIMEOUT_SECONDS", "INFLUX_QUERY_TIMEOUT"}
PLUMBING |= {
    "INFLUX_WRITE_BATCH_SIZE",
    "RETRY_BUDGET_SECONDS",
    "STATE_DIR",
    "CSV_OUTPUT_DIR",
    "SPOOL_MAX_BYTES",
    "STREAMING_MODE",
}
PLUMBING |= {"STREAMING_INTERVAL", "ALLOWED_LATENESS_SECONDS", "LATE_RECOUNT_SECONDS", "LOG_LEVEL", "VERBOSE_LOGGING"}
PLUMBING |= {"MAX_RECORDS_PER_QUERY", "INFLUX_QUERY_LANGUAGE"}

#: Settings of one run that are not the ward's.
Changes = Mapping[str, object]
NONE: Changes = {}

#: The service as a stream, with windows that are due at once.
STREAMING: Changes = {
    "STREAMING_MODE": "true",
    "STREAMING_INTERVAL": "1",
    "ALLOWED_LATENESS_SECONDS": "0",
    "QUERY_END_TIME": "",
}

#: How long a test waits for what must come, in seconds; a busy machine is forgiven.
TIMEOUT_S = 60.0

POLL_S = 0.05


class Recording:
    """Raw samples in a bucket of their own, all of them known.

    Args:
        server: Where the bucket is.
        wearers: Whose samples.
        start_ns: From when.
        seconds: How long.
    """

    def __init__(self, server: InfluxServer, wearers: Wearers, *, start_ns: int = START_NS, seconds: int) -> None:
        self.server = server
        self.wearers = wearers
        self.start_ns, self.end_ns = start_ns, start_ns + seconds * SECOND_NS
        self.bucket = f"raw-{uuid4().hex}"
        server.make_bucket(self.bucket)
        self.token = server.make_token(read=[self.bucket])
        load(server, self.bucket, wearers, start_ns=self.start_ns, end_ns=self.end_ns)

    @property
    def span(self) -> dict[str, object]:
        """The settings that ask for all of it."""
        return {"QUERY_START_TIME": moment(self.start_ns), "QUERY_END_TIME": moment(self.end_ns)}


class Undisturbed:
    """Runs that nothing disturbs, each made once however often it is asked for.

    Args:
        folder: Where they work.
        api: A server of their own.
    """

    def __init__(self, folder: Path, api: ApiServer) -> None:
        self._folder = folder
        self._api = api
        self._known: dict[tuple[object, ...], Holdings] = {}

    def run(self, recording: Recording, settings: Mapping[str, object]) -> Holdings:
        """Return what the outputs hold after a run with the settings of a disturbed one; recordings must not change any more."""
        shaping = {name: value for name, value in settings.items() if name not in PLUMBING}
        question = (recording.bucket, *sorted((name, str(value)) for name, value in shaping.items()))
        if question not in self._known:
            self._known[question] = self._run(recording, shaping)
        return self._known[question]

    def _run(self, recording: Recording, shaping: Mapping[str, object]) -> Holdings:
        # A server tells its time in whole seconds, so a window is due a second late to those who just came.
        wait_until(lambda: time.time_ns() > as_ns(str(shaping["QUERY_END_TIME"])) + 2 * SECOND_NS, "the span is over")
        server, released, folder = recording.server, f"undisturbed-{uuid4().hex}", self._folder / uuid4().hex
        server.make_bucket(released)
        folder.mkdir()
        self._api.reset()
        own = {
            "INFLUX_URL": server.url,
            "INFLUX_TOKEN": server.token,
            "INFLUX_OUTPUT_BUCKET": released,
            "API_ENDPOINT": self._api.endpoint,
            "ALLOWED_LATENESS_SECONDS": "0",
            "MAX_RECORDS_PER_QUERY": "1",
        }
        code, log = run_service(folder, {**shaping, **own}, within_s=30 * TIMEOUT_S)
        assert code == 0, log
        return Holdings(
            points_in(server, released), summaries_in(server, released), files_in(folder / "csv"), payloads_of(self._api.stored())
        )


class Ward:
    """One service's world.

    Args:
        recording: What it reads.
        folder: Where `.env`, state and CSV files are.
        api: The API it delivers to.
        undisturbed: Tells what must come out.
    """

    def __init__(self, recording: Recording, folder: Path, api: ApiServer, undisturbed: Undisturbed) -> None:
        self.recording = recording
        self.server = recording.server
        self.folder = folder
        self.api = api
        self._undisturbed = undisturbed
        self.released = f"released-{uuid4().hex}"
        self.server.make_bucket(self.released)
        self.settings: dict[str, object] = {
            "INFLUX_URL": self.server.url,
            "INFLUX_ORG": self.server.org,
            "INFLUX_TOKEN": recording.token,
            "INFLUX_OUTPUT_TOKEN": self.server.make_token(write=[self.released]),
            "INFLUX_INPUT_BUCKET": recording.bucket,
            "INFLUX_OUTPUT_BUCKET": self.released,
            "PSEUDONYMIZE_SOURCE_ID": "true",
            "PSEUDONYM_SALT": KEY,
            "BATCH_SIZE_SECONDS": "1",
            "MAX_RECORDS_PER_QUERY": "1",
            "CSV_FILENAME_PATTERN": "w_%H%M%S.csv",
            "OUTPUT_TO_API": "true",
            "API_ENDPOINT": api.endpoint,
            "RETRY_BUDGET_SECONDS": "30",
            **recording.span,
        }

    @property
    def csv(self) -> Path:
        """The folder with CSV files."""
        return self.folder / "csv"

    @property
    def state(self) -> Path:
        """STATE_DIR."""
        return self.folder / "state"

    def run(
        self, changes: Changes = NONE, *, environment: Mapping[str, str] | None = None, within_s: float = 2 * TIMEOUT_S
    ) -> tuple[int, str]:
        """Run the service to its end; return exit code and log."""
        return run_service(self.folder, {**self.settings, **changes}, environment=environment, within_s=within_s)

    def start(self, changes: Changes = NONE, *, environment: Mapping[str, str] | None = None) -> Service:
        """Start the service, to be used as a context."""
        return Service(self.folder, {**self.settings, **changes}, environment=environment)

    @contextmanager
    def streaming(
        self, changes: Changes = NONE, *, within_s: float = TIMEOUT_S, environment: Mapping[str, str] | None = None
    ) -> Iterator[Service]:
        """Start a stream. At the end of the block see it deliver everything and stop, and that the outputs are complete."""
        with self.start({**STREAMING, **changes}, environment=environment) as service:
            yield service
            self.wait_until_delivered(service, changes, within_s=within_s)
            assert service.stop() == 0
        self.assert_complete(changes)

    def holdings(self) -> Holdings:
        """Return what the outputs hold now."""
        return Holdings(
            points_in(self.server, self.released),
            summaries_in(self.server, self.released),
            files_in(self.csv),
            payloads_of(self.api.stored()),
        )

    def undisturbed(self, changes: Changes = NONE) -> Holdings:
        """Return what they must hold after a run with these changes of settings."""
        return self._undisturbed.run(self.recording, {**self.settings, **changes})

    def assert_complete(self, changes: Changes = NONE) -> None:
        """Fail unless the outputs hold what they would without any fault, and that by definition, and nothing is left to be delivered."""
        found = self.holdings()
        assert_same(self.undisturbed(changes), found)
        settings = {**self.settings, **changes}
        start_ns, end_ns = (as_ns(str(settings[name])) for name in ("QUERY_START_TIME", "QUERY_END_TIME"))
        raw = raw_samples(self.recording.wearers, max(start_ns, self.recording.start_ns), min(end_ns, self.recording.end_ns))
        assert_by_definition(
            raw, found.points, window_s=int(str(settings["BATCH_SIZE_SECONDS"])), k=int(str(settings.get("K_VALUE", 5)))
        )
        assert self.spooled() == [], "nothing is left to be delivered"

    def wait_until_delivered(self, service: Service, changes: Changes = NONE, *, within_s: float = TIMEOUT_S) -> None:
        """Wait until every output holds as many rows as it must; whether they are the right ones is another question."""
        expected = self.undisturbed(changes)
        sizes = {name: len(content) for name, content in expected.files.items()}
        payloads, points = expected.payloads.total(), len(expected.points)

        def is_delivered() -> bool:
            found = {path.name: path.stat().st_size for path in self.csv.glob("*.csv")}
            return found == sizes and len(self.api.stored()) >= payloads and self.points() >= points and not self.spooled()

        wait_until(is_delivered, "every output holds everything", service=service, within_s=within_s)

    def points(self) -> int:
        """Return how many rows InfluxDB counts in the output bucket."""
        return self.server.count(self.released, measurement=MEASUREMENT)

    def state_command(self, *arguments: str) -> str:
        """Run scripts/state.py as a person would who follows the advice in the log; return what it printed."""
        code, said = state(self.folder, *arguments)
        assert code == 0, said
        return said

    def spooled(self) -> list[str]:
        """Return the names of the spool files."""
        return sorted(path.name for path in (self.state / "spool").iterdir())


def wait_until(happened: Callable[[], bool], what: str, *, service: Service | None = None, within_s: float = TIMEOUT_S) -> None:
    """Wait for something that must happen, while a service lives that must not end."""
    deadline_s = time.monotonic() + within_s
    while not happened():
        log = service.log if service else ""
        assert service is None or service.process.poll() is None, f"{what}: the service ended\n{log}"
        assert time.monotonic() < deadline_s, f"{what}: not within {within_s:g} s\n{log}"
        time.sleep(POLL_S)


def slow_disk(folder: Path, name: str, pause_s: float) -> dict[str, str]:
    """Return what makes a process pause whenever it syncs a file whose name begins so: what must meet it in the middle does.

    Without, a run over seconds of ECG is over in a few tenths of a second, for which a test may not get the processor at all.
    """
    syncs = Path(__file__).with_name("syncs")
    return {"PYTHONPATH": str(syncs), "ECG_SYNCS_FILE": str(folder / "syncs"), "ECG_SLOW_SYNC": f"{name}:{pause_s}"}


@contextmanager
def paused(service: Service) -> Iterator[None]:
    """Let the process stand still for as long as the block lasts."""
    service.process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        service.process.send_signal(signal.SIGCONT)


def seconds_ago(seconds: int) -> int:
    """Return a whole second in the past, in nanoseconds since the epoch: where a stream's recording begins."""
    return (time.time_ns() // SECOND_NS - seconds) * SECOND_NS


def moment(time_ns: int) -> str:
    """Return a whole second as a setting has it."""
    return f"{datetime.fromtimestamp(time_ns // SECOND_NS, UTC):%Y-%m-%dT%H:%M:%SZ}"


def as_ns(text: str) -> int:
    """Return the time a setting names."""
    return int(datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()) * SECOND_NS
