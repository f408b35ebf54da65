"""A database that goes away under a running stream: page, readiness, metrics, log and systemd's status tell the same story, soon."""

from __future__ import annotations

import re
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests

from testbed.influxd_program import find_influxd
from testbed.influxdb_server import InfluxServer, start_server
from testbed.wearers import Wearers
from tests.conftest import ON_CI
from tests.integration.clinic import Clinic
from tests.integration.service_process import KEY, Service
from tests.integration.test_streaming import wearing
from tests.status.test_systemd import Manager

pytestmark = [pytest.mark.influxdb, pytest.mark.skipif(sys.platform != "linux", reason="systemd is Linux's")]

#: The outage is reported, and its end, within seconds; a machine that is busy with something else is forgiven so many.
SOON_S = 30

TOKEN = "a-token-for-the-status-page"


@pytest.fixture
def own_server(influxdb: InfluxServer, tmp_path: Path) -> Iterator[InfluxServer]:
    """A server of this test's own, because it is killed."""
    with start_server(tmp_path / "influxd", program=find_influxd(build=ON_CI)) as server:
        yield server


class Watching:
    """Everything that tells how the service is."""

    def __init__(self, service: Service, manager: Manager) -> None:
        self.service = service
        self.manager = manager
        service.wait_for("Status page at ")
        self.url = re.findall(r"Status page at (http://\S+)/", service.log)[0]

    def get(self, path: str) -> requests.Response:
        return requests.get(self.url + path, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=SOON_S)

    def stories(self) -> dict[str, bool]:
        """Return what each of them says: does data flow?"""
        ready = self.get("/readyz")
        reasons = [one["code"] for one in ready.json()["reasons"]]
        metrics, page = self.get("/metrics").text, self.get("/status.json").json()
        statuses = [one for one in self.manager.listen() if one.startswith("STATUS=")]
        down, up = self.service.log.rfind("⏳"), self.service.log.rfind("🔒")
        return {
            "readiness": ready.status_code == 200 and not reasons,
            "metrics": "\necg_anonymizer_ready 1.0\n" in metrics and "\necg_anonymizer_source_up 1.0\n" in metrics,
            "page": page["state"] == "ok" and page["source"]["trouble"] is None,
            "log": up > down,
            "systemd": bool(statuses) and statuses[-1].startswith("STATUS=All is well"),
        }

    def until_all_say(self, flows: bool) -> float:
        """Return how long it took until all of them said so."""
        began_s = time.monotonic()
        wait_until(lambda: set(self.stories().values()) == {flows}, self.stories)
        return time.monotonic() - began_s


def wait_until(is_so: Callable[[], bool], explain: Callable[[], object]) -> None:
    deadline = time.monotonic() + SOON_S
    while not is_so():
        assert time.monotonic() < deadline, explain()
        time.sleep(0.1)


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    manager = Manager(str(tmp_path / "notify"))
    yield manager
    manager.socket.close()


def test_every_observer_reports_the_same_when_the_database_dies_and_comes_back(
    own_server: InfluxServer, manager: Manager, tmp_path: Path
) -> None:
    clinic = Clinic(own_server)
    settings = {
        **clinic.settings,
        "STREAMING_MODE": "true",
        "STREAMING_INTERVAL": "1",
        "BATCH_SIZE_SECONDS": "1",
        "ALLOWED_LATENESS_SECONDS": "1",
        "INFLUX_QUERY_TIMEOUT": "5",
        # Rows that a busy machine stores too late would be no fault of the database, but draw attention.
        "LATE_RECOUNT_SECONDS": "3600",
        "STATUS_ADDRESS": "127.0.0.1:0",
        "STATUS_TOKEN": TOKEN,
    }
    watchdog = {"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "3000000"}

    with wearing(own_server, clinic.raw, Wearers(6)), Service(tmp_path, settings, environment=watchdog) as service:
        watching = Watching(service, manager)
        manager.wait_for("READY=1")
        watching.until_all_say(flows=True)

        own_server.kill()
        told_s = watching.until_all_say(flows=False)
        # The next request to the server notices it first; the reader does soon.
        wait_until(lambda: "source_unreachable" in watching.get("/readyz").text, watching.stories)
        while_down = watching.get("/readyz").json()["reasons"], watching.get("/metrics").text, manager.listen()[-1]
        assert watching.get("/livez").status_code == 200, "waiting is no reason to be killed"

        own_server.restart()
        recovered_s = watching.until_all_say(flows=True)

        signs = manager.listen().count("WATCHDOG=1")
        texts = [watching.get(path).text for path in ("/metrics", "/status.json", "/settings.json", "/readyz")]
        time.sleep(1)
        code = service.stop()
        log = service.log

    reasons, metrics, _ = while_down
    print(f"told {told_s:.1f} s after the kill, recovered {recovered_s:.1f} s after the return")
    assert {one["code"] for one in reasons} <= {"source_unreachable", "output_unreachable"}
    assert "source_unreachable" in [one["code"] for one in reasons]
    assert re.search(r"^ecg_anonymizer_source_retries_total [1-9]", metrics, re.MULTILINE)
    assert signs >= 3
    assert manager.listen()[-1] == "STOPPING=1"
    assert code == 0, log
    for name in ("ecg_anonymizer_unaccounted_rows", "ecg_anonymizer_output_unaccounted_rows"):
        assert re.findall(rf"^{name}(?:{{.*}})? (\S+)$", texts[0], re.MULTILINE).count("0.0") >= 1
        assert set(re.findall(rf"^{name}(?:{{.*}})? (\S+)$", texts[0], re.MULTILINE)) == {"0.0"}
    assert_no_person_is_named(clinic, texts)


def assert_no_person_is_named(clinic: Clinic, texts: list[str]) -> None:
    """See that no source, under its own name or its pseudonym, and no secret is in what was served."""
    released_ids = {source for _, source in clinic.stored()}
    secrets = [str(clinic.settings[name]) for name in ("INFLUX_TOKEN", "INFLUX_OUTPUT_TOKEN")]
    assert len(released_ids) == 6
    for text in texts:
        for private in (*released_ids, *secrets, KEY, TOKEN, "mitbih"):
            assert private not in text


def test_a_stream_that_starts_before_its_database_says_so_and_is_ready_for_systemd(
    clinic: Clinic, manager: Manager, tmp_path: Path
) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        settings = {**clinic.settings, "INFLUX_URL": f"http://127.0.0.1:{port}", "STREAMING_MODE": "true"}
        served = {"STATUS_ADDRESS": "127.0.0.1:0", "STATUS_TOKEN": TOKEN}
        with Service(tmp_path, {**settings, **served}, environment={"NOTIFY_SOCKET": manager.address}) as service:
            watching = Watching(service, manager)
            manager.wait_for("READY=1")
            manager.wait_for("STATUS=The source does not answer.")
            answer = watching.get("/readyz")
            metrics = watching.get("/metrics").text
            code = service.stop()

    assert (answer.status_code, [one["code"] for one in answer.json()["reasons"]]) == (503, ["source_unreachable"])
    assert len(re.findall(r"^ecg_anonymizer_output_pending_rows{.*} 0\.0$", metrics, re.MULTILINE)) == 2, (
        "outputs are there already"
    )
    assert code == 0
