"""What a valid heartbeat entry is: the schema beside this file, checked by the library jsonschema, and RFC 3339 timestamps.

Messages name the field and the type found, never the value: it may identify a person.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anonymizer.errors import ConfigurationError
from scripts.heartbeat.command import InvalidEntries
from scripts.heartbeat.json_lines import BadJson, Entry, decode

if TYPE_CHECKING:
    from jsonschema import Draft202012Validator, ValidationError

SCHEMA_FILE = Path(__file__).with_name("heartbeat.schema.json")

TIMESTAMP_EXAMPLE = "2025-11-03T14:30:00Z"

NANOSECONDS_PER_SECOND = 1_000_000_000
SECONDS_PER_DAY = 86_400

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

#: RFC 3339 section 5.6: `date-time`. Date, hour and minute, second, fraction, zone.
_TIMESTAMP = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})[Tt]((?:[01][0-9]|2[0-3]):[0-5][0-9]):([0-5][0-9]|60)(?:\.([0-9]+))?"
    r"([Zz]|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])"
)

_KINDS = {
    str: "text",
    bool: "a boolean",
    int: "a number",
    float: "a number",
    list: "an array",
    dict: "an object",
    type(None): "null",
}

_WANTED = {"string": "text", "object": "an object", "array": "an array"}


def instant_ns(timestamp: str) -> int:
    """Return an RFC 3339 timestamp as nanoseconds since 1970, or raise ValueError.

    A leap second counts as the second after it, as on POSIX clocks. Digits after the ninth of a fraction are dropped.
    """
    parts = _TIMESTAMP.fullmatch(timestamp)
    if parts is None:
        raise ValueError(f"must be an RFC 3339 time such as {TIMESTAMP_EXAMPLE}")
    date, minute, second, fraction, zone = parts.groups()
    leap = second == "60"
    moment = datetime.fromisoformat(f"{date}T{minute}:{'59' if leap else second}{zone.upper()}")
    seconds = (moment - _EPOCH) // timedelta(seconds=1) + leap
    if leap and seconds % SECONDS_PER_DAY:
        raise ValueError("must have a second of 60 only where a leap second can be, at 23:59:60 UTC")
    return seconds * NANOSECONDS_PER_SECOND + int((fraction or "")[:9].ljust(9, "0"))


def timestamp_of(instant_ns: int) -> str:
    """Return nanoseconds since 1970 as an RFC 3339 timestamp in UTC, with no more digits than it needs.

    Raises:
        OverflowError: It is not in the years 1 to 9999.
    """
    seconds, nanoseconds = divmod(instant_ns, NANOSECONDS_PER_SECOND)
    moment = _EPOCH + timedelta(seconds=seconds)
    fraction = f".{nanoseconds:09d}".rstrip("0").rstrip(".")
    return f"{moment.replace(tzinfo=None).isoformat()}{fraction}Z"


def checked(entries: Iterable[Entry]) -> Iterator[Entry]:
    """Yield each entry, with its problems against the schema."""
    validator = _validator(_read_schema())
    for entry in entries:
        yield entry if entry.problems else Entry(entry.place, entry.value, _problems(validator, entry.value))


def only_objects(entries: Iterable[Entry]) -> Iterator[Entry]:
    """Yield each entry, with a problem if it is not a JSON object. Used where no schema applies."""
    for entry in entries:
        is_object = entry.problems or isinstance(entry.value, dict)
        yield entry if is_object else Entry(entry.place, entry.value, (f"must be an object, got {_kind(entry.value)}",))


def trusted(entries: Iterable[Entry]) -> Iterator[dict[str, Any]]:
    """Yield the valid entries, then raise InvalidEntries if there was any other. So a caller must read to the end before it acts."""
    problems: list[str] = []
    for entry in entries:
        problems.extend(f"{entry.place}: {problem}" for problem in entry.problems)
        if not entry.problems:
            yield entry.value
    if problems:
        raise InvalidEntries(problems)


def can_be_replaced(field: str) -> bool:
    """Return whether an entry is still valid with a digest, which is text, in this field."""
    field_schema = _read_schema()["properties"].get(field, {})
    return not _problems(_validator(field_schema), "0" * 64)


def _problems(validator: Draft202012Validator, value: Any) -> tuple[str, ...]:
    return tuple(sorted(_sentence(error) for error in validator.iter_errors(value)))


def _sentence(error: ValidationError) -> str:
    """Describe the problem ourselves: the library's message would repeat the value."""
    field = error.json_path.removeprefix("$").removeprefix(".")
    match error.validator:
        case "required":
            sentence = error.message
        case "type":
            sentence = f"must be {_WANTED.get(str(error.validator_value), error.validator_value)}, got {_kind(error.instance)}"
        case "format":
            sentence = f"must be an RFC 3339 time such as {TIMESTAMP_EXAMPLE}, got other text"
        case _:
            sentence = f"does not satisfy {error.validator} of {SCHEMA_FILE.name}"
    return f"{field}: {sentence}" if field else sentence


def _kind(value: Any) -> str:
    return _KINDS[type(value)]


def _read_schema() -> dict[str, Any]:
    try:
        schema = decode(SCHEMA_FILE.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, BadJson) as error:
        raise ConfigurationError(f"cannot use {SCHEMA_FILE}: {error}; restore it from the project") from error
    assert isinstance(schema, dict)
    return schema


def _validator(schema: dict[str, Any]) -> Draft202012Validator:
    # Imported here, not at the top: it takes longer than the rest of a command, and a Ctrl+C before `run` begins ends in a traceback.
    from jsonschema import Draft202012Validator, FormatChecker

    formats = FormatChecker(formats=())
    formats.checks("date-time", raises=ValueError)(_is_timestamp)
    return Draft202012Validator(schema, format_checker=formats)


def _is_timestamp(value: object) -> bool:
    """Return True for values that are not text: the schema's `type` reports those."""
    if isinstance(value, str):
        instant_ns(value)
    return True
