"""Limits connections to the status page in number and idle time, so that idle connections cannot block other clients.

waitress reads from all connections in one thread and answers from two. By default it accepts a hundred connections, keeps open those that
send an occasional byte, and accepts no others until one closes.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterable
from typing import Any

from waitress.adjustments import Adjustments
from waitress.channel import HTTPChannel
from waitress.server import TcpWSGIServer

#: A page, a scraper and some probes need fewer. At this limit, a new connection replaces the longest idle one.
MOST_CONNECTIONS = 64

#: Time limits for receiving the first request, and for reading an answer and sending the next request.
FIRST_REQUEST_S = 5.0
NEXT_REQUEST_S = 20.0

#: How many requests may be sent before the first is answered. Answers to slow readers are kept in memory.
MOST_PIPELINED = 8

#: How often to check for connections past their time limit.
_CHECK_EVERY_S = 1.0

#: Pause after a connection could not be accepted, such as for lack of file descriptors.
_PAUSE_S = 0.05

_LIMITS: dict[str, Any] = {
    "threads": 2,
    "max_request_header_size": 16_384,
    "max_request_body_size": 1024,
    "asyncore_use_poll": True,
    "log_socket_errors": False,
    "ident": None,
}


class _Connection(HTTPChannel):
    """One connection. It has been waiting for its client since `waiting_since_s`, and may do so for `waits_s`."""

    # waitress' published types lack these.
    requests: list[Any]
    requests_lock: threading.Lock

    def __init__(self, *arguments: Any, **named: Any) -> None:
        self.waiting_since_s = time.monotonic()
        self.waits_s = FIRST_REQUEST_S
        super().__init__(*arguments, **named)

    @property
    def is_idle(self) -> bool:
        """Whether no request is being answered."""
        return not self.requests

    @property
    def is_overdue(self) -> bool:
        """Whether the client is past its time limit."""
        return self.is_idle and time.monotonic() - self.waiting_since_s > self.waits_s

    def received(self, data: bytes) -> bool:
        """Receive data. With too many requests, the last accepted one closes the connection, and the client sends the others again."""
        is_taken = super().received(data)
        with self.requests_lock:
            if len(self.requests) > MOST_PIPELINED:
                del self.requests[MOST_PIPELINED:]
                self.requests[-1].headers["CONNECTION"] = "close"
        return bool(is_taken)

    def service(self) -> None:
        """Answer one request."""
        super().service()
        self.waiting_since_s, self.waits_s = time.monotonic(), NEXT_REQUEST_S


class Connections(TcpWSGIServer):
    """Serves an application on a listening socket. `run` returns after `close`.

    Args:
        application: Answers requests; must not block.
        listening: The socket.
    """

    channel_class = _Connection
    active_channels: dict[int, _Connection]  # type: ignore[assignment]

    def __init__(self, application: Any, listening: socket.socket) -> None:
        self._next_check_s = 0.0
        super().__init__(
            application,
            {},
            True,
            listening,
            adj=Adjustments(sockets=[listening], **_LIMITS),
            sockinfo=(listening.family, listening.type, listening.proto, listening.getsockname()),
            bind_socket=False,
        )

    def readable(self) -> bool:
        """Close connections past their time limit; return whether one more can be accepted."""
        if time.monotonic() >= self._next_check_s:
            self._next_check_s = time.monotonic() + _CHECK_EVERY_S
            self._close(one for one in self._connections() if one.is_overdue)
        return self.accepting and (len(self.active_channels) < MOST_CONNECTIONS or bool(self._idle()))

    def handle_accept(self) -> None:
        """Accept a connection; at the limit, close the longest idle one first."""
        if len(self.active_channels) >= MOST_CONNECTIONS:
            self._close(self._idle()[:1])
        super().handle_accept()

    def accept(self) -> Any:
        """Return a connection; None if none can be accepted now."""
        try:
            return super().accept()
        except OSError:
            self._close(self._idle()[:1])
            time.sleep(_PAUSE_S)
            return None

    def _connections(self) -> list[_Connection]:
        return list(self.active_channels.values())

    def _idle(self) -> list[_Connection]:
        """Return the idle connections, the longest idle first."""
        return sorted((one for one in self._connections() if one.is_idle), key=lambda one: one.waiting_since_s)

    def _close(self, connections: Iterable[_Connection]) -> None:
        for one in connections:
            one.handle_close()
