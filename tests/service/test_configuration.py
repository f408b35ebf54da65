"""What a person can get wrong in `.env`: every mistake is named at once, in a sentence that helps, and no secret is shown."""

from __future__ import annotations

import os
import re
import sys
import time
from dataclasses import replace
from pathlib import Path

import certifi
import pytest
from dotenv import dotenv_values
from hypothesis import given
from hypothesis import strategies as st

from anonymizer.batch import Promise
from anonymizer.cohorts import Cohort
from anonymizer.errors import ConfigurationError
from anonymizer.level_hierarchy_anonymizer import LevelHierarchyAnonymizer
from anonymizer.optimal_anonymizer import OptimalAnonymizer
from outputs.encoding import summary_of
from scripts.make_configuration import configuration_page, env_example
from service.preflight import folder_problems, input_problems, method_problems
from service.settings.declared import DECLARED, KNOWN_NAMES, SECRETS, cohort_of
from service.settings.load import SUMMARY_FIELDS, Configuration, NoConfiguration, load, untold_without_connection
from service.settings.secret_command import secret_of_command
from service.settings.shown import shown_settings
from service.wiring.recipe import load_hierarchy, make_recipe
from tests.outputs.batches import usual_batch

ROOT = Path(__file__).resolve().parent.parent.parent
MIT_BIH = ROOT / "tests" / "inputs" / "recordings" / "mitbih_100.hea"
MINIMAL = {"INFLUX_TOKEN": "t0ken", "INFLUX_ORG": "clinic"}
KEY = "92d7a0c14e8b3f6517c2e90db45fa8736de1c05f8a724b39e6f01d8c7b53a942"
TLS = {
    "DASK_SCHEDULER": "tls://dask:8786",
    **{f"DASK_TLS_{what}_FILE": certifi.where() for what in ("CA", "CERT", "KEY")},
}


def load_text(folder: Path, text: str | bytes, **environment: str) -> Configuration:
    path = folder / ".env"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    path.chmod(0o600)
    return load(path, environment, checks=(input_problems, method_problems, folder_problems))


def load_with(folder: Path, **settings: str) -> Configuration:
    return load_text(
        folder, "".join(f"{name}={value}\n" for name, value in {"CSV_OUTPUT_DIR": folder, **MINIMAL, **settings}.items())
    )


def problems_of(folder: Path, **settings: str) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        load_with(folder, **settings)
    return list(caught.value.problems)


def test_the_minimal_configuration_is_good_and_has_the_documented_defaults(tmp_path: Path) -> None:
    settings = load_with(tmp_path).settings

    assert (settings.influx_url, settings.influx_input_bucket, settings.influx_output_bucket) == (
        "http://localhost:8086",
        "raw_data",
        "anonymized-data",
    )
    assert (settings.k_value, settings.batch_size_seconds, settings.max_level, settings.residual) == (5, 5, 3, "regroup")
    assert (settings.output_to_csv, settings.output_to_influx, settings.output_to_api) == (True, True, False)
    assert settings.late_recount_seconds == (30, 300, 86400)
    assert settings.output_file_mode == 0o600


@pytest.mark.parametrize(("text", "mode"), [("0600", 0o600), ("640", 0o640), ("0664", 0o664)])
def test_the_mode_of_files_is_read_in_octal(tmp_path: Path, text: str, mode: int) -> None:
    assert load_with(tmp_path, OUTPUT_FILE_MODE=text).settings.output_file_mode == mode


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"K_VALUE": "1"}, "K_VALUE must be a whole number of at least 2, got '1'"),
        ({"K_VALUE": "five"}, "K_VALUE must be a whole number of at least 2, got 'five'"),
        ({"K_VALUE": "5.5"}, "K_VALUE must be a whole number of at least 2, got '5.5'"),
        ({"BATCH_SIZE_SECONDS": "0"}, "BATCH_SIZE_SECONDS must be a whole number of at least 1, got '0'"),
        ({"MAX_LEVEL": "8"}, "MAX_LEVEL must be a whole number from 1 to 7, got '8'"),
        ({"METHOD": "magic"}, "METHOD must be one of hierarchy, optimal, rhythm, got 'magic'"),
        ({"RESIDUAL": "keep"}, "RESIDUAL must be one of regroup, impute, drop, got 'keep'"),
        ({"IMPUTATION": "median"}, "IMPUTATION must be one of mean, midpoint, got 'median'"),
        ({"VALUE_UNIT": "V"}, "VALUE_UNIT must be one of uV, mV, got 'V'"),
        ({"OUTPUT_TO_CSV": "maybe"}, "OUTPUT_TO_CSV must be true or false, got 'maybe'"),
        ({"INFLUX_URL": "localhost"}, "INFLUX_URL must be an address such as http://localhost:8086, got 'localhost'"),
        ({"INFLUX_URL": "http://localhost:80867"}, "INFLUX_URL must be an address"),
        ({"QUERY_END_TIME": "2025-11-03T15:00:00Z"}, "QUERY_END_TIME needs QUERY_START_TIME"),
        (
            {"QUERY_START_TIME": "2025-11-03T15:00:00", "QUERY_END_TIME": "2025-11-03T14:00:00"},
            "QUERY_START_TIME must be before QUERY_END_TIME",
        ),
        ({"DEFAULT_QUERY_HOURS": "-1"}, "DEFAULT_QUERY_HOURS must be a number above 0"),
        ({"DEFAULT_QUERY_HOURS": "nan"}, "DEFAULT_QUERY_HOURS must be a number above 0"),
        *(
            ({"OUTPUT_FILE_MODE": mode}, "OUTPUT_FILE_MODE must be a file mode in octal from 0600 to 0664")
            for mode in ("0666", "0400", "0700", "4640", "0o640", "u=rw")
        ),
        *(
            ({"STATE_DIR": path}, "STATE_DIR must be a path without ~")
            for path in ("$(pwd)/state", "/srv/`pwd`/x", "%h/state", "/srv/%i")
        ),
        *(
            ({"QUERY_START_TIME": moment}, "QUERY_START_TIME must be a time such as 2025-11-03T14:30:00Z")
            for moment in ("yesterday", "2025-11-03T14:30.5Z", "2025-11-03T14.5Z", "2025-W45-1", "20251103T1430.5")
        ),
        (
            {"CSV_FILENAME_PATTERN": "x" * 201},
            f"CSV_FILENAME_PATTERN must be a file name of at most 200 bytes, got '{'x' * 200}…'",
        ),
        ({"COHORT": "3"}, "COHORT needs COHORT_TAG, the tag that COHORT is a value of"),
        (
            {"INPUT_FILE": __file__, "COHORT_TAG": "ward", "COHORT": "3"},
            "COHORT_TAG and COHORT cut a bucket of InfluxDB into parts",
        ),
        ({"INPUT_FILE": __file__, "COHORT": "3"}, "COHORT_TAG and COHORT cut a bucket"),
        ({"COHORT_TAG": "source_id", "COHORT": "3"}, "COHORT_TAG is SOURCE_TAG: the output would name the wearer"),
        ({"COHORT_TAG": "person", "SOURCE_TAG": "person"}, "COHORT_TAG is SOURCE_TAG"),
        ({"COHORT_TAG": "ward", "INFLUX_TAG_FILTER": "lead=I,ward=3"}, "INFLUX_TAG_FILTER names the tag of COHORT_TAG too"),
        ({"COHORT_TAG": "_field", "COHORT": "ecg"}, "COHORT_TAG=_field has a meaning of its own in the output"),
        ({"COHORT_TAG": "k_unit", "COHORT": "3"}, "COHORT_TAG=k_unit has a meaning of its own in the output"),
        ({"COHORT_TAG": "w@rd"}, "COHORT_TAG has a tag with an @ in its name, by which InfluxDB 2 cannot select rows"),
        *(
            ({"DASK_SCHEDULER": scheduler}, "DASK_SCHEDULER must be local:2 (or another number of worker processes")
            for scheduler in ("local", "local:0", "local:x", "10.0.0.1:8786", "https://dask:8786", "tls://dask", "tls://dask:0")
        ),
        ({"DASK_SCHEDULER": "local:2", "STREAMING_MODE": "true"}, "DASK_SCHEDULER hands the chunks of a one-shot run to workers"),
        *(
            (
                {"DASK_SCHEDULER": f"tcp://{host}:8786", "SPOOL_URL": "/srv/spool", "DASK_INSECURE_LOOPBACK": "true"},
                "is not encrypted",
            )
            for host in ("dask.example", "10.0.0.1", "localhost", "[::]", "0.0.0.0")
        ),
        ({"DASK_SCHEDULER": "tcp://127.0.0.1:8786", "SPOOL_URL": "/srv/spool"}, "for a test, set DASK_INSECURE_LOOPBACK=true"),
        *(
            ({**TLS, "SPOOL_URL": "/srv/spool", name: ""}, f"{name} is required with DASK_SCHEDULER=tls://")
            for name in TLS
            if name != "DASK_SCHEDULER"
        ),
        (
            {**TLS, "SPOOL_URL": "/srv/spool", "DASK_TLS_KEY_FILE": "/no/key.pem"},
            "DASK_TLS_KEY_FILE names /no/key.pem, which is",
        ),
        (TLS, "SPOOL_URL is required with a DASK_SCHEDULER elsewhere"),
        ({"SPOOL_URL": "./output/spool", "CSV_OUTPUT_DIR": "./output"}, "SPOOL_URL and CSV_OUTPUT_DIR are in one another"),
        ({"SPOOL_URL": "./state/spool"}, "SPOOL_URL and STATE_DIR/spool are in one another"),
        (
            {"SPOOL_URL": "s3://bucket/ecg/spool", "OUTPUT_TO_PARQUET": "true", "PARQUET_URL": "s3://bucket/ecg"},
            "SPOOL_URL and PARQUET_URL are in one another",
        ),
        (
            {"INPUT_FILE": "s3://bucket/raw/*.parquet", "SPOOL_URL": "s3://bucket/raw/spool"},
            "SPOOL_URL and INPUT_FILE are in one another",
        ),
        ({"METHOD": "rhythm", "BATCH_SIZE_SECONDS": "3601"}, "METHOD=rhythm takes windows of at most 3600 s"),
        ({"INFLUX_TAG_FILTER": "le@d=I"}, "INFLUX_TAG_FILTER has a tag with an @ in its name"),
        ({"COHORT_TAG": "ward", "COHORT": "ends\\"}, "COHORT holds a line end, or a backslash last"),
        ({"INFLUX_TAG_FILTER": "lead"}, "INFLUX_TAG_FILTER must be tag=value pairs"),
        ({"LATE_RECOUNT_SECONDS": "300,30"}, "LATE_RECOUNT_SECONDS must be whole seconds separated by commas, ascending"),
        ({"CSV_FILENAME_PATTERN": "../x.csv"}, "CSV_FILENAME_PATTERN must be a file name"),
        ({"LOG_LEVEL": "LOUD"}, "LOG_LEVEL must be one of DEBUG"),
        ({"OUTPUT_TO_CSV": "false", "OUTPUT_TO_INFLUX": "false"}, "no output is enabled"),
        ({"OUTPUT_TO_API": "true"}, "OUTPUT_TO_API=true needs API_ENDPOINT"),
        ({"PSEUDONYMIZE_SOURCE_ID": "true"}, "needs PSEUDONYM_SALT or PSEUDONYM_SALT_FILE; make a key with: python3 -c"),
        ({"PSEUDONYMIZE_SOURCE_ID": "true", "PSEUDONYM_SALT": "short"}, "PSEUDONYM_SALT needs at least 16 bytes"),
        ({"INFLUX_CA_FILE": __file__}, f"INFLUX_CA_FILE names {__file__}, which contains no certificate in PEM format"),
        ({"INPUT_FILE": "/no/such/file.csv"}, "INPUT_FILE names a path that is not a file"),
        (
            {"INPUT_CHANNEL": "II"},
            "INPUT_CHANNEL would have no effect: only recordings (EDF, BDF, WFDB, DICOM; not gzip-compressed) need it, and the",
        ),
        (
            {"INPUT_FILE": __file__, "INPUT_SOURCE_ID": "Zaphodea", "INPUT_START_TIME": "2025-11-03"},
            "INPUT_SOURCE_ID, INPUT_START_TIME would have no effect: only recordings (EDF, BDF, WFDB, DICOM; not gzip-compressed) need",
        ),
        ({"INPUT_START_TIME": "half past two"}, "INPUT_START_TIME must be a time such as 2025-11-03T14:30:00Z"),
        (
            {"INPUT_FILE": str(MIT_BIH), "K_UNIT": "source"},
            "K_UNIT=source counts wearers, but the service never reads from a recording whose it is",
        ),
        ({"INPUT_FILE": str(MIT_BIH.parent / "*.dat"), "K_UNIT": "source"}, "K_UNIT=source counts wearers"),
        (
            {"INPUT_FILE": str(MIT_BIH.parent), "CSV_OUTPUT_DIR": f"{MIT_BIH.parent}/csv"},
            "CSV_OUTPUT_DIR is in the folder that INPUT_FILE",
        ),
        ({"HIERARCHY_CSV_PATH": "/no/such/hierarchy.csv"}, "HIERARCHY_CSV_PATH /no/such/hierarchy.csv cannot be read"),
        ({"INFLUX_TOKEN": "", "INFLUX_QUERY_LANGUAGE": "flux"}, "INFLUX_TOKEN is required"),
        ({"INFLUX_ORG": "", "INFLUX_QUERY_LANGUAGE": "flux"}, "INFLUX_ORG is required"),
        (
            {"SOURCE_TAG": "source@id", "DEVICE_FILTER": "a,b"},
            "SOURCE_TAG has an @ in its name, by which InfluxDB 2 cannot select the sources of DEVICE_FILTER: leave that empty",
        ),
        ({"INFLUX_QUERY_LANGUAGE": "sql"}, "INFLUX_QUERY_LANGUAGE must be"),
        ({"INFLUX_USERNAME": "a"}, "INFLUX_USERNAME needs INFLUX_PASSWORD"),
        ({"INFLUX_USERNAME": "a:b", "INFLUX_PASSWORD": "c"}, "INFLUX_USERNAME holds a colon"),
        ({"STREAMING_MODE": "true", "INPUT_FILE": __file__}, "reads from InfluxDB, not from a file"),
        ({"STREAMING_MODE": "true", "QUERY_START_TIME": "2025-01-01", "QUERY_END_TIME": "2025-01-02"}, "has no end"),
        ({"CSV_OUTPUT_DIR": f"{__file__}/below"}, "cannot be written to"),
        ({"K_UNIT": "source", "RESIDUAL": "impute"}, "with K_UNIT=source set RESIDUAL=regroup or drop"),
        ({"STATE_DIR": f"{__file__}/below"}, f"STATE_DIR {__file__}/below cannot be written to"),
    ],
)
def test_each_mistake_is_named_with_what_was_expected(tmp_path: Path, settings: dict[str, str], sentence: str) -> None:
    problems = problems_of(tmp_path, **settings)

    assert len(problems) == 1
    assert sentence in problems[0]
    assert "/no/such/file" not in problems[0], "a recording may be called after a person"


@pytest.mark.parametrize("name", ["mitbih_100.hea", "mitbih_100.dat", "", "*.hea"])
def test_a_recording_a_folder_and_a_pattern_of_them_may_be_named(name: str, tmp_path: Path) -> None:
    settings = {"INPUT_CHANNEL": "1", "INPUT_SOURCE_ID": "a, b", "INPUT_START_TIME": "2025-11-03T15:30+01", "K_UNIT": "source"}

    read = load_with(tmp_path, INPUT_FILE=str(MIT_BIH.parent / name), **settings).settings

    assert (read.input_channel, read.input_source_id, read.input_start_time) == ("1", ("a", "b"), 1_762_180_200 * 10**9)
    shown = dict(shown_settings(read))
    assert shown["INPUT_SOURCE_ID"] == "(2 named, not shown)"
    assert shown["INPUT_CHANNEL"] == shown["INPUT_FILE"] == "(set, not shown)"


def test_all_mistakes_are_reported_at_once(tmp_path: Path) -> None:
    wrong = {
        "K_VALUE": "1",
        "BATCH_SIZE_SECONDS": "x",
        "METHOD": "y",
        "OUTPUT_TO_API": "true",
        "INFLUX_ORG": "",
        "INFLUX_QUERY_LANGUAGE": "flux",
    }
    problems = problems_of(tmp_path, **wrong, HIERARCHY_CSV_PATH="/nowhere")

    names = ("K_VALUE", "BATCH_SIZE_SECONDS", "METHOD", "API_ENDPOINT", "INFLUX_ORG", "HIERARCHY_CSV_PATH")
    assert [any(name in problem for problem in problems) for name in names] == [True] * len(names)


def test_a_broken_hierarchy_is_named_with_its_rows(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_text("0,0;1,0;3\n1,x\n")

    problems = problems_of(tmp_path, HIERARCHY_CSV_PATH=str(path))

    assert [problem.split(": ")[1] for problem in problems] == ["row 1", "row 2"]


def test_no_settings_at_all_are_distinguished_from_mistakes_and_the_environment_is_enough_and_beats_the_file(
    tmp_path: Path,
) -> None:
    for must_exist in (False, True):
        with pytest.raises(NoConfiguration):
            load(tmp_path / "none.env", MINIMAL if must_exist else {}, must_exist=must_exist)
    assert load(tmp_path / "none.env", MINIMAL).settings.influx_org == "clinic"

    text = "INFLUX_TOKEN=a\nINFLUX_ORG=b\nK_VALUE=7\n"
    assert load_text(tmp_path, text, K_VALUE="9", CSV_OUTPUT_DIR=str(tmp_path)).settings.k_value == 9


def test_an_empty_variable_does_not_put_a_default_in_the_place_of_what_the_file_says(tmp_path: Path) -> None:
    text = f"INFLUX_TOKEN=a\nINFLUX_ORG=b\nK_VALUE=20\nPSEUDONYMIZE_SOURCE_ID=true\nPSEUDONYM_SALT={KEY}\nCSV_OUTPUT_DIR={tmp_path}\n"
    empty = dict.fromkeys(("K_VALUE", "PSEUDONYMIZE_SOURCE_ID", "PSEUDONYM_SALT", "PSEUDONYM_SALT_FILE"), "")

    configuration = load_text(tmp_path, text, **empty)

    settings = configuration.settings
    assert (settings.k_value, settings.pseudonymize_source_id, settings.pseudonym_salt.reveal()) == (20, True, KEY)
    assert (
        f"K_VALUE in the environment is empty and sets nothing: the value in {tmp_path / '.env'} applies"
        in configuration.warnings
    )


def test_a_setting_without_a_value_has_its_default_and_that_is_said_with_its_line(tmp_path: Path) -> None:
    text = f"INFLUX_TOKEN=a\nINFLUX_ORG=b\nCSV_OUTPUT_DIR={tmp_path}\nK_VALUE=\nDEVICE_FILTER=\n"

    warnings = load_text(tmp_path, text, METHOD="").warnings

    assert f"{tmp_path / '.env'}, line 4: K_VALUE is empty: its default, 5, applies" in warnings
    assert "METHOD in the environment is empty: its default, hierarchy, applies" in warnings
    assert not any("DEVICE_FILTER" in warning for warning in warnings)


def test_the_audit_log_is_a_file_of_its_own_that_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "file")
    os.mkfifo(tmp_path / "pipe")
    state = {"STATE_DIR": str(tmp_path / "state"), "EXCLUDED_SOURCES_FILE": str(tmp_path / "excluded")}
    (tmp_path / "excluded").write_text("mine")

    for name in ("audit_log", "journal.sqlite", "../state/fence", "reports/audit.jsonl", "report.html", "erasures/a"):
        (problem,) = problems_of(tmp_path, **state, AUDIT_LOG=str(tmp_path / "state" / name))
        assert problem.startswith("AUDIT_LOG is a file or in a folder that the service keeps in STATE_DIR for something else"), (
            name
        )
    (problem,) = problems_of(tmp_path, **state, AUDIT_LOG=str(tmp_path / "folder" / ".." / "excluded"))
    assert problem == "AUDIT_LOG and EXCLUDED_SOURCES_FILE are one file"
    said = {
        "link": "it is a link, and links are not followed here",
        "folder": "Is a directory",
        "pipe": "it is not a regular file",
        "file/audit.jsonl": "is not a folder",
        "file/below/audit.jsonl": "is not a folder",
    }
    for name, reason in said.items():
        (problem,) = problems_of(tmp_path, **state, AUDIT_LOG=str(tmp_path / name))
        assert problem.startswith(f"AUDIT_LOG {tmp_path / name} cannot be written to ("), name
        assert reason in problem
    (problem,) = problems_of(tmp_path, **state, AUDIT_LOG="/dev/full")
    assert "it is not a regular file" in problem
    for name in ("state/audit.jsonl", "file", "new/audit.jsonl"):
        assert load_with(tmp_path, **state, AUDIT_LOG=str(tmp_path / name)).settings.audit_log
    assert not (tmp_path / "new").exists()


def test_csv_files_are_not_written_among_the_state_nor_over_the_recording(tmp_path: Path) -> None:
    (tmp_path / "in.csv").touch()
    state = {"STATE_DIR": str(tmp_path / "state")}

    for folder in ("state", "state/", "csv/../state", "state/spool", "state/reports/old"):
        (problem,) = problems_of(tmp_path, **state, CSV_OUTPUT_DIR=str(tmp_path / folder))
        assert problem.startswith("CSV_OUTPUT_DIR is STATE_DIR, or a folder that the service keeps in it")
    for pattern in ("in.csv", "i%y.csv", "%a.csv"):
        problem, *_ = problems_of(tmp_path, **state, INPUT_FILE=str(tmp_path / "in.csv"), CSV_FILENAME_PATTERN=pattern)
        assert problem.startswith("INPUT_FILE is in CSV_OUTPUT_DIR under a name that CSV_FILENAME_PATTERN may produce")
    (problem,) = problems_of(tmp_path, **state, CSV_FILENAME_PATTERN=".env")
    assert problem.startswith("This .env is in CSV_OUTPUT_DIR")
    load_with(tmp_path, **state, INPUT_FILE=str(tmp_path / "in.csv"), CSV_FILENAME_PATTERN="out_%y.csv")


@pytest.mark.parametrize(
    "name", ["PSEUDONYMIZE", "PSEUDONYMIZE_IDS", "pseudonymize", "export K_VALUE", " PSEUDONYMIZE_SOURCE_ID"]
)
def test_a_variable_that_can_only_be_meant_for_a_privacy_setting_is_a_mistake(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigurationError, match=r"in the environment .* is not a setting"):
        load_text(tmp_path, "INFLUX_TOKEN=t\nINFLUX_ORG=o\n", **{name: "true"})


@pytest.mark.parametrize("name", ["INPUT_FILE", "INFLUX_CA_FILE", "API_CA_FILE"])
def test_a_file_that_cannot_be_reached_is_a_mistake_like_one_that_is_not_there(tmp_path: Path, name: str) -> None:
    (problem,) = (one for one in problems_of(tmp_path, **{name: "x" * 300}) if one.startswith(f"{name} names"))

    assert problem.endswith(" cannot be reached (File name too long)")
    assert name != "INPUT_FILE" or "xxx" not in problem


@pytest.mark.parametrize("line", ["CSV_OUTPUT_DIR=./outMETHOD=optimal", "INFLUX_ORG=clinicRESIDUAL=drop"])
def test_a_line_that_lost_its_end_is_refused_whatever_the_name_on_the_next(tmp_path: Path, line: str) -> None:
    with pytest.raises(ConfigurationError, match=r"line 1: its value holds [A-Z]+=: is a line end missing"):
        load_text(tmp_path, f"{line}\nINFLUX_TOKEN=t\n")


def test_a_secret_file_in_the_environment_beats_a_secret_in_the_file(tmp_path: Path) -> None:
    secret = tmp_path / "token"
    secret.write_text("from-file\n")
    secret.chmod(0o600)

    configuration = load_text(
        tmp_path, "INFLUX_TOKEN=in-env-file\nINFLUX_ORG=b\n", INFLUX_TOKEN_FILE=str(secret), CSV_OUTPUT_DIR=str(tmp_path)
    )

    assert configuration.settings.influx_token.reveal() == "from-file"


@pytest.mark.parametrize("token", ["a$b", "a${HOME}b", "a#b", "a=b==", 'a"b', "a'b", "$HOME", "per%cent"])
def test_a_token_is_taken_as_it_stands_whatever_the_line_ends(tmp_path: Path, token: str) -> None:
    text = f"INFLUX_TOKEN={token}\nINFLUX_ORG=b\nK_VALUE=7\nOUTPUT_TO_CSV=false\n".encode()

    for written in (text, b"\xef\xbb\xbf" + text.replace(b"\n", b"\r\n")):
        settings = load_text(tmp_path, written).settings
        assert (settings.influx_token.reveal(), settings.k_value) == (token, 7)


@pytest.mark.parametrize("name", SECRETS)
def test_every_secret_can_be_a_file_but_not_both(tmp_path: Path, name: str) -> None:
    path = tmp_path / "secret"
    path.write_text(f"{KEY}\n")
    path.chmod(0o600)
    file_only = {"INFLUX_TOKEN": ""} if name == "INFLUX_TOKEN" else {}

    held = load_with(tmp_path, **file_only, **{f"{name}_FILE": str(path)}).settings
    problems = problems_of(tmp_path, **{name: KEY, f"{name}_FILE": str(path)})

    assert getattr(held, name.lower()).reveal() == KEY
    assert problems == [f"{name} and {name}_FILE are both set; keep one of them"]


def test_a_missing_or_empty_secret_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty").touch(0o600)

    assert "cannot be read" in problems_of(tmp_path, API_TOKEN_FILE="/no/such/secret")[0]
    assert "is empty" in problems_of(tmp_path, API_TOKEN_FILE=str(tmp_path / "empty"))[0]


def test_files_with_secrets_that_others_can_read_are_warned_of(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("x")
    (tmp_path / "token").chmod(0o644)
    (tmp_path / ".env").write_text(f"INFLUX_TOKEN_FILE={tmp_path / 'token'}\nINFLUX_ORG=b\nCSV_OUTPUT_DIR={tmp_path}\n")
    (tmp_path / ".env").chmod(0o640)

    warnings = load(tmp_path / ".env", {}).warnings

    assert [f"chmod 600 {tmp_path / name}" in " ".join(warnings) for name in (".env", "token")] == [True, True]


@pytest.mark.parametrize(
    ("name", "meant"), [("INFLUX_TOKN", "INFLUX_TOKEN"), ("LOG_LEVL", "LOG_LEVEL"), ("STREAMING_INTERVALL", "STREAMING_INTERVAL")]
)
def test_a_typo_is_warned_of_with_its_line_and_the_name_that_was_meant(tmp_path: Path, name: str, meant: str) -> None:
    warnings = " ".join(load_with(tmp_path, **{name: "s3cret-value"}).warnings)

    assert f"line 4: {name} is not a setting; did you mean {meant}?" in warnings
    assert "s3cret-value" not in warnings


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("K_VALU", "K_VALUE"),
        ("K_VALEU", "K_VALUE"),
        ("k_value", "K_VALUE"),
        ("influx_url", "INFLUX_URL"),
        ("K-VALUE", "K_VALUE"),
        ("PSEUDONYMISE_SOURCE_ID", "PSEUDONYMIZE_SOURCE_ID"),
        ("PSEUDONYMIZE_SOURCE_IDS", "PSEUDONYMIZE_SOURCE_ID"),
        ("DEVICES_FILTER", "DEVICE_FILTER"),
        ("BATCH_SIZE_SECOND", "BATCH_SIZE_SECONDS"),
        ("PSEUDONYMIZE", ""),
        ("K_ANONYMITY", ""),
        ("K", ""),
    ],
)
def test_what_may_be_meant_for_a_privacy_setting_is_a_mistake_and_never_its_default(
    tmp_path: Path, name: str, meant: str
) -> None:
    (problem,) = problems_of(tmp_path, **{name: "s3cret-value"})

    assert "line 4: " in problem
    assert "is not a setting" in problem
    assert meant in problem
    assert "s3cret-value" not in problem


def test_the_same_typo_in_the_environment_is_a_mistake_too(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load(tmp_path / ".env", {**MINIMAL, "PSEUDONYMISE_SOURCE_ID": "true"})
    assert caught.value.problems == (
        "in the environment PSEUDONYMISE_SOURCE_ID is not a setting; did you mean PSEUDONYMIZE_SOURCE_ID?",
    )
    assert load(tmp_path / ".env", {**MINIMAL, "METHODS": "x", "method": "y", "PATH": "z"})


def test_names_for_others_are_left_alone_and_any_other_is_warned_of_with_its_line(tmp_path: Path) -> None:
    for_others = {name: "x" for name in re.findall(r"\$\{([A-Z_]+)", (ROOT / "docker-compose.yml").read_text()) if name != "NAME"}
    others = {**for_others, "TZ": "Europe/Berlin", "HEART_SALT": "x"}
    warnings = load_with(tmp_path, **{**others, "INFLUX_ORG": "clinic"}, SOMETHING="else").warnings

    (warning,) = (warning for warning in warnings if "is not a setting" in warning)
    lines = (tmp_path / ".env").read_text().splitlines()
    assert f"line {lines.index('SOMETHING=else') + 1}: a name is not a setting" in warning


def test_a_secret_where_a_name_belongs_is_not_shown(tmp_path: Path) -> None:
    for line in ("PSEUDONYM_SALT7c1e4fa09b3d58=2611", "7c1e4fa09b3d58==", "PSEUDONYM_SALT 7c1e4fa09b3d58", "7c1e4fa09b3d58"):
        with pytest.raises(ConfigurationError) as caught:
            load_text(tmp_path, f"INFLUX_TOKEN=a\nINFLUX_ORG=b\n{line}\nK_VALUE: 5\n")
        assert "line 3" in str(caught.value)
        assert "7c1e4fa" not in str(caught.value)


def test_what_only_an_influxdb_2_needs_is_missed_by_a_check_that_does_not_connect_and_not_by_a_run(tmp_path: Path) -> None:
    missing = "INFLUX_ORG is not set: an InfluxDB 2 needs both"
    for changes, expected in (
        ({}, False),
        ({"INFLUX_ORG": ""}, True),
        ({"INFLUX_ORG": "", "INFLUX_USERNAME": "a", "INFLUX_PASSWORD": "b"}, False),
    ):
        loaded = load_with(tmp_path, **changes)
        assert any(missing in remark for remark in untold_without_connection(loaded.settings)) == expected
        assert not any(missing in warning for warning in loaded.warnings)


def test_ids_that_leave_as_they_are_are_warned_of(tmp_path: Path) -> None:
    assert any("source ids are released unchanged" in warning for warning in load_with(tmp_path).warnings)
    assert not any("as they are" in w for w in load_with(tmp_path, PSEUDONYMIZE_SOURCE_ID="true", PSEUDONYM_SALT=KEY).warnings)


@pytest.mark.parametrize("k_unit", ["record", "source"])
@pytest.mark.parametrize(("method", "anonymizer"), [("hierarchy", LevelHierarchyAnonymizer), ("optimal", OptimalAnonymizer)])
def test_method_k_and_what_it_counts_are_what_windows_are_anonymized_by(
    tmp_path: Path, method: str, anonymizer: type, k_unit: str
) -> None:
    settings = load_with(tmp_path, METHOD=method, K_UNIT=k_unit, K_VALUE="7").settings

    recipe = make_recipe(settings, load_hierarchy(settings), "data set")

    assert isinstance(recipe.method, anonymizer)
    assert isinstance(recipe.method, LevelHierarchyAnonymizer | OptimalAnonymizer)
    assert (recipe.method.k, recipe.method.k_unit) == (7, k_unit)
    assert (recipe.promise.k, recipe.promise.k_unit, recipe.promise.method) == (7, k_unit, method)


@pytest.mark.parametrize(
    ("settings", "unused"),
    [
        ({"MAX_LEVEL": "7"}, "MAX_LEVEL"),
        ({"RESIDUAL": "impute"}, "RESIDUAL"),
        ({"RESIDUAL": "drop", "IMPUTATION": "midpoint", "MAX_LEVEL": "3"}, "RESIDUAL, IMPUTATION"),
        # All settings stand in .env.example with their defaults; a copy of it with one word changed is right.
        ({"MAX_LEVEL": "3", "RESIDUAL": "regroup", "IMPUTATION": "mean", "HIERARCHY_CSV_PATH": ""}, ""),
    ],
)
def test_settings_of_the_hierarchy_are_warned_of_where_no_hierarchy_is_climbed(
    tmp_path: Path, settings: dict[str, str], unused: str
) -> None:
    warnings = load_with(tmp_path, METHOD="optimal", **settings).warnings

    said = [f"METHOD=optimal uses no hierarchy levels and ignores {unused}"] if unused else []
    assert [warning for warning in warnings if "METHOD" in warning] == said
    # What they would mean is not true here: neither ranges nor gaps are released.
    assert not any(warning.startswith(("RESIDUAL", "IMPUTATION")) for warning in warnings)
    assert not any("METHOD" in warning for warning in load_with(tmp_path, **settings).warnings)


def test_a_hierarchy_of_ones_own_only_tells_the_optimal_method_where_to_code_values(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_text((ROOT / "anonymizer" / "smarko_hierarchy_ecg.csv").read_text())

    warnings = load_with(tmp_path, METHOD="optimal", HIERARCHY_CSV_PATH=str(path)).warnings

    assert any("only the first and the last value" in warning for warning in warnings)


LONG_TEXTS = st.text(st.characters(blacklist_categories=["Cs", "Cc"]), min_size=1, max_size=40).filter(
    lambda one: len(one.strip()) > 3
)


@given(value=LONG_TEXTS)
def test_no_secret_is_ever_shown(tmp_path_factory: pytest.TempPathFactory, value: str) -> None:
    secret, nowhere = f"s3cr{value.strip()}et", tmp_path_factory.getbasetemp() / "none.env"
    good = {**MINIMAL, **dict.fromkeys(SECRETS, secret)}
    addresses = {"INFLUX_URL": f"http://user:{secret}@host", "API_ENDPOINT": f"http://me:{secret}@host/api"}

    with pytest.raises(ConfigurationError) as caught:
        load(nowhere, {**good, **addresses, "K_VALUE": "1"})

    assert secret not in str(caught.value)
    assert secret not in repr(load(nowhere, good))


def test_the_example_file_names_every_setting_and_means_the_defaults() -> None:
    shipped = (ROOT / ".env.example").read_text(encoding="utf-8")
    values = dotenv_values(ROOT / ".env.example", interpolate=False)

    assert shipped == env_example(), "run: python scripts/make_configuration.py"
    assert set(values) == set(DECLARED)
    assert {name for name in KNOWN_NAMES if name in shipped} == KNOWN_NAMES
    filled_in = {"INFLUX_TOKEN", "INFLUX_ORG"}
    assert {name: values[name] for name in DECLARED if name not in filled_in} == {
        name: field.metadata["default"] for name, field in DECLARED.items() if name not in filled_in
    }


def test_the_configuration_page_is_written_from_the_code() -> None:
    assert (ROOT / "documentation" / "CONFIGURATION.md").read_text(encoding="utf-8") == configuration_page(), (
        "run: python scripts/make_configuration.py"
    )


def test_no_tag_of_a_cohort_hides_a_field_of_the_summaries() -> None:
    batch = usual_batch()
    of_rhythm = replace(batch, promise=Promise(method="rhythm", template_digest="0" * 16))
    assert set(summary_of(batch)) | set(summary_of(of_rhythm)) == SUMMARY_FIELDS


def test_without_a_value_the_cohort_is_the_rows_without_the_tag(tmp_path: Path) -> None:
    assert cohort_of(load_with(tmp_path).settings) is None
    assert cohort_of(load_with(tmp_path, COHORT_TAG="ward").settings) == Cohort("ward", "")
    assert cohort_of(load_with(tmp_path, COHORT_TAG="ward", COHORT="3 = ${x}").settings) == Cohort("ward", "3 = ${x}")


@pytest.mark.skipif(sys.platform == "win32", reason="sh, sleep and printf are POSIX")
def test_a_secret_may_come_from_a_command_which_no_shell_and_no_time_without_end_is_given(tmp_path: Path) -> None:
    script = tmp_path / "vault of the ward"
    script.write_text(f"#!/bin/sh\necho {KEY}\necho a-token-in-a-message >&2\ntest -t 0 && exit 9\nexit $1\n")
    script.chmod(0o700)
    settings = load_with(tmp_path, INFLUX_TOKEN="", INFLUX_TOKEN_COMMAND=f"\"'{script}' 0\"").settings
    assert settings.influx_token.reveal() == KEY
    assert secret_of_command("printf '$HOME `id` ~'") == "$HOME `id` ~"
    assert secret_of_command("printf 'a\\n\\n'") == "a\n"
    assert secret_of_command(r"printf '\377'", may_be_bytes=True).encode(errors="surrogateescape") == b"\xff"

    begun_s = time.monotonic()
    for command, reason in {
        f"'{script}' 3": "failed with exit code 3",
        "sh -c 'sleep 60 & sleep 60'": "did not end within 0.2 s",
        "cat /dev/zero": "printed more than 4096 bytes",
        "true": "printed nothing",
        r"printf '\377'": "something else than UTF-8 text",
        "no-such-program-here x": "cannot be started (No such file or directory)",
        "printf 'a": "is no command: a quote in it is not closed",
        "  ": "is no command: it names no program",
    }.items():
        with pytest.raises(ValueError, match=re.escape(reason)) as refused:
            secret_of_command(command, longest_s=0.2)
        assert not any(word in str(refused.value) for word in (KEY, "a-token", "vault", "program-here"))
    assert time.monotonic() - begun_s < 30
    with pytest.raises(ConfigurationError) as refusal:
        load_with(tmp_path, INFLUX_TOKEN_COMMAND="true", API_TOKEN_COMMAND="false")
    assert "INFLUX_TOKEN and INFLUX_TOKEN_COMMAND are both set; keep one of them" in refusal.value.problems
    assert any(
        problem.startswith("API_TOKEN_COMMAND names a command that failed with exit code 1") for problem in refusal.value.problems
    )


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"PSEUDONYM_SALT": "", "PSEUDONYM_SALT_COMMAND": "false"}, "PSEUDONYM_SALT_COMMAND names a command that failed"),
        ({"PSEUDONYM_SALT": "", "PSEUDONYM_SALT_FILE": "/no/key"}, "PSEUDONYM_SALT_FILE names /no/key, which cannot be read"),
        ({"PSEUDONYM_SALT": "", "PSEUDONYM_SALT_FILE": "/dev/null"}, "PSEUDONYM_SALT_FILE names /dev/null, which is empty"),
        ({"PSEUDONYM_SALT": "", "PSEUDONYM_SALT_FILE": "~/key"}, "PSEUDONYM_SALT_FILE must be "),
        (
            {"PSEUDONYM_SALT": "", "PSEUDONYM_SALT_FILE": "a", "PSEUDONYM_SALT_COMMAND": "b"},
            "PSEUDONYM_SALT_FILE and PSEUDONYM_SALT_COMMAND are both set",
        ),
        ({"STATUS_ADDRESS": "0.0.0.0:9464", "STATUS_TOKEN_COMMAND": "false"}, "STATUS_TOKEN_COMMAND names a command that failed"),
        (
            {"INFLUX_QUERY_LANGUAGE": "flux", "INFLUX_TOKEN": "", "INFLUX_TOKEN_FILE": "/no/token"},
            "INFLUX_TOKEN_FILE names /no/token, which cannot be read",
        ),
    ],
)
def test_a_secret_that_cannot_be_read_is_not_missed_as_well(given: dict[str, str], problem: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as refusal:
        load_with(tmp_path, PSEUDONYMIZE_SOURCE_ID="true", **{"PSEUDONYM_SALT": KEY, **given})

    (only,) = refusal.value.problems
    assert only.startswith(problem)
