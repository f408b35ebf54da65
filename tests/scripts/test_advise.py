"""Advice on k and window: figures of the user's own data, a recommendation, and a sentence for every mistake."""

from __future__ import annotations

import math
import os
import re
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from testbed.sample_ecg import read_sample_ecg
from tests.conftest import Bucket
from tests.integration.service_process import run_script
from tests.scripts.verifying import ROOT, START_NS, write_csv
from utility.advice import Trial, advice

RECORDS = ROOT / "examples" / "mitbih" / "six_records.parquet"

QUICK = ("--minutes", "1", "--windows", "5", "--k", "5")


def advise(*arguments: str, environment: Mapping[str, str] | None = None, folder: Path = ROOT) -> tuple[int, str]:
    home = {"HOME": os.environ.get("HOME", tempfile.gettempdir())}
    done = run_script("scripts/advise.py", *arguments, folder=folder, environment={**home, **(environment or {})})
    return done.returncode, done.stdout + done.stderr


def one_wearer(path: Path, *, seconds: int = 60, hertz: int = 120) -> Path:
    """Write a minute of record 100, a third of its samples, in millivolts."""
    ecg = read_sample_ecg()
    rows = range(0, seconds * 360, 360 // hertz)
    times = (f"2025-11-03T14:30:{index // 360:02}.{index % 360 * 10**9 // 360:09}Z" for index in rows)
    values = (f"{ecg.values_uv[0][index] / 1000}" for index in rows)
    return write_csv(path, ((time, "canary-wearer", value) for time, value in zip(times, values, strict=True)))


def test_every_pair_of_the_grid_has_a_line_for_each_thing_that_k_may_count(tmp_path: Path) -> None:
    code, said = advise(str(RECORDS), "--minutes", "1", "--k", "5,6", "--windows", "5,10")

    lines = [line.split() for line in said.splitlines() if re.match(r" *(rows|sources) ", line)]
    assert code == 0, said
    assert [(line[0], line[1], line[2]) for line in lines] == [
        (unit, k, window) for unit in ("rows", "sources") for k in ("5", "6") for window in ("5", "10")
    ]
    assert said.startswith("CONFIDENTIAL: computed from raw data.\nSample: 129,600 rows of 6 sources over 60 s.")
    assert "With K_UNIT=record take K_VALUE=6 and BATCH_SIZE_SECONDS=5" in said
    assert "WARNING" not in said
    assert "mitbih" not in said
    # Half a minute of each of six people is known, half a minute looked at; the attackers do far better than one guess in six.
    assert "by chance 1 of 6, 17 %" in said
    heading, nearest = (
        next(line for line in said.splitlines() if words in line) for words in ("attacker  ", "nearest beats, 5 s")
    )
    assert re.split("  +", heading.strip())[:4] == ["attacker", "as measured", "k = 5 rows", "k = 6 rows"]
    right = [int(found) for found in re.findall(r"(\d+) of 3\d: ", nearest)]
    assert heading.strip().endswith("METHOD=rhythm")
    assert all(of_way > 24 for of_way in right[:5])
    assert right[5] <= 12


def test_under_the_method_without_groups_no_k_is_advised_and_recognition_stands_beside_that_of_k(tmp_path: Path) -> None:
    env_file = tmp_path / ".env"
    env_file.write_text("METHOD=rhythm\n", encoding="utf-8")
    page = tmp_path / "a.html"
    code, said = advise(str(RECORDS), "--minutes", "1", "--windows", "5,10", "--env-file", str(env_file), "--plot", str(page))

    windows = re.findall(r"^ +(\d+) s +([\d.]+) % +([\d.]+) % +([\d.]+) %$", said, re.MULTILINE)
    assert code == 0, said
    assert [int(window) for window, *_ in windows] == [5, 10]
    assert "PRDN" not in said
    assert "K_VALUE" not in said
    assert re.search(r"k and error do not apply. Take BATCH_SIZE_SECONDS=(5|10):", said)
    heading = next(line for line in said.splitlines() if "attacker  " in line)
    assert [words in heading for words in ("k = 5 rows", "k = 20 rows", "k = 5 sources", "METHOD=rhythm")] == [True] * 4
    assert "error (PRDN)" not in page.read_text(encoding="utf-8")


def test_a_data_set_is_advised_on_like_a_file(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    shutil.copy(RECORDS, tmp_path / "set" / "part.parquet")
    # What a ward's service and its workers are set to is nothing to a file.
    ward = {"COHORT_TAG": "ward", "COHORT": "3", "DASK_SCHEDULER": "tls://scheduler.invalid:8786", "SPOOL_URL": str(tmp_path)}

    assert advise(str(tmp_path / "set" / "*.parquet"), *QUICK, environment=ward) == advise(str(RECORDS), *QUICK)
    code, said = advise("gs://bucket/set", *QUICK)
    assert (code, "INPUT_FILE is an address of a kind that is not read" in said) == (78, True), said


def test_figures_are_those_of_the_service_for_the_same_rows(tmp_path: Path) -> None:
    # Fifty rows of ten values in each of twenty windows, five of each: at k = 5 nothing changes, at k = 10 pairs of values merge.
    rows = [(f"2025-11-03T14:30:{w * 2:02}.{i:09}Z", "a", f"{i % 10}00.0") for w in range(20) for i in range(50)]
    path = write_csv(tmp_path / "ten.csv", rows)

    code, said = advise(str(path), "--k", "5,10,51", "--windows", "2", "--k-unit", "record")

    lines = {line.split()[1]: line.split() for line in said.splitlines() if line.strip().startswith("rows ")}
    # PRDN: each value is 50 µV from its pair's mean, the values have a standard deviation of 100 · √((10² − 1) / 12).
    expected = 100 * 50 / (100 * math.sqrt(99 / 12))
    assert code == 0, said
    assert lines["5"][4:] == ["0.0", "%", "0.0", "%", "0.0", "%", "100.0", "%", "-", "-"]
    assert lines["10"][6] == f"{expected:.1f}"
    assert lines["51"][4] == "100.0"
    assert "No heartbeats were found in the raw sample" in said


def test_millivolts_are_taken_for_what_they_are_a_wrong_unit_is_warned_of_and_no_id_is_shown(tmp_path: Path) -> None:
    path = one_wearer(tmp_path / "one.csv")

    code, said = advise(str(path), "--value-unit", "mV", "--windows", "5", "--k", "5")
    taken_for_microvolts, warning = advise(str(path), "--windows", "5", "--k", "5")

    line = next(line for line in said.splitlines() if line.strip().startswith("rows "))
    assert code == 0, said
    assert "canary" not in said
    assert 2 < float(line.split()[6]) < 12
    assert "100.0 %" in line
    assert "WARNING" not in said
    assert taken_for_microvolts == 0, warning
    assert "WARNING: the values of 1 of 1 sources hardly move" in warning
    assert "VALUE_UNIT=mV" in warning


def test_a_plot_is_a_page_of_its_own_that_is_marked_as_confidential_and_one_that_cannot_be_written_a_sentence(
    tmp_path: Path,
) -> None:
    code, said = advise(str(RECORDS), *QUICK, "--plot", str(tmp_path / "new" / "advice.html"))

    page = (tmp_path / "new" / "advice.html").read_text(encoding="utf-8")
    assert (code, "confidential as well" in said) == (0, True), said
    assert "<strong>Confidential.</strong>" in page
    assert page.count("<svg") == 2
    assert all(words in page for words in ("Recognition of wearers", "by chance 1 of 6, 17 %", "<td>nearest beats, 5 s</td>"))
    assert "mitbih" not in page
    assert not re.search(r'(src|href)="(?!#)', page)

    below_a_file = tmp_path / "new" / "advice.html" / "advice.html"
    code, said = advise(str(RECORDS), *QUICK, "--plot", str(below_a_file))
    assert (code, "--plot" in said and "cannot be written" in said) == (64, True), said


def test_without_the_detector_it_says_how_to_get_it_and_does_the_rest(tmp_path: Path) -> None:
    # Stands before the installed package, and has no spec to be found.
    hidden = tmp_path / "sitecustomize.py"
    hidden.write_text("import sys\nsys.modules['sleepecg'] = None\n", encoding="utf-8")

    code, said = advise(str(RECORDS), *QUICK, environment={"PYTHONPATH": str(tmp_path)})

    assert code == 0, said
    assert (
        "Heartbeats were not detected: no detector is installed. To install one: pip install -r requirements-utility.txt" in said
    )
    assert "Recognition was not measured: it needs at least two wearers" in said
    assert "take K_VALUE=5 and BATCH_SIZE_SECONDS=5" in said


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["nowhere.csv"], 78, "INPUT_FILE names a path that is not a file"),
        ([str(RECORDS), "--k", "1"], 64, "expected numbers of at least 2 between commas, such as 5,10,20; got '1'"),
        ([str(RECORDS), "--windows", "5;10"], 64, "expected seconds of at least 1 between commas"),
        ([str(RECORDS), "--minutes", "0"], 64, "expected whole minutes from 1 to 1440, got '0'"),
        ([str(RECORDS), "--start", "noon"], 64, "expected a time such as 2025-11-03T14:30:00Z"),
        (
            [str(RECORDS), "--start", "2024-01-01"],
            78,
            "No row with a number in the 5 minutes looked at; begin elsewhere with --start.",
        ),
        ([str(RECORDS), "--bucket", "raw"], 64, "name a file or --bucket, not both"),
        ([str(ROOT / "README.md")], 78, "is its first line a header?"),
        ([], 78, "Name a recording, or a bucket"),
        (["--org", "o"], 78, "Name a recording, or a bucket"),
        (["--env-file", "nowhere.env"], 78, ".env file not found at nowhere.env"),
        (["--bucket", "raw", "--org", "o", "--url", "http://127.0.0.1:9"], 69, "cannot be reached"),
    ],
)
def test_a_mistake_is_a_sentence(tmp_path: Path, arguments: list[str], code: int, sentence: str) -> None:
    ended, said = advise(*arguments, folder=tmp_path, environment={"INFLUX_VERIFY_TOKEN": "t"} if "--bucket" in arguments else {})

    assert (ended, sentence in said) == (code, True), said


@pytest.mark.influxdb
def test_a_bucket_is_read_with_a_token_that_may_only_read_it(raw_bucket: Bucket, tmp_path: Path) -> None:
    factor = {0: 1000}
    lines = [
        f"ecg,source_id=s{s},ward={s % 2} ecg={factor.get(s, 1) * ((i * 7 + s) % 40)}i {START_NS + i * 10**7}"
        for s in range(6)
        for i in range(2000)
    ]
    raw_bucket.write("\n".join(lines).encode())
    place = ["--url", raw_bucket.server.url, "--org", raw_bucket.server.org, "--bucket", raw_bucket.name]
    where = [*place, "--start", "2025-11-03T14:30:00Z", *QUICK]

    for name in ("INFLUX_TOKEN", "INFLUX_VERIFY_TOKEN"):
        code, said = advise(*where, environment={name: raw_bucket.read_token}, folder=tmp_path)
        assert code == 0, said
        assert "Sample: 12,000 rows of 6 sources over 20 s." in said
        assert "WARNING: the values of 1 of 6 sources move a hundred times more, or less" in said
        assert raw_bucket.read_token not in said

    for cohort, rows, sources in (({"COHORT": "1"}, "6,000", 3), ({"COHORT": "x"}, "", 0), ({}, "", 0)):
        ward = {"INFLUX_TOKEN": raw_bucket.read_token, "COHORT_TAG": "ward", **cohort}
        code, said = advise(*where, environment=ward, folder=tmp_path)
        expected = (0, f"Sample: {rows} rows of {sources} sources") if rows else (78, "No row with a number")
        assert (code, expected[1] in said) == (expected[0], True), said
    code, said = advise(*place, *QUICK, environment={"INFLUX_TOKEN": raw_bucket.read_token}, folder=tmp_path)
    assert (code, "No row with a number in the 1 minutes looked at" in said) == (78, True), said
    code, said = advise(*where, environment={"INFLUX_TOKEN": "wrong"}, folder=tmp_path)
    assert (code, "refuses INFLUX_TOKEN" in said) == (78, True), said


def trial(
    k: int, window_s: int, *, error: float = 1.0, withheld: float = 0.0, beats: float = 100.0, by_source: bool = False
) -> Trial:
    return Trial(by_source, k, window_s, 20, withheld, error, error, 50.0, beats, beats)


@pytest.mark.parametrize(
    ("trials", "said"),
    [
        (
            [trial(5, 5), trial(5, 10), trial(10, 5, error=11), trial(10, 10)],
            "With K_UNIT=record take K_VALUE=10 and BATCH_SIZE_SECONDS=10",
        ),
        ([trial(5, 5), trial(10, 5, error=10.1)], "take K_VALUE=5 and BATCH_SIZE_SECONDS=5"),
        ([trial(5, 5), trial(10, 5, beats=99.4)], "No window here will do for k = 10."),
        ([trial(5, 5, withheld=1.1)], "With K_UNIT=record nothing in this table will do."),
        ([trial(5, 5, beats=math.nan)], "take K_VALUE=5 and BATCH_SIZE_SECONDS=5"),
        ([trial(5, 5, error=math.nan)], "nothing in this table will do"),
        ([trial(5, 5), trial(9, 5, withheld=100, error=math.nan, by_source=True)], "For k = 9 there are too few sources"),
    ],
)
def test_the_advice_is_the_largest_k_that_does_with_its_shortest_window(trials: list[Trial], said: str) -> None:
    sentences = list(advice(trials))

    assert said in " ".join(sentences)
    assert len(sentences) == len({one.by_source for one in trials})
    assert all(sentence.endswith(".") for sentence in sentences)


def test_a_smaller_error_may_be_asked_for() -> None:
    trials = [trial(5, 5, error=4), trial(5, 10, error=2)]

    assert "BATCH_SIZE_SECONDS=10" in next(advice(trials, most_error_percent=3))
    assert np.isclose(trials[0].error_percent, 4)
