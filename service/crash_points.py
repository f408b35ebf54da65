"""Named points at which the process can kill itself, so that a test can specify a crash.

By default they do nothing. `ECG_ANONYMIZER_CRASH_AT=name` or `name:n` (the n-th time it is reached) arms one, and the service warns of it
at the start: crash points are not for production.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping

VARIABLE = "ECG_ANONYMIZER_CRASH_AT"

AFTER_READ = "after-read"
AFTER_ANONYMIZE = "after-anonymize"
MID_SPOOL = "mid-spool"
AFTER_SPOOL = "after-spool"
BEFORE_FENCE = "before-fence"
AFTER_RELEASED = "after-released"
BEFORE_WRITE = "before-write"
AFTER_WRITE = "after-write"
AFTER_TAKEN = "after-taken"
MID_DELETE = "mid-delete"

#: The points of `scripts/state.py erase`, in order; the middle three are reached in every place with such rows.
ERASURE_OPEN = "erasure-open"
ERASURE_FOUND = "erasure-found"
ERASURE_HALFWAY = "erasure-halfway"
ERASURE_REPLACED = "erasure-replaced"
ERASURE_BOOKED = "erasure-booked"
ERASURE_SCRUBBED = "erasure-scrubbed"
OF_ERASURE = (ERASURE_OPEN, ERASURE_FOUND, ERASURE_HALFWAY, ERASURE_REPLACED, ERASURE_BOOKED, ERASURE_SCRUBBED)

#: The points of a sweep of RETENTION_DAYS: the second is reached after each file.
REMOVAL_BEGUN = "removal-begun"
REMOVAL_HALFWAY = "removal-halfway"
REMOVAL_DONE = "removal-done"
OF_REMOVAL = (REMOVAL_BEGUN, REMOVAL_HALFWAY, REMOVAL_DONE)

#: All points, in the order in which a chunk reaches them.
ALL = (
    AFTER_READ,
    AFTER_ANONYMIZE,
    MID_SPOOL,
    AFTER_SPOOL,
    BEFORE_FENCE,
    AFTER_RELEASED,
    BEFORE_WRITE,
    AFTER_WRITE,
    AFTER_TAKEN,
    MID_DELETE,
)


def _nothing(name: str) -> None:
    """Do nothing: the default."""


#: Called as `crash_points.reached(NAME)`.
reached: Callable[[str], None] = _nothing


def switch_on(environment: Mapping[str, str]) -> str | None:
    """Arm the crash point named by the environment, if any; return what was armed.

    Raises:
        ValueError: There is no such point.
    """
    global reached
    wanted = environment.get(VARIABLE)
    if not wanted:
        return None
    name, _, count = wanted.partition(":")
    if name not in (known := ALL + OF_ERASURE + OF_REMOVAL):
        raise ValueError(f"{VARIABLE} must be one of {', '.join(known)}, got {name!r}")
    reached = _killing_at(name, int(count or 1))
    return wanted


def _killing_at(name: str, nth: int) -> Callable[[str], None]:
    left = nth

    def reached(point: str) -> None:
        nonlocal left
        if point == name:
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    return reached
