"""Attack 4: ids, keys, tokens and values of lone rows are looked for in every byte that runs of the service leave behind.

Every wearer's id, key and token, and every value that fewer than k rows resemble, is a canary: planted, and then searched for in outputs,
logs at DEBUG, journal, spool and what was set aside, unpacked and decoded, after runs that went well and after every failure that could
be thought of. Core dumps are left out: the units that deployment ships switch them off.
"""

from __future__ import annotations

import base64
import bz2
import dataclasses
import gzip
import io
import json
import lzma
import sqlite3
import struct
import time
import urllib.parse
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.ipc as pa_ipc
import pyarrow.parquet as pa_parquet
import pytest
import requests

from anonymizer.pseudonyms import Pseudonymizer
from service import crash_points
from service.settings.load import load
from service.wiring.recipe import load_hierarchy, make_recipe
from testbed.influxdb_server import InfluxServer
from tests.attacks.canaries import Canaries, left_in
from tests.integration.clinic import START_NS, Clinic
from tests.integration.service_process import ROOT, Service, free_address, run_on_file, run_service
from tests.scripts.verifying import run_check
from tests.servers.api_server import ApiServer, Reply

KEY = "c4a1e0f97b2d568391fe04c7da6b825f30e917b84d2c6fa5e1870b93d46f52ac"
OTHER_KEY = "0b9d75e2f81c4a36d7e0925cb8f413a66f2e81d09c573b4ae7d1640f982bc35a"
TOKENS = {
    "API_TOKEN": "canary-api-token/+=$",
    "INFLUX_TOKEN": "canary-influx-token-1",
    "INFLUX_OUTPUT_TOKEN": "canary-influx-token-2",
}
WEARERS = ("canary-wearer-Ä 1", "canary-wearer-2")
STATUS_TOKEN = "canary-status-token-of-use-nowhere-else"
#: In rows that are never released: without a number, in a window that is too small, too late.
UNRELEASED = ("canary-invalid", "canary-lonely", "canary-late")
#: Below zero and of five digits: a whole number of four may be how many milliseconds something took, or part of a random name.
LONE_UV = (-18735.678, -19876.54, -20572.25, -13615.5)
#: In files that cannot be read, where messages like to quote.
CELLS = ("canary-cell", "canary-key", "canary-text")

CANARIES = Canaries((*WEARERS, *UNRELEASED, *CELLS, *TOKENS.values(), KEY, OTHER_KEY), LONE_UV)

SHARED_UV = (10, 12, 20, 21, 40)
SPAN = {"QUERY_START_TIME": "2025-11-03T14:30:00Z", "QUERY_END_TIME": "2025-11-03T14:30:20Z"}

PSEUDONYMS = Pseudonymizer(KEY.encode()).released_ids(WEARERS)

#: What a person gives the service, not what it leaves behind.
GIVEN = (".env", "recording.csv", "recording.parquet", "recording.csv.gz")


# The search finds what is there


def as_sqlite(content: bytes) -> bytes:
    database = sqlite3.connect(":memory:")
    database.execute("create table kept (id text, row blob)")
    database.execute("insert into kept values ('x', ?)", (zlib.compress(content),))
    return database.serialize()


def as_zip(content: bytes) -> bytes:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("member", content)
    return archive.getvalue()


def as_parquet(content: bytes) -> bytes:
    file = io.BytesIO()
    pa_parquet.write_table(pa.table({"text": [content.decode()]}), file, compression="zstd")
    return file.getvalue()


def as_arrow(content: bytes) -> bytes:
    table = pa.table({"text": [content.decode()]})
    file = io.BytesIO()
    with pa_ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)
    return file.getvalue()


HIDING: dict[str, Callable[[bytes], bytes]] = {
    "not at all": lambda content: b"before " + content + b" after",
    "gzip": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zlib": zlib.compress,
    "zip": as_zip,
    "sqlite": as_sqlite,
    "base64": base64.b64encode,
    "base64 for addresses": base64.urlsafe_b64encode,
    "hexadecimal": lambda content: content.hex().encode(),
    "gzip in base64": lambda content: b"x=" + base64.b64encode(gzip.compress(content)),
    "base64 in zip": lambda content: as_zip(base64.b64encode(content)),
}


@pytest.mark.parametrize("hiding", HIDING)
def test_the_search_finds_what_was_hidden(hiding: str) -> None:
    for text in CANARIES.texts:
        assert CANARIES.search({"x": HIDING[hiding](text.encode() + b", some more to fill the line")}), text
    for value in LONE_UV:
        line = f"2025-11-03T14:30:00Z,someone,{value},\n".encode()
        assert CANARIES.search({"x": HIDING[hiding](line)}), value


@pytest.mark.parametrize("hide", [as_parquet, as_arrow])
def test_the_search_reads_tables(hide: Callable[[bytes], bytes]) -> None:
    assert all(CANARIES.search({"x": hide(f"<{canary}>".encode())}) for canary in (*CANARIES.texts, *LONE_UV))


TEXT_FORMS: dict[str, Callable[[str], str]] = {
    "repr of bytes": lambda text: repr(text.encode()),
    "ascii": ascii,
    "JSON": json.dumps,
    "address": urllib.parse.quote,
    "list": lambda text: repr(list(text.encode())),
    "HEX": lambda text: text.encode().hex().upper(),
    **{f"base64 after {n}": (lambda text, n=n: base64.b64encode(b"-" * n + text.encode()).decode()) for n in range(4)},  # type: ignore[misc]
}


@pytest.mark.parametrize("form", TEXT_FORMS)
def test_the_search_knows_a_text_in_its_other_forms(form: str) -> None:
    assert all(CANARIES.search({"x": f"x {TEXT_FORMS[form](text)} y".encode()}) for text in CANARIES.texts)


NUMBER_FORMS: dict[str, Callable[[float], bytes]] = {
    "csv": lambda value: f"a,{round(value)}.0\n".encode(),
    "line protocol": lambda value: f"ecg={round(value)} 1".encode(),
    "integer": lambda value: f"ecg={round(value)}i 1".encode(),
    "json": lambda value: json.dumps({"ecg": value, "x": [round(value)]}).encode(),
    "numpy": lambda value: repr(np.array([1.0, value])).encode(),
    "millivolts": lambda value: f"{value / 1000}".encode(),
    "columns": lambda value: np.array([1.5, value, 2.5]).tobytes(),
    "whole columns": lambda value: np.array([1, round(value), 2]).tobytes(),
    "shorts": lambda value: np.array([12, round(value), 40], dtype="<i2").tobytes(),
    "singles": lambda value: np.array([1.5, value], dtype=np.float32).tobytes(),
    "network order": lambda value: struct.pack(">d", value),
}


@pytest.mark.parametrize("form", NUMBER_FORMS)
def test_the_search_knows_a_number_in_its_other_forms(form: str) -> None:
    assert all(CANARIES.search({"x": NUMBER_FORMS[form](value)}) for value in LONE_UV)


def test_the_search_finds_nothing_where_nothing_is() -> None:
    innocent = " ".join(f"{number} {number}.0 x{number}" for number in range(1000)).encode()

    assert CANARIES.search({"x": innocent, "y": gzip.compress(innocent), "z": np.arange(1000.0).tobytes()}) == []


# What runs leave behind


def raw_lines() -> list[str]:
    """Two wearers of 200 shared values each over two windows, lone rows, one window with one lone row, and rows without a number."""
    escaped = [name.replace(" ", "\\ ") for name in WEARERS]
    lines = [f"ecg,source_id={name} ecg={SHARED_UV[i % 5]} {START_NS + i * 50_000_000}" for name in escaped for i in range(200)]
    lines += [f"ecg,source_id={escaped[0]} ecg={value} {START_NS + (n + 1) * 10**9 + 7}" for n, value in enumerate(LONE_UV[:3])]
    lines += [f"ecg,source_id={UNRELEASED[1]} ecg={LONE_UV[3]} {START_NS + 16 * 10**9}"]
    return lines


def write_file(path: Path) -> Path:
    rows = [f"2025-11-03T14:30:{i // 20:02}.{i % 20 * 50:03}Z,{name},{SHARED_UV[i % 5]}" for name in WEARERS for i in range(200)]
    rows += [f"2025-11-03T14:30:0{n + 1}.001Z,{WEARERS[0]},{value}" for n, value in enumerate(LONE_UV[:3])]
    rows += [f"2025-11-03T14:30:01Z,{UNRELEASED[0]},{CELLS[0]}", f"never,{UNRELEASED[0]},{LONE_UV[3]}"]
    rows += [f"2025-11-03T14:30:16Z,{UNRELEASED[1]},{LONE_UV[3]}"]
    path.write_text("\n".join(["timestamp,source_id,ecg", *rows]) + "\n", encoding="utf-8")
    return path


def settings_of(clinic: Clinic, api_server: ApiServer) -> dict[str, object]:
    return {
        **clinic.settings,
        **SPAN,
        "PSEUDONYM_SALT": KEY,
        "OUTPUT_TO_API": "true",
        "API_ENDPOINT": api_server.endpoint,
        "API_TOKEN": TOKENS["API_TOKEN"],
        "LOG_LEVEL": "DEBUG",
        "RETRY_BUDGET_SECONDS": "0",
        "MAX_RECORDS_PER_QUERY": "1",
    }


def at_the_api(api_server: ApiServer) -> dict[str, bytes]:
    """Return everything the API was sent, without the one header that is there to carry its token."""
    return {
        f"request {number} to the API": json.dumps(
            {name: value for name, value in one.headers.items() if name != "authorization"}
        ).encode()
        + one.body
        for number, one in enumerate(api_server.deliveries())
    }


def in_the_bucket(clinic: Clinic) -> dict[str, bytes]:
    return {"output bucket": clinic.server.query_csv(f"from(bucket: {json.dumps(clinic.released)}) |> range(start: 0)").encode()}


def secrets_of(settings: Mapping[str, object]) -> Canaries:
    """Return the canaries, and the real tokens of a run."""
    tokens = tuple(str(settings[name]) for name in ("INFLUX_TOKEN", "INFLUX_OUTPUT_TOKEN"))
    return Canaries((*CANARIES.texts, *tokens), CANARIES.values)


@pytest.mark.influxdb
def test_a_run_with_every_output_leaves_no_canary_anywhere(clinic: Clinic, tmp_path: Path, api_server: ApiServer) -> None:
    clinic.server.write_lines(clinic.raw, "\n".join(raw_lines()).encode())
    settings = settings_of(clinic, api_server)
    # The API refuses one window for good, and quotes what it was sent, as servers do.
    quoting = f"token {TOKENS['API_TOKEN']} of {WEARERS[0]}"
    api_server.script(Reply(status=400, body=json.dumps({"message": quoting})))

    with Service(tmp_path, settings) as service:
        command_line = Path(f"/proc/{service.process.pid}/cmdline").read_bytes()
        code, log = service.exit_code(), service.log
    # Then a row comes late, and the service looks again.
    late = f"ecg,source_id={UNRELEASED[2]} ecg={LONE_UV[3]} {START_NS + 5}"
    clinic.server.write_lines(clinic.raw, late.encode())
    again = tmp_path / "again"
    again.mkdir()
    run_service(again, {**settings, "STATE_DIR": tmp_path / "state", "CSV_OUTPUT_DIR": tmp_path / "csv"})

    assert code == 65, log
    left = left_in(tmp_path, without=GIVEN)
    sent, stored = at_the_api(api_server), in_the_bucket(clinic)
    kinds = {"journal": ".sqlite", "log": ".log", "CSV": ".csv", "set aside": "set_aside/"}
    for kind, mark in kinds.items():
        assert any(mark in place for place in left), f"no {kind} to search"
    # What may be there is there, so this is the place to look.
    seen = Canaries(PSEUDONYMS, ()).search({**left, **sent, **stored})
    assert {found.place.partition("/")[0].rstrip("0123456789 ") for found in seen} >= {"csv", "state", "output bucket"}
    assert any("to the API" in found.place for found in seen)

    assert secrets_of(settings).search({**left, **sent, **stored, "command line": command_line}) == []


@pytest.mark.influxdb
@pytest.mark.parametrize(
    "place", [crash_points.AFTER_READ, crash_points.MID_SPOOL, crash_points.AFTER_RELEASED, crash_points.AFTER_WRITE]
)
def test_a_run_that_is_killed_leaves_no_canary_in_what_it_was_writing(
    clinic: Clinic, tmp_path: Path, api_server: ApiServer, place: str
) -> None:
    clinic.server.write_lines(clinic.raw, "\n".join(raw_lines()).encode())
    settings = settings_of(clinic, api_server)

    code, log = run_service(tmp_path, settings, environment={crash_points.VARIABLE: place})

    assert code == -9, log
    left = left_in(tmp_path, without=GIVEN)
    assert secrets_of(settings).search({**left, **at_the_api(api_server), **in_the_bucket(clinic)}) == []


UNREACHABLE = "http://127.0.0.1:9"

#: Each a way to fail, with how the run ends.
FAILURES: dict[str, tuple[dict[str, object], int]] = {
    "wrong token": ({"INFLUX_TOKEN": TOKENS["INFLUX_TOKEN"]}, 78),
    "wrong token to write with": ({"INFLUX_OUTPUT_TOKEN": TOKENS["INFLUX_OUTPUT_TOKEN"]}, 78),
    "no server": ({"INFLUX_URL": UNREACHABLE, "INFLUX_TOKEN": TOKENS["INFLUX_TOKEN"]}, 69),
    "no API": ({"API_ENDPOINT": f"{UNREACHABLE}/"}, 69),
    "key too short": ({"PSEUDONYM_SALT": CELLS[1]}, 78),
    "nobody there": ({"DEVICE_FILTER": UNRELEASED[2]}, 0),
    "no such tag": ({"SOURCE_TAG": "patient"}, 78),
    "residual dropped": ({"RESIDUAL": "drop"}, 0),
    "classic": ({"MAX_LEVEL": 7, "RESIDUAL": "impute", "IMPUTATION": "midpoint"}, 0),
    "optimal": ({"METHOD": "optimal"}, 0),
    "by source": ({"K_UNIT": "source", "K_VALUE": 2}, 0),
}


@pytest.mark.influxdb
@pytest.mark.parametrize("failure", FAILURES)
def test_no_failure_and_no_way_to_anonymize_leaves_a_canary(
    clinic: Clinic, tmp_path: Path, api_server: ApiServer, failure: str
) -> None:
    clinic.server.write_lines(clinic.raw, "\n".join(raw_lines()).encode())
    change, expected = FAILURES[failure]
    settings = {**settings_of(clinic, api_server), **change}

    code, log = run_service(tmp_path, settings)

    assert code == expected, log
    left = left_in(tmp_path, without=GIVEN)
    assert secrets_of(settings).search({**left, **at_the_api(api_server), **in_the_bucket(clinic)}) == []


def test_a_filter_that_names_a_wearer_is_not_quoted_when_it_cannot_be_used(tmp_path: Path) -> None:
    code, log = run_service(tmp_path, {"INFLUX_TOKEN": "t", "INFLUX_ORG": "o", "INFLUX_TAG_FILTER": WEARERS[1]})

    assert code == 78, log
    assert CANARIES.search(left_in(tmp_path, without=GIVEN)) == []


@pytest.mark.influxdb
def test_rows_that_the_database_refuses_leave_no_canary(clinic: Clinic, tmp_path: Path, api_server: ApiServer) -> None:
    clinic.server.write_lines(clinic.raw, "\n".join(raw_lines()).encode())
    # The field is an integer there already: every row of ours is refused, with a message that quotes what was sent.
    clinic.server.write_lines(clinic.released, f"ecg_anonymized,source_id=x ecg=1i {START_NS}".encode())
    settings = settings_of(clinic, api_server)

    code, log = run_service(tmp_path, settings)

    assert code != 0, log
    assert secrets_of(settings).search({**left_in(tmp_path, without=GIVEN), **at_the_api(api_server)}) == []


@pytest.mark.influxdb
@pytest.mark.parametrize(
    "lines",
    [
        f'ecg,source_id={UNRELEASED[0]} ecg="{CELLS[2]}" {START_NS}',
        "\n".join(f"ecg,source_id={UNRELEASED[0]},lead={n} ecg={value} {START_NS}" for n, value in enumerate(LONE_UV)),
    ],
    ids=["text", "two series"],
)
def test_raw_data_that_cannot_be_anonymized_is_refused_without_a_canary(
    clinic: Clinic, tmp_path: Path, api_server: ApiServer, lines: str
) -> None:
    clinic.server.write_lines(clinic.raw, lines.encode())
    settings = settings_of(clinic, api_server)

    code, log = run_service(tmp_path, settings)

    assert code == 78, log
    assert secrets_of(settings).search(left_in(tmp_path, without=GIVEN)) == []


def in_utf_16(path: Path) -> None:
    path.write_text(write_file(path).read_text(encoding="utf-8"), encoding="utf-16")


def without_header(path: Path) -> None:
    path.write_text(f"2025-11-03T14:30:00Z,{WEARERS[0]},{LONE_UV[0]}\n", encoding="utf-8")


def other_header(path: Path) -> None:
    # Names of columns are told, to help; what stands below them is not.
    path.write_text(f"time,wearer,ecg\n2025-11-03T14:30:00Z,{WEARERS[0]},{LONE_UV[0]}\n", encoding="utf-8")


def too_many_cells(path: Path) -> None:
    path.write_text(f"timestamp,source_id,ecg\n2025-11-03T14:30:00Z,{WEARERS[0]},{LONE_UV[0]},{CELLS[0]}\n", encoding="utf-8")


@pytest.mark.parametrize(
    ("spoil", "expected"), [(write_file, 0), (in_utf_16, 78), (without_header, 78), (other_header, 78), (too_many_cells, 78)]
)
def test_a_file_good_or_bad_leaves_no_canary(tmp_path: Path, spoil: Callable[[Path], object], expected: int) -> None:
    spoil(tmp_path / "recording.csv")
    path, key = tmp_path / "recording.csv", {"PSEUDONYMIZE_SOURCE_ID": "true", "PSEUDONYM_SALT": KEY}

    code, log = run_on_file(tmp_path, path, **key, LOG_LEVEL="DEBUG")

    assert code == expected, log
    assert CANARIES.search(left_in(tmp_path, without=GIVEN)) == []


def test_a_changed_key_and_a_key_that_others_may_read_are_told_of_without_showing_either(tmp_path: Path) -> None:
    write_file(tmp_path / "recording.csv")
    key_file = tmp_path / "key"
    settings = {"INPUT_FILE": tmp_path / "recording.csv", "OUTPUT_TO_INFLUX": "false", "PSEUDONYMIZE_SOURCE_ID": "true"}
    codes = []
    for key in (KEY, OTHER_KEY):
        key_file.write_text(key, encoding="utf-8")
        key_file.chmod(0o644)
        code, log = run_service(tmp_path, {**settings, "PSEUDONYM_SALT_FILE": key_file, "LOG_LEVEL": "DEBUG"})
        codes.append(code)
        assert f"chmod 600 {key_file}" in log

    assert codes == [0, 78]
    assert CANARIES.search(left_in(tmp_path, without=(*GIVEN, "key"))) == []


@pytest.mark.influxdb
def test_the_outside_check_shows_neither_its_token_nor_a_row(influxdb: InfluxServer, tmp_path: Path) -> None:
    write_file(tmp_path / "recording.csv")
    place = ["--url", influxdb.url, "--org", influxdb.org, "--bucket", "nowhere"]

    said = [
        run_check("--k", "5", "--batch-seconds", "5", str(tmp_path / "recording.csv"), "--table"),
        *(run_check(*place, environment={"INFLUX_VERIFY_TOKEN": token}) for token in TOKENS.values()),
    ]

    assert [code for code, _ in said] == [64, 64, 64, 64]
    assert CANARIES.search({"said": "\n".join(text for _, text in said).encode()}) == []


STATUS_PATHS = ("/", "/help", "/metrics", "/livez", "/readyz", "/status.json", "/settings.json", "/nothing-here")


@pytest.mark.influxdb
def test_status_page_metrics_and_json_log_of_a_stream_hold_no_canary(
    clinic: Clinic, tmp_path: Path, api_server: ApiServer
) -> None:
    clinic.server.write_lines(clinic.raw, "\n".join(raw_lines()).encode())
    address = free_address()
    streaming = {"STREAMING_MODE": "true", "QUERY_END_TIME": "", "LOG_FORMAT": "json", "STATUS_ADDRESS": address}
    settings = {**settings_of(clinic, api_server), **streaming, "DEVICE_FILTER": ",".join(WEARERS), "STATUS_TOKEN": STATUS_TOKEN}

    with Service(tmp_path, settings) as service:
        deadline_s = time.monotonic() + 60
        while len(api_server.deliveries()) < 2 and time.monotonic() < deadline_s:
            time.sleep(0.1)
        with requests.Session() as session:
            session.trust_env = False
            answers = {
                f"{path} with {token or 'no token'}": session.get(
                    f"http://{address}{path}", headers={"Authorization": f"Bearer {token}"} if token else {}, timeout=30
                )
                for path in STATUS_PATHS
                for token in ("", STATUS_TOKEN, TOKENS["API_TOKEN"])
            }
        service.stop()

    assert len(api_server.deliveries()) >= 2
    assert any("ecg" in answer.text and answer.ok for name, answer in answers.items() if name.startswith("/metrics"))
    seen = {name.partition(" with ")[0] + f" {number}": answer.content for number, (name, answer) in enumerate(answers.items())}
    hidden = Canaries((*secrets_of(settings).texts, STATUS_TOKEN), CANARIES.values)
    assert hidden.search({**seen, **left_in(tmp_path, without=GIVEN)}) == []


def test_core_dumps_are_switched_off_by_the_units_that_are_shipped() -> None:
    units = [path.read_text(encoding="utf-8") for path in (ROOT / "deploy").glob("*.service")]

    assert units
    assert all("LimitCORE=0" in unit for unit in units)


def test_no_way_to_print_settings_or_what_is_made_of_them_shows_a_secret(tmp_path: Path) -> None:
    given = {
        **TOKENS,
        "INFLUX_ORG": "o",
        "INFLUX_VERIFY_TOKEN": OTHER_KEY,
        "PSEUDONYMIZE_SOURCE_ID": "true",
        "PSEUDONYM_SALT": KEY,
    }
    settings = load(tmp_path / "no.env", given).settings
    recipe = make_recipe(settings, load_hierarchy(settings), "data")

    shown = [
        form(thing) for thing in (settings, recipe, recipe.names, vars(settings)) for form in (repr, str, ascii, "{}".format)
    ]
    shown.append(json.dumps(dataclasses.asdict(recipe.promise)))

    # Numbers are left out: the ranges of a hierarchy are shown, and hold every whole one.
    assert Canaries(CANARIES.texts, ()).search({"shown": "\n".join(shown).encode()}) == []
