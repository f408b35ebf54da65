"""The log: one line an event on standard output, as text or as JSON, times in UTC, on any console."""

from __future__ import annotations

import io
import json
import logging
import math
import sys
import time
from datetime import UTC, datetime
from typing import Any

from service.log_events import DECORATION, LOG_EVENTS, OTHER

LINE_FORMAT = "%(asctime)s - %(levelname)s - %(message)s"
TIME_FORMAT = "%Y-%m-%d %H:%M:%S"

#: These tell more than we would at DEBUG, headers and bodies among it.
_TALKATIVE = ("urllib3", "influxdb_client", "reactivex", "requests", "charset_normalizer")


def set_up_logging(level: str, form: str = "text") -> None:
    """Send every log line of `level` and above to standard output.

    Args:
        level: Such as `INFO`.
        form: `text`, or `json` for one object a line.
    """
    make_printable(sys.stdout)
    make_printable(sys.stderr)
    handler = logging.StreamHandler(sys.stdout)
    if form == "json":
        handler.addFilter(lambda record: record.msg not in DECORATION)
        handler.setFormatter(JsonLines())
    else:
        formatter = logging.Formatter(LINE_FORMAT, TIME_FORMAT)
        formatter.converter = time.gmtime
        handler.setFormatter(formatter)
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(logging.WARNING)


class JsonLines(logging.Formatter):
    """One JSON object a line: `time`, `level`, `event`, `message`, and the event's own fields (documentation/LOG_EVENTS.md)."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line. Only ASCII, so that it prints on any console."""
        event = LOG_EVENTS.get(str(record.msg), OTHER)
        arguments = record.args if isinstance(record.args, tuple) else (record.args,)
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z",
            "level": record.levelname,
            "event": event.name,
            "message": record.getMessage().strip(),
            **dict(zip(event.fields, arguments, strict=False)),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps({name: _number(value) for name, value in line.items()}, default=_plain)


def _number(value: object) -> object:
    """Return the value; None for a number that JSON does not have, such as the correlation of a flat line."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _plain(value: object) -> Any:
    """Return what JSON can hold of a value that is not plain: itself in parts, if it knows them, else its text."""
    # numpy's numbers are made Python's by their `item`.
    parts = getattr(value, "as_json", None) or getattr(value, "item", None)
    return parts() if parts is not None else str(value)


def make_printable(stream: object) -> None:
    """See that a console without our symbols (Windows cp1252) prints `?` for them instead of failing."""
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="replace")
