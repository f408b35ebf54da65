"""docker-compose.yml against the specification's schema, against Compose itself where there is one, and against our own settings."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from service.settings.declared import KNOWN_NAMES, Settings
from service.settings.load import load
from service.settings.types import parse_address
from tests.deploy.command_line_tools import needed, run
from tests.deploy.compose_file import COMPOSE_FILE, compose, environment_inside, raw_env_file, references, service
from tests.deploy.docker_files import ROOT, environment_of, final_stage, instructions
from tests.deploy.unit_files import seconds

OURS = ("anonymizer", "backfill")

EXAMPLE = raw_env_file((ROOT / ".env.example").read_text(encoding="utf-8"))

#: A filled-in `.env` that also serves programs on the host; those settings must not reach the container.
FILLED_IN = EXAMPLE | {
    "INFLUX_URL": "http://localhost:8086",
    "INFLUX_TOKEN": 'a$b${c}#d"e=',
    "INFLUX_ORG": "ward",
    "INFLUX_OUTPUT_URL": "http://localhost:8086",
    "INFLUX_OUTPUT_TOKEN": "may-only-write",
    "INFLUX_CA_FILE": "/etc/ssl/hospital.pem",
    "INFLUX_VERIFY_TOKEN": "may-read-both",
    "CSV_OUTPUT_DIR": "./output",
    "STATE_DIR": "./state",
    "STREAMING_MODE": "false",
    "INPUT_FILE": "/home/somebody/export.csv",
    "QUERY_START_TIME": "2025-11-03T14:30:00Z",
    "QUERY_END_TIME": "2025-11-03T14:35:00Z",
    "STATUS_ADDRESS": "127.0.0.1:9464",
    "STATUS_TOKEN": "the-token-of-the-status-page",
    "DOCKER_INFLUXDB_INIT_USERNAME": "administrator",
    "DOCKER_INFLUXDB_INIT_PASSWORD": "the-administrators-password",
    "DOCKER_INFLUXDB_INIT_RETENTION": "30d",
}

#: Longer than any window takes to finish after SIGTERM, in seconds.
FINISHING_S = 8


def settings_inside(name: str) -> Settings:
    environment = environment_of(final_stage((ROOT / "Dockerfile").read_text(encoding="utf-8")))
    return load(Path("no.env"), environment | environment_inside(name, FILLED_IN)).settings


@pytest.mark.parametrize("file", [COMPOSE_FILE, ROOT / "deploy" / "docker-compose.influxdb3.yml"], ids=lambda file: file.name)
def test_the_file_follows_the_compose_specification(file: Path) -> None:
    checker = needed("check-jsonschema", install_with="pip install check-jsonschema")

    verdict = run([checker, "--builtin-schema", "vendor.compose-spec", str(file)])

    assert verdict.returncode == 0, verdict.stdout


def test_compose_itself_takes_the_file_and_hands_a_token_on_as_it_stands(tmp_path: Path) -> None:
    compose_command = _compose_or_skip()
    shutil.copy(COMPOSE_FILE, tmp_path)
    (tmp_path / "output").mkdir()
    # Without ${: see documentation/DEPLOYMENT.md.
    token = 'a$b#d "e" =f'
    lines = [f"{name}={value}" for name, value in (FILLED_IN | {"INFLUX_TOKEN": token}).items()]
    (tmp_path / ".env").write_text("\n".join(lines), encoding="utf-8")

    verdict = run(
        [*compose_command, "--profile", "backfill", "--profile", "monitoring", "config", "--format", "json"], cwd=tmp_path
    )

    assert verdict.returncode == 0, verdict.stderr
    services = json.loads(verdict.stdout)["services"]
    assert set(services) == {"anonymizer", "backfill", "influxdb", "prometheus", "grafana"}
    for name in OURS:
        # `config` writes $ as $$, so that what it prints could be read again.
        assert services[name]["environment"]["INFLUX_TOKEN"] == token.replace("$", "$$")
        assert services[name]["environment"]["INFLUX_URL"] == "http://influxdb:8086"


def _compose_or_skip() -> list[str]:
    for command in (["docker", "compose"], ["docker-compose"]):
        try:
            answer = subprocess.run([*command, "version"], capture_output=True, encoding="utf-8", timeout=30, check=True).stdout
        except (OSError, subprocess.SubprocessError):
            continue
        if "Docker Compose version" in answer:
            return command
    pytest.skip("NOT CHECKED: there is no Docker Compose 2 here")


def test_a_start_brings_the_stream_and_the_database_and_a_backfill_only_when_asked_for() -> None:
    by_profile = {name: details.get("profiles", []) for name, details in compose()["services"].items()}

    monitoring = {"prometheus": ["monitoring"], "grafana": ["monitoring"]}
    assert by_profile == {"anonymizer": [], "influxdb": [], "backfill": ["backfill"], **monitoring}


@pytest.mark.parametrize("name", OURS)
def test_every_variable_set_for_the_service_is_a_setting_or_the_databases(name: str) -> None:
    unknown = {variable for variable in service(name)["environment"] if variable not in KNOWN_NAMES}

    assert all(variable.startswith("DOCKER_INFLUXDB_INIT_") for variable in unknown), unknown


@pytest.mark.parametrize("name", OURS)
def test_settings_for_the_host_are_replaced_and_all_others_reach_the_service_unchanged(name: str) -> None:
    settings = settings_inside(name)

    assert (settings.influx_url, settings.influx_output_url, settings.influx_ca_file) == ("http://influxdb:8086", "", "")
    assert (settings.state_dir, settings.csv_output_dir, settings.input_file) == ("/data/state", "/data/output", "")
    assert settings.influx_token.reveal() == FILLED_IN["INFLUX_TOKEN"]
    assert settings.influx_output_token.reveal() == "may-only-write"
    assert settings.influx_org == "ward"
    assert settings.output_file_mode == 0o640, "the group of the folder may read released files"


def test_the_stream_streams_and_restarts_and_the_backfill_does_neither() -> None:
    stream, backfill = settings_inside("anonymizer"), settings_inside("backfill")

    assert (stream.streaming_mode, backfill.streaming_mode) == (True, False)
    assert stream.query_end_time is None
    assert backfill.query_end_time is not None
    assert [service(name)["restart"] for name in OURS] == ["on-failure", "no"]


def test_no_service_is_given_the_secret_of_another() -> None:
    for name in OURS:
        environment = environment_inside(name, FILLED_IN)
        assert not settings_inside(name).influx_verify_token
        assert "the-administrators-password" not in environment.values()
        assert not environment["DOCKER_INFLUXDB_INIT_ADMIN_TOKEN"]
        assert service(name)["env_file"] == [{"path": ".env", "required": True, "format": "raw"}]
    # `.env` holds the service's tokens and the pseudonym key; the database's own tool would take INFLUX_TOKEN for the administrator's.
    for name in ("influxdb", "prometheus", "grafana"):
        assert "env_file" not in service(name)
    assert "secrets" not in service("grafana")
    assert service("grafana")["environment"]["GF_AUTH_ANONYMOUS_ORG_ROLE"] == "Viewer"


def test_no_password_token_or_decision_about_data_has_a_default_and_a_missing_one_is_asked_for_by_name() -> None:
    optional = {name for name, kind, _ in references() if kind != ":?"}
    sentences = {name: sentence for name, kind, sentence in references() if kind == ":?"}

    ports = {"INFLUXDB_PORT", "STATUS_PORT", "PROMETHEUS_PORT", "GRAFANA_PORT"}
    assert optional == {"ANONYMIZER_VERSION", "INFLUX_INPUT_BUCKET", *ports}
    assert all(name in sentence and ".env" in sentence for name, sentence in sentences.items()), sentences


def test_the_database_is_set_up_for_the_organization_and_bucket_the_service_reads() -> None:
    environment = service("influxdb")["environment"]

    assert environment["DOCKER_INFLUXDB_INIT_ORG"].startswith("${INFLUX_ORG:?")
    default = settings_inside("anonymizer").influx_input_bucket
    assert environment["DOCKER_INFLUXDB_INIT_BUCKET"] == f"${{INFLUX_INPUT_BUCKET:-{default}}}"


def test_the_status_page_of_the_stream_asks_for_a_token_and_every_port_reaches_this_machine_only() -> None:
    settings = settings_inside("anonymizer")
    address = parse_address(settings.status_address)

    assert not address.is_loopback, "a container's own loopback cannot be reached from the host"
    assert settings.status_token.reveal() == FILLED_IN["STATUS_TOKEN"]
    assert service("anonymizer")["ports"] == [f"127.0.0.1:${{STATUS_PORT:-9464}}:{address.port}"]
    assert settings_inside("backfill").status_address == ""
    for name, details in compose()["services"].items():
        for port in details.get("ports", []):
            assert port.startswith("127.0.0.1:"), f"{name} publishes {port}"


@pytest.mark.parametrize("name", OURS)
def test_the_service_waits_for_a_database_that_answers_and_a_stop_for_the_window_in_hand(name: str) -> None:
    assert service(name)["depends_on"] == {"influxdb": {"condition": "service_healthy"}}
    assert service("influxdb")["healthcheck"]["test"][0] == "CMD"
    assert service(name)["init"] is True
    assert seconds(service(name)["stop_grace_period"]) > FINISHING_S


@pytest.mark.parametrize("name", OURS)
def test_the_container_has_no_privilege_and_may_write_its_two_folders_only(name: str) -> None:
    details = service(name)

    assert details["read_only"] is True
    assert [path.partition(":")[0] for path in details["tmpfs"]] == ["/tmp"]
    assert [volume["target"] for volume in details["volumes"]] == ["/data/state", "/data/output"]
    assert "cap_add" not in details
    assert "user" not in details, "the image's user owns the folders"
    assert details["ulimits"]["core"] == 0, "a core dump would hold raw samples"
    for shut_in in (details, service("prometheus"), service("grafana")):
        assert shut_in["cap_drop"] == ["ALL"]
        assert "no-new-privileges:true" in shut_in["security_opt"]


def test_both_remember_releases_in_one_folder_of_the_images_user_and_a_missing_output_folder_is_not_made_for_root() -> None:
    states = {json.dumps(service(name)["volumes"][0], sort_keys=True) for name in OURS}
    output = service("anonymizer")["volumes"][1]
    made = [instruction.text for instruction in instructions((ROOT / "Dockerfile").read_text(encoding="utf-8"))]
    (line,) = [text for text in made if "install -d" in text]

    assert len(states) == 1
    assert "install -d -o 10001 -g 10001 -m 0750 /data /data/state /data/output" in line
    assert (output["source"], output["bind"]) == ("./output", {"create_host_path": False})


def test_logs_do_not_fill_the_disk() -> None:
    for details in compose()["services"].values():
        assert set(details["logging"]["options"]) == {"max-size", "max-file"}
