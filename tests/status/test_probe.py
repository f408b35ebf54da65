"""`--health`: the running service asked from the command line, as a container's health check does."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.settings.types import Secret, StatusAddress
from service.status.probe import why_not_ready
from tests.documentation.pages import ROOT
from tests.servers.socket_server import Serve
from tests.status import states
from tests.status.test_web import TOKEN, Served


@pytest.fixture
def served() -> Iterator[Served]:
    served = Served(token=TOKEN, host="0.0.0.0")
    yield served
    served.server.close()


def health(folder: Path, port: int, token: str = TOKEN) -> tuple[int, str]:
    settings = {"INFLUX_ORG": "o", "INFLUX_TOKEN": "t", "STATUS_ADDRESS": f"0.0.0.0:{port}", "STATUS_TOKEN": token}
    (folder / ".env").write_text("".join(f"{name}={value}\n" for name, value in settings.items()), encoding="utf-8")
    command = [sys.executable, str(ROOT / "central_anonymizer.py"), "--health"]
    done = subprocess.run(
        command, cwd=folder, env={"PYTHONUTF8": "1"}, capture_output=True, text=True, encoding="utf-8", check=False
    )
    return done.returncode, done.stdout


def test_a_service_that_goes_well_is_healthy_and_one_that_does_not_says_why(served: Served, tmp_path: Path) -> None:
    assert health(tmp_path, served.server.port) == (0, "✅ Data flows\n")

    served.snapshot = states.one_output_down()
    code, said = health(tmp_path, served.server.port)
    assert code == 1
    assert said.startswith(f"❌ {states.API} has taken nothing since 14:28:25 UTC")


def test_a_wrong_token_is_not_healthy(served: Served, tmp_path: Path) -> None:
    code, said = health(tmp_path, served.server.port, token="another-token-of-some-length")

    assert (code, said) == (1, f"❌ STATUS_ADDRESS=0.0.0.0:{served.server.port} answered 401 Unauthorized\n")


def test_a_server_that_answers_something_else_is_not_the_service(serve: Serve) -> None:
    port = int(serve([b"not http at all\r\n\r\n"]).url.rpartition(":")[2])

    (reason,) = why_not_ready(StatusAddress("127.0.0.1", port), Secret(""))

    assert "does not answer" in reason
