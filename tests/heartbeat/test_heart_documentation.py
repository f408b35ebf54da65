from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.heartbeat.command import CONFIGURATION, INPUT_OUTPUT, INTERRUPTED, INVALID, READER_GONE, USAGE
from tests.heartbeat.commands import SCRIPTS, environment

PAGE = SCRIPTS.parent / "documentation" / "HEARTBEAT.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def without_digests(text: str) -> str:
    """Digests and salt ids differ from salt to salt."""
    return re.sub(r"\b[0-9a-f]{64}\b|\b[0-9a-f]{16}\b", "<hexadecimal>", text)


@pytest.mark.skipif(shutil.which("bash") is None or sys.platform == "win32", reason="the page's commands are for a POSIX shell")
def test_every_command_on_the_page_prints_what_the_page_says(tmp_path: Path) -> None:
    (tmp_path / "scripts").symlink_to(SCRIPTS)
    (tmp_path / "entries.jsonl").write_text(blocks("json")[0], encoding="utf-8")
    shown = "".join(blocks("console"))
    commands = [line.removeprefix("$ ") for line in shown.splitlines() if line.startswith("$ ")]
    shell = [f'python() {{ "{sys.executable}" "$@"; }}', 'python3() { python "$@"; }']
    for command in commands:
        shell += [f"cat <<'COMMAND'\n$ {command}\nCOMMAND", command]

    ended = subprocess.run(
        ["bash", "-c", "exec 2>&1\n" + "\n".join(shell)],
        capture_output=True,
        cwd=tmp_path,
        env=environment(),
        text=True,
        check=False,
    )

    assert without_digests(ended.stdout) == without_digests(shown)


def test_every_exit_code_is_on_the_page() -> None:
    rows = re.findall(r"^\| ([0-9, ]+) \|", PAGE.read_text(encoding="utf-8").split("## Exit codes")[1], re.MULTILINE)

    assert {int(code) for row in rows for code in row.split(",")} == {
        0,
        INVALID,
        USAGE,
        INPUT_OUTPUT,
        CONFIGURATION,
        INTERRUPTED,
        READER_GONE,
    }
