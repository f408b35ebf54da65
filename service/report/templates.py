"""Renders HTML templates: inserted text is escaped, and a missing value is an error instead of a gap.

Importing this module loads Jinja2, so the service imports it only once there is a report to write.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined


def render(template: Path, **values: object) -> str:
    """Return a template filled with values; it may include others of its folder."""
    return environment_of(template.parent).get_template(template.name).render(values)


@cache
def environment_of(folder: Path) -> Environment:
    """Return what reads and compiles the templates of a folder, each once."""
    return Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
