"""The log: one line an event on standard output, times in UTC, on any console."""

from __future__ import annotations

import io
import logging
import sys
import time

LINE_FORMAT = "%(asctime)s - %(levelname)s - %(message)s"
TIME_FORMAT = "%Y-%m-%d %H:%M:%S"

#: These tell more than we would at DEBUG, headers and bodies among it.
_TALKATIVE = ("urllib3", "influxdb_client", "reactivex", "requests", "charset_normalizer")


def set_up_logging(level: str) -> None:
    """Send every log line of `level` and above to standard output."""
    make_printable(sys.stdout)
    make_printable(sys.stderr)
    formatter = logging.Formatter(LINE_FORMAT, TIME_FORMAT)
    formatter.converter = time.gmtime
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(formatter)
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(logging.WARNING)


def make_printable(stream: object) -> None:
    """See that a console without our symbols (Windows cp1252) prints `?` for them instead of failing."""
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="replace")
