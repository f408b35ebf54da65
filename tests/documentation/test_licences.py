"""The page of licences lists what is installed: every distribution, no other, under the terms that each states of itself."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from scripts.audit_offline import ages, answer, locked_versions
from tests.documentation.pages import DOCUMENTATION, ROOT, table_with

LICENCES = DOCUMENTATION / "LICENCES.md"

HERE: dict[str, str] = {name: str(value) for name, value in default_environment().items()} | {"extra": ""}
ON_WINDOWS = {**HERE, "platform_system": "Windows", "sys_platform": "win32", "os_name": "nt"}

#: What a classifier says of every licence that the Open Source Initiative knows; behind it stands the name.
CLASSIFIER = re.compile(r"License :: (?:OSI Approved :: )?(.+)")

#: How numpy's wheel lists what was compiled into it.
PART = re.compile(r"^Name: (?P<name>.+)\n(?:.+\n)*?License: (?P<licence>.+)$", re.MULTILINE)


def direct(file_name: str = "requirements.txt") -> set[str]:
    """Return the names in a file of requirements, without those of another that it begins with."""
    lines = (ROOT / file_name).read_text(encoding="utf-8").splitlines()
    return {canonicalize_name(Requirement(line).name) for line in lines if line and not line.startswith(("#", "-r"))}


@cache
def installed(name: str) -> Distribution | None:
    """Return a distribution, or None if it is not here, such as one that only another system needs."""
    try:
        return distribution(name)
    except PackageNotFoundError:
        return None


def required_by(name: str, environment: Mapping[str, str]) -> set[str]:
    """Return what a distribution asks for, without its extras."""
    found = installed(name)
    requirements = [Requirement(text) for text in (found.requires if found else None) or []]
    return {canonicalize_name(one.name) for one in requirements if not one.marker or one.marker.evaluate(dict(environment))}


def closure(environment: Mapping[str, str], file_name: str = "requirements.txt") -> set[str]:
    """Return everything that a file of requirements brings, directly or not."""
    reached: set[str] = set()
    waiting = direct(file_name)
    while waiting:
        name = waiting.pop()
        reached.add(name)
        waiting |= required_by(name, environment) - reached
    return reached


def stated_licence(found: Distribution) -> str:
    """Return what a distribution states of its licence: the expression, else the short text, else the classifiers."""

    def said(field: str) -> list[str]:
        return [str(text) for text in found.metadata.get_all(field) or []]

    for text in (*said("License-Expression"), *said("License")):
        if text and "\n" not in text:
            return text
    matches = map(CLASSIFIER.fullmatch, said("Classifier"))
    return " AND ".join(match[1] for match in matches if match)


def listed(heading: str) -> dict[str, dict[str, str]]:
    """Return the rows of one of the page's tables of distributions, by name."""
    return {row["distribution"].strip("`"): row for row in table_with(LICENCES, "distribution", "licence", heading)}


def everything_listed() -> dict[str, str]:
    """Return the licence of every distribution on the page."""
    return {name: row["licence"] for name, row in (listed("what for") | listed("brought by")).items()}


def parts_with_own_licence() -> Iterator[tuple[str, str]]:
    """Yield what the licence texts of installed distributions name as compiled in, with its licence."""
    for name in sorted(closure(HERE)):
        found = installed(name)
        for file in (found.files if found else None) or []:
            if re.search(r"\.dist-info/(licenses/)?LICEN[CS]E[^/]*$", str(file)):
                yield from PART.findall(Path(str(file.locate())).read_text(encoding="utf-8"))


def test_the_page_lists_what_is_installed_and_nothing_else() -> None:
    missing = sorted(name for name in closure(HERE) if installed(name) is None)

    assert not missing, f"requirements.txt brings {missing}, which are not installed: make test installs them"
    assert everything_listed().keys() == closure(HERE) | closure(ON_WINDOWS)
    assert listed("what for").keys() == direct()


def test_each_licence_is_the_one_its_distribution_states() -> None:
    found = {name: installed(name) for name in everything_listed()}

    assert {name: stated_licence(one) for name, one in found.items() if one} == {
        name: licence for name, licence in everything_listed().items() if found[name]
    }


def test_what_reads_files_of_the_field_is_listed_under_its_own_licence_and_brings_nothing_else() -> None:
    rows = listed("reads")

    assert rows.keys() == direct("requirements-formats.txt")
    for name, row in rows.items():
        found = installed(name)
        assert found is not None, f"{name} is not installed: make test installs it"
        assert stated_licence(found) == row["licence"]
        assert required_by(name, HERE) <= direct()


def test_what_finds_heartbeats_is_listed_with_all_it_brings() -> None:
    rows = listed("for beats")

    assert rows.keys() == closure(HERE, "requirements-rhythm.txt") - closure(HERE)
    assert {name: stated_licence(found) for name in rows if (found := installed(name))} | {"scipy": "BSD License"} == {
        name: row["licence"] for name, row in rows.items()
    }


def test_what_hands_chunks_to_workers_is_listed_with_all_it_brings() -> None:
    rows = listed("for workers")

    assert direct("requirements-dask.txt") < rows.keys()
    # Newer versions of Python need fewer of them.
    assert closure(HERE, "requirements-dask.txt") - closure(HERE) <= rows.keys()
    for name, row in rows.items():
        assert not (found := installed(name)) or stated_licence(found) == row["licence"]
        assert not re.search(r"GPL|General Public|EUPL|SSPL|CC-BY-SA", row["licence"])


def test_who_is_said_to_bring_a_distribution_asks_for_it() -> None:
    for name, row in listed("brought by").items():
        bringers = re.findall(r"`([\w-]+)`", row["brought by"])
        environment = ON_WINDOWS if "on Windows only" in row["brought by"] else HERE
        assert bringers
        for bringer in bringers:
            assert name in required_by(bringer, environment), f"{bringer} does not ask for {name}"


def test_no_distribution_is_under_a_copyleft_licence_that_reaches_beyond_its_own_files() -> None:
    for name in closure(HERE) | closure(ON_WINDOWS):
        found = installed(name)
        licence = stated_licence(found) if found else everything_listed().get(name, "")
        assert licence, f"{name} does not state a licence"
        assert not re.search(r"GPL|General Public|EUPL|SSPL|CC-BY-SA", licence), f"{name} is under {licence}"


def test_the_two_under_the_mpl_are_named_with_what_that_means() -> None:
    section = LICENCES.read_text(encoding="utf-8").split("## The MPL")[1].split("##")[0]
    under_it = {name for name, licence in everything_listed().items() if re.search(r"MPL|Mozilla", licence)}

    assert under_it == set(re.findall(r"`([\w-]+)`", section))


def test_what_is_compiled_into_a_wheel_under_a_gpl_is_on_the_page() -> None:
    named = {(row["library"], row["licence"]) for row in table_with(LICENCES, "library", "licence", "where")}

    assert {(name, licence) for name, licence in parts_with_own_licence() if "GPL" in licence} <= named


def test_what_lies_in_the_repository_is_there_as_the_page_says() -> None:
    chart, schemas, ecg = table_with(LICENCES, "what", "where", "licence")
    version = re.findall(r"uPlot ([\d.]+)", chart["what"])

    for path in re.findall(r"`([^`]+)`", chart["where"] + schemas["where"] + ecg["where"]):
        assert (ROOT / path).exists()
    assert re.findall(r"\(v([\d.]+)\)", _first_line(ROOT / "service/status/pages/uPlot.iife.min.js")) == version
    assert "The MIT License" in _first_line(ROOT / "service/status/pages/uPlot.LICENSE.txt")
    assert ecg["licence"].split(";")[0] in (ROOT / "examples/mitbih/README.md").read_text(encoding="utf-8")


def test_no_file_of_others_lies_among_the_pages_unsaid() -> None:
    ours = {"index.html", "help.html", "status.css", "status.js"}
    chart, *_ = table_with(LICENCES, "what", "where", "licence")
    said = set(re.findall(r"pages/([\w.]+)", chart["where"] + chart["licence"]))

    assert {file.name for file in (ROOT / "service/status/pages").iterdir()} == ours | said


def _first_line(path: Path) -> str:
    with path.open(encoding="utf-8") as file:
        return file.readline()


def test_the_age_of_everything_that_is_locked_is_on_the_page() -> None:
    known = ages(LICENCES.read_text(encoding="utf-8"))

    assert known.keys() == locked_versions().keys()
    for name, version in locked_versions().items():
        assert Version(known[name].version) >= Version(version), f"{name}: the page knows of no version that is locked"


def test_an_audit_that_asked_nobody_says_so_and_what_is_known_all_the_same() -> None:
    page = "The newest, as of 2026-11.\n| `old` | 1.0 | 2024-10 |\n| `new` | 2.0 | 2026-10 |\n| `gone` | 1.0 | 2001-01 |\n"

    said = answer({"old": "1.0", "new": "1.9", "unlisted": "3"}, page, datetime(2026, 11, 28, tzinfo=UTC))

    assert said[0] == "❔ Not asked, so not known: whether any of the 3 locked distributions has a known vulnerability."
    assert "as of 2026-11" in said[2]
    assert said[3:] == [
        "   - locked with hashes: 3; behind the newest version of that month: new 1.9 (2.0)",
        "   - no release for 24 months: old (2024-10)",
        "   - of unknown age, because the page does not list them: unlisted",
    ]
