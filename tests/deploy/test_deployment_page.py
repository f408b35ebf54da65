"""documentation/DEPLOYMENT.md is typed in by people who trust it: what it names must be there, and mean what it says."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

import pytest

from service import exit_codes
from service.settings.declared import KNOWN_NAMES
from tests.deploy.command_line_tools import needed, run
from tests.deploy.compose_file import references
from tests.deploy.docker_files import ROOT
from tests.deploy.unit_files import STREAMING, directives

PAGE = (ROOT / "documentation" / "DEPLOYMENT.md").read_text(encoding="utf-8")

#: What is written in capitals with underscores and is neither a setting nor one of Compose's variables.
OTHERS = {"PYTHONUTF8", "PYTHONDONTWRITEBYTECODE", "SERVICE_AUTO_START", "ECG_ANONYMIZER_ENV_FILE"}

#: The codes the program ends with, by its own account.
CODES = {value for name, value in vars(exit_codes).items() if name.isupper()}

#: 128 and SIGKILL: not the program's, but what a supervisor sees.
KILLED = 137


def blocks(language: str) -> list[str]:
    """Return what stands in the page's fenced blocks of a language."""
    found = re.findall(rf"^( *)```{language}\n(.*?)^ *```", PAGE, flags=re.MULTILINE | re.DOTALL)
    return [textwrap.dedent(body) for _, body in found]


def exit_code_rows() -> dict[int, str]:
    """Return the table's rows by code."""
    rows = re.findall(r"^\| ([\d, ]+) \|(.*)\|$", PAGE, flags=re.MULTILINE)
    return {int(code): row for codes, row in rows for code in codes.split(",")}


def test_every_setting_it_names_exists() -> None:
    named = set(re.findall(r"\b[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+\b", PAGE))
    compose = {name for name, _, _ in references()}

    assert named <= KNOWN_NAMES | compose | OTHERS


def test_every_variable_compose_asks_for_is_explained() -> None:
    assert not [name for name, kind, _ in references() if kind == ":?" and name not in PAGE]


def test_every_exit_code_is_in_the_table() -> None:
    assert set(exit_code_rows()) == CODES | {KILLED}


def test_the_table_says_what_the_unit_does() -> None:
    (line,) = directives(STREAMING)["RestartPreventExitStatus"]
    stays_failed = {code for code, row in exit_code_rows().items() if "**stays failed**" in row}

    assert stays_failed == {int(code) for code in line.split()}


def test_windows_leaves_alone_what_systemd_leaves_alone() -> None:
    (line,) = directives(STREAMING)["RestartPreventExitStatus"]

    kept = set(re.findall(r"AppExit (\d+) Exit", PAGE))
    assert kept == {"0", *line.split()}


def test_every_file_of_the_project_it_names_is_there() -> None:
    named = set(re.findall(r"(?:deploy/|documentation/)[\w.@-]+|(?<=\]\()[\w.-]+\.md", PAGE))

    assert named
    assert not [name for name in named if not ((ROOT / name).exists() or (ROOT / "documentation" / name).exists())]


@pytest.mark.parametrize("block", blocks("yaml"))
def test_what_it_adds_to_the_compose_file_follows_the_specification(block: str, tmp_path: Path) -> None:
    checker = needed("check-jsonschema", install_with="pip install check-jsonschema")
    override = tmp_path / "docker-compose.override.yml"
    override.write_text(block, encoding="utf-8")

    verdict = run([checker, "--builtin-schema", "vendor.compose-spec", str(override)])

    assert verdict.returncode == 0, verdict.stdout


@pytest.mark.parametrize("block", blocks("ini"))
def test_what_it_adds_to_the_units_is_understood_by_systemd(block: str, tmp_path: Path) -> None:
    analyzer = needed("systemd-analyze", install_with="apt-get install systemd")
    unit = tmp_path / "ecg-anonymizer.service"
    unit.write_text(block + "ExecStart=/bin/true\n", encoding="utf-8")

    verdict = run([analyzer, "verify", "--man=no", str(unit)])

    assert not [line for line in verdict.stderr.splitlines() if "ecg-anonymizer" in line]


@pytest.mark.parametrize("block", blocks("sh"))
def test_every_command_is_one_a_shell_can_read(block: str) -> None:
    shell = needed("bash", install_with="run this on Linux")

    verdict = run([shell, "-n"], said=block.replace("<project>", "project"))

    assert verdict.returncode == 0, verdict.stderr


def test_each_installation_compiles_modules_and_templates_and_lets_the_services_user_read_both() -> None:
    installing = [block for block in [*blocks("sh"), *blocks("powershell")] if "--only-binary" in block and "-m venv" in block]

    assert len(installing) == 4, "the first and a newer version, with systemd and on Windows"
    for block in installing:
        modules, templates = block.index("-m compileall"), re.search(r"service.report.templates\.py", block)
        assert templates is not None
        assert modules < templates.start()
        # Jinja2 writes its files for their owner alone.
        assert "sudo" not in block or templates.start() < block.index("chmod -R a+rX")
