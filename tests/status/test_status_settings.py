"""STATUS_ADDRESS and STATUS_TOKEN: loopback for anybody, everything else with a token only, and nothing loaded that was not asked for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from anonymizer.errors import ConfigurationError
from service.settings.load import load
from tests.documentation.pages import ROOT

GIVEN = {"INFLUX_ORG": "ward", "INFLUX_TOKEN": "read-only-token", "PSEUDONYMIZE_SOURCE_ID": "true", "PSEUDONYM_SALT": "0" * 32}


def problems(**settings: str) -> list[str]:
    try:
        load(Path("no.env"), {**GIVEN, **settings})
    except ConfigurationError as error:
        return list(error.problems)
    return []


@pytest.mark.parametrize("address", ["127.0.0.1:9464", "localhost:9464", "[::1]:9464"])
def test_this_machine_may_look_without_a_token(address: str) -> None:
    assert problems(STATUS_ADDRESS=address) == []


@pytest.mark.parametrize("address", ["0.0.0.0:9464", "[::]:9464", "10.0.0.7:9464", "ward-server:9464"])
def test_an_address_that_others_can_reach_needs_a_token_and_is_said_to_be_unencrypted(address: str) -> None:
    (problem,) = problems(STATUS_ADDRESS=address)

    assert problem.startswith(
        f"STATUS_ADDRESS={address} is reachable from other machines and needs STATUS_TOKEN; make one with: "
    )
    assert problems(STATUS_ADDRESS=address, STATUS_TOKEN="0123456789abcdef") == []
    configuration = load(Path("no.env"), {**GIVEN, "STATUS_ADDRESS": address, "STATUS_TOKEN": "0123456789abcdef"})
    assert [one for one in configuration.warnings if f"STATUS_ADDRESS={address} is not encrypted" in one]
    assert not [one for one in load(Path("no.env"), {**GIVEN, "STATUS_ADDRESS": "127.0.0.1:9464"}).warnings if "STATUS" in one]


def test_a_token_that_can_be_guessed_is_refused_and_not_shown() -> None:
    (problem,) = problems(STATUS_ADDRESS="127.0.0.1:9464", STATUS_TOKEN="guess-me")

    assert problem.startswith("STATUS_TOKEN must be at least 16 characters")
    assert "guess-me" not in problem


@pytest.mark.parametrize(
    ("address", "example"),
    [("9464", "127.0.0.1:9464"), ("localhost", "127.0.0.1:9464"), ("http://localhost:9464", "127.0.0.1:9464 or [::1]:9464")],
)
def test_what_is_not_an_address_is_a_mistake_with_an_example(address: str, example: str) -> None:
    assert problems(STATUS_ADDRESS=address) == [
        f"STATUS_ADDRESS must be an address and a port, such as {example}, got {address!r}"
    ]


def test_a_run_from_file_to_csv_loads_nothing_that_it_does_not_use(tmp_path: Path) -> None:
    recording = tmp_path / "recording.csv"
    rows = [f"2025-11-03T14:30:0{index % 5}.{index:03d}Z,{'ab'[index % 2]},{index % 3}" for index in range(60)]
    recording.write_text("\n".join(["timestamp,source_id,ecg", *rows]), encoding="utf-8")
    settings = {
        "INPUT_FILE": recording,
        "OUTPUT_TO_INFLUX": "false",
        "CSV_OUTPUT_DIR": tmp_path / "out",
        "STATE_DIR": tmp_path / "state",
    }
    (tmp_path / ".env").write_text("".join(f"{name}={value}\n" for name, value in settings.items()), encoding="utf-8")
    unused = (
        "asyncio bottle email http.client influxdb_client multiprocessing prometheus_client pyarrow.dataset pydoc recognition "
        "requests service.first_look service.recognition service.retention.sweep service.scale.cluster service.settings.secret_command "
        "service.status.board service.telemetry.fidelity_steps subprocess transport.influx_connection urllib3 waitress"
    )
    program = (
        "import sys; from pathlib import Path; from central_anonymizer import main; from service.process import run\n"
        "def then_tell(arguments):\n"
        "    code = main(['--env-file', *arguments])\n"
        f"    Path({str(tmp_path / 'loaded')!r}).write_text(' '.join(one for one in {unused!r}.split() if one in sys.modules))\n"
        "    return code\n"
        "run(then_tell)"
    )

    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / ".env")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "loaded").read_text(encoding="utf-8") == ""
