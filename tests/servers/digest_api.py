"""An HTTP API that remembers digests only: for hours of deliveries, whose bodies would not fit in memory.

It honours `Idempotency-Key` as `api_server` does: 201 for a new key, 200 for one that comes again with the same body, 422 with another.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Mapping
from dataclasses import dataclass

from tests.servers.quiet_http import InThreads, QuietHandler


@dataclass(frozen=True, slots=True)
class Kept:
    """What is known of one delivery that was kept: the body's digest, and how many records it held."""

    digest: str
    rows: int


class DigestApi(InThreads):
    """The server."""

    def __init__(self) -> None:
        super().__init__(_Handler)
        self._lock = threading.Lock()
        self._kept: dict[str, Kept] = {}
        #: Deliveries of a key that was known, with the same body; and records that came under a known key in another body.
        self.repeated, self.conflicting_rows = 0, 0
        self.endpoint = f"http://127.0.0.1:{self.port}/ecg"

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


class _Handler(QuietHandler):
    owner: DigestApi

    def do_POST(self) -> None:
        """Take a body that came whole."""
        if (body := self.whole_body()) is not None:
            self.send_response_only(self.owner.take(self.headers.get("Idempotency-Key", ""), body))
            self.send_header("Content-Length", "0")
            self.end_headers()
