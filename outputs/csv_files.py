"""CSV files: `timestamp,source_id,ecg`, one or many windows per file.

Delivery: once in a file, even after a crash: what a crash left after the last receipt's length is completed or cut off before anything
is appended, and a batch is durable (fsync) before its receipt is returned. Foreign rows there are kept as `….csv.tail-1`.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from anonymizer.batch import Batch
from anonymizer.errors import IntentChanged, OutputDenied, OutputUnavailable
from anonymizer.ports import Receipt
from anonymizer.windows import NANOSECONDS
from disk.durable_file import PRIVATE, folder_mode, make_folder, probe
from disk.file_lock import try_to_lock
from outputs.committed_file import Committed, append, grown, move_aside
from outputs.csv_lines import encode
from outputs.csv_names import HEADER, covered_ns, unit_s
from outputs.encoding import window_start

#: If every window has its own file, one is encoded while another is written.
_FILES_AT_A_TIME = 2


@dataclass(frozen=True, slots=True)
class _Known:
    """What the journal knows of a file.

    Args:
        committed: Its committed part.
        covered_ns: How much of its name's interval its windows cover.
        may_have_grown: Whether it may contain windows that a damaged journal lost.
    """

    committed: Committed = field(default_factory=Committed)
    covered_ns: int = 0
    may_have_grown: bool = False

    @classmethod
    def of(cls, receipt: Receipt) -> _Known:
        """Return what a receipt states; receipts of earlier versions lack some keys."""
        end = receipt.get("end")
        committed = Committed(receipt["length"], (end[0], end[1]) if end else None)
        return cls(committed, receipt.get("covered_ns", 0), receipt.get("may_have_grown", False))

    def receipt(self, file_name: str) -> Receipt:
        said = {"key": file_name, "length": self.committed.length, "covered_ns": self.covered_ns}
        return {**said, "end": list(self.committed.end)} if self.committed.end else said


@dataclass(frozen=True, slots=True)
class _Written:
    """A recent write: its file, and what was known of the file before."""

    file_name: str
    before: _Known


class CsvFiles:
    """Appends each batch to the file its window's start names.

    Args:
        folder: Created if it is missing.
        pattern: File name with strftime's fields, filled with the window's start in UTC.
        file_mode: Permissions of created files; existing files keep theirs.
        is_alone: Whether to refuse a folder in which another process writes: each would take the other's files for foreign ones.
    """

    kind = "csv"

    def __init__(self, folder: Path, pattern: str, *, file_mode: int = PRIVATE, is_alone: bool = False) -> None:
        self._folder = folder
        self._file_mode = file_mode
        self._pattern = pattern
        self._unit_s = unit_s(pattern)
        self.concurrency = _FILES_AT_A_TIME if self._unit_s == 1 else 1
        self._lock = threading.Lock()
        self._is_alone = is_alone
        self._folder_lock: int | None = None
        self._known: dict[str, _Known] = {}
        #: By batch, in the order of writing.
        self._recent: dict[str, _Written] = {}
        self.name = f"csv:{os.path.realpath(folder)}"  # one folder has one name, however it is reached

    def open(self, receipts: Mapping[str, Receipt]) -> None:
        """Create the folder, and check that it can be written to. The receipts' lengths are trusted."""
        self._known = {file_name: _Known.of(receipt) for file_name, receipt in receipts.items()}
        try:
            if any(known.committed.length for known in self._known.values()) and not self._folder.exists():
                raise OutputUnavailable(
                    f"CSV_OUTPUT_DIR {self._folder} is not there, although files in it are not finished: is its disk missing? If they "
                    "were removed on purpose, make the folder"
                )
            make_folder(self._folder, folder_mode(self._file_mode))
            if self._is_alone and self._folder_lock is None:
                self._folder_lock = self._locked()
            probe(self._folder)
        except OSError as error:
            raise self._unavailable(error) from None

    def target(self, batch: Batch) -> str:
        """Return the file the batch goes to, for the log."""
        return _shown(self._folder / self._file_name(batch))

    def intent(self, batch: Batch) -> Receipt | None:
        """Record that a file begins before it does: after a crash it would otherwise look foreign."""
        path = self._folder / self._file_name(batch)
        try:
            with self._lock:
                # A file that was moved away is begun again, without the rows that went with it.
                known = self._known.get(path.name)
                if known is None or not path.exists():
                    self._begin(path)
                elif known.may_have_grown:
                    self._known[path.name] = _Known(grown(path, known.committed), known.covered_ns)
                else:
                    return None
                return self._known[path.name].receipt(path.name)
        except OSError as error:
            raise self._unavailable(error) from None

    def write(self, batch: Batch) -> Receipt:
        """Append the batch to its file. Return the file's new state; or that the journal may forget it, if no more batches can follow."""
        file_name = self._file_name(batch)
        self._expect(batch, file_name)
        with self._lock:
            # The service offers a batch again if it did not learn that it was taken.
            again = self._recent.get(batch.batch_id)
            before = again.before if again else self._known.get(file_name, _Known())
        body = encode(batch, before=b"" if before.committed.length else HEADER)
        try:
            committed = append(self._folder / file_name, before.committed, body, mode=self._file_mode)
        except OSError as error:
            raise self._unavailable(error) from None
        after = _Known(committed, before.covered_ns + self._covered_ns(batch))
        with self._lock:
            self._remember(batch.batch_id, _Written(file_name, before), after)
        return {"key": file_name, "forget": True} if self._is_complete(after) else after.receipt(file_name)

    def close(self) -> None:
        """Let another process write to the folder. No file stays open between writes."""
        if self._folder_lock is not None:
            os.close(self._folder_lock)
            self._folder_lock = None

    def _locked(self) -> int | None:
        """Lock the folder itself, so that no file is added to it; return its descriptor, None where folders cannot be locked.

        Raises:
            OutputDenied: Another process has locked it.
        """
        # Windows cannot open a folder.
        if os.name != "posix":
            return None
        descriptor = os.open(self._folder, os.O_RDONLY)
        try:
            is_free = try_to_lock(descriptor)
        except OSError:
            # Such as on NFS without lockd.
            os.close(descriptor)
            return None
        if is_free:
            return descriptor
        os.close(descriptor)
        raise OutputDenied(
            f"CSV_OUTPUT_DIR {self._folder} is in use: another service, with another STATE_DIR, writes its files there, and each would "
            "take the other's for foreign ones. Stop it, or give each STATE_DIR a CSV_OUTPUT_DIR of its own"
        )

    def _file_name(self, batch: Batch) -> str:
        return window_start(batch).strftime(self._pattern)

    def _covered_ns(self, batch: Batch) -> int:
        return covered_ns(batch.window, of_unit_s=self._unit_s) if self._unit_s else 0

    def _is_complete(self, known: _Known) -> bool:
        """Return whether no more windows can follow in a file: released windows never overlap."""
        return self._unit_s is not None and known.covered_ns == self._unit_s * NANOSECONDS

    def _expect(self, batch: Batch, file_name: str) -> None:
        """Raise IntentChanged if a file with committed rows is gone."""
        was_begun = self._known.get(file_name, _Known()).committed.length > 0
        if self.intent(batch) is not None and was_begun:
            raise IntentChanged(f"{file_name} was taken away; it is begun again")

    def _begin(self, path: Path) -> None:
        """Claim a file's name; an unknown file of that name is renamed."""
        # Fails if the folder is gone. Its disk may come back with the files on it, which must still be known then.
        path.parent.stat()
        if os.path.lexists(path):
            move_aside(path)
        self._known[path.name] = _Known()
        self._recent = {batch_id: one for batch_id, one in self._recent.items() if one.file_name != path.name}

    def _remember(self, batch_id: str, written: _Written, after: _Known) -> None:
        """Remember as many batches as can be offered again, and drop complete files that have none of these."""
        self._known[written.file_name] = after
        self._recent[batch_id] = written
        while len(self._recent) > self.concurrency:
            oldest = self._recent.pop(next(iter(self._recent))).file_name
            if all(one.file_name != oldest for one in self._recent.values()) and self._is_complete(self._known[oldest]):
                del self._known[oldest]

    def _unavailable(self, error: OSError) -> OutputUnavailable:
        return OutputUnavailable(f"CSV_OUTPUT_DIR {self._folder} cannot be written to ({error.strerror or error})")


def _shown(path: Path) -> str:
    with suppress(ValueError):
        return f"./{path.absolute().relative_to(Path.cwd()).as_posix()}"
    return str(path)
