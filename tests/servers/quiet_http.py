"""What the HTTP servers of tests share: HTTP/1.1, one thread per connection, and nothing printed."""

from __future__ import annotations

import socket
import struct
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self


class QuietServer(ThreadingHTTPServer):
    """Prints nothing about clients that hang up early: many tests are about them."""

    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print nothing."""


class QuietHandler(BaseHTTPRequestHandler):
    """Serves one connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # or each answer's body waits 40 ms for its head to be acknowledged

    def whole_body(self) -> bytes | None:
        """Return the request's body, or None if the client went away before the end: then nothing was delivered."""
        length = int(self.headers.get("Content-Length", 0))
        body = self.rfile.read(length)
        if len(body) < length:
            self.close_connection = True
            return None
        return body

    def reset(self) -> None:
        """Reset the connection: closed with linger 0, the client sees no answer that could be taken for a whole one."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:
        """Print nothing."""


class InThreads:
    """A server in threads of this process. Its handlers find it as `owner`."""

    def __init__(self, handler: type[QuietHandler]) -> None:
        self._http = QuietServer(("127.0.0.1", 0), type("Handler", (handler,), {"owner": self}))
        self.port: int = self._http.server_port

    def __enter__(self) -> Self:
        threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._http.shutdown()
        self._http.server_close()
