"""Digests in the journal: keyed by one secret, made from what earlier versions recorded in the clear, and no byte of that is left."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pa_parquet
import pytest

from anonymizer.cohorts import place_of
from anonymizer.errors import StateUnavailable
from anonymizer.pseudonyms import derived_key, keyed_digest
from service.state import journal_file
from service.state.digests import Digests
from service.state.epochs import Epoch
from service.state.instance_lock import InstanceLock
from service.state.journal import Journal
from service.state.journal_file import JournalFile
from service.wiring.data_set import data_set_label, data_set_labels
from tests.attacks.recording import IDS, KEY, PSEUDONYMS, write_recording
from tests.integration.service_process import run_service, state
from tests.service.batches import PROMISE
from tests.service.test_added_rows import FIRST, opened

START_NS = 1_762_180_200 * 10**9


def as_form_4(folder: Path, *statements: tuple[str, tuple[str, ...]]) -> None:
    """Make a state what the version before left, whose seal is right."""
    with closing(JournalFile(folder / "journal.sqlite")) as file, file.transaction() as db:
        for statement, values in statements:
            db.execute(statement, values)
    with closing(sqlite3.connect(folder / "journal.sqlite")) as db:
        db.execute("PRAGMA user_version = 4")


def bytes_in(folder: Path) -> bytes:
    return b"\n".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


def table(folder: Path, columns: str) -> list[tuple[str, ...]]:
    with closing(sqlite3.connect(folder / "journal.sqlite")) as db:
        return db.execute(f"SELECT {columns}").fetchall()


@pytest.mark.parametrize("under_pseudonym_key", [True, False])
def test_a_state_of_form_4_goes_on_as_if_nothing_had_changed_and_keeps_nothing_in_the_clear(
    under_pseudonym_key: bool, tmp_path: Path
) -> None:
    ids = ("anna-schmidt", "bert-meier")
    for number, name in enumerate(ids):
        times = pa.array([START_NS + at * 100_000_000 for at in range(100)], pa.timestamp("ns", "UTC"))
        part = tmp_path / "set" / f"source_id={name}" / "part-0.parquet"
        part.parent.mkdir(parents=True)
        pa_parquet.write_table(pa.table({"timestamp": times, "ecg": pa.array([float(number)] * 100)}), part)
    given = {"INPUT_FILE": tmp_path / "set", "OUTPUT_TO_INFLUX": "false", "DEVICE_FILTER": ",".join(ids), **PSEUDONYMS}
    folder = tmp_path / "state"
    assert run_service(tmp_path, given)[0] == 0
    keyed = table(folder, "selection FROM epochs"), sorted(table(folder, "path, state FROM parts"))
    plain = hashlib.sha256(json.dumps([sorted(ids), []]).encode()).hexdigest()[:16]
    # Form 4 kept the filters' digest under a key derived from the pseudonym key, earlier ones plain; all kept paths.
    old_key = derived_key(KEY.encode(), "digests in the journal")
    old = "keyed:" + keyed_digest(old_key, b"\0selection " + plain.encode())[:16] if under_pseudonym_key else plain
    parts = {str(one.relative_to(tmp_path / "set")): one.stat() for one in (tmp_path / "set").rglob("*.parquet")}
    states = {path: f"{status.st_size} {status.st_mtime_ns}" for path, status in parts.items()}
    as_form_4(
        folder,
        ("UPDATE epochs SET selection = ?", (old,)),
        ("DELETE FROM parts", ()),
        *(("INSERT INTO parts VALUES (?, ?)", one) for one in states.items()),
    )
    assert (b"anna-schmidt" in bytes_in(folder), plain.encode() in bytes_in(folder)) == (True, not under_pseudonym_key)

    looked, _ = state(tmp_path, "show")
    code, log = run_service(tmp_path, given)

    assert (looked, code) == (0, 0), log
    assert "2 windows" in log
    assert "were released before" in log
    assert [said for said in ("Settings changed since", "files of the data set") if said in log] == []
    assert (table(folder, "selection FROM epochs"), sorted(table(folder, "path, state FROM parts"))) == keyed
    left = bytes_in(folder)
    assert [one for one in (*ids, "source_id=", "part-0", plain, old, *states.values()) if one.encode() in left] == []


def test_a_file_is_known_by_a_keyed_digest_and_its_label_stays_as_it_was(tmp_path: Path) -> None:
    path, folder = tmp_path / "recording.csv", tmp_path / "state"
    path.write_text(FIRST, encoding="utf-8")
    settings, source = opened(path)
    plain = source.data_set
    journal = Journal(folder, data_set=plain)
    journal.epochs.begin(Epoch(PROMISE, 5 * 10**9), now_ns=0)
    journal.close()
    as_form_4(
        folder,
        ("UPDATE facts SET value = ? WHERE name = 'data_set'", (plain,)),
        ("INSERT INTO facts VALUES ('data_set_id', ?)", (plain,)),
    )

    def label(data_set: str | None) -> str:
        journal = Journal(folder, data_set=data_set, earlier_version=source.earlier_version)
        try:
            return data_set_label(settings, source, journal)
        finally:
            journal.close()

    before = label(None)
    assert (
        before
        == keyed_digest(table(folder, "value FROM facts WHERE name = 'journal'")[0][0].encode(), f"\0data set {plain}".encode())[
            :12
        ]
    )
    with path.open("a", encoding="utf-8") as file:
        file.write("2025-11-03T14:30:10Z,w,2\n")
    settings, source = opened(path)
    # By commands before the first start, by that start, and after it.
    assert [label(None), label(source.data_set), label(None), label(source.data_set)] == [before] * 4
    assert plain.encode() not in bytes_in(folder)

    # An erasure must find what was released of a file that is another one now.
    journal = Journal(folder, data_set=None)
    journal.facts.remember_label("", before)
    journal.close()
    path.write_text(FIRST.replace(",1\n", ",9\n"), encoding="utf-8")
    settings, source = opened(path)
    assert label(None) == before


def test_without_pseudonyms_a_label_begins_with_its_place_and_ends_with_its_journal_and_stays_once_remembered(
    tmp_path: Path,
) -> None:
    path = tmp_path / "recording.csv"
    path.write_text(FIRST, encoding="utf-8")

    def labels(journal_folder: str, file: Path = path) -> tuple[str, ...]:
        settings, source = opened(file)
        with closing(Journal(tmp_path / journal_folder, data_set=source.data_set)) as journal:
            return data_set_labels(settings, source, journal)

    (first, place, _), (second, _, _) = (*labels("one"), ""), (*labels("two"), "")
    assert (place_of(first), place_of(second), first != second) == (place, place, True)
    assert place not in hashlib.sha256(str(path).encode()).hexdigest(), "a guess at the path is made slow"
    (tmp_path / "link.csv").symlink_to(path)
    assert labels("one", tmp_path / "link.csv") == (first, place), "the same file by another name"

    with closing(Journal(tmp_path / "one", data_set=None)) as journal:
        journal.facts.remember_label("", first)
    moved = labels("one", path.rename(tmp_path / "moved.csv"))

    assert (moved[:2], len(moved)) == ((first, place), 3), "and releases from where it is now are found as well"


def killed(*_: object) -> None:
    raise KeyboardInterrupt


def full(*_: object) -> None:
    raise StateUnavailable("no room")


@pytest.mark.parametrize("scrub", [killed, full])
def test_what_a_kill_or_a_full_disk_leaves_in_the_file_is_scrubbed_at_the_next_start(
    scrub: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal(tmp_path, data_set="data", address="data")
    journal.close()
    rows = [(f"subject={number:05d}/part.parquet", "1 2") for number in range(2000)]
    as_form_4(tmp_path, *(("INSERT INTO parts VALUES (?, ?)", row) for row in rows))

    def connect_as_most_builds_do(path: Path) -> sqlite3.Connection:
        db = connect(path)
        db.execute("PRAGMA secure_delete = OFF")
        return db

    connect = journal_file._connect
    monkeypatch.setattr(journal_file, "_connect", connect_as_most_builds_do)
    with monkeypatch.context() as patch:
        patch.setattr(JournalFile, "scrub", scrub)
        if scrub is killed:
            with pytest.raises(KeyboardInterrupt):
                Journal(tmp_path, data_set="data", address="data")
        else:
            Journal(tmp_path, data_set="data", address="data").close()
    assert b"subject=" in bytes_in(tmp_path), "the upgrade alone leaves bytes of it"
    Journal(tmp_path, data_set="data", address="data").close()

    assert b"subject=" not in bytes_in(tmp_path)
    assert len(table(tmp_path, "path FROM parts")) == len(rows)
    assert table(tmp_path, "value FROM facts WHERE name = 'unscrubbed'") == []


def test_no_two_uses_of_the_secret_give_the_same_digest_and_printing_does_not_show_it() -> None:
    digests = Digests("98df96b7f3614c1681739c43c7d27ef6")
    made = [
        digests.of_filters("a"),
        digests.of_file("a"),
        digests.of_path("a"),
        digests.of_state("a"),
        digests.exclusion_key.hex(),
    ]

    assert len({one.removeprefix("keyed:")[:16] for one in made}) == 5
    assert digests.secret not in repr(digests)
    # As earlier versions derived them.
    assert digests.exclusion_key == derived_key(digests.secret.encode(), "excluded sources")


def test_another_pseudonym_key_changes_neither_what_is_read_nor_which_file_it_is_nor_who_is_excluded(tmp_path: Path) -> None:
    write_recording(tmp_path / "recording.csv")
    given = {"INPUT_FILE": tmp_path / "recording.csv", "OUTPUT_TO_INFLUX": "false", "DEVICE_FILTER": IDS[0], **PSEUDONYMS}
    (tmp_path / "excluded").write_text(f"{IDS[1]}\n", encoding="utf-8")
    given["EXCLUDED_SOURCES_FILE"] = tmp_path / "excluded"
    assert run_service(tmp_path, given)[0] == 0
    before, excluded = (table(tmp_path / "state", what) for what in ("selection FROM epochs", "* FROM exclusions"))

    code, log = run_service(tmp_path, {**given, "PSEUDONYM_PURPOSE": "registry-a", "ACCEPT_NEW_PSEUDONYM_KEY": "true"})

    assert (code, "were released before" in log) == (0, True), log
    assert table(tmp_path / "state", "selection FROM epochs") == before * 2
    assert (table(tmp_path / "state", "* FROM exclusions"), len(excluded)) == (excluded, 1)
    assert "EXCLUDED_SOURCES_FILE has changed" not in log


def test_who_only_looks_may_look_while_the_service_runs(tmp_path: Path) -> None:
    write_recording(tmp_path / "recording.csv")
    given = {"INPUT_FILE": tmp_path / "recording.csv", "OUTPUT_TO_INFLUX": "false", "AUDIT_LOG": tmp_path / "audit", **PSEUDONYMS}
    assert run_service(tmp_path, given)[0] == 0
    entries = (tmp_path / "audit").read_text().count('"command":"verify"')
    lock, journal = InstanceLock(tmp_path / "state"), Journal(tmp_path / "state", data_set=None)
    try:
        before = (tmp_path / "state" / "journal.sqlite").read_bytes()

        answers = [state(tmp_path, command) for command in ("show", "verify", "retry-set-aside")]

        assert [code for code, _ in answers] == [0, 0, 75], answers
        assert "OK: journal, source and outputs agree." in answers[1][1]
        assert (tmp_path / "state" / "journal.sqlite").read_bytes() == before
    finally:
        journal.close()
        lock.release()
    assert state(tmp_path, "verify")[0] == 0
    assert (tmp_path / "audit").read_text().count('"command":"verify"') == entries + 4
