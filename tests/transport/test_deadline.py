"""A limit holds for the whole of a request, whatever the library below would wait for, and for no other request."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
import urllib3

from tests.servers.socket_server import Pause, Serve, http_answer
from tests.transport.slow_server import MORE_THAN_BUFFERS_HOLD, slow_reader
from transport.deadline import keep_limits, whole_request_within
from transport.never_sent import was_never_sent

LIMIT_S = 0.5

#: The library's own limit: far longer.
LIBRARY_LIMIT = urllib3.Timeout(30)


@pytest.fixture
def pool() -> Iterator[urllib3.PoolManager]:
    """Connections that keep limits."""
    with urllib3.PoolManager(retries=False, timeout=LIBRARY_LIMIT) as manager:
        keep_limits(manager)
        yield manager


@pytest.mark.parametrize("is_used_again", [False, True], ids=["new connection", "connection that is used again"])
def test_a_body_that_is_taken_byte_by_byte(is_used_again: bool, pool: urllib3.PoolManager) -> None:
    with slow_reader(after_an_answer=is_used_again) as url:
        if is_used_again:
            pool.request("GET", url)
        started_s = time.monotonic()

        with pytest.raises(urllib3.exceptions.HTTPError), whole_request_within(LIMIT_S):
            pool.request("POST", url, body=b"x" * MORE_THAN_BUFFERS_HOLD)

        assert time.monotonic() - started_s < 20


@pytest.mark.parametrize("sent_at_once", [0, 20, 60], ids=["head", "within the head", "body"])
def test_an_answer_that_comes_byte_by_byte(sent_at_once: int, pool: urllib3.PoolManager, serve: Serve) -> None:
    whole = http_answer("200 OK", b"x" * 500)
    drip = [step for byte in whole[sent_at_once:] for step in (bytes([byte]), Pause(0.1))]
    url = serve([whole[:sent_at_once], *drip]).url
    started_s = time.monotonic()

    with pytest.raises(urllib3.exceptions.HTTPError), whole_request_within(LIMIT_S):
        pool.request("GET", url)

    assert time.monotonic() - started_s < 20


def test_time_that_was_spent_on_one_part_is_not_there_for_the_next(pool: urllib3.PoolManager, serve: Serve) -> None:
    step = [Pause(0.4), http_answer("200 OK", b"xxx")[:-3], Pause(0.4), b"x", Pause(0.4), b"xx"]
    url = serve(step).url

    with whole_request_within(5.0):
        assert pool.request("GET", url).data == b"xxx"
    with pytest.raises(urllib3.exceptions.HTTPError), whole_request_within(1.0):
        pool.request("GET", url)


def test_a_limit_ends_with_its_request(pool: urllib3.PoolManager, serve: Serve) -> None:
    url = serve([http_answer("200 OK")]).url
    with whole_request_within(1.0):
        pool.request("GET", url)
    with pytest.raises(ZeroDivisionError), whole_request_within(0.2):
        raise ZeroDivisionError
    time.sleep(1.1)

    assert pool.request("GET", url).status == 200


def test_a_limit_is_that_of_one_thread(pool: urllib3.PoolManager, serve: Serve) -> None:
    url = serve([Pause(0.4), http_answer("200 OK")]).url
    statuses: list[int] = []
    thread = threading.Thread(target=lambda: statuses.append(pool.request("GET", url).status))

    with whole_request_within(0.1):
        thread.start()
        thread.join(10)

    assert statuses == [200]


def test_a_request_was_never_sent_if_there_was_no_connection(pool: urllib3.PoolManager, serve: Serve) -> None:
    failures = {}
    for name, url in {
        "refused": "http://127.0.0.1:1",
        "no such host": "http://no-such-host.invalid",
        "closed": serve([]).url,
        "cut": serve([b"HTTP/1.1 20"]).url,
        "silent": serve([Pause(10)]).url,
    }.items():
        # As a library above urllib3 gives it.
        try:
            with whole_request_within(LIMIT_S):
                pool.request("GET", url, retries=0)
        except urllib3.exceptions.HTTPError as error:
            failures[name] = was_never_sent(ConnectionError(error))

    assert failures == {"refused": True, "no such host": True, "closed": False, "cut": False, "silent": False}
