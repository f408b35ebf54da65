"""How a heartbeat command reads its arguments, speaks and ends. A user's mistake never ends in a traceback.

HeartError                     ends the command with a sentence and an exit code
├── InvalidEntries     1       entries do not match the schema: fix them; nothing was done with any of them
├── UsageError         64      the command line, or a file it names, asks for what cannot be done
├── LedgerUnusable     78      the ledger cannot be opened or locked: fix its path or permissions
└── WriteFailed        74      the ledger could not take the lines now: nothing was appended, run it again
ConfigurationError     78      the salt is missing, short or given twice (anonymizer.errors)

Results go to standard output; problems and warnings go to standard error. A problem names file and line, never a value: what is in an
entry may identify a person, and error output ends up in logs that more people read than the ledger.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn, TextIO

from anonymizer.errors import ConfigurationError

DONE, INVALID, USAGE, INPUT_OUTPUT, CONFIGURATION = 0, 1, 64, 74, 78

#: What a shell reports for a program that Ctrl+C or a closed pipe ended: 128 plus the signal's number.
INTERRUPTED, READER_GONE = 130, 141

#: The file name for standard input, and its name in messages.
STANDARD_INPUT, STANDARD_INPUT_NAME = "-", "<stdin>"

EXIT_CODES = """exit codes:
  0   done
  1   invalid entries were found; nothing was done with any entry
  64  the command line, or a file it names, asks for what cannot be done
  74  reading or writing failed; nothing was appended
  78  the salt, the ledger's place or the installation is not usable
  130 interrupted with Ctrl+C    141 the reader of the output went away"""


class HeartError(Exception):
    """A command cannot do what it was asked. The message says what was asked, what was got and what to do."""

    exit_code = INPUT_OUTPUT
    problems: tuple[str, ...] = ()


class InvalidEntries(HeartError):
    """One or more entries are invalid. Carries every problem as `file:line: field: problem`, so that all can be fixed at once."""

    exit_code = INVALID

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__(
            f"{len(self.problems)} problem(s) in the entries named above; nothing was done with any entry. Fix them and run again"
        )


class UsageError(HeartError):
    """The command line asks for what cannot be done."""

    exit_code = USAGE


class LedgerUnusable(HeartError):
    """The ledger cannot be opened or locked, and a retry will not help: its path or permissions must be fixed first."""

    exit_code = CONFIGURATION


class WriteFailed(HeartError):
    """The ledger could not take the lines now. It is unchanged."""

    exit_code = INPUT_OUTPUT


class _RefuseSalt(argparse.Action):
    """Answers `--salt VALUE` without repeating the value."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object, **__: object) -> NoReturn:
        parser.error(
            "the salt is never an argument: other users see it in the process list and the shell keeps it. "
            "Put a new one into a file of mode 600 and name the file in HEART_SALT_FILE"
        )


class Arguments(argparse.ArgumentParser):
    """An argument parser that exits 64 and never repeats an unknown argument: it might be a salt."""

    def __init__(self, description: str, examples: str) -> None:
        super().__init__(
            description=description,
            epilog=f"examples:\n{examples}\n\n{EXIT_CODES}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        self.add_argument("--salt", nargs="?", action=_RefuseSalt, help=argparse.SUPPRESS)

    def add_input_file(self) -> None:
        """Add the file of entries that a command reads."""
        help_text = "one JSON object, a JSON array or JSON Lines (default: standard input)"
        self.add_argument("file", nargs="?", default=STANDARD_INPUT, help=help_text)

    def read(self, arguments: Sequence[str]) -> argparse.Namespace:
        """Return the arguments, or raise UsageError."""
        known, unknown = self.parse_known_args(arguments)
        if unknown:
            options = [argument.partition("=")[0] for argument in unknown if argument.startswith("-")]
            self.error(f"unknown option {options[0]}" if options else f"{len(unknown)} argument(s) too many")
        return known

    def error(self, message: str) -> NoReturn:
        """Raise UsageError."""
        raise UsageError(f"{message}; `{self.prog} --help` shows what can be asked")

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        """Leave after `--help`. Flushes here, so that `run` still notices a closed pipe."""
        sys.stdout.flush()
        super().exit(status, message)


def field_names(text: str) -> tuple[str, ...]:
    """Return the names in a comma-separated list: the type of `--fields`."""
    names = tuple(name.strip() for name in text.split(","))
    if not all(names):
        raise argparse.ArgumentTypeError("must be names with commas between them, such as source_id,device; got an empty name")
    return names


def counted(entries: int) -> str:
    """Return a number of entries as text."""
    return "1 entry" if entries == 1 else f"{entries} entries"


def name_of(path: str) -> str:
    """Return what messages call the file."""
    return STANDARD_INPUT_NAME if path == STANDARD_INPUT else path


def read_input(path: str) -> bytes:
    """Return all bytes of a file or of standard input, or raise UsageError."""
    try:
        return _standard_input() if path == STANDARD_INPUT else Path(path).read_bytes()
    except OSError as error:
        raise unreadable(path, error) from error


def _standard_input() -> bytes:
    if sys.stdin is None:
        raise UsageError("there is no standard input; name a file, or pipe the entries in")
    if sys.stdin.isatty():
        warn("reading entries from the terminal; end them with Ctrl+D (Windows: Ctrl+Z, Enter)")
    return sys.stdin.buffer.read()


def unreadable(path: str, error: OSError) -> UsageError:
    """Return the error for a file that cannot be read."""
    return UsageError(f"cannot read {name_of(path)}: {error.strerror}; check the name and its permissions")


def report(line: str) -> None:
    """Write a line to standard output. A closed pipe is not a failure: the work is done."""
    _tell(sys.stdout, line)


def warn(line: str) -> None:
    """Write a line to standard error."""
    _tell(sys.stderr, line)


def _tell(stream: TextIO | None, line: str) -> None:
    if stream is None:
        return
    try:
        stream.write(f"{line}\n")
        stream.flush()
    except OSError:
        _let_go_of(stream)


def _let_go_of(stream: TextIO | None) -> None:
    """Discard the rest. Otherwise the interpreter fails on it again at exit, and prints that."""
    if stream is None:
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def ignore_ctrl_c() -> None:
    """Keep a late Ctrl+C from changing the exit code: the work is done. Python would still end on one while it exits."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def write_result(text: str) -> None:
    """Write a command's result to standard output, for the next program to read."""
    if sys.stdout is None:
        raise UsageError("there is no standard output to write the result to; name one with > FILE or |")
    sys.stdout.write(text)


def run(main: Callable[[Sequence[str]], int]) -> int:
    """Run a command on this process's arguments and return its exit code."""
    _write_utf_8()
    try:
        exit_code = main(sys.argv[1:])
        _flush_standard_output()
    except (HeartError, ConfigurationError, ModuleNotFoundError, OSError, KeyboardInterrupt) as error:
        return _exit_code_of(error)
    return exit_code


def _write_utf_8() -> None:
    """Write UTF-8 whatever the locale says. A file name that is not valid text is escaped."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure: Callable[..., Any] | None = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(encoding="utf-8", errors="backslashreplace")


def _flush_standard_output() -> None:
    if sys.stdout is not None:
        sys.stdout.flush()


def _exit_code_of(error: BaseException) -> int:
    """Report the error and return its exit code."""
    match error:
        case HeartError():
            for problem in error.problems:
                warn(problem)
            warn(f"error: {error}")
            return error.exit_code
        case ConfigurationError():
            warn("\n".join(f"error: {problem}" for problem in error.problems))
            return CONFIGURATION
        case ModuleNotFoundError():
            warn(f"error: the library {error.name} is not installed; in the project's folder: pip install -r requirements.txt")
            return CONFIGURATION
        case KeyboardInterrupt():
            warn("interrupted")
            return INTERRUPTED
        case BrokenPipeError():
            _let_go_of(sys.stdout)
            return READER_GONE
        case _:
            warn(f"error: reading or writing failed: {error}")
            _let_go_of(sys.stdout)
            return INPUT_OUTPUT
