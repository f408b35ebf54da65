"""What a setting's text may say, and what it then means. Each parser returns the value or raises ValueError with what was expected."""

from __future__ import annotations

import re
import urllib.parse
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from transport.addresses import may_hold_credentials

Parser = Callable[[str], Any]

_TRUE, _FALSE = ("true", "1", "yes", "on"), ("false", "0", "no", "off")


class Secret:
    """A text that is never shown: not by repr, not in a message, not in a log.

    Args:
        text: The secret.
        file: The file it was read from, if it was: its content may change while we run.
    """

    __slots__ = ("_file", "_text")

    def __init__(self, text: str, file: Path | None = None) -> None:
        self._text = text
        self._file = file

    def reveal(self) -> str:
        """Return the text, for the one place that must send or use it."""
        return self._text

    def current(self) -> str:
        """Return what the file holds now, for a token that somebody may replace; the text itself when there is no file to read."""
        if self._file is not None:
            with suppress(OSError, UnicodeDecodeError):
                self._text = read_secret(self._file) or self._text
        return self._text

    def __bool__(self) -> bool:
        return bool(self._text)

    def __repr__(self) -> str:
        return "Secret(…)"


def read_secret(file: Path) -> str:
    """Return the secret a file holds, without the line end that editors add.

    Raises:
        OSError: It cannot be read.
        UnicodeDecodeError: It is not text.
    """
    return file.read_text(encoding="utf-8").removesuffix("\n").removesuffix("\r").strip()


def text(value: str) -> str:
    """Any text."""
    return value


def secret(value: str) -> Secret:
    """A text that is never shown."""
    return Secret(value)


def boolean(value: str) -> bool:
    """`true` or `false`, or one of their usual spellings."""
    if value.lower() in _TRUE:
        return True
    if value.lower() in _FALSE:
        return False
    raise ValueError("true or false")


def whole_number(least: int, most: int | None = None) -> Parser:
    """A whole number of at least `least`, and at most `most`."""
    expected = f"a whole number of at least {least}" if most is None else f"a whole number from {least} to {most}"

    def parse(value: str) -> int:
        try:
            number = int(value)
        except ValueError:
            raise ValueError(expected) from None
        if number < least or (most is not None and number > most):
            raise ValueError(expected)
        return number

    return parse


def positive_number(value: str) -> float:
    """A number above 0, such as 0.5 or 24."""
    expected = "a number above 0, such as 0.5 or 24"
    try:
        number = float(value)
    except ValueError:
        raise ValueError(expected) from None
    if not 0 < number < float("inf"):
        raise ValueError(expected)
    return number


#: Every permission that a file of data may have: its owner reads and writes, its group may too, others may read. No one executes it.
_MOST_OF_A_FILE_MODE = 0o664
_OWNER_READS_AND_WRITES = 0o600


def file_mode(value: str) -> int:
    """The permissions of a file, in octal."""
    expected = "a file mode in octal from 0600 to 0664, without write permission for others or execute permission, such as 0640"
    if not re.fullmatch("0?[0-7]{3}", value):
        raise ValueError(expected)
    mode = int(value, 8)
    if mode & ~_MOST_OF_A_FILE_MODE or mode & _OWNER_READS_AND_WRITES != _OWNER_READS_AND_WRITES:
        raise ValueError(expected)
    return mode


def one_of(*choices: str) -> Parser:
    """One of a few words, in any case."""
    by_lower = {choice.lower(): choice for choice in choices}

    def parse(value: str) -> str:
        if value.lower() not in by_lower:
            raise ValueError(f"one of {', '.join(choices)}")
        return by_lower[value.lower()]

    return parse


def web_address(value: str) -> str:
    """An http or https address, without a name or password in it."""
    expected = "an address such as http://localhost:8086"
    try:
        parts = urllib.parse.urlsplit(value)
        port_is_good = parts.port is None or parts.port > 0
    except ValueError:
        raise ValueError(expected) from None
    if parts.scheme not in ("http", "https") or not parts.hostname or not port_is_good:
        raise ValueError(expected)
    if may_hold_credentials(value):
        raise ValueError("an address without user name and password in it (tokens have settings of their own; write an @ as %40)")
    if "#" in value:
        raise ValueError("an address without # (what follows it is never sent; write a # as %23)")
    # What follows a question mark may be a key: it is sent as it stands.
    return value if "?" in value else value.rstrip("/")


def server_address(value: str) -> str:
    """An http or https address that paths can be added to."""
    address = web_address(value)
    if "?" in address:
        raise ValueError("the address of a server, without ? (tokens have settings of their own)")
    return address


def moment(value: str) -> int:
    """A time in ISO 8601, in UTC when it names no zone; returned in nanoseconds since the epoch."""
    try:
        parsed = datetime.fromisoformat(value)
    except ValueError:
        raise ValueError("a time such as 2025-11-03T14:30:00Z (UTC when no zone is given)") from None
    in_utc = parsed.replace(tzinfo=UTC) if parsed.tzinfo is None else parsed.astimezone(UTC)
    since = in_utc - datetime(1970, 1, 1, tzinfo=UTC)
    return ((since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds) * 1_000


def names(value: str) -> tuple[str, ...]:
    """Names between commas."""
    found = tuple(name for part in value.split(",") if (name := part.strip()))
    if not found:
        raise ValueError("names between commas")
    return found


def tag_filter(value: str) -> tuple[tuple[str, str], ...]:
    """Tags and values, `lead=I,site=ward 3`."""
    pairs = []
    for part in names(value):
        tag, equals, wanted = part.partition("=")
        if not (tag.strip() and equals and wanted.strip()):
            raise ValueError("tag=value pairs between commas, such as lead=I")
        pairs.append((tag.strip(), wanted.strip()))
    return tuple(pairs)


def seconds_list(value: str) -> tuple[int, ...]:
    """Whole seconds between commas, ascending."""
    expected = "whole seconds between commas, ascending, such as 30,300,86400"
    try:
        found = tuple(int(part) for part in value.split(","))
    except ValueError:
        raise ValueError(expected) from None
    if any(number <= 0 for number in found) or list(found) != sorted(set(found)):
        raise ValueError(expected)
    return found


def file_name_pattern(value: str) -> str:
    """A file name with strftime's fields."""
    expected = "a file name with strftime fields and no folder, such as ecg_anonymized_%Y%m%d_%H%M%S.csv"
    if "/" in value or "\\" in value or value in (".", ".."):
        raise ValueError(expected)
    try:
        filled = datetime(2025, 11, 3, 14, 30, tzinfo=UTC).strftime(value)
    except ValueError:
        raise ValueError(expected) from None
    if not filled or any(character in filled for character in '<>:"/\\|?*\0\n'):
        raise ValueError(expected)
    return value
