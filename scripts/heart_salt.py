"""Where the salt comes from: the environment, a file, an env file, or a hidden prompt. Never from an argument, and never shown.

The salt is the key of the pseudonyms: whoever holds it can compute the pseudonym of any source id and compare.
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
from anonymizer.weak_keys import doubts_about
from scripts.heart_command import Arguments
from service.arguments import path_argument
from service.env_file import UnreadableValue, meaning, read_env_file
from service.setting_types import path as written_out

SALT, SALT_FILE = "HEART_SALT", "HEART_SALT_FILE"

#: A longer file is not a salt but some other file, named by mistake.
MAXIMUM_SALT_BYTES = 4096

#: Who besides the owner a file's mode lets read it.
_OTHER_READERS = stat.S_IRGRP | stat.S_IROTH

SALT_HELP = f"""salt:
  {SALT_FILE}=PATH, or {SALT}, in the environment or in --env-file; with neither, a hidden prompt on the terminal, also when the
  entries are piped in. Never an argument. Make one: {MAKE_A_KEY} > heart_salt; chmod 600 heart_salt"""


def add_salt_argument(arguments: Arguments) -> None:
    """Add `--env-file`, the only thing about the salt that may stand on a command line."""
    arguments.add_argument(
        "--env-file",
        type=path_argument,
        metavar="PATH",
        help=f"a .env file that sets {SALT_FILE} or {SALT}; the environment comes before it",
    )


def find_salt(
    env_file: Path | None, *, environment: Mapping[str, str], ask: Callable[[], str], warn: Callable[[str], None]
) -> bytes:
    """Return the salt, or raise ConfigurationError when it is missing, given twice or too short.

    Args:
        env_file: A file of settings, or None. Once named it must be readable, and must set the salt if the environment does not.
        environment: Settings that come before those of the file. An empty one is a mistake, not an absent one.
        ask: Asks a person for it. Only called when no setting names a salt.
        warn: Told when others can read a file that holds the salt, and when the environment quotes it.
    """
    settings = {**_settings_of(env_file, warn=warn), **_meant(environment, warn=warn)}
    salt, path = settings.get(SALT), settings.get(SALT_FILE)
    if salt is not None and path is not None:
        raise ConfigurationError(f"{SALT} and {SALT_FILE} are both set: keep the one you mean, unset the other")
    if path is not None:
        return _checked(SALT_FILE, _salt_in(path, warn=warn))
    if salt is not None:
        return _checked(SALT, _bytes_of(SALT, salt))
    if env_file is not None:
        raise ConfigurationError(f"{env_file} sets neither {SALT_FILE} nor {SALT}: add one of them, or leave out --env-file")
    return _checked("the salt that was typed", _bytes_of("the salt that was typed", ask()))


def warn_of_doubts(salt: bytes, *, warn: Callable[[str], None]) -> None:
    """Say what is strange about a salt that is about to be used, never the salt."""
    for doubt in doubts_about(salt):
        warn(f"warning: the salt {doubt}")


def ask_on_terminal() -> str:
    """Ask for the salt on the terminal, even while standard input is something else, and do not show what is typed."""
    with warnings.catch_warnings():
        # With no terminal, getpass would warn, then read the first line of standard input as the salt, in sight.
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
    """Return what the env file says about the salt. A name without a value counts as empty."""
    if env_file is None:
        return {}
    found = read_env_file(env_file, (SALT, SALT_FILE))
    if found is None:
        raise ConfigurationError(f"cannot read {env_file}: No such file or directory; check --env-file")
    if found.problems:
        raise ConfigurationError([f"{problem}; check --env-file" for problem in found.problems])
    if SALT in found.values and found.others_can_read and (readers := _readers_of(env_file.stat())):
        warn(_readable_by_others(str(env_file), readers))
    return {name: found.values[name] for name in (SALT, SALT_FILE) if name in found.values}


def _meant(environment: Mapping[str, str], *, warn: Callable[[str], None]) -> dict[str, str]:
    """Return what the environment says about the salt, read as a line of the env file is: `docker run --env-file` passes quotes on."""
    meant = {}
    for name in (SALT, SALT_FILE):
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
    """Return the salt in a file, without the one newline that editors and `echo` put at its end."""
    try:
        with _written_out(path).open("rb") as file:
            salt, readers = file.read(MAXIMUM_SALT_BYTES + 1), _readers(file)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no file name"
        raise ConfigurationError(
            f"cannot read the file that {SALT_FILE} names: {reason}; check the name and its permissions"
        ) from None
    if len(salt) > MAXIMUM_SALT_BYTES:
        raise ConfigurationError(f"the file that {SALT_FILE} names holds more than {MAXIMUM_SALT_BYTES} bytes; is it the salt?")
    if readers:
        warn(_readable_by_others(path, readers))
    return without_line_end(salt)


def _readers(file: BinaryIO) -> str:
    return _readers_of(os.fstat(file.fileno()))


def _readers_of(status: os.stat_result) -> str:
    """Return who else can read a file of this status, in words; nothing where modes mean nothing, as on Windows."""
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
            f"{name} holds half of a surrogate pair, which is no character; make another with: {MAKE_A_KEY}"
        ) from None


def _checked(name: str, salt: bytes) -> bytes:
    try:
        check_key(salt)
    except ShortKey as error:
        raise ConfigurationError(f"{name} {error}") from None
    return salt
