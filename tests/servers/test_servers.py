"""The servers that other tests rely on do what they say."""

from __future__ import annotations

import socket
import subprocess
import sys
from urllib.parse import urlsplit

import pytest
import requests

from tests.servers.api_server import PROJECT, ApiServer, Reply
from tests.servers.socket_server import Reset, Serve, http_answer


def post(server: ApiServer, body: bytes, key: str = "") -> int:
    return requests.post(server.endpoint, data=body, headers={"Idempotency-Key": key} if key else {}, timeout=10).status_code


def test_a_delivery_is_stored_once_for_each_key_and_a_key_with_another_body_is_refused(api_server: ApiServer) -> None:
    deliveries = [(b"1", "a"), (b"1", "a"), (b"1", "b"), (b"2", "a"), (b"3", ""), (b"3", "")]

    assert [post(api_server, body, key) for body, key in deliveries] == [201, 200, 201, 422, 201, 201]
    assert api_server.stored() == [1, 1, 3, 3]
    assert [delivery.key for delivery in api_server.deliveries()] == ["a", "a", "b", "a", "", ""]


def test_scripted_replies_come_in_order_and_then_the_usual_ones(api_server: ApiServer) -> None:
    api_server.script(Reply(status=503), Reply(status=500, store=True))

    assert [post(api_server, b"1", "a") for _ in range(3)] == [503, 500, 200]
    assert api_server.stored() == [1]


def test_a_dropped_connection_has_no_answer_and_a_body_over_the_limit_is_refused(api_server: ApiServer) -> None:
    api_server.script(Reply(drop=True, store=True))
    with pytest.raises(requests.ConnectionError):
        post(api_server, b"1", "a")
    assert api_server.stored() == [1]

    api_server.limit(3)
    assert [post(api_server, b"123"), post(api_server, b"1234")] == [201, 413]


def test_it_runs_from_the_command_line_and_ends_with_its_parent() -> None:
    command = [sys.executable, "-m", "tests.servers.api_server", "--port", "0", "--until-stdin-ends"]
    with subprocess.Popen(command, cwd=PROJECT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith(b"listening on http://127.0.0.1:")

        process.communicate()

    assert process.returncode == 0


def test_the_socket_server_gives_each_connection_its_answer_and_notes_what_was_asked(serve: Serve) -> None:
    server = serve([http_answer("200 OK", b"one")], [Reset()], [http_answer("200 OK", b"last")])

    first = requests.post(server.url, data=b"question", timeout=10)
    with pytest.raises(requests.ConnectionError):
        requests.get(server.url, timeout=10)

    assert [first.text, *(requests.get(server.url, timeout=10).text for _ in range(2))] == ["one", "last", "last"]
    assert len(server.requests) == 4
    assert server.requests[0].endswith(b"\r\n\r\nquestion")


def test_a_request_that_did_not_come_whole_is_not_stored(api_server: ApiServer) -> None:
    address = urlsplit(api_server.endpoint)
    assert address.hostname
    with socket.create_connection((address.hostname, address.port or 80)) as connection:
        connection.sendall(b"POST /ecg HTTP/1.1\r\nHost: x\r\nIdempotency-Key: k\r\nContent-Length: 100\r\n\r\nhalf of i")
    requests.post(api_server.endpoint, data=b"{}", headers={"Idempotency-Key": "k"}, timeout=10)

    assert api_server.stored() == [{}]
