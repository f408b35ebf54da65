"""Renders HTML templates: inserted text is escaped, and a missing value is an error instead of a gap.

Importing this module loads Jinja2, so the service imports it only once there is a report to write.
"""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined


def render(template: Path, **values: object) -> str:
    """Return a template filled with values; it may include others of its folder."""
    environment = Environment(
        loader=FileSystemLoader(template.parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(template.name).render(values)
