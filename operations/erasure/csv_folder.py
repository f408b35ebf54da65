"""Erases from CSV files: all files of CSV_OUTPUT_DIR, also those that are complete and have no receipt, and rows that were set beside them.

The bytes of all other rows stay as they are. Each file is written anew beside the old one, synced, and renamed.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from anonymizer.errors import StateUnavailable
from disk.durable_file import PRIVATE, mode_of, read_ours, write_durably
from operations.erasure.rows import Cut, Rows, Rule
from service import crash_points
from service.state.journal import Journal

#: A row: a time, an id (quoted if it holds a comma, a quote or a line end), a value.
_ROW = re.compile(rb'([0-9T:.\-]{29}Z),("(?:[^"]|"")*"|[^",\n]*),([^",\n]*)\n')

#: Bytes at the end of a committed part by which the service recognises it.
_END_BYTES = 256

_UNFINISHED = ".unfinished"


@dataclass(frozen=True, slots=True, eq=False)
class _Parsed:
    """A file: where its rows end and begin, and what is in them."""

    content: bytes
    begins: npt.NDArray[np.int64]
    ends: npt.NDArray[np.int64]
    rows: Rows


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

    def erase(self, rule: Rule, *, is_dry: bool) -> Iterator[tuple[Path, Cut]]:
        """Erase from every file, or only look; yield what is taken from each."""
        for leftover in self._folder.glob(f"*{_UNFINISHED}"):
            if not is_dry:
                leftover.unlink()
        for path in sorted(one for one in self._folder.rglob("*") if one.is_file() and not one.is_symlink()):
            if not path.name.endswith(_UNFINISHED):
                yield path, self._erase_from(path, rule, is_dry=is_dry)

    def _erase_from(self, path: Path, rule: Rule, *, is_dry: bool) -> Cut:
        content = read_ours(path)
        receipt = self._receipts.get(path.name)
        staged = self._staged.get(path.name)
        if staged is not None and staged.get("digest") == hashlib.sha256(content).hexdigest():
            # An erasure was interrupted before its books were made: this file is done.
            return rule.cut(parsed(b"").rows)
        committed = len(content) if receipt is None or receipt.get("may_have_grown") else min(receipt["length"], len(content))
        found = parsed(content[:committed])
        cut = rule.cut(found.rows)
        if is_dry or not (cut.is_gone.any() or committed < len(content)):
            return cut
        self._journal.erasures.record(f"csv {path.name}", cut.taken)
        crash_points.reached(crash_points.ERASURE_FOUND)
        new = _without(found, cut.is_gone)
        if receipt is not None:
            self._stage(path, new, found, cut.is_gone, min(receipt["length"], committed))
        try:
            write_durably(path, new, mode=mode_of(path, otherwise=PRIVATE))
        except OSError as error:
            raise StateUnavailable(f"{path} cannot be replaced now ({error.strerror or error}); run it again") from None
        crash_points.reached(crash_points.ERASURE_REPLACED)
        return cut

    def _stage(self, path: Path, new: bytes, found: _Parsed, is_gone: npt.NDArray[np.bool_], length: int) -> None:
        """Record the receipt that the new file will have, with the digest by which the file is recognised as done."""
        lost = int((found.ends - found.begins)[is_gone & (found.ends <= length)].sum())
        end = new[: length - lost][-_END_BYTES:]
        receipt = {
            **self._receipts[path.name],
            "length": length - lost,
            "digest": hashlib.sha256(new).hexdigest(),
            "end": [len(end), hashlib.sha256(end).hexdigest()[:16]],
        }
        if not end:
            receipt.pop("end")
        self._journal.erasures.stage_receipt(self._output, receipt)


def parsed(content: bytes) -> _Parsed:
    """Return the rows of a file. What is no row of ours, such as a header or half a line, belongs to none and stays."""
    found = list(_ROW.finditer(content))
    ids: dict[bytes, int] = {}
    codes = np.array([ids.setdefault(one[2], len(ids)) for one in found], dtype=np.int32)
    texts = np.array([one[1][:-1].decode() for one in found], dtype="datetime64[ns]")
    values = np.array([_number(one[3]) for one in found], dtype=np.float64)
    rows = Rows(texts.astype(np.int64), codes, tuple(_unquoted(one) for one in ids), values)
    spans = np.array([one.span() for one in found], dtype=np.int64).reshape(len(found), 2)
    return _Parsed(content, spans[:, 0], spans[:, 1], rows)


def _number(text: bytes) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")


def _unquoted(cell: bytes) -> str:
    text = cell.decode(errors="replace")
    return text[1:-1].replace('""', '"') if text.startswith('"') else text


def _without(found: _Parsed, is_gone: npt.NDArray[np.bool_]) -> bytes:
    kept, position = bytearray(), 0
    for begin, end in zip(found.begins[is_gone].tolist(), found.ends[is_gone].tolist(), strict=True):
        kept += found.content[position:begin]
        position = end
    return bytes(kept + found.content[position:])
