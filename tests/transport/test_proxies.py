"""Which proxy leads to a server: one rule for all, and none to this machine."""

from __future__ import annotations

import pytest

from transport.proxies import UnusableProxy, credentials_of, proxy_for

P, Q, R = "http://p:1", "http://q:2", "http://r:3"


@pytest.mark.parametrize(
    ("url", "environment", "expected"),
    [
        ("http://db:8086", {}, ""),
        ("http://db:8086", {"HTTP_PROXY": P}, P),
        ("http://db:8086", {"http_proxy": P, "HTTP_PROXY": Q}, P),
        ("http://db:8086", {"HTTPS_PROXY": Q}, ""),
        ("https://db:8086", {"HTTP_PROXY": P, "HTTPS_PROXY": Q}, Q),
        ("https://db:8086", {"HTTP_PROXY": P, "ALL_PROXY": R}, R),
        ("http://db:8086", {"HTTP_PROXY": "p:1"}, P),
        ("http://db:8086", {"HTTP_PROXY": " "}, ""),
        *(
            (f"http://{host}:8086", {"ALL_PROXY": P}, "")
            for host in ("localhost", "LOCALHOST", "127.0.0.1", "127.9.9.9", "[::1]")
        ),
        ("http://db.ward.example:8086", {"HTTP_PROXY": P, "NO_PROXY": "x, ward.example"}, ""),
        ("http://db.ward.example:8086", {"HTTP_PROXY": P, "no_proxy": ".WARD.example"}, ""),
        ("http://db.ward.example:8086", {"HTTP_PROXY": P, "NO_PROXY": "*.ward.example"}, ""),
        ("http://dbward.example:8086", {"HTTP_PROXY": P, "NO_PROXY": "ward.example"}, P),
        ("http://db:8086", {"HTTP_PROXY": P, "NO_PROXY": "db:8086"}, ""),
        ("http://db:8086", {"HTTP_PROXY": P, "NO_PROXY": "db:80"}, P),
        ("http://db:8086", {"HTTP_PROXY": P, "NO_PROXY": "*"}, ""),
        ("http://10.1.2.3:8086", {"HTTP_PROXY": P, "NO_PROXY": "10.0.0.0/8"}, ""),
        ("http://11.1.2.3:8086", {"HTTP_PROXY": P, "NO_PROXY": "10.0.0.0/8"}, P),
        ("http://[fd00::7]:8086", {"HTTP_PROXY": P, "NO_PROXY": "fd00::/8"}, ""),
        ("http://[fd00::7]:8086", {"HTTP_PROXY": P, "NO_PROXY": "[fd00::7]:8086"}, ""),
    ],
)
def test_one_rule_says_which_proxy_leads_to_a_server(url: str, environment: dict[str, str], expected: str) -> None:
    assert proxy_for(url, environment) == expected


@pytest.mark.parametrize("proxy", ["socks5://u:S3CRET@p:1080", "http://", "http://p:none", "ftp://p"])
def test_a_proxy_that_cannot_be_used_is_said_by_its_variable_and_not_shown(proxy: str) -> None:
    with pytest.raises(UnusableProxy, match="ALL_PROXY must be") as unusable:
        proxy_for("http://db:8086", {"ALL_PROXY": proxy})
    assert "S3CRET" not in str(unusable.value)
    assert proxy_for("http://localhost:8086", {"ALL_PROXY": proxy}) == ""


def test_name_and_password_are_parted_from_an_address() -> None:
    assert credentials_of("http://me:p%40ss@proxy:3128/") == ("http://proxy:3128/", "me:p@ss")
    assert credentials_of("http://proxy:3128") == ("http://proxy:3128", "")
    assert credentials_of("") == ("", "")
