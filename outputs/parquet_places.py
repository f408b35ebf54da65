"""Where Parquet files are kept: a folder of this machine, or a bucket. A file is put there whole, under a name that nothing has."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from anonymizer.errors import OutputDenied, OutputUnavailable
from disk.durable_file import (
    PRIVATE,
    PRIVATE_FOLDER,
    folder_mode,
    make_folder,
    mode_of,
    probe,
    put_new_durably,
    read_ours,
    sync_folder,
    write_durably,
)
from transport.object_store import BucketPrefix, ObjectStore, StoreFault

#: Files that are not yet whole. A name that begins with a dot is passed over by every reader.
_UNFINISHED = ".unfinished"

#: Nothing is stored under this name, unless a bucket's store ignores conditions; a name that begins with a dot is no file of rows.
_PROBE = ".probe"

#: What a crash left unfinished is removed after so long: another process may be writing it.
_ABANDONED_AFTER_S = 24 * 3600


class Place(Protocol):
    """What an output of files needs of one. Each method raises OutputUnavailable, or OutputDenied where only a person can help."""

    #: The same however it is spelled; nothing secret in it.
    name: str

    def open(self, *, must_hold: str) -> None:
        """See that it can be used.

        Args:
            must_hold: A folder that is known to be in it, because something was put there; empty: none.
        """

    def put_new(self, path: str, content: bytes) -> bool:
        """Put a file there, whole and for good; return False, and change nothing, where there is one of that name."""

    def read(self, path: str) -> bytes | None:
        """Return a file's content; None if there is none."""

    def replace(self, path: str, content: bytes) -> None:
        """Put a file in the place of one that is there, whole and for good: only an erasure does."""

    def remove(self, path: str) -> None:
        """Remove a file, if it is there, for good."""

    def paths(self, folder: str, *, after: str = "", before: str = "") -> list[str]:
        """Return the paths of all files in a folder and those below it that come after, and before, some text, in order."""


class Folder:
    """A folder of this machine.

    Args:
        root: Made when it is not there.
        file_mode: Permissions of files that are made.
    """

    def __init__(self, root: Path, *, file_mode: int = PRIVATE) -> None:
        self._root = root
        self._file_mode = file_mode
        self._must_hold = ""
        self.name = os.path.realpath(root)

    def open(self, *, must_hold: str) -> None:
        """Make the folder, and see that files can be made in it."""
        self._must_hold = must_hold
        self._see_that_it_is_mounted()
        try:
            self._make(self._root)
            sync_folder(self._root.parent)
            make_folder(self._root / _UNFINISHED, PRIVATE_FOLDER)
            probe(self._root / _UNFINISHED)
            self._remove_abandoned()
        except OSError as error:
            raise self._unavailable(error) from None

    def put_new(self, path: str, content: bytes) -> bool:
        """Put a file there."""
        place = self._root / path
        unfinished = self._root / _UNFINISHED / f".{place.name}.{secrets.token_hex(8)}"
        self._see_that_it_is_mounted()
        try:
            self._make(place.parent)
            make_folder(unfinished.parent, PRIVATE_FOLDER)
            is_new = self._put(place, content, unfinished)
            # Also if the file existed: a crash may have come before its name was synced.
            self._sync(place.parent)
        except OSError as error:
            raise self._unavailable(error) from None
        self._must_hold = path.partition("/")[0]
        return is_new

    def replace(self, path: str, content: bytes) -> None:
        """Replace a file."""
        place = self._root / path
        try:
            write_durably(place, content, mode=mode_of(place, otherwise=self._file_mode))
        except OSError as error:
            raise self._unavailable(error) from None

    def remove(self, path: str) -> None:
        """Remove a file, and folders below the first one that are empty then."""
        place = self._root / path
        if os.path.realpath(place.parent) != os.path.join(os.path.realpath(self._root), *Path(path).parts[:-1]):  # noqa: PTH118  (as realpath)
            raise OutputDenied(f"PARQUET_URL {self._root} holds {path} behind a link: what is behind links is not removed")
        try:
            place.unlink(missing_ok=True)
            sync_folder(place.parent)
        except FileNotFoundError:
            return
        except OSError as error:
            raise self._unavailable(error) from None
        with suppress(OSError):
            for folder in place.parents:
                if folder.parent == self._root:
                    break
                folder.rmdir()

    def read(self, path: str) -> bytes | None:
        """Return a file's content."""
        try:
            return read_ours(self._root / path)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._unavailable(error) from None

    def paths(self, folder: str, *, after: str = "", before: str = "") -> list[str]:
        """Return what is in a folder."""

        def fail(error: OSError) -> None:
            if not isinstance(error, FileNotFoundError):
                raise self._unavailable(error) from None

        found = []
        for above, folders, names in os.walk(self._root / folder, onerror=fail):
            begin = Path(above).relative_to(self._root).as_posix()
            folders[:] = [name for name in folders if not before or f"{begin}/{name}" < before]
            found += [f"{begin}/{name}" for name in names]
        return sorted(path for path in found if path > after and (not before or path < before))

    def _see_that_it_is_mounted(self) -> None:
        if self._must_hold and not os.path.isdir(self._root / self._must_hold):  # noqa: PTH112  (Path.is_dir raises what the disk says)
            raise OutputUnavailable(
                f"PARQUET_URL {self._root} does not hold the folder {self._must_hold}, which was written to: is its disk missing? If it "
                "was removed on purpose, make that folder"
            )

    def _put(self, place: Path, content: bytes, unfinished: Path) -> bool:
        try:
            if not os.path.lexists(place):
                put_new_durably(place, content, mode=self._file_mode, unfinished=unfinished)
                return True
        except FileExistsError:
            pass
        return False

    def _make(self, folder: Path) -> None:
        """Make a folder, and those of ours above it; all may read it that may read the files."""
        if folder != self._root and not os.path.isdir(folder):  # noqa: PTH112  (as above)
            self._make(folder.parent)
        make_folder(folder, folder_mode(self._file_mode))

    def _sync(self, folder: Path) -> None:
        sync_folder(folder)
        if folder != self._root:
            self._sync(folder.parent)

    def _remove_abandoned(self) -> None:
        now_s = (self._root / _UNFINISHED).stat().st_mtime
        for path in (self._root / _UNFINISHED).iterdir():
            with suppress(OSError):
                if now_s - path.stat().st_mtime > _ABANDONED_AFTER_S:
                    path.unlink()

    def _unavailable(self, error: OSError) -> OutputUnavailable:
        return OutputUnavailable(f"PARQUET_URL {self._root} cannot be used ({error.strerror or type(error).__name__})")


class Bucket(BucketPrefix):
    """A bucket of an object store.

    Args:
        connect: Returns a client with the current keys; called again after each refusal, since keys are rotated.
        name: The canonical address.
        prefix: The prefix of all keys; empty for none.
    """

    def __init__(self, connect: Callable[[], ObjectStore], *, name: str, prefix: str) -> None:
        super().__init__(connect, name=name, prefix=prefix, error_of=_as_output_error)

    def open(self, *, must_hold: str) -> None:
        """Check that the bucket exists and that the keys may store in it."""
        # Keys without the right to list may be refused such a request, and still have the right to store.
        if self._ask(lambda store: store.look(self._prefix.rstrip("/"))):
            self._ask(lambda store: store.try_to_write(f"{self._prefix}rows/{_PROBE}"))

    def put_new(self, path: str, content: bytes) -> bool:
        """Store an object."""
        return self._ask(lambda store: store.put_new(self._prefix + path, content))

    def replace(self, path: str, content: bytes) -> None:
        """Replace an object."""
        self._ask(lambda store: store.put(self._prefix + path, content))

    def remove(self, path: str) -> None:
        """Remove an object."""
        self._ask(lambda store: store.remove(self._prefix + path))


def _as_output_error(fault: StoreFault) -> OutputDenied | OutputUnavailable:
    return (OutputDenied if fault.is_denial else OutputUnavailable)(f"PARQUET_URL: {fault}")
