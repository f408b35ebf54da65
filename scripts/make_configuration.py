"""Write `.env.example` and `documentation/CONFIGURATION.md` from the settings' own declarations: `python scripts/make_configuration.py`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from service.settings import DECLARED, SECRETS  # noqa: E402  (found only once the line above ran)

_ENV_HEAD = """\
# Settings of the central ECG anonymizer. Copy this file to .env, fill in the first block, and keep .env to yourself: chmod 600 .env
# A line that is left out or empty means the default. Environment variables beat this file. Values are taken as they stand: $ and # too.
# What each setting means in full: documentation/CONFIGURATION.md
"""

_PAGE_HEAD = """\
# Configuration

Everything is set in `.env` (`cp .env.example .env`, then `chmod 600 .env`). Environment variables beat `.env`, `.env` beats the defaults
below. Values are taken as they stand: nothing is interpolated, so a token may hold `$`, `#` or `=`. A line that is left out or empty means
the default.

Every setting marked *secret* can be given as a file instead: `NAME_FILE=/path` reads the value from that file, without one trailing line
end. All mistakes are reported at once, with exit code 78. `python central_anonymizer.py --check` only checks; `--check --connect` also
tries servers, buckets and outputs.

This page is written from the code by `python scripts/make_configuration.py`; a test fails when the two disagree.
"""

#: What a newcomer has to fill in: shown without a comment sign.
_FILLED_IN = {"INFLUX_URL": None, "INFLUX_TOKEN": "your-read-token", "INFLUX_ORG": "your-org"}


def env_example() -> str:
    """Return the content of `.env.example`."""
    return _ENV_HEAD + "".join(_env_lines())


def configuration_page() -> str:
    """Return the content of `documentation/CONFIGURATION.md`."""
    return _PAGE_HEAD + "".join(_page_lines())


def _env_lines() -> Iterator[str]:
    for name, field in DECLARED.items():
        meta = field.metadata
        if meta["section"]:
            yield f"\n# {meta['section']} {'-' * (100 - len(meta['section']))}\n"
        yield f"\n# {meta['meaning']}\n"
        value = _FILLED_IN.get(name) or meta["default"]
        yield f"{name}={value}\n"
        if name in SECRETS:
            yield f"# Or, instead, a file that holds it:\n#{name}_FILE=\n"


def _page_lines() -> Iterator[str]:
    for name, field in DECLARED.items():
        meta = field.metadata
        if meta["section"]:
            yield f"\n## {meta['section']}\n\n| setting | default | meaning |\n| --- | --- | --- |\n"
        default = f"`{meta['default']}`" if meta["default"] else "–"
        secret = " *Secret.*" if name in SECRETS else ""
        yield f"| `{name}` | {default} | {meta['meaning'].replace('|', chr(92) + '|')}{secret} |\n"


def main() -> None:
    """Write both files."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    (ROOT / ".env.example").write_text(env_example(), encoding="utf-8")
    (ROOT / "documentation" / "CONFIGURATION.md").write_text(configuration_page(), encoding="utf-8")


if __name__ == "__main__":
    main()
