"""Dask workers between two buckets: points, files and requests are those of one process, with kills and without."""

from __future__ import annotations

import random
import time
from contextlib import suppress

import psutil
import pytest

from tests.faults.conftest import MakeWard, Report
from tests.faults.ward import FULL, KILLED
from tests.integration.service_process import Service

pytestmark = pytest.mark.influxdb

LIMIT_S = 300

#: How many workers and coordinators are killed in each of the four parts.
KILLS, COORDINATORS = 27, 5

WORKERS = {"DASK_SCHEDULER": "local:2"}


def test_workers_write_the_points_that_one_process_writes(make_ward: MakeWard) -> None:
    ward = make_ward(seconds=20)

    code, log = ward.run(WORKERS)

    assert code == 0, log
    assert "🧩 Workers: 2" in log
    ward.assert_complete()


@pytest.mark.skipif(not FULL, reason="takes ten minutes: make test-faults")
@pytest.mark.parametrize("part", range(4))
def test_of_a_hundred_workers_and_twenty_coordinators_that_are_killed_each_part_leaves_the_points_of_one_process(
    make_ward: MakeWard, report: Report, part: int
) -> None:
    ward = make_ward(seconds=600, hertz=16)
    by_minute = {"CSV_FILENAME_PATTERN": "m_%H%M.csv"}
    settings = {**WORKERS, **by_minute, "RETRY_BUDGET_SECONDS": "600"}
    chance, kills, lives = random.Random(part), 0, 0
    code = KILLED
    while code == KILLED:
        lives += 1
        with ward.start(settings) as service:
            end_s = time.monotonic() + 5
            while service.process.poll() is None:
                time.sleep(chance.uniform(0.3, 1.2))
                kills += kill_a_worker(service) if kills < KILLS else 0
                if lives <= COORDINATORS and time.monotonic() > end_s:
                    service.process.kill()
            code = service.exit_code(within_s=LIMIT_S)
            log = service.log
    report(f"{kills} workers and {lives - 1} coordinators killed")
    assert code == 0, log
    ward.assert_complete(by_minute)
    assert (kills, lives - 1) == (KILLS, COORDINATORS)


def kill_a_worker(service: Service) -> int:
    """Kill a process that does tasks; return how many were killed."""
    with suppress(psutil.Error):
        children = psutil.Process(service.process.pid).children(recursive=True)
        random.shuffle(children)
        for child in children:
            with suppress(psutil.Error):
                if "spawn_main" in " ".join(child.cmdline()):
                    child.kill()
                    return 1
    return 0
