"""One-shot runs of the real program on a real InfluxDB 2: what comes out, in every output, against what went in."""

from __future__ import annotations

import math
import subprocess
import sys
from collections import Counter
from pathlib import Path
from uuid import uuid4

import pytest

from service.version import VERSION
from testbed.line_protocol import SeriesNames
from testbed.replay import load
from testbed.wearers import Wearers
from tests.integration.clinic import FIRST_MINUTE, START_NS, Clinic, api_rows, csv_rows, load_first_minute
from tests.integration.service_process import KEY, ROOT, run_service
from tests.servers.api_server import ApiServer

pytestmark = pytest.mark.influxdb


def pearson(pairs: list[tuple[int, float]]) -> float:
    n = len(pairs)
    mean_x, mean_y = sum(x for x, _ in pairs) / n, sum(y for _, y in pairs) / n
    covariance = sum((x - mean_x) * (y - mean_y) for x, y in pairs)
    return covariance / math.sqrt(sum((x - mean_x) ** 2 for x, _ in pairs) * sum((y - mean_y) ** 2 for _, y in pairs))


def test_three_outputs_hold_the_same_rows_and_exactly_those_that_were_measured(
    clinic: Clinic, tmp_path: Path, api_server: ApiServer
) -> None:
    raw = load_first_minute(clinic)

    code, log = run_service(
        tmp_path, {**clinic.settings, **FIRST_MINUTE, "OUTPUT_TO_API": "true", "API_ENDPOINT": api_server.endpoint}
    )

    in_influxdb, in_csv, at_api = clinic.stored(), csv_rows(tmp_path / "csv"), api_rows(api_server.stored())
    assert code == 0, log
    assert in_influxdb == in_csv == at_api
    assert set(in_csv) == set(raw)
    assert len(in_csv) == 6 * 60 * 360
    for window in range(12):
        start, stop = window * 5, window * 5 + 5
        values = Counter(value for (time, _), value in in_csv.items() if start <= int(time[17:19]) < stop)
        assert min(values.values()) >= 5
    # No signals were swapped: each wearer still looks like themselves.
    for pseudonym in {name for _, name in raw}:
        pairs = [(raw[key], in_csv[key]) for key in raw if key[1] == pseudonym]
        assert pearson(pairs) > 0.998
    assert_summaries_agree(clinic)


def assert_summaries_agree(clinic: Clinic) -> None:
    """Fail unless every window has a summary point that agrees with its rows."""
    flux = (
        f'from(bucket: "{clinic.released}") |> range(start: 0) |> filter(fn: (r) => r._measurement == "ecg_anonymized_windows") '
        '|> pivot(rowKey: ["_time"], columnKey: ["_field"], valueColumn: "_value")'
    )
    summaries = clinic.server.rows(flux)
    assert len(summaries) == 12
    said = {"rows_read": "10800", "rows_released": "10800", "k": "5", "k_unit": "record", "distinct_sources": "6"}
    for summary in summaries:
        assert {name: summary[name] for name in said} == said
        assert int(summary["smallest_group"]) >= 5
        assert len(summary["key_id"]) == 16


def test_a_window_of_whole_numbers_and_one_with_halves_are_both_stored(clinic: Clinic, tmp_path: Path) -> None:
    # Level 1 ranges are 2 µV wide. Five equal values in a window give one midpoint of .5; whole means come from IMPUTATION=mean,
    # so the same two windows are sent under both settings.
    lines = [
        f"ecg,source_id=a ecg={10 + window * 100}i {START_NS + window * 5 * 10**9 + i}" for window in range(2) for i in range(5)
    ]
    clinic.server.write_lines(clinic.raw, "\n".join(lines).encode())
    first_window = {"QUERY_START_TIME": "2025-11-03T14:30:00Z", "QUERY_END_TIME": "2025-11-03T14:30:05Z"}
    second_window = {"QUERY_START_TIME": "2025-11-03T14:30:05Z", "QUERY_END_TIME": "2025-11-03T14:30:10Z"}

    codes = [
        run_service(tmp_path, {**clinic.settings, **first_window, "IMPUTATION": "mean"})[0],
        run_service(tmp_path, {**clinic.settings, **second_window, "IMPUTATION": "midpoint"})[0],
    ]

    assert codes == [0, 0]
    assert Counter(clinic.stored().values()) == {10.0: 5, 110.5: 5}


def test_names_with_quotes_spaces_commas_and_flux_in_them_go_through_and_a_tag_filter_chooses_one_of_two_leads(
    clinic: Clinic, tmp_path: Path
) -> None:
    odd = 'a "b", c=${d} \\e'
    names, end_ns = SeriesNames(measurement=odd, field=odd, source_tag=odd), START_NS + 5 * 10**9
    load(clinic.server, clinic.raw, Wearers(1, hertz=128), start_ns=START_NS, end_ns=end_ns, names=names)
    leads = (f"ecg,source_id=a,lead={lead} ecg={at + 1} {START_NS + i}" for i in range(10) for at, lead in enumerate(("I", "II")))
    clinic.server.write_lines(clinic.raw, "\n".join(leads).encode())
    settings, other = {"INFLUX_MEASUREMENT": odd, "INFLUX_FIELD": odd, "SOURCE_TAG": odd}, tmp_path / "other"
    other.mkdir()

    code, log = run_service(tmp_path, {**clinic.settings, **FIRST_MINUTE, **settings})
    filtered, said = run_service(other, {**clinic.settings, **FIRST_MINUTE, "INFLUX_TAG_FILTER": "lead=II"})

    assert (code, filtered) == (0, 0), log + said
    assert len(clinic.stored(measurement=f"{odd}_anonymized", tag=odd)) == 5 * 128
    assert len(csv_rows(tmp_path / "csv")) == 5 * 128
    assert set(csv_rows(other / "csv").values()) == {2.0}


def test_chunks_of_any_size_give_the_same_files(clinic: Clinic, tmp_path: Path) -> None:
    load_first_minute(clinic)
    settings, outputs = {**clinic.settings, **FIRST_MINUTE, "OUTPUT_TO_INFLUX": "false"}, []
    for most_rows in ("1", "25000", "1000000"):
        folder = tmp_path / most_rows
        folder.mkdir()
        code, log = run_service(folder, {**settings, "MAX_RECORDS_PER_QUERY": most_rows})
        assert code == 0, log
        outputs.append({path.name: path.read_bytes() for path in (folder / "csv").iterdir()})

    assert outputs[0] == outputs[1] == outputs[2]
    assert len(outputs[0]) == 12


def test_a_window_length_that_does_not_divide_an_hour_loses_nothing_at_the_hour(clinic: Clinic, tmp_path: Path) -> None:
    hour_ns = 1762182000 * 10**9  # 15:00:00
    lines = [f"ecg,source_id=a ecg={i % 7} {hour_ns - 70 * 10**9 + i * 10**8}" for i in range(1400)]
    clinic.server.write_lines(clinic.raw, "\n".join(lines).encode())
    span = {"QUERY_START_TIME": "2025-11-03T14:59:00Z", "QUERY_END_TIME": "2025-11-03T15:01:00Z", "BATCH_SIZE_SECONDS": "7"}

    code, log = run_service(tmp_path, {**clinic.settings, **span})

    # Whole windows of 7 s between 14:59:00 and 15:01:00, counted from the epoch.
    first_s, last_s = -(-(hour_ns // 10**9 - 60) // 7) * 7, (hour_ns // 10**9 + 60) // 7 * 7
    assert code == 0, log
    assert len(csv_rows(tmp_path / "csv")) == (last_s - first_s) * 10


@pytest.mark.parametrize(
    ("change", "code", "sentence"),
    [
        ({"INFLUX_TOKEN": "wrong"}, 78, "refuses INFLUX_TOKEN"),
        ({"INFLUX_ORG": "nobody"}, 78, "check INFLUX_ORG"),
        ({"INFLUX_INPUT_BUCKET": "nowhere"}, 78, "check INFLUX_INPUT_BUCKET"),
        ({"INFLUX_OUTPUT_BUCKET": "nowhere"}, 78, "INFLUX_OUTPUT_ORG and INFLUX_OUTPUT_BUCKET"),
        ({"INFLUX_OUTPUT_TOKEN": "wrong"}, 78, "INFLUX_OUTPUT_TOKEN, INFLUX_OUTPUT_ORG"),
        ({"INFLUX_URL": "http://127.0.0.1:9"}, 69, "❌ Failed to connect to InfluxDB"),
        ({"INFLUX_MEASUREMENT": "eeg"}, 0, "it has: 'ecg'. Set INFLUX_MEASUREMENT"),
        ({"INFLUX_FIELD": "uv"}, 0, "it has: 'ecg'. Set INFLUX_FIELD"),
        (
            {"SOURCE_TAG": "patient"},
            78,
            "has no tag 'patient', so wearers could not be told apart; it has: 'source_id'. Set SOURCE_TAG",
        ),
        ({"DEVICE_FILTER": "nobody"}, 0, "check the times, DEVICE_FILTER and INFLUX_TAG_FILTER"),
    ],
)
def test_each_mistake_ends_in_a_sentence_and_its_exit_code(
    clinic: Clinic, tmp_path: Path, change: dict[str, object], code: int, sentence: str
) -> None:
    clinic.server.write_lines(clinic.raw, f"ecg,source_id=a ecg=1 {START_NS}".encode())

    ended, log = run_service(tmp_path, {**clinic.settings, **FIRST_MINUTE, **change})

    assert (ended, sentence in log) == (code, True), log
    assert "Traceback" not in log
    assert KEY not in log
    assert str(clinic.settings["INFLUX_TOKEN"]) not in log


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        ('ecg,source_id=a ecg="text" {t}', "holds string values; numbers are needed"),
        ("ecg,source_id=a ecg=true {t}", "holds boolean values; numbers are needed"),
        ("ecg,source_id=a,lead=I ecg=1 {t}\necg,source_id=a,lead=II ecg=2 {t}", "choose one with INFLUX_TAG_FILTER"),
    ],
)
def test_data_that_cannot_be_anonymized_is_refused_with_a_sentence(
    clinic: Clinic, tmp_path: Path, lines: str, sentence: str
) -> None:
    clinic.server.write_lines(clinic.raw, lines.format(t=START_NS).encode())

    code, log = run_service(tmp_path, {**clinic.settings, **FIRST_MINUTE})

    assert (code, sentence in log) == (78, True), log
    assert not csv_rows(tmp_path / "csv")


def test_integer_unsigned_and_float_fields_are_read_across_shards_of_different_types(clinic: Clinic, tmp_path: Path) -> None:
    # Shard groups of one hour: the field is an integer in the first, unsigned in the second, a float in the third.
    bucket = f"hourly-{uuid4().hex}"
    clinic.server.make_bucket(bucket, shard_group_s=3600, retention_s=0)
    hour_ns = 3600 * 10**9
    start_ns = START_NS // hour_ns * hour_ns
    forms = ("{}i", "{}u", "{}.0")
    lines = [
        f"ecg,source_id=a ecg={form.format(100 + 10 * (i % 2))} {start_ns + (hour + 1) * hour_ns - 10**9 + i}"
        for hour, form in enumerate(forms)
        for i in range(20)
    ]
    clinic.server.write_lines(bucket, "\n".join(lines).encode())
    span = {"QUERY_START_TIME": "2025-11-03T14:00:00Z", "QUERY_END_TIME": "2025-11-03T17:00:00Z", "BATCH_SIZE_SECONDS": "60"}
    settings = {**clinic.settings, **span, "INFLUX_INPUT_BUCKET": bucket, "INFLUX_TOKEN": clinic.server.make_token(read=[bucket])}

    code, log = run_service(tmp_path, settings)

    assert code == 0, log
    assert Counter(csv_rows(tmp_path / "csv").values()) == {100.0: 30, 110.0: 30}


def test_without_an_env_file_the_remedy_is_printed() -> None:
    empty = subprocess.run(
        [sys.executable, str(ROOT / "central_anonymizer.py")],
        cwd=ROOT / "documentation",
        env={"PYTHONUTF8": "1"},
        capture_output=True,
        encoding="utf-8",
        check=False,
    )

    assert empty.returncode == 78
    assert "❌ .env file not found!" in empty.stderr
    assert "cp .env.example .env" in empty.stderr


def test_check_says_what_is_good_or_everything_that_cannot_be_reached_and_changes_nothing(clinic: Clinic, tmp_path: Path) -> None:
    settings = {**clinic.settings, **FIRST_MINUTE}
    code, log = run_service(tmp_path, settings, "--check", "--connect")
    assert (code, "✅ The configuration is good, and everything can be reached" in log) == (0, True), log
    assert f"Version:       {VERSION}" in log

    wrong = {"INFLUX_TOKEN": "wrong", "INFLUX_OUTPUT_BUCKET": "nowhere"}
    code, log = run_service(tmp_path, {**settings, **wrong}, "--check", "--connect")
    assert (code, "refuses INFLUX_TOKEN" in log, "INFLUX_OUTPUT_BUCKET" in log) == (78, True, True), log
    assert clinic.stored() == {}
