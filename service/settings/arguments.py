"""Command lines that end as the rest of the project does."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from service import exit_codes
from service.settings.types import path


def argument(parse: Callable[[str], Any]) -> Callable[[str], Any]:
    """Return the type of an argument that is read as a setting is (`service/settings/types.py`), so that its complaint is a sentence."""

    def read(text: str) -> Any:
        try:
            return parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"expected {error}, got {text!r}") from None

    return read


def path_argument(text: str) -> Path:
    """Return a path that an argument names, or complain where a shell did not write out what stands for it, as in `--to=~/report.html`."""
    return Path(argument(path)(text))


class Parser(argparse.ArgumentParser):
    """An argument parser whose error exits with the project's usage code."""

    def error(self, message: str) -> NoReturn:
        """Print usage and message, and exit."""
        self.print_usage(sys.stderr)
        self.exit(exit_codes.USAGE, f"{self.prog}: {message}\n")
