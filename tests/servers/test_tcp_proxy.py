"""The proxy does to a connection what it was told to, no more, and lets go of it again."""

from __future__ import annotations

import contextlib
import socket
import socketserver
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from tests.servers.tcp_proxy import BlackHole, Delay, End, Fault, Hang, Pass, Reset, TcpProxy, Throttle

#: How long a test waits for something that comes, and for something that must not, in seconds.
TIMEOUT_S, MOMENT_S = 60.0, 0.2


class Talker(socketserver.StreamRequestHandler):
    """Answers each line, a number, with so many bytes and a line end; notes the lines."""

    heard: list[bytes]

    def handle(self) -> None:
        with contextlib.suppress(ConnectionError):
            for line in self.rfile:
                self.heard.append(line)
                self.wfile.write(b"x" * int(line) + b"\n")


@pytest.fixture
def heard() -> list[bytes]:
    return []


@pytest.fixture
def proxy(heard: list[bytes]) -> Iterator[TcpProxy]:
    handler = type("Handler", (Talker,), {"heard": heard})
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        with TcpProxy(server.server_address[1]) as one:
            yield one
        server.shutdown()


class Client:
    def __init__(self, proxy: TcpProxy) -> None:
        self.socket = socket.create_connection(("127.0.0.1", proxy.port))
        self.socket.settimeout(TIMEOUT_S)

    def say(self, count: int) -> None:
        self.socket.sendall(b"%d\n" % count)

    def hear(self, *, at_least: int = 1) -> bytes:
        """Return what comes until there is a line end, so many bytes, or the end."""
        heard = b""
        while not heard.endswith(b"\n") and len(heard) < at_least:
            piece = self.socket.recv(65536)
            if not piece:
                break
            heard += piece
        return heard

    def hears_nothing(self) -> bool:
        self.socket.settimeout(MOMENT_S)
        try:
            return not self.socket.recv(1)
        except TimeoutError:
            return True
        finally:
            self.socket.settimeout(TIMEOUT_S)


Connect = Callable[[TcpProxy], Client]


@pytest.fixture
def connect() -> Iterator[Connect]:
    """What makes clients, all closed at the end."""
    with contextlib.ExitStack() as stack:

        def connect(proxy: TcpProxy) -> Client:
            client = Client(proxy)
            stack.enter_context(client.socket)
            return client

        yield connect


@pytest.fixture
def client(proxy: TcpProxy, connect: Connect) -> Client:
    return connect(proxy)


def ask(client: Client, count: int) -> int:
    client.say(count)
    return len(client.hear(at_least=count + 1)) - 1


def test_without_a_fault_everything_passes_both_ways(proxy: TcpProxy, client: Client, heard: list[bytes]) -> None:
    assert [ask(client, count) for count in (3, 0, 1_000_000)] == [3, 0, 1_000_000]
    assert heard == [b"3\n", b"0\n", b"1000000\n"]
    assert proxy.connections == 1


def test_an_end_that_the_client_makes_reaches_the_server_and_comes_back(client: Client) -> None:
    client.socket.shutdown(socket.SHUT_WR)

    assert client.hear() == b""


def test_a_reset_comes_inside_an_answer_that_is_long_enough_and_spares_shorter_ones(proxy: TcpProxy, client: Client) -> None:
    proxy.answers.become(Reset(after_bytes=100))
    assert [ask(client, 99), ask(client, 99)] == [99, 99]

    client.say(100)
    heard = client.socket.recv(65536)

    assert heard == b"x" * 100
    with pytest.raises(ConnectionResetError):
        client.socket.recv(1)
    assert proxy.answers.fired == 1


@pytest.mark.parametrize(("direction", "reaches_the_server"), [("answers", [b"5\n"]), ("requests", [])])
def test_an_answer_is_lost_after_the_server_heard_the_request_and_a_request_before(
    proxy: TcpProxy, client: Client, heard: list[bytes], direction: str, reaches_the_server: list[bytes]
) -> None:
    getattr(proxy, direction).become(Reset())

    client.say(5)

    with pytest.raises(ConnectionResetError):
        client.socket.recv(1)
    assert heard == reaches_the_server


def test_an_early_end_looks_like_a_proper_one(proxy: TcpProxy, client: Client) -> None:
    proxy.answers.become(End(after_bytes=10))

    client.say(1000)

    assert client.hear(at_least=1001) == b"x" * 10


def test_a_fault_that_was_ordered_twice_happens_twice(proxy: TcpProxy, connect: Connect) -> None:
    proxy.answers.become(Reset(), times=2)

    for _ in range(2):
        client = connect(proxy)
        client.say(1)
        with pytest.raises(ConnectionResetError):
            client.socket.recv(1)

    assert ask(connect(proxy), 1) == 1
    assert proxy.answers.fired == 2


@pytest.mark.parametrize("fault", [Hang(), BlackHole()])
@pytest.mark.parametrize("direction", ["requests", "answers"])
def test_nothing_comes_of_a_connection_that_hangs(proxy: TcpProxy, client: Client, direction: str, fault: Fault) -> None:
    getattr(proxy, direction).become(fault)

    client.say(5)

    assert client.hears_nothing()


def test_an_answer_that_hangs_goes_on_when_the_fault_is_lifted_but_a_black_hole_swallows_it(
    proxy: TcpProxy, client: Client
) -> None:
    proxy.answers.become(Hang(after_bytes=2))
    client.say(5)
    assert client.hear(at_least=2) == b"xx"
    assert client.hears_nothing()
    proxy.answers.become(Pass())
    assert client.hear() == b"xxx\n"

    proxy.answers.become(BlackHole())
    client.say(5)
    assert client.hears_nothing()
    proxy.answers.become(Pass())
    assert client.hears_nothing()
    assert ask(client, 3) == 3


@pytest.mark.parametrize(("fault", "count", "least_s"), [(Delay(0.4), 200_000, 0.4), (Throttle(bytes_per_s=1000), 499, 0.4)])
def test_a_delayed_or_throttled_answer_comes_whole_and_takes_its_time(
    proxy: TcpProxy, client: Client, fault: Fault, count: int, least_s: float
) -> None:
    proxy.answers.become(fault)
    began_s = time.monotonic()

    assert ask(client, count) == count
    assert time.monotonic() - began_s >= least_s


def test_a_cut_resets_open_connections_and_a_refusal_new_ones_too_until_the_same_port_listens_again(
    proxy: TcpProxy, client: Client, connect: Connect
) -> None:
    assert ask(client, 1) == 1
    proxy.cut()
    with pytest.raises(ConnectionResetError):
        client.socket.recv(1)

    port, second = proxy.port, connect(proxy)
    assert ask(second, 2) == 2
    proxy.refuse()
    with pytest.raises(ConnectionResetError):
        second.socket.recv(1)
    with pytest.raises(ConnectionRefusedError):
        connect(proxy)
    proxy.listen()

    assert ask(connect(proxy), 2) == 2
    assert proxy.port == port


def test_a_server_that_is_down_looks_like_a_reset(connect: Connect) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with TcpProxy(unused.getsockname()[1]) as to_nowhere, pytest.raises(ConnectionResetError):
            connect(to_nowhere).socket.recv(1)


def test_every_fault_can_be_lifted_at_once(proxy: TcpProxy, connect: Connect) -> None:
    proxy.answers.become(Hang())
    proxy.requests.become(Reset())
    proxy.refuse()

    proxy.pass_all()

    assert ask(connect(proxy), 1) == 1
