"""How a command begins and ends: standard streams that outlive whoever reads them, and an exit code that always gets out."""

from __future__ import annotations

import errno
import io
import logging
import os
import select
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, NoReturn

from service import exit_codes
from service.logs import finish_log, make_printable

#: What the system says of a pipe without a reader, of a connection that was cut; and of a terminal that has gone.
_READER_GONE = frozenset({errno.EPIPE, errno.ECONNRESET, errno.ENXIO, errno.EBADF})
_TERMINAL_GONE = _READER_GONE | {errno.EIO}

#: How long the last flush may take in a process whose log nobody reads any more.
_LAST_FLUSH_S = 1.0


class OutlivingFile(io.FileIO):
    """A standard stream of ours. What cannot be written is left out: nothing we do depends on whether somebody reads what we say.

    `left_out` is how many writes failed, `failure` the last reason that is no vanished reader, such as a full disk.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number, "wb", closefd=False)
        self._means_gone = _TERMINAL_GONE if self.isatty() else _READER_GONE
        self.left_out = 0
        self.failure: OSError | None = None

    def write(self, data: bytes) -> int:  # type: ignore[override]
        """Write some of the data, at least one byte, however long that takes; return how much is done with."""
        try:
            while (written := super().write(data)) is None:
                # Another process that shares this stream has it not block; a reader that is slow has not gone.
                select.select([], [self], [])
        except OSError as error:
            self.left_out += 1
            if error.errno not in self._means_gone:
                self.failure = error
            return len(data)
        return written


def run(main: Callable[[list[str]], int]) -> NoReturn:
    """Run a command on this process's arguments, and end with its exit code."""
    prepare_streams()
    try:
        code = main(sys.argv[1:])
    except KeyboardInterrupt:
        code = exit_codes.INTERRUPTED
    end_process(code)


def prepare_streams() -> None:
    """See that standard output and standard error can be written to for as long as we live, whoever reads them or not.

    A number that is free would be given to the next file that is opened, and what is said would be written into that.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    sys.stdout = _outliving(sys.stdout)
    sys.stderr = _outliving(sys.stderr)


def _outliving(stream: IO[str] | None) -> io.TextIOWrapper:
    if stream is None:
        return Path(os.devnull).open("w", encoding="utf-8")
    assert isinstance(stream, io.TextIOWrapper), "as Python makes them"
    make_printable(stream)
    buffer = stream.buffer
    raw = getattr(buffer, "raw", buffer)
    if not isinstance(raw, io.FileIO):
        # The console of Windows, which takes text.
        return stream
    is_unbuffered = raw is buffer
    file: Any = OutlivingFile(raw.fileno())
    return io.TextIOWrapper(
        file if is_unbuffered else io.BufferedWriter(file),
        encoding=stream.encoding,
        errors="replace",
        line_buffering=stream.line_buffering,
        write_through=is_unbuffered,
    )


def end_process(code: int) -> NoReturn:
    """End with an exit code, at once: everything that must last is on the disk already.

    Arrow may still be starting a thread for the last answer it parsed. An interpreter that ends the usual way then aborts ("terminate
    called without an active exception"), and the exit code, which says what to do, is lost. Nor is a thread waited for that waits for a
    server, or for somebody to read the log.
    """
    finish_log()
    flushing = threading.Thread(target=_flush, daemon=True)
    flushing.start()
    # Without a log the streams hold the command's result, which may be read as slowly as somebody likes.
    has_log = bool(logging.getLogger().handlers)
    flushing.join(_LAST_FLUSH_S if has_log else None)
    os._exit(code if has_log else _code_unless_output_was_lost(code))


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        stream.flush()


def _code_unless_output_was_lost(code: int) -> int:
    """Return the code of a command; of one whose result did not get out for a reason that somebody should know, another, and say so."""
    buffer = getattr(sys.stdout, "buffer", None)
    failure: OSError | None = getattr(getattr(buffer, "raw", buffer), "failure", None)
    if failure is None:
        return code
    sys.stderr.write(f"❌ What was to be printed could not be written ({failure.strerror}): it is not complete\n")
    sys.stderr.flush()
    return exit_codes.OUTPUT_LOST
