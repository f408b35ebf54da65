"""`--check --connect` ends with what is ready, weak and not known of a site, on each version of InfluxDB and of a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from anonymizer.batch import Promise
from anonymizer.pseudonyms import key_id_of
from service.first_look.findings import findings as first_findings
from service.settings.load import load
from service.state.epochs import Epoch
from service.state.journal import Journal
from tests.integration.clinic import FIRST_MINUTE, START_NS, Clinic, load_first_minute
from tests.integration.service_process import run_service
from tests.servers.influxdb3_double import Influx3Double


def findings(log: str, kind: str) -> list[str]:
    return [line.split(f"{kind}: ", 1)[1] for line in log.splitlines() if f" {kind}: " in line]


def first_look(tmp_path: Path, settings: dict[str, object]) -> tuple[list[str], list[str], list[str], str]:
    """Return what is ready, not known and weak (without what to set), and the log."""
    code, log = run_service(tmp_path, settings, "--check", "--connect")
    assert code == 0, log
    for name, text in settings.items():
        assert not (name.endswith(("TOKEN", "SALT", "PASSWORD")) and text and str(text) in log), "no secret"
    weak = findings(log, "Weak")
    assert all(line.partition(". Set ")[2] for line in weak), "each with what to set"
    return findings(log, "Ready"), findings(log, "Not known"), [line.split(". Set ")[0].split(" (")[0] for line in weak], log


#: Longer ago than the sample ECG.
TEN_YEARS_S = 3650 * 86400


@pytest.mark.influxdb
def test_a_first_look_ends_with_what_is_ready_weak_and_not_known(clinic: Clinic, tmp_path: Path) -> None:
    server = clinic.server
    clinic.raw, clinic.released = f"{clinic.raw}-kept", f"{clinic.released}-kept"
    for bucket in (buckets := [clinic.raw, clinic.released]):
        server.make_bucket(bucket, retention_s=TEN_YEARS_S)
    load_first_minute(clinic, seconds=30)
    lone = b"\n".join(b"ecg,source_id=night ecg=%di %d" % (n % 9, START_NS - 10**10 + n * 10**7) for n in range(400))
    server.write_lines(clinic.raw, lone)
    good: dict[str, object] = {
        **clinic.settings,
        **FIRST_MINUTE,
        "INFLUX_INPUT_BUCKET": clinic.raw,
        "INFLUX_OUTPUT_BUCKET": clinic.released,
        "INFLUX_TOKEN": server.make_token(read=[clinic.raw]),
        "INFLUX_OUTPUT_TOKEN": server.make_token(write=[clinic.released]),
        "INFLUX_VERIFY_TOKEN": server.make_token(read=buckets),
        "AUDIT_LOG": tmp_path / "audit.jsonl",
        "RETENTION_DAYS": 30,
    }
    ready, unknown, weak, _ = first_look(tmp_path, good)
    assert (unknown, weak) == ([], [])
    assert [line.split(" or more")[0] for line in ready] == [
        "source ids are replaced by pseudonyms",
        "nothing goes unencrypted to another machine",
        "each of 6 windows looked at has rows of 6 wearers",
        f"bucket {clinic.raw} keeps raw ECG for 3650 days",
        "INFLUX_OUTPUT_TOKEN cannot read raw ECG",
        "INFLUX_TOKEN cannot write",
        f"bucket {clinic.released} keeps released rows for 3650 days",
        "windows that another STATE_DIR released are seen in the output bucket",
        "CSV files, reports and rows set aside are removed 30 days after their release; not what InfluxDB or the API took, nor copies "
        "of files",
        "starts, changed settings and commands are kept in AUDIT_LOG",
    ]

    all_rights = server.make_token(read=buckets, write=buckets)
    night = {"QUERY_START_TIME": "2025-11-03T14:29:00Z"}
    careless = {
        "INFLUX_TOKEN": all_rights,
        "INFLUX_OUTPUT_TOKEN": "",
        "PSEUDONYMIZE_SOURCE_ID": "false",
        "AUDIT_LOG": "",
        "LOG_LEVEL": "WARNING",
    }
    ready, _, weak, log = first_look(tmp_path, good | careless | night)
    assert weak == [
        "source ids leave as they are, so what is released is identified personal data",
        "1 of 7 windows looked at hold rows of one wearer only, so all rows that share a value are one person's",
        "one token, or user, reads raw ECG and writes the output",
        "nothing records starts, changed settings and operators' commands",
    ]
    assert not ready, "a quiet log has the weak points all the same"
    assert "Set PSEUDONYMIZE_SOURCE_ID=true and PSEUDONYM_SALT_FILE to a file with a key; make one with: python3 -c" in log
    assert "night" not in log.replace("2025", ""), "counts only"

    both_do_everything = {"INFLUX_TOKEN": all_rights, "INFLUX_OUTPUT_TOKEN": server.make_token(read=buckets, write=buckets)}
    stream = {"STREAMING_MODE": "true", "QUERY_START_TIME": "", "QUERY_END_TIME": "", "STATUS_ADDRESS": ""}
    _, unknown, weak, _ = first_look(tmp_path, good | both_do_everything | stream)
    assert weak == [
        "INFLUX_OUTPUT_TOKEN can read raw ECG",
        f"INFLUX_TOKEN can write {' and '.join(sorted(buckets))}",
        "INFLUX_OUTPUT_TOKEN can read the output bucket, and writes it",
        "nothing can ask a running service whether data flow",
    ]
    assert unknown == ["how many wearers share a window: the span that was looked at has no rows"]

    few = {
        "K_UNIT": "source",
        "K_VALUE": 6,
        "INFLUX_OUTPUT_BUCKET": clinic.raw,
        "INFLUX_OUTPUT_TOKEN": server.make_token(write=buckets),
    }
    _, _, weak, _ = first_look(tmp_path, good | few | night)
    assert weak == [
        "1 of 7 windows looked at have fewer than 6 wearers and would be withheld whole",
        f"raw and released rows are in one bucket, {clinic.raw}: who may read the one reads the other",
    ]

    for_ever = Clinic(server)
    _, unknown, weak, _ = first_look(tmp_path, for_ever.settings | {"AUDIT_LOG": tmp_path / "audit.jsonl"})
    assert weak == [
        f"bucket {for_ever.raw} keeps raw ECG for ever",
        "no token can read the output bucket, so windows that another STATE_DIR released would be released again",
        "CSV files keep released rows for ever",
    ]
    assert unknown[1] == (
        f"how long bucket {for_ever.released} keeps released rows: the server does not tell it to the tokens that are set"
    )
    # A probe of a write is no write, and a look leaves nothing.
    assert clinic.stored() == for_ever.stored() == {}
    assert {path.name for path in tmp_path.iterdir()} == {".env", "service.log"}


def test_a_first_look_at_a_file_counts_its_wearers_and_a_weak_key_of_old_releases_is_told(tmp_path: Path) -> None:
    recording, weak_key = tmp_path / "recording.csv", "correct horse battery staple of ward 3"
    rows = [
        f"2025-11-03T{hour}:00:0{second}Z,w{w},1"
        for hour in (10, 22)
        for second in range(5)
        for w in range(6 if hour == 10 else 1)
    ]
    recording.write_text("\n".join(["timestamp,source_id,ecg", *rows]) + "\n", encoding="utf-8")
    given: dict[str, object] = {"INPUT_FILE": recording, "OUTPUT_TO_INFLUX": "false", "AUDIT_LOG": tmp_path / "audit.jsonl"}
    given |= {"OUTPUT_TO_PARQUET": "true", "PARQUET_URL": tmp_path / "parquet"}
    ids = {"PSEUDONYMIZE_SOURCE_ID": "true", "PSEUDONYM_SALT": weak_key}

    _, unknown, weak, _ = first_look(tmp_path, given)
    assert (unknown, weak) == (
        [],
        [
            "source ids leave as they are, so what is released is identified personal data",
            "1 of 2 windows looked at hold rows of one wearer only, so all rows that share a value are one person's",
            "CSV and Parquet files keep released rows for ever",
        ],
    )
    code, log = run_service(tmp_path, given | ids, "--check", "--connect")
    assert (code, findings(log, "Weak")) == (78, []), "no first look without a configuration"
    # As a version left it that took such keys.
    journal = Journal(tmp_path / "state", data_set="a")
    journal.epochs.begin(Epoch(Promise(5, "record", "hierarchy", "0" * 16, key_id_of(weak_key.encode())), window_ns=5), now_ns=1)
    journal.close()
    by_day = {"QUERY_END_TIME": "2025-11-03T12:00:00Z"}
    ready, unknown, weak, log = first_look(tmp_path, given | ids | by_day)
    assert (unknown, weak) == (
        [],
        ["the key of the pseudonyms can be guessed", "CSV and Parquet files keep released rows for ever"],
    )
    assert "each of 1 windows looked at has rows of 6 wearers or more" in ready
    assert "and, for one start, ACCEPT_NEW_PSEUDONYM_KEY=true" in findings(log, "Weak")[0]


def test_a_first_look_names_each_address_that_others_on_the_network_can_listen_to(tmp_path: Path) -> None:
    """The hosts are asked nothing: this is the list alone."""
    recording = tmp_path / "recording.csv"
    recording.write_text("timestamp,source_id,ecg\n2025-11-03T10:00:00Z,w,1\n", encoding="utf-8")
    given = {
        "INPUT_FILE": str(recording),
        "OUTPUT_TO_INFLUX": "false",
        "OUTPUT_TO_API": "true",
        "API_ENDPOINT": "http://api.invalid/ecg",
        "STATUS_ADDRESS": "0.0.0.0:9464",
        "STATUS_TOKEN": "s" * 32,
    }
    settings = load(tmp_path / ".env", given).settings

    found = {one.what: one.remedy for one in first_findings(settings)}

    assert found["API_ENDPOINT=http://api.invalid/ecg goes over a network unencrypted"] == "API_ENDPOINT to an https address"
    assert "STATUS_ADDRESS=0.0.0.0:9464 answers other machines unencrypted" in found
    assert "nothing goes unencrypted to another machine" not in found


@pytest.mark.influxdb
def test_a_first_look_at_version_1_tells_users_that_may_too_much_and_a_server_that_asks_for_none(
    influxdb1: Any, tmp_path: Path
) -> None:
    clinic = Clinic(influxdb1)
    load_first_minute(clinic, seconds=5)
    influxdb1.ask(f'ALTER RETENTION POLICY "autogen" ON "{clinic.raw}" DURATION {TEN_YEARS_S}s')
    user, _, password = str(clinic.settings["INFLUX_TOKEN"]).partition(":")
    good: dict[str, object] = {
        **clinic.settings,
        **FIRST_MINUTE,
        "INFLUX_TOKEN": "",
        "INFLUX_USERNAME": user,
        "INFLUX_PASSWORD": password,
        "INFLUX_VERIFY_TOKEN": influxdb1.make_token(read=[clinic.raw, clinic.released]),
        "AUDIT_LOG": tmp_path / "audit.jsonl",
        "RETENTION_DAYS": 30,
    }
    ready, unknown, weak, _ = first_look(tmp_path, good)
    assert (unknown, weak) == ([], [f"bucket {clinic.released} keeps released rows for ever"])
    assert f"bucket {clinic.raw} keeps raw ECG for 3650 days" in ready
    assert {"INFLUX_OUTPUT_TOKEN cannot read raw ECG", "INFLUX_USERNAME cannot write"} <= set(ready)

    administrator = {
        "INFLUX_USERNAME": "admin",
        "INFLUX_PASSWORD": influxdb1.token.partition(":")[2],
        "OUTPUT_TO_INFLUX": "false",
    }
    _, unknown, weak, _ = first_look(tmp_path, good | administrator)
    assert (unknown, weak) == ([], [f"INFLUX_USERNAME can write {clinic.raw}"])
    _, _, weak, _ = first_look(tmp_path, good | administrator | {"OUTPUT_TO_INFLUX": "true", "INFLUX_OUTPUT_TOKEN": ""})
    assert "one token, or user, reads raw ECG and writes the output" in weak


@pytest.mark.influxdb
def test_a_first_look_at_version_3_says_what_its_tokens_cannot_keep_apart(influxdb3: Any, tmp_path: Path) -> None:
    clinic = Clinic(influxdb3)
    load_first_minute(clinic, seconds=5)
    given = {**clinic.settings, **FIRST_MINUTE, "AUDIT_LOG": tmp_path / "audit.jsonl", "RETENTION_DAYS": 30}

    _, unknown, weak, log = first_look(tmp_path, given)

    assert weak == ["one token, or user, reads raw ECG and writes the output"]
    assert "InfluxDB 3 Core has none (documentation/PRIVACY.md)" in findings(log, "Weak")[0]
    assert [line.split(":")[0] for line in unknown] == [
        f"how long bucket {clinic.raw} keeps raw ECG",
        f"how long bucket {clinic.released} keeps released rows",
    ]
    _, unknown, _, _ = first_look(tmp_path, given | {"OUTPUT_TO_INFLUX": "false"})
    assert unknown[-1].startswith("whether INFLUX_TOKEN can write: InfluxDB 3 tells only by storing something")


@pytest.mark.influxdb
def test_a_first_look_at_a_server_without_authentication_says_that_anyone_reads_raw_ecg(influxdb1: Any, tmp_path: Path) -> None:
    server = Influx3Double(influxdb1, asks_for_token=False)
    clinic = Clinic(server)  # type: ignore[arg-type]
    load_first_minute(clinic, seconds=5)

    given = {**clinic.settings, **FIRST_MINUTE, "AUDIT_LOG": tmp_path / "audit.jsonl", "OUTPUT_TO_CSV": "false"}
    _, _, weak, _ = first_look(tmp_path, given)

    server.close()
    assert weak == ["INFLUX_URL answers without credentials: whoever reaches that server reads raw ECG"]
