"""Being asked to stop: once, and the window in hand is finished; twice, and it ends at once. Neither loses anything."""

from __future__ import annotations

import contextlib
import signal
import time
from pathlib import Path

import pytest

from tests.faults.oracle import files_in
from tests.faults.streams import USELESS, unread_pipe
from tests.faults.ward import FULL, STREAMING, TIMEOUT_S, Ward, slow_disk, wait_until
from tests.integration.service_process import Service
from tests.servers.tcp_proxy import Hang, TcpProxy

# A process is forked here to be given streams that are closed; Python 3.12 warns where there are threads.
pytestmark = [
    pytest.mark.influxdb,
    pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning"),
]

#: How long after SIGTERM the process may live: eight seconds, of which servers get seven; a busy machine is forgiven the rest. A request
#: would get thirty.
MOST_S = 20.0


def port_of(url: str) -> int:
    return int(url.rpartition(":")[2])


def hang(proxy: TcpProxy, service: Service) -> None:
    """Return once a request of the service hangs."""
    proxy.answers.become(Hang())
    wait_until(lambda: proxy.answers.fired > 0, "an answer that hangs", service=service)


def finish(ward: Ward, through: dict[str, object]) -> None:
    """Start the service again, see it deliver everything, and stop it."""
    with ward.streaming(through):
        pass


def test_a_stream_that_is_asked_to_stop_in_the_middle_of_a_window_exits_0_and_loses_nothing(recent: Ward) -> None:
    """Row 3: SIGTERM mid-window."""
    with recent.start(STREAMING, environment=slow_disk(recent.folder, "w_", 0.2)) as service:
        service.wait_for("🔒 Anonymizing batch")
        assert service.stop() == 0
        left = len(files_in(recent.csv))

    assert left < 20, "it was in the middle"
    finish(recent, {})


@pytest.mark.parametrize("where", ["source", "influxdb", "api"] if FULL else ["source", "api"])
def test_a_stream_that_waits_for_an_answer_when_it_is_asked_to_stop_exits_0_within_eight_seconds(
    recent: Ward, where: str
) -> None:
    """Row 3: SIGTERM while a read or a write waits for an answer that does not come; time-outs are 30 s long."""
    with TcpProxy(port_of(recent.api.url) if where == "api" else recent.server.port) as proxy:
        name = {"source": "INFLUX_URL", "influxdb": "INFLUX_OUTPUT_URL", "api": "API_ENDPOINT"}[where]
        through: dict[str, object] = {"INFLUX_OUTPUT_URL": recent.server.url, name: proxy.url}
        with recent.start({**STREAMING, **through}) as service:
            if where != "api":  # which is asked only where there is something to deliver: from the first window on
                service.wait_for("🔒 Anonymizing batch")
            hang(proxy, service)
            began_s = time.monotonic()
            assert service.stop(within_s=TIMEOUT_S) == 0
            assert time.monotonic() - began_s <= MOST_S
        proxy.pass_all()
        finish(recent, through)


def test_a_second_sigterm_ends_the_process_at_once_and_loses_nothing(recent: Ward) -> None:
    """Row 3: a second SIGTERM while the first is being obeyed."""
    with TcpProxy(port_of(recent.api.url)) as proxy:
        through: dict[str, object] = {"API_ENDPOINT": proxy.url}
        with recent.start({**STREAMING, **through}) as service:
            hang(proxy, service)
            service.process.send_signal(signal.SIGTERM)
            time.sleep(0.5)
            assert service.process.poll() is None, "it gives the output some seconds"
            assert service.stop() == 128 + signal.SIGTERM, "the first one alone would end it with 0"
        proxy.pass_all()
        finish(recent, through)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_one_shot_run_that_is_interrupted_says_so_and_the_next_one_does_the_rest(ward: Ward, number: int, code: int) -> None:
    """Row 3: Ctrl+C or SIGTERM during a one-shot run: 130 or 143, and nothing is lost or doubled by it."""
    with ward.start(environment=slow_disk(ward.folder, "w_", 0.2)) as service:
        service.wait_for("🔒 Anonymizing batch")
        assert service.stop(number) == code
    expected, found = ward.undisturbed().files, ward.holdings().files
    assert len(found) < len(expected)
    assert found.items() <= expected.items(), "the chunk in hand is finished"

    assert ward.run()[0] == 0
    ward.assert_complete()


@pytest.mark.parametrize("given", ["nothing at all", "a full pipe that is not read"])
def test_a_stream_whose_log_cannot_be_read_releases_everything_and_is_stopped_as_ever(
    recent: Ward, given: str, tmp_path: Path
) -> None:
    """Row 3: closed and full streams; broken ones and more in test_signals.py."""
    with contextlib.ExitStack() as stack:
        pipe = stack.enter_context(unread_pipe(tmp_path))
        streams = USELESS[given]() if given in USELESS else {"stdout": pipe}
        service = stack.enter_context(Service(recent.folder, {**recent.settings, **STREAMING}, **streams))
        recent.wait_until_delivered(service)
        assert service.stop() == 0
        assert given not in USELESS or "Traceback" not in service.log
    recent.assert_complete()
