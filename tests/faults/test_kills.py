"""The service is killed, at every step and at any moment, and started again: the outputs are those of a run that nothing disturbed."""

from __future__ import annotations

import random
import time

import pytest

from service import crash_points
from tests.faults.conftest import MakeWard, Report
from tests.faults.oracle import differences
from tests.faults.ward import FULL, KILLED, TIMEOUT_S, Changes, Ward, wait_until
from tests.integration.service_process import Service
from tests.servers.tcp_proxy import Hang, TcpProxy

pytestmark = pytest.mark.influxdb

#: A file for each window, and one for all of them.
PATTERNS = ("w_%H%M%S.csv", "all_%Y%m%d.csv")

#: With both patterns each place is hit 22 times in full, else once: after how many passages, life by life.
HITS = (1, 2, 3, 1, 4, 2, 1, 5, 3, 2, 1) if FULL else (2,)

#: Windows are a second long here; a life may take a window at each passage, and something must be left for the last one.
SECONDS = sum(HITS) + 5

CASES = [
    (place, pattern) for i, place in enumerate(crash_points.ALL) for j, pattern in enumerate(PATTERNS) if FULL or (i + j) % 2 == 0
]

#: How often a backfill is killed at random.
RANDOM_KILLS = 200 if FULL else 10


@pytest.mark.parametrize(("place", "pattern"), CASES)
def test_a_run_killed_at_any_step_and_started_again_ends_as_if_nothing_had_happened(
    make_ward: MakeWard, report: Report, place: str, pattern: str
) -> None:
    """Row 1: SIGKILL at each named step of a chunk's way."""
    ward = make_ward(seconds=SECONDS)
    settings = {"CSV_FILENAME_PATTERN": pattern}

    codes = [ward.run(settings, environment={crash_points.VARIABLE: f"{place}:{hit}"})[0] for hit in HITS]
    code, log = ward.run(settings)

    assert code == 0, log
    assert "💥" not in log
    assert codes == [KILLED] * len(HITS), "every life ended at its place"
    report(f"killed {len(codes)} times at {place}, {pattern}: {_summed(ward, settings)}")
    ward.assert_complete(settings)


def test_a_run_killed_over_and_over_at_random_moments_ends_as_if_nothing_had_happened(
    make_ward: MakeWard, report: Report
) -> None:
    """Row 2: SIGKILL at random moments, over one backfill that is long enough for all of them; then it may end."""
    ward = make_ward(seconds=12 * RANDOM_KILLS, hertz=16)
    chance = random.Random(2)  # the same lives every time, as far as a machine's pace allows
    settings = {"CSV_FILENAME_PATTERN": "m_%H%M.csv"}
    kills = 0

    while kills < RANDOM_KILLS and _life(ward, chance, settings) == KILLED:
        kills += 1
    code, log = ward.run(settings)

    assert code == 0, log
    report(f"killed {kills} times at random moments of one backfill: {_summed(ward, settings)}")
    ward.assert_complete(settings)
    assert kills >= RANDOM_KILLS // 2, "the backfill was through after few kills: it is too short for them"


def _life(ward: Ward, chance: random.Random, settings: Changes) -> int:
    """Run until a few chunks were begun and a moment has passed, then kill; return the exit code."""
    with ward.start(settings) as service:
        chunks, moment_s = chance.randrange(5), chance.uniform(0, 0.03)
        wait_until(lambda: service.log.count("📦") >= chunks or service.process.poll() is not None, "chunks")
        time.sleep(moment_s)
        service.process.kill()
        return service.exit_code()


def _summed(ward: Ward, settings: Changes) -> str:
    return "; ".join(f"{name} {one}" for name, one in differences(ward.undisturbed(settings), ward.holdings()).items())


@pytest.mark.parametrize("output", ["influxdb", "api"])
def test_a_run_killed_in_the_middle_of_a_write_ends_as_if_nothing_had_happened(ward: Ward, output: str) -> None:
    """Row 1: SIGKILL while half of a request is on its way to an output."""
    port = ward.server.port if output == "influxdb" else int(ward.api.url.rpartition(":")[2])
    with TcpProxy(port) as proxy:
        # Small writes, so that a batch is cut between requests as well as inside one.
        through: dict[str, object] = {"INFLUX_OUTPUT_URL": proxy.url, "INFLUX_WRITE_BATCH_SIZE": "100"}
        if output == "api":
            through = {"API_ENDPOINT": ward.api.endpoint.replace(ward.api.url, proxy.url)}
        for after_bytes in (2000, 9000):
            proxy.pass_all()
            proxy.requests.become(Hang(after_bytes))
            with ward.start(through) as service:
                _wait_for_fault(proxy, service)
                service.process.kill()
            proxy.cut()
        proxy.pass_all()
        code, log = ward.run(through)

    assert code == 0, log
    ward.assert_complete()


def _wait_for_fault(proxy: TcpProxy, service: Service) -> None:
    before = proxy.requests.fired
    wait_until(
        lambda: proxy.requests.fired > before or service.process.poll() is not None, "a request that hangs", within_s=TIMEOUT_S
    )
    assert service.process.poll() is None, service.log


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0] if FULL else [0.3])
def test_half_a_batch_in_a_csv_file_is_taken_back_before_the_batch_is_appended(ward: Ward, pattern: str, share: float) -> None:
    """Row 1: SIGKILL, or a power cut, in the middle of a write to a CSV file; what is there of the batch is a share of it."""
    settings = {"CSV_FILENAME_PATTERN": pattern, "OUTPUT_TO_INFLUX": "false", "OUTPUT_TO_API": "false"}
    expected = ward.undisturbed({"CSV_FILENAME_PATTERN": pattern}).files
    # With one output the fifth write is that of the fifth window; its intent is on record by the sixth try of anything.
    ward.run(settings, environment={crash_points.VARIABLE: f"{crash_points.AFTER_WRITE}:5"})
    path = max(ward.csv.glob("*.csv"))
    written = path.read_bytes()
    before = written if len(expected) == 1 else b""
    rest = expected[path.name][len(before) :] if len(expected) == 1 else written
    path.write_bytes(before + rest[: int(len(rest) * share)])

    code, log = ward.run(settings)

    assert code == 0, log
    assert {path.name: path.read_bytes() for path in ward.csv.iterdir()} == dict(expected)


def test_a_crash_point_that_is_armed_is_said_loudly(ward: Ward) -> None:
    """Row 1: an armed crash point is always logged."""
    _, log = ward.run(environment={crash_points.VARIABLE: crash_points.AFTER_SPOOL})

    assert "CRITICAL - 💥 ECG_ANONYMIZER_CRASH_AT=after-spool: this process will kill itself there" in log
