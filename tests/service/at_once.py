"""How many do something at the same time."""

from __future__ import annotations

import threading


class AtOnce:
    """Entered by each that begins and left by each that ends; `most` is how many were inside together."""

    def __init__(self) -> None:
        self.most = 0
        self._inside = 0
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        with self._lock:
            self._inside += 1
            self.most = max(self.most, self._inside)

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
