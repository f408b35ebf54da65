"""A lock is held by one, let go with its process, and told apart from a disk that has no locks."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from disk.durable_file import open_or_create
from disk.file_lock import NO_LOCKS, try_to_lock, unlock

HOLD = """
import sys
from pathlib import Path
from disk.durable_file import open_or_create
from disk.file_lock import try_to_lock
assert try_to_lock(open_or_create(Path(sys.argv[1])), exclusive=sys.argv[2] == "exclusive")
print("held", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize(
    ("theirs", "ours", "goes"), [("exclusive", True, False), ("exclusive", False, False), ("shared", False, True)]
)
def test_one_writer_or_many_readers_hold_a_lock(theirs: str, ours: bool, goes: bool, tmp_path: Path) -> None:
    path = tmp_path / "lock"
    command = [sys.executable, "-c", HOLD, str(path), theirs]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        descriptor = open_or_create(path)
        try:
            assert try_to_lock(descriptor, exclusive=ours) == goes
            unlock(descriptor)
            holder.kill()
            holder.wait()
            assert try_to_lock(descriptor)
        finally:
            os.close(descriptor)


@pytest.mark.skipif(sys.platform == "win32", reason="fails a call that Windows does not have")
@pytest.mark.parametrize(
    ("code", "is_held", "has_no_locks"),
    [
        (errno.EWOULDBLOCK, True, False),
        (errno.EACCES, True, False),
        (errno.ENOLCK, False, True),
        (errno.ENOTSUP, False, True),
        (errno.ENOSYS, False, True),
        (errno.EINVAL, False, True),
        (errno.EIO, False, False),
    ],
)
def test_errors_of_the_system_are_distinguished(
    code: int, is_held: bool, has_no_locks: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fcntl

    def fail(descriptor: int, operation: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", fail)
    descriptor = open_or_create(tmp_path / "lock")
    try:
        if is_held:
            assert not try_to_lock(descriptor)
        else:
            with pytest.raises(OSError) as refused:  # noqa: PT011  (its number is what matters)
                try_to_lock(descriptor)
            assert (refused.value.errno in NO_LOCKS) == has_no_locks
    finally:
        os.close(descriptor)
