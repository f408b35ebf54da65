"""What OPERATIONS.md says is printed when something is wrong is printed: every row is provoked on a real server, and read from the page.

In the page's texts `…` stands for anything, any number but a status in parentheses for any number, and any name in quotes for any name.
"""

from __future__ import annotations

import contextlib
import gzip
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pa_parquet
import pytest
from pydicom.uid import UID

from anonymizer.batch import Promise
from anonymizer.pseudonyms import key_id_of
from disk.file_lock import try_to_lock
from service import exit_codes
from service.state.epochs import Epoch
from service.state.erasures import OpenErasure
from service.state.instance_lock import InstanceLock
from service.state.journal import Journal
from service.state.trail import Trail
from testbed.influxdb_server import InfluxServer
from tests.documentation.pages import DOCUMENTATION, ROOT, rows_with, table_with
from tests.inputs.recording_files import Edf, dicom, dicom_group, edf, save_dicom, write_wfdb
from tests.integration.clinic import START_NS, Clinic
from tests.integration.service_process import Service, run_service, surroundings
from tests.loaded_python import run_loaded
from tests.servers.api_server import ApiServer, Reply
from tests.servers.certificates import Certificates, serving
from tests.servers.http_proxy import HttpProxy
from tests.servers.socket_server import Pause, http_answer, socket_servers
from tests.small_disks import mounted

pytestmark = pytest.mark.influxdb

PAGE = DOCUMENTATION / "OPERATIONS.md"

#: The tables of what is printed, by the heading of their first column.
TABLES = ("warning", "symptom", "message", "input file")

#: Rows about something that is not printed.
SILENT = {"memory grows": "the system says it, not the program"}

#: An address where nothing listens.
NO_SERVER = "http://127.0.0.1:9"

SECOND_NS = 10**9

#: Runs the outside check within a process of its own.
RUN_THE_CHECK = f"import runpy; runpy.run_path({str(ROOT / 'scripts' / 'verify_output.py')!r}, run_name='__main__')"

HEADER = b"timestamp,source_id,ecg\n"
TIMES = [f"2025-11-03T14:30:0{second}Z" for second in range(9)]
ROWS = "".join(f"{time},w,1\n" for time in TIMES).encode()


def moment(second: int) -> str:
    return f"2025-11-03T14:30:{second:02d}Z"


class Scene:
    """A clinic with two windows of twenty rows each, an API, and what the program said there.

    Args:
        clinic: The server's buckets and tokens.
        api: Where batches can be sent.
        folder: Where it runs.
    """

    def __init__(self, clinic: Clinic, api: ApiServer, folder: Path) -> None:
        self.clinic, self.api, self.folder = clinic, api, folder
        self.state, self.csv = folder / "state", folder / "csv"
        self.settings: dict[str, object] = {
            **clinic.settings,
            "QUERY_START_TIME": moment(0),
            "QUERY_END_TIME": moment(5),
            "RETRY_BUDGET_SECONDS": 0,
            "API_ENDPOINT": api.endpoint,
            "CSV_FILENAME_PATTERN": "all_%Y%m%d.csv",
        }
        self.environment: dict[str, str] = {}
        self.said = ""

    def rows(self, *values: float, at_ns: int = START_NS, source: str = "a") -> None:
        """Store rows from a moment on, a tenth of a millisecond apart."""
        self.raw(*(f"ecg,source_id={source} ecg={value} {at_ns + i * 10**5}" for i, value in enumerate(values)))

    def raw(self, *lines: str) -> None:
        """Store lines of any kind in the raw bucket; `T` is the first moment."""
        text = "\n".join(line.replace("T", str(START_NS)) for line in lines)
        self.clinic.server.write_lines(str(self.settings["INFLUX_INPUT_BUCKET"]), text.encode())

    def with_short_retention(self) -> None:
        """Read another bucket from now on, which keeps rows for an hour."""
        name, server = f"{self.clinic.raw}-short", self.clinic.server
        server.make_bucket(name, retention_s=3600)
        self.settings |= {"INFLUX_INPUT_BUCKET": name, "INFLUX_TOKEN": server.make_token(read=[name])}

    def with_rows(self) -> Scene:
        """Fill both windows with rows that can all be released."""
        for second in (0, 5):
            self.rows(*(index % 2 for index in range(20)), at_ns=START_NS + second * SECOND_NS)
        return self

    def run(self, *arguments: str, **changes: object) -> int:
        """Run the program to its end; return its exit code."""
        code, said = run_service(self.folder, {**self.settings, **changes}, *arguments, environment=self.environment)
        assert "Traceback" not in said, said
        self.said += said
        return code

    def check(self, **changes: object) -> int:
        """Have the configuration and all connections checked."""
        return self.run("--check", "--connect", **changes)

    def second_window(self, **changes: object) -> int:
        """Run over the next window."""
        return self.run(**{"QUERY_START_TIME": moment(5), "QUERY_END_TIME": moment(10), **changes})

    def script(self, *arguments: str) -> int:
        """Run one of our scripts; return its exit code."""
        return self.process(str(ROOT / "scripts" / arguments[0]), *arguments[1:])

    def patched(self, patch: str, **changes: object) -> int:
        """Run the program with a change to its code, for what only a bug or a slow machine brings about."""
        self.write_env(**changes)
        return self.process("-c", f"{patch}\nfrom central_anonymizer import main\nimport sys\nsys.exit(main([]))")

    def write_env(self, **changes: object) -> None:
        """Write the settings to `.env`."""
        path = self.folder / ".env"
        lines = {"CSV_OUTPUT_DIR": self.csv, "STATE_DIR": self.state, **self.settings, **changes}
        path.write_text("".join(f"{name}={value}\n" for name, value in lines.items()), encoding="utf-8")
        path.chmod(0o600)

    def with_lines(self, *lines: str) -> int:
        """Check the configuration with further lines in `.env`; return the exit code."""
        self.write_env()
        with (self.folder / ".env").open("a", encoding="utf-8", errors="surrogateescape", newline="") as file:
            file.writelines(f"{line}\n" for line in lines)
        return self.process(str(ROOT / "central_anonymizer.py"), "--check")

    def process(self, *arguments: str) -> int:
        """Run Python in the folder; return its exit code."""
        done = run_loaded(
            [sys.executable, *arguments],
            cwd=self.folder,
            env={**surroundings(self.folder), "PYTHONPATH": str(ROOT)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
        )
        assert "Traceback" not in done.stderr, done.stderr
        self.said += done.stdout + done.stderr
        return done.returncode

    def names(self) -> None:
        """Look at the names of files as if they were printed."""
        self.said += "\n".join(path.name for path in self.csv.iterdir())

    def waits_for_the_api(self) -> int:
        """Release the first window while the API takes nothing."""
        self.with_rows()
        self.api.script(*[Reply(status=503)] * 9)
        return self.run(OUTPUT_TO_API="true")


Play = Callable[[Scene], int | None]


@dataclass(frozen=True, slots=True)
class Case:
    """How to bring one row about, and what the program ends with; None: it would go on for ever."""

    play: Play
    ends: int | None


CASES: dict[str, Case] = {}


def row(words: str, *, ends: int | None = exit_codes.CONFIGURATION) -> Callable[[Play], Play]:
    """Say that a function brings about the row with these words in its first cell."""

    def keep(play: Play) -> Play:
        assert words not in CASES
        CASES[words] = Case(play, ends)
        return play

    return keep


#: What a single call brings about: rows that end a run, then rows that do not.
REFUSED: dict[str, Play] = {
    "❌ .env file not found!": lambda s: s.process(str(ROOT / "central_anonymizer.py")),
    "❌ The configuration cannot be used:` and a list": lambda s: s.run(K_VALUE=1),
    "refuses INFLUX_TOKEN": lambda s: s.run(INFLUX_TOKEN="wrong"),
    "which needs INFLUX_TOKEN and INFLUX_ORG": lambda s: s.run(INFLUX_TOKEN="", INFLUX_ORG=""),
    "Failed to connect to InfluxDB: … has no organization": lambda s: s.run(
        INFLUX_ORG="x", INFLUX_OUTPUT_ORG=s.settings["INFLUX_ORG"]
    ),
    "check INFLUX_OUTPUT_ORG": lambda s: s.run(INFLUX_OUTPUT_ORG="x"),
    "cannot remove files named by": lambda s: s.check(RETENTION_DAYS=9, CSV_FILENAME_PATTERN="%H.csv"),
    "Failed to connect to InfluxDB: bucket": lambda s: s.run(INFLUX_INPUT_BUCKET="x"),
    "does not let us write to bucket": lambda s: s.check(INFLUX_OUTPUT_TOKEN=s.settings["INFLUX_TOKEN"]),
    "so wearers could not be told apart": lambda s: s.with_rows().run(SOURCE_TAG="patient"),
    "it is not UTF-8; save the file as UTF-8 text": lambda s: s.with_lines(
        "# x\udce9", "K_VALUE=2\0", "K_VALUE=2\rK_UNIT=source", "\ufeffK_VALUE=20"
    ),
    "is not encrypted: others on the network can read": lambda s: s.check(INFLUX_URL="http://no-such-host.invalid:8086"),
    "INPUT_FILE names a path that": lambda s: s.check(INPUT_FILE=s.folder / "nowhere.csv"),
    "INPUT_FILE is empty": lambda s: of_file(s, b""),
    "INPUT_FILE needs the columns": lambda s: of_file(s, HEADER.replace(b"ecg", b"value") + ROWS),
    "that hold something are no time": lambda s: of_file(s, HEADER + b"3.11.2025 14:30,w,1\n" * 9),
    "that are no epoch times of one unit": lambda s: of_file(s, HEADER + b"1762180200,w,1\n1762180201000,w,1\n"),
    "must hold times, got bool": lambda s: of_file(s, pa.table({"timestamp": [True], "source_id": ["w"], "ecg": [1.0]})),
    "holds numbers with a comma": lambda s: of_file(
        s, HEADER.replace(b",", b";") + ROWS.replace(b",1", b",1,234").replace(b",w,", b";w;")
    ),
    "opens a cell that is not closed": lambda s: of_file(s, HEADER + ROWS.replace(b",1", b',"1', 1)),
    "a quote opens in the header": lambda s: of_file(s, HEADER.replace(b"timestamp", b'"timestamp\n"') + ROWS),
    "line 202 has 4 cells": lambda s: of_file(s, HEADER + ROWS.replace(b",1", b",1,2", 1)),
    "202 is not UTF-8 text": lambda s: of_file(s, HEADER + ROWS.replace(b"w", b"\xe4", 1)),
    "holds zero bytes": lambda s: of_file(s, (HEADER + ROWS).decode().encode("utf-16"), HEADER + ROWS.replace(b"w", b"\0", 1)),
    "instead of CSV text": lambda s: of_file(s, gzip.compress(edf().data())),
    "is longer than": lambda s: of_file(s, HEADER + b"x" * (1 << 25)),
    "times its size": lambda s: of_file(s, gzip.compress(HEADER) + gzip.compress(b"\n" * (1 << 26)) * 5),
    "is not a readable Parquet file": lambda s: of_file(s, b"PAR1 and no more"),
    "does not say when it was recorded": lambda s: of_recordings(s, [write_wfdb(s.folder)], {"INPUT_CHANNEL": "1"}),
    "INPUT_FILE is damaged: …": lambda s: of_edf(s, edf(duration="0")),
    "was not closed by the program": lambda s: of_edf(s, edf(records="-1")),
    "file 2 of 3": lambda s: of_recordings(s, a_folder_of_recordings(s, edf().data()[:-9]), {"INPUT_CHANNEL": "1"}),
    "recordings and 1 CSV or Parquet files": lambda s: of_recordings(s, a_folder_of_recordings(s, b"", ".csv"), {}),
    "names, and INPUT_FILE 3 recordings": lambda s: of_recordings(
        s, a_folder_of_recordings(s, edf().data()), {"INPUT_CHANNEL": "1", "INPUT_SOURCE_ID": "a,b"}
    ),
    "INPUT_CHANNEL would have no effect": lambda s: s.check(INPUT_CHANNEL="II"),
    "K_UNIT=source counts wearers": lambda s: of_edf(s, edf(), K_UNIT="source"),
    "CSV_OUTPUT_DIR is in the folder": lambda s: of_recordings(
        s,
        a_folder_of_recordings(s, edf().data())[:1],
        {"INPUT_FILE": s.folder / "several", "CSV_OUTPUT_DIR": s.folder / "several" / "csv"},
    ),
    "is an address of a kind that is not read": lambda s: (
        s.check(INPUT_FILE="s3://UPPER/x") and s.check(INPUT_FILE="gs://bucket/x")
    ),
    "STATE_DIR is in the folder that INPUT_FILE names": lambda s: of_folder(s, {"a.parquet": {}}, INPUT_FILE=s.folder),
    "holds no Parquet files": lambda s: of_folder(s, {"a.csv": b""}),
    "name just the Parquet files": lambda s: of_folder(s, {"a.parquet": {}, "b": b"", "c": b"", "d": b""}),
    "is a Delta table": lambda s: of_folder(s, {"a.parquet": {}, "_delta_log/0.json": b""}),
    "holds a file that is not readable Parquet": lambda s: of_folder(s, {"a.parquet": {}, "b.parquet": b"PAR1"}),
    "must be of a Parquet type of times": lambda s: of_folder(s, {"a.parquet": {"timestamp": [START_NS] * 9}}),
    "divide it by more than source_id and time": lambda s: of_folder(s, {"lead=I/a.parquet": {}, "lead=II/a.parquet": {}}),
    "rows name another source than their folder": lambda s: of_folder(s, {"source_id=a/a.parquet": {}}),
}
WARNED: dict[str, Play] = {
    "knows of no release, and this token cannot read bucket": lambda s: s.with_rows().run(),
    "has no measurement": lambda s: s.with_rows().run(INFLUX_MEASUREMENT="eeg"),
    "check the times, DEVICE_FILTER and INFLUX_TAG_FILTER": lambda s: s.with_rows().run(DEVICE_FILTER="nobody"),
    "beside 3 Parquet files": lambda s: of_folder(s, {**{f"{number}.parquet": {} for number in range(3)}, "notes.txt": b""}),
    "the times of 1 of 2 parts name no zone": lambda s: of_folder(
        s, {"a.parquet": {}, "b.parquet": {"timestamp": pa.array([START_NS] * 9, pa.timestamp("us", "UTC"))}}
    ),
    "is easy to guess": lambda s: under_an_old_key(s),
    "RETENTION_DAYS does not reach": lambda s: s.with_rows().run(RETENTION_DAYS=9),
    "source ids differ only in case": lambda s: of_file(
        s, HEADER + ROWS + ROWS.replace(b",w", b",W"), K_UNIT="source", K_VALUE=2
    ),
    "Windows hold rows of a single source": lambda s: of_file(s, HEADER + ROWS),
    "they have no readable time": lambda s: of_file(
        s, HEADER + ROWS + b"oops,w,1\n" + ROWS.replace(b",1", b",x", 2) + ROWS.replace(b",w", b",", 2)
    ),
    "times name no zone": lambda s: of_file(s, HEADER + ROWS + ROWS.replace(b"Z", b"")),
    "so INPUT_START_TIME is not used": lambda s: of_edf(s, edf(), INPUT_CHANNEL="1", INPUT_START_TIME=moment(0)),
    "VALUE_UNIT=mV is not used": lambda s: of_edf(s, edf(), INPUT_CHANNEL="1", VALUE_UNIT="mV"),
    "rows of a leap second": lambda s: of_file(s, HEADER + b"2016-12-31T23:59:60Z,w,1\n2017-01-01T00:00:00Z,w,1\n"),
}
for _words, _play in REFUSED.items():
    row(_words)(_play)
for _words, _play in WARNED.items():
    row(_words, ends=exit_codes.DONE)(_play)


# Warnings


@row("is in use: another service, with another STATE_DIR")
def _two_services_in_one_folder(scene: Scene) -> int:
    scene.with_rows().csv.mkdir()
    descriptor = os.open(scene.csv, os.O_RDONLY)
    try:
        assert try_to_lock(descriptor)
        return scene.run()
    finally:
        os.close(descriptor)


@row("is old enough, but is not removed", ends=exit_codes.DONE)
@row("other old files lie beside the", ends=exit_codes.DONE)
@row("the clock says …, the last time on record", ends=exit_codes.DONE)
@row("rows in … batches that were set aside are removed", ends=exit_codes.DONE)
@row("removing old … is postponed", ends=exit_codes.DONE)
def _old_files(scene: Scene) -> int:
    path = scene.folder / "recording.csv"
    path.write_bytes(HEADER + ROWS)
    settings = {
        "INPUT_FILE": path,
        "OUTPUT_TO_INFLUX": "false",
        "QUERY_START_TIME": "",
        "QUERY_END_TIME": "",
        "RETENTION_DAYS": 1,
    }
    settings |= {"OUTPUT_TO_PARQUET": "true", "PARQUET_URL": scene.folder / "parquet"}
    scene.api.script(*[Reply(status=400)] * 9)
    scene.run(**settings, OUTPUT_TO_API="true")
    (released,) = scene.csv.iterdir()
    released.write_bytes(released.read_bytes() + ROWS)
    (scene.csv / "notes.txt").write_text("mine")
    os.utime(scene.csv / "notes.txt", (0, 0))
    rows, others = scene.folder / "parquet" / "rows", scene.folder / "parquet" / "others"
    rows.rename(others)
    rows.write_text("not a folder")
    later = "import time\nreal = time.time_ns\ntime.time_ns = lambda: real() + {} * 3600 * 10**9"
    scene.patched(later.format(12), **settings, OUTPUT_TO_API="true")
    rows.unlink()
    others.rename(rows)
    scene.patched(later.format(30), **settings, OUTPUT_TO_API="true")
    return scene.patched(later.format(2400), **settings, OUTPUT_TO_API="true")


@row("⚠️ 15 % of records suppressed", ends=exit_codes.DONE)
@row("⚠️ 85 % of records suppressed", ends=exit_codes.DONE)
def _k_is_high(scene: Scene) -> int:
    return scene.with_rows().run(K_VALUE=200)


@row("⚠️ Mean level", ends=exit_codes.DONE)
def _values_are_far_apart(scene: Scene) -> int:
    scene.rows(61, 130, 190, 250, 310)
    return scene.run(MAX_LEVEL=7)


@row("beyond the hierarchy's ends", ends=exit_codes.DONE)
def _values_are_large(scene: Scene) -> int:
    scene.rows(*[9000] * 9)
    return scene.run()


@row("records took", ends=exit_codes.DONE)
def _a_window_takes_long(scene: Scene) -> int:
    scene.with_rows()
    slow = "real = loop.finish_chunk\nloop.finish_chunk = lambda *a, **b: (time.sleep(1.2), real(*a, **b))[1]"
    return scene.patched(f"import time\nfrom service.pipeline import release_loop as loop\n{slow}")


@row("`⏳ … trying again in", ends=exit_codes.UNREACHABLE)
@row("connection refused or host unreachable", ends=exit_codes.UNREACHABLE)
@row("❌ Gave up after RETRY_BUDGET_SECONDS", ends=exit_codes.UNREACHABLE)
def _no_server_answers(scene: Scene) -> int:
    return scene.run(INFLUX_URL=NO_SERVER, RETRY_BUDGET_SECONDS=1)


@row("windows have fewer rows than were counted", ends=exit_codes.DONE)
def _an_answer_lacks_a_row(scene: Scene) -> int:
    answered: list[bytes] = []

    def without_a_row(path: str, body: bytes, answer: bytes) -> bytes:
        lines = answer.split(b"\r\n")
        if answered or len(lines) < 20:
            return answer
        answered.append(body)
        return b"\r\n".join(lines[:9] + lines[10:])

    scene.with_rows()
    with HttpProxy(scene.clinic.server.url) as proxy:
        proxy.edit(without_a_row)
        return scene.run(INFLUX_URL=proxy.url)


# Settings, servers, data


@row("the host name cannot be resolved", ends=exit_codes.UNREACHABLE)
def _no_such_host(scene: Scene) -> int:
    return scene.run(INFLUX_URL="http://no-such-host.invalid:8086")


@row("the proxy that HTTP_PROXY")
def _a_proxy_that_is_down_and_one_that_is_none(scene: Scene) -> int:
    scene.environment = {"HTTP_PROXY": NO_SERVER}
    scene.run(INFLUX_URL="http://server.test:8086")
    scene.environment = {"ALL_PROXY": "socks5://127.0.0.1:9"}
    return scene.run(INFLUX_URL="http://server.test:8086")


@row("its certificate has expired")
def _certificates_that_cannot_be_trusted(scene: Scene) -> int:
    code = 0
    (scene.folder / "tls").mkdir()
    made = Certificates(scene.folder / "tls")
    for certificate in (made.expired, made.of_another_host, made.self_signed):
        with HttpProxy(scene.clinic.server.url, tls=serving(certificate)) as proxy:
            code = scene.run(INFLUX_URL=proxy.url, INFLUX_CA_FILE=made.authority)
    with HttpProxy(scene.clinic.server.url, tls=serving(made.good)) as proxy:
        return scene.run(INFLUX_URL=proxy.url) and code


@row("it does not speak https at this port")
def _http_for_https_and_the_other_way_round(scene: Scene) -> int:
    (scene.folder / "tls").mkdir()
    with HttpProxy(scene.clinic.server.url, tls=serving(Certificates(scene.folder / "tls").good)) as proxy:
        scene.run(INFLUX_URL=proxy.url.replace("https:", "http:"))
    return scene.run(INFLUX_URL=scene.clinic.server.url.replace("http:", "https:"))


@row("sends no Date header", ends=exit_codes.DONE)
def _a_proxy_takes_the_date_away(scene: Scene) -> int:
    scene.with_rows()
    with HttpProxy(scene.clinic.server.url) as proxy:
        proxy.date_by(lambda _: [])
        return scene.run(INFLUX_URL=proxy.url)


@row("(Date header), this machine says")
def _a_server_of_another_century(scene: Scene) -> int:
    with HttpProxy(scene.clinic.server.url) as proxy:
        proxy.date_by(lambda _: ["Mon, 01 Jan 1996 00:00:00 GMT"])
        return scene.run(INFLUX_URL=proxy.url)


@row("looks like the id of a bucket")
def _buckets_by_their_ids(scene: Scene) -> int:
    scene.run(INFLUX_OUTPUT_BUCKET="0123456789abcdef")
    return scene.run(INFLUX_INPUT_BUCKET="0123456789abcdef")


@row("but not look it up", ends=exit_codes.DONE)
def _a_proxy_closes_the_list_of_buckets(scene: Scene) -> int:
    scene.with_rows()
    with HttpProxy(scene.clinic.server.url) as proxy:
        proxy.answer_always(Reply(status=403), to="/api/v2/buckets")
        return scene.run(INFLUX_URL=proxy.url, INFLUX_OUTPUT_URL=scene.clinic.server.url)


@row("are withheld: up to", ends=exit_codes.DONE)
def _one_wearer_with_two_leads(scene: Scene) -> int:
    scene.with_rows().rows(7, 8, 9, source="b")
    scene.rows(*[5] * 9, source="c")
    scene.raw("ecg,source_id=b,lead=II ecg=9 T")
    return scene.run()


@row("The values of 6 of 6 sources", ends=exit_codes.DONE)
def _millivolts(scene: Scene) -> int:
    for tenth in range(50):
        scene.rows(tenth / 25, at_ns=START_NS + tenth * SECOND_NS // 10)
    return scene.run()


@row("`WARNING: the values of", ends=exit_codes.DONE)
def _advice_on_millivolts(scene: Scene) -> int:
    path = scene.folder / "recording.csv"
    rows = [f"2025-11-03T14:30:{index / 10:04.1f}Z,a,{index / 25}" for index in range(50)]
    path.write_text("\n".join(["timestamp,source_id,ecg", *rows]), encoding="utf-8")
    return scene.script("advise.py", "recording.csv", "--k", "5", "--windows", "5")


@row("move a hundred times more, or less", ends=exit_codes.DONE)
def _one_wearer_in_another_unit(scene: Scene) -> int:
    for name, factor in (("a", 1), ("b", 1), ("c", 1000)):
        scene.rows(*(factor * (index % 20) for index in range(40)), source=name)
    return scene.run()


@row("source ids that are released unchanged", ends=exit_codes.DONE)
def _an_id_that_is_a_formula(scene: Scene) -> int:
    scene.rows(*[1] * 9, source="@sum")
    return scene.run(PSEUDONYMIZE_SOURCE_ID="false")


@row("most sources hold two different values")
def _two_leads(scene: Scene) -> int:
    scene.raw("ecg,source_id=a,lead=I ecg=1 T", "ecg,source_id=a,lead=II ecg=2 T")
    return scene.run()


@row("holds string values")
def _words_instead_of_numbers(scene: Scene) -> int:
    scene.raw('ecg,source_id=a ecg="x" T')
    return scene.run()


@row("CSV_OUTPUT_DIR … cannot be written to")
def _folders_below_a_file(scene: Scene) -> int:
    (scene.folder / "file").write_text("", encoding="utf-8")
    below = scene.folder / "file"
    return scene.check(CSV_OUTPUT_DIR=below / "csv", STATE_DIR=below / "state", AUDIT_LOG=below / "audit.jsonl")


@row("needs an =, but : follows")
@row("its quote is not closed; a value ends with its line")
@row("after a blank is a comment or belongs to the value")
@row("is a line end missing")
@row("begins or ends with a typographic quote")
def _lines_that_are_not_settings(scene: Scene) -> int:
    lines = ["K_VALUE: 20", "20 = K_VALUE", 'API_TOKEN="abc', 'CSV_OUTPUT_DIR="a" b', 'STATE_DIR=a"', "K_VALUE=20 # twenty"]
    return scene.with_lines(*lines, "SOURCE_TAG=source_idK_VALUE=20", "METHOD=“optimal”", "K_UNIT=source\u200b")


@row("must be a path without ~, $NAME or %NAME%")
@row("must be a time in the years")
@row("must be an address without user name and password")
@row("needs STATUS_TOKEN")
def _values_that_cannot_be_used(scene: Scene) -> int:
    times = {"QUERY_START_TIME": "0001-01-01T00:00:00Z", "BATCH_SIZE_SECONDS": "9" * 20}
    addresses = {"API_ENDPOINT": "http://u:p@h/ecg", "INFLUX_URL": "http://h:8086/?token=x", "STATUS_ADDRESS": "0.0.0.0:9464"}
    return scene.check(STATE_DIR="~/state", **times, **addresses)


@row("is set again, to another value than on line")
def _a_name_on_two_lines(scene: Scene) -> int:
    scene.with_lines("K_VALUE=5", "K_VALUE=20")
    scene.with_lines("K_VALUE=5", "K_VALUE=5")
    return exit_codes.CONFIGURATION


@row("more lines cannot be used")
def _another_file_than_the_env_file(scene: Scene) -> int:
    (scene.folder / "large.env").write_text("#" * 2**20 + "\n", encoding="utf-8")
    scene.process(str(ROOT / "central_anonymizer.py"), "--env-file", "large.env")
    return scene.with_lines(*["what?"] * 33)


@row("is it the secret")
def _another_file_than_the_secret(scene: Scene) -> int:
    codes = set()
    for content in (b"x" * 5000, b"\xff"):
        (scene.folder / "token").write_bytes(content)
        codes.add(scene.run("--check", API_TOKEN_FILE=scene.folder / "token"))
    return max(codes)


@row("PSEUDONYMISE_SOURCE_ID is not a setting")
def _misspelt_names(scene: Scene) -> int:
    scene.with_lines("COLOUR=blue")
    return scene.with_lines("PSEUDONYMISE_SOURCE_ID=true")


@row("cannot be read (Is a directory)")
def _no_file_where_the_file_should_be(scene: Scene) -> int:
    (scene.folder / "link.env").symlink_to("nowhere")
    scene.process(str(ROOT / "central_anonymizer.py"), "--env-file", "link.env")
    (scene.folder / "folder.env").mkdir()
    return scene.process(str(ROOT / "central_anonymizer.py"), "--env-file", "folder.env")


@row("in the environment cannot be read")
def _quotes_in_the_environment(scene: Scene) -> int:
    for token in ("'t'", "'t"):
        given = {"API_TOKEN": token, "INFLUX_ORG": "ward #3"}
        _, said = run_service(scene.folder, scene.settings, "--check", environment=given)
        scene.said += said
    return exit_codes.CONFIGURATION


@row("which no token does")
def _a_token_file_with_two_line_ends(scene: Scene) -> int:
    (scene.folder / "token").write_text("t\n\n", encoding="utf-8")
    return scene.check(API_TOKEN_FILE=scene.folder / "token")


@row("is empty: its default, 5, applies", ends=exit_codes.DONE)
def _settings_without_a_value(scene: Scene) -> int:
    scene.check(K_VALUE="")
    code, said = run_service(scene.folder, {**scene.settings, "K_VALUE": "7"}, "--check", environment={"K_VALUE": ""})
    scene.said += said
    return code


@row("CSV_OUTPUT_DIR is STATE_DIR")
def _csv_files_among_others(scene: Scene) -> int:
    (scene.folder / "in.csv").touch()
    scene.check(CSV_OUTPUT_DIR=scene.folder / "state")
    return scene.check(CSV_OUTPUT_DIR=scene.folder, INPUT_FILE="in.csv", CSV_FILENAME_PATTERN="%a.csv")


@row("PSEUDONYM_SALT is refused: ")
def _a_key_that_a_person_thought_up(scene: Scene) -> int:
    return scene.run("--check", PSEUDONYMIZE_SOURCE_ID="true", PSEUDONYM_SALT="changeme-changeme-2025")


@row("holds something else than an audit log, and was not changed")
def _an_audit_log_over_another_file(scene: Scene) -> int:
    listed = scene.folder / "excluded"
    listed.write_text("w7", encoding="utf-8")
    scene.check(AUDIT_LOG=scene.folder / "state" / "audit_log")
    scene.check(AUDIT_LOG=listed, EXCLUDED_SOURCES_FILE=listed)
    return scene.with_rows().run(AUDIT_LOG=listed)


@row("hold a comma, a semicolon, a quote or a #", ends=exit_codes.DONE)
def _a_list_with_a_comment(scene: Scene) -> int:
    listed = scene.folder / "excluded"
    listed.write_text("w7 # withdrew\n", encoding="utf-8")
    return scene.with_rows().run(EXCLUDED_SOURCES_FILE=listed)


@row("AUDIT_LOG … is damaged")
def _a_trail_that_was_changed(scene: Scene) -> int:
    path = scene.folder / "audit.jsonl"
    scene.with_rows().run(AUDIT_LOG=path)
    path.write_bytes(path.read_bytes().replace(b'"n":1', b'"n":2', 1))
    return scene.run(AUDIT_LOG=path)


@row("is the trail of another STATE_DIR")
def _a_trail_of_another(scene: Scene) -> int:
    path = scene.folder / "audit.jsonl"
    Trail(path, "another", time.time_ns)
    return scene.with_rows().run(AUDIT_LOG=path)


@row("another process keeps it locked", ends=exit_codes.UNREACHABLE)
def _an_audit_log_that_another_process_keeps(scene: Scene) -> int:
    scene.with_rows().run(AUDIT_LOG=scene.folder / "audit.jsonl")
    with (scene.folder / "audit.jsonl").open("rb") as file:
        assert try_to_lock(file.fileno())
        return scene.script("state.py", "show")


@row("is no command: ")
def _a_command_that_prints_no_secret(scene: Scene) -> int:
    return scene.run("--check", INFLUX_TOKEN="", INFLUX_TOKEN_COMMAND="false", API_TOKEN_COMMAND="vault 'kv")


def under_an_old_key(scene: Scene, key: str = "changeme-changeme-2025") -> int:
    """Check the settings of a state folder that an earlier version released into under this key."""
    promise = Promise(5, "record", "hierarchy", "00112233aabbccdd", key_id_of(key.encode()))
    journal = Journal(scene.folder / "state", data_set=None)
    journal.epochs.begin(Epoch(promise, 5 * 10**9), now_ns=1)
    journal.close()
    (scene.folder / "key").write_text(key, encoding="utf-8")
    return scene.run("--check", PSEUDONYMIZE_SOURCE_ID="true", PSEUDONYM_SALT="", PSEUDONYM_SALT_FILE=scene.folder / "key")


@row("begins or ends with a blank or line end, which is part of the key", ends=exit_codes.DONE)
def _a_key_file_with_a_blank(scene: Scene) -> int:
    key = "7c1e4fa09b3d582611e0c94da5f87b36"
    return max(under_an_old_key(scene, content) for content in (f"{key} ", f"'{key}'", f"\ufeff{key}"))


@row("cannot be listened on")
def _the_port_is_taken(scene: Scene) -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        return scene.run(STATUS_ADDRESS=f"127.0.0.1:{taken.getsockname()[1]}")


@row("failed verification", ends=exit_codes.VERIFICATION_FAILED)
def _a_bug_in_a_batch(scene: Scene) -> int:
    scene.with_rows()
    bug = "def verify(batch):\n    raise PrivacyViolation(f'batch {batch.batch_id} promises k=5 but a value is shared by 4 rows')"
    return scene.patched(
        f"from service.pipeline import chunks\nfrom anonymizer.errors import PrivacyViolation\n{bug}\nchunks.verify = verify"
    )


@row("the columns are separated by semicolons", ends=exit_codes.USAGE)
def _a_spreadsheet_saved_what_was_released(scene: Scene) -> int:
    code = 0
    for name, text, encoding in (
        ("a.csv", "timestamp;source_id;ecg\n", "utf-8"),
        ("b.csv", "timestamp,source_id,ecg\n", "utf-16"),
    ):
        (scene.folder / name).write_text(text, encoding=encoding)
        code = scene.script("verify_output.py", name, "--k", "5", "--batch-seconds", "5")
    return code


@row("SIGHUP does not stop", ends=exit_codes.DONE)
def _logs_are_rotated(scene: Scene) -> int:
    with Service(scene.folder, {**scene.settings, "STREAMING_MODE": "true", "QUERY_END_TIME": ""}) as service:
        service.wait_for("✅ Connected")
        service.process.send_signal(signal.SIGHUP)
        service.wait_for("SIGHUP")
        code = service.stop()
        scene.said += service.log
        return code


@row("log lines are missing", ends=exit_codes.DONE)
def _the_log_is_not_read_for_a_while(scene: Scene) -> int:
    slow = "real = LogWriter._write\nLogWriter._write = lambda *a: (time.sleep(0.5), real(*a))[1]"
    few = "LogWriter.__init__.__kwdefaults__['most_lines'] = 3\nlogs._DEAD_AFTER_S = 0.1"
    return scene.with_rows().patched(
        f"import time\nfrom service.telemetry import log_writer as logs\nfrom service.telemetry.log_writer import LogWriter\n{slow}\n{few}"
    )


@row("failed at the end of the run", ends=exit_codes.UNREACHABLE)
def _the_disk_fails_at_the_end_too(scene: Scene) -> int:
    failing = "def figures(*_):\n    raise StateUnavailable('the disk is away')\nRunRecorder.figures = figures"
    imports = "from anonymizer.errors import StateUnavailable\nfrom service.report.run_recorder import RunRecorder"
    closing = (
        "from service.state.journal import Journal\nreal = Journal.close\n"
        "Journal.close = lambda self: (real(self), print('closed'))[0]"
    )
    code = scene.with_rows().patched(f"{imports}\n{closing}\n{failing}", OUTPUT_TO_API="true", API_ENDPOINT=NO_SERVER)
    assert "❌ Gave up after RETRY_BUDGET_SECONDS" in scene.said, "the first error is not hidden"
    assert "closed" in scene.said, "nor is the journal left open"
    return code


@row("The output could not be written", ends=exit_codes.OUTPUT_LOST)
def _a_script_prints_to_a_full_disk(scene: Scene) -> int:
    scene.with_rows().run()
    full = "import os, runpy, sys\nos.dup2(os.open('/dev/full', os.O_WRONLY), 1)"
    script = str(ROOT / "scripts" / "state.py")
    return scene.process("-c", f"{full}\nsys.argv = [{script!r}, 'show']\nrunpy.run_path({script!r}, run_name='__main__')")


@row("no window is released while it is unknown who is excluded")
def _no_list_of_excluded_sources(scene: Scene) -> int:
    return scene.check(EXCLUDED_SOURCES_FILE=scene.folder / "missing.txt")


@row("sources were excluded by it")
def _the_list_of_excluded_sources_is_turned_off(scene: Scene) -> int:
    listed = scene.folder / "excluded.txt"
    listed.write_text("a\n", encoding="utf-8")
    scene.with_rows().run(EXCLUDED_SOURCES_FILE=listed)
    return scene.second_window()


@row("has an open erasure")
def _an_erasure_was_interrupted(scene: Scene) -> int:
    scene.with_rows().run()
    journal = Journal(scene.state, data_set=None)
    journal.erasures.begin(OpenErasure("digest", 1, strict=False))
    journal.close()
    return scene.second_window()


@row("Nothing of this source was found", ends=exit_codes.NOT_ERASED)
def _nobody_of_that_name_is_erased(scene: Scene) -> int:
    scene.with_rows().run(OUTPUT_TO_API="true", OUTPUT_TO_INFLUX="false")
    return scene.script("state.py", "erase", "--source", "nobody")


@row("There is no STATE_DIR", ends=exit_codes.USAGE)
def _a_script_and_no_state(scene: Scene) -> int:
    return scene.script("state.py", "show")


@row("holds no journal")
def _a_report_and_no_state(scene: Scene) -> int:
    scene.write_env()
    return scene.script("report.py", "--since", "2025-11-03")


@row("Check INFLUX_VERIFY_TOKEN", ends=exit_codes.USAGE)
def _the_verifying_token_cannot_read_the_output(scene: Scene) -> int:
    scene.write_env(INFLUX_VERIFY_TOKEN=scene.settings["INFLUX_TOKEN"])
    return scene.script("verify_output.py", "--env-file", ".env")


@row("check INFLUX_OUTPUT_BUCKET")
@row("by scripts/state.py verify")
def _a_token_that_can_only_write_reads_neither_bucket(scene: Scene) -> int:
    scene.with_rows().run()
    scene.write_env(INFLUX_VERIFY_TOKEN=scene.settings["INFLUX_OUTPUT_TOKEN"])
    code = scene.script("state.py", "verify")
    scene.write_env()
    return code if code == scene.script("state.py", "erase", "--source", "a") else -1


# Input files


def of_file(scene: Scene, *contents: bytes | pa.Table, **changes: object) -> int:
    """Run over files, one after the other, each without a memory of the others."""
    code = exit_codes.DONE
    for number, content in enumerate(contents):
        is_parquet = isinstance(content, pa.Table) or content.startswith(b"PAR1")
        path = scene.folder / f"{number}.{'parquet' if is_parquet else 'csv'}"
        if isinstance(content, pa.Table):
            pa_parquet.write_table(content, path)
        else:
            path.write_bytes(content)
        settings = {
            "OUTPUT_TO_INFLUX": "false",
            "QUERY_START_TIME": "",
            "QUERY_END_TIME": "",
            "STATE_DIR": scene.folder / f"{number}",
            **changes,
        }
        code = scene.run(INPUT_FILE=path, **settings)
    return code


def of_recordings(scene: Scene, paths: Sequence[Path], *settings: dict[str, object]) -> int:
    """Run over a recording, or the folder of several, once for each of some settings."""
    given: dict[str, object] = {"INPUT_FILE": paths[0] if len(paths) == 1 else paths[0].parent}
    times: dict[str, object] = {"OUTPUT_TO_INFLUX": "false", "QUERY_START_TIME": "", "QUERY_END_TIME": ""}
    return max(scene.run(**{**given, **times, **changes}) for changes in settings)


def of_edf(scene: Scene, made: Edf, **settings: object) -> int:
    (scene.folder / "rec.edf").write_bytes(made.data())
    return of_recordings(scene, [scene.folder / "rec.edf"], {"INPUT_CHANNEL": "1", **settings})


def a_folder_of_recordings(scene: Scene, odd: bytes, ending: str = ".edf") -> list[Path]:
    """Write three recordings into a folder, or two and another file; the odd one is the second."""
    folder = scene.folder / "several"
    folder.mkdir()
    paths = [folder / f"{name}{ending if name == 'b' else '.edf'}" for name in ("abcd" if ending != ".edf" else "abc")]
    for path in paths:
        path.write_bytes(odd if path.stem == "b" else edf().data())
    return paths


@row("has 2 channels")
def _a_channel_must_be_chosen(scene: Scene) -> int:
    of_recordings(scene, [write_wfdb(scene.folder)], {}, {"INPUT_CHANNEL": "9"})
    twice = "{name} 2 128 501\n{first}\n{first}\n"
    return of_recordings(scene, [write_wfdb(scene.folder, header=twice)], {"INPUT_CHANNEL": "MLII"})


@row("in a unit that is not")
def _values_that_cannot_be_microvolts(scene: Scene) -> int:
    of_edf(scene, edf(), INPUT_CHANNEL="3")
    return of_recordings(scene, [write_wfdb(scene.folder, header="{name} 1 128 501\n{name}.dat 212x2\n")], {})


@row("has samples in a format that is not read")
def _forms_that_are_rare(scene: Scene) -> int:
    headers = ("{name} 1 128 501\n{name}.dat 516 200\n", "{name}/2 1 128 501\na 1\nb 1\n")
    for name, header in zip("pq", headers, strict=True):
        of_recordings(scene, [write_wfdb(scene.folder, header=header, name=name)], {})
    derived, big_endian = dicom(dicom_group(WaveformOriginality="DERIVED")), dicom()
    big_endian.file_meta.TransferSyntaxUID = UID("1.2.840.10008.1.2.2")
    paths = [save_dicom(one, scene.folder / f"{number}.dcm") for number, one in enumerate((derived, big_endian))]
    return max(of_recordings(scene, [path], {}) for path in paths)


@row("INPUT_FILE needs the Python package")
def _a_library_is_missing(scene: Scene) -> int:
    (scene.folder / "rec.edf").write_bytes(edf().data())
    return scene.patched("import sys\nsys.modules['edfio'] = None", INPUT_FILE="rec.edf", OUTPUT_TO_INFLUX="false")


@row("DASK_SCHEDULER needs the Python package")
def _a_library_for_workers_is_missing(scene: Scene) -> int:
    return scene.patched("import sys\nsys.modules['distributed'] = None", DASK_SCHEDULER="local:2")


@row("needs the Python package sleepecg")
def _the_detector_is_missing(scene: Scene) -> int:
    return scene.with_rows().patched("import sys\nsys.modules['sleepecg'] = None", METHOD="rhythm")


@row("withheld as noise", ends=exit_codes.DONE)
def _nothing_but_noise(scene: Scene) -> int:
    random = Random(1)
    return _by_rhythm(scene, [random.randint(-500, 500) for _ in range(2000)])


@row("no two heartbeats were found", ends=exit_codes.DONE)
def _a_flat_line(scene: Scene) -> int:
    return _by_rhythm(scene, [7] * 2000)


def _by_rhythm(scene: Scene, values: list[int]) -> int:
    (scene.folder / "rows.csv").write_text(
        "timestamp,source_id,ecg\n" + "".join(f"{START_NS + at * 5_000_000},s,{value}\n" for at, value in enumerate(values)),
        encoding="utf-8",
    )
    of_file = {"INPUT_FILE": "rows.csv", "OUTPUT_TO_INFLUX": "false"}
    return scene.run(METHOD="rhythm", BATCH_SIZE_SECONDS="10", QUERY_START_TIME="", QUERY_END_TIME="", **of_file)


@row("INPUT_FILE is cut off: by its header")
def _a_cut_recording(scene: Scene) -> int:
    data = edf().data()
    (scene.folder / "rec.edf").write_bytes(data[: len(data) // 2])
    return of_recordings(scene, [scene.folder / "rec.edf"], {"INPUT_CHANNEL": "1"})


@row("either the first column or the last has no name")
def _row_numbers_without_a_name(scene: Scene) -> int:
    row = f"1,{TIMES[0]},{TIMES[0]},w,1,\n".encode()
    return of_file(scene, b"arrived," + HEADER[:-1] + b",note\n" + row)


@row("INPUT_FILE is cut off` and")
def _a_cut_copy(scene: Scene) -> int:
    packed = gzip.compress(HEADER + ROWS)
    return of_file(scene, packed[:-9], packed + b"more")


@row("INPUT_FILE has grown")
@row("that were added to INPUT_FILE", ends=exit_codes.CONFIGURATION)
def _rows_are_added(scene: Scene) -> int:
    path = scene.folder / "grown.csv"
    settings = {"INPUT_FILE": path, "OUTPUT_TO_INFLUX": "false", "QUERY_END_TIME": ""}
    path.write_bytes(HEADER + ROWS.replace(b"0,w", b"1,w"))
    scene.run(**settings)
    with path.open("ab") as file:
        file.write(b"2025-11-03T14:30:00.5Z,w,1\n")
    scene.run(**settings)
    with path.open("ab") as file:
        file.write(ROWS.replace(b"14:30", b"14:40"))
    return scene.run(**{**settings, "QUERY_START_TIME": ""})


@row("was written to while it was read")
def _a_file_that_is_still_written(scene: Scene) -> int:
    (scene.folder / "0.csv").write_bytes(HEADER + ROWS)
    patch = (
        "from inputs import csv_text\n"
        "from pathlib import Path\n"
        "table = csv_text.Block.table\n"
        "def table_and_more_rows(block):\n"
        f"    with Path('0.csv').open('ab') as file: file.write({ROWS!r})\n"
        "    return table(block)\n"
        "csv_text.Block.table = table_and_more_rows"
    )
    return scene.patched(patch, INPUT_FILE="0.csv", OUTPUT_TO_INFLUX="false", QUERY_START_TIME="", QUERY_END_TIME="")


# Data sets

_AT_FIRST: dict[str, Any] = {"timestamp": pa.array([START_NS] * 9, pa.timestamp("ns")), "source_id": ["w"] * 9, "ecg": [1.0] * 9}


def of_folder(scene: Scene, files: dict[str, dict[str, Any] | bytes], **settings: object) -> int:
    """Run over a folder of Parquet files, each with some columns that are not the usual."""
    for name, content in files.items():
        path = scene.folder / "set" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            pa_parquet.write_table(pa.table({**_AT_FIRST, **content}), path)
    whole = {"OUTPUT_TO_INFLUX": "false", "QUERY_START_TIME": "", "QUERY_END_TIME": "", "INPUT_FILE": scene.folder / "set"}
    return scene.run(**{**whole, **settings})


def _patched_folder(scene: Scene, patch: str) -> int:
    of_folder(scene, {"a.parquet": {}})
    unlimited = {"QUERY_START_TIME": "", "QUERY_END_TIME": "", "STATE_DIR": scene.folder / "another"}
    return scene.patched(patch, INPUT_FILE=scene.folder / "set", OUTPUT_TO_INFLUX="false", **unlimited)


@row("since the last start", ends=exit_codes.DONE)
def _files_are_added_and_changed(scene: Scene) -> int:
    of_folder(scene, {"a.parquet": {}})
    return of_folder(scene, {"a.parquet": {}, "b.parquet": {}})


@row("a file of the data set was written to")
def _a_file_of_a_data_set_is_written_to(scene: Scene) -> int:
    return _patched_folder(
        scene,
        "from inputs import data_set_index\nfrom pathlib import Path\nreally = data_set_index.footer_of\n"
        "def footer_of(*arguments, **options):\n    Path('set/a.parquet').touch()\n    return really(*arguments, **options)\n"
        "from inputs import data_set\ndata_set.footer_of = footer_of",
    )


@row("were surveyed before the first release", ends=exit_codes.DONE)
def _a_large_data_set(scene: Scene) -> int:
    return _patched_folder(
        scene, "from inputs import data_set\ndata_set.DataSetSource.__init__.__kwdefaults__['rows_at_a_time'] = 5"
    )


@row("statistics of column timestamp are wrong")
def _wrong_statistics(scene: Scene) -> int:
    return _patched_folder(
        scene,
        "from inputs import data_set_index as index\nreally = index._from_statistics\n"
        "index._from_statistics = lambda *a, **k: (really(*a, **k)[0] + 1, really(*a, **k)[1] + 1, *really(*a, **k)[2:])",
    )


@row("rows that are asked for together lie far apart")
def _files_of_all_of_the_time(scene: Scene) -> int:
    times = {"timestamp": pa.array([START_NS + index * SECOND_NS for index in range(9)], pa.timestamp("ns"))}
    of_folder(scene, {f"{number}.parquet": times for number in range(40)})
    return _patched_folder(
        scene, "from inputs import data_set\ndata_set.DataSetSource.__init__.__kwdefaults__['rows_at_a_time'] = 9"
    )


@row("at … cannot be reached", ends=exit_codes.UNREACHABLE)
def _an_object_store_that_is_down(scene: Scene) -> int:
    scene.environment = {"AWS_ENDPOINT_URL": NO_SERVER, "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "y"}
    return scene.run(INPUT_FILE="s3://recordings/2025", OUTPUT_TO_INFLUX="false", RETRY_BUDGET_SECONDS=1)


@row("answered 403")
def _an_object_store_that_refuses(scene: Scene) -> int:
    body = b"<Error><Code>AccessDenied</Code></Error>"
    with socket_servers() as serve:
        server = serve([b"HTTP/1.1 403 Forbidden\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)])
        scene.environment = {"AWS_ENDPOINT_URL": server.url, "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "y"}
        return scene.run(INPUT_FILE="s3://recordings/2025", OUTPUT_TO_INFLUX="false")


# State


@row("already works on STATE_DIR", ends=exit_codes.ANOTHER_INSTANCE)
def _another_instance(scene: Scene) -> int:
    lock = InstanceLock(scene.state)
    try:
        return scene.run()
    finally:
        lock.release()


@row("belongs to another data set")
def _another_data_set(scene: Scene) -> int:
    scene.with_rows().run()
    return scene.run(INFLUX_MEASUREMENT="eeg")


@row("the pseudonym key changed")
def _another_key(scene: Scene) -> int:
    scene.with_rows().run()
    return scene.second_window(PSEUDONYM_SALT="0b9d75e2f81c4a36d7e0925cb8f413a66f2e81d09c573b4ae7d1640f982bc35a")


@row("was turned off while")
def _an_output_is_turned_off(scene: Scene) -> int:
    scene.waits_for_the_api()
    return scene.run()


@row("…/journal.sqlite is damaged (…)")
def _an_old_journal_and_a_damaged_one(scene: Scene) -> int:
    journal = scene.state / "journal.sqlite"
    scene.with_rows().run()
    old = journal.read_bytes()
    scene.second_window()
    good = journal.read_bytes()
    journal.write_bytes(old)
    scene.run()
    journal.write_bytes(good)
    with contextlib.closing(sqlite3.connect(journal)) as db:
        db.execute("UPDATE outputs SET position = position + 1")
        db.commit()
    scene.run()
    journal.write_bytes(b"noise" * 5000)
    return scene.run()


@row("…/fence is damaged (…)")
def _a_damaged_fence(scene: Scene) -> int:
    scene.with_rows().run()
    (scene.state / "fence").write_bytes(b"noise")
    return scene.second_window()


@row("its last line cannot be read")
def _an_old_journal_and_a_fence_with_a_damaged_end(scene: Scene) -> int:
    journal, fence = scene.state / "journal.sqlite", scene.state / "fence"
    scene.with_rows().run()
    old = journal.read_bytes()
    scene.second_window()
    journal.write_bytes(old)
    fence.write_bytes(fence.read_bytes()[:-4] + b"???\n")
    return scene.second_window()


@row("the service knows version")
def _a_journal_of_a_newer_version(scene: Scene) -> int:
    scene.with_rows().run()
    with contextlib.closing(sqlite3.connect(scene.state / "journal.sqlite")) as db:
        db.execute("PRAGMA user_version = 99")
    return scene.second_window()


@row("that …/fence does not")
def _a_fence_that_knows_too_little(scene: Scene) -> int:
    for second in range(4):
        scene.rows(*[1] * 9, at_ns=START_NS + second * SECOND_NS)
    short = {"BATCH_SIZE_SECONDS": 1, "MAX_RECORDS_PER_QUERY": 1}
    scene.run(**short, QUERY_END_TIME=moment(1))
    old = (scene.state / "fence").read_bytes()
    scene.run(**short)
    (scene.state / "fence").write_bytes(old)
    return scene.run(**short)


@row("❌ bucket … holds summaries of windows")
def _another_state_folder(scene: Scene) -> int:
    readable = scene.clinic.server.make_token(read=[scene.clinic.raw, scene.clinic.released])
    scene.with_rows().run()
    shutil.rmtree(scene.state)
    return scene.run(INFLUX_VERIFY_TOKEN=readable)


def read_and_write(scene: Scene) -> str:
    clinic = scene.clinic
    return clinic.server.make_token(read=[clinic.raw, clinic.released], write=[clinic.released])


@row("is used by a service that releases this data set")
def _whole_and_then_a_cohort(scene: Scene) -> int:
    scene.with_rows().run(INFLUX_OUTPUT_TOKEN=read_and_write(scene))
    return scene.run(INFLUX_OUTPUT_TOKEN=read_and_write(scene), STATE_DIR=scene.folder / "ward", COHORT_TAG="ward", COHORT="3")


@row("holds a claim in measurement")
def _a_claim_that_is_none(scene: Scene) -> int:
    scene.with_rows().clinic.server.write_lines(scene.clinic.released, b'ecg_anonymized_claims,service=x claim="mine" 1')
    return scene.run(INFLUX_OUTPUT_TOKEN=read_and_write(scene))


@row("cut in another way cannot be seen")
def _a_cohort_whose_token_can_do_nothing(scene: Scene) -> int:
    return scene.with_rows().run(INFLUX_OUTPUT_TOKEN=scene.settings["INFLUX_TOKEN"], COHORT_TAG="ward", COHORT="3")


@row("so they belong to no cohort", ends=exit_codes.DONE)
def _rows_without_a_ward(scene: Scene) -> int:
    scene.with_rows().raw("ecg,source_id=b,ward=3 ecg=1 T")
    return scene.run(COHORT_TAG="ward", COHORT="3")


@row("so without COHORT this service would release all rows")
def _a_misspelt_tag(scene: Scene) -> int:
    scene.with_rows().check(COHORT_TAG="wrad", COHORT="3")
    return scene.run(COHORT_TAG="wrad")


@row("❌ spool file")
def _a_damaged_spool_file_and_a_lost_one(scene: Scene) -> int:
    scene.waits_for_the_api()
    (spooled,) = (scene.state / "spool").iterdir()
    spooled.write_bytes(b"noise")
    scene.run(OUTPUT_TO_API="true")
    spooled.unlink()
    return scene.run(OUTPUT_TO_API="true")


@row("Nothing was given up", ends=exit_codes.USAGE)
def _a_lost_spool_file_and_no_terminal(scene: Scene) -> int:
    scene.waits_for_the_api()
    (spooled,) = (scene.state / "spool").iterdir()
    spooled.unlink()
    return scene.script("state.py", "give-up-lost")


@row("cannot be used (Permission denied)")
def _state_of_another_data_set(scene: Scene) -> int:
    scene.with_rows().run()
    scene.write_env()
    forbid = (
        "import os, sys\nfrom pathlib import Path\nfrom scripts import report, state\n"
        "def look(path):\n"
        "    if 'state' in path.parts:\n        raise PermissionError(13, 'Permission denied', str(path))\n"
        "    return os.path.exists(path)\n"
        "Path.is_dir = Path.is_file = look\n"
    )
    scene.process("-c", f"{forbid}sys.exit(state.main(['show']))")
    return scene.process("-c", f"{forbid}sys.exit(report.main(['--since', '2025-11-03']))")


@row("is on a disk without locks")
def _a_share_without_locks(scene: Scene) -> int:
    return scene.patched(
        "import errno, fcntl, os\n"
        "def flock(*values):\n    raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))\n"
        "fcntl.flock = flock"
    )


@row("…/lock cannot be opened")
def _something_else_is_called_lock(scene: Scene) -> int:
    (scene.state / "lock").mkdir(parents=True)
    return scene.run()


@row("cannot make names of new files durable", ends=exit_codes.DONE)
def _a_share_that_syncs_no_folders(scene: Scene) -> int:
    scene.with_rows()
    return scene.patched(
        "import errno, os, stat\nfsync = os.fsync\n"
        "def without_folders(file):\n"
        "    if stat.S_ISDIR(os.fstat(file).st_mode):\n        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))\n"
        "    fsync(file)\n"
        "os.fsync = without_folders"
    )


@row("it is a link, and links are not followed here")
def _planted_links(scene: Scene) -> int:
    scene.state.mkdir()
    os.mkfifo(scene.state / "fence")
    scene.run()
    (scene.state / "fence").unlink()
    (scene.state / "lock").unlink()
    (scene.folder / "other").write_text("precious", encoding="utf-8")
    (scene.state / "lock").hardlink_to(scene.folder / "other")
    scene.run()
    (scene.state / "lock").unlink()
    (scene.state / "lock").symlink_to(scene.folder / "other")
    return scene.run()


@row("but is intact after reopening", ends=exit_codes.DONE)
def _a_failed_read_looks_like_damage(scene: Scene) -> int:
    scene.with_rows()
    return scene.patched(
        "from anonymizer.errors import JournalDamaged\nfrom service.state import journal_file\n"
        "put_seal, failed = journal_file.JournalFile._put_seal, []\n"
        "def fails_once(file, seal):\n"
        "    if file._db.in_transaction and len(failed) < 3:\n"
        "        failed.append(seal)\n"
        "    if len(failed) == 3:\n"
        "        failed.append(seal)\n"
        "        raise JournalDamaged(f'{file.path} is damaged (its seal is invalid). {journal_file.WAY_ON}')\n"
        "    put_seal(file, seal)\n"
        "journal_file.JournalFile._put_seal = fails_once",
        RETRY_BUDGET_SECONDS=9,
    )


@row("nothing was given up`", ends=exit_codes.UNREACHABLE)
def _a_spool_file_that_cannot_be_read_is_not_given_up(scene: Scene) -> int:
    _a_spool_file_that_cannot_be_read(scene)
    return scene.script("state.py", "give-up-lost", "--yes")


@row("⏳ spool folder", ends=exit_codes.UNREACHABLE)
def _the_spool_folder_is_gone(scene: Scene) -> int:
    scene.waits_for_the_api()
    (scene.state / "spool").rename(scene.folder / "away")
    scene.script("state.py", "give-up-lost", "--yes")
    code = scene.run(OUTPUT_TO_API="true", RETRY_BUDGET_SECONDS=1)
    assert not (scene.state / "spool").exists()
    return code


@row("…/set_aside/… is damaged")
def _a_damaged_batch_that_was_set_aside(scene: Scene) -> int:
    scene.api.script(Reply(status=422))
    scene.with_rows().run(OUTPUT_TO_API="true")
    (kept,) = (scene.state / "set_aside").glob("*.spool")
    kept.write_bytes(b"noise")
    scene.write_env(OUTPUT_TO_API="true")
    return scene.script("state.py", "retry-set-aside")


@row("⏳ spool file", ends=exit_codes.UNREACHABLE)
def _a_spool_file_that_cannot_be_read(scene: Scene) -> int:
    scene.waits_for_the_api()
    (spooled,) = (scene.state / "spool").iterdir()
    spooled.unlink()
    spooled.mkdir()
    return scene.run(OUTPUT_TO_API="true", RETRY_BUDGET_SECONDS=1)


@row("⚠️ Spool file", ends=exit_codes.UNREACHABLE)
def _a_spool_file_of_another_journal(scene: Scene) -> int:
    scene.waits_for_the_api()
    (spooled,) = (scene.state / "spool").iterdir()
    shutil.copyfile(spooled, spooled.with_name(f"{900:012d}.spool"))
    return scene.run(OUTPUT_TO_API="true")


@row("and set aside`", ends=exit_codes.SET_ASIDE)
def _the_api_refuses_rows(scene: Scene) -> int:
    scene.api.script(Reply(status=422))
    return scene.with_rows().run(OUTPUT_TO_API="true")


@row("are not known to the journal", ends=exit_codes.DONE)
def _an_output_is_turned_off_that_refused_rows(scene: Scene) -> int:
    scene.api.script(Reply(status=422))
    scene.with_rows().run(OUTPUT_TO_API="true")
    scene.second_window()
    code = scene.script("state.py", "--env-file", ".env", "retry-set-aside")
    assert len(list((scene.state / "set_aside").iterdir())) == 2, "nothing that the output lacks is removed"
    return code


@row("rows came after their windows were released", ends=exit_codes.DONE)
def _rows_come_late(scene: Scene) -> int:
    scene.with_rows().run()
    ended_s = time.time()
    scene.rows(1, 2, 3, source="late")
    while time.time() < ended_s + 1.05:
        time.sleep(0.05)
    return scene.second_window(LATE_RECOUNT_SECONDS=1)


@row("windows expired", ends=None)
@row("⏸️ Reading pauses", ends=None)
def _a_stream_that_an_output_holds_up(scene: Scene) -> None:
    scene.with_short_retention()
    scene.run(STATE_DIR=scene.folder / "other")
    began_s = int(time.time()) - 3500
    for second in range(0, 100, 5):
        scene.rows(*[1] * 200, at_ns=(began_s + second) * SECOND_NS)
    start = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(began_s))
    stream = {"STREAMING_MODE": "true", "QUERY_START_TIME": start, "QUERY_END_TIME": "", "OUTPUT_TO_API": "true"}
    held_up = {**scene.settings, **stream, "API_ENDPOINT": NO_SERVER, "SPOOL_MAX_BYTES": 1, "MAX_RECORDS_PER_QUERY": 1}
    for last_words in ("⏸️ Reading pauses", "⚠️ Released up to"):
        with Service(scene.folder, held_up) as service:
            service.wait_for(last_words)
            scene.said += service.log


def fill_up(folder: Path, left_bytes: int) -> None:
    """Leave so much room on a disk."""
    (folder / f"ballast-{left_bytes}").write_bytes(bytes(max(0, shutil.disk_usage(folder).free - left_bytes)))


@row("No space left on device", ends=exit_codes.UNREACHABLE)
def _the_disk_is_full(scene: Scene) -> int:
    scene.with_rows()
    scene.rows(*[1] * 40_000, at_ns=START_NS + 5 * SECOND_NS)
    with mounted(scene.state, "size=1m"):
        scene.run()
        fill_up(scene.state, 300_000)
        scene.second_window(RETRY_BUDGET_SECONDS=1)
        fill_up(scene.state, 0)
        return scene.second_window()


@row("does not tell what bucket", ends=exit_codes.UNREACHABLE)
def _a_first_start_without_the_output_server(scene: Scene) -> int:
    return scene.with_rows().run(INFLUX_OUTPUT_URL=NO_SERVER, RETRY_BUDGET_SECONDS=1)


@row("The content of bucket … is not compared", ends=exit_codes.UNREACHABLE)
def _a_later_start_without_the_output_server(scene: Scene) -> int:
    scene.with_rows().run()
    return scene.second_window(INFLUX_OUTPUT_URL=NO_SERVER, RETRY_BUDGET_SECONDS=1)


@row("….csv.previous-1", ends=exit_codes.DONE)
def _a_file_of_another_program(scene: Scene) -> int:
    scene.csv.mkdir()
    (scene.csv / "all_20251103.csv").write_text("mine\n", encoding="utf-8")
    code = scene.with_rows().run()
    scene.names()
    return code


@row("….csv.tail-1", ends=exit_codes.DONE)
def _another_program_appends(scene: Scene) -> int:
    scene.with_rows().run()
    with (scene.csv / "all_20251103.csv").open("a", encoding="utf-8") as file:
        file.write("mine\n")
    code = scene.second_window()
    scene.names()
    return code


@row("is shorter than what was written to it", ends=exit_codes.UNREACHABLE)
def _another_program_shortens(scene: Scene) -> int:
    scene.with_rows().run()
    os.truncate(scene.csv / "all_20251103.csv", 40)
    return scene.second_window(RETRY_BUDGET_SECONDS=1)


@row("holds something else where our last rows were", ends=exit_codes.UNREACHABLE)
def _another_file_of_the_same_name(scene: Scene) -> int:
    scene.with_rows().run()
    path = scene.csv / "all_20251103.csv"
    path.write_bytes(path.read_bytes()[::-1])
    return scene.second_window(RETRY_BUDGET_SECONDS=1)


@row("is not there, although files in it are not finished", ends=exit_codes.UNREACHABLE)
def _the_disk_of_the_csv_files_is_away(scene: Scene) -> int:
    scene.with_rows().run()
    scene.csv.rename(scene.folder / "away")
    return scene.second_window(RETRY_BUDGET_SECONDS=1)


@row("held rows that STATE_DIR does not know of", ends=exit_codes.DONE)
def _rows_that_are_not_ours(scene: Scene) -> int:
    scene.with_rows().run()
    with (scene.csv / "all_20251103.csv").open("a") as file:
        file.write("2025-11-03T14:30:05.000000000Z,a,1.0\n")
    return scene.second_window()


@row("a part that it may have taken before", ends=exit_codes.UNREACHABLE)
def _the_api_takes_less_than_it_took(scene: Scene) -> int:
    scene.api.script(Reply(status=500), *[Reply(status=413)] * 9)
    return scene.with_rows().run(OUTPUT_TO_API="true", RETRY_BUDGET_SECONDS=2)


@row("as another type than float")
def _the_output_holds_integers(scene: Scene) -> int:
    scene.with_rows()
    scene.clinic.server.write_lines(scene.clinic.released, f"ecg_anonymized,source_id=x ecg=1i {START_NS + 1}".encode())
    return scene.run()


# The page


# Parquet files


def to_parquet(scene: Scene, **changes: object) -> int:
    """Run with nothing but Parquet files as output."""
    where = {
        "OUTPUT_TO_CSV": "false",
        "OUTPUT_TO_INFLUX": "false",
        "OUTPUT_TO_PARQUET": "true",
        "PARQUET_URL": scene.folder / "pq",
    }
    return scene.run(**{**where, **changes})


def to_store(scene: Scene, url: str, **changes: object) -> int:
    """Run with a bucket for Parquet files."""
    keys = {"AWS_ACCESS_KEY_ID": "an-id", "AWS_SECRET_ACCESS_KEY": "a-secret", "AWS_ENDPOINT_URL": url}
    return to_parquet(scene, **{"PARQUET_URL": "s3://ecg/released", "PARQUET_TIMEOUT_SECONDS": 1, **keys, **changes})


@row("PARQUET_URL must be a folder")
def _a_place_that_cannot_be_for_parquet_files(scene: Scene) -> int:
    for changes in (
        {"PARQUET_URL": "gs://bucket/prefix"},
        {"PARQUET_URL": scene.state},
        {"PARQUET_URL": scene.folder / "pq", "INPUT_FILE": scene.folder / "pq" / "rows"},
        {"PARQUET_URL": "s3://bucket", "AWS_ACCESS_KEY_ID": "an-id"},
    ):
        code = scene.check(OUTPUT_TO_PARQUET="true", **changes)
    return code


@row("❌ PARQUET_URL: bucket ecg at … needs keys")
def _a_store_without_keys(scene: Scene) -> int:
    return to_store(scene, NO_SERVER, AWS_ACCESS_KEY_ID="", AWS_SECRET_ACCESS_KEY="")


@row("the right to store objects")
def _keys_that_may_only_read(scene: Scene) -> int:
    nothing = http_answer("200 OK", b"<ListBucketResult><Name>ecg</Name><IsTruncated>false</IsTruncated></ListBucketResult>")
    with socket_servers() as serve:
        refused = [http_answer("403 Forbidden", b"<Code>AccessDenied</Code>")]
        return to_store(scene.with_rows(), serve(*[[nothing]] * 4, refused, [nothing], refused).url)


@row("❌ PARQUET_URL: bucket ecg at … answered 404")
def _a_bucket_that_is_not_there(scene: Scene) -> int:
    with socket_servers() as serve:
        return to_store(scene, serve([http_answer("404 Not Found", b"<Code>NoSuchBucket</Code>")]).url)


@row("⏳ PARQUET_URL: bucket ecg at", ends=exit_codes.UNREACHABLE)
def _a_store_that_does_not_take_anything(scene: Scene) -> int:
    with socket_servers() as serve:
        silent = serve([Pause(9)]).url
        answers = ([b""], [http_answer("507 Insufficient Storage")])
        for url in (NO_SERVER, silent, *(serve(answer).url for answer in answers)):
            code = to_store(scene, url, RETRY_BUDGET_SECONDS=8 if url == silent else 1)
    return code


@row("already, with other rows than those to be written")
def _a_file_with_other_rows(scene: Scene) -> int:
    to_parquet(scene.with_rows())
    for path in (scene.folder / "pq").glob("rows/**/*.parquet"):
        path.write_bytes(b"mine")
    shutil.rmtree(scene.folder / "pq" / "windows")
    shutil.rmtree(scene.state)
    return to_parquet(scene)


@row("❌ PARQUET_URL holds summaries of windows")
@row("cannot be read as Parquet of ours")
def _a_lost_state_folder_beside_parquet_files(scene: Scene) -> int:
    to_parquet(scene.with_rows())
    shutil.rmtree(scene.state)
    to_parquet(scene)
    for path in (scene.folder / "pq").glob("windows/**/*.parquet"):
        path.write_bytes(b"mine")
    return to_parquet(scene)


@row("does not hold the folder rows", ends=exit_codes.UNREACHABLE)
def _parquet_files_that_are_gone(scene: Scene) -> int:
    to_parquet(scene.with_rows())
    shutil.rmtree(scene.folder / "pq" / "rows")
    return to_parquet(scene, QUERY_START_TIME=moment(5), QUERY_END_TIME=moment(10), RETRY_BUDGET_SECONDS=1)


@row("and these keys cannot read PARQUET_URL", ends=exit_codes.DONE)
def _keys_that_may_not_list(scene: Scene) -> int:
    with socket_servers() as serve:
        return to_store(scene, serve([http_answer("403 Forbidden", b"<Code>AccessDenied</Code>")]).url)


@row("The content of PARQUET_URL is not compared", ends=exit_codes.UNREACHABLE)
def _a_store_that_is_down_at_a_later_start(scene: Scene) -> int:
    scene.with_rows().run(OUTPUT_TO_INFLUX="false")
    return to_store(scene, NO_SERVER, QUERY_START_TIME=moment(5), QUERY_END_TIME=moment(10))


@row("it does not say which InfluxDB it is")
def _a_server_that_does_not_say_what_it_is(scene: Scene) -> int:
    with socket_servers() as serve:
        return scene.run(INFLUX_URL=serve([b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n"]).url)


@row("which does not answer Flux")
def _a_server_that_speaks_no_flux(scene: Scene) -> int:
    header = b"X-Influxdb-Version: 1.6.7\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    with socket_servers() as serve:
        answers = [b"HTTP/1.1 204 No Content\r\n" + header, b"HTTP/1.1 404 Not Found\r\n" + header]
        return scene.run(INFLUX_URL=serve(*([each] for each in answers)).url, INFLUX_QUERY_LANGUAGE="flux")


@row("no database mapping leads to bucket")
def _a_mapping_that_leads_to_another_bucket(scene: Scene) -> int:
    server, clinic = scene.clinic.server, scene.clinic
    mapping = {"orgID": server.org_id(), "database": clinic.raw, "retention_policy": "autogen", "default": True}
    server.ask("POST", "/api/v2/dbrps", json={**mapping, "bucketID": server.bucket_id(clinic.released)})
    return scene.run(INFLUX_QUERY_LANGUAGE="influxql")


@row("is no folder of Parquet files of this project", ends=exit_codes.USAGE)
def _what_the_outside_check_cannot_read(scene: Scene) -> int:
    to_parquet(scene.with_rows())
    scene.process("-c", f"import sys; sys.modules['pyarrow'] = None; sys.argv[1:] = ['pq']; {RUN_THE_CHECK}")
    scene.script("verify_output.py", "s3://ecg/released")
    return scene.script("verify_output.py", ".")


def symptoms() -> list[str]:
    """Return what the page says is printed, row by row."""
    return [line[heading] for heading in TABLES for line in rows_with(PAGE, heading)]


def is_printed(text: str, said: str) -> bool:
    """Return whether the page's text is in what was said."""
    pattern = "".join(_pattern(piece) for piece in re.split(r"(…|(?<![(\w])\d(?:[\d.,]*\d)?|'[^']*')", text))
    return re.search(pattern, said) is not None


def _pattern(piece: str) -> str:
    if piece == "…":
        return ".*?"
    if piece[:1].isdigit():
        return r"\d(?:[\d.,]*\d)?"
    return r"'[^']*'" if piece[:1] == "'" else re.escape(piece)


def words_of(symptom: str) -> str:
    """Return by which words a row of the page is told."""
    found = [words for words in CASES if words in symptom]
    assert len(found) == 1, f"no case tries this row, or its words stand in another row too: {symptom}"
    return found[0]


@pytest.fixture(scope="module")
def played() -> dict[Play, tuple[int | None, str]]:
    """What was brought about already: some rows are about the same."""
    return {}


@pytest.mark.parametrize("symptom", [one for one in symptoms() if one not in SILENT], ids=ascii)
def test_what_the_page_says_is_printed_is_printed(
    symptom: str,
    played: dict[Play, tuple[int | None, str]],
    influxdb: InfluxServer,
    api_server: ApiServer,
    tmp_path: Path,
) -> None:
    case = CASES[words_of(symptom)]
    if case.play not in played:
        scene = Scene(Clinic(influxdb), api_server, tmp_path)
        played[case.play] = case.play(scene), scene.said
    code, said = played[case.play]

    for text in re.findall(r"`([^`]+)`", symptom):
        assert is_printed(text, said), f"never printed {text}:\n{said}"
    assert code == case.ends, said


def test_every_case_is_of_a_row_that_is_still_there() -> None:
    assert [words for words in CASES if not any(words in symptom for symptom in symptoms())] == []
    assert SILENT.keys() <= set(symptoms())


def test_every_exit_code_is_on_the_page_and_the_page_has_no_other() -> None:
    told = {int(code) for line in table_with(PAGE, "code") for code in re.findall(r"\d+", line["code"])}
    known: dict[str, Any] = {name: value for name, value in vars(exit_codes).items() if name.isupper()}

    assert told == set(known.values())
