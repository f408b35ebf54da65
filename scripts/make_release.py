"""Makes a release in `dist/`: source archive, locked requirements, bill of materials, checksums. For maintainers: `make release`.

Everything is read from a commit, never from the work tree, so that the same commit gives the same bytes. Needs git and Python alone.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import io
import json
import re
import subprocess
import sys
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent

#: What an installation may be made from, the smallest first.
LOCKS = ("requirements.lock", "requirements-formats.lock", "requirements-rhythm.lock", "requirements-dask.lock")

#: An installation's lock: what the others add is optional.
SMALLEST_LOCK = LOCKS[0]

#: Options that keep this machine's git configuration out of the archive.
_AS_EVERYWHERE = ("-c", "tar.umask=0022", "-c", "core.autocrlf=false", "-c", "core.attributesFile=/dev/null")

_PINNED = re.compile(r"^(?P<name>[A-Za-z0-9._-]+)==(?P<version>[^\s;]+)")
_HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")

#: An SPDX expression; what else a distribution says of its licence is a name.
_SPDX = re.compile(r"(?!BSD$)\(?[A-Za-z0-9.+-]+\)?(?: (?:AND|OR|WITH) \(?[A-Za-z0-9.+-]+\)?)*")


class NoRelease(Exception):
    """Nothing can be released from here; the text says why."""


@dataclass(frozen=True)
class Commit:
    """What is released."""

    sha: str

    def text_of(self, path: str) -> str:
        """Return a file of the commit."""
        return _git("show", f"{self.sha}:{path}").decode()

    @property
    def time(self) -> datetime:
        """The time of the commit."""
        return datetime.fromtimestamp(int(_git("show", "--no-patch", "--format=%ct", self.sha)), UTC)

    @property
    def version(self) -> str:
        """The version, as the program itself says it."""
        found = re.search(r'^VERSION = "(\d+\.\d+\.\d+)"$', self.text_of("service/version.py"), re.MULTILINE)
        if found is None:
            raise NoRelease(f'service/version.py of commit {self.sha} has no line VERSION = "major.minor.patch"')
        return found[1]

    @property
    def tags(self) -> list[str]:
        """The tags of versions on the commit."""
        tags = _git("tag", "--points-at", self.sha).decode().split()
        return [tag for tag in tags if re.fullmatch(r"v\d+\.\d+\.\d+", tag)]


@dataclass
class Locked:
    """One distribution of a lock file."""

    name: str
    version: str
    hashes: list[str] = field(default_factory=list)
    #: Names of what asks for it; a file of requirements is among them as `-r requirements.txt`.
    asked_for_by: list[str] = field(default_factory=list)

    @property
    def reference(self) -> str:
        """Its package URL."""
        return f"pkg:pypi/{self.name}@{self.version}"


def main(arguments: list[str]) -> int:
    """Make the release of a commit; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--commit", default="HEAD", help="what to release (default: HEAD)")
    parser.add_argument("--to", type=Path, default=ROOT / "dist", metavar="FOLDER", help="where to (default: dist)")
    options = parser.parse_args(arguments)
    try:
        commit = _commit(options.commit)
        files = release(commit)
    except NoRelease as error:
        sys.stderr.write(f"❌ {error}\n")
        return 1
    options.to.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (options.to / name).write_bytes(content)
    print("\n".join(f"{hashlib.sha256(content).hexdigest()}  {options.to / name}" for name, content in files.items()))
    for remark in _remarks(commit):
        print(f"⚠️ {remark}")
    return 0


def release(commit: Commit) -> dict[str, bytes]:
    """Return the files of a release by name; the last holds the checksums of the others.

    Raises:
        NoRelease: The commit has no version, lacks a file that a release needs, or is tagged as another version.
    """
    version = commit.version
    if commit.tags and f"v{version}" not in commit.tags:
        raise NoRelease(f"commit {commit.sha} is tagged {', '.join(commit.tags)}, but service/version.py says {version}")
    name = f"ecg-anonymizer-{version}"
    tar = _git(*_AS_EVERYWHERE, "archive", "--format=tar", f"--prefix={name}/", commit.sha)
    locks = {lock: commit.text_of(lock) for lock in LOCKS}
    files = {
        f"{name}.tar.gz": _compressed(tar),
        f"{name}.cdx.json": json.dumps(bill_of_materials(commit, locks), indent=1, ensure_ascii=False).encode() + b"\n",
        **{lock: text.encode() for lock, text in locks.items()},
    }
    return files | {"SHA256SUMS": _checksums(files)}


def _compressed(content: bytes) -> bytes:
    """Return it as gzip, without a time or a name; `gzip.compress` writes another header with Python 3.13 than with 3.12."""
    packed = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", compresslevel=9, fileobj=packed, mtime=0) as file:
        file.write(content)
    return packed.getvalue()


def bill_of_materials(commit: Commit, locks: Mapping[str, str]) -> dict[str, Any]:
    """Return what an installation holds, in the form of CycloneDX 1.6."""
    version, page = commit.version, commit.text_of("documentation/LICENCES.md")
    smallest = {one.name for one in locked(locks[SMALLEST_LOCK])}
    every = {one.name: one for lock in LOCKS for one in locked(locks[lock])}
    asked_for_by: dict[str, set[str]] = {name: set() for name in every}
    for lock in LOCKS:
        for one in locked(locks[lock]):
            asked_for_by[one.name] |= set(one.asked_for_by)
    ours = f"pkg:generic/ecg-anonymizer@{version}"
    chart = _chart(page)
    asks_for: dict[str, list[str]] = {
        ours: [chart["bom-ref"]],
        **{one.reference: [] for one in every.values()},
        chart["bom-ref"]: [],
    }
    for name, askers in asked_for_by.items():
        for asker in askers:
            asks_for[ours if asker.startswith("-r ") else every[asker].reference].append(every[name].reference)
    licences = _licences(page)
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, commit.sha)}",
        "version": 1,
        "metadata": {
            "timestamp": commit.time.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "component": {
                "type": "application",
                "bom-ref": ours,
                "name": "ecg-anonymizer",
                "version": version,
                "licenses": [{"license": {"id": "MIT"}}],
                "purl": ours,
                "properties": [{"name": "commit", "value": commit.sha}],
            },
        },
        "components": [*(_component(every[name], licences.get(name, ""), name in smallest) for name in sorted(every)), chart],
        "dependencies": [{"ref": ref, "dependsOn": sorted(set(on))} for ref, on in sorted(asks_for.items())],
    }


def locked(text: str) -> Iterator[Locked]:
    """Yield the distributions of a lock file, as uv writes it."""
    one, in_via = None, False
    for line in text.splitlines():
        if found := _PINNED.match(line):
            if one:
                yield one
            one, in_via = Locked(found["name"], found["version"]), False
        elif one and (found := _HASH.search(line)):
            one.hashes.append(found[1])
        elif one and line.strip().startswith("# via"):
            in_via = True
            one.asked_for_by += _askers(line.strip().removeprefix("# via"))
        elif one and in_via and line.strip().startswith("#"):
            one.asked_for_by += _askers(line.strip().removeprefix("#"))
    if one:
        yield one


def _askers(text: str) -> list[str]:
    """Return who asks for a distribution; a file of constraints (`-c`) asks for nothing."""
    return [text.strip()] if text.strip() and not text.strip().startswith("-c ") else []


def _component(one: Locked, licence: str, is_required: bool) -> dict[str, Any]:
    return {
        "type": "library",
        "bom-ref": one.reference,
        "name": one.name,
        "version": one.version,
        "scope": "required" if is_required else "optional",
        **({"licenses": [_licence(licence)]} if licence else {}),
        "purl": one.reference,
        "externalReferences": [
            {
                "type": "distribution",
                "url": f"https://pypi.org/project/{one.name}/{one.version}/",
                "hashes": [{"alg": "SHA-256", "content": digest} for digest in one.hashes],
            }
        ],
    }


def _chart(page: str) -> dict[str, Any]:
    """Return the one library whose files lie in the repository."""
    found = re.search(r"^\| uPlot (?P<version>[\d.]+),", page, re.MULTILINE)
    if found is None:
        raise NoRelease("documentation/LICENCES.md names no version of uPlot")
    reference = f"pkg:npm/uplot@{found['version']}"
    return {
        "type": "library",
        "bom-ref": reference,
        "name": "uplot",
        "version": found["version"],
        "scope": "required",
        "licenses": [_licence("MIT")],
        "purl": reference,
    }


def _licence(text: str) -> dict[str, Any]:
    return {"expression": text} if _SPDX.fullmatch(text) else {"license": {"name": text}}


def _licences(page: str) -> dict[str, str]:
    """Return the licence of each distribution that the page of licences lists; its table of ages has a version in that place."""
    return dict(re.findall(r"^\| `([\w-]+)` \| ([A-Za-z][^|]+?) \|", page, re.MULTILINE))


def _checksums(files: Mapping[str, bytes]) -> bytes:
    lines: Iterable[str] = (f"{hashlib.sha256(content).hexdigest()}  {name}\n" for name, content in files.items())
    return "".join(lines).encode()


def _remarks(commit: Commit) -> Iterator[str]:
    if f"v{commit.version}" not in commit.tags:
        yield f"commit {commit.sha} is not tagged v{commit.version}: this is a preview, whose --version names the commit"
    if _git("status", "--porcelain", "--untracked-files=no"):
        yield "the work tree has changes that are not committed, so they are not in the archive"


def _commit(named: str) -> Commit:
    try:
        return Commit(_git("rev-parse", "--verify", "--end-of-options", f"{named}^{{commit}}").decode().strip())
    except NoRelease as error:
        raise NoRelease(f"there is no commit {named} here: a release is made in a clone of the repository ({error})") from None


def _git(*arguments: str) -> bytes:
    try:
        return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, check=True).stdout  # noqa: S603, S607
    except FileNotFoundError:
        raise NoRelease("git is not installed") from None
    except subprocess.CalledProcessError as error:
        raise NoRelease(error.stderr.decode(errors="replace").strip().replace("\n", " ")) from None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
