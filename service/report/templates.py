"""Renders HTML templates: inserted text is escaped, and a missing value is an error instead of a gap.

Importing this module loads Jinja2, so the service imports it only once there is a report to write. Run as a program, it compiles the
report's templates: the last step of an installation whose service may not write to its own folder.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from functools import cache
from importlib.util import cache_from_source
from pathlib import Path

from jinja2 import Environment, FileSystemBytecodeCache, FileSystemLoader, StrictUndefined
from jinja2.bccache import Bucket


def render(template: Path, **values: object) -> str:
    """Return a template filled with values; it may include others of its folder."""
    return environment_of(template.parent).get_template(template.name).render(values)


@cache
def environment_of(folder: Path) -> Environment:
    """Return what reads and compiles the templates of a folder, each once."""
    # Compiled templates are found by their path: whether a link led to them must not matter.
    folder = folder.resolve()
    return Environment(
        loader=FileSystemLoader(folder),
        bytecode_cache=_CompiledTemplates(Path(cache_from_source(str(folder))).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


class _CompiledTemplates(FileSystemBytecodeCache):
    """Compiled templates, kept where Python keeps the compiled modules beside their folder, and like these only if that can be written.

    To compile the report's template costs more than all else about the report.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(str(folder))

    def load_bytecode(self, bucket: Bucket) -> None:
        try:
            super().load_bytecode(bucket)
        except Exception:  # noqa: BLE001  (a file that is damaged or cannot be read is replaced, like a missing one)
            bucket.reset()

    def dump_bytecode(self, bucket: Bucket) -> None:
        if sys.dont_write_bytecode:
            return
        with suppress(OSError):
            Path(self.directory).mkdir(parents=True, exist_ok=True)
            super().dump_bytecode(bucket)


def compile_templates(folder: Path) -> None:
    """Compile all templates of a folder, whatever PYTHONDONTWRITEBYTECODE says, as `python -m compileall` does for modules.

    Raises:
        OSError: The compiled templates cannot be written.
    """
    environment = environment_of(folder)
    assert isinstance(environment.bytecode_cache, FileSystemBytecodeCache)
    # Unlike ours, this one always writes, and fails if it cannot.
    environment.bytecode_cache = FileSystemBytecodeCache(environment.bytecode_cache.directory)
    Path(environment.bytecode_cache.directory).mkdir(parents=True, exist_ok=True)
    for name in environment.list_templates():
        environment.get_template(name)


if __name__ == "__main__":
    try:
        compile_templates(Path(__file__).parent / "template")
    except OSError as error:
        sys.exit(
            f"❌ The report's templates cannot be compiled ({error.strerror}): run this as the owner of the program's folder"
        )
