"""What a hosting page reads: the workflow, forms, citation, and the page for those who look for weaknesses."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from service.version import VERSION
from tests.deploy.command_line_tools import needed, run
from tests.deploy.docker_files import ROOT
from tests.documentation.pages import names_of_tests_there_are, table_with

WORKFLOW = ROOT / ".github" / "workflows" / "ci.yml"
FORMS = ROOT / ".github" / "ISSUE_TEMPLATE"
SECURITY = ROOT / "SECURITY.md"


def workflow() -> dict[str, Any]:
    loaded: dict[str, Any] = YAML(typ="safe", pure=True).load(WORKFLOW.read_text(encoding="utf-8"))
    return loaded


@pytest.mark.parametrize(
    ("schema", "files"),
    [
        ("github-workflows", [WORKFLOW]),
        ("github-issue-forms", [FORMS / "bug.yml", FORMS / "wish.yml"]),
        ("github-issue-config", [FORMS / "config.yml"]),
        ("citation-file-format", [ROOT / "CITATION.cff"]),
    ],
)
def test_files_for_the_hosting_page_follow_their_schemas(schema: str, files: list[Path]) -> None:
    checker = needed("check-jsonschema", install_with="pip install check-jsonschema")

    options = ["--force-filetype", "yaml", "--default-filetype", "yaml"]
    verdict = run([checker, *options, "--builtin-schema", f"vendor.{schema}", *map(str, files)])

    assert verdict.returncode == 0, verdict.stdout


def test_a_linter_has_nothing_to_say_of_the_workflow() -> None:
    linter = needed("actionlint", install_with="go install github.com/rhysd/actionlint/cmd/actionlint@v1.7.12")

    verdict = run([linter, "-no-color", str(WORKFLOW)])

    assert (verdict.returncode, verdict.stdout) == (0, "")


def test_a_search_for_weaknesses_finds_none_in_the_workflow() -> None:
    linter = needed("zizmor", install_with="pip install zizmor")

    verdict = run([linter, "--offline", "--persona", "pedantic", "--no-progress", "--color", "never", str(WORKFLOW)])

    assert verdict.returncode == 0, verdict.stdout


def test_actions_are_pinned_to_commits_and_no_job_may_write_but_the_release() -> None:
    jobs = workflow()["jobs"]
    used = [step["uses"] for job in jobs.values() for step in job["steps"] if "uses" in step]

    assert used
    assert [one for one in used if not re.fullmatch(r"actions/[\w-]+@[0-9a-f]{40}", one)] == []
    assert workflow()["permissions"] == {}
    writing = {name for name, job in jobs.items() if "write" in job.get("permissions", {}).values()}
    assert writing == {"release"}
    release = jobs["release"]
    # Nothing is released that was not tested, and only of a tag.
    assert set(release["needs"]) == jobs.keys() - {"release"}
    assert release["if"] == "startsWith(github.ref, 'refs/tags/v')"


def test_what_the_workflow_makes_is_in_the_makefile() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    commands = [step["run"] for job in workflow()["jobs"].values() for step in job["steps"] if "run" in step]

    made = set(re.findall(r"\bmake ([a-z-]+)", "\n".join(commands)))
    assert {"audit", "test-containers", "release"} <= made <= targets


def test_each_row_of_the_threat_model_names_what_must_not_happen_and_a_test_of_it() -> None:
    rows = table_with(SECURITY, "who", "reaches", "may", "must not", "held by")

    assert len(rows) >= 12
    for row in rows:
        tests = re.findall(r"`(test_\w+)`", row["held by"])
        assert all(row.values())
        assert tests, f"nothing holds what {row['who']} must not"
        assert set(tests) <= names_of_tests_there_are(), row["who"]


def test_the_citation_names_this_version() -> None:
    assert f"\nversion: {VERSION}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
