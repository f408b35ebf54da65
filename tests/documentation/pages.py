"""Reads documentation pages, so that tests can compare what they say with what the code does."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTATION = ROOT / "documentation"

ALGORITHM = DOCUMENTATION / "ALGORITHM.md"
PRIVACY = DOCUMENTATION / "PRIVACY.md"
UTILITY = DOCUMENTATION / "UTILITY.md"
DECISIONS = sorted((DOCUMENTATION / "decisions").glob("[0-9]*.md"))

#: The pages that these tests answer for.
PAGES = [ALGORITHM, PRIVACY, UTILITY, *DECISIONS]

Table = list[dict[str, str]]


def text_of(page: Path) -> str:
    """Return a page's text."""
    return page.read_text(encoding="utf-8")


def table_with(page: Path, *headings: str) -> Table:
    """Return the rows of the one table that begins with these headings, each as heading → cell."""
    (found,) = [table for table in _tables(text_of(page)) if table[0][: len(headings)] == list(headings)]
    return [dict(zip(found[0], row, strict=True)) for row in found[2:]]


def rows_with(page: Path, heading: str) -> Table:
    """Return the rows of all tables that begin with a heading, in order, each as heading → cell."""
    found = [table for table in _tables(text_of(page)) if table[0][0] == heading]
    assert found, f"{page.name} has no table that begins with {heading}"
    return [dict(zip(table[0], row, strict=True)) for table in found for row in table[2:]]


def number(cell: str) -> float:
    """Return the number in a cell that is written for people: `−7.25`, `1,800`."""
    return float(cell.replace("−", "-").replace(",", ""))


def numbers(cell: str) -> list[float]:
    """Return all numbers in a cell, in order; commas with a space separate them."""
    return [number(found) for found in re.findall(r"−?\d[\d.]*(?:,\d{3})*", cell)]


def names_of_tests_in(page: Path) -> set[str]:
    """Return the names of tests that a page mentions."""
    return set(re.findall(r"`(test_[a-z0-9_]+)`", text_of(page)))


@cache
def names_of_tests_there_are() -> set[str]:
    """Return the names of all test functions of the project."""
    trees = (ast.parse(module.read_text(encoding="utf-8")) for module in (ROOT / "tests").rglob("test_*.py"))
    return {
        node.name for tree in trees for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name[:5] == "test_"
    }


def links_in(page: Path) -> Iterator[str]:
    """Yield the targets of a page's links."""
    yield from links_in_text(text_of(page))


def links_in_text(text: str) -> list[str]:
    """Return the targets of a text's links."""
    return re.findall(r"\]\(([^)\s]+)\)", text)


def anchors_of(page: Path) -> set[str]:
    """Return what headings of a page can be linked to as, by GitHub's rule."""
    return anchors_in(text_of(page))


def anchors_in(text: str) -> set[str]:
    """Return what headings in a text can be linked to as, by GitHub's rule."""
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def _tables(text: str) -> Iterator[list[list[str]]]:
    for block in re.findall(r"(?:^\|.*\|$\n?)+", text, re.MULTILINE):
        yield [[cell.strip() for cell in line.strip("|").split("|")] for line in block.splitlines()]
