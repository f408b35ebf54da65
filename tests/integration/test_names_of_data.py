"""One bucket is one data set and one output, whether it is given by its name or its id, and whatever a token may see of it."""

from __future__ import annotations

import contextlib
import json
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from service import exit_codes
from testbed.influxdb_server import InfluxServer
from tests.integration.clinic import Clinic
from tests.integration.service_process import run_service
from tests.servers.api_server import Reply
from tests.servers.http_proxy import HttpProxy

pytestmark = pytest.mark.influxdb

ROWS = 20
#: What the server answers to a token that may see no bucket.
NO_BUCKETS = Reply(status=200, body=json.dumps({"links": {}, "buckets": []}), headers={"Content-Type": "application/json"})


def moment(second: int) -> str:
    return f"2025-11-03T14:30:{second:02d}Z"


def window(second: int) -> dict[str, object]:
    """Return the settings for a run over one window."""
    return {"QUERY_START_TIME": moment(second), "QUERY_END_TIME": moment(second + 5)}


@pytest.fixture
def filled(clinic: Clinic) -> Clinic:
    """A clinic with three windows of rows."""
    clinic.fill(ROWS, seconds=(0, 5, 10))
    return clinic


def facts(folder: Path) -> dict[str, str]:
    with contextlib.closing(sqlite3.connect(folder / "state" / "journal.sqlite")) as db:
        return dict(db.execute("SELECT name, value FROM facts"))


def outputs(folder: Path) -> list[str]:
    with contextlib.closing(sqlite3.connect(folder / "state" / "journal.sqlite")) as db:
        return [name for (name,) in db.execute("SELECT name FROM outputs ORDER BY name")]


def labels(clinic: Clinic) -> set[str]:
    """Return what the data set is called in the batch ids that the output bucket holds."""
    flux = f'from(bucket: "{clinic.released}") |> range(start: 0) |> filter(fn: (r) => r._field == "batch_id")'
    return {row["_value"].split("-")[0] for row in clinic.server.rows(flux)}


def reading_both(clinic: Clinic) -> str:
    return clinic.server.make_token(read=[clinic.raw, clinic.released])


def test_a_bucket_by_its_id_is_the_bucket_by_its_name_in_data_set_output_and_check(filled: Clinic, tmp_path: Path) -> None:
    ids = {"INFLUX_INPUT_BUCKET": filled.server.bucket_id(filled.raw), "INFLUX_ORG": filled.server.org_id()}
    ids["INFLUX_OUTPUT_BUCKET"] = filled.server.bucket_id(filled.released).upper()
    verified = {**filled.settings, "INFLUX_VERIFY_TOKEN": reading_both(filled)}

    by_name = run_service(tmp_path, {**verified, **window(0)})
    known, named = facts(tmp_path), outputs(tmp_path)
    by_id = run_service(tmp_path, {**verified, **ids, **window(5)})

    assert (by_name[0], by_id[0]) == (0, 0), by_name[1] + by_id[1]
    assert f"INFLUX_OUTPUT_BUCKET={ids['INFLUX_OUTPUT_BUCKET']} is bucket '{filled.released}'" in by_id[1]
    assert (facts(tmp_path)["data_set"], outputs(tmp_path)) == (known["data_set"], named)
    assert len(filled.stored()) == 2 * ROWS
    assert len(labels(filled)) == 1

    shutil.rmtree(tmp_path / "state")
    code, log = run_service(tmp_path, {**verified, **ids, **window(0)})

    assert code == exit_codes.CONFIGURATION, log
    assert "that STATE_DIR knows nothing of" in log
    assert len(filled.stored()) == 2 * ROWS


@pytest.mark.parametrize("setting", ["INFLUX_OUTPUT_BUCKET", "INFLUX_INPUT_BUCKET"])
@pytest.mark.parametrize("of", ["a bucket that the token may not look up", "no bucket"])
def test_sixteen_hexadecimal_digits_that_no_token_can_look_up_are_refused(
    setting: str, of: str, filled: Clinic, tmp_path: Path
) -> None:
    # The token that reads may not see the output bucket, and the one that writes sees no bucket at all.
    given = filled.server.bucket_id(filled.released) if of != "no bucket" else "0" * 15 + "1"
    code, log = run_service(tmp_path, {**filled.settings, **window(0), setting: given})

    assert code == exit_codes.CONFIGURATION, log
    assert f"{setting}={given} looks like the id of a bucket" in log
    assert f"set {setting} to the bucket's name" in log
    assert filled.stored() == {}


@pytest.fixture
def hexadecimal(filled: Clinic) -> Iterator[str]:
    """The name of a bucket that looks like an id, and is none."""
    name = "feedfacecafebeef"
    bucket_id = filled.server.make_bucket(name)
    yield name
    filled.server.ask("DELETE", f"/api/v2/buckets/{bucket_id}")


def test_a_bucket_with_a_name_like_an_id_is_used_by_who_may_see_it_and_refused_to_others(
    filled: Clinic, hexadecimal: str, tmp_path: Path
) -> None:
    server: InfluxServer = filled.server
    settings = {**filled.settings, **window(0), "INFLUX_OUTPUT_BUCKET": hexadecimal}
    settings["INFLUX_OUTPUT_TOKEN"] = server.make_token(write=[hexadecimal])

    blind = run_service(tmp_path, settings)
    seeing = run_service(tmp_path, {**settings, "INFLUX_VERIFY_TOKEN": server.make_token(read=[hexadecimal])})

    assert (blind[0], seeing[0]) == (exit_codes.CONFIGURATION, exit_codes.DONE), blind[1] + seeing[1]
    assert server.count(hexadecimal, measurement="ecg_anonymized") == ROWS


def test_a_first_start_that_cannot_compare_warns_and_names_the_setting_and_a_later_one_does_not(
    filled: Clinic, tmp_path: Path
) -> None:
    warning = "STATE_DIR knows of no release, and this token cannot read bucket"
    _, first = run_service(tmp_path, {**filled.settings, **window(0)})
    _, later = run_service(tmp_path, {**filled.settings, **window(5)})
    shutil.rmtree(tmp_path / "state")
    missing = {**filled.settings, **window(10), "INFLUX_OUTPUT_BUCKET": "nowhere"}
    code, nowhere = run_service(tmp_path, {**missing, "INFLUX_VERIFY_TOKEN": reading_both(filled)})

    assert f"WARNING - ⚠️ {warning}" in first
    assert "Set INFLUX_VERIFY_TOKEN" in first
    assert warning not in later
    assert "INFO - This token cannot read bucket" in later
    assert "INFO - Bucket 'nowhere' does not exist" in nowhere
    assert warning not in nowhere
    assert code == exit_codes.CONFIGURATION, nowhere


def test_a_token_that_may_see_more_or_less_of_a_bucket_leaves_the_data_set_and_its_label_as_they_were(
    filled: Clinic, tmp_path: Path
) -> None:
    with HttpProxy(filled.server.url) as proxy:
        settings = {**filled.settings, "INFLUX_URL": proxy.url, "INFLUX_OUTPUT_URL": filled.server.url}
        runs = []
        for second, sees in ((0, False), (5, True), (10, False)):
            proxy.pass_all()
            if not sees:
                proxy.answer_always(NO_BUCKETS, to="/api/v2/buckets")
            runs.append(run_service(tmp_path, {**settings, **window(second)}))
        proxy.pass_all()
        shutil.rmtree(tmp_path / "state")
        # Its journal would call the data set by the bucket's id; what is out there is called by the address.
        lost = run_service(tmp_path, {**settings, **window(0), "INFLUX_VERIFY_TOKEN": reading_both(filled)})

    assert [code for code, _ in runs] == [0, 0, 0], runs
    assert "but not look it up: its retention" in runs[0][1]
    assert "but not look it up" not in runs[1][1]
    assert len(filled.stored()) == 3 * ROWS
    assert len(labels(filled)) == 1
    assert lost[0] == exit_codes.CONFIGURATION, lost[1]
    assert "that STATE_DIR knows nothing of" in lost[1]


def test_another_bucket_of_the_same_name_is_another_data_set(filled: Clinic, tmp_path: Path) -> None:
    assert run_service(tmp_path, {**filled.settings, **window(0)})[0] == 0
    filled.server.ask("DELETE", f"/api/v2/buckets/{filled.server.bucket_id(filled.raw)}")
    filled.server.make_bucket(filled.raw)
    code, log = run_service(
        tmp_path, {**filled.settings, **window(5), "INFLUX_TOKEN": filled.server.make_token(read=[filled.raw])}
    )

    assert code == exit_codes.CONFIGURATION, log
    assert "belongs to another data set" in log


def test_a_window_of_hours_that_began_long_before_is_not_released_again_in_part(clinic: Clinic, tmp_path: Path) -> None:
    clinic.fill(ROWS, seconds=(-3 * 3600, 0))
    settings = {**clinic.settings, "OUTPUT_TO_CSV": "false", "INFLUX_VERIFY_TOKEN": reading_both(clinic)}
    one_day = {"BATCH_SIZE_SECONDS": 86_400, "QUERY_START_TIME": "2025-11-03T00:00:00Z", "QUERY_END_TIME": "2025-11-04T00:00:00Z"}
    code, said = run_service(tmp_path, {**settings, **one_day})
    assert (code, f"{2 * ROWS} released" in said) == (0, True), said
    shutil.rmtree(tmp_path / "state")

    code, said = run_service(tmp_path, {**settings, **window(0)})

    assert code == exit_codes.CONFIGURATION, said
    assert "holds summaries of windows of this data set" in said
