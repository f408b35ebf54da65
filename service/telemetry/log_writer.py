"""The log: one line per event on standard output, as text or JSON, with UTC times, on any console.

A single thread writes to standard output, so only that thread blocks when the reader stops reading.
"""

from __future__ import annotations

import array
import io
import json
import logging
import math
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from datetime import UTC, datetime
from typing import IO, Any, NamedTuple

from service.log_event import LogEvent

LINE_FORMAT = "%(asctime)s - %(levelname)s - %(message)s"
TIME_FORMAT = "%Y-%m-%d %H:%M:%S"

#: At DEBUG these libraries log headers and bodies.
_VERBOSE_LIBRARIES = ("urllib3", "requests", "charset_normalizer")

_LINES_MISSING = LogEvent(
    "lines_missing", "⚠️ %d log lines are missing here: they could not be written to standard output", "count", logging.WARNING
)

#: The event of undeclared lines, such as those of libraries.
_OTHER = ("other", "")

#: How many lines may wait for the reader.
MOST_LINES = 10_000

#: The most characters written at a time: a pipe takes this many atomically.
_PIECE = 4096

#: How often to check whether the reader has read something.
_CHECK_EVERY_S = 0.1

#: A reader that has read nothing for this long counts as stopped: during the run, at its end, and after a stop request.
_DEAD_AFTER_S = 5.0
_DEAD_AT_END_S = 10.0
_DEAD_WHEN_STOPPING_S = 0.5


def set_up_logging(level: str, line_format: str = "text", *, is_stream: bool = False, cohort: str = "") -> None:
    """Send every log line of `level` and above to standard output.

    Args:
        level: Such as `INFO`.
        line_format: `text`, or `json` for one object per line.
        is_stream: Whether to drop lines when standard output is slow, instead of waiting.
        cohort: Added to every JSON line, so that the logs of many services can be merged; empty: none.
    """
    make_printable(sys.stdout)
    make_printable(sys.stderr)
    handler = LogWriter(sys.stdout, waits_for_reader=not is_stream)
    if line_format == "json":
        handler.addFilter(lambda record: _event_of(record)[0] != "")
        handler.setFormatter(JsonLines(cohort))
    else:
        formatter = logging.Formatter(LINE_FORMAT, TIME_FORMAT)
        formatter.converter = time.gmtime
        handler.setFormatter(formatter)
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for name in _VERBOSE_LIBRARIES:
        logging.getLogger(name).setLevel(logging.WARNING)


class _Line(NamedTuple):
    """A line, and the number of lines it counts as: one, or the missing ones that it reports."""

    text: str
    stands_for: int


class LogWriter(logging.Handler):
    """Passes lines to a thread that writes them. No other thread waits for a reader that has stopped reading.

    While the reader still reads, however slowly, a one-shot run waits for it once `MOST_LINES` are queued, and no line is lost. A stream
    drops lines instead, since it must release data; both drop lines once the reader has stopped. The number of dropped lines is logged as
    soon as there is room again.

    Args:
        stream: The stream to write to.
        waits_for_reader: Whether to wait for a slow reader.
        most_lines: How many lines may be queued.
    """

    def __init__(self, stream: IO[str], *, waits_for_reader: bool, most_lines: int = MOST_LINES) -> None:
        super().__init__()
        # The base class would hold this lock during `emit`, so one waiting thread would block all logging threads.
        self.lock = None
        self.within: Callable[[], AbstractContextManager[Any]] = nullcontext
        self._stream = stream
        self._waits_for_reader = waits_for_reader
        self._most_lines = most_lines
        self._changed = threading.Condition()
        self._waiting: deque[_Line] = deque()
        self._left_out = 0
        self._pieces = 0
        self._is_writing = self._is_hurried = self._is_closed = self._has_failed = False
        self._gave_up_at: tuple[int, int] | None = None
        threading.Thread(target=self._write_all, name="log", daemon=True).start()

    def hurry(self) -> None:
        """Stop waiting for the reader, because the process was asked to stop."""
        self._is_hurried = True

    def emit(self, record: logging.LogRecord) -> None:
        """Queue a line."""
        try:
            line = _Line(f"{self.format(record)}\n", getattr(record, "stands_for", 1))
        except Exception:  # noqa: BLE001  (a line that cannot be formatted is a bug, and must not end the run)
            self.handleError(record)
            return
        with self._changed:
            if not (self._has_room() or self._waited_for_room()):
                self._left_out += 1
                return
            self._report_missing_lines()
            self._waiting.append(line)
            self._changed.notify_all()

    def flush(self) -> None:
        """Return once everything is written, or the reader has stopped reading."""
        with self._changed:
            self._wait(lambda: not (self._is_writing or self._has_something_to_write()), _DEAD_AT_END_S)

    def close(self) -> None:
        """Let the thread end."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        super().close()

    def _has_room(self) -> bool:
        # After lines were dropped, wait until half the queue is free: one gap instead of many.
        return len(self._waiting) < (self._most_lines // 2 if self._left_out else self._most_lines)

    def _waited_for_room(self) -> bool:
        """Wait for a slow reader, in a run that does so; return whether there is room now."""
        if not self._waits_for_reader or self._gave_up_at == self._progress():
            return False
        has_room = self._wait(self._has_room, _DEAD_AFTER_S)
        self._gave_up_at = None if has_room else self._progress()
        return has_room

    def _wait(self, condition: Callable[[], bool], longest_s: float) -> bool:
        """Wait for a condition; return False once the reader has read nothing for `longest_s`."""
        progress, since_s = self._progress(), time.monotonic()
        while not condition():
            self._changed.wait(_CHECK_EVERY_S)
            if (now := self._progress()) != progress:
                progress, since_s = now, time.monotonic()
            if time.monotonic() - since_s > (_DEAD_WHEN_STOPPING_S if self._is_hurried else longest_s):
                return condition()
        return True

    def _progress(self) -> tuple[int, int]:
        """Return a pair that changes whenever the reader reads: the number of pieces written, and the unread bytes in the pipe."""
        return self._pieces, _unread_bytes(self._stream)

    def _has_something_to_write(self) -> bool:
        # Lines lost to a full disk are reported with the next line: an immediate retry would be a busy loop.
        return bool(self._waiting or (self._left_out and not self._has_failed))

    def _report_missing_lines(self) -> None:
        if self._left_out:
            count, self._left_out = self._left_out, 0
            _LINES_MISSING.log(count, level=max(_LINES_MISSING.level, logging.getLogger().level), stands_for=count)

    def _write_all(self) -> None:
        while lines := self._next_lines():
            is_written = self._write("".join(line.text for line in lines))
            with self._changed:
                self._pieces += 1
                self._is_writing, self._has_failed = False, not is_written
                self._left_out += 0 if is_written else sum(line.stands_for for line in lines)
                self._changed.notify_all()

    def _next_lines(self) -> list[_Line]:
        """Wait for lines, and return those to be written together; none once the handler is closed."""
        with self._changed:
            while not (self._waiting or self._is_closed):
                self._changed.wait_for(lambda: self._is_closed or self._has_something_to_write())
                if not self._waiting:
                    self._report_missing_lines()
            lines: list[_Line] = []
            while self._waiting and sum(len(line.text) for line in lines) < _PIECE // 2:
                lines.append(self._waiting.popleft())
            self._is_writing = bool(lines)
            return lines

    def _write(self, text: str) -> bool:
        """Write a text; return whether that succeeded."""
        left_out = _left_out_by(self._stream)
        try:
            with self.within():
                self._stream.write(text)
                self._stream.flush()
        except (OSError, ValueError):  # a full disk; a stream that was closed
            return False
        return left_out == _left_out_by(self._stream)


def hurry_log() -> None:
    """Stop waiting for the reader of the log, because the process was asked to stop. Does not block."""
    for writer in _writers():
        writer.hurry()


def finish_log() -> None:
    """Return once the log is written, or its reader has stopped reading.

    `logging.shutdown` would also flush standard error, which blocks while another thread is stuck in a write to it.
    """
    for writer in _writers():
        writer.flush()


@contextmanager
def lines_written_within(context: Callable[[], AbstractContextManager[Any]]) -> Iterator[None]:
    """Write the log within a context, such as one that hides a progress bar."""
    writers = _writers()
    for writer in writers:
        writer.within = context
    try:
        yield
    finally:
        for writer in writers:
            writer.within = nullcontext


def _writers() -> list[LogWriter]:
    return [one for one in logging.getLogger().handlers if isinstance(one, LogWriter)]


def _left_out_by(stream: IO[str]) -> int:
    """Return how many writes of a `SurvivingFile` (`service/process.py`) failed."""
    buffer = getattr(stream, "buffer", None)
    return getattr(getattr(buffer, "raw", buffer), "left_out", 0)


def _unread_bytes(stream: IO[str]) -> int:
    """Return how many bytes of a pipe are unread; 0 if unknown."""
    with suppress(ImportError, OSError, ValueError):
        import fcntl  # Windows has neither
        import termios

        count = array.array("i", [0])
        fcntl.ioctl(stream.fileno(), termios.FIONREAD, count)
        return count[0]
    return 0


class JsonLines(logging.Formatter):
    """One JSON object per line: `time`, `level`, `event`, `message`, and the event's own fields (documentation/LOG_EVENTS.md)."""

    def __init__(self, cohort: str = "") -> None:
        super().__init__()
        self._always = {"cohort": cohort} if cohort else {}

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, in ASCII, so that it prints on any console."""
        name, fields = _event_of(record)
        arguments = record.args if isinstance(record.args, tuple) else (record.args,)
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z",
            "level": record.levelname,
            "event": name,
            "message": record.getMessage().strip(),
            **self._always,
            **dict(zip(fields.split(), arguments, strict=False)),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps({name: _number(value) for name, value in line.items()}, default=_plain)


def _event_of(record: logging.LogRecord) -> tuple[str, str]:
    """Return the name of a line's event, and the names of its values (`service/log_event.py`)."""
    event: tuple[str, str] = getattr(record, "event", _OTHER)
    return event


def _number(value: object) -> object:
    """Return the value; None for NaN and infinity, which JSON lacks, such as the correlation of a flat line."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _plain(value: object) -> Any:
    """Return a value as JSON data: by its `as_json`, by the `item` of numpy's numbers, else as text."""
    convert = getattr(value, "as_json", None) or getattr(value, "item", None)
    return convert() if convert is not None else str(value)


def make_printable(stream: object) -> None:
    """Let a console that lacks a symbol (Windows cp1252) print `?` instead of failing."""
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="replace")
