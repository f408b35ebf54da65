"""Whether a failed request can have reached a server."""

from __future__ import annotations

import urllib3
from urllib3.exceptions import ConnectTimeoutError, NewConnectionError


def was_never_sent(error: BaseException) -> bool:
    """Return whether no connection came about: the one failure of which the outcome is known.

    Args:
        error: What urllib3 raised, or a library above it that gives urllib3's error as its first argument.
    """
    cause = error.args[0] if error.args else None
    reason = cause.reason if isinstance(cause, urllib3.exceptions.MaxRetryError) else cause
    # ConnectTimeoutError is not a NewConnectionError in all versions; a name resolution error is one.
    return isinstance(reason, NewConnectionError | ConnectTimeoutError)
