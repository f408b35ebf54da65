"""Python loads this by its name when the folder is on PYTHONPATH: the process then lives in a time that a test may change any moment.

How far the clock is off, in seconds, stands in the file that ECG_CLOCK_OFFSET_FILE names. Only the time of day is set: like on a real
machine, `time.monotonic` knows nothing of it.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

_FILE = Path(os.environ["ECG_CLOCK_OFFSET_FILE"])

_true_time_ns = time.time_ns


def _shifted_time_ns() -> int:
    return _true_time_ns() + round(float(_FILE.read_text() or 0) * 1e9)


time.time_ns = _shifted_time_ns
time.time = lambda: _shifted_time_ns() / 1e9
