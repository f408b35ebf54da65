"""Sends systemd the messages of a `Type=notify` service: ready, status, watchdog, stopping (sd_notify(3))."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress

from service.status.judgement import judge
from service.status.snapshot import Snapshot

#: How often the state is checked.
LOOK_EVERY_S = 1.0

#: Signs of life per WatchdogSec=.
_SIGNS_WITHIN_WATCHDOG = 3

#: A status line is cut at this length.
_LONGEST_STATUS = 300


class Notifier:
    """Checks the state once per second and notifies systemd.

    READY=1 is sent once the start needs no help from an operator: the loop runs, or waits for an unreachable source. The status line and
    /readyz say whether data flows.

    Args:
        look: Returns a snapshot.
        environment: NOTIFY_SOCKET names the manager's socket; WATCHDOG_USEC is how long it waits for a sign of life.
    """

    def __init__(self, look: Callable[[], Snapshot], environment: Mapping[str, str]) -> None:
        self._look = look
        self._address = environment["NOTIFY_SOCKET"]
        watchdog_us = environment.get("WATCHDOG_USEC", "")
        is_meant = environment.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        self._sign_every_s = int(watchdog_us) / 1e6 / _SIGNS_WITHIN_WATCHDOG if watchdog_us.isdigit() and is_meant else None
        self._is_ready = self._is_stopping = False
        self._last_status = ""
        self._since_sign_s = 0.0
        self._every_s = min(LOOK_EVERY_S, self._sign_every_s or LOOK_EVERY_S)
        self._ended = threading.Event()
        threading.Thread(target=self._run, name="systemd", daemon=True).start()

    def close(self) -> None:
        """Send that the service stops, and nothing more."""
        self._ended.set()
        self._send_stopping()

    def _run(self) -> None:
        while not self._ended.is_set():
            self._notify(self._look())
            self._ended.wait(self._every_s)

    def _notify(self, now: Snapshot) -> None:
        judgement = judge(now)
        if now.run.phase == "stopping":
            self._send_stopping()
        elif not self._is_ready and (now.run.phase != "connecting" or now.source.trouble):
            self._is_ready = True
            self._send("READY=1")
        status = f"{judgement.headline}. {judgement.sentence}".replace("\n", " ")[:_LONGEST_STATUS]
        if status != self._last_status:
            self._last_status = status
            self._send(f"STATUS={status}")
        self._since_sign_s += self._every_s
        if self._sign_every_s is not None and self._since_sign_s >= self._sign_every_s and judgement.is_live:
            self._since_sign_s = 0.0
            self._send("WATCHDOG=1")

    def _send_stopping(self) -> None:
        if not self._is_stopping:
            self._is_stopping = True
            self._send("STOPPING=1")

    def _send(self, message: str) -> None:
        # A leading @ means Linux's abstract namespace.
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
            manager.settimeout(1)
            manager.sendto(message.encode(), address)
