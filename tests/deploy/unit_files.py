"""systemd's units, read as far as these tests ask about them."""

from __future__ import annotations

from pathlib import Path

from tests.deploy.docker_files import ROOT

STREAMING = ROOT / "deploy" / "ecg-anonymizer.service"
BACKFILL = ROOT / "deploy" / "ecg-anonymizer-backfill.service"
UNITS = (STREAMING, BACKFILL)

#: The streaming unit's form for one cohort of many, whose name stands behind the @.
TEMPLATE = ROOT / "deploy" / "ecg-anonymizer@.service"

#: Where the units expect the project, and its own Python in it.
INSTALLED = "/opt/ecg-anonymizer"


def directives(unit: Path, section: str = "Service") -> dict[str, list[str]]:
    """Return a section's directives; one that stands on several lines has several values."""
    found: dict[str, list[str]] = {}
    current = ""
    for raw in unit.read_text(encoding="utf-8").splitlines():
        line = raw.strip()
        if line.startswith("["):
            current = line.strip("[]")
        elif line and not line.startswith(("#", ";")) and current == section:
            name, _, value = line.partition("=")
            found.setdefault(name, []).append(value)
    return found


def environment(unit: Path) -> dict[str, str]:
    """Return the variables a unit sets, without what systemd would fill in for `%S` and the like."""
    pairs = [pair for line in directives(unit)["Environment"] for pair in line.split()]
    return {name: value for name, _, value in (pair.partition("=") for pair in pairs)}


def seconds(value: str) -> int:
    """Return a span of whole seconds, such as `15s` or `15`."""
    return int(value.removesuffix("s"))
