"""Unknown names of settings: each is a warning with its line, or an error if it may mean a privacy setting.

`PSEUDONYMISE_SOURCE_ID=true` must not result in the default. A name is shown only if it looks like a setting's: after a misplaced `=`, the
name may be part of a secret.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping

from service.settings.declared import KNOWN_NAMES
from service.settings.env_file import EnvFile

#: Names at least this similar are treated as typos. The threshold is lower in a file, whose names are all meant for the service.
_TYPO_IN_FILE, _TYPO_IN_ENVIRONMENT = 0.8, 0.87

#: Settings that decide what is released, about whom, and that it is released once. Here a default is worse than refusing to start.
_PRIVACY = frozenset(
    {
        *("K_VALUE", "K_UNIT", "BATCH_SIZE_SECONDS", "METHOD", "MAX_LEVEL", "RESIDUAL", "IMPUTATION"),
        *("PSEUDONYMIZE_SOURCE_ID", "PSEUDONYM_SALT", "PSEUDONYM_SALT_FILE", "PSEUDONYM_SALT_COMMAND"),
        *("PSEUDONYM_PURPOSE", "DEVICE_FILTER", "INFLUX_TAG_FILTER", "SOURCE_TAG"),
        *("COHORT_TAG", "COHORT"),
        *("STATE_DIR", "OUTPUT_FILE_MODE", "OUTPUT_TO_CSV", "OUTPUT_TO_INFLUX", "OUTPUT_TO_API"),
    }
)

#: Prefixes of names that can only mean one of those.
_PRIVACY_PREFIXES = ("PSEUDO", "K_", "ANONYM")

#: No other program is known to use variables with this prefix.
_OUR_PREFIX = "PSEUDONYM"

#: Short words that other programs also use as variables.
_COMMON_WORDS = frozenset({"METHOD", "RESIDUAL", "IMPUTATION"})

#: Names in `.env` that other programs use: the heartbeat tools, the compose file and the images it starts.
_FOR_OTHERS = re.compile(
    r"HEART_SALT(_FILE|_COMMAND)?|HEART_ACCEPT_WEAK_SALT|(COMPOSE|DOCKER|GF)_\w+|TZ|ANONYMIZER_VERSION|(STATUS|INFLUXDB|PROMETHEUS|GRAFANA)_PORT|(HTTPS?|NO|ALL)_PROXY",
    re.IGNORECASE,
)

#: A name that may be shown: short, in capitals, without digits.
_SHOWN = re.compile("[A-Z_]{1,40}")


def unknown_names(file: EnvFile, environment: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """Return problems and warnings about names in a file and the environment that are not settings."""
    problems: list[str] = []
    warnings: list[str] = []
    for name in sorted(set(file.values) - KNOWN_NAMES, key=lambda one: file.lines[one]):
        if not _FOR_OTHERS.fullmatch(name):
            meant = _meant(name, _TYPO_IN_FILE)
            sentence = f"{file.at(file.lines[name])} {_is_no_setting(name, meant)}"
            is_mistake = name.upper() in KNOWN_NAMES or _may_be_for_privacy(name, meant)
            (problems if is_mistake else warnings).append(sentence)
    for name in sorted(set(environment) - KNOWN_NAMES - set(file.values)):
        # `docker run --env-file` treats everything before the = as the name: `export K_VALUE`.
        meant = _meant(name.split()[-1] if name.strip() else name, _TYPO_IN_ENVIRONMENT)
        is_ours = name.upper().startswith(_OUR_PREFIX)
        if meant or is_ours:
            sentence = f"in the environment {_is_no_setting(name, meant)}"
            (problems if is_ours or meant in _PRIVACY - _COMMON_WORDS else warnings).append(sentence)
    return problems, warnings


def _meant(name: str, similarity: float) -> str:
    """Return the setting that was probably meant; empty if there is none."""
    return next(iter(difflib.get_close_matches(name.upper(), sorted(KNOWN_NAMES), n=1, cutoff=similarity)), "")


def _may_be_for_privacy(name: str, meant: str) -> bool:
    return meant in _PRIVACY or (not meant and (name.upper() == "K" or name.upper().startswith(_PRIVACY_PREFIXES)))


def _is_no_setting(name: str, meant: str) -> str:
    shown = name if meant and _SHOWN.fullmatch(name) else "a name"
    return f"{shown} is not a setting" + (f"; did you mean {meant}?" if meant else "; see .env.example")
