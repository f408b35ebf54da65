"""What a `Type=notify` service tells its manager, seen by a socket that stands in for systemd's."""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.status.snapshot import Snapshot
from service.status.systemd import Notifier
from tests.status import states

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="systemd is Linux's")


class Manager:
    """A socket that remembers what it was told."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind("\0" + address[1:] if address.startswith("@") else address)
        self.socket.settimeout(0.05)
        self.said: list[str] = []

    def listen(self) -> list[str]:
        """Return everything that was said so far."""
        while True:
            try:
                self.said.append(self.socket.recv(4096).decode())
            except TimeoutError:
                return self.said

    def wait_for(self, message: str, *, within_s: float = 60) -> None:
        deadline = time.monotonic() + within_s
        while not any(one.startswith(message) for one in self.listen()):
            assert time.monotonic() < deadline, f"never said {message!r}: {self.said}"


class Showing:
    """What the notifier looks at; tests change it."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot

    def look(self) -> Snapshot:
        return self.snapshot


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    manager = Manager(str(tmp_path / "notify"))
    yield manager
    manager.socket.close()


def notifier(showing: Showing, manager: Manager, **more: str) -> Notifier:
    return Notifier(showing.look, {"NOTIFY_SOCKET": manager.address, **more})


def test_ready_and_a_status_are_said_once_the_loop_works(manager: Manager) -> None:
    telling = notifier(Showing(states.healthy()), manager)

    manager.wait_for("STATUS=")
    telling.close()

    assert manager.said[:2] == [
        "READY=1",
        "STATUS=All is well. Up to 2025-11-03 14:29:45 UTC everything is done; 0 rows wait for outputs.",
    ]
    assert manager.listen()[-1] == "STOPPING=1"


def test_ready_waits_for_the_first_look_but_not_for_a_database_that_is_away(manager: Manager) -> None:
    showing = Showing(states.changed(states.healthy(), {"run.phase": "connecting"}))
    telling = notifier(showing, manager)
    manager.wait_for("STATUS=Starting")
    assert "READY=1" not in manager.said

    showing.snapshot = states.changed(states.source_down(), {"run.phase": "connecting"})
    manager.wait_for("READY=1")
    manager.wait_for("STATUS=The source does not answer. The source has not answered since 14:29:18 UTC")
    telling.close()


def test_the_watchdog_hears_of_us_only_while_the_loop_lives(manager: Manager) -> None:
    showing = Showing(states.healthy())
    telling = notifier(showing, manager, WATCHDOG_USEC="300000", WATCHDOG_PID=str(os.getpid()))
    manager.wait_for("WATCHDOG=1")

    showing.snapshot = states.changed(states.healthy(), {"pace.idle_s": 241.0})
    manager.wait_for("STATUS=The work loop hangs")
    signs = manager.listen().count("WATCHDOG=1")
    time.sleep(0.5)
    assert manager.listen().count("WATCHDOG=1") == signs
    telling.close()


@pytest.mark.parametrize("environment", [{}, {"WATCHDOG_USEC": "100000", "WATCHDOG_PID": "1"}])
def test_a_watchdog_that_is_not_ours_hears_nothing(manager: Manager, environment: dict[str, str]) -> None:
    telling = notifier(Showing(states.healthy()), manager, **environment)
    manager.wait_for("STATUS=")
    time.sleep(0.3)
    telling.close()

    assert "WATCHDOG=1" not in manager.listen()


def test_the_same_status_is_said_once(manager: Manager) -> None:
    telling = notifier(Showing(states.healthy()), manager, WATCHDOG_USEC="600000")
    manager.wait_for("WATCHDOG=1")
    time.sleep(1)
    telling.close()

    assert len([one for one in manager.listen() if one.startswith("STATUS=")]) == 1


def test_an_abstract_socket_is_understood(tmp_path: Path) -> None:
    manager = Manager(f"@ecg-anonymizer-{os.getpid()}-{tmp_path.name}")
    telling = notifier(Showing(states.healthy()), manager)
    manager.wait_for("READY=1")
    telling.close()
    manager.socket.close()


def test_a_manager_that_went_away_does_no_harm(tmp_path: Path) -> None:
    telling = Notifier(Showing(states.healthy()).look, {"NOTIFY_SOCKET": str(tmp_path / "nobody")})
    time.sleep(0.1)
    telling.close()
