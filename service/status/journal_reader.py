"""Reads the journal for pages, probes and metrics, so that a busy journal blocks neither them nor the release loop."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Generic, TypeVar

_T = TypeVar("_T")

#: How long to wait for the journal before the previous figures are used.
TIMEOUT_S = 0.3


class JournalReader(Generic[_T]):
    """Reads in its own thread, one read at a time. Safe to use from several threads. `last` has the latest figures.

    Args:
        read: Returns the figures; may take long, or raise.
        first: The figures before the first read.
    """

    def __init__(self, read: Callable[[], _T], first: _T) -> None:
        self._read = read
        self.last = first
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def latest(self) -> _T:
        """Return the current figures, or the previous ones if the read takes too long."""
        with suppress(RuntimeError):  # no thread can be started now
            self._reading_thread().join(TIMEOUT_S)
        return self.last

    def _reading_thread(self) -> threading.Thread:
        with self._lock:
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="figures", daemon=True)
                self._thread.start()
            return self._thread

    def _run(self) -> None:
        with suppress(Exception):  # the release loop uses the same journal and reports its errors
            self.last = self._read()
