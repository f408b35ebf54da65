"""An HTTP API that remembers digests only: for hours of deliveries, of which nobody could keep the bodies.

It honours `Idempotency-Key` as `api_server` does: 201 for a new key, 200 for one that comes again with the same body, 422 with another.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self


@dataclass(frozen=True, slots=True)
class Kept:
    """What is known of one delivery that was kept: the body's digest, and how many records it held."""

    digest: str
    rows: int


class DigestApi:
    """The server, in threads of the process that made it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: dict[str, Kept] = {}
        #: Deliveries of a key that was known, with the same body; and records that came under a known key in another body.
        self.repeated, self.conflicting_rows = 0, 0
        self._http = _Server(("127.0.0.1", 0), _Handler)
        self._http.api = self
        self.port: int = self._http.server_port
        self.endpoint = f"http://127.0.0.1:{self.port}/ecg"

    def __enter__(self) -> Self:
        threading.Thread(target=self._http.serve_forever, daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._http.shutdown()
        self._http.server_close()

    def kept(self) -> Mapping[str, Kept]:
        """Return what was kept, by key."""
        with self._lock:
            return dict(self._kept)

    def take(self, key: str, body: bytes) -> int:
        """Take a delivery; return the status to answer."""
        kept = Kept(hashlib.sha256(body).hexdigest(), body.count(b'{"timestamp":'))
        with self._lock:
            known = self._kept.setdefault(key, kept)
            if known is kept:
                return 201
            if known == kept:
                self.repeated += 1
                return 200
            self.conflicting_rows += kept.rows
            return 422


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    api: DigestApi

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: clients are killed here, on purpose."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def do_POST(self) -> None:
        """Take a body that came whole; one that did not is none."""
        length = int(self.headers.get("Content-Length", 0))
        body = self.rfile.read(length)
        if len(body) < length:
            self.close_connection = True
            return
        self.send_response_only(self.server.api.take(self.headers.get("Idempotency-Key", ""), body))
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""
