"""Decides whether traffic is compressed: not over the loopback, and not on a network that is faster than the compression.

Rows compress to less than a tenth. A million rows cost about half a second of CPU time on each side.
"""

from __future__ import annotations

import threading
import zlib
from collections.abc import Iterable, Iterator

from transport.addresses import is_this_machine

#: Below this rate in bytes per second, the network is the bottleneck, or the server has time to decompress.
_SLOW_BYTES_PER_S = 8_000_000

#: The speed of smaller transfers says little about a network.
_LEAST_BYTES = 200_000

#: This many slow transfers in a row mean that the network is slow.
_SLOW_IN_A_ROW = 5

#: Fast, and nearly as small as the best level.
_LEVEL = 1

#: The `wbits` value with which zlib reads and writes the gzip format.
_GZIP_FORMAT = 31


class Compression:
    """Whether to compress traffic to one server.

    Args:
        choice: `true`, `false`, or `auto`: compress after five slow large transfers in a row, but never over the loopback.
        url: The server's address.
    """

    def __init__(self, choice: str, url: str) -> None:
        self._may_change = choice == "auto" and not is_this_machine(url)
        self._slow_in_a_row = 0
        self._lock = threading.Lock()
        self.is_on = choice == "true"

    def transferred(self, size_bytes: int, seconds: float) -> None:
        """Record how long an uncompressed request or answer took."""
        if self.is_on or not self._may_change or size_bytes < _LEAST_BYTES:
            return
        with self._lock:
            is_slow = size_bytes < _SLOW_BYTES_PER_S * seconds
            self._slow_in_a_row = self._slow_in_a_row + 1 if is_slow else 0
            self.is_on = self._slow_in_a_row >= _SLOW_IN_A_ROW


def gzipped(body: bytes | memoryview) -> bytes:
    """Return a body in gzip format. Deterministic: it contains no time stamp."""
    return zlib.compress(body, _LEVEL, wbits=_GZIP_FORMAT)


def unzipped(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """Decompress a gzip body, block by block. Raises zlib.error if it is damaged or truncated."""
    gzip = zlib.decompressobj(wbits=_GZIP_FORMAT)
    for block in blocks:
        yield gzip.decompress(block)
    if not gzip.eof:
        raise zlib.error("the compressed data was cut")
