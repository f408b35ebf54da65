"""Looks for planted texts and numbers in whatever a run leaves behind, packed and encoded however it may be."""

from __future__ import annotations

import base64
import binascii
import bz2
import contextlib
import gzip
import io
import json
import lzma
import re
import sqlite3
import struct
import tempfile
import urllib.parse
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.ipc as pa_ipc
import pyarrow.parquet as pa_parquet

#: How often something unpacked may be unpacked again.
DEPTH = 3

#: What may be base64 or hexadecimal digits of something.
_TOKEN = re.compile(rb"[A-Za-z0-9+/_-]{16,}={0,2}")

_UNPACK_ERRORS = (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, sqlite3.Error, pa.ArrowException)


class Found(NamedTuple):
    """A canary, where it was seen, and in which form."""

    place: str
    canary: str
    form: str


@dataclass(frozen=True)
class Canaries:
    """What must not be found.

    Args:
        texts: Ids, keys, tokens.
        values: Numbers in microvolts that no other row resembles.
    """

    texts: tuple[str, ...]
    values: tuple[float, ...]

    def search(self, places: Mapping[str, bytes]) -> list[Found]:
        """Return every canary in every place, each form once."""
        return [found for place, content in places.items() for found in self._search_one(place, content)]

    def _search_one(self, place: str, content: bytes) -> Iterator[Found]:
        for how, blob in opened(content):
            for canary in self.texts:
                yield from (Found(place, canary, f"{form}{how}") for form, needle in forms_of_text(canary) if needle in blob)
            for value in self.values:
                yield from (Found(place, str(value), f"{form}{how}") for form, is_in in forms_of_value(value) if is_in(blob))


def forms_of_text(text: str) -> Iterator[tuple[str, bytes]]:
    """Yield the ways a text is written, by name."""
    plain = text.encode()
    yield "as it is", plain
    yield "utf-16", text.encode("utf-16-le")
    yield "backwards", text[::-1].encode()
    yield "hexadecimal", plain.hex().encode()
    yield "HEXADECIMAL", plain.hex().upper().encode()
    yield "repr of bytes", repr(plain)[2:-1].encode()
    yield "ascii()", ascii(text)[1:-1].encode()
    yield "JSON", json.dumps(text)[1:-1].encode()
    yield "in an address", urllib.parse.quote(text).encode()
    yield "bytes in a list", ", ".join(map(str, plain)).encode()
    for start in range(3):
        # Base64 looks different at each place modulo three; its ends depend on the neighbours and are left off.
        digits = base64.b64encode(b"\0" * start + plain)
        middle = digits[-(-start * 8 // 6) : (start + len(plain)) * 8 // 6]
        yield f"base64, place {start}", middle
        yield f"base64 for addresses, place {start}", middle.translate(bytes.maketrans(b"+/", b"-_"))


def forms_of_value(value: float) -> Iterator[tuple[str, Callable[[bytes], bool]]]:
    """Yield what tells whether a number is there, in the ways numbers are written, by name."""
    whole = round(value)
    # One digit of the fraction is in every longer form too, unless it was rounded to that one.
    yield "digits", _holds(f"{value:.9f}"[:-8].encode())
    yield "rounded to a tenth", _holds(f"{value:.1f}".encode())
    yield "whole", _matches(rb"(?<![\d.])" + re.escape(str(whole).encode()) + rb"(?:\.0*)?(?![\da-f.]|-\d)")
    yield "millivolts", _holds(f"{value / 1000:.9f}"[:-5].encode())
    yield "with an exponent", _holds(f"{value:.9e}".partition("e")[0][:-4].encode())
    yield "hexadecimal float", _holds(value.hex().encode())
    for name, number in (("double", value), ("whole double", float(whole))):
        yield name, _holds(struct.pack("<d", number))
        yield f"{name}, big-endian", _holds(struct.pack(">d", number))
        yield f"{name}, single, in a column", _holds_single(struct.pack("<f", number))
    yield "int64", _holds(struct.pack("<q", whole))
    yield "int32", _holds(struct.pack("<i", whole) + b"\0" if whole >= 0 else struct.pack("<i", whole) + b"\xff")
    # Two bytes are everywhere: only between two numbers that are as small as those that are planted beside it.
    yield "int16 in a column", _matches(b"(?s)[\0-\x7f]\0%b[\0-\x7f]\0" % re.escape(struct.pack("<h", whole)))


def _holds_single(needle: bytes) -> Callable[[bytes], bool]:
    """Look for a number of four bytes beside a round one: random names and digests hold any four bytes once in ten thousand runs."""
    round_number = rb"\0[\0-\xff]{2}[\x3f-\x45\xbf-\xc5]|\0{4}"
    return _matches(b"(?s)(?:%b)%b|%b(?:%b)" % (round_number, re.escape(needle), re.escape(needle), round_number))


def _holds(needle: bytes) -> Callable[[bytes], bool]:
    return lambda blob: needle in blob


def _matches(pattern: bytes) -> Callable[[bytes], bool]:
    compiled = re.compile(pattern)
    return lambda blob: compiled.search(blob) is not None


def opened(content: bytes, depth: int = DEPTH) -> Iterator[tuple[str, bytes]]:
    """Yield the content and everything that can be unpacked or decoded from it, with how that was done."""
    yield "", content
    if not depth:
        return
    for how, inner in _unpacked(content):
        yield from ((f" in {how}{further}", blob) for further, blob in opened(inner, depth - 1))


def _unpacked(content: bytes) -> Iterator[tuple[str, bytes]]:
    for how, unpack in _UNPACKERS.items():
        with contextlib.suppress(*_UNPACK_ERRORS):
            yield from ((how, inner) for inner in unpack(content))
    tokens = set(_TOKEN.findall(content))
    decoded = [inner for token in tokens for inner in _decoded(token)]
    if decoded:
        yield "base64 or hexadecimal digits", b"\0\n".join(decoded)


def _decoded(token: bytes) -> Iterator[bytes]:
    with contextlib.suppress(binascii.Error, ValueError):
        yield binascii.unhexlify(token)
        return
    bare = token.rstrip(b"=").translate(bytes.maketrans(b"-_", b"+/"))
    with contextlib.suppress(binascii.Error, ValueError):
        inner = base64.b64decode(bare + b"=" * (-len(bare) % 4))
        yield inner
        with contextlib.suppress(*_UNPACK_ERRORS):
            yield gzip.decompress(inner)


def _zlib(content: bytes) -> list[bytes]:
    return [zlib.decompressobj().decompress(content)] if content[:1] == b"\x78" else []


def _zip(content: bytes) -> list[bytes]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return [archive.read(name) for name in archive.namelist()]


def _parquet(content: bytes) -> list[bytes]:
    return _columns(pa_parquet.read_table(pa.BufferReader(content))) if content[:4] == b"PAR1" else []


def _arrow(content: bytes) -> list[bytes]:
    return _columns(pa_ipc.open_file(content).read_all()) if content[:6] == b"ARROW1" else []


def _columns(table: pa.Table) -> list[bytes]:
    return ["\n".join(map(str, column.to_pylist())).encode() for column in table.columns]


def _sqlite(content: bytes) -> list[bytes]:
    if not content.startswith(b"SQLite format 3\0"):
        return []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "copy.sqlite"
        path.write_bytes(content)
        with contextlib.closing(sqlite3.connect(path)) as database:
            return ["\n".join(database.iterdump()).encode(), *_blobs(database)]


def _blobs(database: sqlite3.Connection) -> Iterable[bytes]:
    names = [name for (name,) in database.execute("select name from sqlite_master where type = 'table'")]
    for name in names:
        for row in database.execute(f'select * from "{name}"').fetchall():
            yield from (cell for cell in row if isinstance(cell, bytes))


_UNPACKERS: dict[str, Callable[[bytes], Iterable[bytes]]] = {
    "gzip": lambda content: [gzip.decompress(content)] if content[:2] == b"\x1f\x8b" else [],
    "bz2": lambda content: [bz2.decompress(content)] if content[:3] == b"BZh" else [],
    "xz": lambda content: [lzma.decompress(content)] if content[:6] == b"\xfd7zXZ\0" else [],
    "zlib": _zlib,
    "zip": lambda content: _zip(content) if content[:2] == b"PK" else [],
    "parquet": _parquet,
    "arrow": _arrow,
    "sqlite": _sqlite,
}


def left_in(folder: Path, *, without: Iterable[str] = ()) -> dict[str, bytes]:
    """Return the content of every file of a folder by its path, without those of these names. A database comes with its log put in too."""
    places = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name not in set(without):
            places[str(path.relative_to(folder))] = path.read_bytes()
            if path.suffix == ".sqlite":
                places[f"{path.relative_to(folder)}, every row"] = _with_its_log(path)
    return places


def _with_its_log(path: Path) -> bytes:
    """Return a database as text, what still stands in its write-ahead log included; the files stay as they are."""
    with tempfile.TemporaryDirectory() as folder:
        for part in path.parent.glob(f"{path.name}*"):
            (Path(folder) / part.name).write_bytes(part.read_bytes())
        with contextlib.closing(sqlite3.connect(Path(folder) / path.name)) as database:
            return "\n".join(database.iterdump()).encode()
