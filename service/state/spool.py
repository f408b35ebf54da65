"""Batches on disk from their release until every output has taken them: one file per chunk, complete or absent.

A file contains a line with the format version, a JSON header with everything but the columns, the columns of each batch as little-endian
bytes, and a SHA-256 of all of it. It is written under a temporary name, synced, then renamed, so that a crash leaves no partial file. It
never contains raw data: it is written from certified batches.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from anonymizer.batch import Batch, Certificate, Promise, WindowCounts
from anonymizer.errors import AnonymizerError, StateUnavailable
from anonymizer.windows import Window
from disk.durable_file import make_folder, read_ours, sync_folder, write_durably
from service import crash_points

_HEAD = b"ecg-anonymizer spool 1\n"

_DIGEST_BYTES = hashlib.sha256().digest_size

_HEADER_LENGTH_BYTES = 8

_SUFFIX = ".spool"

#: What an operator can do. The source is not read again: rows may have arrived since, and a second release would reveal them.
WAY_ON = (
    "Its windows are released, and some output lacks them. Put a good copy in its place; or run scripts/state.py give-up-lost, "
    "which reads it again and counts the rows of a lost file as set aside"
)

#: A folder beside the spool: files with released rows for which no output waits.
GIVEN_UP = "given_up"


class SpoolDamaged(AnonymizerError):
    """A spool file is missing or damaged."""


class Spool:
    """A folder of spool files, one per chunk, named by the chunk's number in the journal.

    Args:
        folder: Created if missing, unless outputs wait for files in it; only its owner may read it.
        waiting: Returns the numbers of the chunks that outputs wait for.

    Raises:
        StateUnavailable: The folder cannot be created, or is gone although outputs wait for files in it.
    """

    def __init__(self, folder: Path, *, waiting: Callable[[], Collection[int]] = tuple) -> None:
        self._folder = folder
        self._waiting = waiting
        self._refuse_if_gone()
        try:
            make_folder(folder)
        except OSError as error:
            raise StateUnavailable(f"{folder} cannot be made ({error.strerror or error})") from None

    def write(self, number: int, batches: Sequence[Batch]) -> int:
        """Store batches under a number; return their size in bytes once they are on disk.

        Raises:
            StateUnavailable: The disk cannot write them now.
        """
        path = self._path(number)
        try:
            return write_durably(
                path, encode(batches, number=number), halfway=lambda: crash_points.reached(crash_points.MID_SPOOL)
            )
        except OSError as error:
            raise StateUnavailable(f"spool file {path} cannot be written now ({error.strerror or error})") from None

    def read(self, number: int) -> list[Batch]:
        """Return the batches stored under a number.

        Raises:
            SpoolDamaged: The file is missing or damaged.
            StateUnavailable: The disk cannot be read now, so the file's condition is unknown.
        """
        path = self._path(number)
        try:
            content = read_ours(path)
        except FileNotFoundError:
            self._refuse_if_gone({number})
            raise SpoolDamaged(f"spool file {path} is missing. {WAY_ON}") from None
        except OSError as error:
            raise StateUnavailable(f"spool file {path} cannot be read now ({error.strerror or error})") from None
        return decode(content, name=path.name, number=number)

    def remove(self, number: int) -> None:
        """Remove a number's file, if any. A file that cannot be removed now is removed at the next start."""
        with suppress(OSError):
            self._path(number).unlink(missing_ok=True)

    def move_aside(self, number: int) -> Path | None:
        """Move a file that no output waits for to the folder `given_up` beside the spool; return its path, None if there is no file.

        Raises:
            StateUnavailable: The disk cannot be used now.
        """
        path, given_up = self._path(number), self._folder.with_name(GIVEN_UP)
        if number not in self.numbers():
            return None
        try:
            make_folder(given_up)
            kept = next(free for free in _names(given_up, path.name) if not os.path.lexists(free))
            path.rename(kept)
            sync_folder(given_up)
            sync_folder(self._folder)
        except OSError as error:
            raise StateUnavailable(f"spool file {path} cannot be moved now ({error.strerror or error})") from None
        return kept

    def numbers(self) -> set[int]:
        """Return the numbers that have a file.

        Raises:
            StateUnavailable: The disk cannot be read now.
        """
        try:
            names = os.listdir(self._folder)  # noqa: PTH208  (Path.glob treats an unreadable folder as empty)
        except OSError as error:
            raise StateUnavailable(f"spool folder {self._folder} cannot be read now ({error.strerror or error})") from None
        stems = (name.removesuffix(_SUFFIX) for name in names if name.endswith(_SUFFIX))
        return {int(stem) for stem in stems if stem.isdigit()}

    def remove_unfinished(self) -> None:
        """Remove files that a crash left incomplete. One that cannot be removed now is removed at the next start."""
        with suppress(OSError):
            for path in self._folder.glob("*.unfinished"):
                path.unlink()

    def _refuse_if_gone(self, requested: Collection[int] = ()) -> None:
        """Raise StateUnavailable if the folder's disk seems not to be mounted; it may come back.

        An unmounted disk leaves an empty folder. A single missing file may be lost; if several are missing and none is left, the disk is
        not mounted.
        """
        waiting = {*requested, *self._waiting()}
        exists = os.path.isdir(self._folder)  # noqa: PTH112  (Path.is_dir raises the disk's errors)
        if (waiting and not exists) or (len(waiting) > 1 and not waiting & self.numbers()):
            raise StateUnavailable(
                f"spool folder {self._folder} is gone, and outputs wait for {len(waiting)} of its files. Mount its disk, or put the folder "
                "back"
            )

    def _path(self, number: int) -> Path:
        return self._folder / f"{number:012d}{_SUFFIX}"


def _names(folder: Path, name: str) -> Iterator[Path]:
    yield folder / name
    yield from (folder / f"{name}.{number}" for number in itertools.count(2))


def encode(batches: Sequence[Batch], *, number: int | None = None) -> bytes:
    """Return certified batches as the content of a spool file, which includes its own number."""
    return encode_with_digest(batches, number=number)[0]


def encode_with_digest(batches: Sequence[Batch], *, number: int | None = None) -> tuple[bytes, str]:
    """Return the content as `encode` does, and the SHA-256 of all of it, with every byte hashed once."""
    id_tables = list(dict.fromkeys(batch.source_ids for batch in batches))
    described = [_described(batch, id_tables.index(batch.source_ids)) for batch in batches]
    header = json.dumps({"number": number, "ids": id_tables, "batches": described}).encode()
    columns = [column for batch in batches for column in _columns(batch)]
    parts: list[bytes | memoryview] = [_HEAD, len(header).to_bytes(_HEADER_LENGTH_BYTES, "little"), header, *columns]
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    parts.append(digest.digest())
    digest.update(parts[-1])
    return b"".join(parts), digest.hexdigest()


def decode(content: bytes, *, name: str, number: int | None = None, is_checked: bool = False) -> list[Batch]:
    """Return the batches that were passed to `encode`.

    Args:
        content: The content.
        name: The file's, for the message.
        number: The number it must be stored under, if any.
        is_checked: Whether the caller has compared the digest of the whole content with the one of `encode_with_digest`.

    Raises:
        SpoolDamaged: A byte is missing or changed, or it was stored under another number. The message gives `name` as the file.
    """
    body, digest = memoryview(content)[:-_DIGEST_BYTES], content[-_DIGEST_BYTES:]
    if not content.startswith(_HEAD) or (not is_checked and hashlib.sha256(body).digest() != digest):
        raise SpoolDamaged(f"spool file {name} is damaged. {WAY_ON}")
    try:
        return _decoded(body, number)
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError):
        raise SpoolDamaged(f"spool file {name} is damaged. {WAY_ON}") from None


def _decoded(body: memoryview, number: int | None) -> list[Batch]:
    start = len(_HEAD) + _HEADER_LENGTH_BYTES
    length = int.from_bytes(body[len(_HEAD) : start], "little")
    header = json.loads(bytes(body[start : start + length]))
    # Earlier versions stored no number.
    if number is not None and header.get("number", number) != number:
        raise ValueError("stored under another number")
    id_tables = [tuple(ids) for ids in header["ids"]]
    return list(_batches(header["batches"], id_tables, body[start + length :]))


def _described(batch: Batch, id_table: int) -> dict[str, Any]:
    assert batch.certificate is not None, "only certified batches are released"
    return {
        "batch_id": batch.batch_id,
        "window": [batch.window.start_ns, batch.window.end_ns],
        "rows": len(batch),
        "id_table": id_table,
        "promise": batch.promise.stated(),
        "counts": {name: count for name, count in _by_name(batch.counts).items() if count or name != "excluded"},
        "certificate": _by_name(batch.certificate),
        "imputed_value_uv": batch.imputed_value_uv,
        **({"is_erased": True} if batch.is_erased else {}),
    }


def _by_name(fields: WindowCounts | Certificate) -> dict[str, Any]:
    # Equivalent to `dataclasses.asdict`, which takes ten times as long for plain fields.
    return {name: getattr(fields, name) for name in fields.__slots__}


def _columns(batch: Batch) -> Iterator[memoryview]:
    yield np.ascontiguousarray(batch.times_ns, dtype="<i8").data
    yield np.ascontiguousarray(batch.source_index, dtype="<i4").data
    yield np.ascontiguousarray(batch.values_uv, dtype="<f8").data
    if batch.imputed_rows is not None:
        yield np.ascontiguousarray(batch.imputed_rows, dtype="?").data


def _batches(described: Sequence[dict[str, Any]], id_tables: Sequence[tuple[str, ...]], columns: memoryview) -> Iterator[Batch]:
    position = 0

    def column(kind: str, rows: int) -> npt.NDArray[Any]:
        nonlocal position
        taken = np.frombuffer(columns, dtype=kind, count=rows, offset=position)
        position += taken.nbytes
        return taken

    for one in described:
        rows = one["rows"]
        yield Batch(
            batch_id=one["batch_id"],
            window=Window(*one["window"]),
            times_ns=column("<i8", rows),
            source_index=column("<i4", rows),
            source_ids=id_tables[one["id_table"]],
            values_uv=column("<f8", rows),
            promise=Promise(**one["promise"]),
            counts=WindowCounts(**one["counts"]),
            imputed_rows=None if one["imputed_value_uv"] is None else column("?", rows),
            imputed_value_uv=one["imputed_value_uv"],
            certificate=Certificate(**one["certificate"]),
            is_erased=one.get("is_erased", False),
        )
