"""The replay stores every sample once, on time, through clocks and servers that misbehave."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import requests

from testbed import replay
from testbed.influxdb_api import ApiError, InfluxApi
from testbed.replay import LINES_PER_REQUEST, Replay, load, read_settings
from testbed.wearers import SECOND_NS, Wearers, lines_between

START_NS = 1_762_180_200 * SECOND_NS + 987_654_321


class RecordingApi(InfluxApi):
    """Keeps what is written; fails first, with the errors it was given."""

    def __init__(self, *failures: Exception) -> None:
        super().__init__("http://nowhere", org="testbed", token="")
        self.offered: list[bytes] = []
        self.stored: list[bytes] = []
        self._failures = list(failures)

    def write_lines(self, bucket: str, lines: bytes) -> None:
        assert lines, "an empty request must not be sent"
        self.offered.append(lines)
        if self._failures:
            raise self._failures.pop(0)
        self.stored.append(lines)

    def lines(self) -> list[bytes]:
        return b"".join(self.stored).splitlines()


class FakeTime(threading.Event):
    """A clock that only waiting moves, and an event that is never set."""

    def __init__(self, *steps_ns: int) -> None:
        super().__init__()
        self.now_ns = START_NS
        self._steps_ns = list(steps_ns)

    def wait(self, timeout: float | None = None) -> bool:
        self.now_ns += self._steps_ns.pop(0) if self._steps_ns else round((timeout or 0) * SECOND_NS)
        return self.is_set()

    def __call__(self) -> int:
        return self.now_ns


def a_replay(api: InfluxApi, time: FakeTime, wearers: Wearers | None = None, say: Callable[[str], None] = print) -> Replay:
    return Replay(wearers or Wearers(3, hertz=128), api, "raw_data", stop=time, clock_ns=time, say=say)


@pytest.mark.parametrize(
    "steps_ns",
    [
        pytest.param((), id="steady"),
        pytest.param((1, 7, 123_456_789, 1_000_000_007), id="uneven"),
        pytest.param((30 * SECOND_NS,), id="asleep for half a minute"),
        pytest.param((SECOND_NS, -5 * SECOND_NS, 0, SECOND_NS), id="set back"),
    ],
)
@pytest.mark.parametrize("hertz", [1, 128])
def test_every_sample_is_stored_once_whatever_the_clock_does(steps_ns: tuple[int, ...], hertz: int) -> None:
    api, time, wearers = RecordingApi(), FakeTime(*steps_ns), Wearers(3, hertz=hertz)
    end_ns = START_NS + 40 * SECOND_NS + 1

    feed = a_replay(api, time, wearers)
    feed.run(end_ns)

    expected = lines_between(wearers, START_NS, end_ns).splitlines()
    assert sorted(api.lines()) == sorted(expected)
    assert feed.rows == len(expected)
    assert feed.stored_until_ns == end_ns


def test_nothing_is_stored_before_it_was_measured_or_later_than_half_a_second_after() -> None:
    time = FakeTime()

    class PunctualApi(RecordingApi):
        def write_lines(self, bucket: str, lines: bytes) -> None:
            super().write_lines(bucket, lines)
            assert all(0 < time.now_ns - int(line.rsplit(b" ", 1)[1]) <= SECOND_NS // 2 for line in lines.splitlines())

    a_replay(PunctualApi(), time).run(START_NS + 10 * SECOND_NS)


def test_a_replay_that_is_far_behind_catches_up_in_requests_of_a_fair_size() -> None:
    api, time, wearers = RecordingApi(), FakeTime(60 * SECOND_NS), Wearers(100, hertz=128)

    a_replay(api, time, wearers).run(START_NS + 60 * SECOND_NS)

    assert max(lines.count(b"\n") for lines in api.stored) <= LINES_PER_REQUEST + 100
    assert len(api.lines()) == 60 * 12_800


@pytest.mark.parametrize(
    "failure",
    [requests.ConnectionError(), requests.Timeout(), ApiError("down", status=503), ApiError("slowly", status=429)],
    ids=["no connection", "no answer", "unavailable", "too many"],
)
def test_bytes_that_were_not_taken_are_offered_again_unchanged(failure: Exception) -> None:
    api, said = RecordingApi(failure, failure, failure), list[str]()

    feed = a_replay(api, FakeTime(), say=said.append)
    feed.run(START_NS + 2 * SECOND_NS)

    assert len(set(api.offered[:4])) == 1
    assert feed.retries == 3
    assert sorted(api.lines()) == sorted(lines_between(Wearers(3, hertz=128), START_NS, START_NS + 2 * SECOND_NS).splitlines())
    assert said[-1] == "It took them at last, after 3 retries."


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422])
def test_what_the_server_will_never_take_ends_the_replay(status: int) -> None:
    feed = a_replay(RecordingApi(ApiError("no", status=status)), FakeTime())

    with pytest.raises(ApiError, match="no"):
        feed.run(START_NS + 2 * SECOND_NS)

    assert (feed.rows, feed.retries) == (0, 0)


def test_a_stop_while_the_server_is_away_leaves_the_rest_uncounted() -> None:
    time = FakeTime()

    class DyingApi(RecordingApi):
        def write_lines(self, bucket: str, lines: bytes) -> None:
            if len(self.stored) == 3:
                time.set()
                raise requests.ConnectionError
            super().write_lines(bucket, lines)

    api = DyingApi()
    feed = a_replay(api, time)
    feed.run()

    assert feed.rows == len(api.lines())
    assert sorted(api.lines()) == sorted(lines_between(Wearers(3, hertz=128), START_NS, feed.stored_until_ns).splitlines())


def test_a_bulk_load_stores_every_sample_of_its_span_once_or_says_that_it_failed_in_part() -> None:
    api, wearers = RecordingApi(), Wearers(50, hertz=128)
    end_ns = START_NS + 30 * SECOND_NS + 5

    load(api, "raw_data", wearers, start_ns=START_NS, end_ns=end_ns)

    assert len(api.stored) > 1
    assert sorted(api.lines()) == sorted(lines_between(wearers, START_NS, end_ns).splitlines())
    with pytest.raises(ApiError):
        load(RecordingApi(ApiError("full", status=500)), "b", Wearers(50), start_ns=0, end_ns=30 * SECOND_NS)


def test_an_argument_beats_the_environment_which_beats_the_file_and_a_token_is_taken_as_it_stands(tmp_path: Path) -> None:
    file = tmp_path / "replay.env"
    of_file = "INFLUX_ORG=of-file\nWEARERS=1\nHERTZ=100\nMINUTES=3\nSOURCE_TAG=device\nINFLUX_REPLAY_TOKEN=a${HOME}==\n"
    file.write_text(of_file, encoding="utf-8")
    environment = {"WEARERS": "2", "HERTZ": "200", "INFLUX_TOKEN": "of the service", "MINUTES": ""}

    settings = read_settings(["--env-file", str(file), "--wearers", "3"], environment)

    assert (settings.wearers.count, settings.wearers.rate_hz, settings.minutes) == (3, 200, 3)
    assert (settings.api.org, settings.api.url, settings.bucket) == ("of-file", "http://localhost:8086", "raw_data")
    assert settings.names.source_tag == "device"
    assert settings.api.token == "a${HOME}=="


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--wearers", "0"], "wearers"),
        (["--hertz", "12.5"], "HERTZ must be a whole number"),
        (["--speed", "fast"], "SPEED must be a number"),
        (["--minutes", "-1"], "MINUTES must be positive"),
        (["--env-file", "/nowhere/.env"], "/nowhere/.env is not a file"),
        ([], "INFLUX_REPLAY_TOKEN"),
    ],
)
def test_a_wrong_or_missing_setting_is_named(arguments: list[str], named: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        read_settings(arguments, {"INFLUX_ORG": "o", **({"INFLUX_TOKEN": "t"} if arguments else {})})

    assert named in capsys.readouterr().err


@pytest.fixture(autouse=True)
def _no_real_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay, "RETRY_S", 0.0)
