"""What the page promises is kept, and the attacks it calls open are carried out: a warning of nothing real would be no use either."""

from __future__ import annotations

import csv
import re
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from anonymizer.batch import Batch
from anonymizer.pseudonyms import Pseudonymizer
from anonymizer.verify import verify
from outputs import csv_files
from outputs.encoding import summary_of
from outputs.http_api import ApiTarget, HttpApi
from outputs.influxdb import InfluxTarget, encode_rows
from service.configuration import load
from tests.core.plain_anonymizer import PlainSettings
from tests.documentation.attacks import downcode, dropped, near_a_beat
from tests.documentation.pages import PRIVACY, ROOT, text_of
from tests.documentation.sample import CLASSIC, alone, batches_of, released_values, together, windows
from tests.integration.service_process import Service
from tests.servers.api_server import ApiServer

KEY = "not-a-key-for-anything-but-tests"

#: Rows that no other resembles; none of these may be found in anything a run writes.
LONE_UV = (1234.5678, -987.654, 2049.25)

IDS = ("canary-wearer-Ä", "canary-wearer-8")

START = "2025-11-03T14:30:0"


def one_batch() -> Batch:
    """Return the first window of the six records, verified."""
    batch = batches_of(together(), PlainSettings())[0]
    return batch.certified(verify(batch))


def write_recording(path: Path, *extra: str) -> None:
    """Write two wearers of fifty alike values each, and three rows that stand alone."""
    rows = [f"{START}{i // 10}.{i % 10}0Z,{name},{value}" for name in IDS for i, value in enumerate([10, 12, 20, 21, 40] * 10)]
    rows += [f"{START}{i}.05Z,{IDS[0]},{value}" for i, value in enumerate(LONE_UV)]
    path.write_text("\n".join(["timestamp,source_id,ecg", *rows, *extra]) + "\n", encoding="utf-8")


def run(folder: Path, **settings: object) -> tuple[int, str]:
    """Run the service on the recording; return exit code and log."""
    with_defaults = {"INPUT_FILE": folder / "recording.csv", "OUTPUT_TO_INFLUX": "false", **settings}
    with Service(folder, with_defaults) as service:
        return service.exit_code(), service.log


def released_in(folder: Path) -> list[list[str]]:
    """Return the rows of all CSV files a run left, without the header."""
    texts = [path.read_text(encoding="utf-8") for path in sorted((folder / "csv").iterdir())]
    return [row for text in texts for row in list(csv.reader(text.splitlines()))[1:]]


# What is promised


def test_a_released_row_is_time_source_and_value_in_every_output(api_server: ApiServer) -> None:
    batch = one_batch()
    as_csv = csv_files.encode(batch).decode().splitlines()
    target = InfluxTarget(bucket="b", measurement="ecg", field="ecg", source_tag="source_id")
    as_lines = encode_rows(batch, target).decode().splitlines()
    HttpApi(ApiTarget(endpoint=api_server.endpoint)).write(batch)
    as_json = [record for body in api_server.stored() for record in body["records"]]

    assert csv_files.HEADER == b"timestamp,source_id,ecg\n"
    assert len(as_csv) == len(as_lines) == len(as_json) == len(batch)
    assert all(re.fullmatch(r"2025-11-03T14:30:0\d\.\d{9}Z,mitbih-\d{3},-?\d+\.0", row) for row in as_csv)
    assert all(re.fullmatch(r"ecg_anonymized,source_id=mitbih-\d{3} ecg=-?\d+\.0 \d{19}", line) for line in as_lines)
    assert all(record.keys() == {"timestamp", "source_id", "ecg"} for record in as_json)


def test_the_page_lists_every_field_of_the_window_summary() -> None:
    section = text_of(PRIVACY).split("**The window summary**")[1].split("No mean")[0]
    listed = [name for cell in re.findall(r"^\| (`.*?) \|", section, re.MULTILINE) for name in re.findall(r"`(\w+)`", cell)]

    assert listed == list(summary_of(one_batch()))


@pytest.mark.parametrize("setting", ["K_UNIT=source", "METHOD=optimal"])
def test_what_is_not_available_is_refused_by_name(tmp_path: Path, setting: str) -> None:
    write_recording(tmp_path / "recording.csv")
    name, _, value = setting.partition("=")

    code, log = run(tmp_path, **{name: value})

    assert code == 78
    assert f"{setting} is not available" in log
    assert setting in text_of(PRIVACY)


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("IMPUTATION=midpoint", "narrows other rows"),
        ("RESIDUAL=drop", "shows where the R peaks were"),
        ("PSEUDONYMIZE_SOURCE_ID=false", "source ids leave as they are"),
    ],
)
def test_settings_that_open_an_attack_are_warned_of(tmp_path: Path, setting: str, words: str) -> None:
    name, _, value = setting.partition("=")
    given = {"INFLUX_TOKEN": "t", "INFLUX_ORG": "o", "PSEUDONYMIZE_SOURCE_ID": "true", "PSEUDONYM_SALT": KEY, name: value}

    warnings = load(tmp_path / ".env", given).warnings

    assert [setting in warning and words in warning for warning in warnings] == [True]


def test_a_run_leaves_no_id_no_key_and_no_lone_value_in_anything_it_writes(tmp_path: Path) -> None:
    write_recording(tmp_path / "recording.csv")
    # An API that nobody answers for: its batches stay in the spool, which must not hold anything either.
    code, log = run(
        tmp_path,
        PSEUDONYMIZE_SOURCE_ID="true",
        PSEUDONYM_SALT=KEY,
        LOG_LEVEL="DEBUG",
        OUTPUT_TO_API="true",
        API_ENDPOINT="http://127.0.0.1:9/",
        API_TOKEN="canary-token",
        RETRY_BUDGET_SECONDS=0,
    )
    assert code == 69, log
    assert {float(row[2]) for row in released_in(tmp_path)} >= {10.0, 20.0, 40.0}

    written = [path for path in tmp_path.rglob("*") if path.is_file() and path.name not in (".env", "recording.csv")]
    assert {path.suffix for path in written} >= {".csv", ".log", ".sqlite", ".spool"}
    secrets = [*(text.encode() for text in (*IDS, KEY, "canary-token")), KEY.encode().hex().encode()]
    for value in LONE_UV:
        secrets += [str(value).encode(), struct.pack("<d", value), struct.pack("<d", round(value)), f",{round(value)}.0".encode()]
    found = [(path.name, secret) for path in written for secret in secrets if secret in path.read_bytes()]
    assert not found


def test_another_key_gives_other_pseudonyms_and_another_key_id(tmp_path: Path) -> None:
    seen: list[set[str]] = []
    for key in (KEY, KEY[::-1]):
        folder = tmp_path / str(len(seen))
        folder.mkdir()
        write_recording(folder / "recording.csv")
        code, _ = run(folder, PSEUDONYMIZE_SOURCE_ID="true", PSEUDONYM_SALT=key)
        assert code == 0
        seen.append({row[1] for row in released_in(folder)})

    assert len(seen[0]) == len(seen[1]) == 2
    assert not seen[0] & seen[1]
    assert Pseudonymizer(KEY.encode()).key_id != Pseudonymizer(KEY[::-1].encode()).key_id


def test_a_changed_key_is_refused_until_it_is_confirmed(tmp_path: Path) -> None:
    write_recording(tmp_path / "recording.csv")
    pseudonyms = {"PSEUDONYMIZE_SOURCE_ID": "true"}
    run(tmp_path, **pseudonyms, PSEUDONYM_SALT=KEY)

    code, log = run(tmp_path, **pseudonyms, PSEUDONYM_SALT=KEY[::-1])
    assert code == 78
    assert "ACCEPT_NEW_PSEUDONYM_KEY=true" in log

    code, _ = run(tmp_path, **pseudonyms, PSEUDONYM_SALT=KEY[::-1], ACCEPT_NEW_PSEUDONYM_KEY="true")
    assert code == 0


def test_a_span_is_released_once_whatever_the_settings_of_the_next_run(tmp_path: Path) -> None:
    write_recording(tmp_path / "recording.csv")
    assert run(tmp_path)[0] == 0
    released = released_in(tmp_path)

    for others in ({}, {"K_VALUE": 10}, {"BATCH_SIZE_SECONDS": 2}, {"DEVICE_FILTER": IDS[1]}, {"RESIDUAL": "drop"}):
        code, log = run(tmp_path, **others)
        assert code == 0, log
        assert "were released before" in log
        assert released_in(tmp_path) == released


def test_the_outside_check_passes_what_was_released_and_finds_what_was_changed(tmp_path: Path) -> None:
    write_recording(tmp_path / "recording.csv")
    assert run(tmp_path)[0] == 0
    (file,) = (tmp_path / "csv").iterdir()
    command = re.findall(
        r"```sh\npython (scripts/verify_output.py) output/\*.csv (--k 5 --batch-seconds 5)\n```", text_of(PRIVACY)
    )
    assert command
    check = [sys.executable, str(ROOT / command[0][0]), str(file), *command[0][1].split()]

    assert subprocess.run(check, capture_output=True, check=False).returncode == 0

    lines = file.read_text(encoding="utf-8").splitlines()
    lines[5] = f"{lines[5].rsplit(',', 1)[0]},{LONE_UV[0]}"
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    assert subprocess.run(check, capture_output=True, check=False).returncode == 1


# What is open


def test_times_leave_as_they_were_measured() -> None:
    released = np.concatenate([batch.times_ns for batch in batches_of(alone()[0], PlainSettings(k=20))])

    assert np.array_equal(released, alone()[0].times_ns)


def test_all_rows_of_a_group_may_have_the_released_value() -> None:
    record = alone()[0]
    before, after = record.values_uv, released_values(record, PlainSettings())
    window = windows().index_of(record.times_ns)
    groups = {(number, value): before[(window == number) & (after == value)] for number in (0, 1) for value in np.unique(after)}

    exact = [rows for (_, value), rows in groups.items() if len(rows) and (rows == value).all()]
    assert exact


def test_whoever_knows_all_rows_of_a_group_but_one_can_work_out_that_one() -> None:
    record = alone()[0]
    after = released_values(record, PlainSettings())
    first_window = windows().index_of(record.times_ns) == 0
    before, after = record.values_uv[first_window], after[first_window]

    for value in np.unique(after):
        *known, unknown = before[after == value]
        n = len(known) + 1
        assert abs(n * value - sum(known) - unknown) <= n / 2


def test_midpoints_narrow_rows_and_are_right_about_them() -> None:
    narrowed = 0
    for record in alone():
        for number, batch in enumerate(batches_of(record, CLASSIC(k=5))):
            raw = record.values_uv[windows().index_of(record.times_ns) == number]
            for value, excluded in downcode(batch.values_uv).excluded.items():
                rows = raw[batch.values_uv == value]
                narrowed += len(rows)
                assert not any(((rows >= low) & (rows <= high)).any() for low, high in excluded)
    assert narrowed


def test_the_midpoint_of_the_example_tells_what_the_page_says() -> None:
    # 7.5 means [4, 11] and 10.5 means [10, 11], which is released too.
    found = downcode(np.array([10.5] * 3 + [7.5] * 3))

    assert found.excluded == {7.5: [(10, 11)]}


def test_dropped_rows_lie_about_the_beats() -> None:
    missing = np.concatenate([dropped(record, PlainSettings(residual="drop")) for record in alone()])
    near = np.concatenate([near_a_beat(record) for record in alone()])

    assert missing[near].mean() > 5 * missing[~near].mean()


def test_two_releases_of_a_window_give_a_late_row_away() -> None:
    group, late = [10.0, 11.0, 13.0, 14.0, 19.0], 17.0
    n, m, m_with_late = len(group), round(np.mean(group)), round(np.mean([*group, late]))

    assert abs((n + 1) * m_with_late - n * m - late) <= n + 0.5


def test_without_its_state_folder_a_span_is_released_again(tmp_path: Path) -> None:
    write_recording(tmp_path / "recording.csv")
    assert run(tmp_path)[0] == 0
    shutil.rmtree(tmp_path / "state")

    code, log = run(tmp_path, K_VALUE=10)

    assert code == 0, log
    assert len(released_in(tmp_path)) > 100
    assert len(list((tmp_path / "csv").iterdir())) == 2
