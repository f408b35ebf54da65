"""Where an InfluxDB 1 server comes from: what INFLUXDB1 names, or Debian's package, unpacked into a cache folder and never installed.

An `influxd` of version 1 on the PATH would be taken for one of version 2.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from testbed.server_process import NoServer

#: How long its download may take, in seconds.
_DOWNLOAD_TIMEOUT_S = 120

_CONFIGURATION = """\
reporting-disabled = true
bind-address = "127.0.0.1:0"
[meta]
  dir = "{folder}/meta"
[data]
  dir = "{folder}/data"
  wal-dir = "{folder}/wal"
  query-log-enabled = false
[monitor]
  store-enabled = false
[http]
  bind-address = "127.0.0.1:{port}"
  auth-enabled = true
  log-enabled = false
"""

HOW_TO_GET_ONE = "Set INFLUXDB1 to an influxd of version 1, or have apt-get and dpkg fetch Debian's."


@dataclass(frozen=True)
class LocalProgram1:
    """An influxd of version 1."""

    path: Path
    name: ClassVar[str] = "influxd1"
    variables: ClassVar[tuple[str, ...]] = ("INFLUXDB_",)

    @property
    def origin(self) -> str:
        """Return its path."""
        return str(self.path)

    def command(self, folder: Path, port: int) -> list[str]:
        """Return the command that serves `folder`, with authentication on."""
        configuration = folder / "influxdb.conf"
        configuration.write_text(_CONFIGURATION.format(folder=folder, port=port), encoding="utf-8")
        return [str(self.path), "-config", str(configuration)]

    def kill(self, process: subprocess.Popen[bytes], port: int) -> None:
        """SIGKILL the server."""
        process.kill()


def find_influxd1(environment: Mapping[str, str] = os.environ) -> LocalProgram1:
    """Return what INFLUXDB1 names, or Debian's, downloaded once.

    Raises:
        NoServer: There is none.
    """
    if named := environment.get("INFLUXDB1"):
        if not shutil.which(named):
            raise NoServer(f"INFLUXDB1={named} is not a program. {HOW_TO_GET_ONE}")
        return LocalProgram1(Path(named).resolve())
    program = _cache(environment) / "usr" / "bin" / "influxd"
    if not program.is_file():
        _unpack(_cache(environment))
    return LocalProgram1(program)


def _cache(environment: Mapping[str, str]) -> Path:
    cache = environment.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(cache) / "ecg-anonymizer" / "influxdb-1-debian"


def _unpack(target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        try:
            for command in (["apt-get", "download", "influxdb"], ["dpkg", "-x", "influxdb.deb", "unpacked"]):
                subprocess.run(command, check=True, capture_output=True, cwd=folder, timeout=_DOWNLOAD_TIMEOUT_S)
                for package in Path(folder).glob("influxdb_*.deb"):
                    package.rename(Path(folder) / "influxdb.deb")
        except (OSError, subprocess.SubprocessError) as error:
            raise NoServer(
                f"No InfluxDB 1 server: Debian's cannot be had here ({type(error).__name__}). {HOW_TO_GET_ONE}"
            ) from None
        if not target.exists():
            # Whole, or not there: two test processes may do this at a time.
            Path(folder, "unpacked").rename(target)
