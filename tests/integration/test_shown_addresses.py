"""A key in an address is sent to the API and shown nowhere else: looked for in everything that a run prints, serves and leaves behind."""

from __future__ import annotations

import contextlib
import time
import urllib.request
from pathlib import Path

import pytest

from service import exit_codes
from tests.integration.service_process import Service, free_address, run_service
from tests.servers.api_server import ApiServer, Reply

KEY = "k3y-of-the-function/"
PAGES = ("/", "/settings.json", "/status.json", "/metrics", "/readyz", "/help")


def recording(folder: Path) -> Path:
    path = folder / "recording.csv"
    rows = [f"2025-11-03T14:30:0{index % 5}.{index:03d}Z,{'ab'[index % 2]},{index % 3}" for index in range(60)]
    path.write_text("\n".join(["timestamp,source_id,ecg", *rows]), encoding="utf-8")
    return path


def served(address: str) -> str:
    """Return what the status page serves on all its addresses, once it does."""
    texts = []
    for page in PAGES:
        for _ in range(1200):
            try:
                with urllib.request.urlopen(f"http://{address}{page}", timeout=60) as answer:
                    texts.append(answer.read().decode())
                break
            except urllib.error.HTTPError as error:
                texts.append(error.read().decode())
                break
            except OSError:
                time.sleep(0.05)
    assert len(texts) == len(PAGES)
    return "".join(texts)


def left_behind(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file() and path.name != ".env")


def test_what_follows_the_question_mark_is_sent_to_the_api_and_shown_nowhere(tmp_path: Path) -> None:
    address = free_address()
    with ApiServer(f"/ecg?code={KEY}") as api:
        api.script(*[Reply(status=503)] * 3, Reply(drop=True), Reply(status=302, headers={"Location": "/elsewhere"}))
        settings = {
            "INPUT_FILE": recording(tmp_path),
            "OUTPUT_TO_INFLUX": "false",
            "OUTPUT_TO_API": "true",
            "API_ENDPOINT": api.endpoint,
            "STATUS_ADDRESS": address,
            "LOG_LEVEL": "DEBUG",
            "RETRY_BUDGET_SECONDS": 60,
        }
        with Service(tmp_path, settings) as service:
            pages = served(address)
            service.process.wait(60)
            log = service.log
        delivered = {one.path for one in api.deliveries()}

    assert delivered == {f"/ecg?code={KEY}"}
    assert f"{api.url}/ecg" in log
    assert f"{api.url}/ecg" in pages
    assert (tmp_path / "state" / "report.html").is_file()
    for place in (log, pages, left_behind(tmp_path).decode("latin-1")):
        assert KEY.rstrip("/") not in place


@pytest.mark.parametrize("form", ["http://u:S@h/x", "http://u:12/S@h", "http://h/x#S", "http://u:S@[h/x", "ftp://h?S"])
def test_an_address_that_cannot_be_used_is_refused_without_its_password_or_key(tmp_path: Path, form: str) -> None:
    secret = "s3cret-of-someone"
    names = ("INFLUX_URL", "INFLUX_OUTPUT_URL", "API_ENDPOINT", "STATUS_ADDRESS")
    settings = {"INFLUX_ORG": "ward", "INFLUX_TOKEN": "token", **dict.fromkeys(names, form.replace("S", secret))}

    code, said = run_service(tmp_path, settings, "--check")

    assert code == exit_codes.CONFIGURATION, said
    assert all(f"{name} must be an address" in said for name in names)
    assert secret not in said
    assert "Traceback" not in said


def test_a_server_whose_address_holds_a_question_mark_is_refused(tmp_path: Path) -> None:
    settings = {"INFLUX_ORG": "ward", "INFLUX_TOKEN": "token", "INFLUX_URL": "http://127.0.0.1:9/?token=s3cret"}
    code, said = run_service(tmp_path, settings, "--check")

    assert code == exit_codes.CONFIGURATION
    assert "INFLUX_URL must be the address of a server, without ?" in said
    assert "s3cret" not in said


def test_a_token_that_goes_unencrypted_to_another_machine_is_warned_of_and_loopback_is_not(tmp_path: Path) -> None:
    settings = {
        "INFLUX_ORG": "ward",
        "INFLUX_TOKEN": "token",
        "OUTPUT_TO_API": "true",
        "API_TOKEN": "token",
        "INFLUX_URL": "http://influxdb.example:8086",
        "INFLUX_OUTPUT_URL": "http://10.0.0.7:8086",
        "API_ENDPOINT": "HTTP://api.example/ecg?code=s3cret",
    }
    _, said = run_service(tmp_path, settings, "--check")

    assert "⚠️ INFLUX_URL=http://influxdb.example:8086 is not encrypted: others on the network can read its token" in said
    assert "⚠️ INFLUX_OUTPUT_URL=http://10.0.0.7:8086 is not encrypted" in said
    assert "⚠️ API_ENDPOINT=HTTP://api.example/ecg is not encrypted: others on the network can read API_TOKEN" in said

    for host in ("localhost", "127.0.0.53", "[::1]"):
        here = {"INFLUX_URL": f"http://{host}:8086", "INFLUX_OUTPUT_URL": "https://x", "API_ENDPOINT": f"http://{host}/ecg"}
        _, said = run_service(tmp_path, {**settings, **here}, "--check")
        assert "not encrypted" not in said
    with contextlib.suppress(FileNotFoundError):
        assert "s3cret" not in left_behind(tmp_path).decode("latin-1")
