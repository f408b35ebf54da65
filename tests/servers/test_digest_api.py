"""The API that keeps digests only counts what came twice, and what came with another body."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
import requests

from tests.servers.digest_api import DigestApi

BODY = b'{"records":[{"timestamp":"a"},{"timestamp":"b"}]}'


@pytest.fixture
def api() -> Iterator[DigestApi]:
    with DigestApi() as one:
        yield one


def post(api: DigestApi, body: bytes, key: str) -> int:
    return requests.post(api.endpoint, data=body, headers={"Idempotency-Key": key}, timeout=10).status_code


def test_a_key_is_kept_once_and_counted_when_it_comes_again(api: DigestApi) -> None:
    assert [post(api, BODY, "one"), post(api, BODY, "one"), post(api, BODY, "two")] == [201, 200, 201]

    assert [kept.rows for kept in api.kept().values()] == [2, 2]
    assert (api.repeated, api.conflicting_rows) == (1, 0)


def test_another_body_under_a_known_key_is_refused_and_its_rows_are_counted(api: DigestApi) -> None:
    assert [post(api, BODY, "one"), post(api, BODY + b" ", "one")] == [201, 422]

    assert api.conflicting_rows == 2


def test_an_incomplete_body_is_rejected(api: DigestApi) -> None:
    with socket.create_connection(("127.0.0.1", api.port), timeout=10) as client:
        client.sendall(b"POST /ecg HTTP/1.1\r\nHost: here\r\nIdempotency-Key: one\r\nContent-Length: 100\r\n\r\n" + BODY)
        client.shutdown(socket.SHUT_WR)
        assert client.recv(1) == b""

    assert api.kept() == {}
