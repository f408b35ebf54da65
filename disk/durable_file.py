"""Writes files that survive a power cut, that a planted link cannot redirect, and that have exact permissions.

No link is followed at the last part of a path: an attacker who plants one at a predictable name could make the service overwrite or
truncate a file elsewhere. A folder may be a link. Permissions do not depend on the process's umask. What root creates in another user's
folder belongs to that user: a command that an operator runs as root must not leave files that the service cannot write to.
"""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

#: Only the owner may read the service's state.
PRIVATE = 0o600
PRIVATE_FOLDER = 0o700

#: Folders above one of the service's; only their owner may write to them.
_FOLDER_ABOVE = 0o755

#: Failures of a disk, a share or a process limit that may pass. No path or permission has to change.
PASSING = frozenset(
    {
        *(errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM),
        *(errno.ESTALE, errno.EINTR, errno.EAGAIN, errno.EBUSY, errno.ETIMEDOUT),
    }
)

#: Windows has no O_NOFOLLOW, and converts line ends without O_BINARY.
_FLAGS = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)

#: Errors of platforms that cannot sync a folder: EINVAL for CIFS and FUSE, others for the rest. Windows cannot open a folder (EACCES), nor
#: can a process without the right to list it. Anything else, such as EIO, is a failure of the disk.
_CANNOT_SYNC_FOLDERS = frozenset({errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF})
_CANNOT_LINK = _CANNOT_SYNC_FOLDERS | {errno.EPERM, errno.EMLINK}
_CANNOT_OPEN_FOLDERS = _CANNOT_SYNC_FOLDERS | {errno.EACCES, errno.EPERM}


def write_durably(
    path: Path, content: bytes | memoryview, *, mode: int = PRIVATE, halfway: Callable[[], None] = lambda: None
) -> int:
    """Replace a file atomically and durably; return its size. Until the replacement, readers see the previous file.

    Args:
        path: The file; a link is replaced, not followed.
        content: Its new content.
        mode: Its permissions. While it is written, only its owner may read it.
        halfway: Called when half of it is written.

    Raises:
        OSError: It could not be written, and nothing has changed; or its folder could not be synced, and a power cut may undo the change.
    """
    middle = len(content) // 2
    unfinished = path.with_name(f"{path.name}.unfinished")
    with make_anew(unfinished, mode=mode) as file:
        file.write(memoryview(content)[:middle])
        halfway()
        file.write(memoryview(content)[middle:])
    replace_durably(unfinished, path)
    return len(content)


@contextmanager
def make_anew(path: Path, *, mode: int = PRIVATE) -> Iterator[BinaryIO]:
    """Yield an empty file to write to, in place of one of that name; synced afterwards. It is removed if that fails.

    Args:
        path: A temporary name.
        mode: Its permissions. While it is written, only its owner may read it.
    """
    path.unlink(missing_ok=True)
    try:
        with os.fdopen(create(path), "wb") as file:
            yield file
            file.flush()
            _set_mode(file.fileno(), mode)
            os.fsync(file.fileno())
    except OSError:
        with suppress(OSError):
            path.unlink()
        raise


def replace_durably(new: Path, path: Path) -> None:
    """Put a synced file in the place of another in the same folder, atomically and durably. It is removed if that fails."""
    try:
        new.replace(path)
    except OSError:
        with suppress(OSError):
            new.unlink()
        raise
    sync_folder(path.parent)


def put_new_durably(path: Path, content: bytes, *, mode: int = PRIVATE, unfinished: Path) -> None:
    """Create a file atomically and durably under a free name; an existing file stays as it is.

    Args:
        path: The file; its folder must exist.
        content: Its content.
        mode: Its permissions.
        unfinished: A temporary name that no other attempt uses, on the same file system.

    Raises:
        FileExistsError: The name is taken.
        OSError: It could not be written; nothing was created.
    """
    try:
        with os.fdopen(create(unfinished), "wb") as file:
            file.write(content)
            file.flush()
            _set_mode(file.fileno(), mode)
            os.fsync(file.fileno())
        _rename_to_free_name(unfinished, path)
    finally:
        with suppress(OSError):
            unfinished.unlink()
    sync_folder(path.parent)


def _rename_to_free_name(unfinished: Path, path: Path) -> None:
    try:
        # Unlike a rename, a hard link never replaces another file.
        path.hardlink_to(unfinished)
    except FileExistsError:
        raise
    except OSError as error:
        # FAT and many network shares have no hard links.
        if error.errno not in _CANNOT_LINK:
            raise
        if os.path.lexists(path):
            raise FileExistsError(errno.EEXIST, "there is something of that name") from None
        unfinished.rename(path)


def remove_durably(paths: Collection[Path], *, after_each: Callable[[], None] = lambda: None) -> dict[str, str]:
    """Remove files so that they stay removed after a power cut; return why some could not be removed, by name.

    Args:
        paths: The files; a missing one counts as removed, of a link the link itself is removed.
        after_each: Called after each file.

    Raises:
        OSError: A folder could not be synced; the files are gone, but may come back.
    """
    problems = {}
    for path in paths:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            problems[path.name] = error.strerror or str(error)
        after_each()
    for folder in {path.parent for path in paths}:
        if folder.is_dir():
            sync_folder(folder)
    return problems


def create(path: Path, mode: int = PRIVATE, flags: int = os.O_RDWR) -> int:
    """Return a descriptor of a new, empty file.

    Args:
        path: The file.
        mode: Its permissions.
        flags: For `os.open`.

    Raises:
        FileExistsError: The name is taken, even if by a broken link.
        OSError: It could not be created.
    """
    flags |= os.O_CREAT | os.O_EXCL | _FLAGS
    descriptor = _create_for_owner(path, flags) if _is_anothers(path.parent) else os.open(path, flags, PRIVATE)
    try:
        _set_mode(descriptor, mode)
    except OSError:
        os.close(descriptor)
        with suppress(OSError):
            path.unlink()
        raise
    return descriptor


def open_ours(path: Path, flags: int = os.O_RDWR) -> int:
    """Return a descriptor of an existing regular file that has no other hard link.

    Args:
        path: The file.
        flags: For `os.open`.

    Raises:
        FileNotFoundError: It does not exist.
        OSError: It is a link, not a regular file, or has a second hard link; or it could not be opened.
    """
    try:
        descriptor = os.open(path, flags | _FLAGS | getattr(os, "O_NONBLOCK", 0))
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise _is_a_link() from None
        raise
    problem = _problem_of(os.fstat(descriptor))
    if problem:
        os.close(descriptor)
        raise problem
    return descriptor


def read_ours(path: Path) -> bytes:
    """Return the content of an existing regular file. Other hard links to it, as in a backup, do not matter.

    Raises:
        FileNotFoundError: It does not exist.
        OSError: It is a link or not a regular file, such as a pipe that would never end; or it could not be read.
    """
    with os.fdopen(open_ours_to_read(path), "rb") as file:
        return file.read()


def open_ours_to_read(path: Path) -> int:
    """Return a descriptor of an existing regular file, to read it. Raises OSError as `read_ours` does."""
    try:
        descriptor = os.open(path, os.O_RDONLY | _FLAGS | getattr(os, "O_NONBLOCK", 0))
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise _is_a_link() from None
        raise
    problem = _kind_problem_of(os.fstat(descriptor))
    if problem:
        os.close(descriptor)
        raise problem
    return descriptor


def open_or_create(path: Path, mode: int = PRIVATE, flags: int = os.O_RDWR) -> int:
    """Return a descriptor of a file, created if it is missing. Raises OSError as `open_ours` and `create` do."""
    try:
        return create(path, mode, flags)
    except FileExistsError:
        return open_ours(path, flags)


def make_private(path: Path) -> None:
    """Make a file, if it exists, readable by its owner only.

    Raises:
        OSError: It is a link, or not a regular file; or its permissions cannot be read.
    """
    try:
        status = path.lstat()
    except FileNotFoundError:
        return
    if problem := _problem_of(status):
        raise problem
    # Not through a descriptor: closing one would release the locks that SQLite holds on the file.
    if os.name == "posix" and stat.S_IMODE(status.st_mode) & ~PRIVATE:
        with _without_modes():
            path.chmod(PRIVATE)


def make_folder(folder: Path, mode: int = PRIVATE_FOLDER) -> None:
    """Create a folder and its parents if they are missing. Existing ones keep their permissions. Raises OSError if it fails."""
    if os.path.isdir(folder):  # noqa: PTH112  (Path.is_dir raises what the disk says)
        return
    if folder.parent != folder:
        make_folder(folder.parent, _FOLDER_ABOVE)
    if _is_anothers(folder.parent):
        _make_folder_for_owner(folder, mode)
        return
    folder.mkdir(mode=mode, exist_ok=True)
    if os.name == "posix" and stat.S_IMODE(folder.stat().st_mode) != mode:
        with _without_modes():
            folder.chmod(mode)


def folder_mode(file_mode: int) -> int:
    """Return the permissions of a folder for files with these permissions: those who may read the files may list it."""
    may_read = stat.S_IRUSR | stat.S_IRGRP | stat.S_IROTH
    return PRIVATE_FOLDER | file_mode & may_read | (file_mode & may_read) >> 2


def mode_of(path: Path, *, otherwise: int) -> int:
    """Return the permissions of a file, or `otherwise` if there is no regular file of that name."""
    try:
        status = path.lstat()
    except OSError:
        return otherwise
    return stat.S_IMODE(status.st_mode) if stat.S_ISREG(status.st_mode) else otherwise


def why_not_writable(folder: Path, *, but_for: Collection[int] = ()) -> str:
    """Return why files cannot be created in a folder; empty if they can. Creates no folder and leaves nothing behind.

    Args:
        folder: It need not exist.
        but_for: Error numbers to ignore, such as `PASSING`.
    """
    try:
        if folder.exists():
            probe(folder)
            return ""
        above = next(one for one in folder.absolute().parents if os.path.lexists(one))
        if folder.is_symlink():
            return "it is a link to nothing"
        if not above.is_dir():
            return f"{above} is not a folder"
    except OSError as error:
        return "" if error.errno in but_for else error.strerror or str(error)
    return "" if os.access(above, os.W_OK | os.X_OK) else f"{above} cannot be written to"


def why_not_appendable(path: Path, *, but_for: Collection[int] = ()) -> str:
    """Return why a file of ours cannot be opened to append to it, or created; empty if it can. Creates nothing.

    Args:
        path: It need not exist.
        but_for: Error numbers to ignore, such as `PASSING`.
    """
    try:
        os.close(open_ours(path, os.O_RDWR | os.O_APPEND))
    except FileNotFoundError:
        return why_not_writable(path.parent, but_for=but_for)
    except NotADirectoryError:
        return f"{path.parent} is not a folder"
    except PermissionError as error:
        return f"{error.strerror}{_of_another_user(path)}"
    except OSError as error:
        return "" if error.errno in but_for else error.strerror or str(error)
    return ""


def _of_another_user(path: Path) -> str:
    with suppress(OSError, AttributeError):
        owner, user = path.lstat().st_uid, os.geteuid()
        if owner != user:
            return f"; it belongs to user {owner} and this is user {user}"
    return ""


def probe(folder: Path) -> None:
    """Create and remove a file with an unpredictable name in a folder. Raises OSError if none can be created."""
    descriptor, name = tempfile.mkstemp(prefix=".write-probe-", dir=folder)
    os.close(descriptor)
    # A folder in which nothing may be removed is good enough.
    with suppress(OSError):
        Path(name).unlink()


def sync_folder(folder: Path) -> bool:
    """Sync a folder, so that new names in it survive a power cut; return False if the platform cannot. Raises OSError if the disk fails."""
    # Windows has no such call and needs none.
    if os.name != "posix":
        return True
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError as error:
        if error.errno in _CANNOT_OPEN_FOLDERS:
            return False
        raise
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno in _CANNOT_SYNC_FOLDERS:
            return False
        raise
    finally:
        os.close(descriptor)
    return True


def _is_anothers(folder: Path) -> bool:
    """Return whether this process is root's and the folder is another user's."""
    if not hasattr(os, "geteuid") or os.geteuid():
        return False
    with suppress(OSError):
        return folder.stat().st_uid != 0
    return False


def _create_for_owner(path: Path, flags: int) -> int:
    with _opened_folder(path.parent) as folder:
        descriptor = os.open(path.name, flags, PRIVATE, dir_fd=folder)
        _give_to_owner_of(folder, descriptor)
    return descriptor


def _make_folder_for_owner(path: Path, mode: int) -> None:
    with _opened_folder(path.parent) as folder, suppress(FileExistsError):
        os.mkdir(path.name, mode, dir_fd=folder)
        with _opened_folder(Path(path.name), os.O_NOFOLLOW, dir_fd=folder) as made:
            _give_to_owner_of(folder, made)
            _set_mode(made, mode)


@contextmanager
def _opened_folder(folder: Path, flags: int = 0, *, dir_fd: int | None = None) -> Iterator[int]:
    """Yield a descriptor. By its name, the folder's owner could exchange it between two calls, and be given a file elsewhere."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | flags, dir_fd=dir_fd)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _give_to_owner_of(folder: int, descriptor: int) -> None:
    owner = os.fstat(folder)
    with _without_modes():
        os.fchown(descriptor, owner.st_uid, owner.st_gid)


def _set_mode(descriptor: int, mode: int) -> None:
    # The creating call cannot set them: the umask would remove some. Windows has no such permissions.
    if os.name == "posix" and stat.S_IMODE(os.fstat(descriptor).st_mode) != mode:
        with _without_modes():
            os.fchmod(descriptor, mode)


@contextmanager
def _without_modes() -> Iterator[None]:
    """Tolerate a file system without permissions, such as FAT or CIFS: those of its mount apply."""
    try:
        yield
    except OSError as error:
        if error.errno not in {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}:
            raise


def _is_a_link() -> OSError:
    return OSError(errno.ELOOP, "it is a link, and links are not followed here")


def _kind_problem_of(status: os.stat_result) -> OSError | None:
    if stat.S_ISLNK(status.st_mode):
        return _is_a_link()
    return None if stat.S_ISREG(status.st_mode) else OSError(errno.EINVAL, "it is not a regular file")


def _problem_of(status: os.stat_result) -> OSError | None:
    if problem := _kind_problem_of(status):
        return problem
    if status.st_nlink > 1:
        return OSError(errno.EMLINK, "it has a second name (a hard link), so what is written to it would be in another file too")
    return None
