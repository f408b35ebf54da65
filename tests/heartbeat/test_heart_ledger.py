from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.heartbeat.command import InvalidEntries, LedgerUnusable, WriteFailed
from scripts.heartbeat.ledger import append, read_ledger
from tests.heartbeat.commands import SCRIPTS, TIMEOUT_S, command_line, entries_in, entry, environment, json_lines, run

posix_only = pytest.mark.skipif(sys.platform == "win32", reason="uses POSIX locks and limits")

#: Appends batches of lines while the system takes each write in small pieces, as it may: without a lock the pieces of two writers mix.
PIECEMEAL_WRITER = """
import sys, time
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from scripts.heartbeat import ledger as heart_ledger

def write_in_pieces(ledger, data):
    for start in range(0, len(data), 7):
        ledger.write(data[start:start + 7])
        time.sleep(0.0001)

heart_ledger._write_all = write_in_pieces
for batch in range(15):
    lines = ['{"from":"%s","batch":%d,"line":%d}\\n' % (sys.argv[3], batch, line) for line in range(3)]
    heart_ledger.append(Path(sys.argv[2]), "".join(lines).encode())
"""


def started(script: str, *arguments: str | Path, cwd: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(command_line(script, arguments), cwd=cwd, env=environment(), stdout=subprocess.DEVNULL)


def test_two_commands_at_once_lose_no_line_and_tear_none(tmp_path: Path) -> None:
    for name in ("a", "b"):
        lines = json_lines([entry(source_id=name, notes="n" * 500, metrics={"line": line}) for line in range(2000)])
        (tmp_path / name).write_text(lines, encoding="utf-8")

    commands = [started("ingest_heartbeat.py", name, cwd=tmp_path) for name in ("a", "b") * 2]

    assert [command.wait(TIMEOUT_S) for command in commands] == [0, 0, 0, 0]
    written = [(value["source_id"], value["metrics"]["line"]) for value in entries_in(tmp_path / "heart_ledger.jsonl")]
    batches = [written[start : start + 2000] for start in range(0, len(written), 2000)]
    assert sorted(batches) == sorted([[(name, line) for line in range(2000)] for name in ("a", "b") * 2])


def test_writers_whose_writes_come_in_pieces_wait_for_each_other(tmp_path: Path) -> None:
    ledger = tmp_path / "l.jsonl"
    arguments = [sys.executable, "-c", PIECEMEAL_WRITER, str(SCRIPTS.parent), str(ledger)]

    writers = [subprocess.Popen([*arguments, name]) for name in ("a", "b", "c")]

    assert [writer.wait(TIMEOUT_S) for writer in writers] == [0, 0, 0]
    written = [(value["from"], value["batch"], value["line"]) for value in entries_in(ledger)]
    assert sorted(written) == [(name, batch, line) for name in "abc" for batch in range(15) for line in range(3)]
    assert all(written[start : start + 3] == sorted(written[start : start + 3]) for start in range(0, len(written), 3))


@posix_only
def test_a_reader_between_two_writes_sees_whole_lines_and_none_appended_later(tmp_path: Path) -> None:
    ledger = tmp_path / "l.jsonl"
    append(ledger, b'{"n":1}\n{"n":2}\n')

    entries = read_ledger(str(ledger))
    first = next(entries)
    append(ledger, b'{"n":3}\n')

    assert [first.value, *(found.value for found in entries)] == [{"n": 1}, {"n": 2}]


@posix_only
def test_a_writer_gives_up_on_a_locked_ledger_and_changes_nothing_while_readers_share_the_lock(tmp_path: Path) -> None:
    import fcntl

    ledger = tmp_path / "l.jsonl"
    ledger.write_bytes(b"{}\n")
    with ledger.open("rb") as other:
        for lock in (fcntl.LOCK_EX, fcntl.LOCK_SH):
            fcntl.flock(other, lock)
            with pytest.raises(WriteFailed, match=r"another command has held .*l.jsonl locked for 0.05 s"):
                append(ledger, b'{"n":1}\n', lock_wait_s=0.05)
        assert len(list(read_ledger(str(ledger)))) == 1

    assert ledger.read_bytes() == b"{}\n"


@posix_only
def test_a_disk_that_fills_up_in_the_middle_of_a_write_leaves_the_ledger_as_it_was(tmp_path: Path) -> None:
    import resource

    run("ingest_heartbeat.py", stdin=json_lines([entry()]), cwd=tmp_path)
    before = (tmp_path / "heart_ledger.jsonl").read_bytes()
    room = len(before) + 1000

    ended = run(
        "ingest_heartbeat.py",
        stdin=json_lines([entry()] * 100),
        cwd=tmp_path,
        before=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (room, room)),
    )

    assert (ended.exit_code, ended.stdout) == (74, "")
    assert "nothing was appended" in ended.stderr
    assert (tmp_path / "heart_ledger.jsonl").read_bytes() == before


@pytest.mark.parametrize(
    ("error", "raised"), [(OSError(5, "Input/output error"), WriteFailed), (KeyboardInterrupt(), KeyboardInterrupt)]
)
@pytest.mark.parametrize("late", [False, True])
def test_lines_that_were_not_synced_are_taken_back_until_the_last_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, raised: type[BaseException], late: bool
) -> None:
    ledger = tmp_path / "l.jsonl"
    ledger.write_bytes(b'{"n":1}')

    def fail(*_: int) -> None:
        raise error

    if not late:
        monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(raised):
        append(ledger, b'{"n":2}\n', when_safe=fail)

    assert ledger.read_bytes() == b'{"n":1}'


@posix_only
def test_a_new_ledger_and_its_name_are_synced_before_it_is_said_to_be_safe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[int | str] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: events.append(os.fstat(descriptor).st_ino))

    append(tmp_path / "l.jsonl", b"{}\n", when_safe=lambda: events.append("safe"))

    assert events == [(tmp_path / "l.jsonl").stat().st_ino, tmp_path.stat().st_ino, "safe"]


#: Runs ingest_heartbeat.py with a Ctrl+C that comes while it reports what it has done.
INTERRUPTED_WHILE_REPORTING = """
import os, signal, sys
sys.path.insert(0, sys.argv.pop(1))
from scripts import ingest_heartbeat
from scripts.heartbeat.command import run
ingest_heartbeat.report = lambda line: os.kill(os.getpid(), signal.SIGINT)
sys.exit(run(ingest_heartbeat.main))
"""


@posix_only
def test_a_ctrl_c_after_the_write_is_too_late_to_change_the_exit_code(tmp_path: Path) -> None:
    (tmp_path / "entries").write_text(json_lines([entry()]))
    arguments = [sys.executable, "-c", INTERRUPTED_WHILE_REPORTING, str(SCRIPTS.parent), "entries"]

    ended = subprocess.run(arguments, cwd=tmp_path, env=environment(), timeout=TIMEOUT_S, check=False)

    assert ended.returncode == 0
    assert entries_in(tmp_path / "heart_ledger.jsonl") == [entry()]


@pytest.mark.parametrize("torn", ['{"timestamp":"2025-11-03T14:3', "{", "7", '{"a":"\\ud800"}', "\xe9"])
@pytest.mark.parametrize("whole_lines", [0, 2])
def test_a_last_line_that_was_cut_off_is_named_and_nothing_is_appended(tmp_path: Path, torn: str, whole_lines: int) -> None:
    ledger = tmp_path / "heart_ledger.jsonl"
    ledger.write_bytes(json_lines([entry()] * whole_lines).encode() + torn.encode("latin-1"))
    before = ledger.read_bytes()

    with pytest.raises(InvalidEntries) as refused:
        append(ledger, b"{}\n")

    assert refused.value.problems[0].startswith(f"{ledger}:{whole_lines + 1}: the ledger's last line was cut off")
    assert ledger.read_bytes() == before


def test_a_whole_last_line_that_only_lacks_its_newline_gets_it(tmp_path: Path) -> None:
    ledger = tmp_path / "heart_ledger.jsonl"
    ledger.write_text(json.dumps(entry(notes="first")))

    ended = run("ingest_heartbeat.py", stdin=json_lines([entry(notes="second")]), cwd=tmp_path)

    assert ended.exit_code == 0
    assert [value["notes"] for value in entries_in(ledger)] == ["first", "second"]


@pytest.mark.skipif(sys.platform == "win32", reason="the messages and the devices are POSIX")
@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("missing/l.jsonl", "No such file"),
        ("/dev/null", "not a regular file"),
        (".", "not a regular file"),
        ("file/l", "Not a dir"),
    ],
)
def test_a_ledger_that_cannot_be_is_a_sentence(tmp_path: Path, path: str, reason: str) -> None:
    (tmp_path / "file").touch()

    ended = run("ingest_heartbeat.py", "--ledger", path, stdin=json_lines([entry()]), cwd=tmp_path)

    assert (ended.exit_code, ended.stdout) == (78, "")
    assert reason in ended.stderr
    assert "--ledger" in ended.stderr


@pytest.mark.skipif(sys.platform == "win32" or (hasattr(os, "geteuid") and os.geteuid() == 0), reason="root may write everywhere")
def test_a_ledger_that_may_not_be_written_is_a_sentence(tmp_path: Path) -> None:
    ledger = tmp_path / "heart_ledger.jsonl"
    ledger.touch(mode=0o400)

    with pytest.raises(LedgerUnusable, match="Permission denied"):
        append(ledger, b"{}\n")


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights on Windows")
@pytest.mark.parametrize(
    ("kind", "reason"), [("link", "it is a link"), ("link to nothing", "it is a link"), ("hard link", "a second name")]
)
def test_a_planted_link_is_refused_and_what_it_leads_to_is_as_it_was(tmp_path: Path, kind: str, reason: str) -> None:
    victim, ledger = tmp_path / "victim", tmp_path / "heart_ledger.jsonl"
    victim.write_bytes(b"precious\n")
    if kind == "hard link":
        ledger.hardlink_to(victim)
    else:
        ledger.symlink_to(victim if kind == "link" else tmp_path / "made")

    with pytest.raises(LedgerUnusable, match=reason):
        append(ledger, b"{}\n")

    assert victim.read_bytes() == b"precious\n"
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("umask", [0o000, 0o277], ids=oct)
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such modes")
def test_a_new_ledger_is_its_owners_alone_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        append(tmp_path / "ledger", b"{}\n")
    finally:
        os.umask(before)

    assert (tmp_path / "ledger").stat().st_mode & 0o777 == 0o600


def test_lines_that_could_not_be_taken_back_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Failing(io.FileIO):
        def truncate(self, size: int | None = None) -> int:
            raise OSError(5, "Input/output error")

    def fail(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("scripts.heartbeat.ledger.io.FileIO", Failing)
    monkeypatch.setattr(os, "fsync", fail)

    with pytest.raises(WriteFailed, match="could not be taken back: look at them"):
        append(tmp_path / "ledger", b"{}\n")
