"""An input file while it is read: kept open, hashed, decompressed, and checked for changes."""

from __future__ import annotations

import gzip
import hashlib
import io
import mmap
import os
import re
import weakref
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Protocol

from anonymizer.errors import SourceRefused

#: Buffer between the file and its parser.
_BUFFER_BYTES = 1 << 23

_GZIP = b"\x1f\x8b"

#: A gzip file that unpacks to more than both limits is a decompression bomb: ECG packs to a tenth.
_MOST_UNPACKED_BYTES = 1 << 28
_MOST_UNPACKED_TIMES = 100


class InputFile:
    """A file that stays open until `close`, so that another file of the same name is never read in its place."""

    def __init__(self, path: Path) -> None:
        self._path = path
        # Unbuffered: a buffer would hide later changes to the file.
        self.file = path.open("rb", buffering=0)
        self.close = weakref.finalize(self, self.file.close)
        self._digest = ""
        self._state = self._state_now()

    def again(self) -> InputFile:
        """Open the file by its name again. Raises SourceRefused if it changed since it was first opened."""
        held = InputFile(self._path)
        held._state, held._digest = self._state, self._digest
        try:
            held.check()
        except SourceRefused:
            held.close()
            raise
        return held

    @property
    def size(self) -> int:
        """Its size in bytes when it was opened."""
        return self._state[0]

    def sha256(self) -> str:
        """Return the digest of the whole file, and remember it for `check`."""
        with self.unchanged():
            self._digest = self._digest_now()
        return self._digest

    @contextmanager
    def unchanged(self) -> Iterator[None]:
        """Run the block, then `check`."""
        try:
            yield
        finally:
            # Also after another error: what could not be parsed may be half of the old file and half of the new one.
            self.check()

    def check(self, digest: str = "") -> None:
        """Raise SourceRefused if the file changed. If only its times did, its digest decides.

        Args:
            digest: The digest of what was read, if the reader computed it.
        """
        self._digest = digest or self._digest
        state = self._state_now()
        if state == self._state:
            return
        has_grown = state[0] != self._state[0]
        if has_grown or not self._digest or self._digest_now() != self._digest:
            raise SourceRefused(
                "INPUT_FILE was written to while it was read, so its rows cannot be told from those of before. "
                "Start again when nothing writes to it any more"
            )
        self._state = state

    def _digest_now(self) -> str:
        self.file.seek(0)
        return hashlib.file_digest(self.file, "sha256").hexdigest()

    def _state_now(self) -> tuple[int, int, int]:
        found = os.fstat(self.file.fileno())
        return found.st_size, found.st_mtime_ns, found.st_ctime_ns


class ByteStream(Protocol):
    """A source of bytes."""

    def read(self, most_bytes: int, /) -> bytes:
        """Return the next bytes; empty at the end."""


class HashingReader(io.RawIOBase):
    """Reads a file, at most `most_bytes` of it, and computes the SHA-256 of what was read."""

    def __init__(self, file: BinaryIO, most_bytes: int | None = None) -> None:
        self._file = file
        self._left = most_bytes
        self._digest = hashlib.sha256()
        self.bytes_read = 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # BufferedReader passes only this type
        """Fill the buffer as far as the file and `most_bytes` allow."""
        most = len(buffer) if self._left is None else min(len(buffer), self._left)
        data = self._file.read(most)
        self._digest.update(data)
        self.bytes_read += len(data)
        if self._left is not None:
            self._left -= len(data)
        buffer[: len(data)] = data
        return len(data)

    def hexdigest(self) -> str:
        """Return the digest of what was read so far."""
        return self._digest.hexdigest()


class _Unpacked:
    """Decompresses all members of a gzip file. Zero bytes after the last one, which tapes and disks add, are ignored."""

    def __init__(self, packed: HashingReader) -> None:
        self._packed = packed
        self._file = gzip.GzipFile(fileobj=io.BufferedReader(packed, _BUFFER_BYTES))
        self._unpacked_bytes = 0

    def read(self, most_bytes: int) -> bytes:
        """Return the next bytes.

        Raises:
            SourceRefused: The gzip data is truncated, damaged, or expands too much.
        """
        try:
            data = self._file.read(most_bytes)
        except EOFError:
            raise SourceRefused("INPUT_FILE is cut off: its gzip data has no end. Copy it again") from None
        except (gzip.BadGzipFile, zlib.error):
            raise SourceRefused(
                "INPUT_FILE is damaged, or holds something else behind its gzip data; gzip -t tells more. Copy it again"
            ) from None
        self._unpacked_bytes += len(data)
        most = max(_MOST_UNPACKED_BYTES, _MOST_UNPACKED_TIMES * self._packed.bytes_read)
        if self._unpacked_bytes > most:
            raise SourceRefused(
                f"INPUT_FILE unpacks to more than {_MOST_UNPACKED_TIMES} times its size: no recording does. "
                "Unpack it yourself if it is one"
            )
        return data


def unpacked(packed: HashingReader, file: BinaryIO) -> ByteStream:
    """Return a reader of a file's content, which decompresses it if it starts with gzip's magic bytes."""
    is_gzip = file.read(len(_GZIP)) == _GZIP
    file.seek(0)
    return _Unpacked(packed) if is_gzip else io.BufferedReader(packed, _BUFFER_BYTES)


def find_version(file: BinaryIO, is_known: Callable[[str], bool]) -> tuple[int, str] | None:
    """Return the length and SHA-256 of the leading bytes of a file whose SHA-256 a function knows; None if no such prefix exists.

    Only ends of lines, or of gzip members, are tried: a file grows by whole ones.
    """
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        is_gzip = data[: len(_GZIP)] == _GZIP
        hashed, at = hashlib.sha256(), 0
        for mark in re.finditer(rb"\x1f\x8b\x08" if is_gzip else rb"[\r\n]", data):
            for end in (mark.start(),) if is_gzip else mark.span():
                if end > at:
                    hashed.update(data[at:end])
                    at = end
                    if is_known(hashed.hexdigest()):
                        return end, hashed.hexdigest()
    return None
