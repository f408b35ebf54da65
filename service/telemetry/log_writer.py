"""The log: one line per event on standard output, as text or as JSON, times in UTC, on any console.

Only one thread writes to standard output, so only that thread blocks when the reader stops reading.
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
_TALKATIVE = ("urllib3", "influxdb_client", "reactivex", "requests", "charset_normalizer")

_LINES_MISSING = LogEvent(
    "lines_missing", "⚠️ %d log lines are missing here: standard output did not take them", "count", logging.WARNING
)

#: Any line that is not declared, such as one that a library logs.
_OTHER = ("other", "")

#: How many lines may wait for the reader.
MOST_LINES = 10_000

#: How many characters are written at a time, at most: what a pipe takes as a whole.
_PIECE = 4096

#: How often to check whether the reader has taken something.
_LOOK_EVERY_S = 0.1

#: A reader that has taken nothing for this long counts as stopped: while the program works, at its end, and after it was asked to stop.
_DEAD_AFTER_S = 5.0
_DEAD_AT_END_S = 10.0
_DEAD_WHEN_STOPPING_S = 0.5


def set_up_logging(level: str, form: str = "text", *, is_stream: bool = False) -> None:
    """Send every log line of `level` and above to standard output.

    Args:
        level: Such as `INFO`.
        form: `text`, or `json` for one object a line.
        is_stream: Whether lines are left out rather than waited for when standard output is slow.
    """
    make_printable(sys.stdout)
    make_printable(sys.stderr)
    handler = LogWriter(sys.stdout, waits_for_reader=not is_stream)
    if form == "json":
        handler.addFilter(lambda record: _event_of(record)[0] != "")
        handler.setFormatter(JsonLines())
    else:
        formatter = logging.Formatter(LINE_FORMAT, TIME_FORMAT)
        formatter.converter = time.gmtime
        handler.setFormatter(formatter)
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(logging.WARNING)


class _Line(NamedTuple):
    """A line, and how many it stands for: itself, or those that are missing."""

    text: str
    stands_for: int


class LogWriter(logging.Handler):
    """Hands lines to a thread that writes them. No other thread waits for a reader that has stopped reading.

    As long as the reader takes anything, however little, a one-shot run waits for it when `MOST_LINES` are waiting, and no line is lost.
    A stream has data to release meanwhile, so it drops lines; both do once the reader has stopped. The number of missing lines is logged as
    soon as there is room again.

    Args:
        stream: Where lines go.
        waits_for_reader: Whether to wait for a slow one.
        most_lines: How many lines may wait.
    """

    def __init__(self, stream: IO[str], *, waits_for_reader: bool, most_lines: int = MOST_LINES) -> None:
        super().__init__()
        # The base class would hold this lock during `emit`, so one waiting thread would block all that log.
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
        """Stop waiting for the reader: the process was asked to stop."""
        self._is_hurried = True

    def emit(self, record: logging.LogRecord) -> None:
        """Have a line written."""
        try:
            line = _Line(f"{self.format(record)}\n", getattr(record, "stands_for", 1))
        except Exception:  # noqa: BLE001  (a line that cannot be formatted is a bug, and must not end the run)
            self.handleError(record)
            return
        with self._changed:
            if not (self._has_room() or self._gets_room()):
                self._left_out += 1
                return
            self._say_what_was_left_out()
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

    def _gets_room(self) -> bool:
        """Return whether there is room, after waiting for a slow reader in a run that does wait."""
        if not self._waits_for_reader or self._gave_up_at == self._progress():
            return False
        has_room = self._wait(self._has_room, _DEAD_AFTER_S)
        self._gave_up_at = None if has_room else self._progress()
        return has_room

    def _wait(self, is_so: Callable[[], bool], longest_s: float) -> bool:
        """Wait until something is so; return False once the reader has taken nothing for `longest_s`."""
        taken, since_s = self._progress(), time.monotonic()
        while not is_so():
            self._changed.wait(_LOOK_EVERY_S)
            if (now := self._progress()) != taken:
                taken, since_s = now, time.monotonic()
            if time.monotonic() - since_s > (_DEAD_WHEN_STOPPING_S if self._is_hurried else longest_s):
                return is_so()
        return True

    def _progress(self) -> tuple[int, int]:
        """Return a pair that changes whenever the reader takes something: pieces written, and bytes the pipe still holds."""
        return self._pieces, _unread_bytes(self._stream)

    def _has_something_to_write(self) -> bool:
        # Lines that a full disk refused are reported with the next line: retrying at once would be a busy loop.
        return bool(self._waiting or (self._left_out and not self._has_failed))

    def _say_what_was_left_out(self) -> None:
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
                    self._say_what_was_left_out()
            lines: list[_Line] = []
            while self._waiting and sum(len(line.text) for line in lines) < _PIECE // 2:
                lines.append(self._waiting.popleft())
            self._is_writing = bool(lines)
            return lines

    def _write(self, text: str) -> bool:
        """Return whether it was written."""
        left_out = _left_out_by(self._stream)
        try:
            with self.within():
                self._stream.write(text)
                self._stream.flush()
        except (OSError, ValueError):  # a full disk; a stream that was closed
            return False
        return left_out == _left_out_by(self._stream)


def hurry_log() -> None:
    """Stop waiting for the reader of the log: the process was asked to stop. Does not block."""
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
    """Write every piece of the log within a context, such as one that hides a progress bar meanwhile."""
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
    """Return how often a stream of ours (`service/process.py`) could not write."""
    buffer = getattr(stream, "buffer", None)
    return getattr(getattr(buffer, "raw", buffer), "left_out", 0)


def _unread_bytes(stream: IO[str]) -> int:
    """Return how many bytes of a pipe its reader has not taken yet; 0 where that is unknown."""
    with suppress(ImportError, OSError, ValueError):
        import fcntl  # Windows has neither
        import termios

        count = array.array("i", [0])
        fcntl.ioctl(stream.fileno(), termios.FIONREAD, count)
        return count[0]
    return 0


class JsonLines(logging.Formatter):
    """One JSON object a line: `time`, `level`, `event`, `message`, and the event's own fields (documentation/LOG_EVENTS.md)."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line. Only ASCII, so that it prints on any console."""
        name, fields = _event_of(record)
        arguments = record.args if isinstance(record.args, tuple) else (record.args,)
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z",
            "level": record.levelname,
            "event": name,
            "message": record.getMessage().strip(),
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
