"""Start and exit of every command: standard streams survive the loss of their reader, and the exit code is always returned."""

from __future__ import annotations

import ctypes
import errno
import io
import logging
import os
import select
import sys
import threading
from collections.abc import Callable, Sequence
from functools import partial
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import IO, Any, NoReturn

from service import exit_codes
from service.telemetry.log_writer import finish_log, make_printable

#: Errors that mean the reader is gone, for a pipe or connection; and for a terminal.
_READER_GONE = frozenset({errno.EPIPE, errno.ECONNRESET, errno.ENXIO, errno.EBADF})
_TERMINAL_GONE = _READER_GONE | {errno.EIO}

#: How long the last flush may take in a process that has a log.
_LAST_FLUSH_S = 1.0

#: Options of glibc's `mallopt` (malloc.h), and their values here: of the freed memory, up to so many bytes stay in the process, blocks of
#: up to so many come from there, and all threads share two pools, so that one uses what another has freed.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
_KEPT_BYTES = 32 << 20
_POOLS = 2


class SurvivingFile(io.FileIO):
    """A standard stream that never fails. Output that cannot be written is dropped: a command's exit must not depend on its reader.

    `left_out` counts failed writes; `failure` is the last error other than a vanished reader, such as a full disk.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number, "wb", closefd=False)
        self._means_gone = _TERMINAL_GONE if self.isatty() else _READER_GONE
        self.left_out = 0
        self.failure: OSError | None = None

    def write(self, data: bytes) -> int:  # type: ignore[override]
        """Write at least one byte, however long it takes; return how many bytes were written or dropped."""
        try:
            while (written := super().write(data)) is None:
                # Another process made the shared stream non-blocking. A slow reader still gets everything.
                select.select([], [self], [])
        except OSError as error:
            self.left_out += 1
            if error.errno not in self._means_gone:
                self.failure = error
            return len(data)
        return written


def run(main: Callable[[list[str]], int]) -> NoReturn:
    """Run a command with this process's arguments, and exit with its code."""
    leave_out_pandas()
    leave_out_documentation()
    prepare_streams()
    try:
        code = main(sys.argv[1:])
    except KeyboardInterrupt:
        code = exit_codes.INTERRUPTED
    except OSError as error:
        if error.filename is None:
            raise
        sys.stderr.write(f"❌ {_shown(str(error.filename))} cannot be used ({error.strerror})\n")
        code = exit_codes.CONFIGURATION
    end_process(code)


class _PandasBlocker:
    """An import hook that reports pandas as not installed."""

    @staticmethod
    def find_spec(name: str, *_: object) -> None:
        if name == "pandas":
            raise ModuleNotFoundError("commands run without pandas", name=name)


def leave_out_pandas() -> None:
    """Prevent the import of pandas.

    pyarrow imports an installed pandas with its first array: 0.2 s and 40 MB that no command needs.
    """
    sys.meta_path.insert(0, _PandasBlocker)


class _UndocumentedCompute:
    """An import hook that runs `pyarrow.compute` with a stand-in for pyarrow's parser of documentation, or as it is if that fails."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None = None, *_: object) -> ModuleSpec | None:
        spec = PathFinder.find_spec(name, path) if name == "pyarrow.compute" else None
        if spec is not None and spec.loader is not None:
            spec.loader.exec_module = partial(_without_documentation, spec.loader.exec_module)  # type: ignore[method-assign]
        return spec


def _without_documentation(execute: Callable[[ModuleType], None], module: ModuleType) -> None:
    parser: Any = ModuleType("pyarrow.vendored.docscrape")
    parser.NumpyDocString = lambda _: {"Parameters": ()}
    sys.modules[parser.__name__] = parser
    try:
        execute(module)
    except Exception:  # noqa: BLE001  (whatever another version of pyarrow does with the stand-in)
        del sys.modules[parser.__name__]
        execute(module)
    else:
        del sys.modules[parser.__name__]


def leave_out_documentation() -> None:
    """Prevent pyarrow from parsing the documentation of its functions when `pyarrow.compute` is imported: a twentieth of a short run.

    The parser is private to pyarrow, so a version that uses it in another way parses as it always did.
    """
    sys.meta_path.insert(0, _UndocumentedCompute)


def reuse_freed_memory() -> None:
    """Make the allocator keep freed memory, if the system's has such options.

    Otherwise each array of a chunk is returned, and comes again as pages that the system clears first: a tenth of a run's processor time.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return  # not glibc
    for option, value in ((_M_ARENA_MAX, _POOLS), (_M_TRIM_THRESHOLD, _KEPT_BYTES), (_M_MMAP_THRESHOLD, _KEPT_BYTES)):
        mallopt(option, value)


def give_back_freed_memory() -> None:
    """Return freed memory to the system, as far as the allocators can.

    They keep it in pieces between what is in use, and Arrow some for each thread. After a large chunk this is more than the chunk itself.
    """
    import pyarrow as pa  # imported by then; commands that read nothing start without it

    pa.default_memory_pool().release_unused()
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError, TypeError):
        return  # not glibc


def _shown(path: str) -> str:
    """Return a path only if it was given on the command line, since any other may contain a person's name."""
    return path if any(path.startswith(argument) for argument in sys.argv[1:] if argument) else "A file or folder"


def prepare_streams() -> None:
    """Make sure that writing to standard output and standard error never fails.

    A closed descriptor is replaced first: otherwise the next opened file would get its number, and messages would go into that file.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    sys.stdout = _surviving(sys.stdout)
    sys.stderr = _surviving(sys.stderr)


def _surviving(stream: IO[str] | None) -> io.TextIOWrapper:
    if stream is None:
        return Path(os.devnull).open("w", encoding="utf-8")
    assert isinstance(stream, io.TextIOWrapper), "as Python makes them"
    make_printable(stream)
    buffer = stream.buffer
    raw = getattr(buffer, "raw", buffer)
    if not isinstance(raw, io.FileIO):
        # The Windows console takes text.
        return stream
    is_unbuffered = raw is buffer
    file: Any = SurvivingFile(raw.fileno())
    return io.TextIOWrapper(
        file if is_unbuffered else io.BufferedWriter(file),
        encoding=stream.encoding,
        errors="replace",
        line_buffering=stream.line_buffering,
        write_through=is_unbuffered,
    )


def end_process(code: int) -> NoReturn:
    """Exit immediately; everything that must persist is on disk already.

    Arrow may still be starting a thread for the last answer it parsed. A normal interpreter exit then aborts ("terminate called without
    an active exception") and loses the exit code. Threads that wait for a server, or for the log's reader, are abandoned.
    """
    finish_log()
    flushing = threading.Thread(target=_flush, daemon=True)
    flushing.start()
    # Without a log, the streams carry the command's result, which may be read slowly.
    has_log = bool(logging.getLogger().handlers)
    flushing.join(_LAST_FLUSH_S if has_log else None)
    os._exit(code if has_log else _code_unless_output_was_lost(code))


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        stream.flush()


def _code_unless_output_was_lost(code: int) -> int:
    """Return the command's code; or OUTPUT_LOST, with a message, if its result could not be written, except for a lost reader."""
    buffer = getattr(sys.stdout, "buffer", None)
    failure: OSError | None = getattr(getattr(buffer, "raw", buffer), "failure", None)
    if failure is None:
        return code
    sys.stderr.write(f"❌ The output could not be written ({failure.strerror}): it is incomplete\n")
    sys.stderr.flush()
    return exit_codes.OUTPUT_LOST
