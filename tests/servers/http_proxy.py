"""An HTTP proxy before a real server: passes requests on, unless a test has it answer itself, or change an answer on its way back.

    with HttpProxy(server.url) as proxy:
        proxy.answer(Reply(status=503, headers={"Retry-After": "2"}), to="/api/v2/write")

gives the next write that answer, without asking the server; with `store=True` the server is asked all the same, and only its answer is
replaced. Everything that was asked is kept, with its time, to be counted.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from email.utils import format_datetime, parsedate_to_datetime

import requests

from tests.servers.api_server import Reply
from tests.servers.quiet_http import InThreads, QuietHandler

#: How long the server behind may take, in seconds.
TIMEOUT_S = 120.0

#: Headers that belong to one connection, or that change with the body.
NOT_PASSED_ON = frozenset({"connection", "content-length", "transfer-encoding", "host", "accept-encoding"})


@dataclass(frozen=True, slots=True)
class Asked:
    """One request: what, when (on the monotonic clock), and what it was answered."""

    method: str
    path: str
    body: bytes
    at_s: float
    status: int


#: Takes a request's path and body and the server's answer; returns what to answer instead.
Edit = Callable[[str, bytes, bytes], bytes]

#: Takes a request's path and body; returns what to answer, or None for what the server does.
Rule = Callable[[str, bytes], Reply | None]

#: Takes a request's path; returns the `Date` headers of its answer.
Dates = Callable[[str], list[str]]


class HttpProxy(InThreads):
    """Listens on a port of its own."""

    def __init__(self, server_url: str, *, tls: ssl.SSLContext | None = None) -> None:
        super().__init__(_Handler)
        self._server_url = server_url
        self._lock = threading.Lock()
        self._script: list[tuple[str, Reply | None]] = []
        self._rule: Rule | None = None
        self._edit: Edit | None = None
        self._ahead = timedelta()
        self._dates: Dates | None = None
        self._connections: list[socket.socket] = []
        self._asked: list[Asked] = []
        if tls is not None:
            # The handshake is for the connection's own thread: one that hangs must not keep others out.
            self._http.socket = tls.wrap_socket(self._http.socket, server_side=True, do_handshake_on_connect=False)
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}"

    def answer(self, *replies: Reply | None, to: str = "") -> None:
        """Give the next requests to paths that begin so these answers, one each; None: what the server answers."""
        with self._lock:
            self._script += [(to, reply) for reply in replies]

    def answer_always(self, reply: Reply, *, to: str = "") -> None:
        """Give every request to paths that begin so this answer, until `pass_all`."""
        self.answer_by(lambda path, _: reply if path.startswith(to) else None)

    def answer_by(self, rule: Rule) -> None:
        """Let a rule judge every request for which there is no scripted answer, until `pass_all`."""
        with self._lock:
            self._rule = rule

    def edit(self, edit: Edit | None) -> None:
        """Let every answer of the server be changed on its way."""
        self._edit = edit

    def shift_date(self, seconds: int) -> None:
        """Let the server's clock seem ahead by so much, in every answer's `Date`."""
        self._ahead = timedelta(seconds=seconds)

    def date_by(self, dates: Dates) -> None:
        """Let a rule say which `Date` headers an answer to a path has: any number, of any form."""
        self._dates = dates

    def hang_up(self) -> None:
        """End every connection that is open now; each client must begin another."""
        with self._lock:
            connections, self._connections = self._connections, []
        for connection in connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def took(self, connection: socket.socket) -> None:
        """Remember a connection that a client began."""
        with self._lock:
            self._connections.append(connection)

    def pass_all(self) -> None:
        """Pass everything on, unchanged, from now on."""
        with self._lock:
            self._script, self._rule, self._edit, self._ahead, self._dates = [], None, None, timedelta(), None

    def headers_of(self, path: str, answer: requests.Response) -> list[tuple[str, str]]:
        """Return the headers to pass back."""
        headers = {name: value for name, value in answer.headers.items() if name.lower() not in NOT_PASSED_ON}
        if self._dates is not None:
            kept = [(name, value) for name, value in headers.items() if name.lower() != "date"]
            return [*kept, *(("Date", text) for text in self._dates(path))]
        if self._ahead and "Date" in headers:
            headers["Date"] = format_datetime(parsedate_to_datetime(headers["Date"]) + self._ahead, usegmt=True)
        return list(headers.items())

    def asked(self, path: str = "") -> list[Asked]:
        """Return what was asked of paths that begin so, in order."""
        with self._lock:
            return [one for one in self._asked if one.path.startswith(path)]

    def reply_for(self, path: str, body: bytes) -> Reply | None:
        """Return what to answer; None: what the server does."""
        with self._lock:
            for index, (beginning, reply) in enumerate(self._script):
                if path.startswith(beginning):
                    del self._script[index]
                    return reply
            return None if self._rule is None else self._rule(path, body)

    def pass_on(
        self, session: requests.Session, method: str, path: str, headers: dict[str, str], body: bytes
    ) -> requests.Response:
        """Ask the server."""
        kept = {name: value for name, value in headers.items() if name.lower() not in NOT_PASSED_ON}
        url = self._server_url + path
        # Not compressed: what comes back is to be read and changed.
        return session.request(
            method, url, headers={**kept, "Accept-Encoding": "identity"}, data=body, timeout=TIMEOUT_S, allow_redirects=False
        )

    def edited(self, path: str, body: bytes, answer: bytes) -> bytes:
        """Return an answer as it is to arrive."""
        return answer if self._edit is None else self._edit(path, body, answer)

    def note(self, asked: Asked) -> None:
        """Keep what was asked."""
        with self._lock:
            self._asked.append(asked)


class _Handler(QuietHandler):
    owner: HttpProxy

    def setup(self) -> None:
        super().setup()
        self.owner.took(self.connection)
        self._session = requests.Session()
        self._session.trust_env = False

    def finish(self) -> None:
        self._session.close()
        with contextlib.suppress(OSError):
            super().finish()

    def do_GET(self) -> None:
        """Pass on, or answer."""
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        at_s, proxy = time.monotonic(), self.owner
        path = self.path.partition("?")[0]
        reply = proxy.reply_for(path, body)
        answer = None
        if reply is None or reply.store:
            answer = proxy.pass_on(self._session, self.command, self.path, dict(self.headers.items()), body)
        status = reply.status if reply is not None else answer.status_code if answer is not None else 0
        proxy.note(Asked(self.command, path, body, at_s, status))
        if reply is not None:
            self._give(reply)
        elif answer is not None:
            content = proxy.edited(path, body, answer.content)
            self._send(answer.status_code, proxy.headers_of(path, answer), content)

    do_POST = do_DELETE = do_PUT = do_PATCH = do_GET

    def _give(self, reply: Reply) -> None:
        time.sleep(reply.hang_s)
        if reply.drop:
            self.reset()
            return
        self._send(reply.status, list(reply.headers.items()), reply.body.encode())

    def _send(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        self.send_response_only(status)
        for name, value in headers:
            self.send_header(name, value)
        if status != 204:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if status != 204:
            self.wfile.write(body)
