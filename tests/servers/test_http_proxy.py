"""The HTTP proxy passes on what it is not told to change, and keeps what was asked."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import requests

from tests.servers.api_server import ApiServer, Reply
from tests.servers.http_proxy import HttpProxy


@pytest.fixture
def proxy(api_server: ApiServer) -> Iterator[HttpProxy]:
    with HttpProxy(api_server.url) as one:
        yield one


def post(proxy: HttpProxy, body: bytes = b"1", path: str = "/ecg") -> requests.Response:
    return requests.post(proxy.url + path, data=body, headers={"Idempotency-Key": body.decode()}, timeout=10)


def test_a_request_and_its_answer_pass_unchanged(proxy: HttpProxy, api_server: ApiServer) -> None:
    answer = post(proxy, b"17")

    assert (answer.status_code, answer.text) == (201, '{"ok":true}')
    (delivery,) = api_server.deliveries()
    assert (delivery.body, delivery.key, delivery.path) == (b"17", "17", "/ecg")


def test_a_scripted_answer_is_given_once_to_the_path_it_was_meant_for_and_the_server_is_not_asked(
    proxy: HttpProxy, api_server: ApiServer
) -> None:
    proxy.answer(Reply(status=503, headers={"Retry-After": "2"}, body="no"), to="/ecg")

    other, first, second = post(proxy, path="/other"), post(proxy), post(proxy)

    assert [answer.status_code for answer in (other, first, second)] == [201, 503, 200]
    assert (first.headers["Retry-After"], first.text) == ("2", "no")
    assert len(api_server.deliveries()) == 2


def test_an_answer_can_be_lost_though_the_server_was_asked(proxy: HttpProxy, api_server: ApiServer) -> None:
    proxy.answer(Reply(drop=True, store=True))

    with pytest.raises(requests.ConnectionError):
        post(proxy)

    assert api_server.stored() == [1]


def test_a_standing_answer_is_given_until_everything_passes_again(proxy: HttpProxy) -> None:
    proxy.answer_always(Reply(status=502))
    assert [post(proxy).status_code for _ in range(3)] == [502, 502, 502]

    proxy.pass_all()

    assert post(proxy).status_code == 201


def test_a_rule_judges_by_the_body_and_spares_what_a_script_lets_through(proxy: HttpProxy) -> None:
    proxy.answer_by(lambda path, body: Reply(status=400) if body == b"13" else None)
    proxy.answer(None)

    assert [post(proxy, body).status_code for body in (b"13", b"13", b"14")] == [201, 400, 201]


def test_an_answer_is_changed_on_its_way(proxy: HttpProxy) -> None:
    proxy.edit(lambda path, body, answer: answer + path.encode() + body)

    assert post(proxy).text == '{"ok":true}/ecg1'


def test_what_was_asked_can_be_counted_and_timed(proxy: HttpProxy) -> None:
    proxy.answer(Reply(status=500))
    post(proxy, b"1")
    post(proxy, b"2")

    first, second = proxy.asked("/ecg")

    assert (first.method, first.body, first.status) == ("POST", b"1", 500)
    assert (second.body, second.status) == (b"2", 201)
    assert first.at_s <= second.at_s
    assert proxy.asked("/other") == []
