"""A frame comes out as the service's own CSV does: the real program on a file of the same rows, for every way to form groups."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ecg_frames import Anonymized, anonymize_frame, read_released, verify_frame
from tests.integration.service_process import run_service

RECORDS = Path(__file__).resolve().parents[2] / "examples" / "mitbih" / "six_records.parquet"

KEY = "8f41c09be7d2a6530f9e8b7c6d5a4e3107b6d92ce5a1f8436c0e97d2b4185fa3"

HIERARCHY = [
    {"METHOD": "hierarchy", "K_UNIT": unit, "RESIDUAL": residual, "IMPUTATION": imputation, "MAX_LEVEL": level}
    for unit, residual, (imputation, level) in itertools.product(
        ("record", "source"), ("regroup", "impute", "drop"), (("mean", 3), ("midpoint", 7))
    )
    if (unit, residual) != ("source", "impute")  # which both refuse
]
OPTIMAL = [{"METHOD": "optimal", "K_UNIT": unit} for unit in ("record", "source")]


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    """Return two windows of six records out of order, and what files hold besides: rows without value, source or time, rows alike."""
    frame = pd.read_parquet(RECORDS).astype({"source_id": object, "ecg": float})
    frame = frame[frame["timestamp"] < frame["timestamp"].min() + pd.Timedelta(10, "s")]
    again = frame.sample(50, random_state=1)
    contradictory = frame[frame["source_id"] == "mitbih-104"].head(1).assign(ecg=999.0)
    without_value = frame.sample(60, random_state=2).assign(
        ecg=np.nan, timestamp=lambda one: one["timestamp"] + pd.Timedelta(1, "ns")
    )
    without_source = frame.sample(40, random_state=3).assign(source_id=None)
    without_time = frame.sample(30, random_state=4).assign(timestamp=pd.NaT)
    parts = [frame, again, contradictory, without_value, without_source, without_time]
    return pd.concat(parts).sample(frac=1, random_state=5)


def released_by_the_service(folder: Path, rows: pd.DataFrame, settings: Mapping[str, object]) -> tuple[bytes, str]:
    """Return the CSV that the program writes of the rows, and its log."""
    file = folder / "rows.csv"
    rows.to_csv(file, index=False, columns=["timestamp", "source_id", "ecg"])
    given = {"INPUT_FILE": file, "OUTPUT_TO_INFLUX": "false", "CSV_FILENAME_PATTERN": "all.csv", **settings}
    code, log = run_service(folder, given)
    assert code == 0, log
    return (folder / "csv" / "all.csv").read_bytes(), log


def as_csv(frame: pd.DataFrame) -> bytes:
    """Return released rows as the service writes them, by Python's own means."""
    kept = frame.dropna(subset="ecg")
    lines = sorted(
        (
            time,
            str(source_id),
            f"{time.strftime('%Y-%m-%dT%H:%M:%S')}.{time.microsecond:06d}{time.nanosecond:03d}Z,{source_id},{value!r}\n",
        )
        for time, source_id, value in zip(kept["timestamp"], kept["source_id"], kept["ecg"].tolist(), strict=True)
    )
    return "".join(["timestamp,source_id,ecg\n", *(line for _, _, line in lines)]).encode()


def through_a_frame(rows: pd.DataFrame, settings: Mapping[str, object]) -> Anonymized:
    """Return the rows anonymized with arguments that say what the settings say."""
    arguments = {name.lower(): value for name, value in settings.items()}
    return anonymize_frame(rows, **arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("settings", [*HIERARCHY, *OPTIMAL], ids=lambda one: "-".join(map(str, one.values())))
def test_a_frame_comes_out_as_the_service_releases_a_file_of_its_rows(
    tmp_path: Path, rows: pd.DataFrame, settings: dict[str, object]
) -> None:
    expected, log = released_by_the_service(tmp_path, rows, settings)

    frame, certificate = through_a_frame(rows, settings)

    assert as_csv(frame) == expected
    assert frame.index.equals(rows.index)
    counted = re.search(r"; (\d+) rows read = (\d+) released \+ (\d+) withheld \+ (\d+) invalid \+ (\d+) duplicate", log)
    assert counted is not None
    assert tuple(map(int, counted.groups())) == certificate.counts.numbers()[:5]
    assert certificate.counts.are_conserved()
    assert len(rows) == certificate.counts.read
    assert certificate.counts.invalid >= 130
    assert certificate.counts.duplicate >= 45
    assert certificate.counts.withheld > 1000, "a source that contradicts itself loses the rows of its window"


def test_a_minute_of_all_six_records_with_pseudonyms_come_out_alike_and_are_read_back(tmp_path: Path) -> None:
    records = pd.read_parquet(RECORDS)
    records = records[records["timestamp"] < records["timestamp"].min() + pd.Timedelta("60s")]
    # As the defaults have it, one folder in the other.
    parquet = tmp_path / "csv" / "parquet"
    settings = {
        "PSEUDONYMIZE_SOURCE_ID": "true",
        "PSEUDONYM_SALT": KEY,
        "K_VALUE": 7,
        "BATCH_SIZE_SECONDS": 10,
        "OUTPUT_TO_PARQUET": "true",
        "PARQUET_URL": parquet,
    }
    released_by_the_service(tmp_path, records, settings)

    frame, certificate = anonymize_frame(records, k=7, window="10s", pseudonym_key=KEY)

    theirs = read_released(tmp_path / "csv")
    ours = frame.assign(source_id=frame["source_id"].astype(str)).sort_values(["timestamp", "source_id"], ignore_index=True)
    pd.testing.assert_frame_equal(theirs.astype({"source_id": str}), ours, check_dtype=False)
    pd.testing.assert_frame_equal(read_released(parquet), theirs)
    assert certificate.promise.settings_digest
    assert len(certificate.windows) == 6
    assert certificate.counts.released == len(records) == 6 * 360 * 60
    assert not any(one.startswith("mitbih") for one in frame["source_id"].cat.categories)
    assert verify_frame(theirs, k=7, window="10s")["smallest_group"].min() >= 7
