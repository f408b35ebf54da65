"""What Docker would make of `.dockerignore` and `Dockerfile`, as far as these two use its rules. No engine is needed to ask."""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

#: Folders that are never part of an image and would take long to walk through.
_NOT_WALKED = frozenset({".git", ".venv", ".mypy_cache", ".ruff_cache", ".hypothesis", ".pytest_cache"})


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction of a Dockerfile, its lines joined."""

    name: str
    text: str

    @property
    def options(self) -> dict[str, str]:
        """Return what stands before the arguments, such as `--from=libraries`."""
        return dict(re.findall(r"(?:^|\s)--([a-z-]+)=(\S+)", self._head()))

    @property
    def words(self) -> list[str]:
        """Return the arguments: of the JSON form as they are in it, else what spaces separate."""
        rest = self.text.removeprefix(self._head()).strip()
        if rest.startswith("["):
            return [str(word) for word in json.loads(rest)]
        return rest.split()

    def _head(self) -> str:
        found = re.match(r"(?:--[a-z-]+=\S+\s+)*", self.text)
        return found.group() if found else ""


def instructions(dockerfile: str) -> list[Instruction]:
    """Return a Dockerfile's instructions in order."""
    lines = [line for line in dockerfile.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    found = []
    for line in joined.splitlines():
        name, _, text = line.strip().partition(" ")
        found.append(Instruction(name.upper(), text.strip()))
    return found


def final_stage(dockerfile: str) -> list[Instruction]:
    """Return the instructions that make the image people run: those from the last FROM on."""
    every = instructions(dockerfile)
    last = max(index for index, instruction in enumerate(every) if instruction.name == "FROM")
    return every[last:]


def environment_of(stage: Iterable[Instruction]) -> dict[str, str]:
    """Return the variables that a stage sets."""
    texts = [instruction.text for instruction in stage if instruction.name == "ENV"]
    return {name: value for text in texts for name, value in re.findall(r'([A-Z_0-9]+)="([^"]*)"', text)}


def is_ignored(path: str, dockerignore: str) -> bool:
    """Return whether `.dockerignore` keeps a path out of what is sent to the engine: the last pattern that fits decides.

    A pattern fits a path if it fits the path or any folder above it. (moby/patternmatcher, MatchesUsingParentResults.)
    """
    parts = path.split("/")
    itself_and_above = ["/".join(parts[:count]) for count in range(1, len(parts) + 1)]
    ignored = False
    for line in dockerignore.splitlines():
        pattern = line.strip()
        if not pattern or line.startswith("#"):
            continue
        keeps = pattern.startswith("!")
        expression = _expression(pattern.removeprefix("!"))
        if any(expression.fullmatch(candidate) for candidate in itself_and_above):
            ignored = not keeps
    return ignored


def _expression(pattern: str) -> re.Pattern[str]:
    cleaned = posixpath.normpath(pattern.strip()).lstrip("/")
    assert not set(cleaned) & set("[\\"), f"this matcher does not know {pattern}"
    pieces = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    found = re.findall(r"\*\*/|\*\*|\*|\?|[^*?]+", cleaned)
    return re.compile("".join(pieces.get(piece, re.escape(piece)) for piece in found))


def context_files(dockerignore: str) -> list[str]:
    """Return every file of the project that would be sent to the engine."""
    return [path for path in _files_below(ROOT) if not is_ignored(path, dockerignore)]


def _files_below(folder: Path) -> Iterator[str]:
    for path in sorted(folder.iterdir()):
        if path.is_dir() and not path.is_symlink():
            if path.name not in _NOT_WALKED:
                yield from _files_below(path)
        else:
            yield path.relative_to(ROOT).as_posix()


def copied_files(stage: Iterable[Instruction], context: Sequence[str]) -> dict[str, str]:
    """Return where in the image each file of the context ends up.

    Raises:
        AssertionError: COPY names something that is not in the context; Docker would refuse to build.
    """
    copied: dict[str, str] = {}
    folder = "/"
    for instruction in stage:
        if instruction.name == "WORKDIR":
            folder = posixpath.join(folder, instruction.text)
        if instruction.name == "COPY" and "from" not in instruction.options:
            copied.update(_copied_by(instruction, folder, context))
    return copied


def _copied_by(instruction: Instruction, folder: str, context: Sequence[str]) -> dict[str, str]:
    *sources, target = instruction.words
    copied = {}
    for source in sources:
        # Of a folder, COPY takes what is in it; of a file, the file.
        below = {path: path.removeprefix(source) for path in context if source.endswith("/") and path.startswith(source)}
        found = below or {path: posixpath.basename(path) for path in context if path == source}
        assert found, f"COPY names {source}, of which nothing is in the context"
        copied.update({path: posixpath.normpath(posixpath.join(folder, target, name)) for path, name in found.items()})
    return copied
