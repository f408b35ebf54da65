"""What tests of faults share: immutable recordings, an oracle that sends each query once, and a report of faults survived."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from testbed.influxdb_server import InfluxServer
from testbed.wearers import Wearers
from tests.faults.ward import Recording, Undisturbed, Ward, seconds_ago
from tests.servers.api_server import ApiServer

#: Six wearers of real ECG, slowed down: what is tested is what becomes of rows, not how many fit through.
WEARERS, HERTZ = 6, 32

_REPORT = pytest.StashKey[list[str]]()

Report = Callable[[str], None]
MakeWard = Callable[..., Ward]


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Undisturbed]:
    """The runs that nothing disturbs."""
    with ApiServer() as api:
        yield Undisturbed(tmp_path_factory.mktemp("undisturbed"), api)


@pytest.fixture(scope="session")
def recording(influxdb: InfluxServer) -> Recording:
    """Twenty seconds of six wearers, which no test changes."""
    return Recording(influxdb, Wearers(WEARERS, hertz=HERTZ), seconds=20)


@pytest.fixture
def ward(recording: Recording, tmp_path: Path, api_server: ApiServer, undisturbed: Undisturbed) -> Ward:
    """A service on the recording that all share."""
    return Ward(recording, tmp_path, api_server, undisturbed)


@pytest.fixture
def make_ward(influxdb: InfluxServer, tmp_path: Path, api_server: ApiServer, undisturbed: Undisturbed) -> MakeWard:
    """What makes a service on a recording of its own: `make_ward(seconds=..., start_ns=...)`."""

    def make(*, hertz: int = HERTZ, **when: int) -> Ward:
        return Ward(Recording(influxdb, Wearers(WEARERS, hertz=hertz), **when), tmp_path, api_server, undisturbed)

    return make


@pytest.fixture
def recent(make_ward: MakeWard) -> Ward:
    """A ward whose twenty seconds have just ended: a stream that begins with them has to catch up."""
    return make_ward(seconds=20, start_ns=seconds_ago(30))


@pytest.fixture
def report(pytestconfig: pytest.Config) -> Report:
    """Takes a line for the end of the test run: what was done to the service, how often, and what was lost."""
    return pytestconfig.stash.setdefault(_REPORT, []).append


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the report."""
    if lines := config.stash.get(_REPORT, None):
        terminalreporter.write_sep("=", "faults")
        for line in lines:
            terminalreporter.write_line(line)
