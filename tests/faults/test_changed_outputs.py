"""Outputs that are added, removed or renamed while windows wait for them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults.oracle import files_in
from tests.faults.test_released_once import HALF
from tests.faults.ward import Changes, Ward, variant, wait_until
from tests.servers.tcp_proxy import TcpProxy

pytestmark = pytest.mark.influxdb

WITHOUT_API: Changes = {"OUTPUT_TO_API": "false"}


@pytest.fixture
def pending(ward: Ward) -> Iterator[tuple[Ward, TcpProxy]]:
    """A ward whose first ten windows wait for the API, which is down; the others have them."""
    with TcpProxy(int(ward.api.url.rpartition(":")[2])) as proxy:
        proxy.refuse()
        ward.settings["API_ENDPOINT"] = f"{proxy.url}/ecg"
        with ward.start(HALF) as service:
            wait_until(
                lambda: ward.points() == 10 * 192 and len(files_in(ward.csv)) == 10, "the others have all", service=service
            )
            assert service.stop() == 143
        assert len(ward.spooled()) == 10
        yield ward, proxy


def test_an_output_that_is_added_begins_with_the_next_release(ward: Ward) -> None:
    """Row 24: an output added: it gets what is released from then on, and nothing of before."""
    assert ward.run({**HALF, **WITHOUT_API})[0] == 0

    code, log = ward.run()

    assert code == 0, log
    expected, found = ward.undisturbed(), ward.holdings()
    assert (found.points, found.files) == (expected.points, expected.files)
    later = {payload for payload in expected.payloads if '"window_start": "2025-11-03T14:30:1' in payload}
    assert len(later) == 10
    assert dict(found.payloads) == dict.fromkeys(later, 1)


@variant
def test_an_output_that_is_added_while_windows_wait_for_another_gets_none_of_those(pending: tuple[Ward, TcpProxy]) -> None:
    """Row 24: an output added while windows are pending for another."""
    ward, proxy = pending
    proxy.listen()

    second = ward.folder / "second"
    code, log = ward.run({"CSV_OUTPUT_DIR": second})

    assert code == 0, log
    expected, found = ward.undisturbed(), ward.holdings()
    assert (found.points, found.payloads) == (expected.points, expected.payloads)
    assert found.files == {name: expected.files[name] for name in sorted(expected.files)[:10]}
    assert files_in(second) == {name: expected.files[name] for name in sorted(expected.files)[10:]}


def test_an_output_that_is_removed_while_windows_wait_for_it_is_refused_until_it_is_dropped(
    pending: tuple[Ward, TcpProxy],
) -> None:
    """Row 24: an output removed while windows are pending: 78, until a person drops it."""
    ward, _ = pending
    before = ward.holdings()

    code, log = ward.run(WITHOUT_API)
    assert (code, "drop-output api:" in log) == (78, True), log
    assert ward.holdings() == before
    name = log.partition("drop-output ")[2].split()[0]
    ward.state_command("drop-output", name)
    code, log = ward.run(WITHOUT_API)

    assert code == 0, log
    expected, found = ward.undisturbed(), ward.holdings()
    assert (found.points, found.files) == (expected.points, expected.files)
    assert not found.payloads
    assert ward.spooled() == []


def test_an_output_that_is_removed_with_nothing_waiting_and_comes_back_begins_anew(ward: Ward) -> None:
    """Row 24: an output removed when it has everything, and added again later."""
    assert ward.run(HALF)[0] == 0
    assert ward.run({"QUERY_END_TIME": "2025-11-03T14:30:15Z", **WITHOUT_API})[0] == 0

    code, log = ward.run()

    assert code == 0, log
    expected, found = ward.undisturbed(), ward.holdings()
    assert (found.points, found.files) == (expected.points, expected.files)
    missing = expected.payloads - found.payloads
    assert len(missing) == 5
    assert not found.payloads - expected.payloads


def test_an_output_that_is_renamed_while_windows_wait_for_it_is_another_one(pending: tuple[Ward, TcpProxy]) -> None:
    """Row 24: an output renamed, here by its address, while windows are pending: 78, until the old name is dropped or put back."""
    ward, proxy = pending

    code, log = ward.run({"API_ENDPOINT": ward.api.endpoint})
    assert (code, f"drop-output api:{proxy.url}/ecg" in log) == (78, True), log
    proxy.listen()
    code, log = ward.run()

    assert code == 0, log
    ward.assert_complete()
