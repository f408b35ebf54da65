"""CSV files: `timestamp,source_id,ecg`, one or many windows to a file.

Delivery: once in a file, even after a crash: a file is cut back to the length of the last receipt before anything is appended, and a batch
is durable (fsync) before its receipt is given.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from anonymizer.batch import Batch
from anonymizer.errors import OutputUnavailable
from anonymizer.ports import Receipt
from outputs.encoding import joined, source_texts, time_texts, value_texts, window_start

HEADER = b"timestamp,source_id,ecg\n"


class CsvFiles:
    """Appends each batch to the file its window's start names.

    Args:
        folder: Made when it is not there.
        pattern: File name with strftime's fields, filled with the window's start in UTC.
    """

    kind = "csv"

    def __init__(self, folder: Path, pattern: str) -> None:
        self._folder = folder
        self._pattern = pattern
        self._lengths: dict[str, int] = {}
        self._last_batch_id = ""
        self._length_before_last = 0
        self.name = f"csv:{folder}"

    def open(self, receipts: Mapping[str, Receipt]) -> None:
        """Make the folder and see that it can be written to; believe the lengths in the receipts."""
        self._lengths = {file_name: int(receipt["length"]) for file_name, receipt in receipts.items()}
        probe = self._folder / f".write-probe-{os.getpid()}"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            probe.write_bytes(b"")
            probe.unlink()
        except OSError as error:
            raise self._unavailable(error) from None

    def target(self, batch: Batch) -> str:
        """Return the file the batch goes to, for the log."""
        return _shown(self._folder / self._file_name(batch))

    def intent(self, batch: Batch) -> Receipt | None:
        """Return that a file of ours begins, before it does: after a crash it would else look like somebody else's."""
        path = self._folder / self._file_name(batch)
        try:
            # A file that somebody took away is begun again: what they took, they have.
            if path.name in self._lengths and path.exists():
                return None
            self._begin(path)
        except OSError as error:
            raise self._unavailable(error) from None
        return {"key": path.name, "length": 0}

    def write(self, batch: Batch) -> Receipt:
        """Append the batch to its file and return the file's length."""
        self.intent(batch)
        file_name = self._file_name(batch)
        path = self._folder / file_name
        body = encode(batch)
        try:
            path.touch()
            # Whoever offers the last batch again did not learn that it was taken.
            is_again = batch.batch_id == self._last_batch_id
            length_before = self._length_before_last if is_again else self._lengths[file_name]
            length = _append(path, length_before, body)
        except OSError as error:
            raise self._unavailable(error) from None
        self._lengths[file_name] = length
        self._last_batch_id, self._length_before_last = batch.batch_id, length_before
        return {"key": file_name, "length": length}

    def close(self) -> None:
        """Nothing stays open between writes."""

    def _file_name(self, batch: Batch) -> str:
        return window_start(batch).strftime(self._pattern)

    def _begin(self, path: Path) -> None:
        """Claim a file's name; a file of that name which we know nothing of is kept under another."""
        # Fails when the folder is gone. It may be a disk that comes back with our files on it: they must still be known then.
        path.parent.stat()
        if path.exists():
            _set_aside(path)
        self._lengths[path.name] = 0
        self._last_batch_id = ""

    def _unavailable(self, error: OSError) -> OutputUnavailable:
        return OutputUnavailable(f"CSV_OUTPUT_DIR {self._folder} cannot be written to ({error.strerror or error})")


def encode(batch: Batch) -> bytes:
    """Return the batch's rows as CSV lines."""
    return joined(
        time_texts(batch.times_ns),
        source_texts(batch.source_index, [f",{_quoted(name)}," for name in batch.source_ids]),
        value_texts(batch.values_uv),
        "\n",
    )


def _quoted(text: str) -> str:
    """Quote as RFC 4180 does, where it is needed."""
    if any(character in text for character in ',"\r\n'):
        return '"' + text.replace('"', '""') + '"'
    return text


def _append(path: Path, length: int, body: bytes) -> int:
    """Cut the file back to `length`, append `body`, and return the new length once both are on the disk."""
    if path.stat().st_size < length:
        raise OSError(f"{path.name} is shorter than what was written to it; it was changed by somebody else")
    if not length:
        body = HEADER + body
    try:
        with path.open("r+b") as file:
            # A crash may have left a part of a batch behind.
            file.truncate(length)
            file.seek(length)
            file.write(body)
            file.flush()
            os.fsync(file.fileno())
        if not length:
            _sync_folder(path.parent)
    except OSError:
        # Half a line would be there for all to read until the disk has room again.
        with suppress(OSError):
            _cut_back(path, length)
        raise
    return length + len(body)


def _cut_back(path: Path, length: int) -> None:
    if length:
        os.truncate(path, length)
    else:
        path.unlink()


def _set_aside(path: Path) -> None:
    number = 1
    while (kept := path.with_name(f"{path.name}.previous-{number}")).exists():
        number += 1
    path.rename(kept)


def _sync_folder(folder: Path) -> None:
    # Until the folder is synced, the power may still take the new name. Windows has no such call and needs none.
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _shown(path: Path) -> str:
    with suppress(ValueError):
        return f"./{path.absolute().relative_to(Path.cwd()).as_posix()}"
    return str(path)
