"""The service's log lines, each declared beside the code that logs it: a name and fields for programs, a text for people.

The wording of a text may change; names and fields may not. `documentation/LOG_EVENTS.md` lists them, and a test compares it with the
declarations. A module that may not import `service` passes `extra={"event": (name, fields)}` to the logger.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

_LOG = logging.getLogger("ecg_anonymizer")


@dataclass(frozen=True, slots=True)
class LogEvent:
    """One kind of log line.

    Args:
        name: The event's name with LOG_FORMAT=json; empty for decoration, which JSON logs leave out.
        text: The text for people, with a placeholder for each value.
        fields: The names of the values, in the order of the placeholders, separated by spaces.
        level: A level of `logging`.
    """

    name: str
    text: str
    fields: str = ""
    level: int = logging.INFO

    def log(self, *values: object, level: int | None = None, **extra: object) -> None:
        """Log it.

        Args:
            values: The values of the placeholders.
            level: Overrides the declared level.
            extra: Further attributes of the log record.
        """
        _LOG.log(self.level if level is None else level, self.text, *values, extra={"event": (self.name, self.fields), **extra})


#: Lines whose text is built elsewhere.
WARNING = LogEvent("warning", "⚠️ %s", "warning", logging.WARNING)
ERROR = LogEvent("error", "❌ %s", "error", logging.ERROR)
