"""One instance for each state folder: an advisory lock that ends with the process that holds it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import IO

#: Windows locks a byte, and keeps others from reading it; it must not be one that holds the number.
_WINDOWS_LOCKED_BYTE = 1 << 20


class AnotherInstance(Exception):
    """Somebody else works on this folder; the message names them."""


class InstanceLock:
    """Holds a folder for as long as the process lives, or until `release`.

    Args:
        folder: STATE_DIR; made when it is not there.

    Raises:
        AnotherInstance: Another process holds it.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        path = folder / "lock"
        self._file = path.open("a+", encoding="ascii")
        if not _try_to_lock(self._file):
            self._file.seek(0)
            holder = self._file.read().strip() or "unknown"
            self._file.close()
            raise AnotherInstance(
                f"process {holder} already works on STATE_DIR {folder}; stop it first, or give this one a folder of its own"
            )
        self._file.truncate(0)
        self._file.write(f"{os.getpid()}\n")
        self._file.flush()

    def release(self) -> None:
        """Let others have the folder."""
        self._file.close()


def _try_to_lock(file: IO[str]) -> bool:
    try:
        if os.name == "posix":
            import fcntl  # there is none on Windows

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        else:
            import msvcrt

            file.seek(_WINDOWS_LOCKED_BYTE)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
            file.seek(0)
    except OSError:
        return False
    return True
