"""Keeps a file open while it is read, and checks that its content still matches its digest."""

from __future__ import annotations

import hashlib
import os
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from anonymizer.errors import SourceRefused


class HeldFile:
    """A file that stays open until `close`, so that one put in its place under its name is not read.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        # Unbuffered: a buffer would go on showing what the file held before.
        self.file = path.open("rb", buffering=0)
        self.close = weakref.finalize(self, self.file.close)
        self._digest = ""
        self._state = self._state_now()

    def again(self) -> HeldFile:
        """Open the file under its name again. Raises SourceRefused unless it is as it was when it was opened first."""
        held = HeldFile(self._path)
        held._state, held._digest = self._state, self._digest
        try:
            held.check()
        except SourceRefused:
            held.close()
            raise
        return held

    @property
    def size(self) -> int:
        """How many bytes it had when it was opened."""
        return self._state[0]

    def sha256(self) -> str:
        """Return the digest of the whole file, which it keeps from now on."""
        with self.unchanged():
            self._digest = self._digest_now()
        return self._digest

    @contextmanager
    def unchanged(self) -> Iterator[None]:
        """Do something, and then `check`."""
        try:
            yield
        finally:
            # Even behind another error: what made no sense may be half of the old file and half of the new one.
            self.check()

    def check(self, digest: str = "") -> None:
        """Raise SourceRefused unless the file is as it was; where only its times differ, its digest tells.

        Args:
            digest: The digest of what was read, where it was computed on the way.
        """
        self._digest = digest or self._digest
        state = self._state_now()
        if state == self._state:
            return
        has_grown = state[0] != self._state[0]
        if has_grown or not self._digest or self._digest_now() != self._digest:
            raise SourceRefused(
                "INPUT_FILE was written to while it was read, so its rows cannot be told from those of before. "
                "Start again when nothing writes to it any more"
            )
        self._state = state

    def _digest_now(self) -> str:
        self.file.seek(0)
        return hashlib.file_digest(self.file, "sha256").hexdigest()

    def _state_now(self) -> tuple[int, int, int]:
        found = os.fstat(self.file.fileno())
        return found.st_size, found.st_mtime_ns, found.st_ctime_ns
