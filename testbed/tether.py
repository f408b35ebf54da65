"""Run a program that ends when the process that asked for it does, even if that is killed (Linux only).

`tether.py PID PROGRAM ARGUMENT…`, where PID is the process that asks.

It replaces itself by the program, so the process id stays. A program of its own rather than a `preexec_fn`, which Python advises
against in a process that has threads, as tests do.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

#: From <linux/prctl.h>.
PR_SET_PDEATHSIG = 1


def main() -> None:
    """Ask the kernel for SIGTERM at the parent's death, then become the program."""
    parent, program = int(sys.argv[1]), sys.argv[2:]
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    # Had it died before that call, nothing would ever come.
    if os.getppid() == parent:
        os.execvp(program[0], program)


if __name__ == "__main__":
    main()
