"""Command lines that end as the rest of the project does."""

from __future__ import annotations

import argparse
import sys
from typing import NoReturn

from service import exit_codes


class Parser(argparse.ArgumentParser):
    """An argument parser whose complaint ends with our own exit code for usage."""

    def error(self, message: str) -> NoReturn:
        """Print usage and message, and exit."""
        self.print_usage(sys.stderr)
        self.exit(exit_codes.USAGE, f"{self.prog}: {message}\n")
