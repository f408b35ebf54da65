"""Command-line arguments: errors are sentences, and a usage error exits with the project's code."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from service import exit_codes
from service.settings.types import path
from service.version import VERSION_IN_WORDS


def argument(parse: Callable[[str], Any]) -> Callable[[str], Any]:
    """Return an argparse type that parses like a setting (`service/settings/types.py`); its error is a sentence."""

    def read(text: str) -> Any:
        try:
            return parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"expected {error}, got {text!r}") from None

    return read


def path_argument(text: str) -> Path:
    """Return a path given as an argument; reject one that the shell did not expand, as in `--to=~/report.html`."""
    return Path(argument(path)(text))


class Parser(argparse.ArgumentParser):
    """An argument parser that knows `--version`, and whose error exits with the project's usage code."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.add_argument(
            "--version", action="version", version=f"ECG anonymizer {VERSION_IN_WORDS}", help="print the version and exit"
        )

    def error(self, message: str) -> NoReturn:
        """Print usage and message, and exit."""
        self.print_usage(sys.stderr)
        self.exit(exit_codes.USAGE, f"{self.prog}: {message}\n")
