"""A proxy that answers 413 to requests over a limit, without reading them, as web servers in front of a database do."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import requests


class LimitingProxy(ThreadingHTTPServer):
    """Passes requests on to a server, up to a size.

    Args:
        server_url: The server.
        most_bytes: The longest body that is passed on.
    """

    daemon_threads = True

    def __init__(self, server_url: str, most_bytes: int) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.server_url = server_url
        self.most_bytes = most_bytes
        self.sizes: list[int] = []
        self.url = f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: LimitingProxy

    def do_POST(self) -> None:
        size = int(self.headers["Content-Length"])
        self.server.sizes.append(size)
        if size > self.server.most_bytes:
            self.send_response(413)
            self.send_header("Connection", "close")
            self.end_headers()
            self.close_connection = True
            return
        headers = {name: value for name, value in self.headers.items() if name != "Host"}
        answer = requests.post(self.server.server_url + self.path, data=self.rfile.read(size), headers=headers, timeout=30)
        self.send_response(answer.status_code)
        self.send_header("Content-Length", str(len(answer.content)))
        self.end_headers()
        self.wfile.write(answer.content)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@contextlib.contextmanager
def limiting_proxy(server_url: str, most_bytes: int) -> Iterator[LimitingProxy]:
    """Yield a proxy that is ended afterwards."""
    with LimitingProxy(server_url, most_bytes) as proxy:
        thread = threading.Thread(target=proxy.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield proxy
        finally:
            proxy.shutdown()
            thread.join()
