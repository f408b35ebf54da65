"""The page with the original requirements says of settings, files and log lines what is so."""

from __future__ import annotations

import ast
import re
from functools import cache

import pytest

from service.settings.declared import DECLARED, KNOWN_NAMES
from tests.documentation.pages import DOCUMENTATION, ROOT, text_of

PAGE = DOCUMENTATION / "description.txt"


def section(title: str) -> str:
    """Return the text under one heading."""
    return re.split(r"^\d+\. ", text_of(PAGE).split(f". {title}\n", 1)[1], maxsplit=1, flags=re.MULTILINE)[0]


def test_every_setting_with_a_default_on_the_page_has_that_default() -> None:
    given = re.findall(r"^    ([A-Z][A-Z_]+) +([^\s;]+)", section("CONFIGURATION"), re.MULTILINE)
    with_default = {name: value for name, value in given if value not in ("such", "optional,", "only", "limits")}

    assert len(with_default) == 15
    assert with_default == {name: DECLARED[name].metadata["default"] for name in with_default}


def test_every_setting_on_the_page_exists() -> None:
    named = set(re.findall(r"\b(?:[A-Z]+_)+[A-Z]+\b", text_of(PAGE)))

    assert not named - KNOWN_NAMES


def test_every_file_that_was_asked_for_is_there() -> None:
    listed = [line.strip() for line in section("FILES").splitlines() if line.startswith("    ")]

    assert len(listed) == 15
    assert not [path for path in listed if not (ROOT / path).exists()]
    assert ".env" in (ROOT / ".gitignore").read_text(encoding="utf-8").split()


def log_lines() -> list[str]:
    return [line[4:] for line in section("LOG").splitlines() if line.startswith("    ") and "…" not in line]


@cache
def patterns_in_the_code() -> list[str]:
    """Return a regular expression for every text in the service's code, with anything where a value is filled in."""
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in (ROOT / "service").rglob("*.py")]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    texts = [_pattern(node) for node in nodes if isinstance(node, ast.JoinedStr)]
    texts += [_pattern(ast.JoinedStr([node])) for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    return [text for text in texts if re.search(r"[a-z]{3}", text)]


def _pattern(text: ast.JoinedStr) -> str:
    parts = [part.value if isinstance(part, ast.Constant) and isinstance(part.value, str) else "%s" for part in text.values]
    return ".+".join(map(re.escape, re.split(r"%[sd]", "".join(parts))))


@pytest.mark.parametrize("line", [line for line in log_lines() if set(line) != {"="}])
def test_every_log_line_on_the_page_is_one_that_the_code_prints(line: str) -> None:
    assert [pattern for pattern in patterns_in_the_code() if re.fullmatch(rf"\s*{pattern}", line)]


def test_the_page_is_plain_text_of_lines_that_fit() -> None:
    lines = text_of(PAGE).splitlines()

    assert max(map(len, lines)) <= 88
    assert not [line for line in lines if line.startswith(("#", "|", "```"))]
