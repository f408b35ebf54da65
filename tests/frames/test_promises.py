"""A frame is refused, and warned of, in the service's words; and it is verified again, from any program."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import ecg_frames
from anonymizer.errors import ConfigurationError, PrivacyViolation, SourceRefused
from ecg_frames import advise_frame, anonymize_frame, verify_frame
from service.settings.declared import SHIPPED_HIERARCHY
from service.settings.load import load
from tests.integration.service_process import run_service

SECOND_NS = 10**9
START = pd.Timestamp("2025-11-03T14:30", tz="UTC")


def rows(values: dict[str, list[float]], *, every: str = "10ms") -> pd.DataFrame:
    """Return rows of sources that are measured at the same times."""
    parts = [
        pd.DataFrame({"timestamp": pd.date_range(START, periods=len(mine), freq=every), "source_id": source, "ecg": mine})
        for source, mine in values.items()
    ]
    return pd.concat(parts, ignore_index=True)


GOOD = rows({"a": [float(number % 7) for number in range(60)], "b": [float(number % 5) for number in range(60)]})

SETTINGS: list[tuple[dict[str, Any], dict[str, str]]] = [
    ({"k": 1}, {"K_VALUE": "1"}),
    ({"k": 0, "window": 0}, {"K_VALUE": "0", "BATCH_SIZE_SECONDS": "0"}),
    ({"k": 2.5}, {"K_VALUE": "2.5"}),
    ({"k": True}, {"K_VALUE": "True"}),
    ({"k": 10**10}, {"K_VALUE": "10000000000"}),
    ({"window": "0.5s"}, {"BATCH_SIZE_SECONDS": "0.5s"}),
    ({"window": "-5s"}, {"BATCH_SIZE_SECONDS": "-5"}),
    ({"window": "soon"}, {"BATCH_SIZE_SECONDS": "soon"}),
    ({"window": "10000h"}, {"BATCH_SIZE_SECONDS": "36000000"}),
    ({"window": pd.Timedelta(1500, "ms")}, {"BATCH_SIZE_SECONDS": str(pd.Timedelta(1500, "ms"))}),
    ({"method": "best", "k_unit": "people"}, {"METHOD": "best", "K_UNIT": "people"}),
    (
        {"max_level": 8, "residual": "keep", "imputation": "median"},
        {"MAX_LEVEL": "8", "RESIDUAL": "keep", "IMPUTATION": "median"},
    ),
    ({"residual": "impute", "k_unit": "source"}, {"RESIDUAL": "impute", "K_UNIT": "source"}),
    ({"value_unit": "V"}, {"VALUE_UNIT": "V"}),
]


@pytest.mark.parametrize(("arguments", "settings"), SETTINGS, ids=lambda one: str(one))
def test_arguments_are_refused_as_settings_are_all_at_once(arguments: dict[str, Any], settings: dict[str, str]) -> None:
    given = {"INPUT_FILE": str(SHIPPED_HIERARCHY), "OUTPUT_TO_INFLUX": "false", **settings}
    with pytest.raises(ConfigurationError) as of_the_service:
        load(Path("no.env"), given)

    with pytest.raises(ConfigurationError) as refusal:
        anonymize_frame(GOOD, **arguments)

    assert refusal.value.problems == of_the_service.value.problems


@pytest.mark.parametrize("key", ["short", b"", b"\xff" * 15])
def test_a_key_that_is_too_short_is_refused_and_never_shown(key: str | bytes) -> None:
    with pytest.raises(ConfigurationError, match="PSEUDONYM_SALT needs at least 16 bytes") as refusal:
        anonymize_frame(GOOD, pseudonym_key=key, k=1)

    assert len(refusal.value.problems) == 2
    assert "short" not in str(refusal.value)


def test_a_hierarchy_of_ones_own_is_used_and_a_damaged_one_refused_with_its_rows(tmp_path: Path) -> None:
    damaged = tmp_path / "hierarchy.csv"
    damaged.write_text("1,2\n", encoding="utf-8")

    with pytest.raises(ConfigurationError, match=f"HIERARCHY_CSV_PATH {damaged}: "):
        anonymize_frame(GOOD, hierarchy=damaged)
    with pytest.raises(ConfigurationError, match=r"HIERARCHY_CSV_PATH .* cannot be read"):
        anonymize_frame(GOOD, hierarchy=tmp_path / "none.csv")
    same, _ = anonymize_frame(GOOD, hierarchy=SHIPPED_HIERARCHY)
    pd.testing.assert_frame_equal(same, anonymize_frame(GOOD).frame)


def test_windows_are_seconds_in_any_form() -> None:
    expected = anonymize_frame(GOOD, window="5s").frame

    for window in (5, "5", "5 s", pd.Timedelta(5, "s"), np.timedelta64(5, "s"), np.int64(5), "5000ms"):
        pd.testing.assert_frame_equal(anonymize_frame(GOOD, window=window).frame, expected)  # type: ignore[arg-type]


WEAK = {
    "k of two leads": rows({"a": list(range(40))}).assign(timestamp=START),
    "millivolts": rows({"a": [number % 60 / 30 for number in range(400)]}),
    "another unit": rows(
        {
            source: [size * np.sin(number + shift) for number in range(400)]
            for source, size, shift in (("a", 900, 0), ("b", 900, 2), ("c", 0.9, 3))
        }
    ),
    "clipped": rows({"a": [4000.0 + 100 * (number % 9) for number in range(400)]}),
    "one source contradicts itself": pd.concat(
        [GOOD, GOOD[GOOD["source_id"] == "a"].assign(ecg=99.0), rows({"c": [float(number % 3) for number in range(60)]})]
    ),
    "formulas": rows({"=1+1": [float(number % 7) for number in range(60)]}),
    "invalid": GOOD.assign(ecg=GOOD["ecg"].where(GOOD.index % 10 != 0)),
    "withheld": rows({"a": [float(number % 7) for number in range(60)]}, every="2s"),
}


def test_what_the_service_says_of_a_file_is_said_of_a_frame_of_its_rows(tmp_path: Path) -> None:
    for number, frame in enumerate(WEAK.values()):
        folder = tmp_path / str(number)
        folder.mkdir()
        frame.to_csv(folder / "rows.csv", index=False)
        code, log = run_service(
            folder, {"INPUT_FILE": folder / "rows.csv", "OUTPUT_TO_INFLUX": "false", "VERBOSE_LOGGING": "false"}
        )

        try:
            said = anonymize_frame(frame).certificate.remarks
            assert len(said) > 1, f"case {number} warns of nothing but that ids are kept"
        except SourceRefused as refusal:
            assert code == 78
            said = (str(refusal),)
        for sentence in said:
            # Where a row stands is said as each of them counts.
            of_the_file = sentence.replace("The frame", "INPUT_FILE").partition(", such as .iloc")[0]
            assert of_the_file in log, log
        warnings = [line for line in log.splitlines() if "⚠️" in line]
        assert len(warnings) == len(said) or code == 78, (said, warnings)


def test_what_is_warned_of_is_logged_but_that_ids_are_kept(caplog: pytest.LogCaptureFixture) -> None:
    _, quiet = anonymize_frame(GOOD)
    _, warned = anonymize_frame(GOOD, imputation="midpoint", pseudonym_key="passwordpassword1", accept_weak_key=True)

    assert quiet.remarks == (
        "PSEUDONYMIZE_SOURCE_ID=false: source ids are released unchanged, so the output is identified personal data",
    )
    assert [record.getMessage() for record in caplog.records] == [f"⚠️ {remark}" for remark in warned.remarks]
    assert warned.remarks[0].startswith("IMPUTATION=midpoint reveals each value's range")
    assert warned.remarks[1].startswith("PSEUDONYM_SALT is easy to guess")
    assert "passwordpassword1" not in caplog.text
    with pytest.raises(ConfigurationError, match="PSEUDONYM_SALT is refused: it is made of common words"):
        anonymize_frame(GOOD, pseudonym_key="passwordpassword1")


def test_a_broken_promise_is_never_returned(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise PrivacyViolation("batch x promises k=5 but a value is shared by 1 record(s)")

    monkeypatch.setattr(ecg_frames, "verify", broken)

    with pytest.raises(PrivacyViolation):
        anonymize_frame(GOOD)


# --- verify_frame


def test_a_released_frame_is_verified_and_a_value_put_back_is_found() -> None:
    released, certificate = anonymize_frame(GOOD, k=5)
    shuffled = released.sample(frac=1, random_state=1)

    counted = verify_frame(shuffled, k=5)

    for column in ("rows_released", "distinct_values", "smallest_group", "distinct_sources"):
        assert counted[column].tolist() == certificate.windows[column].tolist()
    released.loc[3, "ecg"] = 1234.0
    with pytest.raises(
        PrivacyViolation, match=r"batch of 2025-11-03T14:30:00\+00:00 promises k=5 but a value is shared by 1 record"
    ):
        verify_frame(released, k=5)


def test_sources_are_counted_where_k_counts_sources() -> None:
    alone = rows({"a": [7.0] * 20, "b": [7.0] * 3, "c": [9.0] * 5})

    assert verify_frame(alone, k=3)["smallest_group"].tolist() == [5]
    with pytest.raises(PrivacyViolation, match=r"promises k=2 but a value is shared by 1 source\(s\)"):
        verify_frame(alone, k=2, k_unit="source")


def test_an_imputed_mean_is_accepted_only_where_it_is_said_and_only_if_it_is_the_mean() -> None:
    frame = rows({"a": [float(number % 4) for number in range(60)] + [2000.0, -2000.0]})
    released, certificate = anonymize_frame(frame, k=5, residual="impute", max_level=7, imputation="midpoint")
    assert certificate.counts.suppressed == 2

    with pytest.raises(PrivacyViolation, match=r"a value is shared by 2 record\(s\)"):
        verify_frame(released)
    assert verify_frame(released, imputed=True)["rows_suppressed"].tolist() == [2]
    released.loc[[60, 61], "ecg"] = 77.0
    with pytest.raises(PrivacyViolation, match="imputes a value that is not the mean"):
        verify_frame(released, imputed=True)


def test_a_row_twice_and_a_row_without_time_or_source_are_no_release() -> None:
    released, _ = anonymize_frame(GOOD)

    with pytest.raises(PrivacyViolation, match="must have one row per time and source"):
        verify_frame(pd.concat([released, released.iloc[[5]]]))
    for column, what in (("timestamp", "time"), ("source_id", "source id")):
        lacking = released.assign(**{column: released[column].where(released.index != 4)})
        with pytest.raises(PrivacyViolation, match=rf"1 rows with a value have no {what}, such as .iloc\[4\]"):
            verify_frame(lacking)
    assert len(verify_frame(released.assign(ecg=np.nan))) == 0


# --- advise_frame


def test_the_advice_is_that_of_the_script() -> None:
    samples = rows({source: [300 * np.sin(number / 9 + shift) for number in range(2000)] for shift, source in enumerate("ab")})

    advice = advise_frame(samples, k=(2, 5), windows_s=(5, 10))

    assert list(itertools.product((2, 5), (5, 10))) == list(zip(advice["k"], advice["window_s"], strict=True))
    assert (advice["withheld_percent"] == 0).all()
    assert advice["error_percent"].is_monotonic_increasing or advice["error_percent"].iloc[0] < advice["error_percent"].iloc[2]
    with pytest.raises(ConfigurationError, match="K_UNIT must be one of record, source"):
        advise_frame(samples, k_unit="people")  # type: ignore[arg-type]  # that is the point
    with pytest.raises(SourceRefused, match="no row with a time and a number"):
        advise_frame(samples.assign(ecg=np.nan))
