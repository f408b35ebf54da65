"""Random faults for a service that runs for long: it is killed, stopped, cut off; its servers are killed; its tokens change."""

from __future__ import annotations

import random
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from testbed.influxdb_server import InfluxServer
from tests.faults.ward import paused
from tests.integration.service_process import Service
from tests.servers.tcp_proxy import Direction, Hang, Reset, TcpProxy

#: How long the service is left alone between two faults, in seconds.
PEACE_S = (2.0, 10.0)

#: How long a fault lasts that lasts.
LASTING_S = (1.0, 5.0)

#: How much of a message passes before a connection is reset.
LONGEST_START_BYTES = 2_000_000

#: A service that is asked to stop may take so long, in seconds.
STOP_WITHIN_S = 8.0


class Subject:
    """The service, started anew whenever it ended, each life's log kept.

    Args:
        folder: Where it works.
        settings: What stands in `.env`.
    """

    def __init__(self, folder: Path, settings: Mapping[str, object]) -> None:
        self._folder = folder
        self._settings = settings
        self.lives = 0
        self.service = self._start()

    def restart(self) -> None:
        """Begin another life."""
        self.service.__exit__(None, None, None)
        shutil.move(self._folder / "service.log", self._folder / f"life-{self.lives:04d}.log")
        self.service = self._start()

    def end(self) -> int:
        """Ask it to stop, once, and return the exit code."""
        code = self.service.stop(within_s=60)
        self.service.__exit__(None, None, None)
        return code

    def _start(self) -> Service:
        self.lives += 1
        return Service(self._folder, self._settings)


@dataclass(frozen=True)
class Surroundings:
    """What can be done harm around the service.

    Args:
        server: The InfluxDB server, source and output.
        proxies: The ways to source, output and API.
        rotations: What gives the service another token, and takes the old one away.
    """

    server: InfluxServer
    proxies: tuple[TcpProxy, ...]
    rotations: tuple[Callable[[], None], ...]


class Mischief:
    """Does one thing after the other, as chance will have it.

    Args:
        subject: To whom.
        around: And to what.
        seed: The same faults for the same seed, as far as the machine's pace allows.
    """

    def __init__(self, subject: Subject, around: Surroundings, *, seed: int) -> None:
        self._subject = subject
        self._around = around
        self._chance = random.Random(seed)
        self.done: Counter[str] = Counter()
        self.complaints: list[str] = []
        self._ways: tuple[tuple[int, str, Callable[[], None]], ...] = (
            (2, "SIGKILL", self._kill),
            (1, "SIGTERM", self._terminate),
            (2, "SIGSTOP", self._stand_still),
            (5, "reset", self._reset),
            (3, "refused", self._refuse),
            (3, "hangs", self._hang),
            (2, "cut", self._cut),
            (1, "influxd killed", self._kill_influxd),
            (1, "token rotated", self._rotate),
        )

    def until(self, end_s: float) -> None:
        """Go on until a time on the monotonic clock."""
        while time.monotonic() < end_s:
            time.sleep(self._chance.uniform(*PEACE_S))
            (way,) = self._chance.choices(self._ways, weights=[weight for weight, *_ in self._ways])
            self.done[way[1]] += 1
            way[2]()
            self._see_that_it_lives()

    def _see_that_it_lives(self) -> None:
        code = self._subject.service.process.poll()
        if code is not None:
            self.complaints.append(f"it ended by itself with code {code}, in life {self._subject.lives}")
            self._subject.restart()

    def _kill(self) -> None:
        self._subject.service.process.kill()
        self._subject.service.process.wait()
        self._subject.restart()

    def _terminate(self) -> None:
        began_s = time.monotonic()
        code = self._subject.service.stop(signal.SIGTERM, within_s=60)
        took_s = time.monotonic() - began_s
        if code or took_s > STOP_WITHIN_S:
            self.complaints.append(f"SIGTERM: exit code {code} after {took_s:.1f} s, in life {self._subject.lives}")
        self._subject.restart()

    def _stand_still(self) -> None:
        with paused(self._subject.service):
            self._last()

    def _reset(self) -> None:
        self._direction().become(
            Reset(self._chance.randrange(LONGEST_START_BYTES) // self._chance.choice((1, 10, 1000))), times=1
        )

    def _refuse(self) -> None:
        proxy = self._proxy()
        proxy.refuse()
        self._last()
        proxy.pass_all()

    def _hang(self) -> None:
        proxy, direction = self._proxy(), self._chance.choice(("requests", "answers"))
        getattr(proxy, direction).become(Hang(self._chance.randrange(20_000)))
        self._last()
        proxy.pass_all()

    def _cut(self) -> None:
        self._proxy().cut()

    def _kill_influxd(self) -> None:
        self._around.server.kill()
        self._around.server.restart()

    def _rotate(self) -> None:
        self._chance.choice(self._around.rotations)()

    def _direction(self) -> Direction:
        proxy = self._proxy()
        return self._chance.choice((proxy.requests, proxy.answers))

    def _proxy(self) -> TcpProxy:
        return self._chance.choice(self._around.proxies)

    def _last(self) -> None:
        time.sleep(self._chance.uniform(*LASTING_S))
