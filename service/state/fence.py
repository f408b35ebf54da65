"""The fence: a second, small file that lists the released intervals. A release is synced to it before outputs are offered the release.

If the journal lacks an interval that the fence lists, the journal is an old copy. If the journal has more than its last release beyond the
fence, one of the two is old or damaged. In both cases the service refuses to start, because it could release windows twice.

The file is a log: a line with the format's name, then one line per release, with a checksum over that line and all before it. Once the
lines appended since the last rewrite are longer than the rewritten part, the file is rewritten with adjacent intervals merged. So it grows
with the number of gaps, not with time.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from anonymizer.errors import JournalDamaged, StateUnavailable
from anonymizer.windows import Window
from disk.durable_file import open_ours, read_ours, write_durably
from service.state.intervals import merged

_HEAD = b"ecg-anonymizer fence 2\n"

#: The previous format: JSON with all intervals, rewritten at every release.
_VERSION_1 = 1

_CHECKSUM_BYTES = 8

#: One more than the largest time in nanoseconds: times have 64 bits.
_BEYOND_NS = 1 << 63

#: The file is gone, is a link, or has a second name, such as in a backup made of hard links, which must not change.
_REPLACED = frozenset({errno.ENOENT, errno.ELOOP, errno.EMLINK})

#: The file is rewritten once the lines appended since the last rewrite are longer than this, and than the rewritten part.
_LONGEST_TAIL_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class Fenced:
    """The content of a fence.

    Args:
        intervals: Every interval it lists, adjacent ones merged, in order.
        unread: A damaged last line. The journal must know its release.
        is_current: Whether the file needs no rewrite: it has the current format and is undamaged.
        checksum: The checksum of the last line that was read.
    """

    intervals: list[Window]
    unread: bytes = b""
    is_current: bool = True
    checksum: str = field(default="", compare=False)

    @property
    def is_cut(self) -> bool:
        """Whether the last line is incomplete, as after a power cut: outputs were not offered its release yet."""
        return bool(self.unread) and not self.unread.endswith(b"\n")

    def is_explained_by(self, release: Sequence[Window]) -> bool:
        """Return whether the unread line can be this release's line, cut short, partly zeroed, or with one wrong byte.

        A longer line is two lines whose line end was lost, so it records two releases.
        """
        expected, _ = _record(self.checksum, release)
        wrong = sum(byte != wanted and byte != 0 for byte, wanted in zip(self.unread, expected, strict=False))
        return bool(release) and len(self.unread) <= len(expected) and wrong <= 1


@dataclass(frozen=True, slots=True)
class _Place:
    """Where the next line goes: the file's size, the checksum of the line before, and the size of the rewritten part."""

    size_bytes: int
    checksum: str
    rewritten_bytes: int


class Fence:
    """The file.

    Args:
        path: Its path; it need not exist.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._place: _Place | None = None

    def read(self) -> Fenced:
        """Return the fence's content; empty if there is no fence yet.

        Raises:
            JournalDamaged: It is damaged.
            StateUnavailable: The disk cannot be read now.
        """
        self._place = None
        try:
            content = read_ours(self.path)
        except FileNotFoundError:
            return Fenced([])
        except OSError as error:
            raise StateUnavailable(f"{self.path} cannot be read now ({error.strerror or error})") from None
        try:
            return self._parse(content) if content.startswith(_HEAD) else _parse_version_1(content)
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise JournalDamaged(
                f"{self.path} is damaged ({type(error).__name__}). It only repeats what the journal beside it knows: if the journal is "
                "not an old copy, move the fence away and run scripts/state.py accept-gap"
            ) from None

    def add(self, intervals: Sequence[Window], known: Iterable[Window]) -> None:
        """Add one release, durably.

        Args:
            intervals: The intervals of the release.
            known: All released intervals, these included, in order. The file is rewritten with them if another program changed it, or if it
                is too long.

        Raises:
            OSError: The disk cannot write it now.
        """
        place = self._place
        if place is not None:
            record, checksum = _record(place.checksum, intervals)
            size_bytes = place.size_bytes + len(record)
            if size_bytes - place.rewritten_bytes <= max(_LONGEST_TAIL_BYTES, place.rewritten_bytes):
                # A failed append may leave half a line, on disk or only in memory; the next release then rewrites the file.
                self._place = None
                if _append(self.path, place.size_bytes, record):
                    self._place = _Place(size_bytes, checksum, place.rewritten_bytes)
                    return
        self.replace(known)

    def replace(self, intervals: Iterable[Window]) -> None:
        """Replace the content, durably.

        Raises:
            OSError: The disk cannot write it now.
        """
        self._place = None
        record, checksum = _record("", intervals)
        size_bytes = write_durably(self.path, _HEAD + record)
        self._place = _Place(size_bytes, checksum, size_bytes)

    def _parse(self, content: bytes) -> Fenced:
        *lines, rest = content.removeprefix(_HEAD).split(b"\n")
        found, checksum, sizes = list[Window](), "", [len(_HEAD)]
        for line in lines:
            released = _intervals_of(line, checksum)
            if released is None:
                break
            found += released
            checksum = line[: 2 * _CHECKSUM_BYTES].decode()
            sizes.append(sizes[-1] + len(line) + 1)
        unread = lines[len(sizes) - 1 :]
        if len(unread) > 1 or (unread and rest):
            raise ValueError("a line in the middle is damaged")
        # The last line counts even if its line end is missing or damaged.
        last = next((one for one in (_intervals_of(rest, checksum), _intervals_of(rest[:-1], checksum)) if one is not None), None)
        if not unread and not rest:
            self._place = _Place(sizes[-1], checksum, sizes[min(1, len(sizes) - 1)])
            return Fenced(merged(sorted(found)))
        left = b"" if last is not None else unread[0] + b"\n" if unread else rest
        return Fenced(merged(sorted(found + (last or []))), left, is_current=False, checksum=checksum)


def _intervals_of(line: bytes, checksum_before: str) -> list[Window] | None:
    """Return the intervals of a line; None if it is damaged."""
    stated, body = line[: 2 * _CHECKSUM_BYTES], line[2 * _CHECKSUM_BYTES + 1 :]
    if stated != _checksum(checksum_before, body).encode():
        return None
    return [_window(*map(int, pair.split(b":"))) for pair in body.split()]


def _window(start_ns: object, end_ns: object) -> Window:
    """Return an interval; raise ValueError for times of more than 64 bits."""
    if type(start_ns) is int and type(end_ns) is int and start_ns >= -_BEYOND_NS and end_ns < _BEYOND_NS:
        return Window(start_ns, end_ns)
    raise ValueError("invalid time")


def _parse_version_1(content: bytes) -> Fenced:
    described = json.loads(content)
    if described["form"] != _VERSION_1:
        raise ValueError("unknown version")
    found = [_window(start_ns, end_ns) for start_ns, end_ns in described["intervals"]]
    return Fenced(merged(sorted(found)), is_current=False)


def _record(checksum_before: str, intervals: Iterable[Window]) -> tuple[bytes, str]:
    """Return a line, and its checksum."""
    body = " ".join(f"{one.start_ns}:{one.end_ns}" for one in intervals).encode()
    checksum = _checksum(checksum_before, body)
    return b"%s %s\n" % (checksum.encode(), body), checksum


def _checksum(before: str, body: bytes) -> str:
    return hashlib.blake2b(before.encode() + body, digest_size=_CHECKSUM_BYTES).hexdigest()


def _append(path: Path, size_bytes: int, record: bytes) -> bool:
    """Append a line and sync it. Return False, and do nothing, if another program changed or replaced the file."""
    try:
        descriptor = open_ours(path, os.O_WRONLY | os.O_APPEND)
    except OSError as error:
        if error.errno in _REPLACED:
            return False
        raise
    with os.fdopen(descriptor, "ab") as file:
        if os.fstat(file.fileno()).st_size != size_bytes:
            return False
        file.write(record)
        file.flush()
        os.fsync(file.fileno())
    return True
