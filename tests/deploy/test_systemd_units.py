"""The units, by systemd's own judgement where it is installed, and against what the program says of itself."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from service import exit_codes
from service.settings.declared import KNOWN_NAMES
from service.status.systemd import LOOK_EVERY_S
from tests.deploy.command_line_tools import needed, run
from tests.deploy.docker_files import ROOT
from tests.deploy.unit_files import BACKFILL, INSTALLED, STREAMING, TEMPLATE, UNITS, directives, environment, seconds

#: What systemd calls the exposure of a service: 0 is none, 10 all. Ours must not exceed this.
MOST_EXPOSURE = 1.5

#: Errors that a restart cannot fix.
HOPELESS = {exit_codes.USAGE, exit_codes.ANOTHER_INSTANCE, exit_codes.CONFIGURATION}

#: Longer than any window takes to finish after SIGTERM, in seconds.
FINISHING_S = 8

BOTH = pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)


def analyzer() -> str:
    """Return the path of a systemd-analyze that can judge a file, or skip."""
    program = needed("systemd-analyze", install_with="apt-get install systemd")
    version = re.search(r"systemd (\d+)", run([program, "--version"]).stdout)
    if version is None or int(version.group(1)) < 250:
        pytest.skip("NOT CHECKED: systemd-analyze judges files from version 250 on")
    return program


@BOTH
def test_systemd_finds_the_service_well_shut_in(unit: Path) -> None:
    verdict = run([analyzer(), "security", "--offline=true", "--no-pager", str(unit)])

    found = re.search(r"Overall exposure level for \S+: ([\d.]+)", verdict.stdout)
    assert found is not None, verdict.stdout + verdict.stderr
    assert float(found.group(1)) <= MOST_EXPOSURE, verdict.stdout


@BOTH
def test_systemd_understands_every_line(unit: Path, tmp_path: Path) -> None:
    # With the paths of this machine, since it looks whether the program is there.
    text = unit.read_text(encoding="utf-8").replace(f"{INSTALLED}/.venv/bin/python", sys.executable).replace(INSTALLED, str(ROOT))
    copy = tmp_path / unit.name
    copy.write_text(text, encoding="utf-8")

    verdict = run([analyzer(), "verify", "--man=no", str(copy)])

    # A line it does not know is only said, not an error; what it says of the machine's other units is not ours.
    assert not [line for line in verdict.stderr.splitlines() if "ecg-anonymizer" in line]
    assert verdict.returncode == 0, verdict.stderr


@BOTH
def test_what_a_restart_cannot_fix_is_not_restarted_and_a_stop_waits_for_the_window_in_hand(unit: Path) -> None:
    (codes,) = directives(unit)["RestartPreventExitStatus"]

    assert {int(code) for code in codes.split()} == HOPELESS
    assert seconds(directives(unit)["TimeoutStopSec"][0]) > FINISHING_S


def test_the_stream_is_restarted_for_as_long_as_it_takes_and_says_when_it_is_ready_and_that_it_lives() -> None:
    service = directives(STREAMING)

    assert service["Restart"] == ["on-failure"]
    assert directives(STREAMING, "Unit")["StartLimitIntervalSec"] == ["0"]
    # Not so soon that a failing start keeps the machine busy.
    assert seconds(service["RestartSec"][0]) >= 5
    assert (service["Type"], service["NotifyAccess"]) == (["notify"], ["main"])
    # The service notifies well within systemd's watchdog interval, and a loop that hangs is known within two minutes.
    assert 2 * LOOK_EVERY_S < seconds(service["WatchdogSec"][0]) <= 120


def test_a_backfill_runs_once_for_as_long_as_it_takes_and_a_failed_one_is_left_for_people() -> None:
    service = directives(BACKFILL)

    assert (service["Type"], service["Restart"], service["TimeoutStartSec"]) == (["oneshot"], ["no"], ["infinity"])
    assert service["NotifyAccess"] == ["main"], "for its status line"
    # 143 says that a run was stopped before its end: that must not look like success.
    assert "SuccessExitStatus" not in service


@BOTH
def test_a_unit_sets_known_variables_and_secrets_come_from_a_file_the_program_reads_itself(unit: Path) -> None:
    service = directives(unit)

    assert set(environment(unit)) - KNOWN_NAMES == {"PYTHONUTF8", "PYTHONDONTWRITEBYTECODE"}
    assert environment(unit)["STREAMING_MODE"] == ("true" if unit == STREAMING else "false")
    # systemd has other rules for quotes and backslashes.
    assert "EnvironmentFile" not in service
    assert service["ExecStart"][0].endswith(" --env-file /etc/ecg-anonymizer/ecg-anonymizer.env")


def test_the_two_share_their_folders_and_every_line_that_shuts_them_in() -> None:
    # Neither unit may be less restricted than the other, and one state folder is what keeps a window from a second release.
    start = "# What it writes."
    shared = [unit.read_text(encoding="utf-8").partition(start)[2].partition("[Install]")[0].split("\n") for unit in UNITS]
    lines = [[line for line in part if line and not line.startswith("#")] for part in shared]

    assert len(lines[0]) > len("NoNewPrivileges")
    assert lines[0] == lines[1]
    assert environment(STREAMING)["STATE_DIR"] == environment(BACKFILL)["STATE_DIR"]


@BOTH
def test_only_user_and_group_can_read_what_is_written_and_raw_samples_reach_no_core_dump_or_swap(unit: Path) -> None:
    service = directives(unit)
    folders = [environment(unit)[name] for name in ("STATE_DIR", "CSV_OUTPUT_DIR")]

    assert [f"%S/{folder}" for folder in service["StateDirectory"][0].split()] == folders
    assert (environment(unit)["OUTPUT_FILE_MODE"], service["UMask"]) == ("0640", ["0027"])
    assert int(service["StateDirectoryMode"][0], 8) & 0o007 == 0
    assert service["User"] == service["Group"] == ["ecg-anonymizer"]
    assert (service["LimitCORE"], service["MemorySwapMax"]) == (["0"], ["0"])


@BOTH
def test_no_line_is_commented_out(unit: Path) -> None:
    comments = [line for line in unit.read_text(encoding="utf-8").splitlines() if line.startswith(("#", ";"))]

    assert not [line for line in comments if re.match(r"[#;]\s*[A-Z]\w+=", line)]


def test_a_cohorts_unit_is_the_streaming_unit_with_folders_and_a_file_of_its_own(tmp_path: Path) -> None:
    plain, template = STREAMING.read_text(encoding="utf-8"), TEMPLATE.read_text(encoding="utf-8")
    ours = [line for line in template.splitlines() if "%i" in line]

    assert [line.replace("/%i", "").replace(", cohort %i", "") for line in ours if "EnvironmentFile" not in line] == [
        line
        for line in plain.splitlines()
        if line.startswith(("Description=", "Environment=STATE", "Environment=CSV", "StateDirectory=", "LogsDirectory="))
    ]
    without_comments = [line for line in template.splitlines() if "%i" not in line and not line.startswith("#")]
    assert [line for line in plain.splitlines() if line in without_comments] == without_comments
    copy = tmp_path / "ecg-anonymizer@ward-3.service"
    text = template.replace(f"{INSTALLED}/.venv/bin/python", sys.executable).replace(INSTALLED, str(ROOT))
    copy.write_text(text, encoding="utf-8")
    verdict = run([analyzer(), "verify", "--man=no", str(copy)])
    assert not [line for line in verdict.stderr.splitlines() if "ecg-anonymizer" in line]
