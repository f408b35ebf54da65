"""Erasure where several hold rows together, where windows are old, and where ids are odd: on real servers and files."""

from __future__ import annotations

import csv
import json
import time
import unicodedata
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from service.state.journal import Journal
from testbed.sample_ecg import read_sample_ecg
from tests.integration.clinic import START_NS, Clinic, csv_rows
from tests.integration.service_process import KEY, run_on_file, run_script, run_service, state

SECOND_NS = 10**9


def merge(folder: Path) -> int:
    """Merge neighbouring windows of the journal, as the service does once they are a month old."""
    journal = Journal(folder / "state", data_set=None)
    try:
        return journal.merge_before(time.time_ns(), recounts=0)
    finally:
        journal.close()


def summaries(clinic: Clinic) -> dict[tuple[str, str], dict[str, str]]:
    flux = (
        f'from(bucket: "{clinic.released}") |> range(start: 0) |> filter(fn: (r) => r._measurement == "ecg_anonymized_windows") '
        '|> pivot(rowKey: ["_time"], columnKey: ["_field"], valueColumn: "_value") |> drop(columns: ["_start", "_stop", "table"])'
    )
    return {(row["ward"], row["_time"]): {**row, "table": ""} for row in clinic.server.rows(flux)}


@pytest.mark.influxdb
def test_a_ward_erases_its_own_rows_of_old_windows_and_tells_of_the_ward_that_the_person_moved_to(
    clinic: Clinic, tmp_path: Path
) -> None:
    # The mover is in ward 3 until the middle of the second window. In each ward, one row in fifty has a value of its own.
    rows = [(ward, one, at) for ward in "34" for one in (f"p{ward}", f"q{ward}") for at in range(150)]
    rows += [("3" if at < 75 else "4", "mover", at) for at in range(150)]
    value_of = {(ward, at): 1000 + at if at % 50 == 3 else at % 7 // 3 * 40 + int(ward) * 100 for ward, _, at in rows}
    lines = [
        f"ecg,source_id={one},ward={ward} ecg={value_of[ward, at]} {START_NS + at * SECOND_NS // 10}" for ward, one, at in rows
    ]
    clinic.server.write_lines(clinic.raw, "\n".join(lines).encode())
    both = [clinic.raw, clinic.released]
    token = clinic.server.make_token(read=both, write=[clinic.released])
    for ward in "34":
        (tmp_path / ward).mkdir()
        settings = {
            **clinic.settings,
            "INFLUX_OUTPUT_TOKEN": token,
            "INFLUX_VERIFY_TOKEN": token,
            "COHORT_TAG": "ward",
            "COHORT": ward,
            "OUTPUT_TO_CSV": "false",
            "RESIDUAL": "impute",
            "PSEUDONYMIZE_SOURCE_ID": "false",
            "QUERY_START_TIME": "2025-11-03T14:30:00Z",
            "QUERY_END_TIME": "2025-11-03T14:30:15Z",
        }
        code, log = run_service(tmp_path / ward, settings)
        assert code == 0, log
    released, told = clinic.stored(), summaries(clinic)
    imputed = {key for key, value in released.items() if value != int(value)}
    assert {one for _, one in imputed} == {"p3", "q3", "p4", "q4", "mover"}
    checking = ["scripts/verify_output.py", "--env-file", "3/.env", "--stop", "2025-11-03T14:31:00Z"]
    done = run_script(*checking, folder=tmp_path)
    assert (done.returncode, "VIOLATION" in done.stdout, "MIXED: " in done.stdout) == (0, False, True), done.stdout
    assert merge(tmp_path / "3") == 2

    for step in ("erasure-found", "erasure-halfway"):
        code, said = state(tmp_path / "3", "erase", "--source", "mover", "--yes", environment={"ECG_ANONYMIZER_CRASH_AT": step})
        assert code == -9, said
    code, said = state(tmp_path / "3", "erase", "--source", "mover", "--yes")

    assert (code, "75 rows of the source were met there. Run this with the settings of each" in said) == (1, True), said
    after = clinic.stored()
    of_three = {key for key in released if key[1] == "mover" and key[0] < "2025-11-03T14:30:07.5"}
    lost = released.keys() - after.keys()
    assert of_three <= lost
    assert lost - of_three == {key for key in imputed if key[1] in ("p3", "q3") and key[0] < "2025-11-03T14:30:10"}
    assert after.items() <= released.items()
    now = summaries(clinic)
    assert {key: one for key, one in now.items() if key[0] == "4"} == {key: one for key, one in told.items() if key[0] == "4"}
    held = Counter((at[:17] + f"{int(at[17:19]) // 5 * 5:02d}Z", one[-1]) for at, one in after if one != "mover")
    for (ward, start), one in now.items():
        assert ward == "4" or int(one["rows_released"]) == held[start, "3"], one
        assert ward == "4" or one.get("erased", "") == ("" if start[17:19] == "10" else "true"), one
    code, said = state(tmp_path / "3", "verify")
    assert (code, "holds summaries that the journal" in said) == (0, False), said
    done = run_script(*checking, folder=tmp_path)
    assert (done.returncode, "VIOLATION" in done.stdout, "ERASED: " in done.stdout) == (0, False, True), done.stdout
    code, said = state(tmp_path / "4", "erase", "--source", "mover", "--yes")
    assert (code, "; 0 rows of the source were met there" in said) == (0, True), said
    assert not [key for key in clinic.stored() if key[1] == "mover"]
    code, said = state(tmp_path / "4", "verify")
    assert code == 0, said
    done = run_script(*checking, folder=tmp_path)
    assert (done.returncode, "VIOLATION" in done.stdout, "ERASED: " in done.stdout) == (0, False, True), done.stdout


#: Quotes, a backslash, commas, blanks, an equals sign, a letter of two characters; longer than names of files may be.
ODD = unicodedata.normalize("NFD", 'o\'d "é\\x", {=1} ' + "z" * 250) + "\N{FULLWIDTH LATIN SMALL LETTER W}"
#: No line protocol can hold it: InfluxDB refuses these rows, which are set aside.
REFUSED = "slash-at-the-end\\"


def recording(path: Path, sources: dict[str, range]) -> Path:
    """Write a recording of 100 rows a second for each source, in some tenths of a second."""
    with path.open("w", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(("timestamp", "source_id", "ecg"))
        for one, tenths in sources.items():
            rows.writerows((START_NS // 10**6 + tenth * 100 + at * 10, one, at * 7 % 9) for tenth in tenths for at in range(10))
    return path


def parquet_rows(folder: Path) -> Counter[str]:
    tables = [pq.ParquetFile(path).read(["source_id"]) for path in (folder / "rows").rglob("*.parquet")]
    return Counter(one for table in tables for one in table.column("source_id").to_pylist())


@pytest.mark.influxdb
def test_an_odd_id_is_erased_and_ids_that_contain_it_stay(clinic: Clinic, tmp_path: Path) -> None:
    path = recording(tmp_path / "in.csv", dict.fromkeys((ODD, ODD + "2", REFUSED, "other"), range(100)))
    settings = {
        **clinic.settings,
        "INFLUX_OUTPUT_TOKEN": clinic.server.make_token(read=[clinic.released], write=[clinic.released]),
        "INPUT_FILE": path,
        "OUTPUT_TO_PARQUET": "true",
        "PARQUET_URL": tmp_path / "parquet",
        "PSEUDONYMIZE_SOURCE_ID": "false",
        "METHOD": "optimal",
    }
    code, log = run_service(tmp_path, settings)
    assert code == 65, log
    assert Counter(one for _, one in clinic.stored()) == {ODD: 1000, ODD + "2": 1000, "other": 1000}

    code, said = state(tmp_path, "erase", "--source", unicodedata.normalize("NFKC", ODD).upper(), "--yes")

    assert (code, "erased: 1000 rows in influxdb:" in said, "erased: 1000 rows in csv:" in said) == (0, True, True), said
    assert Counter(one for _, one in clinic.stored()) == {ODD + "2": 1000, "other": 1000}
    assert Counter(one for _, one in csv_rows(tmp_path / "csv")) == {ODD + "2": 1000, REFUSED: 1000, "other": 1000}
    assert parquet_rows(tmp_path / "parquet") == {ODD + "2": 1000, REFUSED: 1000, "other": 1000}
    (certificate,) = (tmp_path / "state" / "erasures").glob("*.json")
    told = json.loads(certificate.read_text())
    assert (told["found"], told["trace"]) == (True, {"values_left": 18, "of_groups_with_the_source": 18})
    assert "Trace: of 18 values left in these windows, 18 (100%) are of groups that held a row of the source" in said
    code, said = state(tmp_path, "verify")
    assert code == 0, said
    # Rows that the bucket refused wait in a pair of files.
    code, said = state(
        tmp_path, "erase", "--source", REFUSED, "--yes", environment={"ECG_ANONYMIZER_CRASH_AT": "erasure-halfway"}
    )
    assert code == -9, said
    code, said = state(tmp_path, "erase", "--source", REFUSED, "--yes")
    assert (code, "erased: 1000 rows in set aside" in said) == (0, True), said
    last = json.loads(max((tmp_path / "state" / "erasures").glob("*.json")).read_text())
    assert last["rows"]["set aside"] == 1000
    assert not list((tmp_path / "state" / "set_aside").glob("*"))
    code, said = state(tmp_path, "verify")
    assert (code, " 0 set aside" in said) == (0, True), said
    # Somebody who was never here; and somebody who was erased before.
    for _ in range(2):
        code, said = state(tmp_path, "erase", "--source", "nobody-of-that-name", "--yes")
        assert (code, "Nothing of this source was found" in said) == (1, True), said
    last = json.loads(max((tmp_path / "state" / "erasures").glob("*.json")).read_text())
    assert (last["found"], last["windows"]) == (False, [])
    code, said = state(tmp_path, "erase", "--source", REFUSED, "--yes")
    assert (code, "Nothing of this source was found" in said) == (0, False), said


def test_windows_that_only_the_source_filled_stay_released_and_a_chunk_that_parquet_took_is_written_once(tmp_path: Path) -> None:
    path = recording(tmp_path / "in.csv", {"gone-away": range(150), "stays": range(50, 150), "third": range(50, 100)})
    settings = {"OUTPUT_TO_CSV": "false", "OUTPUT_TO_PARQUET": "true", "PARQUET_URL": tmp_path / "parquet", "METHOD": "optimal"}
    crashing = {"ECG_ANONYMIZER_CRASH_AT": "after-write"}
    code, log = run_service(tmp_path, {"INPUT_FILE": path, "OUTPUT_TO_INFLUX": "false", **settings}, environment=crashing)
    assert code == -9, log
    assert parquet_rows(tmp_path / "parquet") == {"gone-away": 1500, "stays": 1000, "third": 500}

    code, said = state(tmp_path, "erase", "--source", "gone-away", "--yes")

    assert (code, "3 released windows lose rows" in said) == (0, True), said
    code, log = run_on_file(tmp_path, path, **settings)
    assert (code, parquet_rows(tmp_path / "parquet")) == (0, {"stays": 1000, "third": 500}), log
    code, said = state(tmp_path, "verify")
    assert (code, "OK: journal, source and outputs agree" in said) == (0, True), said
    # Now from what the output has taken: of the last window nothing is left.
    code, said = state(tmp_path, "erase", "--source", "stays", "--yes")
    assert code == 0, said
    assert parquet_rows(tmp_path / "parquet") == {"third": 500}
    for command in (["scripts/state.py", "verify"], ["scripts/verify_output.py", "parquet"]):
        done = run_script(*command, folder=tmp_path)
        assert done.returncode == 0, done.stdout
    code, log = run_on_file(tmp_path, path, **settings)
    assert (code, parquet_rows(tmp_path / "parquet")) == (0, {"third": 500}), log


def test_influxdb_3_keeps_the_rows_and_the_command_says_how_many(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    clinic = Clinic(request.getfixturevalue("influxdb3"))
    path = recording(tmp_path / "in.csv", dict.fromkeys(("gone-away", "stays"), range(50)))
    settings = {**clinic.settings, "INPUT_FILE": path, "PSEUDONYMIZE_SOURCE_ID": "false"}
    code, log = run_service(tmp_path, settings)
    assert code == 0, log

    for step in ((), ("--yes",)):
        code, said = state(tmp_path, "erase", "--source", "gone-away", *step)

        assert (
            code,
            "InfluxDB 3 Core cannot delete rows, only tables and databases; 500 rows of the source are in it" in said,
        ) == (
            1,
            True,
        ), said
    assert {one for _, one in csv_rows(tmp_path / "csv")} == {"stays"}
    (certificate,) = (tmp_path / "state" / "erasures").glob("*.json")
    told = json.loads(certificate.read_text())
    assert (list(told["rows_left_out_of_reach"].values()), told["ended"] is None) == ([500], False)


def test_a_wearer_is_erased_from_public_beats_that_wait_and_from_those_that_were_taken(tmp_path: Path) -> None:
    ecg = read_sample_ecg()
    lines = [
        f"{START_NS // 10**6 + at * 1000 // 360},{one},{int(ecg.values_uv[number][at])}"
        for number, one in enumerate(("first-one", "second-one", "third-one"))
        for at in range(360 * 10)
    ]
    path = tmp_path / "in.csv"
    path.write_text("\n".join(("timestamp,source_id,ecg", *lines)) + "\n")
    settings = {"METHOD": "rhythm", "PSEUDONYMIZE_SOURCE_ID": "true", "PSEUDONYM_SALT": KEY, "PSEUDONYM_PURPOSE": "registry-a"}
    code, log = run_service(
        tmp_path,
        {"INPUT_FILE": path, "OUTPUT_TO_INFLUX": "false", **settings},
        environment={"ECG_ANONYMIZER_CRASH_AT": "before-write"},
    )
    assert code == -9, log

    code, said = state(tmp_path, "erase", "--source", "first-one", "--yes")

    assert (code, "rows in spool" in said, "Trace" in said) == (0, True, False), said
    code, log = run_on_file(tmp_path, path, **settings)
    assert code == 0, log
    released = csv_rows(tmp_path / "csv")
    second, third = sorted({one for _, one in released})
    code, said = state(tmp_path, "erase", "--pseudonym", second, "--yes")
    assert (code, set(csv_rows(tmp_path / "csv"))) == (0, {key for key in released if key[1] == third}), said
    for command in (
        ["scripts/state.py", "verify"],
        ["scripts/verify_output.py", *map(str, (tmp_path / "csv").glob("*.csv")), "--method", "rhythm", "--batch-seconds", "10"],
    ):
        done = run_script(*command, folder=tmp_path)
        assert done.returncode == 0, done.stdout
    # Another recipient gets other pseudonyms: those of the first are not found from the id.
    replaced = (tmp_path / ".env").read_text().replace("registry-a", "registry-b")
    (tmp_path / ".env").write_text(replaced)
    code, said = state(tmp_path, "erase", "--source", "third-one")
    assert (code, "windows that were released under 1 other keys" in said) == (1, True), said
