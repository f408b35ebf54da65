"""How `.env` is read: one setting per line, and no unreadable line is skipped.

python-dotenv parses each line. By itself it would skip what it cannot read, and let an open quote swallow the lines below; a privacy
setting among them would then get its default. So a line that it cannot read, or that other readers of such files read differently (Docker
takes every line literally), is a problem, reported by its number. A line's text is never shown: it may be a secret.
"""

from __future__ import annotations

import io
import os
import re
import stat
import unicodedata
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from anonymizer.errors import ConfigurationError

#: A larger file was named by mistake.
MOST_BYTES = 1 << 20

#: At most this many problems are listed; the others are counted.
_MOST_LISTED = 20

_NAME = re.compile(r"[ \t]*(?:export[ \t]+)?([A-Za-z_][A-Za-z0-9_.-]*)[ \t]*=(.*)", re.DOTALL)
_QUOTED = re.compile(r"""'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*\"""")
_COMMENT_OR_VALUE = re.compile(r"[ \t]#")
_QUOTES = ("'", '"')
_TYPOGRAPHIC_QUOTES = "“”„‟‘’‚‛«»‹›＂＇`´″′"
_BYTE_ORDER_MARK = "\ufeff"

_SEE_PAGE = "documentation/CONFIGURATION.md says how this file is read"


class UnreadableValue(ValueError):
    """A value cannot be read, or other readers would read it differently. The message says why, without the value."""


@dataclass(slots=True)
class EnvFile:
    """The content of an `.env`, and its problems.

    Args:
        name: Its name in messages.
        values: Values by name; the first one if a name is set twice.
        lines: The line that sets each name.
        problems: Lines that cannot be read, one sentence each.
        warnings: Readable but suspicious lines, one sentence each.
        others_can_read: Whether its mode lets anyone but the owner read it.
    """

    name: str
    values: dict[str, str] = field(default_factory=dict)
    lines: dict[str, int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    others_can_read: bool = False

    def at(self, line: int) -> str:
        """Return the prefix of messages about a line."""
        return f"{self.name}, line {line}:"


def read_env_file(path: Path, known_names: Collection[str]) -> EnvFile | None:
    """Return the content of a settings file; None if there is no such file.

    Args:
        path: The `.env`.
        known_names: Names that messages may show.
    """
    try:
        with path.open("rb") as file:
            content, mode = file.read(MOST_BYTES + 1), os.fstat(file.fileno()).st_mode
    except FileNotFoundError:
        return EnvFile(str(path), problems=[f"{path} is a link to a file that is not there"]) if path.is_symlink() else None
    except (OSError, ValueError) as error:
        return EnvFile(str(path), problems=[f"{path} cannot be read ({getattr(error, 'strerror', None) or 'no file name'})"])
    if len(content) > MOST_BYTES:
        return EnvFile(str(path), problems=[f"{path} holds more than {MOST_BYTES} bytes: is it an .env?"])
    found = parse(content, str(path), known_names)
    found.others_can_read = _lets_others_read(mode)
    return found


def can_be_read_by_others(path: Path) -> bool:
    """Return whether a file's mode gives anyone but its owner access."""
    return _lets_others_read(path.stat().st_mode)


def _lets_others_read(mode: int) -> bool:
    return os.name == "posix" and bool(stat.S_IMODE(mode) & (stat.S_IRWXG | stat.S_IRWXO))


def settings_in(path: Path, known_names: Collection[str]) -> Mapping[str, str]:
    """Return the values that a settings file sets; none if there is no such file.

    Raises:
        ConfigurationError: With every line that cannot be read.
    """
    found = read_env_file(path, known_names)
    if found is not None and found.problems:
        raise ConfigurationError(found.problems)
    return {} if found is None else found.values


def parse(content: bytes, name: str, known_names: Collection[str]) -> EnvFile:
    """Parse the content of an `.env`, with a problem for every unreadable line; `name` is its name in messages."""
    found, problems = EnvFile(name), list[str]()
    for number, line in enumerate(content.removeprefix(_BYTE_ORDER_MARK.encode()).split(b"\n"), start=1):
        try:
            _take(found, number, line.removesuffix(b"\r"), known_names)
        except UnreadableValue as problem:
            problems.append(f"{found.at(number)} {problem}")
    found.problems = problems[:_MOST_LISTED]
    if len(problems) > _MOST_LISTED:
        found.problems.append(f"{name}: {len(problems) - _MOST_LISTED} more lines cannot be used; {_SEE_PAGE}")
    return found


def meaning(text: str) -> str:
    """Return the meaning of the text after `NAME=`, in `.env` or in the environment, without surrounding blanks and one pair of quotes.

    Raises:
        UnreadableValue: A quote is not closed, something follows the closing quote, or a character cannot be seen.
    """
    bare = text.strip(" \t\r\n")
    _refuse_invisible(bare)
    if bare[:1] not in _QUOTES:
        if bare[-1:] in _QUOTES:
            raise UnreadableValue("its value ends with a quote and begins with none; put it between quotes of the other kind")
        return bare
    if not _QUOTED.fullmatch(bare):
        is_closed = _QUOTED.match(bare)
        raise UnreadableValue(
            "something follows the closing quote; a comment needs a line of its own"
            if is_closed
            else "its quote is not closed; a value ends with its line"
        )
    # Imported only for quoted values: the heartbeat commands usually run without the library.
    from dotenv.parser import parse_stream

    (binding,) = parse_stream(io.StringIO(f"VALUE={bare}"))
    value = binding.value or ""
    if _has_control_character(value):
        raise UnreadableValue(r"\n, \t and the like mean a control character between double quotes: use single quotes")
    return value


def _take(found: EnvFile, number: int, line: bytes, known_names: Collection[str]) -> None:
    text = _text(line)
    if not text.strip(" \t") or text.lstrip(" \t").startswith("#"):
        return
    name, value = _name_and_value(text, known_names)
    if name not in found.values:
        found.values[name], found.lines[name] = value, number
        return
    shown = name if name in known_names else "a name"
    if found.values[name] != value:
        raise UnreadableValue(f"{shown} is set again, to another value than on line {found.lines[name]}: keep one of them")
    found.warnings.append(f"{found.at(number)} {shown} is set again, to the same value as on line {found.lines[name]}")


def _text(line: bytes) -> str:
    try:
        text = line.decode()
    except UnicodeDecodeError:
        raise UnreadableValue("it is not UTF-8; save the file as UTF-8 text") from None
    if "\r" in text:
        raise UnreadableValue("it holds a carriage return that ends no line; save the file with line ends LF or CRLF")
    if _BYTE_ORDER_MARK in text:
        raise UnreadableValue("it holds a byte order mark, as joined files do; remove it")
    if _has_control_character(text):
        raise UnreadableValue("it holds a control character, such as NUL; save the file as UTF-8 text")
    return text


def _has_control_character(text: str) -> bool:
    # Some programs end a line at the line and paragraph separators, as at some control characters.
    return any(unicodedata.category(character) in ("Cc", "Zl", "Zp") for character in text if character != "\t")


def _name_and_value(text: str, known_names: Collection[str]) -> tuple[str, str]:
    match = _NAME.fullmatch(text)
    if match is None:
        raise UnreadableValue(_syntax_problem(text, known_names))
    name, value = match.groups()
    if value.lstrip(" \t")[:1] not in _QUOTES and _COMMENT_OR_VALUE.search(value):
        raise UnreadableValue(
            "# after a blank is a comment or belongs to the value: put a comment on its own line, or the value in quotes"
        )
    if (swallowed := _swallowed(value, known_names)) is not None:
        raise UnreadableValue(f"its value holds {swallowed}=: is a line end missing?")
    return name, meaning(value)


def _syntax_problem(text: str, known_names: Collection[str]) -> str:
    first = re.match(r"[ \t]*(?:export[ \t]+)?(\w*)[ \t]*(.?)", text)
    name, then = first.groups() if first else ("", "")
    if name in known_names:
        follows = f", but {then} follows" if then in (":", ";", ",", "-") else ""
        return f"{name} needs an ={follows}: write {name}=value"
    return "it is not a setting: write NAME=value, or begin a comment with #"


def _swallowed(value: str, known_names: Collection[str]) -> str | None:
    """Return the setting named inside a value, as if its line had been joined to the one above; None if there is none."""
    for found in re.finditer(r"([A-Z][A-Z_]*)[ \t]*=", value):
        for name in known_names:
            is_joined = found[1].endswith(name) and "_" in name
            # An address or a list of tags may contain any name before an =.
            if is_joined or (found[1] == name and value[: found.start()][-1:] not in ("", "?", "&", ",")):
                return name
    return None


def _refuse_invisible(bare: str) -> None:
    if _has_control_character(bare):
        raise UnreadableValue("its value holds a control character or a line end")
    for edge in (bare[:1], bare[-1:]):
        if edge and edge in _TYPOGRAPHIC_QUOTES:
            raise UnreadableValue("its value begins or ends with a typographic quote or an accent: use ' or \"")
        if edge and (unicodedata.category(edge) == "Cf" or edge.isspace()):
            raise UnreadableValue("its value begins or ends with a character that cannot be seen: remove it")
