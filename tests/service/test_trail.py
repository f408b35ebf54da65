"""The audit log: what it tells, and which tampering is found."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from anonymizer.errors import JournalDamaged
from anonymizer.windows import NANOSECONDS, Window
from scripts.check_audit_log import main as check_file
from scripts.check_audit_log import problems_of
from service import exit_codes
from service.state.journal import Journal
from service.state.trail import Trail, check, open_trail, trail_line
from tests.attacks.recording import IDS, KEY, PSEUDONYMS, write_recording
from tests.integration.service_process import ROOT, Service, run_script, state

AT_NS = 1_762_180_200 * NANOSECONDS


def made(path: Path, entries: int = 8) -> Trail:
    trail = Trail(path, "0123456789abcdef", iter(range(AT_NS, AT_NS + 10**15, 61 * NANOSECONDS)).__next__)
    for number in range(entries):
        trail.follow([Window(0, (number + 1) * 5)], at_once=True)
    return trail


def forged(lines: list[bytes], number: int, **changes: object) -> list[bytes]:
    """Return the lines with an entry changed and every hash after it computed anew, as anyone can who reads this project."""
    before, out = "", list[bytes]()
    for at, line in enumerate(lines):
        entry = {name: value for name, value in json.loads(line).items() if name != "hash"}
        entry |= {"before": before or entry["before"]} | (changes if at == number else {})
        out.append(trail_line(entry)[:-1])
        before = json.loads(out[-1])["hash"]
    return out


def without_beginning(lines: list[bytes]) -> list[bytes]:
    """Return the other lines, numbered and chained anew."""
    before, out = "0" * 64, list[bytes]()
    for number, line in enumerate(lines[1:], start=1):
        entry = {name: value for name, value in json.loads(line).items() if name != "hash"}
        out.append(trail_line(entry | {"n": number, "before": before})[:-1])
        before = json.loads(out[-1])["hash"]
    return out


def one_more(last: bytes, at: str = "2025-11-04T00:00:00Z") -> bytes:
    entry = {"n": 10, "at": at, "event": "ended", "what": {}, "before": json.loads(last)["hash"]}
    return trail_line(entry)[:-1]


#: How a trail of nine entries is tampered with; whether the chain finds it, and whether a head kept elsewhere does.
Tampering = Callable[[list[bytes]], list[bytes]]
TAMPERED: dict[str, tuple[Tampering, bool, bool]] = {
    "a changed number": (lambda lines: [*lines[:3], lines[3].replace(b"[[", b"[[1"), *lines[4:]], True, True),
    "an entry changed and its own hash computed anew": (
        lambda lines: [*lines[:3], forged(lines[:-1], 3, what={})[3], *lines[4:]],
        True,
        True,
    ),
    "a blank more": (lambda lines: [*lines[:3], lines[3].replace(b",", b", ", 1), *lines[4:]], True, True),
    "an entry removed": (lambda lines: lines[:4] + lines[5:], True, True),
    "an entry added": (lambda lines: [*lines[:4], b'{"n":5,"event":"released"}', *lines[4:]], True, True),
    "an entry twice": (lambda lines: [*lines[:4], lines[3], *lines[4:]], True, True),
    "two swapped": (lambda lines: [*lines[:4], lines[5], lines[4], *lines[6:]], True, True),
    "half of the last one gone": (lambda lines: [*lines[:-2], lines[-2][:40]], True, True),
    "the last three gone": (lambda lines: [*lines[:-4], b""], False, True),
    "changed, and all hashes anew": (
        lambda lines: [*forged(lines[:-1], 4, what={"spans_ns": [], "in_words": []}), b""],
        False,
        True,
    ),
    "a new file": (lambda lines: [*forged(lines[:1], 0, at="2025-11-04T00:00:00Z"), b""], False, True),
    "saved by an editor with its own line ends": (lambda lines: [line + b"\r" for line in lines], True, True),
    "saved with a byte order mark": (lambda lines: [b"\xef\xbb\xbf" + lines[0], *lines[1:]], True, True),
    "another trail put after it": (lambda lines: [*lines[:-1], *lines], True, True),
    "its beginning gone, and all hashes anew": (lambda lines: [*without_beginning(lines[:-1]), b""], True, True),
    "one more at the end, with a good hash and a date to come": (
        lambda lines: [*lines[:-1], one_more(lines[-2], at="2099-01-01T00:00:00Z"), b""],
        True,
        True,
    ),
    "one more at the end, with a good hash": (lambda lines: [*lines[:-1], one_more(lines[-2]), b""], False, False),
}


@pytest.mark.parametrize("kind", TAMPERED)
def test_ten_ways_to_tamper_are_found_or_named_as_out_of_reach(kind: str, tmp_path: Path) -> None:
    tamper, by_chain, by_head = TAMPERED[kind]
    trail = made(tmp_path / "audit")
    content = (tmp_path / "audit").read_bytes()
    assert not [*problems_of(check(content), [trail.head], None)]

    changed = check(b"\n".join(tamper(content.split(b"\n"))))

    assert bool([*problems_of(changed, [], None)]) == by_chain
    assert bool([*problems_of(changed, [trail.head], None)]) == by_head
    page = (ROOT / "documentation" / "AUDIT.md").read_text(encoding="utf-8")
    assert page.count("**not found**") == 6


def test_a_clock_that_was_set_back_is_a_remark(tmp_path: Path) -> None:
    times = iter([AT_NS, AT_NS - 10**12])
    Trail(tmp_path / "audit", "00", times.__next__).add("ended", {})

    assert check((tmp_path / "audit").read_bytes()).remarks == ("entry 2 is earlier than the one before: a clock was set back",)


def test_a_damaged_trail_or_anothers_is_refused_and_half_an_entry_is_removed_and_told(tmp_path: Path) -> None:
    path = tmp_path / "audit"
    made(path)
    content = path.read_bytes()

    path.write_bytes(content + b'{"n":10,"at"')
    assert json.loads(path.read_bytes().splitlines()[8])["n"] == 9
    made(path, 0)
    assert check(path.read_bytes()).last("repaired") == {"removed_bytes": 12}
    with pytest.raises(JournalDamaged, match="trail of another STATE_DIR"):
        Trail(path, "another", lambda: AT_NS)
    path.write_bytes(content.replace(b'"n":4', b'"n":7'))
    with pytest.raises(JournalDamaged, match=r"entry 4 was changed: its hash is not that of its content\. Keep it as evidence"):
        made(path)


@pytest.mark.parametrize(
    "content",
    [
        b"a key without a line end",
        b"SQLite format 3\0\0\1",
        b'{"path": "audit"}',
        b'[{"at":"',
        b"type=SYSCALL msg=audit(1):\ntype=CWD msg=audit(2):\n",
        b'{"event":"begun","n":1}\n{"event":"ended","n":2}\n',
        b"\n\n",
    ],
)
def test_a_file_that_holds_something_else_is_never_emptied(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "audit"
    path.write_bytes(content)

    with pytest.raises(
        JournalDamaged, match=r"holds something else than an audit log, .* name a file of its own; if it was the audit log"
    ):
        made(path)

    assert path.read_bytes() == content


def test_a_device_is_not_checked_as_a_log_as_it_might_never_end(capsys: pytest.CaptureFixture[str]) -> None:
    assert check_file(["/dev/null"]) == exit_codes.USAGE
    assert capsys.readouterr().out == "/dev/null cannot be read (it is not a regular file)\n"


@pytest.mark.parametrize("length", [0, 3, 6, 100])
def test_half_of_the_first_entry_is_begun_anew(tmp_path: Path, length: int) -> None:
    path = tmp_path / "audit"
    made(path, 0)
    path.write_bytes(path.read_bytes()[:length])

    made(path, 1)

    assert [one["event"] for one in check(path.read_bytes()).entries] == ["begun", "released"]


def test_releases_are_told_once_and_together(tmp_path: Path) -> None:
    clock = [AT_NS]
    trail = Trail(tmp_path / "audit", "00", lambda: clock[0])
    for second in range(0, 150, 5):
        clock[0] = AT_NS + second * NANOSECONDS
        trail.follow([Window(0, 5 + second)])
    trail.follow([Window(0, 150)], at_once=True)

    told = check((tmp_path / "audit").read_bytes())
    assert [one["what"]["spans_ns"] for one in told.entries if one["event"] == "released"] == [
        [[0, 5]],
        [[5, 65]],
        [[65, 125]],
        [[125, 150]],
    ]


def test_the_trail_tells_starts_changes_releases_and_commands_and_no_id(tmp_path: Path) -> None:
    write_recording(tmp_path / "recording.csv")
    path = tmp_path / "trail" / "audit.jsonl"
    given = {"INPUT_FILE": tmp_path / "recording.csv", "OUTPUT_TO_INFLUX": "false", "AUDIT_LOG": path, **PSEUDONYMS}
    heads, logs = [], []
    for changes in ({}, {}, {"DEVICE_FILTER": IDS[0]}, {"PSEUDONYM_PURPOSE": "registry-a", "ACCEPT_NEW_PSEUDONYM_KEY": "true"}):
        with Service(tmp_path, {**given, **changes}) as service:
            assert service.exit_code() == 0, service.log
            logs.append(service.log)
        heads.append(json.loads(path.read_bytes().splitlines()[-1])["hash"])
        assert f"head {heads[-1]}" in logs[-1]
        assert heads[-1] in (tmp_path / "state" / "report.html").read_text(encoding="utf-8")
    assert state(tmp_path, "drop-output", "no-such-output")[0] == 64

    events = [(one["event"], one["what"]) for one in check(path.read_bytes()).entries]
    kinds = [event for event, _ in events]
    assert kinds == [
        *("begun", "started", "settings", "released", "ended", "started", "ended", "started", "settings", "ended"),
        *("started", "settings", "key", "ended", "command", "command"),
    ]
    changed = [what["changed"] for event, what in events if event == "settings"]
    assert changed[0] == []
    assert changed[1] == ["(what is read, as a keyed digest)", "DEVICE_FILTER"]
    assert {"DEVICE_FILTER", "PSEUDONYM_PURPOSE", "ACCEPT_NEW_PSEUDONYM_KEY"} <= set(changed[2])
    by = dict(events[-2][1])
    assert by.pop("uid") == os.getuid()
    by.pop("login_uid", None)
    assert by == {"command": "drop-output", "state": "begun"}
    assert events[-1][1] == {"command": "drop-output", "state": "ended", "code": 64}
    for private in (*IDS, KEY, IDS[0].encode("unicode_escape").decode()):
        assert private not in path.read_text(encoding="utf-8")

    def checked(*heads: str) -> tuple[int, str]:
        words = [word for head in heads for word in ("--head", head)]
        done = run_script("scripts/check_audit_log.py", str(path), *words, "--state-dir", "state", folder=tmp_path)
        return done.returncode, done.stdout

    (tmp_path / "empty").mkdir()
    done = run_script("scripts/check_audit_log.py", str(path), "--state-dir", "empty", folder=tmp_path)
    assert (done.returncode, "empty holds no journal" in done.stdout) == (78, True)
    code, said = checked(*heads)
    assert code == 0, said
    assert f"16 entries, head {json.loads(path.read_bytes().splitlines()[-1])['hash']}" in said
    path.write_bytes(b"\n".join(path.read_bytes().split(b"\n")[:3]) + b"\n")
    code, said = checked(heads[-1])
    assert code == 1
    assert f"no entry has the head {heads[-1][:12]}" in said
    assert "was released and is not told" in said


def test_commands_that_only_read_are_told_too_while_the_service_writes_the_same_trail(tmp_path: Path) -> None:
    write_recording(tmp_path / "recording.csv")
    path = tmp_path / "audit"
    given = {"INPUT_FILE": tmp_path / "recording.csv", "OUTPUT_TO_INFLUX": "false", "AUDIT_LOG": path, **PSEUDONYMS}
    with Service(tmp_path, given) as service:
        assert service.exit_code() == 0, service.log
    journal = Journal(tmp_path / "state", data_set=None)
    running = open_trail(path, tmp_path / "state", journal, time.time_ns)
    assert run_script("scripts/report.py", "--since", "2025-01-01", folder=tmp_path).returncode == 0
    running.add("released", {"spans_ns": [[0, 5]], "in_words": []})
    assert run_script("scripts/dpia.py", folder=tmp_path).returncode == 0
    assert run_script("scripts/advise.py", "--env-file", ".env", "--start", "2001-01-01", folder=tmp_path).returncode == 78
    with path.open("ab") as file:
        file.write(b'{"n":1')
    running.add("ended", {})
    journal.close()

    told = check(path.read_bytes())
    assert (told.problems, told.torn) == ((), b"")
    said = [(one["event"], one["what"].get("command"), one["what"].get("code")) for one in told.entries[5:]]
    assert said == [
        ("command", "report", None),
        ("command", "report", 0),
        ("released", None, None),
        ("command", "dpia", None),
        ("command", "dpia", 0),
        ("command", "advise", None),
        ("command", "advise", None),
        ("repaired", None, None),
        ("ended", None, None),
    ]
    assert told.entries[11]["what"]["failed"] == "NoSample"
    path.write_bytes(path.read_bytes().replace(b'"report"', b'"export"', 1))
    refused = run_script("scripts/report.py", "--since", "2025-01-01", "--to", "other.html", folder=tmp_path)
    assert (refused.returncode, "is damaged: entry 6 was changed" in refused.stdout) == (78, True), refused.stdout
    assert not (tmp_path / "other.html").exists()


def test_a_good_log_of_another_state_dir_is_found_out(tmp_path: Path) -> None:
    for name in ("a", "b"):
        journal = Journal(tmp_path / name, data_set=name)
        journal.accept_gap([Window(0, 5)])
        trail = open_trail(tmp_path / f"{name}.jsonl", tmp_path / name, journal, lambda: AT_NS)
        trail.follow(journal.released_intervals(), at_once=True)
        journal.close()

    theirs = check((tmp_path / "b.jsonl").read_bytes())

    assert not [*problems_of(theirs, [], tmp_path / "b")]
    assert [*problems_of(theirs, [], tmp_path / "a")] == [f"it is not the log of {tmp_path / 'a'}, but of another STATE_DIR"]


def test_what_a_crash_kept_from_the_trail_is_told_at_the_next_start(tmp_path: Path) -> None:
    journal = Journal(tmp_path, data_set="a")
    made_up = [Window(0, 5), Window(10, 15)]
    journal.accept_gap(made_up)

    trail = open_trail(tmp_path / "audit", tmp_path, journal, lambda: AT_NS)
    trail.follow(journal.released_intervals(), at_once=True)
    journal.close()

    assert check((tmp_path / "audit").read_bytes()).released == made_up
