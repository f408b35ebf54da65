"""A server that sends exactly the bytes a test wrote down: for answers that no real server gives."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

#: How long the server waits for a request, and a test for the server, in seconds.
TIMEOUT_S = 30.0


#: How a client begins to speak TLS. It is hung up on, as by servers that do not, or it would wait for an answer.
TLS_HANDSHAKE = b"\x16"


class Reset:
    """Reset the connection."""


@dataclass(frozen=True, slots=True)
class Pause:
    """Send nothing for so long, in seconds; cut short when the test is over."""

    seconds: float


#: What happens on one connection after a request arrived: bytes to send and events in between. Then the connection is closed.
Answer = Sequence[bytes | Reset | Pause]


class SocketServer:
    """Answers the n-th connection with the n-th answer, and all later ones with the last."""

    def __init__(self, *answers: Answer) -> None:
        self._answers = list(answers)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(TIMEOUT_S)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self.requests: list[bytes] = []
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def stop(self) -> None:
        """Stop answering."""
        self._over.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(TIMEOUT_S)

    def _serve(self) -> None:
        while not self._over.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
            with connection, contextlib.suppress(OSError):
                self._answer(connection, answer)

    def _answer(self, connection: socket.socket, answer: Answer) -> None:
        connection.settimeout(TIMEOUT_S)
        request = _request(connection)
        if request.startswith(TLS_HANDSHAKE):
            return
        self.requests.append(request)
        for step in answer:
            if isinstance(step, bytes):
                connection.sendall(step)
            elif isinstance(step, Pause):
                self._over.wait(step.seconds)
            else:
                # What was sent must have arrived, or the reset would overtake it.
                time.sleep(0.05)
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                return


def _request(connection: socket.socket) -> bytes:
    """Return one whole request: head and as much body as its head says."""
    received = b""
    while b"\r\n\r\n" not in received:
        piece = connection.recv(65536)
        if not piece or piece.startswith(TLS_HANDSHAKE):
            return received + piece
        received += piece
    head, _, body = received.partition(b"\r\n\r\n")
    lengths = [line.split(b":")[1] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    while len(body) < int(lengths[0] if lengths else 0):
        body += connection.recv(65536)
    return head + b"\r\n\r\n" + body


Serve = Callable[..., SocketServer]


@contextlib.contextmanager
def socket_servers() -> Iterator[Serve]:
    """Yield what starts a server with the given answers; all are stopped at the end."""
    servers: list[SocketServer] = []

    def serve(*answers: Answer) -> SocketServer:
        servers.append(SocketServer(*answers))
        servers[-1].start()
        return servers[-1]

    try:
        yield serve
    finally:
        for server in servers:
            server.stop()


def http_answer(status: str, body: bytes = b"", *headers: str, length: int | None = None) -> bytes:
    """Return an HTTP/1.1 answer with a Content-Length: the body's, or another to lie with."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body) if length is None else length}", "Connection: close", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def chunk(data: bytes) -> bytes:
    """Return one chunk of a body sent with `Transfer-Encoding: chunked`; an empty one ends the body."""
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"
