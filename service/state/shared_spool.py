"""Chunks anonymized by Dask workers, readable from every machine until all outputs have taken them: one file per chunk.

A file is named `<label>/<start>-<end>-<SHA-256 of its content>.spool`. So different results are different files, and equal results the same
file, however often a chunk is anonymized; the coordinator releases the result that it records first. Content that does not match its name
is never delivered. Files of unrecorded results are second anonymizations of their windows: only the service may read them.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from anonymizer.batch import Batch
from anonymizer.errors import StateUnavailable
from anonymizer.windows import Window
from disk.durable_file import PRIVATE_FOLDER, make_folder, put_new_durably, read_ours, sync_folder, write_durably
from service.state.output_positions import OutputPositions
from service.state.spool import GIVEN_UP, WAY_ON, Spool, SpoolDamaged, decode, encode_with_digest
from transport.object_store import BucketPrefix, ObjectStore

_NAME = re.compile(r"([0-9A-Za-z._]+)/(-?\d{1,19})-(-?\d{1,19})-([0-9a-f]{64})\.spool")

#: Files that are incomplete; a worker that dies leaves one.
_UNFINISHED = re.compile(r"[0-9A-Za-z._]+/\.[0-9a-f]{16}(\.whole)?\.unfinished")


#: What the coordinator hands over to workers.
_HANDED_OVER = re.compile(r"[0-9A-Za-z._]+/([0-9a-f]{64})\.confidential")


class Place(Protocol):
    """A folder or bucket that contains a shared spool. Each method raises StateUnavailable if it cannot be used now."""

    #: The same however it is spelled; nothing secret in it.
    name: str

    def put(self, path: str, content: bytes) -> None:
        """Put a file there, whole and on the disk, in place of one of that name."""

    def read(self, path: str) -> bytes | None:
        """Return a file's content; None if there is none."""

    def size(self, path: str) -> int | None:
        """Return how many bytes a file has; None if there is none."""

    def remove(self, path: str) -> None:
        """Remove a file, if it is there."""

    def paths(self, folder: str) -> list[str]:
        """Return the paths of all files in a folder."""


@dataclass(frozen=True, slots=True)
class Spooled:
    """A chunk in a shared spool: what its file is called, and its size."""

    name: str
    size_bytes: int


class SharedSpool:
    """The files of one data set.

    Args:
        place: Where.
    """

    def __init__(self, place: Place) -> None:
        self._place = place

    @property
    def address(self) -> str:
        """Where it is."""
        return self._place.name

    def write(self, label: str, batches: Sequence[Batch]) -> Spooled:
        """Store batches that belong together; return under which name, once they are on the disk.

        Raises:
            StateUnavailable: The disk cannot take them now.
        """
        content, digest = encode_with_digest(batches)
        span = f"{batches[0].window.start_ns}-{batches[-1].window.end_ns}"
        name = f"{label}/{span}-{digest}.spool"
        # A file of that name with other content was altered: what belongs there takes its place.
        if self._place.read(name) != content:
            self._place.put(name, content)
        return Spooled(name, len(content))

    def read(self, name: str) -> list[Batch]:
        """Return the batches of a file.

        Raises:
            SpoolDamaged: It is missing, or its content does not match its name.
            StateUnavailable: It cannot be read now.
        """
        content = self._place.read(name)
        if content is None:
            raise SpoolDamaged(f"spool file {name} is missing in SPOOL_URL. {WAY_ON}")
        found = _NAME.fullmatch(name)
        if found is None or hashlib.sha256(content).hexdigest() != found[4]:
            raise SpoolDamaged(f"spool file {name} in SPOOL_URL does not hold what was written. {WAY_ON}")
        return decode(content, name=name, is_checked=True)

    def hand_over(self, label: str, content: bytes) -> str:
        """Store what workers must know and a task must not carry; return under which name. `remove_all_but` removes it.

        Raises:
            StateUnavailable: The disk cannot take it now.
        """
        name = f"{label}/{hashlib.sha256(content).hexdigest()}.confidential"
        if self._place.read(name) != content:
            self._place.put(name, content)
        return name

    def handed_over(self, name: str) -> bytes:
        """Return what the coordinator has handed over under that name.

        Raises:
            StateUnavailable: It is missing, does not match its name, or cannot be read now.
        """
        content, found = self._place.read(name), _HANDED_OVER.fullmatch(name)
        if content is None or found is None or hashlib.sha256(content).hexdigest() != found[1]:
            raise StateUnavailable(
                f"SPOOL_URL {self.address} does not contain, on a worker, what the coordinator has put there: is it the same folder or "
                "bucket on every machine, and its disk mounted?"
            )
        return content

    def content(self, name: str) -> bytes | None:
        """Return a file's content, also if it is damaged; None if there is no file."""
        return self._place.read(name)

    def claim(self, label: str, owner: bytes) -> bool:
        """Claim the data set's files for one journal; return whether no other journal has done so. Raises StateUnavailable."""
        path = f"{label}/owner"
        if self._place.read(path) is None:
            self._place.put(path, owner)
        return self._place.read(path) == owner

    def give_back(self, label: str) -> None:
        """End the claim: none of these files is needed any more."""
        self.remove(f"{label}/owner")

    def holds(self, spooled: Spooled) -> bool:
        """Return whether this process can see a file of that name and size."""
        return self._place.size(spooled.name) == spooled.size_bytes

    def remove(self, name: str) -> None:
        """Remove a file. One that cannot be removed now is removed at the next start, or end of a run."""
        with suppress(StateUnavailable):
            self._place.remove(name)

    def remove_all_but(self, known: set[str], label: str, *, is_kept: Callable[[Window], bool] = lambda _: False) -> list[str]:
        """Remove unknown and unfinished files of the data set, and what was handed over; return those that were kept.

        A worker that still writes one of them answers that it could not, and is asked again.

        Args:
            known: Names of files that outputs wait for.
            label: The data set's label.
            is_kept: Whether to keep a file with these windows, such as because it may be the only copy of a release.
        """
        kept = []
        for path in self._place.paths(label):
            found = _NAME.fullmatch(path)
            if _UNFINISHED.fullmatch(path) or _HANDED_OVER.fullmatch(path):
                self.remove(path)
            if path in known or found is None:
                continue
            if is_kept(Window(int(found[2]), int(found[3]))):
                kept.append(path)
            else:
                self.remove(path)
        return kept


def span_of(name: str) -> tuple[str, int, int] | None:
    """Return the label, and the start and end of the windows, of a file's name; None where it is no such name."""
    found = _NAME.fullmatch(name)
    return None if found is None else (found[1], int(found[2]), int(found[3]))


class MixedSpool(Spool):
    """The spool of a journal: files that are called after their chunk's number, and those that workers named after their content.

    Args:
        folder: Of numbered files.
        shared: Of named ones.
        positions: Knows which chunk's file has which name.
    """

    def __init__(self, folder: Path, shared: SharedSpool, positions: OutputPositions) -> None:
        self.shared = shared
        self._names = positions.spool_names()
        super().__init__(folder, waiting=lambda: set(positions.spooled_chunks()) - self._names.keys())

    def name_of(self, number: int) -> str | None:
        """Return what a worker called a chunk's file; None where it is called after its number."""
        return self._names.get(number)

    def names(self) -> set[str]:
        """Return the names of all files that outputs wait for."""
        return set(self._names.values())

    def add(self, number: int, name: str) -> None:
        """Remember what a worker called a chunk's file, once the journal does."""
        self._names[number] = name

    def read(self, number: int) -> list[Batch]:
        """Return the batches of a chunk. Raises as `Spool.read` does."""
        name = self._names.get(number)
        return super().read(number) if name is None else self.shared.read(name)

    def remove(self, number: int) -> None:
        """Remove a chunk's file, if any."""
        name = self._names.pop(number, None)
        if name is None:
            super().remove(number)
        else:
            self.shared.remove(name)

    def move_aside(self, number: int) -> Path | None:
        """Move what is left of a chunk's file to `given_up`; return where, None if there is nothing. Raises StateUnavailable."""
        name = self._names.get(number)
        return super().move_aside(number) if name is None else self._copy_aside(name)

    def _copy_aside(self, name: str) -> Path | None:
        content = self.shared.content(name)
        if content is None:
            return None
        kept = self._folder.with_name(GIVEN_UP) / name.rpartition("/")[2]
        try:
            make_folder(kept.parent)
            write_durably(kept, content)
        except OSError as error:
            raise StateUnavailable(f"{kept} cannot be written now ({error.strerror or error})") from None
        self.shared.remove(name)
        return kept


class SpoolFolder:
    """A folder that all machines have under one path.

    Args:
        root: Made when it is not there; only its owner may read it.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self.name = os.path.realpath(root)

    def put(self, path: str, content: bytes) -> None:
        """Put a file there."""
        place = self._root / path
        attempt = secrets.token_hex(8)
        unfinished, whole = (place.with_name(f".{attempt}{form}.unfinished") for form in ("", ".whole"))
        with self._only_unavailable():
            for folder in (self._root, place.parent):
                make_folder(folder, PRIVATE_FOLDER)
            try:
                put_new_durably(place, content, unfinished=unfinished)
            except FileExistsError:
                put_new_durably(whole, content, unfinished=unfinished)
                whole.replace(place)
                sync_folder(place.parent)
            sync_folder(self._root)

    def read(self, path: str) -> bytes | None:
        """Return a file's content."""
        with self._only_unavailable():
            try:
                return read_ours(self._root / path)
            except FileNotFoundError:
                return None

    def size(self, path: str) -> int | None:
        """Return a file's size."""
        with self._only_unavailable():
            try:
                return (self._root / path).lstat().st_size
            except FileNotFoundError:
                return None

    def remove(self, path: str) -> None:
        """Remove a file."""
        with self._only_unavailable():
            (self._root / path).unlink(missing_ok=True)

    def paths(self, folder: str) -> list[str]:
        """Return what is in a folder."""
        with self._only_unavailable():
            try:
                return sorted(f"{folder}/{name}" for name in os.listdir(self._root / folder))  # noqa: PTH208  (see Spool.numbers)
            except FileNotFoundError:
                return []

    @contextmanager
    def _only_unavailable(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StateUnavailable(
                f"SPOOL_URL {self._root} cannot be used now ({error.strerror or type(error).__name__})"
            ) from None


class SpoolBucket(BucketPrefix):
    """A bucket of an object store.

    Args:
        connect: Returns a client with the current keys; called again after each refusal, since keys are rotated.
        name: The canonical address.
        prefix: The prefix of all keys; empty for none.
    """

    def __init__(self, connect: Callable[[], ObjectStore], *, name: str, prefix: str) -> None:
        super().__init__(connect, name=name, prefix=prefix, error_of=lambda fault: StateUnavailable(f"SPOOL_URL: {fault}"))

    def put(self, path: str, content: bytes) -> None:
        """Store an object."""
        self._ask(lambda store: store.put(self._prefix + path, content))

    def size(self, path: str) -> int | None:
        """Return an object's size."""
        found = self._ask(lambda store: store.find(self._prefix + path))
        return None if found is None else found.size

    def remove(self, path: str) -> None:
        """Remove an object."""
        self._ask(lambda store: store.remove(self._prefix + path))
