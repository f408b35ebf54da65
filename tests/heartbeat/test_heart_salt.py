from __future__ import annotations

import getpass
import hashlib
import hmac
import json
import os
import random
import sys
from pathlib import Path

import pytest

from anonymizer.errors import ConfigurationError
from scripts.heartbeat.salt import MAXIMUM_SALT_BYTES, ask_on_terminal, find_salt
from tests.heartbeat.commands import SALT, Ended, entries_in, entry, json_lines, on_a_terminal, pseudonym, run

needs_a_terminal = pytest.mark.skipif(sys.platform == "win32", reason="pseudo-terminals are POSIX")
needs_modes = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such modes")

ONE = json_lines([entry()])
WEAK = {"HEART_ACCEPT_WEAK_SALT": "true"}
HASHED = [entry(source_id=pseudonym("wearable-07"))]


def never_asked() -> str:
    raise AssertionError("the prompt must not be used")


def salt_from(environment: dict[str, str], *, env_file: Path | None = None) -> bytes:
    return find_salt(env_file, environment=environment, ask=never_asked, warn=lambda _: None)


def refusal(environment: dict[str, str], *, env_file: Path | None = None) -> str:
    with pytest.raises(ConfigurationError) as refused:
        salt_from(environment, env_file=env_file)
    return str(refused.value)


def with_text(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    path.chmod(0o600)
    return path


def ingest(tmp_path: Path, *arguments: str | Path, stdin: str = ONE, **settings: str | Path) -> Ended:
    return run("ingest_heartbeat.py", "--anonymize", *arguments, stdin=stdin, cwd=tmp_path, settings=settings)


@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_the_same_salt_comes_from_the_environment_a_file_and_an_env_file(tmp_path: Path, end: str) -> None:
    salt_file = with_text(tmp_path / "salt", SALT + end)
    env_file = with_text(tmp_path / "heart.env", f"\ufeffHEART_SALT='{SALT}'{end}")
    pointing = with_text(tmp_path / "pointing.env", f"HEART_SALT_FILE={salt_file}{end}")

    assert salt_from({"HEART_SALT": SALT}) == SALT.encode()
    assert salt_from({"HEART_SALT_FILE": str(salt_file)}) == SALT.encode()
    assert salt_from({}, env_file=env_file) == SALT.encode()
    assert salt_from({}, env_file=pointing) == SALT.encode()


def test_only_one_newline_is_taken_from_the_end_of_a_salt_file(tmp_path: Path) -> None:
    salt_file = with_text(tmp_path / "salt", b" \xff" + SALT.encode() + b" \n\n")

    assert salt_from({"HEART_SALT_FILE": str(salt_file)} | WEAK) == b" \xff" + SALT.encode() + b" \n"


def test_nothing_is_replaced_inside_the_salt_of_an_env_file(tmp_path: Path) -> None:
    env_file = with_text(tmp_path / "heart.env", "HOME=/root\nHEART_SALT='${HOME}-$HOME-# = \"x\"-and-more'\n")

    assert salt_from(WEAK, env_file=env_file) == b'${HOME}-$HOME-# = "x"-and-more'


def test_the_environment_comes_before_the_env_file(tmp_path: Path) -> None:
    env_file = with_text(tmp_path / "heart.env", "HEART_SALT=some-other-salt-of-this-company\n")

    assert salt_from({"HEART_SALT": SALT}, env_file=env_file) == SALT.encode()


def test_a_salt_given_twice_is_refused_wherever_the_two_stand(tmp_path: Path) -> None:
    salt_file = with_text(tmp_path / "salt", SALT)
    env_file = with_text(tmp_path / "heart.env", f"HEART_SALT_FILE={salt_file}\n")

    assert "both set" in refusal({"HEART_SALT": SALT, "HEART_SALT_FILE": str(salt_file)})
    assert "both set" in refusal({"HEART_SALT": SALT}, env_file=env_file)


@pytest.mark.parametrize("salt", ["", "x", "fifteen-bytes-!"])
def test_a_short_salt_is_refused_with_the_command_that_makes_a_good_one(tmp_path: Path, salt: str) -> None:
    env_file = with_text(tmp_path / "heart.env", f"HEART_SALT={salt}\n")
    salt_file = with_text(tmp_path / "salt", salt + "\n")

    for message in (
        refusal({"HEART_SALT": salt}),
        refusal({}, env_file=env_file),
        refusal({"HEART_SALT_FILE": str(salt_file)}),
    ):
        assert f"needs at least 16 bytes (32 recommended), got {len(salt)}; make one with: python3 -c" in message


@pytest.mark.parametrize("salt", ["sixteen-bytes-!!", "ß" * 8])
def test_a_salt_that_a_person_thought_up_is_used_only_for_ledgers_begun_under_it(tmp_path: Path, salt: str) -> None:
    assert f"HEART_SALT is refused: it {'is made of common words' if len(salt) > 8 else 'has few'}" in refusal(
        {"HEART_SALT": salt}
    )
    assert salt_from({"HEART_SALT": salt} | WEAK) == salt.encode()
    in_a_file = with_text(tmp_path / "heart.env", f"HEART_SALT={salt}\nHEART_ACCEPT_WEAK_SALT=yes\n")
    assert salt_from({}, env_file=in_a_file) == salt.encode()
    assert "HEART_ACCEPT_WEAK_SALT must be true or false" in refusal({"HEART_SALT": salt, "HEART_ACCEPT_WEAK_SALT": "maybe"})


@pytest.mark.skipif(sys.platform == "win32", reason="printf is POSIX")
def test_a_salt_may_come_from_a_command_and_a_passphrase_is_stretched(tmp_path: Path) -> None:
    assert salt_from({"HEART_SALT_COMMAND": f"printf %s {SALT}"}) == SALT.encode()
    assert "HEART_SALT_COMMAND names a command that failed with exit code 1" in refusal({"HEART_SALT_COMMAND": "false"})
    passphrase = f"scrypt:{'0123456789abcdef' * 2}:seven horses wander over the moor"
    assert "its scrypt salt was not made by chance" in refusal({"HEART_SALT": passphrase})
    passphrase = "scrypt:7c1e4fa09b3d582611e0c94da5f87b36:seven horses wander over the moor"
    key = hashlib.scrypt(
        b"seven horses wander over the moor",
        salt=bytes.fromhex("7c1e4fa09b3d582611e0c94da5f87b36"),
        n=1 << 17,
        r=8,
        p=1,
        maxmem=1 << 29,
        dklen=32,
    )
    ended = run("anonymize.py", stdin='{"source_id": "w1"}\n', cwd=tmp_path, settings={"HEART_SALT": passphrase})
    assert json.loads(ended.stdout)["source_id"] == hmac.new(key, b"w1", hashlib.sha256).hexdigest(), ended.everything


def test_every_mistake_with_a_file_is_a_sentence_and_exit_code_78(tmp_path: Path) -> None:
    large = with_text(tmp_path / "large", b"x" * (MAXIMUM_SALT_BYTES + 1))
    without = with_text(tmp_path / "without.env", "OTHER=1\n")
    latin = with_text(tmp_path / "latin.env", b"HEART_SALT=\xe9\n")
    nul = with_text(tmp_path / "nul.env", 'HEART_SALT_FILE="a\\x00b"\n')

    for ended, message in [
        (ingest(tmp_path, HEART_SALT_FILE="missing"), "HEART_SALT_FILE names: No such file"),
        (ingest(tmp_path, HEART_SALT_FILE=""), "cannot read the file that HEART_SALT_FILE names"),
        (ingest(tmp_path, HEART_SALT_FILE=tmp_path), "cannot read the file that HEART_SALT_FILE names"),
        (ingest(tmp_path, HEART_SALT_FILE=large), f"holds more than {MAXIMUM_SALT_BYTES} bytes"),
        (ingest(tmp_path, "--env-file", "missing.env"), "cannot read missing.env: No such file"),
        (ingest(tmp_path, "--env-file", tmp_path), "check --env-file"),
        (ingest(tmp_path, "--env-file", without), "sets neither HEART_SALT_FILE nor HEART_SALT"),
        (ingest(tmp_path, "--env-file", latin), "it is not UTF-8"),
        (ingest(tmp_path, "--env-file", nul), "cannot read the file that HEART_SALT_FILE names"),
    ]:
        assert (ended.exit_code, ended.stdout) == (78, "")
        assert ended.stderr.startswith("error: ")
        assert message in ended.stderr
        assert "Traceback" not in ended.stderr
    assert not (tmp_path / "heart_ledger.jsonl").exists()


@needs_modes
@pytest.mark.parametrize(
    ("mode", "readers"), [(0o640, "its group"), (0o604, "every user of this machine"), (0o644, "every user")]
)
def test_a_salt_that_others_can_read_is_warned_of_and_used(tmp_path: Path, mode: int, readers: str) -> None:
    salt_file = with_text(tmp_path / "salt", SALT)
    env_file = with_text(tmp_path / "heart.env", f"HEART_SALT={SALT}\n")
    for path in (salt_file, env_file):
        path.chmod(mode)

    for ended in (ingest(tmp_path, HEART_SALT_FILE=salt_file), ingest(tmp_path, "--env-file", env_file)):
        assert ended.exit_code == 0
        assert f"can be read by {readers}" in ended.stderr
        assert "chmod 600" in ended.stderr


def test_without_a_terminal_a_missing_salt_is_an_error_and_the_data_is_not_taken_for_it(tmp_path: Path) -> None:
    ended = ingest(tmp_path, stdin=SALT + "\n" + ONE)

    assert (ended.exit_code, ended.stdout) == (78, "")
    assert ended.stderr.startswith("error: no salt: set HEART_SALT_FILE")
    assert not (tmp_path / "heart_ledger.jsonl").exists()


def test_a_terminal_whose_echo_cannot_be_turned_off_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(getpass, "getpass", getpass.fallback_getpass)  # type: ignore[attr-defined]

    with pytest.raises(ConfigurationError, match="no salt"):
        ask_on_terminal()


@needs_a_terminal
@pytest.mark.parametrize("stdin", [ONE, ""])
def test_a_hidden_prompt_asks_on_the_terminal_also_while_entries_are_piped_in(tmp_path: Path, stdin: str) -> None:
    (tmp_path / "entries").write_text(ONE)
    arguments = () if stdin else ("entries",)

    with on_a_terminal("ingest_heartbeat.py", "--anonymize", *arguments, cwd=tmp_path) as terminal:
        terminal.wait_for("Salt (not shown): ")
        terminal.type(SALT + "\n")
        ended = terminal.end(stdin)

    assert (ended.exit_code, ended.stderr) == (0, "")
    assert ended.stdout.startswith("1 entry appended")
    assert entries_in(tmp_path / "heart_ledger.jsonl") == HASHED
    assert SALT not in ended.everything


@needs_a_terminal
def test_salt_and_entries_can_both_be_typed(tmp_path: Path) -> None:
    with on_a_terminal("ingest_heartbeat.py", "--anonymize", cwd=tmp_path, stdin_is_terminal=True) as terminal:
        terminal.wait_for("Salt (not shown): ")
        terminal.type(SALT + "\n")
        terminal.wait_until_entries_are_asked_for()
        terminal.type(ONE + "\x04")
        ended = terminal.end()

    assert ended.exit_code == 0
    assert entries_in(tmp_path / "heart_ledger.jsonl") == HASHED
    assert SALT not in ended.everything


@needs_a_terminal
@pytest.mark.parametrize(
    ("keys", "exit_code", "message"),
    [("\n", 78, "got 0"), ("tooshort\n", 78, "got 8"), ("\x04", 78, "no salt"), ("\x03", 130, "interrupted")],
)
def test_nothing_is_written_when_the_prompt_gets_no_good_answer(tmp_path: Path, keys: str, exit_code: int, message: str) -> None:
    with on_a_terminal("ingest_heartbeat.py", "--anonymize", cwd=tmp_path) as terminal:
        terminal.wait_for("Salt (not shown): ")
        terminal.type(keys)
        ended = terminal.end(ONE)

    assert ended.exit_code == exit_code
    assert message in ended.stderr
    assert "Traceback" not in ended.everything
    assert "tooshort" not in ended.everything
    assert not (tmp_path / "heart_ledger.jsonl").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--salt", SALT), "the salt is never an argument"),
        ((f"--salt={SALT}",), "the salt is never an argument"),
        (("entries", SALT), "1 argument(s) too many"),
        ((f"--hmac={SALT}",), "unknown option --hmac"),
    ],
)
def test_a_salt_on_the_command_line_is_refused_and_not_repeated(tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    ended = ingest(tmp_path, *arguments)

    assert ended.exit_code == 64
    assert ended.stderr.startswith(f"error: {message}")
    assert SALT not in ended.everything


@pytest.mark.parametrize("stdin", [ONE, "what?\n", json_lines([entry(source_id=1)]), '{"a": "\\ud800"}\n'])
@pytest.mark.parametrize("script", ["ingest_heartbeat.py", "anonymize.py"])
def test_the_salt_is_in_no_output_error_or_file(tmp_path: Path, script: str, stdin: str) -> None:
    flags = ("--anonymize",) if script == "ingest_heartbeat.py" else ()

    ended = run(script, *flags, stdin=stdin, cwd=tmp_path, settings={"HEART_SALT": SALT})

    assert SALT not in ended.everything
    assert not any(SALT.encode() in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


@needs_a_terminal
@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="the process list is in /proc on Linux only")
def test_a_typed_salt_is_in_no_process_list_and_no_environment(tmp_path: Path) -> None:
    # Of its own: that of other tests is in the environment of processes that they start meanwhile.
    salt = random.Random(267).randbytes(32).hex()
    with on_a_terminal("ingest_heartbeat.py", "--anonymize", cwd=tmp_path) as terminal:
        terminal.wait_for("Salt (not shown): ")
        terminal.type(salt + "\n")
        # The screen's next line comes after the salt was read; the command now waits for entries.
        terminal.wait_for("\n")
        shown = b"".join(read_if_there(path) for name in ("cmdline", "environ") for path in Path("/proc").glob(f"[0-9]*/{name}"))
        own = Path(f"/proc/{terminal.process.pid}/cmdline").read_bytes()
        terminal.end(ONE)

    assert b"ingest_heartbeat.py" in own
    assert salt.encode() not in shown


def read_if_there(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


@pytest.mark.skipif(sys.platform == "win32", reason="the environment holds bytes on POSIX only")
def test_a_salt_of_any_bytes_in_the_environment_is_used_as_it_is(tmp_path: Path) -> None:
    salt = b"\xff\xfe" + bytes(byte | 0x80 for byte in hashlib.sha512(b"seed").digest()) + b"7c1e"

    assert salt_from({"HEART_SALT": os.fsdecode(salt)}) == salt
