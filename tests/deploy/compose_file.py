"""docker-compose.yml as Compose reads it: anchors followed, `.env` and `environment` put together."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ruamel.yaml import YAML

from tests.deploy.docker_files import ROOT

COMPOSE_FILE = ROOT / "docker-compose.yml"

#: One `${NAME}`, with what follows the name: nothing, `:-` and a default, or `:?` and a sentence.
_REFERENCE = re.compile(r"\$\{([A-Z_0-9]+)(:[-?])?([^}]*)\}")


def compose() -> dict[str, Any]:
    """Return the whole file."""
    loaded: dict[str, Any] = YAML(typ="safe", pure=True).load(COMPOSE_FILE.read_text(encoding="utf-8"))
    return loaded


def service(name: str) -> dict[str, Any]:
    """Return one service."""
    found: dict[str, Any] = compose()["services"][name]
    return found


def references() -> list[tuple[str, str, str]]:
    """Return every variable that Compose fills in: its name, `:-`, `:?` or nothing, and the default or the sentence."""
    code = "\n".join(line for line in COMPOSE_FILE.read_text(encoding="utf-8").splitlines() if not line.lstrip().startswith("#"))
    return _REFERENCE.findall(code)


def environment_inside(name: str, env_file: Mapping[str, str]) -> dict[str, str]:
    """Return the variables a service runs with: all of `.env`, beaten by what the service's `environment` says."""
    said: Mapping[str, str] = service(name)["environment"]
    return {**env_file, **said}


def raw_env_file(text: str) -> dict[str, str]:
    """Read a file as `format: raw` does: nothing is filled in, and quotes and what looks like a comment belong to the value."""
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    return {name: value for name, _, value in (line.partition("=") for line in lines)}
