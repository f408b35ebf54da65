from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.heartbeat.commands import (
    PATIENCE_S,
    SALT,
    SCRIPTS,
    command_line,
    entries_in,
    entry,
    environment,
    json_lines,
    on_a_terminal,
    run,
)

EVERY_SCRIPT = ["anonymize.py", "ingest_heartbeat.py", "validate_heart.py", "aggregate_heart.py"]
posix_only = pytest.mark.skipif(sys.platform == "win32", reason="uses POSIX descriptors and devices")


@pytest.mark.parametrize("script", EVERY_SCRIPT)
def test_help_says_what_a_command_does_with_examples_and_exit_codes(tmp_path: Path, script: str) -> None:
    ended = run(script, "--help", cwd=tmp_path)

    assert (ended.exit_code, ended.stderr) == (0, "")
    assert f"python scripts/{script}" in ended.stdout
    assert "exit codes:" in ended.stdout


@pytest.mark.parametrize("script", EVERY_SCRIPT)
def test_help_works_before_anything_is_installed(tmp_path: Path, script: str) -> None:
    """`-S` leaves out the installed libraries."""
    ended = subprocess.run(
        [sys.executable, "-S", str(SCRIPTS / script), "--help"], capture_output=True, cwd=tmp_path, env=environment(), check=False
    )

    assert ended.returncode == 0


def test_a_library_that_is_not_installed_is_named_with_the_command_that_installs_it(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-S", str(SCRIPTS / "validate_heart.py"), "-"],
        input=b"{}\n",
        capture_output=True,
        cwd=tmp_path,
        env=environment(),
        check=False,
    )

    assert ended.returncode == 78
    assert b"jsonschema is not installed" in ended.stderr
    assert b"pip install -r requirements.txt" in ended.stderr


@pytest.mark.parametrize("script", EVERY_SCRIPT)
@pytest.mark.parametrize("arguments", [("--nonsense",), ("--days",), ("--fields", "a,,b")])
def test_a_command_line_that_is_not_understood_exits_64(tmp_path: Path, script: str, arguments: tuple[str, ...]) -> None:
    ended = run(script, *arguments, cwd=tmp_path)

    assert (ended.exit_code, ended.stdout) == (64, "")
    assert ended.stderr.startswith("error: ")
    assert ended.stderr.endswith("`" + script + " --help` shows what can be asked\n")


def test_an_option_is_never_guessed_from_its_beginning(tmp_path: Path) -> None:
    ended = run("ingest_heartbeat.py", "--anon", stdin=json_lines([entry()]), cwd=tmp_path)

    assert ended.exit_code == 64
    assert not (tmp_path / "heart_ledger.jsonl").exists()


@pytest.mark.parametrize("script", EVERY_SCRIPT)
@pytest.mark.parametrize("path", ["missing.jsonl", "."])
def test_a_file_that_cannot_be_read_exits_64_and_says_why(tmp_path: Path, script: str, path: str) -> None:
    ended = run(script, path, cwd=tmp_path, settings={"HEART_SALT": SALT})

    assert (ended.exit_code, ended.stdout) == (64, "")
    assert ended.stderr.startswith(f"error: cannot read {path}: ")


@posix_only
@pytest.mark.parametrize("script", ["anonymize.py", "aggregate_heart.py", "validate_heart.py"])
def test_a_result_whose_reader_has_gone_ends_the_command_quietly(tmp_path: Path, script: str) -> None:
    ended, stderr = run_with_no_reader(script, "-", cwd=tmp_path)

    assert ended == (0 if script == "validate_heart.py" else 141)
    assert stderr == b""


@posix_only
@pytest.mark.parametrize("script", EVERY_SCRIPT)
def test_help_that_nobody_reads_ends_quietly(tmp_path: Path, script: str) -> None:
    assert run_with_no_reader(script, "--help", cwd=tmp_path) == (141, b"")


@posix_only
def test_entries_are_in_the_ledger_and_the_exit_code_is_0_also_when_nobody_reads_the_report(tmp_path: Path) -> None:
    exit_code, stderr = run_with_no_reader("ingest_heartbeat.py", cwd=tmp_path)

    assert (exit_code, stderr) == (0, b"")
    assert entries_in(tmp_path / "heart_ledger.jsonl") == [entry()]


def run_with_no_reader(script: str, *arguments: str, cwd: Path) -> tuple[int, bytes]:
    """Run a command on one entry, its standard output a pipe that nobody reads."""
    reading, writing = os.pipe()
    os.close(reading)
    ended = subprocess.run(
        command_line(script, arguments),
        input=json_lines([entry()]).encode(),
        stdout=writing,
        stderr=subprocess.PIPE,
        cwd=cwd,
        env=environment({"HEART_SALT": SALT}),
        timeout=PATIENCE_S,
        check=False,
    )
    os.close(writing)
    return ended.returncode, ended.stderr


@posix_only
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_result_that_cannot_be_written_exits_74(tmp_path: Path) -> None:
    (tmp_path / "heart_ledger.jsonl").touch()
    with Path("/dev/full").open("wb") as full:
        ended = subprocess.run(
            command_line("aggregate_heart.py", []),
            stdout=full,
            stderr=subprocess.PIPE,
            cwd=tmp_path,
            env=environment(),
            check=False,
        )

    assert ended.returncode == 74
    assert ended.stderr.startswith(b"error: reading or writing failed")
    assert b"Traceback" not in ended.stderr
    assert b"Exception ignored" not in ended.stderr


@posix_only
@pytest.mark.parametrize(
    ("script", "closed", "message"),
    [("ingest_heartbeat.py", 0, b"there is no standard input"), ("aggregate_heart.py", 1, b"there is no standard output")],
)
def test_closed_standard_streams_are_a_sentence(tmp_path: Path, script: str, closed: int, message: bytes) -> None:
    (tmp_path / "heart_ledger.jsonl").touch()

    ended = subprocess.run(
        command_line(script, []),
        stderr=subprocess.PIPE,
        cwd=tmp_path,
        env=environment(),
        preexec_fn=lambda: os.close(closed),
        check=False,
    )

    assert ended.returncode == 64
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
def test_a_file_whose_name_is_no_text_can_be_named(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"\xff.jsonl")).write_text(json_lines([entry()]))

    ended = run("validate_heart.py", os.fsdecode(b"\xff.jsonl"), cwd=tmp_path)

    assert ended.stdout == "\\udcff.jsonl: 1 entry, all valid\n"
