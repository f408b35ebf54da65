"""METHOD=rhythm through the real program: every output holds public beats, says so, and the outside check agrees."""

from __future__ import annotations

import json
import re
from pathlib import Path

import jsonschema
import numpy as np
import pandas as pd
import pyarrow.parquet as pa_parquet
import pytest

from anonymizer.public_beat import TABLE_NV, TEMPLATE_DIGEST
from ecg_frames import anonymize_frame, verify_frame
from scripts import verify_output
from tests.integration.service_process import run_service, state
from tests.scripts.verifying import run_check
from tests.servers.api_server import ApiServer

ROOT = Path(__file__).resolve().parents[2]
RECORDS = ROOT / "examples" / "mitbih" / "six_records.parquet"
SCHEMA = json.loads((ROOT / "documentation" / "api-batch-rhythm.schema.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def excerpt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a file with the first twenty seconds of the six records."""
    frame = pd.read_parquet(RECORDS)
    path = tmp_path_factory.mktemp("excerpt") / "excerpt.parquet"
    frame[frame["timestamp"] < frame["timestamp"].min() + pd.Timedelta(20, "s")].to_parquet(path, index=False)
    return path


def test_every_output_holds_public_beats_and_the_outside_check_finds_what_was_changed(
    tmp_path: Path, excerpt: Path, api_server: ApiServer
) -> None:
    settings = {
        "INPUT_FILE": excerpt,
        "METHOD": "rhythm",
        "BATCH_SIZE_SECONDS": "",
        "OUTPUT_TO_INFLUX": "false",
        "OUTPUT_TO_PARQUET": "true",
        "PARQUET_URL": tmp_path / "parquet",
        "OUTPUT_TO_API": "true",
        "API_ENDPOINT": api_server.endpoint,
        "CSV_FILENAME_PATTERN": "all.csv",
    }
    code, log = run_service(tmp_path, settings)
    csv = tmp_path / "csv" / "all.csv"
    released = pd.read_csv(csv)

    assert code == 0, log
    assert "rhythm: the public beat at each source's beat times" in log
    assert "K=" not in log
    report = (tmp_path / "state" / "report.html").read_text(encoding="utf-8")
    options = re.findall(r"verify_output.py FILES (.*?)</code>", report)
    assert options == ["--method rhythm --batch-seconds 10"]
    assert run_check(*options[0].split(), str(csv))[0] == 0
    again = run_service(tmp_path, settings)[1]
    assert re.search(r"released before \(rhythm, settings \w+\) and are skipped", again)
    assert state(tmp_path, "verify")[1].endswith("agree.\n")
    assert "2 windows" in run_check("--method", "rhythm", str(csv))[1]
    assert run_check("--method", "rhythm", str(csv))[0] == 0
    assert run_check(str(tmp_path / "parquet"), packages=True)[0] == 0
    assert run_check("--k", "5", str(tmp_path / "parquet"), packages=True)[0] == 1
    payloads = api_server.stored()
    for payload in payloads:
        jsonschema.Draft202012Validator(SCHEMA).validate(payload)
    assert sum(payload["rows"] for payload in payloads) == len(released)
    windows = pa_parquet.read_table(tmp_path / "parquet" / "windows")
    assert set(windows["template_digest"].to_pylist()) == {TEMPLATE_DIGEST}
    assert not {"k", "k_unit", "smallest_group"} & set(windows.column_names)

    lines = csv.read_text(encoding="utf-8").splitlines()
    row = next(at for at, line in enumerate(lines[1:], start=1) if not line.endswith("1000.0"))
    time, source, value = lines[row].split(",")
    lines[row] = f"{time},{source},{float(value) + 1}"
    csv.write_text("\n".join(lines) + "\n", encoding="utf-8")
    assert "rows that are not of the public beat" in run_check("--method", "rhythm", str(csv))[1]


def test_a_frame_comes_out_as_the_service_s_file_and_one_changed_value_is_found(tmp_path: Path, excerpt: Path) -> None:
    run_service(
        tmp_path,
        {
            "INPUT_FILE": excerpt,
            "METHOD": "rhythm",
            "BATCH_SIZE_SECONDS": "",
            "OUTPUT_TO_INFLUX": "false",
            "CSV_FILENAME_PATTERN": "a",
        },
    )
    service = pd.read_csv(tmp_path / "csv" / "a", parse_dates=["timestamp"])
    frame = anonymize_frame(pd.read_parquet(excerpt), method="rhythm", withheld="drop").frame
    ours = frame.sort_values(["timestamp", "source_id"])

    assert ours["ecg"].tolist() == service["ecg"].tolist()
    assert (ours["timestamp"].to_numpy() == service["timestamp"].to_numpy()).all()
    assert verify_frame(frame, method="rhythm")["rows_released"].sum() == len(frame)
    frame.loc[frame.index[np.flatnonzero(frame["ecg"] != 1000)[5]], "ecg"] += 1
    with pytest.raises(Exception, match="1 rows that are not of the public beat"):
        verify_frame(frame, method="rhythm")


def test_what_the_method_lacks_or_ignores_is_said_at_the_start(tmp_path: Path, excerpt: Path) -> None:
    (tmp_path / "sleepecg.py").write_text("raise ImportError('not here')\n", encoding="utf-8")
    given = {"INPUT_FILE": excerpt, "METHOD": "rhythm", "OUTPUT_TO_INFLUX": "false", "K_VALUE": "7", "BATCH_SIZE_SECONDS": "5"}
    lacking, refusal = run_service(tmp_path, given, "--check", environment={"PYTHONPATH": str(tmp_path)})
    code, log = run_service(tmp_path, given, "--check")

    assert lacking == 78
    assert (
        "METHOD=rhythm needs the Python package sleepecg, which is not installed: pip install -r requirements-rhythm.txt"
        in refusal
    )
    assert code == 0
    assert "METHOD=rhythm forms no groups and ignores K_VALUE" in log
    assert "BATCH_SIZE_SECONDS=5 is short for METHOD=rhythm" in log


def test_the_outside_check_has_the_same_table() -> None:
    assert verify_output.BEAT_NV == TABLE_NV
    assert verify_output.TEMPLATE_DIGEST == TEMPLATE_DIGEST
