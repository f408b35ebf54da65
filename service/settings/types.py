"""Parsers of settings. Each returns the value, or raises ValueError with a description of what is expected."""

from __future__ import annotations

import ipaddress
import re
import urllib.parse
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, get_args

from anonymizer.pseudonyms import without_line_end
from transport.addresses import is_loopback, may_hold_credentials

Parser = Callable[[str], Any]

MethodName = Literal["hierarchy", "optimal", "rhythm"]
ValueUnit = Literal["uV", "mV"]
Gzip = Literal["auto", "true", "false"]
QueryLanguage = Literal["auto", "flux", "influxql"]
LogLevel = Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"]
LogFormat = Literal["text", "json"]
ParquetPartition = Literal["hour", "day"]

#: The largest number in any setting, and the largest k.
MOST, MOST_K, _MOST_DIGITS = 10**18, 10**9, 19

#: The longest time span: a leap year, so that sums of times and spans in nanoseconds fit into 64 bits.
LONGEST_S = 366 * 86_400

#: The longest request timeout: the operating system's limit for a socket is 2³¹ ms.
LONGEST_REQUEST_S = 86_400

MOST_HOURS = 876_600

#: The whole years that fit into 64 bits of nanoseconds since 1970 (InfluxDB's time), with room for windows on both sides.
FIRST_YEAR, LAST_YEAR = 1700, 2239

_LONGEST_PURPOSE = 100

_TRUE, _FALSE = ("true", "1", "yes", "on"), ("false", "0", "no", "off")


class Secret:
    """A text that is never shown: not by repr, not in a message, not in a log.

    Args:
        text: The secret.
        file: The file it was read from, if any. Its content may change while the service runs.
    """

    __slots__ = ("_file", "_text")

    def __init__(self, text: str, file: Path | None = None) -> None:
        self._text = text
        self._file = file

    def reveal(self) -> str:
        """Return the text, for the code that sends or uses it."""
        return self._text

    def key(self) -> bytes:
        """Return the key's bytes, which need not be text: those of its file or the environment, or its text as UTF-8."""
        return self._text.encode(errors="surrogateescape")

    def current(self) -> str:
        """Return the file's current content, since a token may be rotated; without a file, the text."""
        if self._file is not None:
            with suppress(OSError, ValueError):
                self._text = read_secret(self._file) or self._text
        return self._text

    def __bool__(self) -> bool:
        return bool(self._text)

    def __repr__(self) -> str:
        return "Secret(…)"


#: A larger file was named by mistake.
MOST_SECRET_BYTES = 4096


def read_secret(file: Path, *, may_be_bytes: bool = False) -> str:
    """Return the secret in a file, without the line end that editors add.

    Args:
        file: The file.
        may_be_bytes: Whether to accept bytes that are not text, for `Secret.key`.

    Raises:
        OSError: It cannot be read.
        ValueError: It is not text, or too long for a secret. The message is the reason, as a clause.
    """
    with file.open("rb") as opened:
        content = opened.read(MOST_SECRET_BYTES + 1)
    if len(content) > MOST_SECRET_BYTES:
        raise ValueError(f"it is larger than {MOST_SECRET_BYTES} bytes: is it the secret?")
    try:
        return without_line_end(content).decode(errors="surrogateescape" if may_be_bytes else "strict")
    except UnicodeDecodeError:
        raise ValueError("it is not UTF-8 text") from None


#: `~`, `$HOME`, `${HOME}`, `$(pwd)`, `` `pwd` ``, `%USERPROFILE%`, `%h`: shells and systemd expand these; the service does not.
_UNEXPANDED = re.compile(r"~|.*\$[A-Za-z_{(]|.*`|.*%[A-Za-z_]{2,}%|(.*/)?%[A-Za-z](/|$)", re.DOTALL)


def path(value: str) -> str:
    """A path, fully written out. Settings are not interpolated: `~` would become a folder of that name."""
    if _UNEXPANDED.match(value):
        raise ValueError(
            "a path without ~, $NAME or %NAME%, which are not expanded here: write it out, such as /home/me/ecg-state"
        )
    return value


def text(value: str) -> str:
    """Any text."""
    return value


def secret(value: str) -> Secret:
    """A text that is never shown."""
    return Secret(value)


def purpose(value: str) -> str:
    """The name of a recipient of pseudonyms."""
    if len(value) > _LONGEST_PURPOSE or not value.isprintable():
        raise ValueError(f"a name of at most {_LONGEST_PURPOSE} printable characters, such as registry-a")
    return value


def boolean(value: str) -> bool:
    """`true` or `false`, in one of the usual spellings."""
    if value.lower() in _TRUE:
        return True
    if value.lower() in _FALSE:
        return False
    raise ValueError("true or false")


def whole_number(least: int, most: int | None = None, *, limit: int = MOST) -> Parser:
    """A whole number from `least` to `most`; without `most`, up to `limit`, which is far beyond any sensible value."""
    expected = f"a whole number of at least {least}" if most is None else f"a whole number from {least} to {most}"

    def parse(value: str) -> int:
        number = _digits(value)
        if number is not None and number > limit:
            raise ValueError(f"a whole number from {least} to {limit}")
        if number is None or number < least or (most is not None and number > most):
            raise ValueError(expected)
        return number

    return parse


def _digits(text: str) -> int | None:
    """Return a whole number given in decimal digits. `int` alone would accept `1_000` and digits of other scripts."""
    if re.fullmatch("[0-9]+", text) is None:
        return None
    # `int` refuses very long numbers; no setting allows one.
    return int(text[-_MOST_DIGITS:]) if not text[:-_MOST_DIGITS].strip("0") else MOST + 1


def seconds(least: int, most: int = LONGEST_S) -> Parser:
    """Whole seconds, at least `least`; their sum with a time fits into 64 bits of nanoseconds."""
    return whole_number(least, limit=most)


#: A number of days; a hundred years is far beyond any term.
days = whole_number(1, 36_500)


def positive_number(value: str) -> float:
    """A number above 0, such as 0.5 or 24."""
    expected = "a number above 0, such as 0.5 or 24"
    if re.fullmatch(r"[0-9]{0,400}\.?[0-9]{1,400}([eE][+-]?[0-9]{1,9})?", value) is None:
        raise ValueError(expected)
    number = float(value)
    if not number > 0:
        raise ValueError(expected)
    return number


def hours(value: str) -> float:
    """A number of hours, above 0 and at most a century."""
    number = positive_number(value)
    if number > MOST_HOURS:
        raise ValueError(f"a number of hours of at most {MOST_HOURS}, a hundred years")
    return number


#: The permissions that a data file may have: read and write for owner and group, read for others; never execute.
_ALLOWED_MODE = 0o664
_REQUIRED_MODE = 0o600


def file_mode(value: str) -> int:
    """The permissions of a file, in octal."""
    expected = "a file mode in octal from 0600 to 0664, without write permission for others or execute permission, such as 0640"
    if not re.fullmatch("0?[0-7]{3}", value):
        raise ValueError(expected)
    mode = int(value, 8)
    if mode & ~_ALLOWED_MODE or mode & _REQUIRED_MODE != _REQUIRED_MODE:
        raise ValueError(expected)
    return mode


def one_of(literal: Any) -> Parser:
    """One of the words of a `Literal` type, in any case."""
    choices: tuple[str, ...] = get_args(literal)
    by_lower = {choice.lower(): choice for choice in choices}

    def parse(value: str) -> str:
        if value.lower() not in by_lower:
            raise ValueError(f"one of {', '.join(choices)}")
        return by_lower[value.lower()]

    return parse


def web_address(value: str) -> str:
    """An http or https address without credentials."""
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
        raise ValueError("an address without # (the text after it is never sent; write a # as %23)")
    # The query may contain a key: it is sent unchanged.
    return value if "?" in value else value.rstrip("/")


#: A valid bucket name.
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")


def files_address(value: str) -> str:
    """A folder, or `s3://bucket/prefix`."""
    if "://" not in value:
        return path(value)
    scheme, _, rest = value.partition("://")
    bucket, *names = rest.split("/")
    names = [name for name in names if name]
    is_plain = not re.search(r"[?#*\\\x00-\x1f]", rest) and not {".", ".."} & set(names)
    if scheme.lower() != "s3" or not _BUCKET.fullmatch(bucket) or not is_plain:
        raise ValueError("a folder, or s3://bucket/prefix (keys and endpoint have settings of their own)")
    return "s3://" + "/".join((bucket, *names))


#: A host by name or number, and a port.
_HOST_AND_PORT = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):([0-9]{1,5})")

#: More worker processes than any machine has processors.
_MOST_WORKERS = 4096


def dask_scheduler(value: str) -> str:
    """Where chunks are handed to workers: worker processes of this machine, or a Dask scheduler."""
    scheme, _, rest = value.partition(":")
    workers = _digits(rest)
    if scheme.lower() == "local" and workers is not None and 1 <= workers <= _MOST_WORKERS:
        return f"local:{workers}"
    found = _HOST_AND_PORT.fullmatch(rest.removeprefix("//").removesuffix("/"))
    if scheme.lower() not in ("tls", "tcp") or not rest.startswith("//") or not found or not 0 < int(found[2]) < 1 << 16:
        raise ValueError("local:2 (or another number of worker processes of this machine), or tls://scheduler.example:8786")
    return f"{scheme.lower()}://{found[1].lower()}:{int(found[2])}"


def server_address(value: str) -> str:
    """An http or https address to which paths can be appended."""
    address = web_address(value)
    if "?" in address:
        raise ValueError("the address of a server, without ? (tokens have settings of their own)")
    return address


#: ISO 8601 as people write it. Python alone would read a fraction of an hour or minute as a fraction of a second.
_MOMENT = re.compile(
    r"\d{4}-\d\d-\d\d([Tt ]\d\d(:\d\d(:\d\d([.,]\d+)?)?)?([Zz]|[+-]\d\d(:?\d\d)?)?)?|\d{8}([Tt]\d{6}([.,]\d+)?([Zz]|[+-]\d{2}(\d{2})?)?)?",
    re.ASCII,
)


def moment(value: str) -> int:
    """A time in ISO 8601, in UTC if it names no zone; returned in nanoseconds since the epoch."""
    expected = "a time such as 2025-11-03T14:30:00Z (UTC when no zone is given)"
    if not _MOMENT.fullmatch(value):
        raise ValueError(expected)
    try:
        parsed = datetime.fromisoformat(value)
    except ValueError:
        raise ValueError(expected) from None
    if not FIRST_YEAR <= parsed.year <= LAST_YEAR:
        raise ValueError(f"a time in the years {FIRST_YEAR} to {LAST_YEAR}")
    in_utc = parsed.replace(tzinfo=UTC) if parsed.tzinfo is None else parsed.astimezone(UTC)
    since = in_utc - datetime(1970, 1, 1, tzinfo=UTC)
    return ((since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds) * 1_000


def names(value: str) -> tuple[str, ...]:
    """Names separated by commas."""
    found = tuple(name for part in value.split(",") if (name := part.strip()))
    if not found:
        raise ValueError("names separated by commas")
    return found


def tag_filter(value: str) -> tuple[tuple[str, str], ...]:
    """Tags and values, `lead=I,site=ward 3`."""
    pairs = []
    for part in names(value):
        tag, equals, wanted = part.partition("=")
        if not (tag.strip() and equals and wanted.strip()):
            raise ValueError("tag=value pairs separated by commas, such as lead=I")
        pairs.append((tag.strip(), wanted.strip()))
    return tuple(pairs)


def seconds_list(value: str) -> tuple[int, ...]:
    """Whole seconds separated by commas, ascending."""
    expected = "whole seconds separated by commas, ascending, such as 30,300,86400"
    found = [_digits(part.strip()) or 0 for part in value.split(",")]
    if not all(found) or found != sorted(set(found)):
        raise ValueError(expected)
    if found[-1] > LONGEST_S:
        raise ValueError(f"{expected}, each at most {LONGEST_S}")
    return tuple(found)


#: Most file systems allow 255 bytes; a file that is moved aside gets an additional suffix.
_LONGEST_FILE_NAME = 200


def file_name_pattern(value: str) -> str:
    """A file name with strftime fields, valid on every file system even with a suffix appended."""
    expected = "a file name with strftime fields and no folder, such as ecg_anonymized_%Y%m%d_%H%M%S.csv"
    if "/" in value or "\\" in value or value in (".", ".."):
        raise ValueError(expected)
    try:
        filled = datetime(2025, 11, 3, 14, 30, tzinfo=UTC).strftime(value)
    except ValueError:
        raise ValueError(expected) from None
    if not filled or any(character in filled for character in '<>:"/\\|?*\0\n'):
        raise ValueError(expected)
    if len(filled.encode(errors="surrogatepass")) > _LONGEST_FILE_NAME:
        raise ValueError(f"a file name of at most {_LONGEST_FILE_NAME} bytes")
    return value


@dataclass(frozen=True, slots=True)
class StatusAddress:
    """The host and port that the status page listens on."""

    host: str
    port: int

    @property
    def is_loopback(self) -> bool:
        """Whether only programs on this machine can reach it."""
        return is_loopback(self.host)

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_address(text: str) -> StatusAddress:
    """A host and port: `127.0.0.1:9464`, `[::1]:9464` or `localhost:9464`."""
    host, colon, port = text.rpartition(":")
    if not (colon and host and port.isascii() and port.isdigit() and int(port) < 1 << 16):
        raise ValueError("an address and a port, such as 127.0.0.1:9464")
    if host.startswith("[") and host.endswith("]"):
        return StatusAddress(str(ipaddress.IPv6Address(host[1:-1])), int(port))
    if ":" in host or "/" in host or "@" in host:
        raise ValueError("an address and a port, such as 127.0.0.1:9464 or [::1]:9464")
    return StatusAddress(host, int(port))


#: The value of an empty setting without a default; for parsers not listed, an empty text.
EMPTY: Mapping[Parser, Any] = {secret: Secret(""), moment: None, days: None, names: (), tag_filter: ()}
