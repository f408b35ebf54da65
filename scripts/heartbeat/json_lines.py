"""Reads entries from JSON: one object, an array, or JSON Lines (one entry per line). Strict; every error has a line number.

Refused, because programs disagree on what they mean or the ledger could not hold them: NaN and Infinity, numbers beyond a double, a key
given twice, half of a surrogate pair, bytes that are not UTF-8. A byte-order mark at the start is skipped: Windows tools write one.
"""

from __future__ import annotations

import codecs
import io
import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, NoReturn

#: Longest part of a key that a message shows.
_KEY_SHOWN = 40

#: Characters allowed between two elements of an array.
_BETWEEN_ELEMENTS = re.compile(r"[ \t\n\r,]*")

_FORMS = "give one JSON object, a JSON array, or JSON Lines (one entry per line, as `jq -c` writes them)"


class BadJson(ValueError):
    """The text is not JSON that is accepted. The message continues "the text …"; `line` counts from 1."""

    def __init__(self, message: str, *, line: int = 1) -> None:
        super().__init__(message)
        self.line = line


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry as it was read.

    Args:
        place: File and line, for messages.
        value: The decoded value; None if it could not be read.
        problems: What is wrong, each a sentence that follows the place.
    """

    place: str
    value: Any
    problems: tuple[str, ...] = ()


def decode(text: str) -> Any:
    """Return the one JSON value in `text`, or raise BadJson."""
    try:
        value = _DECODER.decode(text)
        encode(value)
    except json.JSONDecodeError as error:
        raise BadJson(
            f"is not JSON at column {error.colno}: {error.msg.removesuffix(' starting at').removesuffix(' at')}",
            line=error.lineno,
        ) from None
    except RecursionError:
        raise BadJson("is nested too deeply") from None
    except UnicodeEncodeError:
        raise BadJson("holds half of a surrogate pair (\\ud800 to \\udfff), which is not a character") from None
    return value


def encode(value: Any) -> bytes:
    """Return `value` as compact JSON on one line, in UTF-8, keys in order, without a trailing newline."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()


def read_entries(data: bytes, *, name: str) -> Iterator[Entry]:
    """Yield the entries of an input in any of the three forms, with any problems found while reading."""
    data = data.removeprefix(codecs.BOM_UTF8)
    return (
        read_lines(enumerate(io.BytesIO(data), start=1), name=name) if _is_json_lines(data) else _read_document(data, name=name)
    )


def read_lines(lines: Iterator[tuple[int, bytes]], *, name: str) -> Iterator[Entry]:
    """Yield the entry of each numbered line. Blank lines hold none."""
    for number, line in lines:
        if line.strip():
            yield _read_line(line, place=f"{name}:{number}")


def _read_line(line: bytes, *, place: str) -> Entry:
    try:
        return Entry(place, decode(_text(line.rstrip(b"\r\n"))))
    except BadJson as error:
        return Entry(place, None, (f"{error}{_cut_off(line)}",))


def _cut_off(line: bytes) -> str:
    return "" if line.endswith(b"\n") else " (no newline ends this line: was the file cut off here?)"


def _is_json_lines(data: bytes) -> bool:
    """Tell JSON Lines from an array or a multi-line object.

    The second line of an object never begins with a brace, so JSON Lines are recognized even if their first line is broken.
    """
    first, second = (*islice(filter(bytes.strip, io.BytesIO(data)), 2), b"", b"")[:2]
    if first.lstrip().startswith(b"["):
        return False
    return not second or second.lstrip().startswith(b"{") or not _read_line(first, place="").problems


def _read_document(data: bytes, *, name: str) -> Iterator[Entry]:
    """Yield the one object, or each element of the one array."""
    try:
        text = _text(data)
        value = decode(text)
    except BadJson as error:
        yield Entry(f"{name}:{error.line}", None, (f"{error}; {_FORMS}",))
        return
    if isinstance(value, list):
        yield from (Entry(f"{name}:{line}", element) for line, element in zip(_element_lines(text), value, strict=True))
    else:
        yield Entry(f"{name}:{_first_line(text)}", value)


def _first_line(text: str) -> int:
    return text.count("\n", 0, len(text) - len(text.lstrip())) + 1


def _element_lines(text: str) -> Iterator[int]:
    """Yield the line on which each element begins. The text must be one JSON array."""
    line, counted, position = 1, 0, text.index("[") + 1
    while text[position := _next_element(text, position)] != "]":
        line += text.count("\n", counted, position)
        counted = position
        yield line
        _, position = _DECODER.raw_decode(text, position)


def _next_element(text: str, position: int) -> int:
    between = _BETWEEN_ELEMENTS.match(text, position)
    assert between is not None
    return between.end()


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        column = error.start - data.rfind(b"\n", 0, error.start)
        raise BadJson(f"is not UTF-8: byte {data[error.start]:#04x} at column {column}; save it as UTF-8", line=line) from None


def _object(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """Build an object, unless a key is given twice: parsers differ on which of the two counts."""
    members = dict(pairs)
    if len(members) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise BadJson(f"gives the key {json.dumps(twice[:_KEY_SHOWN])} twice in one object")
    return members


def _number(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise BadJson("holds a number that is too large for a double")
    return number


def _whole_number(text: str) -> int:
    _number(text)
    return int(text)


def _no_number(text: str) -> NoReturn:
    raise BadJson(f"is not JSON: {text} is not a number that JSON has")


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_float=_number, parse_int=_whole_number, parse_constant=_no_number)
