"""A server that takes a request as slowly as it likes: a few bytes, a pause, a few bytes."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

#: How long a test waits for it, in seconds.
TIMEOUT_S = 30.0

#: Requests of this size do not fit into what the system keeps between two sockets of one machine.
MORE_THAN_BUFFERS_HOLD = 16 << 20

#: Ten bytes a second.
_BYTES, _PAUSE_S = 1, 0.1


@contextlib.contextmanager
def slow_reader(*, after_an_answer: bool = False) -> Iterator[str]:
    """Yield the address of a server that takes ten bytes a second and never answers.

    Args:
        after_an_answer: Whether it begins to be slow with the second request of its connection.
    """
    over = threading.Event()
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with contextlib.suppress(OSError):
            connection, _ = listener.accept()
            with connection:
                if after_an_answer:
                    connection.recv(65_536)
                    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                while not over.wait(_PAUSE_S) and connection.recv(_BYTES):
                    pass

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        over.set()
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(TIMEOUT_S)
