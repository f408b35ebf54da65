"""Server addresses: normalization, loopback detection and redaction. A query can hold a key; a password can precede the host."""

from __future__ import annotations

import ipaddress
import re
import urllib.parse

#: Matches a user name and password up to their `@`: one that follows a colon, or that precedes the first slash.
_CREDENTIALS = re.compile(r"[^?#]*:[^?#]*@|[^/]*@")

#: Ports that an address may omit.
_DEFAULT_PORTS = {"http://": ":80", "https://": ":443"}


def shown_address(address: str) -> str:
    """Return an address for display, without user name, password, query and fragment."""
    scheme, rest = _scheme_and_rest(address)
    shown = re.split("[?#]", rest, maxsplit=1)[0]
    if not may_hold_credentials(address):
        return scheme + shown
    credentials = _CREDENTIALS.match(shown)
    # A password can hold a question mark; then nothing can be shown.
    return scheme + (shown[credentials.end() :] if credentials else "…")


def may_hold_credentials(address: str) -> bool:
    """Return whether an address may contain a user name or password."""
    return bool(_CREDENTIALS.match(_scheme_and_rest(address)[1]))


def canonical_address(address: str) -> str:
    """Return the canonical form of an address: host in lower case, no default port, no trailing slash."""
    scheme, rest = _scheme_and_rest(address)
    if not scheme:
        return address
    host, _, path = rest.partition("/")
    host = host.lower().removesuffix(_DEFAULT_PORTS.get(scheme.lower(), "\n"))
    return scheme.lower() + "/".join(filter(None, (host, path.strip("/"))))


def _scheme_and_rest(address: str) -> tuple[str, str]:
    scheme, slashes, rest = address.partition("://")
    return (scheme + slashes, rest) if slashes else ("", address)


def is_this_machine(address: str) -> bool:
    """Return whether the host of an http or https address is the loopback."""
    host = urllib.parse.urlsplit(address).hostname or ""
    return is_loopback(host) or host.lower().rstrip(".").endswith(".localhost")


def is_loopback(host: str) -> bool:
    """Return whether a host name or IP address is the loopback."""
    if host.lower().rstrip(".") == "localhost":
        return True
    try:
        number = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = getattr(number, "ipv4_mapped", None)
    return number.is_loopback or (mapped is not None and mapped.is_loopback)
