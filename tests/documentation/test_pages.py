"""What pages point at is there: tests, files, sections, settings."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from service.settings.declared import DECLARED, KNOWN_NAMES
from tests.documentation.pages import (
    DECISIONS,
    PAGES,
    PRIVACY,
    ROOT,
    anchors_in,
    anchors_of,
    links_in,
    links_in_text,
    names_of_tests_in,
    names_of_tests_there_are,
    text_of,
)

#: Stands for the file form of any secret.
ANY_SECRET = "NAME_FILE"

#: Pages with more words than one looks through for a heading.
LONG_PAGES = [page for page in sorted((ROOT / "documentation").glob("*.md")) if len(text_of(page).split()) > 2700]

by_name = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)


@pytest.mark.parametrize(
    "page", sorted([*ROOT.glob("*.md"), *(ROOT / "documentation").rglob("*.md")]), ids=lambda page: page.stem
)
def test_every_test_file_and_section_that_a_page_names_exists(page: Path) -> None:
    files = re.findall(r"`((?:[\w.]+/)+[\w-]+\.(?:py|csv|md|txt))", text_of(page))

    assert not names_of_tests_in(page) - names_of_tests_there_are()
    assert not [file for file in files if not (ROOT / file).exists()]
    for link in links_in(page):
        if link.startswith("https://"):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{page.name} links to {link}"
        assert not anchor or anchor in anchors_of(target), f"{page.name} links to {link}"


@by_name
def test_every_setting_on_a_page_exists_and_may_have_the_value_given(page: Path) -> None:
    for name, value in re.findall(r"\b([A-Z][A-Z]+(?:_[A-Z]+)+)(?:=([\w.]+))?", text_of(page)):
        if name == ANY_SECRET:
            continue
        assert name in KNOWN_NAMES, f"{page.name} names {name}, which is not a setting"
        if value and name in DECLARED and not name.endswith("TOKEN"):
            DECLARED[name].metadata["parse"](value)


@pytest.mark.parametrize("page", DECISIONS, ids=lambda page: page.stem)
def test_every_decision_says_why_what_else_there_was_and_what_follows(page: Path) -> None:
    text = text_of(page)

    assert text.startswith(f"# {page.stem[:3]} ")
    for part in ("**Context.**", "**Decision.**", "**Not chosen.**", "**Consequences.**"):
        assert part in text


def test_decisions_are_numbered_without_a_gap() -> None:
    assert [page.stem[:3] for page in DECISIONS] == [f"{number:03}" for number in range(1, len(DECISIONS) + 1)]


def test_the_index_of_decisions_has_a_row_for_each_with_its_title() -> None:
    rows = [f"| [{page.stem[:3]}]({page.name}) | {text_of(page).splitlines()[0][len('# 000 ') :]} |" for page in DECISIONS]

    assert [line for line in text_of(DECISIONS[0].parent / "README.md").splitlines() if line.startswith("| [")] == rows


@pytest.mark.parametrize("page", LONG_PAGES, ids=lambda page: page.stem)
def test_a_long_page_begins_with_links_to_its_sections(page: Path) -> None:
    beginning, *sections = re.split(r"^## (?=.*$)", text_of(page), flags=re.MULTILINE)
    anchors = {f"#{anchor}" for section in sections for anchor in anchors_in(f"## {section.splitlines()[0]}")}

    assert not anchors - set(links_in_text(beginning))


def test_anonymous_stands_on_the_privacy_page_once_to_say_that_it_must_not_be_said() -> None:
    found = [(page, line) for page in PAGES for line in text_of(page).splitlines() if re.search(r"(?<!k-)\banonymous\b", line)]

    assert [page for page, _ in found] == [PRIVACY]
    assert found[0][1].startswith('Never say "anonymous"')


def test_the_picture_of_the_rooms_shows_every_room_of_the_service() -> None:
    page = (ROOT / "documentation" / "ARCHITECTURE.md").read_text(encoding="utf-8")
    picture = page.partition("## The rooms of the service")[2].split("```")[1]
    modules = [path.relative_to(ROOT / "service") for path in (ROOT / "service").rglob("[!_]*.py")]
    rooms = {path.name if len(path.parts) == 1 else f"{path.parts[0]}/" for path in modules}

    assert set(re.findall(r"[a-z_]+(?:\.py|/)", picture)) == rooms
