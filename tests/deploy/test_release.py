"""A release is what a hospital installs from: the same bytes each time, of locked and hashed versions, and it knows what it is."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from scripts.make_release import LOCKS, SMALLEST_LOCK, Locked, locked
from service.version import VERSION
from tests.deploy.command_line_tools import needed, run
from tests.deploy.docker_files import ROOT
from tests.documentation.test_licences import everything_listed

NAME = f"ecg-anonymizer-{VERSION}"


def named_in(requirements: str) -> Iterator[Requirement]:
    """Yield what a file of requirements asks for, with those of the file that it begins with."""
    for line in (ROOT / requirements).read_text(encoding="utf-8").splitlines():
        if line.startswith("-r "):
            yield from named_in(line.removeprefix("-r "))
        elif line and not line.startswith("#"):
            yield Requirement(line)


def in_lock(lock: str) -> dict[str, Locked]:
    return {one.name: one for one in locked((ROOT / lock).read_text(encoding="utf-8"))}


class Clone:
    """A clone with nothing else in it: no environment, no changes that are not committed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.git("clone", "--quiet", str(ROOT), str(folder), cwd=folder.parent)

    def git(self, *arguments: str, cwd: Path | None = None) -> str:
        who = ("-c", "user.name=t", "-c", "user.email=t@example.invalid")
        done = run([needed("git", install_with="apt-get install git"), *who, *arguments], cwd=cwd or self.folder)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def release(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Make a release with no module but the standard library's."""
        return run([sys.executable, "-I", "-S", "-X", "utf8", "scripts/make_release.py", *arguments], cwd=self.folder)

    def files(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in (self.folder / "dist").iterdir()}


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    return Clone(tmp_path_factory.mktemp("release") / "clone")


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="a release is made in a clone")
def test_a_commit_gives_the_same_bytes_each_time_tagged_or_not_and_the_archive_knows_its_commit(
    clone: Clone, tmp_path: Path
) -> None:
    commit = clone.git("rev-parse", "HEAD")
    first = clone.release()
    files = clone.files()
    # Neither a tag, nor what is not committed, nor this machine's git configuration gets into it.
    clone.git("tag", f"v{VERSION}")
    clone.git("config", "tar.umask", "0077")
    (clone.folder / "README.md").write_text("changed", encoding="utf-8")
    (clone.folder / ".env").write_text("INFLUX_TOKEN=secret", encoding="utf-8")
    shutil.rmtree(clone.folder / "dist")
    second = clone.release()

    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    assert clone.files() == files
    assert f"commit {commit} is not tagged v{VERSION}: this is a preview" in first.stdout
    assert "not committed, so they are not in the archive" in second.stdout
    sums = files.pop("SHA256SUMS").decode().splitlines()
    assert sums == [f"{hashlib.sha256(files[line.split()[1]]).hexdigest()}  {line.split()[1]}" for line in sums]
    assert {line.split()[1] for line in sums} == files.keys()
    assert files.keys() == {f"{NAME}.tar.gz", f"{NAME}.cdx.json", *LOCKS}

    with tarfile.open(clone.folder / "dist" / f"{NAME}.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
        kept = {member.name.removeprefix(f"{NAME}/") for member in archive if member.isfile()}
    assert kept == set(clone.git("ls-files").splitlines())
    unpacked = tmp_path / NAME
    said = run([sys.executable, "central_anonymizer.py", "--version"], cwd=unpacked)
    assert said.stdout == f"ECG anonymizer {VERSION}, commit {commit[:12]}\n"
    # An archive is not made from an archive.
    refused = run([sys.executable, "-I", "-X", "utf8", "scripts/make_release.py"], cwd=unpacked)
    assert refused.returncode == 1
    assert "a release is made in a clone of the repository" in refused.stderr


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="a release is made in a clone")
def test_a_tag_of_another_version_is_refused_and_so_is_a_commit_that_is_not_there(clone: Clone) -> None:
    clone.git("checkout", "--quiet", "--force", "HEAD")
    clone.git("commit", "--allow-empty", "--quiet", "--message", "Next")
    clone.git("tag", "v99.0.0")

    wrong, missing = clone.release(), clone.release("--commit", "v98.0.0")

    assert (wrong.returncode, missing.returncode) == (1, 1)
    assert f"is tagged v99.0.0, but service/version.py says {VERSION}" in wrong.stderr
    assert "there is no commit v98.0.0 here" in missing.stderr
    assert "Traceback" not in wrong.stderr + missing.stderr


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="a release is made in a clone")
def test_the_bill_of_materials_lists_every_locked_distribution_with_hashes_licence_and_who_asks_for_it(clone: Clone) -> None:
    bill = json.loads(clone.files()[f"{NAME}.cdx.json"])
    components = {one["name"]: one for one in bill["components"]}
    asks_for = {one["ref"]: one["dependsOn"] for one in bill["dependencies"]}

    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    assert components.keys() == {name for lock in LOCKS for name in in_lock(lock)} | {"uplot"}
    required = {name for name, one in components.items() if one["scope"] == "required"}
    assert required == {*in_lock(SMALLEST_LOCK), "uplot"}
    for name, one in components.items():
        assert one["licenses"], name
        assert name == "uplot" or one["externalReferences"][0]["hashes"], name
        assert name not in everything_listed() or everything_listed()[name] in json.dumps(one["licenses"])
    # Nothing hangs in the air: each is asked for by something, and everything asked for is listed.
    ours = bill["metadata"]["component"]["bom-ref"]
    assert asks_for.keys() == {ours} | {one["bom-ref"] for one in components.values()}
    assert {ref for refs in asks_for.values() for ref in refs} == {one["bom-ref"] for one in components.values()}


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_pins_all_that_is_asked_for_within_its_limits_and_with_hashes(lock: str) -> None:
    pinned = in_lock(lock)
    smallest = in_lock(SMALLEST_LOCK)

    for asked in named_in(lock.replace(".lock", ".txt")):
        assert pinned[canonicalize_name(asked.name)].version in asked.specifier, (
            f"{lock} is older than the requirements: make lock"
        )
    assert all(one.hashes for one in pinned.values())
    assert {name: one.version for name, one in pinned.items() if name in smallest} == {
        name: one.version for name, one in smallest.items()
    }


def test_what_the_tests_run_with_is_what_is_locked() -> None:
    if not (ROOT / ".venv" / "run.stamp").exists():
        pytest.skip("NOT CHECKED: this environment was not made by make, so it may hold any versions")

    found = {}
    for name in in_lock(SMALLEST_LOCK):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue  # for another system only
    assert found == {name: one.version for name, one in in_lock(SMALLEST_LOCK).items() if name in found}


def test_the_newest_heading_of_the_changelog_is_this_version() -> None:
    headings = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)

    assert headings[0] == VERSION
