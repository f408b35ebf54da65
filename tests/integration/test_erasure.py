"""Erasure on a real server: nothing of one wearer is left in three outputs, a ledger and STATE_DIR, and nothing else has changed."""

from __future__ import annotations

import csv
import hmac
import json
import time
from pathlib import Path
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from jsonschema import Draft202012Validator

from service.state.journal import Journal
from testbed.influxdb1_server import Influx1Server
from testbed.s3_server import S3Server
from tests.integration.clinic import RECORDS, Clinic, csv_rows, load_first_minute
from tests.integration.service_process import KEY, ROOT, Service, run_script, run_service, state
from tests.servers.api_server import ApiServer, Reply
from transport.object_store import ObjectStore, StoreAccess

pytestmark = pytest.mark.influxdb

GONE = RECORDS[2]
PSEUDONYM = hmac.digest(KEY.encode(), GONE.encode(), "sha256").hex()
SALT = "6b1c0e93f5ad7248b09e4c51d8a7f36215cb8e70f29d4a63c1e85b07d4962fa3"
HASHED = hmac.digest(SALT.encode(), GONE.encode(), "sha256").hex()
#: Where the command is killed, one after another. It erases from two CSV files, the Parquet files of one chunk, a bucket.
STEPS = (
    "erasure-open",
    "erasure-found",
    "erasure-replaced",
    "erasure-replaced",
    "erasure-halfway",
    "erasure-replaced",
    "erasure-halfway",
    "erasure-replaced",
    "erasure-booked",
    "erasure-scrubbed",
)


def parquet_rows(folder: Path) -> dict[tuple[str, str], float]:
    tables = [pq.ParquetFile(path).read() for path in sorted((folder / "rows").rglob("*.parquet"))]
    return {
        (f"{row['timestamp'].isoformat()[:-6]}", row["source_id"]): row["ecg"] for table in tables for row in table.to_pylist()
    }


def erase(folder: Path, *arguments: str, crash: str = "") -> tuple[int, str]:
    environment = {"HEART_SALT": SALT, **({"ECG_ANONYMIZER_CRASH_AT": crash} if crash else {})}
    return state(folder, "erase", "--source", f" {GONE.upper()} ", *arguments, environment=environment)


def make_ledger(folder: Path) -> Path:
    ledger = folder / "heart_ledger.jsonl"
    entries = [
        {"timestamp": "2025-11-03T14:30:00Z", "source_id": one, "event_type": "beat", "metrics": {}, "symbols": []}
        for one in (RECORDS[0], GONE, HASHED, RECORDS[1])
    ]
    ledger.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    ledger.chmod(0o600)
    return ledger


@pytest.fixture
def settings(clinic: Clinic, tmp_path: Path, strict: bool) -> dict[str, object]:
    load_first_minute(clinic)
    return {
        # A file for each window, which is finished; or one that goes on to grow.
        "CSV_FILENAME_PATTERN": "day_%Y%m%d.csv" if strict else "%Y%m%d_%H%M%S.csv",
        **clinic.settings,
        "INFLUX_OUTPUT_TOKEN": clinic.server.make_token(read=[clinic.released], write=[clinic.released]),
        "QUERY_START_TIME": "2025-11-03T14:30:00Z",
        "QUERY_END_TIME": "2025-11-03T14:30:10Z",
        "OUTPUT_TO_PARQUET": "true",
        "PARQUET_URL": tmp_path / "parquet",
        "INFLUX_VERIFY_TOKEN": clinic.server.make_token(read=[clinic.raw, clinic.released]),
        "K_VALUE": "20",
    }


@pytest.fixture
def released(settings: dict[str, object], tmp_path: Path, strict: bool) -> Path:
    code, log = run_service(tmp_path, settings)
    assert code == 0, log
    make_ledger(tmp_path)
    if strict:
        # As the service does once windows are a month old.
        journal = Journal(tmp_path / "state", data_set=None)
        assert journal.merge_before(time.time_ns(), recounts=0) == 1
        journal.close()
    return tmp_path


def check_output(folder: Path, *arguments: str) -> tuple[int, str]:
    done = run_script("scripts/verify_output.py", *arguments, folder=folder)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("strict", [False, True])
def test_nothing_of_an_erased_wearer_is_left_anywhere_however_often_the_command_is_killed(
    released: Path, clinic: Clinic, settings: dict[str, object], strict: bool
) -> None:
    ledger = released / "heart_ledger.jsonl"
    before = {"csv": csv_rows(released / "csv"), "influx": clinic.stored(), "parquet": parquet_rows(released / "parquet")}
    assert len(before["csv"]) == len(before["influx"]) == len(before["parquet"]) == 6 * 360 * 10
    arguments = ("--yes", "--ledger", str(ledger), *(["--strict"] if strict else []))
    code, said = erase(released, "--ledger", str(ledger), *(["--strict"] if strict else []))
    assert (code, "Nothing was changed" in said, "2 released windows lose rows" in said) == (0, True, True), said
    assert "2 rows in ledger" in said
    assert csv_rows(released / "csv") == before["csv"]
    for step in STEPS[:2] + STEPS[3:] if strict else STEPS:
        code, said = erase(released, *arguments, crash=step)
        assert code == -9, (step, said)
    code, said = state(released, "verify")
    assert (code, "has an open erasure, which was interrupted" in said) == (78, True), said
    with Service(released, settings) as service:
        assert (service.exit_code(), "has an open erasure" in service.log) == (78, True), service.log
    code, said = erase(released, *arguments)

    assert code == 0, said
    after = {"csv": csv_rows(released / "csv"), "influx": clinic.stored(), "parquet": parquet_rows(released / "parquet")}
    lost = {name: before[name].keys() - after[name].keys() for name in before}
    for name, rows in after.items():
        assert rows == {key: before[name][key] for key in rows}, name
        mine = {key for key in before[name] if key[1] == PSEUDONYM}
        assert mine <= lost[name]
        assert (mine == lost[name]) == (not strict), name
    assert len(lost["csv"]) == len(lost["influx"]) == len(lost["parquet"])
    files = [path for path in released.rglob("*") if path.is_file() and path.name not in (".env", "service.log")]
    for text in (GONE, PSEUDONYM, HASHED):
        assert not [path for path in files if text.encode() in path.read_bytes()], text
    assert [json.loads(line)["source_id"] for line in ledger.read_text().splitlines()] == [RECORDS[0], RECORDS[1]]
    code, said = state(released, "verify")
    assert code == 0, said
    journal = Journal(released / "state", data_set=None)
    for one in journal.outputs.positions():
        assert one.taken + one.set_aside + one.pending == journal.totals().released == len(after["csv"]), one
    journal.close()
    (certificate,) = (released / "state" / "erasures").glob("*.json")
    told = json.loads(certificate.read_text())
    assert told["ended"] is not None
    assert len(told["windows"]) == 2
    of_files = [str(path) for path in sorted((released / "csv").glob("*.csv"))]
    code, said = check_output(released, *of_files, "--k", "20", "--batch-seconds", "5")
    assert (code, "VIOLATION" in said) == ((0, False) if strict else (1, True)), said
    for where in (
        [*of_files, "--k", "20", "--batch-seconds", "5", "--erasure", str(certificate)],
        ["parquet"],
        ["--env-file", ".env"],
    ):
        code, said = check_output(released, *where)
        assert (code, "ERASED: rows of 2 windows were taken back" in said) == (0, True), (where, said)
    # The service goes on, and does not release what was taken back.
    code, log = run_service(released, {**settings, "QUERY_END_TIME": "2025-11-03T14:30:15Z"})
    assert code == 0, log
    assert f"{360 * 5} excluded" in log
    assert not [key for key in clinic.stored() if key[1] == PSEUDONYM]
    assert csv_rows(released / "csv").keys() == clinic.stored().keys()


ODD = 'o\'d "id", {1}'

SCHEMA = json.loads((ROOT / "documentation" / "api-batch.schema.json").read_text(encoding="utf-8"))


def test_an_odd_id_and_imputed_rows_are_erased_from_influxdb_1_and_from_what_waits_for_an_api(
    influxdb1: Influx1Server, api_server: ApiServer, tmp_path: Path
) -> None:
    influxdb1.make_bucket(name := f"released-{uuid4().hex}")
    recording = tmp_path / "recording.csv"
    rows = [
        (1_762_180_200_000 + row * 10, source, 1000 if row % 100 == 0 else (row * 7 + shift) % 200)
        for row in range(1000)
        for shift, source in enumerate(("one", ODD, "two"))
    ]
    with recording.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([("timestamp", "source_id", "ecg"), *rows])
    user, _, password = influxdb1.token.partition(":")
    settings = {
        "INPUT_FILE": recording,
        "INFLUX_OUTPUT_URL": influxdb1.url,
        "INFLUX_URL": influxdb1.url,
        "INFLUX_USERNAME": user,
        "INFLUX_PASSWORD": password,
        "INFLUX_OUTPUT_BUCKET": name,
        "OUTPUT_TO_API": "true",
        "API_ENDPOINT": api_server.endpoint,
        "RESIDUAL": "impute",
        "K_VALUE": "40",
        "RETRY_BUDGET_SECONDS": "0",
    }
    api_server.script(Reply(status=503))
    code, log = run_service(tmp_path, settings)
    assert code == 69, log
    before = csv_rows(tmp_path / "csv")

    code, said = state(tmp_path, "erase", "--source", ODD, "--yes")

    assert code == 0, said
    after = csv_rows(tmp_path / "csv")
    assert after.items() <= before.items()
    assert not [key for key in after if key[1] == ODD]
    gone = before.keys() - after.keys()
    imputed = {key for key in gone if key[1] != ODD}
    assert imputed, "rows that carry the mean of all others"
    stored = influxdb1.raw('SELECT count("ecg") FROM "ecg_anonymized"', database=name)["results"][0]["series"][0]["values"][0][1]
    assert stored == len(after)
    needle = ODD.replace('"', '""').encode()
    for path in [one for folder in ("csv", "state") for one in (tmp_path / folder).rglob("*") if one.is_file()]:
        assert needle not in path.read_bytes(), path
        assert ODD.encode() not in path.read_bytes(), path
    code, said = state(tmp_path, "verify")
    assert code == 0, said
    # What the API may have taken is never sent in another form; the rest goes on.

    code, log = run_service(tmp_path, {**settings, "RETRY_BUDGET_SECONDS": "5"})
    assert (code, "may have taken this window before an erasure changed it" in log) == (65, True), log
    taken = api_server.stored()
    assert [one["summary"].get("erased") for one in taken] == [True]
    assert not [problem for one in taken for problem in Draft202012Validator(SCHEMA).iter_errors(one)]


def test_files_in_an_object_store_are_replaced_and_their_summaries_say_so(
    s3_server: S3Server, s3_bucket: str, tmp_path: Path
) -> None:
    recording = tmp_path / "recording.csv"
    rows = [f"{1_762_180_200_000 + row * 10},{one},{row * 7 % 200}" for row in range(1000) for one in ("stays", "goes-away")]
    recording.write_text("\n".join(["timestamp,source_id,ecg", *rows]) + "\n")
    settings = {
        "INPUT_FILE": recording,
        "OUTPUT_TO_INFLUX": "false",
        "OUTPUT_TO_CSV": "false",
        "OUTPUT_TO_PARQUET": "true",
        "PARQUET_URL": f"s3://{s3_bucket}/ecg",
        "METHOD": "optimal",
        **s3_server.variables(),
    }
    code, log = run_service(tmp_path, settings)
    assert code == 0, log

    code, said = state(tmp_path, "erase", "--source", "goes-away", "--yes")

    assert (code, "erased: 1000 rows in parquet:" in said) == (0, True), said
    code, said = state(tmp_path, "verify")
    assert (code, "holds 1000" in said) == (0, True), said
    store = ObjectStore(s3_bucket, StoreAccess.of({name: str(value) for name, value in s3_server.variables().items()}))
    files = {
        found.key: pq.ParquetFile(pa.BufferReader(store.read_whole(found.key) or b"")).read() for found in store.objects("ecg")
    }
    ids = {one for key, table in files.items() if "/rows/" in key for one in table.column("source_id").to_pylist()}
    told = [row for key, table in files.items() if "/windows/" in key for row in table.to_pylist()]
    assert ids == {"stays"}
    assert {(one["erased"], one["rows_released"], one["rows_read"], one["distinct_sources"]) for one in told} == {
        (True, 500, 500, 1)
    }
