"""Where the status page is served."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

from transport.addresses import is_loopback


@dataclass(frozen=True, slots=True)
class StatusAddress:
    """A host and a port to listen on."""

    host: str
    port: int

    @property
    def is_loopback(self) -> bool:
        """Whether only programs on this machine can reach it."""
        return is_loopback(self.host)

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_address(text: str) -> StatusAddress:
    """Return what `127.0.0.1:9464`, `[::1]:9464` or `localhost:9464` says.

    Raises:
        ValueError: It is none of these.
    """
    host, colon, port = text.rpartition(":")
    if not (colon and host and port.isascii() and port.isdigit() and int(port) < 1 << 16):
        raise ValueError("an address and a port, such as 127.0.0.1:9464")
    if host.startswith("[") and host.endswith("]"):
        return StatusAddress(str(ipaddress.IPv6Address(host[1:-1])), int(port))
    if ":" in host or "/" in host or "@" in host:
        raise ValueError("an address and a port, such as 127.0.0.1:9464 or [::1]:9464")
    return StatusAddress(host, int(port))
