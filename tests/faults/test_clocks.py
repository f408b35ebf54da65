"""Clocks that jump and processes that stand still: no window is skipped, doubled, or fixed before its time."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from testbed.wearers import SECOND_NS
from tests.faults.conftest import MakeWard
from tests.faults.oracle import files_in
from tests.faults.ward import FULL, STREAMING, Changes, Ward, paused, seconds_ago, wait_until
from tests.servers.http_proxy import HttpProxy

pytestmark = pytest.mark.influxdb

#: How long a process stands still, in seconds: two minutes, or so long that everything in it is late.
STANDSTILL_S = 120 if FULL else 3

HOUR_S = 3600

#: How long each test lives with its clock before and after the jump, in seconds.
BEFORE_S, AFTER_S = 3, 2

#: Names of files are compared here, also around midnight.
BY_DAY: Changes = {"CSV_FILENAME_PATTERN": "w_%Y%m%d_%H%M%S.csv"}


class Clock:
    """The service's clock, off by as much as the test says."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.jump_to(0)
        self.environment = {"PYTHONPATH": str(Path(__file__).with_name("clock")), "ECG_CLOCK_OFFSET_FILE": str(file)}

    def jump_to(self, offset_s: float) -> None:
        """Set the clock."""
        fresh = self._file.with_suffix(".new")
        fresh.write_text(str(offset_s))
        fresh.replace(self._file)


@pytest.fixture
def clock(tmp_path: Path) -> Clock:
    return Clock(tmp_path / "offset")


def live(ward: Ward) -> None:
    wait_until(lambda: time.time_ns() > ward.recording.end_ns, "the recording is over")


def test_a_clock_that_jumps_while_it_runs_and_back_again_skips_doubles_and_hurries_no_window(
    make_ward: MakeWard, clock: Clock
) -> None:
    """Row 19: our clock jumps an hour ahead, later an hour back, and is right again a few seconds after each."""
    ward = make_ward(seconds=2 * (BEFORE_S + AFTER_S), start_ns=seconds_ago(-2))
    early: list[str] = []
    with ward.start({**STREAMING, **BY_DAY}, environment=clock.environment) as service:
        for offset_s in (HOUR_S, -HOUR_S):
            known = len(files_in(ward.csv))
            wait_until(lambda: len(files_in(ward.csv)) > known, "a window before the jump", service=service)  # noqa: B023
            clock.jump_to(offset_s)
            jumped_s = time.monotonic()
            while time.monotonic() < jumped_s + AFTER_S:
                early += [name for name in files_in(ward.csv) if name > f"w_{time.strftime('%Y%m%d_%H%M%S', time.gmtime())}.csv"]
                time.sleep(0.05)
            clock.jump_to(0)
        live(ward)
        ward.wait_until_delivered(service, BY_DAY)
        assert service.stop() == 0

    assert not early, "no window before its time"
    ward.assert_complete(BY_DAY)


@pytest.mark.parametrize("offset_s", [-HOUR_S, HOUR_S] if FULL else [-HOUR_S])
def test_a_clock_that_is_wrong_from_the_start_fixes_no_window_before_its_time(
    make_ward: MakeWard, clock: Clock, offset_s: int
) -> None:
    """Row 19: our clock is an hour off at the start and all through the run; windows behind it wait until it is right."""
    ward = make_ward(seconds=2, start_ns=seconds_ago(-2))
    clock.jump_to(offset_s)
    with ward.streaming(environment=clock.environment):
        live(ward)
        if offset_s < 0:
            assert not files_in(ward.csv), "by this clock nothing is due yet"
            clock.jump_to(0)


def test_a_server_whose_clock_is_ahead_fixes_no_window_before_its_time(make_ward: MakeWard) -> None:
    """Row 19: the server's clock is an hour ahead of ours: the earlier of the two counts."""
    ward = make_ward(seconds=2, start_ns=seconds_ago(-2))
    with HttpProxy(ward.server.url) as proxy:
        proxy.shift_date(HOUR_S)
        with ward.streaming({"INFLUX_URL": proxy.url, "INFLUX_OUTPUT_URL": ward.server.url}) as service:
            service.wait_for("Connected to InfluxDB")
            while time.time_ns() < ward.recording.start_ns + SECOND_NS:
                assert not files_in(ward.csv), "no window before its time"
                time.sleep(0.05)
            live(ward)


def test_a_process_that_was_suspended_goes_on_where_it_was(make_ward: MakeWard) -> None:
    """Row 19: SIGSTOP for two minutes, as when a virtual machine is moved."""
    ward = make_ward(seconds=STANDSTILL_S + 3, start_ns=seconds_ago(-2))
    with ward.streaming() as service:
        wait_until(lambda: len(files_in(ward.csv)) >= 1, "a window", service=service)
        with paused(service):
            time.sleep(STANDSTILL_S)
        live(ward)
