"""What is shown of an address holds no key, no password and nothing that could be one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transport.addresses import canonical_address, is_this_machine, may_hold_credentials, shown_address


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("http://host/x", "http://host/x"),
        ("http://host:5000/x?code=S#f", "http://host:5000/x"),
        ("http://host/x#S", "http://host/x"),
        ("http://host/@me/data", "http://host/@me/data"),
        ("http://host/a?mail=b@c", "http://host/a"),
        ("https://host:1/x?mail=a@b", "https://host:1/x"),
        ("http://[::1]:8086/x", "http://[::1]:8086/x"),
        ("host:3128", "host:3128"),
        ("host?token=S", "host"),
    ],
)
def test_an_address_is_shown_without_what_follows_its_question_mark(address: str, shown: str) -> None:
    assert shown_address(address) == shown
    assert not may_hold_credentials(address)


@pytest.mark.parametrize("credentials", ["S", "u:S", "u:S@S", "u:S:S", ":S", "u:12/S", "u:S/S/S", "u:12?S", "u:12#S", "u%40h:S"])
@pytest.mark.parametrize("scheme", ["http://", "https://", ""])
def test_a_password_is_found_and_not_shown_whatever_stands_in_it(scheme: str, credentials: str) -> None:
    address = f"{scheme}{credentials}@host:8086/x"

    assert may_hold_credentials(address)
    assert "S" not in shown_address(address)
    assert shown_address(address).startswith(f"{scheme}host") or shown_address(address) == f"{scheme}…"


@given(st.text("ab:/@?#.[]1", max_size=12))
def test_nothing_between_a_colon_and_an_at_sign_is_ever_shown(password: str) -> None:
    assert "SECRET" not in shown_address(f"http://u:{password}SECRET@host/x")
    assert "SECRET" not in shown_address(f"http://host/{password}?SECRET")


def test_loopback_is_this_machine_and_other_hosts_are_not() -> None:
    here = ["localhost", "LOCALHOST.", "127.0.0.1", "127.8.9.10", "[::1]", "[::ffff:127.0.0.1]", "db.localhost"]
    elsewhere = ["influxdb", "10.0.0.7", "localhost.example.org", "127.0.0.1.example.org", "[fe80::1]"]

    assert [host for host in here + elsewhere if is_this_machine(f"http://{host}:8086/x")] == here


@pytest.mark.parametrize(
    ("address", "canonical"),
    [
        ("http://Sink.Example:80/Api/Data/", "http://sink.example/Api/Data"),
        ("HTTPS://sink:443", "https://sink"),
        ("https://sink:80/", "https://sink:80"),
        ("http://[::1]:80/x", "http://[::1]/x"),
        ("http://[FE80::80]:8086//bucket", "http://[fe80::80]:8086/bucket"),
        ("http://sink:8080/a//b", "http://sink:8080/a//b"),
        ("x", "x"),
        ("", ""),
    ],
)
def test_an_address_has_one_form_for_all_its_spellings(address: str, canonical: str) -> None:
    assert canonical_address(address) == canonical
    assert canonical_address(canonical) == canonical
