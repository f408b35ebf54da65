"""Runs the heartbeat commands as a person would: in their own process, with a real terminal where one is asked for."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"

#: Long enough for a loaded machine; a command that hangs must fail its test, not block the run.
TIMEOUT_S = 60.0

#: Unbuffered, a command would notice a closed pipe earlier than it usually does.
HOW_PYTHON_WRITES = {"PYTHONUNBUFFERED", "PYTHONIOENCODING", "PYTHONUTF8"}

SALT = "c47fe1a09b3d582611e0c94da5f87b63d28e07b15f6a493cc0d1e89b24f7a35e"

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@dataclass(frozen=True)
class Ended:
    """How a command ended. `screen` is what the terminal showed, if there was one."""

    exit_code: int
    stdout: str
    stderr: str
    screen: str = ""

    @property
    def everything(self) -> str:
        return self.stdout + self.stderr + self.screen


def entry(**changes: Any) -> dict[str, Any]:
    """Return a valid entry, with some fields changed."""
    usual: dict[str, Any] = {
        "timestamp": "2025-11-03T14:30:00Z",
        "source_id": "wearable-07",
        "event_type": "beat",
        "metrics": {"heart_rate": 61},
        "symbols": ["calm"],
    }
    return {**usual, **changes}


def pseudonym(source_id: str) -> str:
    """Return the digest under `SALT`, computed with Python's own hmac."""
    return hmac.new(SALT.encode(), source_id.encode(), hashlib.sha256).hexdigest()


def json_lines(entries: Sequence[Any]) -> str:
    return "".join(json.dumps(value, ensure_ascii=False) + "\n" for value in entries)


def entries_in(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def command_line(script: str, arguments: Sequence[str | Path], *, python_options: Sequence[str] = ()) -> list[str]:
    # Warnings are errors in the commands too: a file left open would show.
    return [sys.executable, "-W", "error", *python_options, str(SCRIPTS / script), *map(str, arguments)]


def environment(settings: Mapping[str, str | Path] | None = None) -> dict[str, str]:
    """Return this process's environment with no salt but the given one, and nothing that changes how Python writes."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HEART_") and name not in HOW_PYTHON_WRITES}
    return {**kept, **{name: str(value) for name, value in (settings or {}).items()}}


def run(
    script: str,
    *arguments: str | Path,
    stdin: str | bytes = b"",
    cwd: Path | None = None,
    settings: Mapping[str, str | Path] | None = None,
    before: Callable[[], None] | None = None,
    stdout: int = subprocess.PIPE,
    python_options: Sequence[str] = (),
) -> Ended:
    """Run a command without a terminal and wait for its end. `python_options=["-S"]` leaves out the installed libraries."""
    ended = subprocess.run(
        command_line(script, arguments, python_options=python_options),
        input=stdin if isinstance(stdin, bytes) else stdin.encode(),
        stdout=stdout,
        stderr=subprocess.PIPE,
        cwd=cwd,
        env=environment(settings),
        start_new_session=True,
        preexec_fn=before,
        timeout=TIMEOUT_S,
        check=False,
    )
    return Ended(ended.returncode, (ended.stdout or b"").decode(), ended.stderr.decode())


@dataclass(frozen=True)
class Terminal:
    """A command that has a terminal, and the user's side of it."""

    process: subprocess.Popen[bytes]
    screen: int

    def wait_for(self, text: str) -> str:
        """Return what is on the screen once it holds the text."""
        seen = b""
        give_up_at_s = time.monotonic() + TIMEOUT_S
        while text.encode() not in seen:
            assert time.monotonic() < give_up_at_s, f"never saw {text!r}, only {seen!r}"
            seen += self._seen_now(timeout_s=0.1)
        return seen.decode()

    def wait_until_entries_are_asked_for(self) -> None:
        """What is typed before is lost: the prompt empties the keyboard's buffer when it turns the echo on again."""
        assert self.process.stderr is not None
        assert b"reading entries from the terminal" in self.process.stderr.readline()

    def type(self, keys: str) -> None:
        os.write(self.screen, keys.encode())

    def end(self, stdin: str = "") -> Ended:
        """Give the command its standard input and wait for its end."""
        stdout, stderr = self.process.communicate(stdin.encode() or None, timeout=TIMEOUT_S)
        return Ended(
            self.process.returncode, (stdout or b"").decode(), (stderr or b"").decode(), self._seen_now(timeout_s=0.1).decode()
        )

    def _seen_now(self, *, timeout_s: float) -> bytes:
        if not select.select([self.screen], [], [], timeout_s)[0]:
            return b""
        with contextlib.suppress(OSError):  # Linux says EIO once the command has left its terminal
            return os.read(self.screen, 65536)
        return b""


@contextlib.contextmanager
def on_a_terminal(script: str, *arguments: str | Path, cwd: Path, stdin_is_terminal: bool = False) -> Iterator[Terminal]:
    """Start a command on a terminal of its own; standard input is a pipe unless it is to be that terminal."""
    import fcntl
    import pty
    import termios

    screen, terminal = pty.openpty()
    process = subprocess.Popen(
        command_line(script, arguments),
        stdin=terminal if stdin_is_terminal else subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=cwd,
        env=environment(),
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(terminal, termios.TIOCSCTTY, 0),
        pass_fds=(terminal,),
    )
    os.close(terminal)
    with process:
        try:
            yield Terminal(process, screen)
        finally:
            process.kill()
            os.close(screen)
