"""What an API may answer besides yes, as seen from outside: waited for, set aside, or put right; never two copies of a row."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.faults.oracle import Holdings
from tests.faults.ward import Ward
from tests.servers.api_server import Reply
from tests.servers.http_proxy import HttpProxy

pytestmark = pytest.mark.influxdb


@pytest.fixture
def path(ward: Ward) -> Iterator[HttpProxy]:
    with HttpProxy(ward.api.url) as proxy:
        ward.settings["API_ENDPOINT"] = f"{proxy.url}/ecg"
        yield proxy


def windows_of(held: Holdings) -> list[str]:
    return sorted(json.loads(payload)["window_start"] for payload in held.payloads)


def test_an_api_that_is_still_busy_with_the_same_key_is_waited_for(ward: Ward, path: HttpProxy) -> None:
    """Row 18: 409: the first try is still being worked on over there."""
    path.answer(None, Reply(status=409, store=True), None, Reply(status=409))

    code, log = ward.run()

    assert code == 0, log
    keys = [delivery.key for delivery in ward.api.deliveries()]
    assert len(keys) == len(set(keys)) + 1, "the one that was stored behind a 409 came again, under its own key"
    ward.assert_complete()


@pytest.mark.parametrize("status", [400, 422])
def test_a_window_that_an_api_refuses_is_set_aside_and_the_others_go_on(ward: Ward, path: HttpProxy, status: int) -> None:
    """Row 18: 400 and 422: that window alone is set aside; 65 at the end; a person may offer it again."""
    path.answer(None, None, Reply(status=status))

    code, log = ward.run()

    assert (code, "set aside" in log) == (65, True), log
    expected, found = ward.undisturbed(), ward.holdings()
    assert (found.points, found.files) == (expected.points, expected.files)
    missing = set(windows_of(expected)) - set(windows_of(found))
    assert missing == {windows_of(expected)[2]}
    assert "took 192 rows" in ward.state_command("retry-set-aside")
    ward.assert_complete()


def test_a_redirect_is_not_followed(ward: Ward, path: HttpProxy) -> None:
    """Row 18: 3xx: data goes where the configuration says and nowhere else; 78 at the start of a run."""
    path.answer_always(Reply(status=307, headers={"Location": ward.api.endpoint}))

    code, log = ward.run()
    assert (code, "redirect" in log) == (78, True), log
    assert ward.api.deliveries() == []
    path.pass_all()

    assert ward.run()[0] == 0
    ward.assert_complete()


def test_a_success_with_an_error_in_its_body_is_not_one_and_what_was_stored_is_stored_once(ward: Ward, path: HttpProxy) -> None:
    """Row 18: 200 with an error body: waited for; sent again under the same key, since the API may have stored it all the same."""
    path.answer(
        None, Reply(status=200, store=True, body='{"error":"really?"}'), None, Reply(status=200, body='{"success":false}')
    )

    code, log = ward.run()

    assert code == 0, log
    keys = [delivery.key for delivery in ward.api.deliveries()]
    assert (len(keys), len(set(keys))) == (21, 20)
    ward.assert_complete()
