"""Says what is known of the locked libraries without asking anybody, and what is not. For `make audit` when no database answers.

Reads the locks and the table of ages in documentation/LICENCES.md; needs Python alone.
"""

from __future__ import annotations

import argparse
import re
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

#: A library without a release for so long may not be maintained.
LONG_MONTHS = 24

ROOT = Path(__file__).resolve().parent.parent

_PINNED = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;]+)", re.MULTILINE)
_ROW = re.compile(r"^\| `([\w-]+)` \| (\d\S*) \| (\d{4})-(\d\d) \|", re.MULTILINE)
_SEEN = re.compile(r"as of (\d{4}-\d\d)")


class Age(NamedTuple):
    """The newest release of a distribution that the page knows."""

    version: str
    year: int
    month: int

    def months_before(self, now: datetime) -> int:
        """Return how many months ago it was."""
        return (now.year - self.year) * 12 + now.month - self.month


def main(arguments: list[str], now: datetime) -> int:
    """Print what is known; return 1, because the question that was asked has no answer."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args(arguments)
    print("\n".join(answer(locked_versions(), (ROOT / "documentation" / "LICENCES.md").read_text(encoding="utf-8"), now)))
    return 1


def locked_versions() -> dict[str, str]:
    """Return the version of every locked distribution."""
    return {
        name: version for lock in sorted(ROOT.glob("requirements*.lock")) for name, version in _PINNED.findall(lock.read_text())
    }


def ages(page: str) -> dict[str, Age]:
    """Return the rows of the page's table of ages."""
    return {name: Age(version, int(year), int(month)) for name, version, year, month in _ROW.findall(page)}


def answer(locked: dict[str, str], page: str, now: datetime) -> list[str]:
    """Return the lines to print."""
    known, seen = ages(page), _SEEN.search(page)
    long_ago = {name: age for name, age in known.items() if name in locked and age.months_before(now) > LONG_MONTHS}
    behind = [
        f"{name} {version} ({known[name].version})"
        for name, version in locked.items()
        if name in known and known[name].version != version
    ]
    unlisted = sorted(locked.keys() - known.keys())
    return [
        f"❔ Not asked, so not known: whether any of the {len(locked)} locked distributions has a known vulnerability.",
        "   Ask where a database can be reached, with the same locks: make audit. Or give your scanner the bill of materials: make release",
        f"   Known without asking, from documentation/LICENCES.md as of {seen[1] if seen else 'an unknown month'}:",
        f"   - locked with hashes: {len(locked)}; behind the newest version of that month: {', '.join(sorted(behind)) or 'none'}",
        f"   - no release for {LONG_MONTHS} months: "
        + (", ".join(f"{name} ({age.year}-{age.month:02})" for name, age in sorted(long_ago.items())) or "none"),
        *([f"   - of unknown age, because the page does not list them: {', '.join(unlisted)}"] if unlisted else []),
    ]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], datetime.now(UTC)))
