"""Erases from CSV files: all files of CSV_OUTPUT_DIR, also those that are complete and have no receipt, and rows that were set beside them.

The bytes of all other rows stay as they are. Each file is written anew beside the old one, synced, and renamed; it is read in pieces, so
that its size does not matter.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from anonymizer.errors import StateUnavailable
from disk.durable_file import PRIVATE, make_anew, mode_of, open_ours_to_read, replace_durably
from operations.erasure.csv_rows import pieces
from operations.erasure.rows import Cut, Rule
from service import crash_points
from service.state.journal import Journal

#: Bytes at the end of a committed part by which the service recognises it.
_END_BYTES = 256

_UNFINISHED = ".unfinished"


@dataclass(frozen=True, slots=True)
class _Written:
    """A file that was written anew.

    Args:
        path: Its temporary name.
        digest: SHA-256 of all of it.
        committed: The length of what is left of the committed part.
        end: The last bytes of that.
    """

    path: Path
    digest: str
    committed: int
    end: bytes


class CsvFolder:
    """The CSV files of one output.

    Args:
        folder: CSV_OUTPUT_DIR.
        output: The output's name in the journal.
        journal: Knows the committed lengths of files.
    """

    def __init__(self, folder: Path, output: str, journal: Journal) -> None:
        self._folder = folder
        self._output = output
        self._journal = journal
        self._receipts = journal.outputs.receipts(output)
        self._staged = journal.erasures.staged(output)

    def erase(self, rule: Rule, *, is_dry: bool) -> Iterator[Cut]:
        """Erase from every file, or only look; yield what is taken from each piece of each."""
        for leftover in self._folder.rglob(f"*{_UNFINISHED}"):
            if not is_dry:
                leftover.unlink()
        for path in sorted(one for one in self._folder.rglob("*") if one.is_file() and not one.is_symlink()):
            if not path.name.endswith(_UNFINISHED):
                with _only_unavailable(path):
                    yield from self._erase_from(path, rule, is_dry=is_dry)

    def _erase_from(self, path: Path, rule: Rule, *, is_dry: bool) -> Iterator[Cut]:
        with os.fdopen(open_ours_to_read(path), "rb") as file:
            if self._is_done(path, file):
                return
            size = os.fstat(file.fileno()).st_size
            length = self._length_of(path, size)
            is_cut = length < size
            for piece in pieces(file, length, rule.windows):
                cut = rule.cut(piece.rows)
                is_cut = is_cut or bool(cut.is_gone.any())
                if cut.taken and not is_dry:
                    self._journal.erasures.record(f"csv {path.name}", cut.taken)
                yield cut
            if is_dry or not is_cut:
                return
            crash_points.reached(crash_points.ERASURE_FOUND)
            file.seek(0)
            written = self._write_anew(path, file, length, rule)
        self._stage(path, written)
        replace_durably(written.path, path)
        crash_points.reached(crash_points.ERASURE_REPLACED)

    def _is_done(self, path: Path, file: io.BufferedReader) -> bool:
        """Return whether an erasure was interrupted after this file and before its books were made."""
        staged = self._staged.get(path.name)
        is_done = staged is not None and staged.get("digest") == hashlib.file_digest(file, "sha256").hexdigest()
        file.seek(0)
        return is_done

    def _length_of(self, path: Path, size: int) -> int:
        """Return how much of a file is the service's: what a crash left after that is cut off."""
        receipt = self._receipts.get(path.name)
        return size if receipt is None or receipt.get("may_have_grown") else min(receipt["length"], size)

    def _write_anew(self, path: Path, file: BinaryIO, length: int, rule: Rule) -> _Written:
        committed = self._receipts.get(path.name, {}).get("length", length)
        digest, position, left, end = hashlib.sha256(), 0, 0, b""
        new_path = path.with_name(path.name + _UNFINISHED)
        with make_anew(new_path, mode=mode_of(path, otherwise=PRIVATE)) as new:
            for piece in pieces(file, length, rule.windows):
                is_gone = rule.cut(piece.rows).is_gone
                kept = piece.without(is_gone)
                new.write(kept)
                digest.update(kept)
                # A file may have grown beyond its receipt while the journal was an older copy.
                is_lost = is_gone & (piece.ends <= committed - position)
                of_committed = min(len(piece.content), max(0, committed - position)) - int(
                    (piece.ends - piece.begins)[is_lost].sum()
                )
                left, end = left + of_committed, (end + kept[:of_committed])[-_END_BYTES:]
                position += len(piece.content)
        return _Written(new_path, digest.hexdigest(), left, end)

    def _stage(self, path: Path, written: _Written) -> None:
        """Record the receipt that the new file will have, with the digest by which the file is recognised as done."""
        if path.name not in self._receipts:
            return
        receipt = {
            **self._receipts[path.name],
            "length": written.committed,
            "digest": written.digest,
            "end": [len(written.end), hashlib.sha256(written.end).hexdigest()[:16]],
        }
        if not written.end:
            receipt.pop("end")
        self._journal.erasures.stage_receipt(self._output, receipt)


@contextmanager
def _only_unavailable(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        with suppress(OSError):
            path.with_name(path.name + _UNFINISHED).unlink(missing_ok=True)
        raise StateUnavailable(f"{path} cannot be read or replaced now ({error.strerror or error}); run it again") from None
