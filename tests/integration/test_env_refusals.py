"""`.env`, the environment and secret files, on the real programs: what cannot be read is refused, and nothing means two things."""

from __future__ import annotations

import csv
import hashlib
import hmac
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from anonymizer.batch import Promise
from anonymizer.errors import ConfigurationError
from anonymizer.pseudonyms import key_id_of
from service import exit_codes
from service.settings.load import load
from service.state.epochs import Epoch
from service.state.journal import Journal
from testbed.influxdb_server import InfluxServer
from tests.heartbeat.commands import on_a_terminal
from tests.integration.clinic import Clinic
from tests.integration.service_process import Service, run_script

CASES = Path(__file__).parent / "env_cases"
KEY = "7c1e4fa09b3d582611e0c94da5f87b36d28e07b15f6a493cc0d1e89b24f7a35e"
FROM_FILE = "INPUT_FILE=ecg.csv\nOUTPUT_TO_INFLUX=false\n"


@dataclass(frozen=True)
class Ended:
    """How a program ended and what it said."""

    code: int
    said: str
    stdout: str


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a recording of two wearers in two windows."""
    rows = [
        f"2025-11-03T14:30:0{second}.{part:03d}Z,{source},{part % 3}"
        for second in (0, 5)
        for part in range(40)
        for source in ("w1", "w2")
    ]
    (tmp_path / "ecg.csv").write_text("\n".join(["timestamp,source_id,ecg", *rows]), encoding="utf-8")
    return tmp_path


def run(folder: Path, script: str, *arguments: str, stdin: str = "", **environment: str) -> Ended:
    home = {"HOME": str(folder / "home")}
    done = run_script(script, *arguments, folder=folder, environment={**home, **environment}, stdin=stdin)
    return Ended(done.returncode, done.stdout + done.stderr, done.stdout)


def serve(folder: Path, env: str | bytes | Path, *arguments: str, **environment: str) -> Ended:
    """Run the service with a file of settings."""
    give(folder, env)
    return run(folder, "central_anonymizer.py", "--env-file", "given.env", *arguments, **environment)


def give(folder: Path, env: str | bytes | Path) -> Path:
    path = folder / "given.env"
    content = env.read_bytes() if isinstance(env, Path) else env
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    path.chmod(0o600)
    return path


def refusal(env_file: Path, **environment: str) -> str:
    """Return what the service says of settings that it refuses, without a process of its own."""
    with pytest.raises(ConfigurationError) as refused:
        load(env_file, environment)
    assert KEY not in str(refused.value)
    return str(refused.value)


def serve_environment(folder: Path, env: str, **environment: str) -> Ended:
    """Run the service with the lines of a file as `docker run --env-file` passes them on: as they stand."""
    given = dict(line.split("=", 1) for line in env.splitlines() if line)
    return run(folder, "central_anonymizer.py", **given, **environment)


def made_by(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {"ecg.csv", "given.env", "salt"}


def sources_in(folder: Path) -> set[str]:
    found = set()
    for path in folder.rglob("ecg_anonymized_*.csv"):
        with path.open(encoding="utf-8") as file:
            found |= {row["source_id"] for row in csv.DictReader(file)}
    return found


def pseudonym(key: bytes, source: str = "w1") -> str:
    return hmac.new(key, source.encode(), hashlib.sha256).hexdigest()


def assert_refused(ended: Ended, *lines: int, folder: Path) -> None:
    assert ended.code == exit_codes.CONFIGURATION, ended.said
    assert_named(ended.said, lines)
    assert KEY not in ended.said
    assert made_by(folder) == set()


def assert_named(said: str, lines: Sequence[int]) -> None:
    for line in lines:
        assert f"given.env, line {line}: " in said, said
    assert said.count("given.env, line ") == len(lines), said


GOOD = f"{FROM_FILE}PSEUDONYMIZE_SOURCE_ID=true\nPSEUDONYM_SALT={KEY}\n"


UNREADABLE: list[tuple[str | bytes | Path, tuple[int, ...]]] = [
    (CASES / "colon_instead_of_equals.env", (4, 5)),
    (CASES / "quote_left_open.env", (3,)),
    (f"{GOOD}K_VALUE 20\nK_UNIT\nexport METHOD\n=20\n", (5, 6, 7, 8)),
    (f"{FROM_FILE}PSEUDONYM_SALT: {KEY}\nPSEUDONYM_SALT {KEY}\n{KEY}\n{KEY}=\n", (3, 4, 5, 6)),
    (f"{GOOD}API_TOKEN='abc\nK_VALUE=20\nSTATE_DIR='./state'\n", (5,)),
    (f'{GOOD}API_TOKEN="abc" def\nAPI_TOKEN_FILE=abc"\nSTATE_DIR="\n', (5, 6, 7)),
    (f"{GOOD}K_VALUE=20 # sensitive\nK_UNIT='source' # wearers\nMAX_LEVEL= # 1 to 7\n", (5, 6, 7)),
    (f"{GOOD}K_VALUE=20\nK_VALUE=5\nexport K_UNIT=source\nK_UNIT=record\n", (6, 8)),
    (
        GOOD.encode() + b"CSV_OUTPUT_DIR=\xe9\n# x\xe9\nK_VALUE=2\x000\nMETHOD=optimal\x0b\nINFLUX_ORG=a\rK_VALUE=9\n",
        (5, 6, 7, 8, 9),
    ),
    (GOOD.replace("\n", "\r"), (1,)),
    (f"{GOOD}\ufeffK_VALUE=20\n", (5,)),
    (f"{GOOD}k_value=20\nK\u00a0VALUE=20\nK_VALUE\u00a0=20\nK_VALUE\uff1d20\n", (5, 6, 7, 8)),
    (f"{GOOD}CSV_OUTPUT_DIR=“out”\nSTATE_DIR=state\u00a0\nINFLUX_ORG=ward\u200b\nDEVICE_FILTER=‘w1‘\n", (5, 6, 7, 8)),
    (f"{GOOD}STATE_DIR=./stateK_VALUE=20\nINFLUX_ORG=ward METHOD=optimal\n", (5, 6)),
    (f"{GOOD}PSEUDONYMISE_SOURCE_IDS=true\nDEVICE_FILTERS=w1\n", (5, 6)),
]


@pytest.mark.parametrize(("text", "lines"), UNREADABLE, ids=range(15))
def test_a_line_that_cannot_be_read_is_refused_by_its_number(
    folder: Path, text: str | bytes | Path, lines: tuple[int, ...]
) -> None:
    assert_named(refusal(give(folder, text)), lines)


@pytest.mark.parametrize("number", [0, 1, 8])
def test_nothing_is_made_where_a_line_cannot_be_read(folder: Path, number: int) -> None:
    text, lines = UNREADABLE[number]
    assert_refused(serve(folder, text), *lines, folder=folder)


def test_a_file_in_utf_16_is_refused_and_no_more_lines_are_listed_than_can_be_read(folder: Path) -> None:
    ended = serve(folder, (GOOD + "A=1\n" * 50).encode("utf-16"))

    assert ended.code == exit_codes.CONFIGURATION
    assert "given.env, line 1: it is not UTF-8; save the file as UTF-8 text" in ended.said
    assert "more lines cannot be used" in ended.said
    assert ended.said.count("given.env, line ") == 20


def test_what_is_doubled_alike_or_unknown_is_warned_of_with_its_line(folder: Path) -> None:
    ended = serve(folder, f"\ufeff# K_VALUE: 20\n\n  # more\n{GOOD}K_VALUE = 5\nexport K_VALUE=5\nCOLOUR=blue\n", "--check")

    assert ended.code == exit_codes.DONE
    assert "given.env, line 9: K_VALUE is set again, to the same value as on line 8" in ended.said
    assert "given.env, line 10: a name is not a setting; see .env.example" in ended.said


@pytest.mark.parametrize("kind", ["folder", "link"])
def test_what_stands_where_the_env_file_should_be_is_refused_even_if_the_environment_has_everything(
    folder: Path, kind: str
) -> None:
    if kind == "folder":
        (folder / ".env").mkdir()
    else:
        (folder / ".env").symlink_to("nowhere")

    ended = serve_environment(folder, GOOD)

    assert ended.code == exit_codes.CONFIGURATION
    assert ".env cannot be read (Is a directory)" in ended.said or ".env is a link to a file that is not there" in ended.said


@pytest.mark.parametrize(
    "text",
    [
        (CASES / "quoted_values.env").read_text(),
        f"{FROM_FILE}PSEUDONYMIZE_SOURCE_ID='true'\nPSEUDONYM_SALT='{KEY}'\nDEVICE_FILTER=  w1,w2  \nK_VALUE=\" 5 \"\n",
    ],
)
def test_quotes_and_blanks_mean_the_same_in_a_file_and_in_the_environment(folder: Path, text: str) -> None:
    assert serve(folder, f"{text}CSV_OUTPUT_DIR=a\nSTATE_DIR=sa\n").code == exit_codes.DONE
    ended = serve_environment(folder, text, CSV_OUTPUT_DIR="b", STATE_DIR="sb")

    assert ended.code == exit_codes.DONE, ended.said
    assert "PSEUDONYM_SALT in the environment is quoted; the quotes are not part of the value" in ended.said
    assert sources_in(folder / "a") == sources_in(folder / "b") == {pseudonym(KEY.encode(), one) for one in ("w1", "w2")}
    assert [path.read_bytes() for path in sorted((folder / "a").iterdir())] == [
        path.read_bytes() for path in sorted((folder / "b").iterdir())
    ]


UNCLOSED = [f'"{KEY}', f'{KEY}"', f'"{KEY}" #', f"“{KEY}”", f"{KEY}\u00a0", f'"{KEY[:20]}\\n{KEY}"']


@pytest.mark.parametrize("value", UNCLOSED)
def test_a_quote_that_is_not_closed_is_refused_in_a_file_in_the_environment_and_by_the_heartbeat_tools(
    folder: Path, value: str
) -> None:
    text = f"{FROM_FILE}PSEUDONYMIZE_SOURCE_ID=true\nPSEUDONYM_SALT={value}\n"
    given = dict(line.split("=", 1) for line in text.splitlines())

    assert_named(refusal(give(folder, text)), (4,))
    assert "SALT in the environment cannot be read: " in refusal(folder / "none.env", **given)
    ends = [run(folder, "scripts/anonymize.py", HEART_SALT=value)]
    if value == UNCLOSED[0]:
        assert_refused(serve(folder, text), 4, folder=folder)
        ends += [serve_environment(folder, text), run(folder, "scripts/ingest_heartbeat.py", "--anonymize", HEART_SALT=value)]
    for ended in ends:
        assert ended.code == exit_codes.CONFIGURATION, ended.said
        assert "SALT in the environment cannot be read: " in ended.said
        assert KEY not in ended.said


def heartbeat_pseudonyms(folder: Path, *arguments: str, **environment: str) -> tuple[str, str]:
    """Return the pseudonym of `w1` as both heartbeat commands make it."""
    entry = {"timestamp": "2025-11-03T14:30:00Z", "source_id": "w1", "event_type": "beat", "metrics": {}, "symbols": []}
    line = json.dumps(entry) + "\n"
    shown = run(folder, "scripts/anonymize.py", *arguments, stdin=line, **environment)
    (folder / "ledger").unlink(missing_ok=True)
    kept = run(folder, "scripts/ingest_heartbeat.py", "--anonymize", "--ledger", "ledger", *arguments, stdin=line, **environment)
    assert (shown.code, kept.code) == (0, 0), shown.said + kept.said
    return json.loads(shown.stdout)["source_id"], json.loads((folder / "ledger").read_text())["source_id"]


SALT_FILES = {
    "a space behind": (CASES / "salt_with_a_space_behind.txt").read_bytes(),
    "an ordinary one": KEY.encode() + b"\n",
    "two line ends": KEY.encode() + b"\r\n\r\n",
    "a tab before": b"\t" + KEY.encode(),
    "a byte order mark": b"\xef\xbb\xbf" + KEY.encode() + b"\n",
    "quotes": b'"' + KEY.encode() + b'"\n',
    "bytes that are no text": b"\xff\xfe\x00" + KEY.encode(),
    "a carriage return": KEY.encode() + b"\r",
}


@pytest.mark.parametrize("kind", SALT_FILES)
def test_a_key_file_gives_one_pseudonym_everywhere_that_of_its_bytes_without_one_line_end(folder: Path, kind: str) -> None:
    content = SALT_FILES[kind]
    (folder / "salt").write_bytes(content)
    (folder / "salt").chmod(0o600)
    expected = pseudonym(expected_key(content))

    is_strange = kind not in ("an ordinary one", "bytes that are no text")
    text = f"{FROM_FILE}PSEUDONYMIZE_SOURCE_ID=true\nPSEUDONYM_SALT_FILE=salt\n"
    if is_strange:
        refused = serve(folder, text)
        assert refused.code == exit_codes.CONFIGURATION
        assert (
            "PSEUDONYM_SALT is refused: it begins or ends with a blank, a line end, a quote or a byte order mark" in refused.said
        )
        assert not (folder / "output").exists()
        release_under(folder / "state", expected_key(content))

    ended = serve(folder, text)

    assert ended.code == exit_codes.DONE, ended.said
    assert expected in sources_in(folder)
    old = {"HEART_ACCEPT_WEAK_SALT": "true"} if is_strange else {}
    shown = run(folder, "scripts/anonymize.py", stdin='{"source_id": "w1"}\n', HEART_SALT_FILE="salt", **old)
    assert json.loads(shown.stdout)["source_id"] == expected
    assert ("PSEUDONYM_SALT begins " in ended.said) == is_strange
    assert ("warning: the salt begins " in shown.said) == is_strange
    assert KEY not in ended.said + shown.said
    if kind == "a space behind":
        assert heartbeat_pseudonyms(folder, HEART_SALT_FILE="salt", **old) == (expected, expected)


def release_under(state: Path, key: bytes) -> None:
    """Leave a journal in which an earlier version's last releases were made under this key."""
    journal = Journal(state, data_set=None)
    journal.epochs.begin(Epoch(Promise(5, "record", "hierarchy", "00112233aabbccdd", key_id_of(key)), 5 * 10**9), now_ns=1)
    journal.close()


def expected_key(content: bytes) -> bytes:
    """Return a key's bytes: those of its file without one line end."""
    return content[:-2] if content.endswith(b"\r\n") else content.removesuffix(b"\n")


@pytest.mark.skipif(sys.platform == "win32", reason="pseudo-terminals are POSIX")
def test_one_key_makes_one_pseudonym_from_every_place_that_it_can_stand_in(folder: Path) -> None:
    expected = pseudonym(KEY.encode())
    (folder / "heart.env").write_text(f"HEART_SALT='{KEY}'\nK_VALUE=5\n")
    (folder / "heart.env").chmod(0o600)
    (folder / "other.env").write_text('HEART_SALT_FILE="salt"\n')
    (folder / "salt").write_text(f"{KEY}\n")
    (folder / "salt").chmod(0o600)

    found = {
        *heartbeat_pseudonyms(folder, HEART_SALT=KEY),
        *heartbeat_pseudonyms(folder, HEART_SALT=f'  "{KEY}" '),
        *heartbeat_pseudonyms(folder, "--env-file", "heart.env"),
        *heartbeat_pseudonyms(folder, "--env-file", "other.env"),
    }
    with on_a_terminal("anonymize.py", cwd=folder) as terminal:
        terminal.wait_for("Salt (not shown): ")
        terminal.type(KEY + "\n")
        found.add(json.loads(terminal.end('{"source_id": "w1"}\n').stdout)["source_id"])
    for number, text in enumerate((f"PSEUDONYM_SALT={KEY}", f"PSEUDONYM_SALT='{KEY}' ", "PSEUDONYM_SALT_FILE=salt")):
        places = f"CSV_OUTPUT_DIR=out{number}\nSTATE_DIR=state{number}\n"
        serve(folder, f"{FROM_FILE}PSEUDONYMIZE_SOURCE_ID=true\n{text}\n{places}")
        found |= sources_in(folder / f"out{number}")

    assert found == {expected, pseudonym(KEY.encode(), "w2")}


def test_a_token_file_with_a_blank_or_a_second_line_end_is_refused_and_not_cut_in_silence(folder: Path) -> None:
    for content in ("token \n", "token\n\n", " token"):
        (folder / "salt").write_text(content)
        ended = serve(folder, f"{GOOD}API_TOKEN_FILE=salt\n", "--check")
        assert ended.code == exit_codes.CONFIGURATION
        assert "API_TOKEN begins or ends with a blank or line end, which no token does" in ended.said


@pytest.mark.parametrize("place", ["~/ecg", "$HOME/ecg", "${HOME}/ecg", "~someone/ecg", "%USERPROFILE%/ecg", "./a/$HOME"])
def test_a_home_folder_that_nothing_here_writes_out_is_refused_and_no_folder_is_made(folder: Path, place: str) -> None:
    names = ("STATE_DIR", "CSV_OUTPUT_DIR", "HIERARCHY_CSV_PATH", "INPUT_FILE", "INFLUX_CA_FILE", "API_CA_FILE", "API_TOKEN_FILE")
    text = "OUTPUT_TO_INFLUX=false\n" + "".join(f"{name}={place}\n" for name in names)
    as_found = (CASES / "home_folder.env").read_text() if place == "~/ecg" else ""

    for given, arguments in ((text, ()), (text, ("--check", "--connect")), (as_found, ("--check",))):
        if given:
            ended = serve(folder, given, *arguments)
            assert ended.code == exit_codes.CONFIGURATION
            for name in names[: None if given == text else 2]:
                assert f"{name} must be a path without ~, $NAME or %NAME%" in ended.said
            assert made_by(folder) == set()


@pytest.mark.parametrize("arguments", [("--check",), ("--check", "--connect"), ("--health",)])
def test_who_only_checks_makes_no_folder_and_no_file(folder: Path, arguments: tuple[str, ...]) -> None:
    ended = serve(folder, f"{GOOD}STATE_DIR=deep/state\nCSV_OUTPUT_DIR=deep/out\n", *arguments)

    assert ended.code == exit_codes.DONE, ended.said
    assert made_by(folder) == set()


def test_a_key_that_a_person_thought_up_is_refused_but_for_what_was_begun_under_it_and_never_shown(folder: Path) -> None:
    for key, reason in (("changeme-changeme-2025", "it is made of common words"), ("0123456789abcdef", "it is a sequence")):
        text = f"{FROM_FILE}PSEUDONYMIZE_SOURCE_ID=true\nPSEUDONYM_SALT={key}\nCSV_OUTPUT_DIR=out-{key}\nSTATE_DIR=state-{key}\n"
        line = '{"source_id": "w1"}\n'

        # All mistakes at once, with the command that makes a good key.
        refused, heart = serve(folder, text + "K_VALUE=1\n"), run(folder, "scripts/anonymize.py", stdin=line, HEART_SALT=key)
        assert (refused.code, heart.code) == (exit_codes.CONFIGURATION, exit_codes.CONFIGURATION)
        assert "K_VALUE must be" in refused.said
        for ended, name in ((refused, "PSEUDONYM_SALT"), (heart, "HEART_SALT")):
            assert f"{name} is refused: {reason}" in ended.said
            assert 'python3 -c "import secrets; print(secrets.token_hex(32))"' in ended.said

        release_under(folder / f"state-{key}", key.encode())
        checked = serve(folder, text, "--check")
        ends = [serve(folder, text), serve(folder, text)]
        heart = run(folder, "scripts/anonymize.py", stdin=line, HEART_SALT=key, HEART_ACCEPT_WEAK_SALT="true")
        assert {ended.code for ended in (checked, *ends, heart)} == {exit_codes.DONE}, ends[0].said
        assert pseudonym(key.encode()) in sources_in(folder / f"out-{key}")
        assert json.loads(heart.stdout)["source_id"] == pseudonym(key.encode())
        for ended in (checked, *ends):
            assert f"⚠️ PSEUDONYM_SALT is easy to guess: {reason}" in ended.said
        assert f"warning: the salt is easy to guess: {reason}" in heart.said
        changed = serve(folder, text.replace(f"SALT={key}", f"SALT={key}-2025"))
        assert (changed.code, "PSEUDONYM_SALT is refused" in changed.said) == (exit_codes.CONFIGURATION, True)
        assert key not in "".join(
            one.said.replace(f"out-{key}", "").replace(f"state-{key}", "") for one in (refused, *ends, heart)
        )


@pytest.mark.parametrize(
    "text",
    [(CASES / "year_one.env").read_text(), "INPUT_FILE=ecg.csv\nOUTPUT_TO_INFLUX=false\nQUERY_START_TIME=9999-12-31T23:59:59Z\n"],
)
def test_a_year_that_64_bits_cannot_hold_is_a_sentence(folder: Path, text: str) -> None:
    ended = serve(folder, text)

    assert ended.code == exit_codes.CONFIGURATION
    assert "QUERY_START_TIME must be a time in the years 1700 to 2239, got '" in ended.said
    assert made_by(folder) == set()


@pytest.mark.parametrize(
    "extremes",
    [
        "QUERY_START_TIME=1700-01-01\nQUERY_END_TIME=2239-12-31T23:59:59\nALLOWED_LATENESS_SECONDS=31622400\nK_VALUE=1000000000\n",
        "QUERY_START_TIME=1700-01-01\nBATCH_SIZE_SECONDS=31622400\nMAX_RECORDS_PER_QUERY=1000000000000000000\nMETHOD=optimal\n",
        "QUERY_END_TIME=2239-12-31\nLATE_RECOUNT_SECONDS=31622400\nSPOOL_MAX_BYTES=1\nRETRY_BUDGET_SECONDS=31622400\nK_UNIT=source\n",
    ],
)
def test_the_widest_times_and_numbers_that_are_accepted_end_without_a_traceback(folder: Path, extremes: str) -> None:
    ended = serve(folder, FROM_FILE + extremes)

    assert ended.code == exit_codes.DONE, ended.said
    assert "160 rows read" in ended.said


HUGE = "9" * 5000


@pytest.mark.parametrize(
    "text",
    [
        *(
            f"QUERY_START_TIME={time}"
            for time in (
                "0001-01-01T00:00:00Z",
                "0001-01-01T00:00:00+14:00",
                "9999-12-31T23:59:59-14:00",
                "1600-01-01",
                "2300-01-01",
            )
        ),
        "QUERY_END_TIME=9999-12-31",
        *(f"K_VALUE={number}" for number in (HUGE, "10000000000", "１２", "1_000", "nan", "+5", "5.", "0x10")),
        *(f"BATCH_SIZE_SECONDS={number}" for number in (HUGE, "31622401", "１２", "1e3")),
        *(f"DEFAULT_QUERY_HOURS={number}" for number in (HUGE, "1e300", "1e999", "nan", "inf", "1_0", "１２", "876601")),
        *(f"ALLOWED_LATENESS_SECONDS={number}" for number in ("1" + "0" * 30, "31622401", "-1")),
        *(f"LATE_RECOUNT_SECONDS={number}" for number in (HUGE, "30,31622401", "１２", "1_0,20", "")[:4]),
        *(
            f"{name}={HUGE}"
            for name in ("STREAMING_INTERVAL", "RETRY_BUDGET_SECONDS", "MAX_RECORDS_PER_QUERY", "SPOOL_MAX_BYTES")
        ),
        *(f"{name}=86401" for name in ("INFLUX_QUERY_TIMEOUT", "API_TIMEOUT_SECONDS")),
    ],
    ids=lambda text: text[:40],
)
def test_times_and_numbers_beyond_all_sense_are_refused(folder: Path, text: str) -> None:
    name = text.partition("=")[0]
    with pytest.raises(Exception, match=f"{name} must be ") as caught:
        load(
            folder / ".env",
            {"INFLUX_TOKEN": "t", "INFLUX_ORG": "o", "QUERY_START_TIME": "2025-01-01", name: text.partition("=")[2]},
        )
    assert len(str(caught.value)) < 1000


@pytest.mark.influxdb
@pytest.mark.parametrize(
    "extremes",
    [
        {"QUERY_START_TIME": "2025-11-03", "QUERY_END_TIME": "2239-12-31T23:59:59", "LATE_RECOUNT_SECONDS": 31622400},
        {"QUERY_START_TIME": "1700-01-01", "QUERY_END_TIME": "1700-01-02", "BATCH_SIZE_SECONDS": 86400},
        {"DEFAULT_QUERY_HOURS": 876600, "K_VALUE": 10**9},
        {"DEFAULT_QUERY_HOURS": "0.0000001", "ALLOWED_LATENESS_SECONDS": 31622400, "INFLUX_QUERY_TIMEOUT": 86400},
        {
            "STREAMING_MODE": "true",
            "STREAMING_INTERVAL": 31622400,
            "QUERY_START_TIME": "1700-01-01",
            "BATCH_SIZE_SECONDS": 31622400,
        },
        {"STREAMING_MODE": "true", "QUERY_START_TIME": "2239-12-31T23:59:59", "ALLOWED_LATENESS_SECONDS": 31622400},
    ],
    ids=range(6),
)
def test_the_widest_times_and_numbers_on_a_server_end_without_a_traceback(
    influxdb: InfluxServer, tmp_path: Path, extremes: dict[str, object]
) -> None:
    clinic = Clinic(influxdb)
    clinic.fill()
    with Service(tmp_path, {**clinic.settings, "RETRY_BUDGET_SECONDS": 31622400, **extremes}) as service:
        if "STREAMING_MODE" in extremes:
            service.wait_for("Connected to InfluxDB")
            time.sleep(1)
            code = service.stop()
        else:
            code = service.exit_code()

    assert code == exit_codes.DONE, service.log
    assert "Traceback" not in service.log
