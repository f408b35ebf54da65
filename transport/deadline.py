"""A time limit for a whole request: connecting, sending, and every byte of the answer.

The timeout of an HTTP library restarts with every byte, so a server that trickles its answer blocks the client for ever. Here each step
gets only what is left of the limit. Only DNS resolution cannot be interrupted.
"""

from __future__ import annotations

import io
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPResponse
from typing import Any

from urllib3 import HTTPConnectionPool, HTTPSConnectionPool, PoolManager
from urllib3.connection import HTTPConnection, HTTPSConnection

#: The most bytes read from a socket at a time.
_BUFFER_BYTES = 1 << 18

#: A server sends a long answer in pieces of a few kilobytes. Waking up for each costs more than copying it, so once an answer is known to
#: be long, the client waits a moment for more pieces.
_LONG_BYTES = 1 << 16
_MOMENT_S = 0.002

_running = threading.local()


@contextmanager
def whole_request_within(seconds: float) -> Iterator[None]:
    """Limit every request that this thread makes inside the block; a longer one times out. The pool needs `keep_limits`."""
    _running.ends_s = time.monotonic() + seconds
    try:
        yield
    finally:
        _running.ends_s = None


def keep_limits(manager: PoolManager) -> None:
    """Make new connections of a pool obey the limit of `whole_request_within`."""
    manager.pool_classes_by_scheme = {"http": _Pool, "https": _SecurePool}


def _left_s(at_most_s: float | None = None) -> float | None:
    """Return the seconds left, at most `at_most_s`; None if there is no limit. Raises TimeoutError if no time is left."""
    ends_s: float | None = getattr(_running, "ends_s", None)
    if ends_s is None:
        return at_most_s
    left_s = ends_s - time.monotonic()
    if left_s <= 0:
        raise TimeoutError("the time for the whole request is over")
    return left_s if at_most_s is None else min(left_s, at_most_s)


class _TimedReads(io.RawIOBase):
    """Reads a socket until the deadline."""

    def __init__(self, incoming: io.RawIOBase, connected: socket.socket) -> None:
        self._incoming = incoming
        self._socket = connected
        self._bytes = 0
        self._comes_in_pieces = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        if self._comes_in_pieces:
            time.sleep(_MOMENT_S)
        self._socket.settimeout(_left_s(self._socket.gettimeout()))
        read = self._incoming.readinto(buffer)
        self._bytes += read or 0
        self._comes_in_pieces = self._bytes > _LONG_BYTES and (read or 0) < _LONG_BYTES
        return read

    def close(self) -> None:
        self._incoming.close()
        super().close()


class _TimedAnswer(HTTPResponse):
    def __init__(self, connected: socket.socket, *args: Any, **options: Any) -> None:
        super().__init__(connected, *args, **options)
        self.fp = io.BufferedReader(_TimedReads(self.fp.detach(), connected), _BUFFER_BYTES)


class _Connection(HTTPConnection):
    response_class = _TimedAnswer

    def connect(self) -> None:
        self.timeout = _left_s(self.timeout)
        super().connect()

    def send(self, data: Any) -> None:
        if self.sock is not None:
            # The timeout covers the whole of `data`, not each piece that the server accepts.
            self.sock.settimeout(_left_s(self.sock.gettimeout()))
        super().send(data)


class _SecureConnection(_Connection, HTTPSConnection):
    pass


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


class _SecurePool(HTTPSConnectionPool):
    ConnectionCls = _SecureConnection
