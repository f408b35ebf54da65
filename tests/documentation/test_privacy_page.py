"""What the page promises is kept, and what it lists is all there is. The attacks it speaks of are carried out in `tests/attacks`."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from anonymizer.batch import Batch
from anonymizer.verify import verify
from outputs import csv_lines, csv_names
from outputs.encoding import summary_of
from outputs.http_api import ApiTarget, HttpApi
from outputs.influxdb import InfluxTarget, encode_rows
from service.settings.load import load
from tests.attacks.recording import KEY, LONE_UV, run, write_recording
from tests.core.plain_anonymizer import PlainSettings
from tests.documentation.pages import PRIVACY, ROOT, names_of_tests_in, table_with, text_of
from tests.documentation.sample import batches_of, together
from tests.servers.api_server import ApiServer


def one_batch() -> Batch:
    """Return the first window of the six records, verified."""
    batch = batches_of(together(), PlainSettings())[0]
    return batch.certified(verify(batch))


def test_a_released_row_is_time_source_and_value_in_every_output(api_server: ApiServer) -> None:
    batch = one_batch()
    as_csv = bytes(csv_lines.encode(batch)).decode().splitlines()
    target = InfluxTarget(bucket="b", measurement="ecg", field="ecg", source_tag="source_id")
    as_lines = encode_rows(batch, target).decode().splitlines()
    HttpApi(ApiTarget(endpoint=api_server.endpoint)).write(batch)
    as_json = [record for body in api_server.stored() for record in body["records"]]

    assert csv_names.HEADER == b"timestamp,source_id,ecg\n"
    assert len(as_csv) == len(as_lines) == len(as_json) == len(batch)
    assert all(re.fullmatch(r"2025-11-03T14:30:0\d\.\d{9}Z,mitbih-\d{3},-?\d+\.0", row) for row in as_csv)
    assert all(re.fullmatch(r"ecg_anonymized,source_id=mitbih-\d{3} ecg=-?\d+\.0 \d{19}", line) for line in as_lines)
    assert all(record.keys() == {"timestamp", "source_id", "ecg"} for record in as_json)


def test_the_page_lists_every_field_of_the_window_summary() -> None:
    section = text_of(PRIVACY).split("**The window summary**")[1].split("No mean")[0]
    listed = [name for cell in re.findall(r"^\| (`.*?) \|", section, re.MULTILINE) for name in re.findall(r"`(\w+)`", cell)]

    assert listed == list(summary_of(one_batch()))


def test_every_claim_and_every_attack_on_the_page_names_its_test() -> None:
    claims = table_with(PRIVACY, "setting", "say", "held by")
    attacks = table_with(PRIVACY, "#", "attack", "naive variant", "here", "carried out by")

    assert [row["setting"] for row in claims if not re.search(r"`test_\w+`", row["held by"])] == []
    assert [row["#"] for row in attacks] == [str(number) for number in range(1, 13)]
    assert [row["#"] for row in attacks if not re.search(r"`test_\w+`", row["carried out by"])] == []


def test_every_file_of_attacks_is_named_on_the_page_by_a_test_of_it() -> None:
    named = names_of_tests_in(PRIVACY)
    for module in sorted((ROOT / "tests" / "attacks").glob("test_*.py")):
        held = set(re.findall(r"^def (test_\w+)", module.read_text(encoding="utf-8"), re.MULTILINE))
        assert held & named, f"PRIVACY.md names no test of {module.name}"


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("IMPUTATION=midpoint", "narrows other rows"),
        ("RESIDUAL=drop", "shows where the R peaks were"),
        ("PSEUDONYMIZE_SOURCE_ID=false", "source ids are released unchanged"),
    ],
)
def test_settings_that_open_an_attack_are_warned_of(tmp_path: Path, setting: str, words: str) -> None:
    name, _, value = setting.partition("=")
    given = {"INFLUX_TOKEN": "t", "INFLUX_ORG": "o", "PSEUDONYMIZE_SOURCE_ID": "true", "PSEUDONYM_SALT": KEY, name: value}

    warnings = load(tmp_path / ".env", given).warnings

    assert [setting in warning and words in warning for warning in warnings] == [True]


def test_the_outside_check_passes_what_was_released_and_finds_what_was_changed(tmp_path: Path) -> None:
    write_recording(tmp_path / "recording.csv")
    assert run(tmp_path)[0] == 0
    (file,) = (tmp_path / "csv").iterdir()
    command = re.findall(r"```sh\npython (scripts/verify_output.py) output/\*.csv (--k 5 --batch-seconds 5)\n", text_of(PRIVACY))
    assert command
    check = [sys.executable, str(ROOT / command[0][0]), str(file), *command[0][1].split()]

    assert subprocess.run(check, capture_output=True, check=False).returncode == 0

    lines = file.read_text(encoding="utf-8").splitlines()
    lines[5] = f"{lines[5].rsplit(',', 1)[0]},{LONE_UV[0]}"
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    assert subprocess.run(check, capture_output=True, check=False).returncode == 1
