"""Secrets that a command prints, such as `vault kv get -field=key secret/ecg`. What it prints is never shown, nor is the command."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import threading

from anonymizer.pseudonyms import without_line_end
from service.settings.types import MOST_SECRET_BYTES

#: A vault that takes longer does not answer.
LONGEST_COMMAND_S = 15.0


def secret_of_command(command: str, *, may_be_bytes: bool = False, longest_s: float = LONGEST_COMMAND_S) -> str:
    """Return what a command prints, without one line end. It runs without a shell, with no input; its messages are dropped.

    Args:
        command: Program and arguments, quoted as for a shell; nothing is expanded.
        may_be_bytes: Whether to accept bytes that are not text, for `Secret.key`.
        longest_s: Then it and what it started are ended.

    Raises:
        ValueError: It cannot be started, fails, takes too long, or prints nothing, too much or no text. The message ends a sentence.
    """
    try:
        words = shlex.split(command)
    except ValueError:
        raise ValueError("is no command: a quote in it is not closed") from None
    if not words:
        raise ValueError("is no command: it names no program")
    content, code = _output_of(words, longest_s)
    if len(content) > MOST_SECRET_BYTES:
        raise ValueError(f"names a command that printed more than {MOST_SECRET_BYTES} bytes: is it the secret?")
    if code is None:
        raise ValueError(f"names a command that did not end within {longest_s:g} s")
    if code:
        raise ValueError(f"names a command that failed with exit code {code}; run it as the service's user to see why")
    try:
        text = without_line_end(content).decode(errors="surrogateescape" if may_be_bytes else "strict")
    except UnicodeDecodeError:
        raise ValueError("names a command that printed something else than UTF-8 text") from None
    if not text:
        raise ValueError("names a command that printed nothing")
    return text


def _output_of(words: list[str], longest_s: float) -> tuple[bytes, int | None]:
    """Return the output of a command, as far as a secret may be long, and its exit code; None if it took too long."""
    try:
        # A session of its own, so that what it starts ends with it.
        process = subprocess.Popen(  # noqa: S603  (an operator's own command, without a shell)
            words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True
        )
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it holds a NUL"
        raise ValueError(f"names a command that cannot be started ({reason}); a shell's words and ~ mean nothing here") from None
    is_late = threading.Event()

    def stop() -> None:
        is_late.set()
        _end(process)

    timer = threading.Timer(longest_s, stop)
    timer.start()
    assert process.stdout is not None
    try:
        content = process.stdout.read(MOST_SECRET_BYTES + 1)
        if len(content) > MOST_SECRET_BYTES:
            _end(process)
        code = process.wait()
    finally:
        timer.cancel()
    process.stdout.close()
    return content, None if is_late.is_set() else code


def _end(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(OSError):
        if os.name == "posix":
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
