"""A file is complete and durable or absent, is readable only as its mode says, and no planted name leads elsewhere."""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from disk.durable_file import (
    create,
    folder_mode,
    make_folder,
    make_private,
    mode_of,
    open_or_create,
    open_ours,
    probe,
    put_new_durably,
    sync_folder,
    why_not_appendable,
    write_durably,
)
from tests.disk.planted import LINKS, Plant

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such modes and links")


@pytest.fixture(params=[0o000, 0o022, 0o077, 0o777], ids=oct)
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_permissions_are_those_asked_for_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    make_folder(tmp_path / "state")
    make_folder(tmp_path / "csv", folder_mode(0o640))
    write_durably(tmp_path / "state" / "fence", b"x")
    write_durably(tmp_path / "report.html", b"x", mode=0o640)
    os.close(create(tmp_path / "x.csv", 0o640))
    os.close(open_or_create(tmp_path / "ledger"))

    names = ("state", "csv", "state/fence", "report.html", "x.csv", "ledger")
    assert [mode(tmp_path / name) for name in names] == [0o700, 0o750, 0o600, 0o640, 0o640, 0o600]


def test_a_file_is_its_owners_alone_as_long_as_it_is_written(tmp_path: Path, umask: int) -> None:
    seen: list[int] = []

    write_durably(
        tmp_path / "report.html", b"12", mode=0o664, halfway=lambda: seen.append(mode(tmp_path / "report.html.unfinished"))
    )

    assert (seen, mode(tmp_path / "report.html")) == ([0o600], 0o664)


def test_what_is_there_keeps_its_permissions_where_that_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_bytes(b"old")
    path.chmod(0o604)

    write_durably(path, b"new", mode=mode_of(path, otherwise=0o640))

    assert (path.read_bytes(), mode(path)) == (b"new", 0o604)
    make_private(path)
    assert mode(path) == 0o600


def test_a_folder_that_is_there_keeps_its_permissions_and_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir(mode=0o755)
    (tmp_path / "state").symlink_to(tmp_path / "disk")

    make_folder(tmp_path / "state")
    write_durably(tmp_path / "state" / "fence", b"x")

    assert mode(tmp_path / "disk") == 0o755
    assert (tmp_path / "disk" / "fence").read_bytes() == b"x"


@pytest.mark.parametrize(("file", "folder"), [(0o600, 0o700), (0o640, 0o750), (0o660, 0o750), (0o644, 0o755)])
def test_who_may_read_files_may_enter_their_folder(file: int, folder: int) -> None:
    assert folder_mode(file) == folder


PLANTED: dict[str, Plant] = {**LINKS, "pipe": lambda path, victim: os.mkfifo(path)}


@pytest.mark.parametrize("plant", PLANTED.values(), ids=PLANTED)
@pytest.mark.parametrize("name", ["fence", "fence.unfinished"])
def test_writing_a_whole_file_replaces_what_was_planted(plant: Plant, name: str, victim: Path, tmp_path: Path) -> None:
    plant(tmp_path / name, victim)

    write_durably(tmp_path / "fence", b"ours")

    assert (tmp_path / "fence").read_bytes() == b"ours"
    assert not (tmp_path / "fence").is_symlink()
    assert not os.path.lexists(tmp_path / "fence.unfinished")


@pytest.mark.parametrize("plant", PLANTED.values(), ids=PLANTED)
@pytest.mark.parametrize("function", [open_ours, open_or_create, create, make_private])
def test_opening_what_was_planted_is_refused(
    plant: Plant, function: Callable[[Path], object], victim: Path, tmp_path: Path
) -> None:
    plant(tmp_path / "lock", victim)

    with pytest.raises(OSError):  # noqa: PT011  (which one differs; that it is one matters)
        function(tmp_path / "lock")


def test_a_refusal_says_what_is_wrong(victim: Path, tmp_path: Path) -> None:
    said = []
    for name, plant in PLANTED.items():
        plant(tmp_path / name, victim)
        with pytest.raises(OSError) as refused:  # noqa: PT011
            open_ours(tmp_path / name)
        said.append(str(refused.value.strerror).partition(",")[0])

    assert said == ["it is a link", "it is a link", "it has a second name (a hard link)", "it is not a regular file"]


def test_a_probe_leaves_nothing_and_has_a_name_that_cannot_be_guessed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names: list[str] = []
    real_unlink = Path.unlink

    def unlink(path: Path) -> None:
        names.append(path.name)
        real_unlink(path)

    monkeypatch.setattr(Path, "unlink", unlink)
    probe(tmp_path)
    probe(tmp_path)

    assert len(set(names)) == 2
    assert not any(str(os.getpid()) in name for name in names)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOTSUP, errno.EBADF, errno.ENOSYS])
def test_a_disk_that_cannot_sync_folders_is_tolerated_and_told(
    code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", failing(os.fsync, code, lambda fd: stat.S_ISDIR(os.fstat(fd).st_mode)))

    assert write_durably(tmp_path / "fence", b"x") == 1
    assert sync_folder(tmp_path) is False


def test_a_folder_that_cannot_be_opened_to_be_synced_is_tolerated_and_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "open", failing(os.open, errno.EACCES, lambda path, *rest: Path(path).is_dir()))

    assert write_durably(tmp_path / "fence", b"x") == 1
    assert sync_folder(tmp_path) is False


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.ESTALE, errno.EMFILE])
def test_a_disk_that_fails_to_sync_a_folder_is_not_tolerated(code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", failing(os.fsync, code, lambda fd: stat.S_ISDIR(os.fstat(fd).st_mode)))

    with pytest.raises(OSError, match=os.strerror(code)):
        write_durably(tmp_path / "fence", b"x")


def test_a_whole_file_that_could_not_be_written_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_durably(tmp_path / "fence", b"old")
    monkeypatch.setattr(os, "fsync", failing(os.fsync, errno.ENOSPC, lambda fd: True))

    with pytest.raises(OSError, match="No space"):
        write_durably(tmp_path / "fence", b"new")

    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("fence", b"old")]


def test_a_file_system_without_permissions_is_tolerated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # FAT has those of its mount, and says EPERM to all others.
    before = os.umask(0o777)
    monkeypatch.setattr(os, "fchmod", failing(os.fchmod, errno.EPERM, lambda fd, mode: True))
    try:
        assert write_durably(tmp_path / "fence", b"x") == 1
    finally:
        os.umask(before)


def failing(function: Callable[..., object], code: int, when: Callable[..., bool]) -> Callable[..., object]:
    def fail(*values: object) -> object:
        if when(*values):
            raise OSError(code, os.strerror(code))
        return function(*values)

    return fail


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="NOT CHECKED: only root can give a file away")
def test_what_root_makes_in_the_folder_of_another_user_belongs_to_that_user(tmp_path: Path, umask: int) -> None:
    theirs = tmp_path / "theirs"
    make_folder(theirs)
    os.chown(theirs, 4711, 4712)

    make_folder(theirs / "spool" / "deep")
    write_durably(theirs / "spool" / "deep" / "batch", b"x")
    put_new_durably(theirs / "rows", b"x", unfinished=theirs / "rows.unfinished")
    os.close(open_or_create(theirs / "audit.jsonl"))
    (theirs / "elsewhere").symlink_to(tmp_path)
    os.close(create(theirs / "elsewhere" / "ours"))

    made = [path for path in tmp_path.rglob("*") if not path.is_symlink()]
    assert {path.name for path in made if path.stat().st_uid != 4711} == {"ours"}
    assert {path.stat().st_gid for path in made if path.name != "ours"} == {4712}
    assert (mode(theirs / "spool"), mode(theirs / "spool" / "deep")) == (0o755, 0o700)


def test_a_file_that_may_not_be_written_to_is_refused_with_its_owner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, flags: int) -> int:
        raise PermissionError(errno.EACCES, "Permission denied")

    path, user = tmp_path / "audit.jsonl", os.geteuid()
    os.close(create(path))
    monkeypatch.setattr("disk.durable_file.open_ours", refuse)
    ours = why_not_appendable(path)
    monkeypatch.setattr(os, "geteuid", lambda: user + 1)

    assert (ours, why_not_appendable(path)) == (
        "Permission denied",
        f"Permission denied; it belongs to user {user} and this is user {user + 1}",
    )
