"""An HTTP API to deliver to, for tests: it keeps what it takes, honours `Idempotency-Key`, and misbehaves when told to.

    python -m tests.servers.api_server --port 0

prints `listening on http://127.0.0.1:PORT` and serves until it is ended; with `--until-stdin-ends` also until its parent is gone,
so that a killed test run leaves no server behind. `ApiServer` does all that for a test.

Every POST outside `/_control/` is a delivery. The next ones are answered as scripted, one `Reply` each; then the usual way: 201 for a key
that is new, 200 for one that comes again with the same body (nothing is stored again), 422 for one with another body.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import requests

from tests.servers.quiet_http import QuietHandler, QuietServer

PROJECT = Path(__file__).resolve().parents[2]

CONTROL = "/_control/"

#: How long the server may take to start or answer, in seconds: enough for a busy machine.
TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What to do with one delivery.

    Args:
        status: The status to answer.
        headers: Headers to answer.
        body: Body to answer.
        store: Whether what was sent is kept, whatever is answered.
        hang_s: How long to wait before the answer, or before the connection is dropped.
        drop: Reset the connection instead of answering.
        drip_s: Pause before each byte of the body.
    """

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: str = ""
    store: bool = False
    hang_s: float = 0.0
    drop: bool = False
    drip_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Delivery:
    """One request as it arrived, header names in lower case. The client's port tells one connection from another."""

    path: str
    headers: Mapping[str, str]
    body: bytes
    client_port: int

    @property
    def key(self) -> str:
        """Its idempotency key."""
        return self.headers.get("idempotency-key", "")

    @property
    def json(self) -> Any:
        """Its body, read as JSON."""
        return json.loads(self.body)


class ApiServer:
    """The server in a process of its own, and everything a test may ask of it."""

    def __init__(self, path: str = "/ecg") -> None:
        self._path = path
        self._process: subprocess.Popen[bytes] | None = None
        self.url = ""

    def __enter__(self) -> Self:
        command = [sys.executable, "-m", "tests.servers.api_server", "--port", "0", "--until-stdin-ends"]
        self._process = subprocess.Popen(command, cwd=PROJECT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        first_line = self._process.stdout.readline().decode()
        self.url = first_line.removeprefix("listening on ").strip()
        assert self.url.startswith("http://"), "the API server did not come up"
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.communicate()

    @property
    def endpoint(self) -> str:
        """Where to deliver to."""
        return self.url + self._path

    def script(self, *replies: Reply) -> None:
        """Answer the next deliveries like this, one each."""
        self._ask("POST", "script", json=[asdict(reply) for reply in replies])

    def limit(self, most_bytes: int) -> None:
        """Answer 413 to every delivery with a longer body; 0: to none."""
        self._ask("POST", "limit", json=most_bytes)

    def deliveries(self) -> list[Delivery]:
        """Return everything that arrived, taken or not, in order."""
        return [Delivery(**{**one, "body": one["body"].encode()}) for one in self._ask("GET", "deliveries").json()]

    def stored(self) -> list[Any]:
        """Return the bodies that were kept, in order, read as JSON."""
        return [json.loads(body) for body in self._ask("GET", "stored").json()]

    def reset(self) -> None:
        """Forget everything."""
        self._ask("POST", "reset")

    def _ask(self, method: str, what: str, **request: Any) -> requests.Response:
        with requests.Session() as session:
            session.trust_env = False
            answer = session.request(method, self.url + CONTROL + what, timeout=TIMEOUT_S, **request)
        answer.raise_for_status()
        return answer


class _Store:
    """What arrived and what was kept. Shared by all connections, so everything happens under one lock."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.reset()

    def reset(self) -> None:
        self.script: list[Reply] = []
        self.deliveries: list[Delivery] = []
        self.stored: list[str] = []
        self.digest_of_key: dict[str, str] = {}
        self.most_bytes = 0

    def take(self, delivery: Delivery) -> Reply:
        """Note a delivery and return what to do about it."""
        self.deliveries.append(delivery)
        if self.script:
            reply = self.script.pop(0)
            if reply.store:
                self._keep(delivery)
            return reply
        if self.most_bytes and len(delivery.body) > self.most_bytes:
            return Reply(status=413)
        return Reply(status=self._keep(delivery), body='{"ok":true}')

    def _keep(self, delivery: Delivery) -> int:
        digest = hashlib.sha256(delivery.body).hexdigest()
        known = self.digest_of_key.get(delivery.key) if delivery.key else None
        if known is not None:
            return 200 if known == digest else 422
        self.digest_of_key[delivery.key] = digest
        self.stored.append(delivery.body.decode())
        return 201


class _Handler(QuietHandler):
    store: _Store

    def do_POST(self) -> None:
        body = self.whole_body()
        if body is None:
            return
        with self.store.lock:
            if self.path.startswith(CONTROL):
                self._control(self.path.removeprefix(CONTROL), json.loads(body or b"null"))
                reply = Reply(body="{}")
            else:
                headers = {name.lower(): value for name, value in self.headers.items()}
                reply = self.store.take(Delivery(self.path, headers, body, self.client_address[1]))
        self._answer(reply)

    def do_GET(self) -> None:
        with self.store.lock:
            if self.path == CONTROL + "deliveries":
                found: Any = [
                    {"path": one.path, "headers": one.headers, "body": one.body.decode(), "client_port": one.client_port}
                    for one in self.store.deliveries
                ]
            else:
                found = self.store.stored
            body = json.dumps(found)
        self._answer(Reply(body=body))

    def _control(self, what: str, told: Any) -> None:
        if what == "script":
            self.store.script += [Reply(**reply) for reply in told]
        elif what == "limit":
            self.store.most_bytes = int(told)
        elif what == "reset":
            self.store.reset()

    def _answer(self, reply: Reply) -> None:
        time.sleep(reply.hang_s)
        if reply.drop:
            self.reset()
            return
        body = reply.body.encode()
        self.send_response(reply.status)
        for name, value in {"Content-Length": str(len(body)), **reply.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if not reply.drip_s:
            self.wfile.write(body)
            return
        for byte in body:
            time.sleep(reply.drip_s)
            self.wfile.write(bytes([byte]))
            self.wfile.flush()


def main() -> None:
    """Serve until ended."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--port", type=int, default=0, help="a loopback port; 0: a free one")
    parser.add_argument("--until-stdin-ends", action="store_true", help="end when standard input does")
    options = parser.parse_args()
    handler = type("Handler", (_Handler,), {"store": _Store()})
    server = QuietServer(("127.0.0.1", options.port), handler)
    print(f"listening on http://127.0.0.1:{server.server_port}", flush=True)
    if options.until_stdin_ends:
        threading.Thread(target=_end_with_stdin, daemon=True).start()
    server.serve_forever()


def _end_with_stdin() -> None:
    sys.stdin.buffer.read()
    os._exit(0)


if __name__ == "__main__":
    main()
