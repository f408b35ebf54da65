"""Advisory locks on open files, which end with the process that holds them.

Not from a library: filelock leaves a second file behind and needs write permission to read; portalocker needs pywin32.
"""

from __future__ import annotations

import errno
import os

#: The byte that Windows locks. Others cannot read a locked byte, so it is the last one that the call can name.
_WINDOWS_LOCKED_BYTE = 2**31 - 2

#: Errors when another process holds the lock: the first two from flock, which are equal on Linux; the others from Windows and fcntl.
_HELD = frozenset({errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES, errno.EDEADLK})

#: Errors of a file system without locks, such as NFS without lockd. They may pass if lockd is still starting.
NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.EBADF})


def try_to_lock(descriptor: int, *, exclusive: bool = True) -> bool:
    """Lock an open file, exclusively or shared, without waiting; return whether the lock was free.

    Raises:
        OSError: It cannot be locked at all, such as with one of `NO_LOCKS`.
    """
    try:
        _lock(descriptor, exclusive=exclusive)
    except OSError as error:
        if error.errno in _HELD:
            return False
        raise
    return True


def unlock(descriptor: int) -> None:
    """Release the lock."""
    if os.name == "posix":
        import fcntl  # there is none on Windows

        fcntl.flock(descriptor, fcntl.LOCK_UN)
    else:
        import msvcrt

        os.lseek(descriptor, _WINDOWS_LOCKED_BYTE, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_UNLCK, 1)  # type: ignore[attr-defined]
        os.lseek(descriptor, 0, os.SEEK_SET)


def _lock(descriptor: int, *, exclusive: bool) -> None:
    if os.name == "posix":
        import fcntl

        fcntl.flock(descriptor, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
        return
    import msvcrt

    os.lseek(descriptor, _WINDOWS_LOCKED_BYTE, os.SEEK_SET)
    try:
        # The C library of Windows has only exclusive locks.
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
    finally:
        os.lseek(descriptor, 0, os.SEEK_SET)
