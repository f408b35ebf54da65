from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.heartbeat.commands import SALT, entries_in, entry, json_lines, on_a_terminal, run

EVERY_SCRIPT = ["anonymize.py", "ingest_heartbeat.py", "validate_heart.py", "aggregate_heart.py"]
posix_only = pytest.mark.skipif(sys.platform == "win32", reason="uses POSIX descriptors and devices")


@pytest.mark.parametrize("script", EVERY_SCRIPT)
def test_help_has_examples_and_exit_codes_and_works_before_anything_is_installed(tmp_path: Path, script: str) -> None:
    ended = run(script, "--help", cwd=tmp_path, python_options=["-S"])

    assert (ended.exit_code, ended.stderr) == (0, "")
    assert f"python scripts/{script}" in ended.stdout
    assert "exit codes:" in ended.stdout


def test_a_library_that_is_not_installed_is_named_with_the_command_that_installs_it(tmp_path: Path) -> None:
    ended = run("validate_heart.py", "-", stdin="{}\n", cwd=tmp_path, python_options=["-S"])

    assert ended.exit_code == 78
    assert "jsonschema is not installed" in ended.stderr
    assert "pip install -r requirements.txt" in ended.stderr


@pytest.mark.parametrize(
    ("script", "arguments"),
    [
        *((script, ("--nonsense",)) for script in EVERY_SCRIPT),
        ("aggregate_heart.py", ("--days",)),
        ("anonymize.py", ("--fields", "a,,b")),
        ("ingest_heartbeat.py", ("--anonymize", "--fields", "a,,b")),
        ("ingest_heartbeat.py", ("--anon",)),  # an option is never guessed from its beginning
    ],
)
def test_a_command_line_that_is_not_understood_exits_64(tmp_path: Path, script: str, arguments: tuple[str, ...]) -> None:
    ended = run(script, *arguments, stdin=json_lines([entry()]), cwd=tmp_path)

    assert (ended.exit_code, ended.stdout) == (64, "")
    assert ended.stderr.startswith("error: ")
    assert ended.stderr.endswith("`" + script + " --help` shows what can be asked\n")
    assert not (tmp_path / "heart_ledger.jsonl").exists()


@pytest.mark.parametrize("script", EVERY_SCRIPT)
@pytest.mark.parametrize("path", ["missing.jsonl", "."])
def test_a_file_that_cannot_be_read_exits_64_and_says_why(tmp_path: Path, script: str, path: str) -> None:
    ended = run(script, path, cwd=tmp_path, settings={"HEART_SALT": SALT})

    assert (ended.exit_code, ended.stdout) == (64, "")
    assert ended.stderr.startswith(f"error: cannot read {path}: ")


@contextlib.contextmanager
def pipe_without_a_reader() -> Iterator[int]:
    reading, writing = os.pipe()
    os.close(reading)
    yield writing
    os.close(writing)


@posix_only
@pytest.mark.parametrize(
    ("script", "arguments", "exit_code"),
    [
        *((script, ("--help",), 141) for script in EVERY_SCRIPT),
        ("anonymize.py", ("-",), 141),
        ("aggregate_heart.py", ("-",), 141),
        ("validate_heart.py", ("-",), 0),
        ("ingest_heartbeat.py", (), 0),
    ],
)
def test_a_closed_output_pipe_ends_a_command_quietly_with_141_but_a_finished_check_or_ingest_with_0(
    tmp_path: Path, script: str, arguments: tuple[str, ...], exit_code: int
) -> None:
    with pipe_without_a_reader() as pipe:
        ended = run(script, *arguments, stdin=json_lines([entry()]), stdout=pipe, cwd=tmp_path, settings={"HEART_SALT": SALT})

    assert (ended.exit_code, ended.stderr) == (exit_code, "")
    if script == "ingest_heartbeat.py" and not arguments:
        assert entries_in(tmp_path / "heart_ledger.jsonl") == [entry()]


@posix_only
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_result_that_cannot_be_written_exits_74(tmp_path: Path) -> None:
    (tmp_path / "heart_ledger.jsonl").touch()
    with Path("/dev/full").open("wb") as full:
        ended = run("aggregate_heart.py", stdout=full.fileno(), cwd=tmp_path)

    assert ended.exit_code == 74
    assert ended.stderr.startswith("error: reading or writing failed")
    assert "Traceback" not in ended.stderr
    assert "Exception ignored" not in ended.stderr


@posix_only
@pytest.mark.parametrize(
    ("script", "closed", "message"),
    [("ingest_heartbeat.py", 0, "there is no standard input"), ("aggregate_heart.py", 1, "there is no standard output")],
)
def test_closed_standard_streams_are_a_sentence(tmp_path: Path, script: str, closed: int, message: str) -> None:
    (tmp_path / "heart_ledger.jsonl").touch()

    ended = run(script, cwd=tmp_path, before=lambda: os.close(closed))

    assert ended.exit_code == 64
    assert message in ended.stderr


@posix_only
def test_ctrl_c_while_entries_are_typed_exits_130_and_writes_nothing(tmp_path: Path) -> None:
    with on_a_terminal("ingest_heartbeat.py", cwd=tmp_path, stdin_is_terminal=True) as terminal:
        terminal.wait_until_entries_are_asked_for()
        terminal.type(json_lines([entry()]) + "\x03")
        ended = terminal.end()

    assert (ended.exit_code, ended.stdout, ended.stderr) == (130, "", "interrupted\n")
    assert not (tmp_path / "heart_ledger.jsonl").exists()


def test_output_is_utf_8_whatever_the_locale(tmp_path: Path) -> None:
    ledger = tmp_path / "heart_ledger.jsonl"
    ledger.write_text(json_lines([entry(symbols=["💓"])]), encoding="utf-8")

    ended = run("aggregate_heart.py", "--until", "2025-11-04T00:00:00Z", cwd=tmp_path, settings={"PYTHONIOENCODING": "ascii"})

    assert '"💓": 1' in ended.stdout


@posix_only
def test_a_file_name_that_is_not_valid_text_can_be_used(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"\xff.jsonl")).write_text(json_lines([entry()]))

    ended = run("validate_heart.py", os.fsdecode(b"\xff.jsonl"), cwd=tmp_path)

    assert ended.stdout == "\\udcff.jsonl: 1 entry, all valid\n"
