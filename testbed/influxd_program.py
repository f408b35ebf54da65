"""Finds an InfluxDB 2 server: a local program, docker, or the project's own build."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from testbed.server_process import NoServer, ServerProgram

#: The version that `influxd/go.mod` pins.
BUILT_VERSION = "2.7.12"

BUILD_SCRIPT = Path(__file__).with_name("influxd") / "build.sh"

DOCKER_IMAGE = "influxdb:2.7"

#: Limit for a program to print its version, and for docker to report its engine, in seconds.
QUESTION_TIMEOUT_S = 15

HOW_TO_GET_ONE = (
    "Set INFLUXD to an influxd 2 program, put one on the PATH (https://docs.influxdata.com/influxdb/v2/install/), "
    f"start docker, or build one, once, in some minutes: {BUILD_SCRIPT} (needs Go 1.25, Rust and gcc)."
)


@dataclass(frozen=True)
class LocalProgram:
    """A local influxd."""

    path: Path
    name: ClassVar[str] = "influxd"
    variables: ClassVar[tuple[str, ...]] = ("INFLUXD_",)

    @property
    def origin(self) -> str:
        """Return its path."""
        return str(self.path)

    def command(self, folder: Path, port: int) -> list[str]:
        """Return the command that serves `folder`."""
        return [str(self.path), *_arguments(str(folder), f"127.0.0.1:{port}")]

    def kill(self, process: subprocess.Popen[bytes], port: int) -> None:
        """SIGKILL the server."""
        process.kill()


@dataclass(frozen=True)
class DockerProgram:
    """The official image, run by a local docker engine. The process is then the docker client's, not the server's."""

    docker: str
    name: ClassVar[str] = "influxd"
    variables: ClassVar[tuple[str, ...]] = ("INFLUXD_",)

    @property
    def origin(self) -> str:
        """Return the image's name."""
        return f"docker image {DOCKER_IMAGE}"

    def command(self, folder: Path, port: int) -> list[str]:
        """Return the command that serves `folder`, as the calling user, who must be able to remove its files."""
        # --init: process 1 has no default signal handling.
        options = ["--rm", "--init", "--name", _container(port), "--entrypoint", "influxd"]
        options += ["--volume", f"{folder}:/data", "--publish", f"127.0.0.1:{port}:8086"]
        if hasattr(os, "getuid"):
            options += ["--user", f"{os.getuid()}:{os.getgid()}"]
        return [self.docker, "run", *options, DOCKER_IMAGE, *_arguments("/data", "0.0.0.0:8086")]

    def kill(self, process: subprocess.Popen[bytes], port: int) -> None:
        """SIGKILL the server. Killing only the client would leave it running."""
        subprocess.run([self.docker, "kill", _container(port)], check=False, capture_output=True)
        process.kill()


def find_influxd(*, build: bool = True, environment: Mapping[str, str] = os.environ) -> ServerProgram:
    """Return the first of: what INFLUXD names, the PATH's influxd, docker's, the one built before, one built now.

    Args:
        build: Whether a build of some minutes is acceptable when nothing else is there.
        environment: Where INFLUXD, PATH, HOME and XDG_CACHE_HOME are looked up.

    Raises:
        NoServer: There is none, and it could not be built, or `build` is False.
    """
    if named := environment.get("INFLUXD"):
        return _named_program(named, environment.get("PATH"))
    on_path = shutil.which("influxd", path=environment.get("PATH"))
    if on_path and _is_version_2(on_path):
        return LocalProgram(Path(on_path))
    docker = shutil.which("docker", path=environment.get("PATH"))
    if docker and _answers([docker, "info", "--format", "{{.ServerVersion}}"]):
        return DockerProgram(docker)
    built = built_path(environment)
    if not built.is_file():
        if not build:
            raise NoServer(f"No InfluxDB 2 server: none on the PATH, no docker engine, none built yet. {HOW_TO_GET_ONE}")
        _build(environment)
    return LocalProgram(built)


def built_path(environment: Mapping[str, str] = os.environ) -> Path:
    """Return where `influxd/build.sh` puts its result."""
    cache = environment.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(cache) / "ecg-anonymizer" / f"influxd-{BUILT_VERSION}" / "influxd"


def _arguments(folder: str, address: str) -> list[str]:
    metadata = ["--bolt-path", f"{folder}/influxd.bolt", "--sqlite-path", f"{folder}/influxd.sqlite"]
    return [*metadata, "--engine-path", f"{folder}/engine", "--http-bind-address", address, "--reporting-disabled"]


def _container(port: int) -> str:
    return f"ecg-anonymizer-influxd-{port}"


def _named_program(name: str, search_path: str | None) -> LocalProgram:
    # If INFLUXD is wrong, no other server may be used silently.
    path = shutil.which(name, path=search_path)
    if not path or not _is_version_2(path):
        raise NoServer(f"INFLUXD={name} is not an InfluxDB 2 server that starts. {HOW_TO_GET_ONE}")
    return LocalProgram(Path(path).resolve())


def _is_version_2(program: str) -> bool:
    # Debian's influxd is version 1, which lacks most of these arguments. An unnamed build reports "dev".
    return _answers([program, "version"], ("InfluxDB v2.", "InfluxDB 2.", "InfluxDB dev"))


def _answers(command: list[str], beginnings: tuple[str, ...] = ("",)) -> bool:
    try:
        answer = subprocess.run(command, check=True, capture_output=True, timeout=QUESTION_TIMEOUT_S)
    except (OSError, subprocess.SubprocessError):
        return False
    return answer.stdout.decode(errors="replace").startswith(beginnings)


def _build(environment: Mapping[str, str]) -> None:
    # Its messages go to the terminal; its one line of output is the path, which is known.
    try:
        subprocess.run(["/bin/sh", str(BUILD_SCRIPT)], check=True, stdout=subprocess.DEVNULL, env=dict(environment))
    except (OSError, subprocess.SubprocessError) as error:
        raise NoServer(f"No InfluxDB 2 server, and building one failed ({error}). {HOW_TO_GET_ONE}") from error


def main() -> int:
    """Print which server the tests will use; build one if there is none. Without one, fail in CI only."""
    try:
        program = find_influxd()
    except NoServer as none:
        print(f"No InfluxDB 2 server: {none}")
        return 1 if os.environ.get("CI") else 0
    print(f"InfluxDB for the tests: {program.origin}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
