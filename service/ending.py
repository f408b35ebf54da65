"""How the process ends once nothing is left to do."""

from __future__ import annotations

import logging
import os
import sys
from typing import NoReturn


def end_process(code: int) -> NoReturn:
    """End with an exit code, at once: everything that must last is on the disk already.

    Arrow may still be starting a thread for the last answer it parsed. An interpreter that ends the usual way then aborts ("terminate
    called without an active exception"), and the exit code, which says what to do, is lost. Nor is a thread waited for that waits for a
    server.
    """
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code)
