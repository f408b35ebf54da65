"""Decides whether traffic is compressed: not within this machine, nor on a network faster than the compression.

Rows compress to less than a tenth, at about half a second of processor time for a million on either side.
"""

from __future__ import annotations

import threading
import zlib

from transport.addresses import is_this_machine

#: Below this rate in bytes per second, the network is the bottleneck, or the server has time to decompress.
_SLOW_BYTES_A_S = 8_000_000

#: Smaller transfers say nothing about a network.
_LEAST_BYTES = 200_000

#: This many slow transfers in a row mean that the network is slow.
_SLOW_IN_A_ROW = 5

#: Fast, and nearly as small as the best level.
_LEVEL = 1

#: A window size of zlib that means the format of gzip.
_GZIP_FORMAT = 31


class Compression:
    """What is known of the way to one server.

    Args:
        choice: `true`, `false`, or `auto`: once five large transfers in a row were slow, and never to this machine itself.
        url: The server.
    """

    def __init__(self, choice: str, url: str) -> None:
        self._may_change = choice == "auto" and not is_this_machine(url)
        self._slow_in_a_row = 0
        self._lock = threading.Lock()
        self.is_on = choice == "true"

    def transferred(self, size_bytes: int, seconds: float) -> None:
        """Learn how long an uncompressed request or answer took."""
        if self.is_on or not self._may_change or size_bytes < _LEAST_BYTES:
            return
        with self._lock:
            is_slow = size_bytes < _SLOW_BYTES_A_S * seconds
            self._slow_in_a_row = self._slow_in_a_row + 1 if is_slow else 0
            self.is_on = self._slow_in_a_row >= _SLOW_IN_A_ROW


def gzipped(body: bytes) -> bytes:
    """Return a body in gzip format; the same bytes for the same body."""
    return zlib.compress(body, _LEVEL, wbits=_GZIP_FORMAT)


def unzipped(body: bytes) -> bytes:
    """Return what a body in gzip format was made from.

    Raises:
        zlib.error: It is damaged, or not whole.
    """
    return zlib.decompress(body, wbits=_GZIP_FORMAT)
