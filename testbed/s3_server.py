"""A real S3 server (versitygw) that is thrown away afterwards.

    with start_s3_server() as server:
        server.make_bucket("released")
        server.put("released", "a/b", b"content")
        server.objects("released")

It keeps its objects as files of a folder. It listens on the loopback interface only, and on Linux it ends when the thread that started it
does.
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import obstore
import requests
from obstore.store import S3Store

from testbed.server_process import NoServer, ServerProcess, ThrowawayServer

#: The version that `versitygw/go.mod` pins.
BUILT_VERSION = "1.8.0"

BUILD_SCRIPT = Path(__file__).with_name("versitygw") / "build.sh"

#: The server's default region.
REGION = "us-east-1"

#: The folder beside the buckets in which the server keeps what an object has besides its bytes.
_METADATA = "metadata"
_BUCKETS = "buckets"


@dataclass(frozen=True)
class Versitygw:
    """A versitygw program of this machine, and the keys it is to ask for."""

    path: Path
    access_key: str = ""
    secret_key: str = ""
    is_read_only: bool = False
    name: ClassVar[str] = "versitygw"
    variables: ClassVar[tuple[str, ...]] = ("VGW_", "ROOT_ACCESS_KEY", "ROOT_SECRET")

    @property
    def origin(self) -> str:
        """Return its path."""
        return str(self.path)

    def command(self, folder: Path, port: int) -> list[str]:
        """Return the command that serves the buckets of `folder`."""
        for name in (_BUCKETS, _METADATA):
            (folder / name).mkdir(exist_ok=True)
        keys = ["--access", self.access_key, "--secret", self.secret_key]
        options = ["--port", f"127.0.0.1:{port}", "--region", REGION, "--quiet", "--health", "/health"]
        options += ["--readonly"] if self.is_read_only else []
        # Beside the objects, because extended attributes are not to be had on every file system.
        return [str(self.path), *keys, *options, "posix", "--sidecar", str(folder / _METADATA), str(folder / _BUCKETS)]

    def kill(self, process: subprocess.Popen[bytes], port: int) -> None:
        """SIGKILL the server."""
        process.kill()


class S3Server(ThrowawayServer):
    """A server we started, as its tests see it.

    Args:
        process: The server's.
        access_key: The only key that it knows.
        secret_key: The secret that belongs to it.
    """

    def __init__(self, process: ServerProcess, *, access_key: str, secret_key: str) -> None:
        super().__init__(process)
        self.url = process.url
        self.access_key = access_key
        self.secret_key = secret_key

    def variables(self) -> dict[str, str]:
        """Return the environment with which clients reach it."""
        return {
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_ENDPOINT_URL": self.url,
            "AWS_REGION": REGION,
        }

    def folder_of(self, bucket: str) -> Path:
        """Return the folder that holds the objects of a bucket as files: to look at, not to write to."""
        return self._process.folder / _BUCKETS / bucket

    def make_bucket(self, bucket: str) -> None:
        """Make a bucket. It is a folder; the server takes one that it did not make itself."""
        self.folder_of(bucket).mkdir()

    def remove_bucket(self, bucket: str) -> None:
        """Remove a bucket and all it holds."""
        shutil.rmtree(self.folder_of(bucket))

    def objects(self, bucket: str) -> dict[str, bytes]:
        """Return every object of a bucket by its key: what a reader can get, nothing that was only begun."""
        folder = self.folder_of(bucket)
        # The server writes to a folder of its own first, and renames.
        files = (path for path in folder.rglob("*") if path.is_file() and ".sgwtmp" not in path.parts)
        return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}

    def put(self, bucket: str, key: str, content: bytes) -> None:
        """Store an object, by a signed request."""
        obstore.put(self.store(bucket), key, content, use_multipart=False)

    def store(self, bucket: str) -> S3Store:
        """Return a client of a bucket."""
        return S3Store(
            bucket,
            endpoint=self.url,
            region=REGION,
            access_key_id=self.access_key,
            secret_access_key=self.secret_key,
            virtual_hosted_style_request=False,
            client_options={"allow_http": True},
        )


def start_s3_server(
    folder: Path | None = None, *, port: int = 0, program: Path | None = None, is_read_only: bool = False
) -> S3Server:
    """Start a server without buckets, with keys of its own.

    Args:
        folder: Where its data goes; by default a temporary folder, removed by `stop`.
        port: A loopback port; by default a free one.
        program: Which versitygw; by default the one that `find_versitygw` finds, or builds.
        is_read_only: Whether it refuses to store anything.

    Raises:
        NoServer: There is none, or it did not come up; the message ends with its log.
    """
    access_key, secret_key = secrets.token_hex(8), secrets.token_hex(16)
    chosen = Versitygw(program or find_versitygw(), access_key, secret_key, is_read_only)
    process = ServerProcess(chosen, folder, port=port, is_healthy=_is_healthy)
    server = S3Server(process, access_key=access_key, secret_key=secret_key)
    try:
        process.start()
    except BaseException:
        server.stop()
        raise
    return server


def find_versitygw(*, build: bool = True, environment: Mapping[str, str] = os.environ) -> Path:
    """Return the first of: what VERSITYGW names, the one built before, one built now.

    Args:
        build: Whether a build of some minutes is acceptable.
        environment: Where VERSITYGW, HOME and XDG_CACHE_HOME are looked up.

    Raises:
        NoServer: There is none, and it could not or should not be built.
    """
    if named := environment.get("VERSITYGW"):
        if found := shutil.which(named, path=environment.get("PATH")):
            return Path(found).resolve()
        raise NoServer(f"VERSITYGW={named} is not a program")
    cache = environment.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    built = Path(cache) / "ecg-anonymizer" / f"versitygw-{BUILT_VERSION}" / "versitygw"
    if built.is_file():
        return built
    if not build:
        raise NoServer(
            f"No S3 server: none built yet. Build one, once, in some minutes: make s3-server ({BUILD_SCRIPT}, needs Go 1.25)"
        )
    try:
        subprocess.run(["/bin/sh", str(BUILD_SCRIPT)], check=True, stdout=subprocess.DEVNULL, env=dict(environment))
    except (OSError, subprocess.SubprocessError) as error:
        raise NoServer(f"No S3 server, and building one failed ({error})") from error
    return built


def _is_healthy(url: str) -> bool:
    try:
        return requests.get(f"{url}/health", timeout=5).ok
    except requests.RequestException:
        return False


def main() -> int:
    """Say which S3 server the tests will use; build one where there is none. Without one, fail in CI only."""
    try:
        print(f"S3 for the tests: {find_versitygw()}")
    except NoServer as none:
        print(none)
        return 1 if os.environ.get("CI") else 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
