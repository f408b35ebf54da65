"""A TCP proxy on the loopback interface: what a network does to a connection, whenever a test wants it to.

    with TcpProxy(server.port) as proxy:
        proxy.answers.become(Reset(after_bytes=1000), times=2)

passes everything on between clients and the server, but resets the connection a thousand bytes into an answer, twice. It knows nothing of
HTTP: an answer is what the server sends until the client speaks again, a request the other way round. Every fault can be set and lifted
while connections are open.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Self

#: How much is passed on at once, in bytes.
PIECE_BYTES = 65536

#: A thread that waits looks up this often whether it still should, in seconds.
POLL_S = 0.02

#: A throttled direction passes on what it may in so many steps a second.
STEPS_A_SECOND = 20


@dataclass(frozen=True, slots=True)
class Pass:
    """Pass everything on: no fault at all."""


@dataclass(frozen=True, slots=True)
class Delay:
    """Pass a message on, but only after so many seconds."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Throttle:
    """Pass on no more than so many bytes a second."""

    bytes_per_s: int


@dataclass(frozen=True, slots=True)
class Reset:
    """Reset both connections after so many bytes of a message; shorter messages pass."""

    after_bytes: int = 0


@dataclass(frozen=True, slots=True)
class End:
    """End the connection as if all had been said, after so many bytes of a message; shorter messages pass."""

    after_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Hang:
    """Pass on so many bytes of a message, then nothing more until another fault is set."""

    after_bytes: int = 0


@dataclass(frozen=True, slots=True)
class BlackHole:
    """Take everything and pass nothing on."""


Fault = Pass | Delay | Throttle | Reset | End | Hang | BlackHole


class Direction:
    """One direction, of all connections: what happens there to bytes."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._fault: Fault = Pass()
        self._times: int | None = None
        #: How many messages were reset, ended or hung up on so far.
        self.fired = 0

    @property
    def fault(self) -> Fault:
        """What happens now."""
        return self._fault

    def become(self, fault: Fault, *, times: int | None = None) -> None:
        """Do this to bytes from now on; a reset or an end only so many times, if told, and then pass everything on again."""
        with self._lock:
            self._fault, self._times = fault, times

    def fire(self, fault: Fault) -> bool:
        """Return whether a fault that was found due still is, and count it."""
        with self._lock:
            if fault != self._fault:
                return False
            self.fired += 1
            if self._times is not None:
                self._times -= 1
                if not self._times:
                    self._fault, self._times = Pass(), None
            return True


class TcpProxy:
    """Listens on a port of its own, the same for as long as it lives, and passes connections on to a port of this machine."""

    def __init__(self, server_port: int) -> None:
        self._server_port = server_port
        #: What clients send.
        self.requests = Direction()
        #: What the server sends.
        self.answers = Direction()
        #: How many connections were taken so far.
        self.connections = 0
        self._open: set[_Connection] = set()
        self._lock = threading.Lock()
        # Bound but not listening, this keeps the port ours while connections are refused.
        self._placeholder = _bound(0)
        self.port: int = self._placeholder.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._listener: socket.socket | None = None

    def __enter__(self) -> Self:
        self.listen()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.refuse()
        self._placeholder.close()

    def listen(self) -> None:
        """Take connections; nothing changes while it does."""
        if self._listener is None:
            self._listener = _bound(self.port)
            self._listener.listen(128)
            threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def refuse(self) -> None:
        """Take no connections any more, and reset those that are open."""
        listener, self._listener = self._listener, None
        if listener is not None:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        self.cut()

    def cut(self) -> None:
        """Reset every connection that is open now."""
        with self._lock:
            connections = list(self._open)
        for connection in connections:
            connection.reset()

    def pass_all(self) -> None:
        """Pass everything on from now on."""
        self.requests.become(Pass())
        self.answers.become(Pass())
        self.listen()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            self.connections += 1
            try:
                server = socket.create_connection(("127.0.0.1", self._server_port))
            except OSError:
                _reset(client)
                continue
            connection = _Connection(client, server, self.requests, self.answers)
            with self._lock:
                self._open = {one for one in self._open if not one.is_over} | {connection}
            # The test may have reset it already.
            with contextlib.suppress(OSError):
                connection.start()


class _Connection:
    """A client's connection and ours to the server, with a thread for each direction."""

    def __init__(self, client: socket.socket, server: socket.socket, requests: Direction, answers: Direction) -> None:
        self._client = client
        self._server = server
        self._requests = requests
        self._answers = answers
        self._speaker: Direction | None = None
        self._sent_bytes = 0
        self._pumps = 2
        self._lock = threading.Lock()
        self.is_over = False

    def start(self) -> None:
        for direction, source, target in (
            (self._requests, self._client, self._server),
            (self._answers, self._server, self._client),
        ):
            source.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self._pump, args=(direction, source, target), daemon=True).start()

    def reset(self) -> None:
        """Forget the connection, as a router does that lost its power."""
        self.is_over = True
        _reset(self._client)
        _reset(self._server)

    def _pump(self, direction: Direction, source: socket.socket, target: socket.socket) -> None:
        try:
            while piece := source.recv(PIECE_BYTES):
                if self._speaker is not direction:
                    self._speaker, self._sent_bytes = direction, 0
                if not self._pass_on(direction, piece, target):
                    return
            if not self.is_over:
                target.shutdown(socket.SHUT_WR)
        except OSError:
            self.reset()
        finally:
            self._let_go()

    def _let_go(self) -> None:
        """Close both connections when the second of two directions has ended."""
        with self._lock:
            self._pumps -= 1
            if not self._pumps:
                self.is_over = True
                self._client.close()
                self._server.close()

    def _pass_on(self, direction: Direction, piece: bytes, target: socket.socket) -> bool:
        """Do to a piece what its direction says; return whether the direction goes on."""
        rest = memoryview(piece)
        while len(rest) and not self.is_over:
            fault = direction.fault
            ready_bytes = self._ready_bytes(fault, len(rest), direction)
            target.sendall(rest[:ready_bytes])
            self._sent_bytes += ready_bytes
            rest = rest[ready_bytes:]
            if isinstance(fault, BlackHole):
                return True
            if isinstance(fault, Throttle):
                time.sleep(1 / STEPS_A_SECOND)
            elif len(rest) and not self._goes_on(direction, fault):
                return False
        return not self.is_over

    def _ready_bytes(self, fault: Fault, waiting_bytes: int, direction: Direction) -> int:
        """Return how much of a piece may be sent now."""
        if isinstance(fault, Delay) and not self._sent_bytes:
            self._wait_while(direction, fault, fault.seconds)
            return waiting_bytes
        if isinstance(fault, Throttle):
            return min(waiting_bytes, max(1, fault.bytes_per_s // STEPS_A_SECOND))
        if isinstance(fault, Reset | End | Hang):
            return min(waiting_bytes, max(0, fault.after_bytes - self._sent_bytes))
        return 0 if isinstance(fault, BlackHole) else waiting_bytes

    def _goes_on(self, direction: Direction, fault: Fault) -> bool:
        """Do what happens when a message is longer than a fault lets through."""
        if not direction.fire(fault):
            return True
        if isinstance(fault, Hang):
            self._wait_while(direction, fault, None)
            return True
        # What was sent must have arrived, or the reset would overtake it.
        time.sleep(POLL_S)
        if isinstance(fault, End):
            self.is_over = True
            _reset(self._server)
            with contextlib.suppress(OSError):
                self._client.shutdown(socket.SHUT_WR)
        else:
            self.reset()
        return False

    def _wait_while(self, direction: Direction, fault: Fault, seconds: float | None) -> None:
        deadline_s = None if seconds is None else time.monotonic() + seconds
        while direction.fault == fault and not self.is_over and (deadline_s is None or time.monotonic() < deadline_s):
            time.sleep(POLL_S)


def _bound(port: int) -> socket.socket:
    bound = socket.socket()
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    bound.bind(("127.0.0.1", port))
    return bound


def _reset(connection: socket.socket) -> None:
    # Closed with linger 0, a connection is reset; the shutdown wakes a thread that waits on it.
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RD)
    connection.close()
