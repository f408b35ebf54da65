"""The server under other tests is the one they asked for, and is gone afterwards."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed.influxd_program import LocalProgram, built_path, find_influxd
from testbed.influxdb_api import ApiError, InfluxApi
from testbed.influxdb_server import InfluxServer, NoServer, start_server
from testbed.replay import Replay
from testbed.server_process import ServerProgram
from testbed.wearers import SECOND_NS, Wearers

#: Long enough for a busy machine, in seconds.
TIMEOUT_S = 30


@pytest.fixture(scope="module")
def program() -> ServerProgram:
    try:
        return find_influxd(build=False)
    except NoServer as none:
        pytest.skip(str(none))


@pytest.fixture(scope="module")
def server(program: ServerProgram) -> Iterator[InfluxServer]:
    with start_server(program=program) as server:
        yield server


@pytest.mark.influxdb
def test_what_was_written_can_be_read_and_counted(server: InfluxServer) -> None:
    server.make_bucket("written", retention_s=0, shard_group_s=3600)

    server.write_lines("written", b'ecg,source_id=a ecg=1.5 1\necg,source_id=b ecg=2.0 2\nnotes,by=x\\,y text="a ""\n\nb" 3\n')

    rows = server.rows('from(bucket: "written") |> range(start: 0) |> filter(fn: (r) => r._measurement == "ecg")')
    assert [(row["_time"], row["source_id"], row["_value"]) for row in rows] == [
        ("1970-01-01T00:00:00.000000001Z", "a", "1.5"),
        ("1970-01-01T00:00:00.000000002Z", "b", "2"),
    ]
    assert server.count("written") == 3
    assert server.count("written", measurement="ecg", start="1970-01-01T00:00:00.000000002Z") == 1


@pytest.mark.influxdb
def test_a_query_that_fails_after_its_first_rows_is_an_error(server: InfluxServer) -> None:
    server.make_bucket("failing")
    server.write_lines("failing", b"ecg,source_id=a ecg=1.0 1")

    with pytest.raises(ApiError):
        server.rows('from(bucket: "failing") |> range(start: 0) |> map(fn: (r) => ({r with _value: int(v: r.source_id)}))')


@pytest.mark.influxdb
def test_a_token_can_do_only_what_it_was_made_for(server: InfluxServer) -> None:
    server.make_bucket("in")
    server.make_bucket("out")
    reader = InfluxApi(server.url, org=server.org, token=server.make_token(read=["in"]))
    writer = InfluxApi(server.url, org=server.org, token=server.make_token(write=["out"]))

    writer.write_lines("out", b"ecg ecg=1.0 1")
    assert reader.count("in") == 0

    for forbidden in (
        lambda: reader.write_lines("in", b"ecg ecg=1.0 1"),
        lambda: reader.count("out"),
        lambda: writer.write_lines("in", b"ecg ecg=1.0 1"),
        lambda: writer.count("out"),
    ):
        with pytest.raises(ApiError) as refused:
            forbidden()
        assert refused.value.status in {403, 404}
    server.revoke_token(reader.token)
    with pytest.raises(ApiError, match="401"):
        reader.count("in")


@pytest.mark.influxdb
def test_a_killed_server_comes_back_at_its_address_with_its_data_and_a_replay_loses_no_sample(server: InfluxServer) -> None:
    server.make_bucket("live")
    wearers, pid, url = Wearers(20, hertz=128), server.pid, server.url

    class Stop(threading.Event):
        flushes = 0

        def wait(self, timeout: float | None = None) -> bool:
            self.flushes += 1
            if self.flushes == 3:
                server.kill()
            if self.flushes == 5:
                server.restart()
            return super().wait(timeout)

    replay = Replay(wearers, server, "live", stop=Stop())
    replay.run(replay.start_ns + 5 * SECOND_NS)

    assert replay.retries > 0
    assert server.count("live") == replay.rows == 5 * wearers.rows_per_s
    assert (server.pid != pid, server.url) == (True, url)


@pytest.mark.influxdb
def test_a_stopped_server_leaves_neither_process_nor_folder(program: ServerProgram) -> None:
    with start_server(program=program) as another:
        pid, folder = another.pid, another.folder
        assert folder.is_dir()

    assert not folder.exists()
    assert not _is_alive(pid)


@pytest.mark.influxdb
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can tie a process to its parent")
def test_the_server_of_a_killed_process_ends_too(program: ServerProgram, tmp_path: Path) -> None:
    script = f"""
import time
from pathlib import Path
from testbed.influxdb_server import start_server
print(start_server(Path({str(tmp_path)!r})).pid, flush=True)
time.sleep(600)
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert _is_alive(pid)

        parent.send_signal(signal.SIGKILL)

    deadline_s = time.monotonic() + TIMEOUT_S
    while _is_alive(pid) and time.monotonic() < deadline_s:
        time.sleep(0.05)
    assert not _is_alive(pid)


def test_a_server_that_dies_says_why(tmp_path: Path) -> None:
    program = _program(tmp_path / "influxd", 'echo "the disk is full" >&2; exit 3')

    with pytest.raises(NoServer, match=r"(?s)ended with code 3.*the disk is full"):
        start_server(tmp_path / "data", program=LocalProgram(program))


def test_the_program_that_influxd_names_is_used_and_no_other(tmp_path: Path) -> None:
    named = _program(tmp_path / "mine", "echo InfluxDB v2.7.11")
    _program(tmp_path / "influxd", "echo InfluxDB v2.7.12")

    assert find_influxd(environment={"INFLUXD": str(named), "PATH": str(tmp_path)}) == LocalProgram(named)
    with pytest.raises(NoServer, match=r"INFLUXD=/nowhere/influxd is not"):
        find_influxd(environment={"INFLUXD": "/nowhere/influxd", "PATH": str(tmp_path)})


def test_a_version_1_on_the_path_is_passed_over_for_the_one_built_before(tmp_path: Path) -> None:
    _program(tmp_path / "influxd", 'echo "InfluxDB v1.6.7~rc0 (git: unknown unknown)"')
    environment = {"PATH": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    built = built_path(environment)
    built.parent.mkdir(parents=True)
    _program(built, "echo InfluxDB v2.7.12")

    assert find_influxd(environment=environment) == LocalProgram(built)


def test_a_docker_without_an_engine_is_no_server(tmp_path: Path) -> None:
    _program(tmp_path / "docker", "exit 1")

    with pytest.raises(NoServer, match=r"no docker engine.*Set INFLUXD.*build\.sh"):
        find_influxd(build=False, environment={"PATH": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path)})


def _program(path: Path, script: str) -> Path:
    path.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    path.chmod(0o755)
    return path


def _is_alive(pid: int) -> bool:
    # What has ended but was not yet waited for has no command line any more.
    try:
        return bool(Path(f"/proc/{pid}/cmdline").read_bytes())
    except OSError:
        return False
