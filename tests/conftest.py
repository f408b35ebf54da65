"""What every test may use: a real InfluxDB server and fresh buckets on it, servers that misbehave, and how property tests search."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import stat
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from testbed.influxd_program import find_influxd
from testbed.influxdb1_server import Influx1Server, start_server1
from testbed.influxdb3_server import start_server3
from testbed.influxdb_api import InfluxApi
from testbed.influxdb_server import InfluxServer, NoServer, start_server
from testbed.s3_server import S3Server, find_versitygw, start_s3_server
from tests.servers.api_server import ApiServer
from tests.servers.influxdb3_double import Influx3Double
from tests.servers.socket_server import Serve, socket_servers

# Tests run side by side: threads of one that wait for each other in a matrix product only take the processor from the others.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

#: GitHub, GitLab and most others set this.
ON_CI = bool(os.environ.get("CI"))

#: Linux has a file system in memory here; a server of tests needs some ten MB of it.
MEMORY = Path("/dev/shm")
ROOM_BYTES = 1 << 30

# No deadline: a machine busy with something else is not a broken promise. In CI the same examples every time: what fails there must fail
# for whoever looks into it.
settings.register_profile("project", deadline=None, derandomize=ON_CI)
settings.load_profile("project")

# Whoever starts the tests in the background may have these ignored, which every process that they start would inherit.
signal.signal(signal.SIGINT, signal.default_int_handler)
if sys.platform != "win32":
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

_SERVER = pytest.StashKey[str]()
_FOLDERS = pytest.StashKey[str]()


@dataclass(frozen=True, slots=True)
class Bucket:
    """A bucket of the real server, empty at first, and tokens that can do one thing only."""

    server: InfluxServer
    name: str
    read_token: str
    write_token: str

    def write(self, lines: bytes) -> None:
        """Store line protocol."""
        self.server.write_lines(self.name, lines)

    def reader(self) -> InfluxApi:
        """Return the server as seen with the token that can only read this bucket."""
        return InfluxApi(self.server.url, org=self.server.org, token=self.read_token)


@pytest.fixture(scope="session")
def influxdb(pytestconfig: pytest.Config) -> Iterator[InfluxServer]:
    """The real server, started once for all tests. Without one, tests that need it fail in CI and are skipped elsewhere."""
    with _folder_in_memory() as folder:
        try:
            # Building one takes minutes: CI has them; at a terminal a developer is asked first.
            server = start_server(folder, program=find_influxd(build=ON_CI))
        except NoServer as none:
            pytestconfig.stash[_SERVER] = f"NOT TESTED against: {none}"
            if ON_CI:
                pytest.fail(f"CI must have a real InfluxDB server. {none}")
            pytest.skip(f"NOT TESTED against a real InfluxDB server. {none}")
        with server:
            pytestconfig.stash[_SERVER] = f"{server.version} from {server.origin}"
            yield server
            # Its data is not needed, so no time is spent on an orderly shutdown.
            server.kill()


@pytest.fixture(scope="session")
def influxdb1() -> Iterator[Influx1Server]:
    """A real server of version 1, started once for all tests. Without one, tests that need it fail in CI and are skipped elsewhere."""
    with _folder_in_memory() as folder:
        try:
            server = start_server1(folder)
        except NoServer as none:
            if ON_CI:
                pytest.fail(f"CI must have a real InfluxDB 1 server. {none}")
            pytest.skip(f"NOT TESTED against a real InfluxDB 1 server. {none}")
        with server:
            yield server
            server.kill()


@pytest.fixture(scope="session")
def influxdb3(request: pytest.FixtureRequest) -> Iterator[Any]:
    """A server of version 3: what INFLUXDB3 names, or else a stand-in that gives answers of its form."""
    if os.environ.get("INFLUXDB3"):
        with _folder_in_memory() as folder, start_server3(folder) as server:
            yield server
            server.kill()
        return
    double = Influx3Double(request.getfixturevalue("influxdb1"))
    yield double
    double.close()


@pytest.fixture
def raw_bucket(influxdb: InfluxServer) -> Bucket:
    """A new bucket to read from."""
    return _new_bucket(influxdb, "raw")


@pytest.fixture
def output_bucket(influxdb: InfluxServer) -> Bucket:
    """A new bucket to write to."""
    return _new_bucket(influxdb, "output")


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    """A real S3 server, started once for all tests. Without one, tests that need it fail in CI and are skipped elsewhere."""
    with _folder_in_memory() as folder:
        try:
            server = start_s3_server(folder, program=find_versitygw(build=ON_CI))
        except NoServer as none:
            if ON_CI:
                pytest.fail(f"CI must have a real S3 server. {none}")
            pytest.skip(f"NOT TESTED against a real S3 server. {none}")
        with server:
            yield server


@pytest.fixture
def s3_bucket(s3_server: S3Server) -> str:
    """The name of a new bucket of the real S3 server."""
    name = f"bucket-{secrets.token_hex(6)}"
    s3_server.make_bucket(name)
    return name


@pytest.fixture(scope="session")
def _api_server_process() -> Iterator[ApiServer]:
    with ApiServer() as server:
        yield server


@pytest.fixture
def api_server(_api_server_process: ApiServer) -> ApiServer:
    """An HTTP API in a process of its own, which has forgotten what earlier tests did."""
    _api_server_process.reset()
    return _api_server_process


@pytest.fixture
def victim(tmp_path: Path) -> Iterator[Path]:
    """Another user's file elsewhere, which must be unchanged at the end, and alone."""
    path = tmp_path / "elsewhere" / "victim"
    path.parent.mkdir()
    path.write_bytes(b"precious\n")
    path.chmod(0o644)
    yield path
    assert path.read_bytes() == b"precious\n", "it was written to"
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert list(path.parent.iterdir()) == [path], "a link to nothing was followed"


@pytest.fixture
def serve() -> Iterator[Serve]:
    """What starts a server that answers with exactly the bytes it is given."""
    with socket_servers() as start:
        yield start


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Hand what this worker knows of the server to the process that prints the summary."""
    if (output := getattr(session.config, "workeroutput", None)) is not None:
        output["server"] = session.config.stash.get(_SERVER, None)


class _Workers:
    """Takes what workers hand over, when tests run in several of them."""

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """Remember the server a worker has used."""
        if server := getattr(node, "workeroutput", {}).get("server"):
            node.config.stash[_SERVER] = server


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Listen to workers, and let tests have their folders in memory: on a disk most of their time is spent waiting for it to sync.

    `make test-faults` stays on the disk.
    """
    config.pluginmanager.register(_Workers())
    if config.option.basetemp is None and not os.environ.get("FAULTS_FULL") and _has_memory():
        config.option.basetemp = config.stash[_FOLDERS] = tempfile.mkdtemp(prefix="tests-", dir=MEMORY)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Free the memory; to inspect the folders of a failed test, run it with `--basetemp`."""
    if folders := config.stash.get(_FOLDERS, ""):
        shutil.rmtree(folders, ignore_errors=True)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say which server the tests ran against: a result is worth as much as the server behind it."""
    if server := config.stash.get(_SERVER, None):
        terminalreporter.write_sep("=", "InfluxDB")
        terminalreporter.write_line(f"InfluxDB {server}", red=server.startswith("NOT"))
        if not os.environ.get("INFLUXDB3"):
            terminalreporter.write_line(
                "InfluxDB 3 NOT TESTED against a real one, but a stand-in: INFLUXDB3 names no program", red=True
            )


@contextlib.contextmanager
def _folder_in_memory() -> Iterator[Path | None]:
    """Yield a folder of a file system in memory, or None where there is none with room.

    A server keeps fifty small files for each bucket; on a disk those of one test run took ten seconds to remove.
    """
    if not _has_memory():
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="ecg-server-", dir=MEMORY) as folder:
        yield Path(folder)


def _has_memory() -> bool:
    return MEMORY.is_dir() and shutil.disk_usage(MEMORY).free >= ROOM_BYTES


def _new_bucket(server: InfluxServer, purpose: str) -> Bucket:
    name = f"{purpose}-{secrets.token_hex(6)}"
    server.make_bucket(name)
    return Bucket(server, name, server.make_token(read=[name]), server.make_token(write=[name]))
