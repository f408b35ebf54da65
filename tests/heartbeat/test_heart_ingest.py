from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.heartbeat.commands import SALT, entries_in, entry, json_lines, pseudonym, run

THREE = [
    entry(),
    entry(source_id="wearable-11", notes="nach dem Kaffee ☕"),
    entry(event_type="pause", symbols=[], extra={"kept": [1, 2.5, None]}),
]


@pytest.mark.parametrize("form", [json_lines(THREE), json.dumps(THREE), json.dumps(THREE, indent=2)])
def test_without_a_flag_entries_from_a_file_or_a_pipe_are_written_as_they_are_behind_what_is_there(
    tmp_path: Path, form: str
) -> None:
    (tmp_path / "entries").write_text(form, encoding="utf-8")

    for arguments, stdin in ((("entries",), ""), ((), form)):
        ended = run("ingest_heartbeat.py", *arguments, stdin=stdin, cwd=tmp_path)
        assert (ended.exit_code, ended.stderr) == (0, "")
        assert ended.stdout == "3 entries appended to heart_ledger.jsonl, as they are\n"

    assert entries_in(tmp_path / "heart_ledger.jsonl") == THREE + THREE


def test_with_anonymize_the_source_is_its_digest_and_all_else_is_as_it_was(tmp_path: Path, salt_file: Path) -> None:
    stdin = json_lines(THREE)
    ended = run("ingest_heartbeat.py", "--anonymize", stdin=stdin, cwd=tmp_path, settings={"HEART_SALT_FILE": salt_file})

    assert (ended.exit_code, ended.stderr) == (0, "")
    assert entries_in(tmp_path / "heart_ledger.jsonl") == [
        {**value, "source_id": pseudonym(value["source_id"])} for value in THREE
    ]
    assert "wearable" not in (tmp_path / "heart_ledger.jsonl").read_text(encoding="utf-8")


def test_other_fields_can_be_replaced_and_a_source_that_stays_readable_is_warned_of(tmp_path: Path, salt_file: Path) -> None:
    arguments = ("--anonymize", "--fields", "notes,patient")

    ended = run(
        "ingest_heartbeat.py",
        *arguments,
        stdin=json_lines([entry(notes="x")]),
        cwd=tmp_path,
        settings={"HEART_SALT_FILE": salt_file},
    )

    assert entries_in(tmp_path / "heart_ledger.jsonl") == [entry(notes=pseudonym("x"))]
    assert "does not name source_id, so it is written as it is" in ended.stderr
    assert "no entry has the field 'patient'" in ended.stderr


def test_one_bad_entry_keeps_all_out_and_each_problem_is_named_with_its_line(tmp_path: Path, salt_file: Path) -> None:
    bad = json_lines([entry(), entry(source_id=7), {"timestamp": "yesterday"}]) + "what?\n"

    ended = run("ingest_heartbeat.py", "--anonymize", stdin=bad, cwd=tmp_path, settings={"HEART_SALT_FILE": salt_file})

    assert (ended.exit_code, ended.stdout) == (1, "")
    assert ended.stderr.splitlines()[:7] == [
        "<stdin>:2: source_id: must be text, got a number",
        "<stdin>:3: 'event_type' is a required property",
        "<stdin>:3: 'metrics' is a required property",
        "<stdin>:3: 'source_id' is a required property",
        "<stdin>:3: 'symbols' is a required property",
        "<stdin>:3: timestamp: must be an RFC 3339 time such as 2025-11-03T14:30:00Z, got other text",
        "<stdin>:4: is not JSON at column 1: Expecting value",
    ]
    assert "nothing was done with any entry" in ended.stderr
    assert not (tmp_path / "heart_ledger.jsonl").exists()


def test_messages_never_repeat_a_value_of_an_entry(tmp_path: Path) -> None:
    bad = json_lines(
        [entry(timestamp="Maria Muster", source_id=["Maria Muster"], symbols="Maria Muster", notes={"who": "Maria Muster"})]
    )

    ended = run("ingest_heartbeat.py", stdin=bad + '{"who": "Maria Muster" oops', cwd=tmp_path)

    assert ended.exit_code == 1
    assert "Maria" not in ended.everything


def test_no_entries_write_no_ledger(tmp_path: Path) -> None:
    ended = run("ingest_heartbeat.py", cwd=tmp_path)

    assert (ended.exit_code, ended.stdout) == (0, "0 entries appended to heart_ledger.jsonl, as they are\n")
    assert not (tmp_path / "heart_ledger.jsonl").exists()


def test_ten_thousand_entries_go_in_and_come_out(tmp_path: Path, salt_file: Path) -> None:
    many = [entry(source_id=f"wearable-{number % 300}", metrics={"heart_rate": number}) for number in range(10_000)]
    (tmp_path / "many.jsonl").write_text(json_lines(many), encoding="utf-8")

    ended = run("ingest_heartbeat.py", "many.jsonl", "--anonymize", cwd=tmp_path, settings={"HEART_SALT_FILE": salt_file})

    assert ended.stdout.startswith("10000 entries appended")
    written = entries_in(tmp_path / "heart_ledger.jsonl")
    assert [value["metrics"]["heart_rate"] for value in written] == list(range(10_000))
    assert len({value["source_id"] for value in written}) == 300


def test_two_runs_with_the_same_salt_say_the_same_salt_id_and_another_salt_says_another(tmp_path: Path) -> None:
    ids = []
    for salt in (SALT, SALT, SALT.upper()):
        ended = run("ingest_heartbeat.py", "--anonymize", stdin=json_lines(THREE), cwd=tmp_path, settings={"HEART_SALT": salt})
        ids.append(ended.stdout.split()[-1])

    assert ids[0] == ids[1] != ids[2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        *(
            (("--anonymize", "--fields", f"source_id,{field}"), f"--fields cannot name {field}")
            for field in ("timestamp", "metrics", "symbols")
        ),
        (("--fields", "notes"), "without --anonymize"),
        (("--env-file", "x.env"), "without --anonymize"),
    ],
)
def test_a_field_that_the_schema_keeps_and_pseudonym_options_without_anonymize_are_refused(
    tmp_path: Path, salt_file: Path, arguments: tuple[str, ...], message: str
) -> None:
    ended = run("ingest_heartbeat.py", *arguments, stdin=json_lines(THREE), cwd=tmp_path, settings={"HEART_SALT_FILE": salt_file})

    assert ended.exit_code == 64
    assert message in ended.stderr
    assert not (tmp_path / "heart_ledger.jsonl").exists()


def test_a_ledger_is_not_appended_to_itself(tmp_path: Path, salt_file: Path) -> None:
    ledger = tmp_path / "heart_ledger.jsonl"
    ledger.write_text(json_lines(THREE), encoding="utf-8")
    (tmp_path / "other_name.jsonl").hardlink_to(ledger)
    before = ledger.read_bytes()

    ended = run("ingest_heartbeat.py", "other_name.jsonl", "--anonymize", cwd=tmp_path, settings={"HEART_SALT_FILE": salt_file})

    assert ended.exit_code == 64
    assert "is the ledger itself" in ended.stderr
    assert ledger.read_bytes() == before
