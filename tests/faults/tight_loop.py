"""Does nothing but what a signal can interrupt badly, as fast as possible, until it is asked to stop.

`python -m tests.faults.tight_loop wait` waits on the clock; `start` starts threads; `log` logs.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable

from service.clock import SystemClock
from service.signals import clock_stopped_by_signals
from service.telemetry.log_writer import set_up_logging


def _start_a_thread() -> None:
    thread = threading.Thread(target=lambda: None)
    thread.start()
    thread.join()


def work_of(kind: str, clock: SystemClock) -> Callable[[], None]:
    """Return what is done again and again."""
    log = logging.getLogger("ecg_anonymizer")
    return {"wait": lambda: clock.wait(0), "start": _start_a_thread, "log": lambda: log.info("going round")}[kind]


def main(kind: str) -> None:
    """Say that signals are heard from now on, and go round."""
    set_up_logging("INFO")
    clock = clock_stopped_by_signals()
    sys.stderr.write("ready\n")
    work = work_of(kind, clock)
    while not clock.is_stopping():
        work()


if __name__ == "__main__":
    main(sys.argv[1])
