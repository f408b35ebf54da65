"""Finds the salt: in the environment, a file, an env file, or from a hidden prompt. Never from an argument, and never shown.

The salt is the key of the pseudonyms: with it, anyone can compute the pseudonym of any source id and compare.
"""

from __future__ import annotations

import getpass
import os
import stat
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import BinaryIO

from anonymizer.errors import ConfigurationError
from anonymizer.pseudonyms import MAKE_A_KEY, ShortKey, check_key, without_line_end
from anonymizer.weak_keys import MAKE_ANOTHER, doubts_about, why_refused
from scripts.heartbeat.command import Arguments
from service.settings.arguments import path_argument
from service.settings.env_file import UnreadableValue, meaning, read_env_file
from service.settings.secret_command import secret_of_command
from service.settings.types import boolean
from service.settings.types import path as written_out

SALT, SALT_FILE, SALT_COMMAND = "HEART_SALT", "HEART_SALT_FILE", "HEART_SALT_COMMAND"

#: Goes on with a salt that a person thought up, for ledgers that were begun under it.
ACCEPT_WEAK = "HEART_ACCEPT_WEAK_SALT"

_NAMES = (SALT, SALT_FILE, SALT_COMMAND, ACCEPT_WEAK)

#: A longer file is probably some other file, named by mistake.
MAXIMUM_SALT_BYTES = 4096

#: The mode bits that let others than the owner read a file.
_OTHER_READERS = stat.S_IRGRP | stat.S_IROTH

SALT_HELP = f"""salt:
  {SALT_FILE}=PATH, {SALT_COMMAND}=PROGRAM, or {SALT}, in the environment or in --env-file; with none, a hidden prompt on
  the terminal, also when the entries are piped in. Never an argument. A salt that a person thought up is refused, except with
  {ACCEPT_WEAK}=true, for ledgers begun under it. Make one: {MAKE_A_KEY} > heart_salt; chmod 600 heart_salt"""


def add_salt_argument(arguments: Arguments) -> None:
    """Add `--env-file`, the only option about the salt."""
    arguments.add_argument(
        "--env-file",
        type=path_argument,
        metavar="PATH",
        help=f"a .env file that sets {SALT_FILE} or {SALT}; the environment comes before it",
    )


def find_salt(
    env_file: Path | None, *, environment: Mapping[str, str], ask: Callable[[], str], warn: Callable[[str], None]
) -> bytes:
    """Return the salt, or raise ConfigurationError when it is missing, given twice, too short or easy to guess.

    Args:
        env_file: A file of settings, or None. If given, it must be readable, and must set the salt unless the environment does.
        environment: Settings that override those of the file. An empty value is an error, not a missing setting.
        ask: Prompts for it. Called only if no setting names a salt.
        warn: Called if others can read a file that holds the salt, and if the environment quotes it.
    """
    settings = {**_settings_of(env_file, warn=warn), **_meant(environment, warn=warn)}
    accepts_weak = _accepts_weak(settings.get(ACCEPT_WEAK, ""))
    given = [name for name in (SALT, SALT_FILE, SALT_COMMAND) if name in settings]
    if len(given) > 1:
        raise ConfigurationError(f"{' and '.join(given)} are both set: keep the one you mean, unset the other")
    if given == [SALT_FILE]:
        return _checked(SALT_FILE, _salt_in(settings[SALT_FILE], warn=warn), accepts_weak=accepts_weak)
    if given == [SALT_COMMAND]:
        return _checked(SALT_COMMAND, _salt_of_command(settings[SALT_COMMAND]), accepts_weak=accepts_weak)
    if given == [SALT]:
        return _checked(SALT, _bytes_of(SALT, settings[SALT]), accepts_weak=accepts_weak)
    if env_file is not None:
        raise ConfigurationError(f"{env_file} sets neither {SALT_FILE} nor {SALT}: add one of them, or leave out --env-file")
    return _checked("the salt that was typed", _bytes_of("the salt that was typed", ask()), accepts_weak=accepts_weak)


def warn_of_doubts(salt: bytes, *, warn: Callable[[str], None]) -> None:
    """Warn if the salt looks weak. Never shows the salt."""
    for doubt in doubts_about(salt):
        warn(f"warning: the salt {doubt}")


def ask_on_terminal() -> str:
    """Ask for the salt on the terminal, even if standard input is redirected, without echo."""
    with warnings.catch_warnings():
        # Without a terminal, getpass would warn, then read the first line of standard input as the salt, with echo.
        warnings.simplefilter("error", getpass.GetPassWarning)
        try:
            return getpass.getpass("Salt (not shown): ")
        except (getpass.GetPassWarning, EOFError, OSError):
            raise ConfigurationError(
                f"no salt: set {SALT_FILE} to a file that holds it, or run where a terminal can ask for it. Make one with: {MAKE_A_KEY}"
            ) from None
        except UnicodeDecodeError:
            raise ConfigurationError("the salt that was typed is not text in this terminal's encoding; type it again") from None


def _settings_of(env_file: Path | None, *, warn: Callable[[str], None]) -> dict[str, str]:
    """Return the salt's settings in the env file. A name without a value counts as empty."""
    if env_file is None:
        return {}
    found = read_env_file(env_file, _NAMES)
    if found is None:
        raise ConfigurationError(f"cannot read {env_file}: No such file or directory; check --env-file")
    if found.problems:
        raise ConfigurationError([f"{problem}; check --env-file" for problem in found.problems])
    if SALT in found.values and found.others_can_read and (readers := _readers_of(env_file.stat())):
        warn(_readable_by_others(str(env_file), readers))
    return {name: found.values[name] for name in _NAMES if name in found.values}


def _meant(environment: Mapping[str, str], *, warn: Callable[[str], None]) -> dict[str, str]:
    """Return the salt's settings in the environment, unquoted as in an env file: `docker run --env-file` passes quotes on."""
    meant = {}
    for name in _NAMES:
        if name in environment:
            try:
                meant[name] = meaning(environment[name])
            except UnreadableValue as problem:
                raise ConfigurationError(f"{name} in the environment cannot be read: {problem}") from None
            if meant[name] != environment[name]:
                warn(
                    f"warning: {name} in the environment stands between quotes or blanks, which are not part of it, as in an env file"
                )
    return meant


def _written_out(path: str) -> Path:
    try:
        return Path(written_out(path))
    except ValueError as error:
        raise ConfigurationError(f"{SALT_FILE} must be {error}, got {path!r}") from None


def _salt_in(path: str, *, warn: Callable[[str], None]) -> bytes:
    """Return the salt in a file, without the one newline that editors and `echo` add."""
    try:
        with _written_out(path).open("rb") as file:
            salt, readers = file.read(MAXIMUM_SALT_BYTES + 1), _readers(file)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not a file name"
        raise ConfigurationError(
            f"cannot read the file that {SALT_FILE} names: {reason}; check the name and its permissions"
        ) from None
    if len(salt) > MAXIMUM_SALT_BYTES:
        raise ConfigurationError(f"the file that {SALT_FILE} names holds more than {MAXIMUM_SALT_BYTES} bytes; is it the salt?")
    if readers:
        warn(_readable_by_others(path, readers))
    return without_line_end(salt)


def _salt_of_command(command: str) -> bytes:
    try:
        return secret_of_command(command, may_be_bytes=True).encode(errors="surrogateescape")
    except ValueError as error:
        raise ConfigurationError(f"{SALT_COMMAND} {error}") from None


def _accepts_weak(given: str) -> bool:
    try:
        return bool(given) and boolean(given)
    except ValueError as error:
        raise ConfigurationError(f"{ACCEPT_WEAK} must be {error}") from None


def _readers(file: BinaryIO) -> str:
    return _readers_of(os.fstat(file.fileno()))


def _readers_of(status: os.stat_result) -> str:
    """Return who else can read a file with this status, as text; nothing where modes do not apply, as on Windows."""
    others = status.st_mode & _OTHER_READERS if os.name == "posix" else 0
    if not others:
        return ""
    return "every user of this machine" if others & stat.S_IROTH else "its group"


def _readable_by_others(path: str, readers: str) -> str:
    return f"warning: {path} holds the salt and can be read by {readers}; run: chmod 600 {path}"


def _bytes_of(name: str, salt: str) -> bytes:
    try:
        return salt.encode(errors="surrogateescape")
    except UnicodeEncodeError:
        raise ConfigurationError(
            f"{name} holds half of a surrogate pair, which is not a character; make another with: {MAKE_A_KEY}"
        ) from None


def _checked(name: str, salt: bytes, *, accepts_weak: bool) -> bytes:
    try:
        check_key(salt)
    except ShortKey as error:
        raise ConfigurationError(f"{name} {error}") from None
    if not accepts_weak and (reason := why_refused(salt)):
        raise ConfigurationError(
            f"{name} is refused: {reason}; {MAKE_ANOTHER}. Only a ledger begun under it goes on with {ACCEPT_WEAK}=true"
        )
    return salt
