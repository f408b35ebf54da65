"""Where the salt comes from: the environment, a file, an env file, or a hidden prompt. Never from an argument, and never shown.

The salt is the key of the pseudonyms: whoever holds it can compute the pseudonym of any source id and compare.
"""

from __future__ import annotations

import getpass
import io
import os
import stat
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import BinaryIO

from anonymizer.errors import ConfigurationError
from anonymizer.pseudonyms import MAKE_A_KEY, ShortKey, check_key
from scripts.heart_command import Arguments

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
        type=Path,
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
        warn: Told when others can read a file that holds the salt.
    """
    settings = {**_settings_of(env_file, warn=warn), **environment}
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
    # Imported here: most runs need no env file, and the library need not be installed for them.
    from dotenv import dotenv_values

    try:
        text = env_file.read_text(encoding="utf-8-sig")
        readers = _readers_of(env_file.stat())
    except UnicodeDecodeError:
        raise ConfigurationError(f"cannot read {env_file}: it is not UTF-8; save it as UTF-8") from None
    except OSError as error:
        raise ConfigurationError(
            f"cannot read {env_file}: {error.strerror}; check --env-file and the file's permissions"
        ) from error
    # No interpolation: a salt may hold a dollar sign.
    settings = dotenv_values(stream=io.StringIO(text), interpolate=False)
    if SALT in settings and readers:
        warn(_readable_by_others(str(env_file), readers))
    return {name: settings[name] or "" for name in (SALT, SALT_FILE) if name in settings}


def _salt_in(path: str, *, warn: Callable[[str], None]) -> bytes:
    """Return the salt in a file, without the one newline that editors and `echo` put at its end."""
    try:
        with Path(path).open("rb") as file:
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
    return salt.removesuffix(b"\n").removesuffix(b"\r") if salt.endswith(b"\r\n") else salt.removesuffix(b"\n")


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
