"""A forward proxy as HTTP_PROXY names one: it alone knows where a host of a test is, and notes what was asked for."""

from __future__ import annotations

import contextlib
import socket
import threading
import urllib.parse
from collections.abc import Mapping

import requests

from tests.servers.http_proxy import NOT_PASSED_ON
from tests.servers.quiet_http import InThreads, QuietHandler


class ForwardProxy(InThreads):
    """Listens on a port of its own.

    Args:
        places: By `host:port`, the port of this machine where it really is.
    """

    def __init__(self, places: Mapping[str, int]) -> None:
        self.places = places
        #: What was asked for (`host:port`), with the credentials that were given.
        self.asked: list[tuple[str, str]] = []
        super().__init__(_Handler)
        self.place = f"127.0.0.1:{self.port}"

    def hosts(self) -> set[str]:
        """Return what was asked for."""
        return {place for place, _ in self.asked}


class _Handler(QuietHandler):
    owner: ForwardProxy

    def do_GET(self) -> None:
        """Pass a request on."""
        parts = urllib.parse.urlsplit(self.path)
        port = self._port_of(f"{parts.hostname}:{parts.port or 80}")
        headers = {name: value for name, value in self.headers.items() if name.lower() not in NOT_PASSED_ON}
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        with requests.Session() as session:
            session.trust_env = False
            url = f"http://127.0.0.1:{port}{parts.path}{'?' if parts.query else ''}{parts.query}"
            answer = session.request(self.command, url, headers={**headers, "Accept-Encoding": "identity"}, data=body)
        self.send_response_only(answer.status_code)
        for name, value in answer.headers.items():
            if name.lower() not in NOT_PASSED_ON:
                self.send_header(name, value)
        if answer.status_code != 204:
            self.send_header("Content-Length", str(len(answer.content)))
        self.end_headers()
        self.wfile.write(answer.content)

    do_POST = do_GET

    def do_CONNECT(self) -> None:
        """Join both ends."""
        with socket.create_connection(("127.0.0.1", self._port_of(self.path))) as there:
            self.send_response_only(200)
            self.end_headers()
            back = threading.Thread(target=_pour, args=(there, self.connection), daemon=True)
            back.start()
            _pour(self.connection, there)
            back.join()
        self.close_connection = True

    def _port_of(self, place: str) -> int:
        self.owner.asked.append((place, self.headers.get("Proxy-Authorization", "")))
        return self.owner.places[place]


def _pour(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while piece := source.recv(65536):
            target.sendall(piece)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)
