"""Chooses the proxy for a server from the environment variables that curl and Python use. One rule for every server.

`HTTP_PROXY`, `HTTPS_PROXY` and `ALL_PROXY` name a proxy by the scheme of the server's address; `NO_PROXY` lists hosts that need none.
The lower-case form of a variable takes precedence. The loopback is never reached through a proxy.
"""

from __future__ import annotations

import ipaddress
import urllib.parse
from collections.abc import Iterator, Mapping

from transport.addresses import is_this_machine

#: Supported proxy schemes; SOCKS is not supported.
_SCHEMES = ("http", "https")


class UnusableProxy(ValueError):
    """A variable names a proxy that cannot be used. The message never holds its value, which may contain a password."""


def proxy_for(url: str, environment: Mapping[str, str]) -> str:
    """Return the proxy's address for a server; empty if it needs none.

    Raises:
        UnusableProxy: The variable that applies to this server is invalid.
    """
    parts = urllib.parse.urlsplit(url)
    host = (parts.hostname or "").lower()
    if is_this_machine(url) or _is_exempt(host, parts.port, _value(environment, "no_proxy")):
        return ""
    for name in (f"{parts.scheme.lower()}_proxy", "all_proxy"):
        if proxy := _value(environment, name):
            return _checked(proxy, name)
    return ""


def are_proxies_named(environment: Mapping[str, str]) -> bool:
    """Return whether any variable names a proxy."""
    return any(_value(environment, name) for name in ("http_proxy", "https_proxy", "all_proxy"))


def credentials_of(proxy: str) -> tuple[str, str]:
    """Split a proxy's address into the address without credentials, and `user:password` (empty if it has none)."""
    parts = urllib.parse.urlsplit(proxy)
    credentials, _, place = parts.netloc.rpartition("@")
    return urllib.parse.urlunsplit(parts._replace(netloc=place)), urllib.parse.unquote(credentials)


def _value(environment: Mapping[str, str], name: str) -> str:
    return (environment.get(name) or environment.get(name.upper()) or "").strip()


def _checked(proxy: str, name: str) -> str:
    address = proxy if "://" in proxy else f"http://{proxy}"
    try:
        parts = urllib.parse.urlsplit(address)
        is_good = parts.scheme.lower() in _SCHEMES and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        is_good = False
    if not is_good:
        raise UnusableProxy(
            f"{name.upper()} must be an http or https address, such as http://proxy.example:3128 (socks is not understood)"
        )
    return address


def _is_exempt(host: str, port: int | None, exempt: str) -> bool:
    return any(_matches(host, port, entry) for entry in _entries(exempt))


def _entries(exempt: str) -> Iterator[str]:
    yield from filter(None, exempt.lower().replace(",", " ").split())


def _matches(host: str, port: int | None, entry: str) -> bool:
    """Return whether a `NO_PROXY` entry matches a host.

    An entry is `*`, a domain (which includes its subdomains), an IP address or a network such as 10.0.0.0/8; all but `*` may name a port.
    """
    if entry == "*":
        return True
    name, colon, its_port = entry.rpartition(":")
    if colon and its_port.isdigit() and (":" not in name or name.startswith("[")):
        return str(port) == its_port and _matches(host, port, name)
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(entry.strip("[]"), strict=False)
    except ValueError:
        name = entry.removeprefix("*").lstrip(".")
        return host == name or host.endswith(f".{name}")
