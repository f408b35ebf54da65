"""The parts of a data set: which files are read, which are skipped, and the columns that folder names (`key=value`) hold.

A part is a file whose name ends in `.parquet` or `.pq`. Hidden and unfinished files (a name on their path begins with a dot or an
underscore), links and other files are skipped and counted. No message names a file or a folder, which may be named after a wearer: parts
are numbered in the order of their paths.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Protocol
from urllib.parse import unquote

from anonymizer.errors import SourceDenied, SourceRefused, SourceUnavailable
from inputs.file_columns import normalized

#: Suffixes of parts, in any case.
PART_SUFFIXES = (".parquet", ".pq")

#: From this share of skipped files and links on, the data set is refused: the folder probably has another purpose.
_REFUSAL_SHARE = 0.5

#: Files that writers leave beside the data. They hold no rows.
_MARKS = re.compile(r"(_SUCCESS|_metadata|_common_metadata|_(committed|started)_.*|.*\.crc|\.DS_Store|\.gitkeep)$")

#: Metadata folders of table formats. They list the files with current rows; other files hold replaced or deleted rows.
_TABLE_FOLDERS = {"_delta_log": "Delta", ".hoodie": "Hudi"}
_ICEBERG = re.compile(r"(.*/)?metadata/[^/]*\.metadata\.json$")

#: Usual partition columns that are derived from a row's time.
_TIME_KEYS = frozenset(
    ["year", "month", "day", "date", "hour", "minute", "week", "quarter", "dt", "ds", "yyyy", "mm", "dd", "hh"]
)

_NO_VALUE = "__HIVE_DEFAULT_PARTITION__"

HOW_PARTS_ARE_COUNTED = "parts are counted in the order of their paths, from 1"

WAS_CHANGED = (
    "INPUT_FILE: a file of the data set was written to, moved or removed while the data set was read, so nothing more of it is released. "
    "Start again when nothing writes to its files any more"
)


@dataclass(frozen=True, slots=True, order=True)
class Part:
    """A file of a data set.

    Args:
        path: Path below the data set's address, with slashes.
        size: In bytes.
        version: Changes with its content, such as an ETag or a modification time.
        state: Everything by which a change can be detected: `version`, and more if the store has more.
    """

    path: str
    size: int
    version: str
    state: str = field(compare=False)

    @property
    def key(self) -> str:
        """The path as UTF-8 text; invalid bytes are escaped."""
        return self.path.encode("utf-8", "backslashreplace").decode()


class PartStore(Protocol):
    """A place that holds parts."""

    #: Identifies the data set.
    address: str

    #: Names of the folders above the data set and its own, for `key=value` names.
    folders: tuple[str, ...]

    #: The glob that chooses parts; empty: all.
    request: str

    def listing(self) -> Listing:
        """List what is there now. Raises SourceUnavailable, SourceDenied or SourceRefused."""

    def opened(self, part: Part) -> Opened:
        """Open a part. Raises as `listing` does, and SourceRefused if it changed since it was listed."""


class Opened(Protocol):
    """A part that is open for reading."""

    file: BinaryIO

    def check(self) -> None:
        """Raise SourceRefused if it changed since it was listed."""

    def close(self) -> None:
        """Close it."""


@dataclass(slots=True)
class Listing:
    """What was found below a data set's address.

    Args:
        is_requested: Whether a path was requested.
        parts: The parts to read, in the order of their paths.
        hidden: Number of hidden or unfinished files and folders.
        links: Number of links, which are not followed.
        foreign: Number of other files.
    """

    is_requested: Callable[[str], bool] = lambda _: True
    parts: list[Part] = field(default_factory=list)
    hidden: int = 0
    links: int = 0
    foreign: int = 0

    def add_link(self, path: str) -> None:
        """Count a link."""
        self.links += self.is_requested(path)

    def is_hidden(self, path: str) -> bool:
        """Return whether a file or folder is hidden or unfinished; if so, count it.

        Raises:
            SourceRefused: It belongs to a table format, in which only some files hold current rows.
        """
        for name in path.split("/"):
            if name in _TABLE_FOLDERS:
                raise _is_a_table(_TABLE_FOLDERS[name])
            if name.startswith((".", "_")):
                self.hidden += self.is_requested(path) and not _MARKS.match(path.rpartition("/")[2])
                return True
        return False

    def add(self, part: Part, *, is_file: bool = True) -> None:
        """Add a file that is not hidden: as a part, or to the count of other files."""
        if _ICEBERG.match(part.path):
            raise _is_a_table("Iceberg")
        if not self.is_requested(part.path):
            return
        if is_file and part.path.lower().endswith(PART_SUFFIXES):
            self.parts.append(part)
        else:
            self.foreign += 1

    def check(self) -> None:
        """Sort the parts. Raises SourceRefused if there are none, or if too many other files and links are beside them."""
        self.parts.sort(key=lambda part: os.fsencode(part.path))
        beside = self.foreign + self.links
        if not self.parts:
            found = f"; {self._beside()}" if beside + self.hidden else ""
            raise SourceRefused(
                f"INPUT_FILE holds no Parquet files, whose names end in {' or '.join(PART_SUFFIXES)}{found}. "
                "Name the folder that holds them, a glob such as FOLDER/*.parquet, or one file"
            )
        if beside >= _REFUSAL_SHARE * (beside + len(self.parts)):
            raise SourceRefused(
                f"INPUT_FILE holds {len(self.parts)} Parquet files and {self._beside()}: name just the Parquet files, with a glob such as "
                "FOLDER/**/*.parquet, and put files in the place of links"
            )

    def remarks(self) -> Iterator[str]:
        """Yield a warning about what is skipped."""
        if self.hidden + self.links + self.foreign:
            yield f"INPUT_FILE: beside {len(self.parts)} Parquet files, {self._beside()}"

    def _beside(self) -> str:
        kinds = (
            (self.foreign, "other files are not read"),
            (self.links, "links are not followed"),
            (self.hidden, "hidden or unfinished files or folders (names that begin with . or _) are not read"),
        )
        return ", ".join(f"{number} {what}" for number, what in kinds if number)


def _is_a_table(kind: str) -> SourceRefused:
    return SourceRefused(
        f"INPUT_FILE is a {kind} table: some of its files hold rows that were replaced or deleted, and nothing here reads which. "
        "Write its present rows as plain Parquet files into a folder of their own"
    )


class Folder:
    """A local folder.

    Args:
        root: The folder.
        is_requested: Whether a path below it was requested.
        request: The glob that this follows; empty: all.
    """

    def __init__(self, root: Path, is_requested: Callable[[str], bool] = lambda _: True, request: str = "") -> None:
        self._root = Path(os.path.realpath(root))
        self._is_requested = is_requested
        self.request = request
        self.address = f"folder {self._root}"
        self.folders = self._root.parts

    def listing(self) -> Listing:
        """List the folder and its subfolders."""
        found = Listing(self._is_requested)
        try:
            with _disk_errors():
                self._walk(self._root, "", found)
        except FileNotFoundError as error:
            if self._root.is_dir():
                raise SourceUnavailable("INPUT_FILE cannot be read (files were moved or removed meanwhile)") from None
            raise SourceDenied(f"INPUT_FILE cannot be read ({error.strerror})") from None
        found.check()
        return found

    def _walk(self, folder: Path, prefix: str, found: Listing) -> None:
        with os.scandir(folder) as entries:
            for entry in entries:
                path = prefix + entry.name
                if found.is_hidden(path):
                    continue
                if entry.is_symlink():
                    found.add_link(path)
                elif entry.is_dir(follow_symlinks=False):
                    self._walk(folder / entry.name, f"{path}/", found)
                else:
                    status = entry.stat(follow_symlinks=False)
                    found.add(_part(path, status), is_file=stat.S_ISREG(status.st_mode))

    def opened(self, part: Part) -> Opened:
        """Open a part."""
        try:
            return _OpenFile(self._root / part.path, part)
        except FileNotFoundError:
            if self._root.is_dir():
                raise SourceRefused(WAS_CHANGED) from None
            # A network share that is gone may come back with all its files.
            raise SourceUnavailable("INPUT_FILE cannot be read (the folder is gone)") from None


class _OpenFile:
    def __init__(self, path: Path, part: Part) -> None:
        self._part = part
        with _disk_errors():
            # No link is followed, and a pipe in place of a file does not block.
            flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
            self.file: BinaryIO = os.fdopen(os.open(path, flags), "rb", buffering=0)
        try:
            self.check()
        except BaseException:
            self.close()
            raise

    def check(self) -> None:
        with _disk_errors():
            now = _part(self._part.path, os.fstat(self.file.fileno()))
        if (now.size, now.state) != (self._part.size, self._part.state):
            raise SourceRefused(WAS_CHANGED)

    def close(self) -> None:
        self.file.close()


def _part(path: str, status: os.stat_result) -> Part:
    version = str(status.st_mtime_ns)
    # These differ even if another file was put in its place, or got its modification time.
    inode = 0 if os.name == "nt" else status.st_ino
    return Part(path, status.st_size, version, f"{version} {status.st_ctime_ns} {inode}")


@contextmanager
def _disk_errors() -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise
    except (PermissionError, NotADirectoryError) as error:
        raise SourceDenied(f"INPUT_FILE cannot be read ({error.strerror})") from None
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EISDIR):
            # A link or a folder replaced the file.
            raise SourceRefused(WAS_CHANGED) from None
        raise SourceUnavailable(f"INPUT_FILE cannot be read ({error.strerror or type(error).__name__})") from None


def sources_of_paths(parts: Sequence[Part], folders: Sequence[str]) -> list[tuple[str | None] | None]:
    """Return the source that each part's folders name: `(id,)`, `(None,)` for rows without a source, or None if no folder names one.

    Args:
        parts: In order.
        folders: Names of the folders above the data set.

    Raises:
        SourceRefused: Folders partition the rows by a column other than the source and the time.
    """
    above = [name for name in folders if "=" in name]
    found: list[tuple[str | None] | None] = []
    other: dict[str, str | None] | None = None
    for number, part in enumerate(parts, start=1):
        columns = _columns_of([*above, *part.path.split("/")[:-1]], number)
        found.append((columns.pop("source_id"),) if "source_id" in columns else None)
        if {"timestamp", "ecg"} & set(columns):
            raise SourceRefused(
                f"INPUT_FILE: the folders of part {number} name a time or a value, which must be columns of the files; "
                f"{HOW_PARTS_ARE_COUNTED}"
            )
        rest = {key: value for key, value in columns.items() if key not in _TIME_KEYS}
        if other is not None and rest != other:
            raise SourceRefused(
                "INPUT_FILE: folders named column=value divide it by more than source_id and time: the rows of part 1 and part "
                f"{number} may be of different series (leads, wards, units). Name one of them, such as FOLDER/column=value, each with a "
                f"STATE_DIR of its own; {HOW_PARTS_ARE_COUNTED}"
            )
        other = rest
    return found


def _columns_of(folders: Sequence[str], number: int) -> dict[str, str | None]:
    """Return the columns of folders named `column=value`."""
    columns: dict[str, str | None] = {}
    for folder in folders:
        name, is_column, text = folder.partition("=")
        if not is_column:
            continue
        key, value = normalized(_decoded(name, number)), None if text == _NO_VALUE else _decoded(text, number)
        if columns.setdefault(key, value) != value:
            raise SourceRefused(
                f"INPUT_FILE: the folders of part {number} give two values to one column; {HOW_PARTS_ARE_COUNTED}"
            )
    return columns


def _decoded(text: str, number: int) -> str:
    try:
        found = unquote(text, errors="strict")
        found.encode()
    except UnicodeError:
        raise SourceRefused(
            f"INPUT_FILE: a folder of part {number} has a name that is not UTF-8; {HOW_PARTS_ARE_COUNTED}"
        ) from None
    return found
