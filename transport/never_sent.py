"""Tells whether a failed request can have reached the server."""

from __future__ import annotations

import urllib3
from urllib3.exceptions import ConnectTimeoutError, NewConnectionError


def was_never_sent(error: BaseException) -> bool:
    """Return whether no connection was established, which is the only failure after which a request certainly had no effect.

    Args:
        error: An error of urllib3, or of a library that passes urllib3's error as its first argument.
    """
    cause = error.args[0] if error.args else None
    reason = cause.reason if isinstance(cause, urllib3.exceptions.MaxRetryError) else cause
    # ConnectTimeoutError is not a NewConnectionError in all versions; a name resolution error is one.
    return isinstance(reason, NewConnectionError | ConnectTimeoutError)
