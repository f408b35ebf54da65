"""Attack 3: a window that was released twice, with one row more, less itself: (n + 1) · m′ − n · m is that row."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from anonymizer.anonymize import anonymize_chunk
from anonymizer.samples import Samples, make_samples
from tests.attacks.recording import IDS, released_in, run, write_recording
from tests.core.both_ways import recipe_of, shipped_ranges
from tests.core.plain_anonymizer import PlainSettings
from tests.documentation.sample import alone, windows
from tests.integration.clinic import FIRST_MINUTE, START_NS, Clinic, csv_rows, load_first_minute
from tests.integration.service_process import run_service

#: Ways to ask for rows again that were released before, as another would see them.
OTHER_SETTINGS: tuple[dict[str, object], ...] = (
    {},
    {"K_VALUE": 10},
    {"BATCH_SIZE_SECONDS": 2},
    {"DEVICE_FILTER": IDS[1]},
    {"RESIDUAL": "drop"},
    {"METHOD": "optimal"},
)


def released_by_time(samples: Samples) -> dict[int, float]:
    """Release the first window as if it had never been before: what a service without a memory does."""
    recipe = recipe_of(PlainSettings(), shipped_ranges())
    batch = anonymize_chunk(samples, windows().part(0, 1), recipe).results[0].batch
    assert batch is not None
    return dict(zip(batch.times_ns.tolist(), batch.values_uv.tolist(), strict=True))


def one_row_more(before: dict[int, float], after: dict[int, float]) -> float | None:
    """Return the attacker's estimate of the late row, from two releases alone.

    He looks for the group the late row joined: all others of it had one value before, and have one, perhaps another, now.
    """
    (late_ns,) = set(after) - set(before)
    shared = after[late_ns]
    others = [before[time_ns] for time_ns, value in after.items() if value == shared and time_ns != late_ns]
    if len(set(others)) != 1 or len(others) != sum(value == others[0] for value in before.values()):
        return None  # the groups were cut anew
    n = len(others)
    return (n + 1) * shared - n * others[0]


def test_two_releases_of_a_window_give_a_late_row_away() -> None:
    record = alone()[0]
    first = record.times_ns < windows().window(0).end_ns
    times_ns, values_uv = record.times_ns[first], record.values_uv[first]
    found = []
    for late in range(0, len(times_ns), 29):
        kept = np.arange(len(times_ns)) != late
        without = make_samples(times_ns[kept], np.zeros(kept.sum(), dtype=np.int32), record.source_ids, values_uv[kept])
        whole = make_samples(times_ns, np.zeros(len(times_ns), dtype=np.int32), record.source_ids, values_uv)
        guess = one_row_more(released_by_time(without), released_by_time(whole))
        if guess is not None:
            found.append((guess, values_uv[late], len(times_ns)))

    # Means are rounded, so the guess is off by n + ½ at most; where all values of a group are alike it is exact.
    assert len(found) > len(range(0, len(times_ns), 29)) / 2
    assert np.mean([guess == value for guess, value, _ in found]) > 0.9


def test_a_span_is_released_once_whatever_the_settings_of_the_next_run(tmp_path: Path) -> None:
    write_recording(tmp_path / "recording.csv")
    assert run(tmp_path)[0] == 0
    released = released_in(tmp_path)

    for others in OTHER_SETTINGS:
        code, log = run(tmp_path, **others)
        assert code == 0, log
        assert "were released before" in log
        assert released_in(tmp_path) == released


@pytest.mark.influxdb
@pytest.mark.parametrize("change", [{}, {"BATCH_SIZE_SECONDS": "7"}, {"DEVICE_FILTER": "mitbih-100"}])
def test_a_late_row_changes_nothing_that_was_released(clinic: Clinic, tmp_path: Path, change: dict[str, object]) -> None:
    load_first_minute(clinic)
    assert run_service(tmp_path, {**clinic.settings, **FIRST_MINUTE})[0] == 0
    before = clinic.stored()
    clinic.server.write_lines(clinic.raw, f"ecg,source_id=mitbih-100 ecg=1234i {START_NS + 1}".encode())

    code, log = run_service(tmp_path, {**clinic.settings, **FIRST_MINUTE, **change})

    assert code == 0, log
    assert clinic.stored() == before == csv_rows(tmp_path / "csv")


def test_without_its_state_folder_a_span_is_released_again(tmp_path: Path) -> None:
    write_recording(tmp_path / "recording.csv")
    assert run(tmp_path)[0] == 0
    shutil.rmtree(tmp_path / "state")

    code, log = run(tmp_path, K_VALUE=10)

    assert code == 0, log
    assert len(released_in(tmp_path)) > 100
    assert len(list((tmp_path / "csv").iterdir())) == 2
