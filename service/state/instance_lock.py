"""One instance per state folder: an advisory lock that the operating system releases when its process ends."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path

from anonymizer.errors import ConfigurationError, StateUnavailable
from disk.durable_file import make_folder, open_or_create
from disk.file_lock import NO_LOCKS, try_to_lock

#: A lock file contains only a process id.
_LONGEST_NUMBER = 20

#: Errors that only an operator can fix: wrong owner or location of the file.
_PERMANENT = frozenset({errno.EACCES, errno.EPERM, errno.EROFS, errno.ELOOP, errno.EMLINK, errno.EISDIR, errno.EINVAL})


class AnotherInstance(Exception):
    """Another process uses this folder; the message names it."""


class InstanceLock:
    """Locks a folder until the process ends, or until `release`.

    Args:
        folder: STATE_DIR; created if missing.

    Raises:
        AnotherInstance: Another process holds the lock.
        ConfigurationError: The lock file belongs to another user, is a link, or is on a disk without locks.
        StateUnavailable: The disk cannot be used now.
    """

    def __init__(self, folder: Path) -> None:
        self._descriptor = _opened(folder)
        try:
            self._lock(folder)
        except BaseException:
            self.release()
            raise

    def release(self) -> None:
        """Unlock the folder."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _lock(self, folder: Path) -> None:
        try:
            if not try_to_lock(self._descriptor):
                holder = os.read(self._descriptor, _LONGEST_NUMBER).decode("ascii", "replace").strip() or "unknown"
                raise AnotherInstance(
                    f"process {holder} already works on STATE_DIR {folder}; stop it first, or give this one a folder of its own"
                )
        except OSError as error:
            if error.errno in NO_LOCKS:
                raise ConfigurationError(
                    f"STATE_DIR {folder} is on a disk without locks ({error.strerror}), so two instances on it would not notice each "
                    "other. Put STATE_DIR on a local disk, or on a share with locks (NFS: start its lock service)"
                ) from None
            raise StateUnavailable(f"{folder / 'lock'} cannot be used now ({error.strerror or error})") from None
        # Only for the message above. The lock does not depend on it, such as on a full disk.
        with suppress(OSError):
            os.ftruncate(self._descriptor, 0)
            os.write(self._descriptor, f"{os.getpid()}\n".encode())


def _opened(folder: Path) -> int:
    path = folder / "lock"
    try:
        make_folder(folder)
        return open_or_create(path)
    except OSError as error:
        if error.errno not in _PERMANENT:
            raise StateUnavailable(f"{path} cannot be opened now ({error.strerror or error})") from None
        raise ConfigurationError(
            f"{path} cannot be opened ({error.strerror}): it belongs to another user, is not a regular file, or is not writable. Run as "
            f"the owner of STATE_DIR, or give STATE_DIR and its content to this user; if {path.name} is not the service's, move it away"
        ) from None
