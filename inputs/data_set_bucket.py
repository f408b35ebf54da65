"""A data set's parts in a bucket. Every request names the listed version, so no other content is ever read."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import BinaryIO, cast

from anonymizer.errors import SourceDenied, SourceError, SourceRefused, SourceUnavailable
from inputs.data_set_parts import PART_SUFFIXES, WAS_CHANGED, Listing, Opened, Part
from transport.object_store import ObjectStore, StoredObject, StoreFault

#: The smallest fetch: a footer takes one request, and so does a small column.
_LEAST_FETCHED_BYTES = 1 << 16


class BucketFolder:
    """The objects of a bucket below a prefix, or one object.

    Args:
        connect: Returns a client with the current keys; called for each listing, since keys are rotated.
        root: The prefix, or the key of one object.
        is_requested: Whether a path below it was requested.
        request: The glob that this follows; empty: all.
    """

    def __init__(
        self,
        connect: Callable[[], ObjectStore],
        root: str,
        is_requested: Callable[[str], bool] = lambda _: True,
        request: str = "",
    ) -> None:
        self._connect = connect
        self._store = connect()
        self._root = root
        self._is_requested = is_requested
        self.request = request
        self.address = f"{self._store.endpoint} {self._store.bucket} {root}"
        self.folders = tuple(root.split("/"))

    def listing(self) -> Listing:
        """List the objects below the prefix."""
        found, self._store = Listing(self._is_requested), self._connect()
        try:
            if self._root.lower().endswith(PART_SUFFIXES) and (one := self._store.find(self._root)):
                found.add(_part(one, one.key.rpartition("/")[2]))
            else:
                for one in self._store.objects(self._root):
                    path = one.key[len(self._root) :].lstrip("/")
                    # Web consoles create empty objects as folders.
                    if not (path.endswith("/") or found.is_hidden(path)):
                        found.add(_part(one, path))
        except StoreFault as fault:
            raise _as_source_error(fault) from None
        found.check()
        return found

    def opened(self, part: Part) -> Opened:
        """Open a part."""
        is_one = self._root.endswith(f"/{part.path}") or self._root == part.path
        key = (
            self._root
            if is_one and self._root.lower().endswith(PART_SUFFIXES)
            else "/".join(filter(None, (self._root, part.path)))
        )
        return _OpenObject(self._store, key, part)


class _OpenObject:
    def __init__(self, store: ObjectStore, key: str, part: Part) -> None:
        self.file = cast(BinaryIO, _Reader(store, key, part))

    def check(self) -> None:
        """Do nothing: each request checks the version."""

    def close(self) -> None:
        self.file.close()


class _Reader(io.RawIOBase):
    """A seekable reader of an object, which fetches bytes as they are read."""

    def __init__(self, store: ObjectStore, key: str, part: Part) -> None:
        self._store, self._key, self._part = store, key, part
        self._at = 0
        self._fetched_from, self._fetched = 0, b""

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._part.size}[whence]
        return self._at

    def read(self, size: int = -1) -> bytes:
        end = self._part.size if size < 0 else min(self._at + size, self._part.size)
        if end <= self._at:
            return b""
        if not (self._fetched_from <= self._at and end <= self._fetched_from + len(self._fetched)):
            self._fetch(end)
        begin, self._at = self._at - self._fetched_from, end
        return self._fetched[begin : end - self._fetched_from]

    def _fetch(self, end: int) -> None:
        # A read at the end of the file is the footer's length; the footer before it is read next.
        begin = max(0, min(self._at, end - _LEAST_FETCHED_BYTES)) if end == self._part.size else self._at
        stop = min(max(end, begin + _LEAST_FETCHED_BYTES), self._part.size)
        try:
            self._fetched = self._store.read(self._key, begin, stop, version=self._part.version)
        except StoreFault as fault:
            raise _as_source_error(fault) from None
        self._fetched_from = begin


def _part(found: StoredObject, path: str) -> Part:
    return Part(path, found.size, found.version, found.version)


def _as_source_error(fault: StoreFault) -> SourceError:
    if fault.is_changed or fault.is_missing:
        return SourceRefused(WAS_CHANGED)
    error = SourceDenied if fault.is_denial else SourceUnavailable
    return error(f"INPUT_FILE: {fault}")
