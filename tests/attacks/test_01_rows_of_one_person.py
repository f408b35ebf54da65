"""Attack 1: k counts rows, and all k are one person's. A reader who looks at a value's sources sees that one wearer is alone in it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest

from anonymizer.anonymize import anonymize_chunk
from anonymizer.batch import Batch
from anonymizer.samples import Samples, make_samples
from anonymizer.windows import NANOSECONDS, WindowRange
from testbed.replay import load
from testbed.wearers import Wearers
from tests.attacks.recording import IDS, PSEUDONYMS, released_in, run, write_recording
from tests.documentation.sample import together, windows
from tests.integration.clinic import START_NS, Clinic
from tests.integration.service_process import run_service
from tests.scripts.verifying import run_check
from utility.choices import DEFAULT, OPTIMAL, SOURCE, SOURCE_OPTIMAL, Choice, recipe_of

BY_SOURCE = [SOURCE, SOURCE_OPTIMAL]

#: Twelve wearers who measure 128 times a second, each at moments of his own.
TWELVE = Wearers(12, hertz=128)
SPAN_S = 30


def released(samples: Samples, choice: Choice, k: int, span: WindowRange) -> list[Batch]:
    results = anonymize_chunk(samples, span, recipe_of(choice, k=k, window_s=5)).results
    return [result.batch for result in results if result.batch is not None]


def fewest_sources(batches: Iterable[Batch]) -> int:
    """Return how many sources stand behind the value that the fewest do: what the attacker looks for."""
    counts: Counter[tuple[int, float]] = Counter()
    for number, batch in enumerate(batches):
        pairs = set(zip(batch.values_uv.tolist(), batch.source_index.tolist(), strict=True))
        counts.update((number, value) for value, _ in pairs)
    return min(counts.values())


@pytest.mark.parametrize("choice", [DEFAULT, OPTIMAL], ids=lambda choice: choice.name)
def test_while_k_counts_rows_there_are_values_that_one_wearer_has_alone(choice: Choice) -> None:
    assert fewest_sources(released(together(), choice, 5, windows())) == 1


@pytest.mark.parametrize("choice", BY_SOURCE, ids=lambda choice: choice.name)
@pytest.mark.parametrize("k", [2, 5, 6])
def test_where_k_counts_sources_no_value_has_fewer(choice: Choice, k: int) -> None:
    batches = released(together(), choice, k, windows())

    assert sum(map(len, batches)) == len(together())
    assert fewest_sources(batches) >= k


@pytest.mark.parametrize("choice", BY_SOURCE, ids=lambda choice: choice.name)
def test_a_window_of_fewer_sources_than_k_is_withheld_whole(choice: Choice) -> None:
    assert released(together(), choice, 7, windows()) == []


@pytest.mark.parametrize("choice", BY_SOURCE, ids=lambda choice: choice.name)
def test_one_wearer_with_a_thousand_rows_and_four_with_one_share_every_value(choice: Choice) -> None:
    # All five sources are needed in every group, and four of them have but one row: there can only be one group.
    times_ns = np.arange(1004) * 1000
    codes = np.concatenate((np.zeros(1000, dtype=np.int32), np.arange(1, 5, dtype=np.int32)))
    samples = make_samples(
        times_ns, codes, ["a", "b", "c", "d", "e"], np.concatenate((np.arange(1000) % 700, [-900, 3, 5, 2000]))
    )

    (batch,) = released(samples, choice, 5, WindowRange(0, 5 * NANOSECONDS, 5 * NANOSECONDS))

    assert len(set(batch.values_uv.tolist())) == 1


def test_the_service_releases_nothing_of_two_wearers_where_three_must_share(tmp_path: Path) -> None:
    write_recording(tmp_path / "recording.csv")

    code, log = run(tmp_path, K_UNIT="source", K_VALUE=len(IDS) + 1, **PSEUDONYMS)

    assert code == 0, log
    assert not list((tmp_path / "csv").glob("*")) or not released_in(tmp_path)


@pytest.mark.influxdb
@pytest.mark.parametrize("method", ["hierarchy", "optimal"])
def test_of_twelve_wearers_in_a_real_database_five_stand_behind_every_value_as_an_outsider_counts(
    clinic: Clinic, tmp_path: Path, method: str
) -> None:
    load(clinic.server, clinic.raw, TWELVE, start_ns=START_NS, end_ns=START_NS + SPAN_S * NANOSECONDS)
    span = {"QUERY_START_TIME": "2025-11-03T14:30:00Z", "QUERY_END_TIME": "2025-11-03T14:30:30Z"}

    code, log = run_service(tmp_path, {**clinic.settings, **span, "K_UNIT": "source", "METHOD": method})

    assert code == 0, log
    code, said = outsider(clinic, "--k", "5", "--k-unit", "source")
    assert code == 0, said
    assert f"6 windows, {12 * 128 * SPAN_S} rows." in said


@pytest.mark.influxdb
def test_of_the_same_wearers_the_outsider_finds_values_of_fewer_than_five_where_k_counts_rows(
    clinic: Clinic, tmp_path: Path
) -> None:
    load(clinic.server, clinic.raw, TWELVE, start_ns=START_NS, end_ns=START_NS + SPAN_S * NANOSECONDS)
    span = {"QUERY_START_TIME": "2025-11-03T14:30:00Z", "QUERY_END_TIME": "2025-11-03T14:30:30Z"}

    assert run_service(tmp_path, {**clinic.settings, **span})[0] == 0

    assert outsider(clinic, "--k", "5")[0] == 0
    code, said = outsider(clinic, "--k", "5", "--k-unit", "source")
    assert (code, "VIOLATION in 6 windows, the first 2025-11-03T14:30:00Z: values that fewer than 5 sources share" in said) == (
        1,
        True,
    ), said


def outsider(clinic: Clinic, *arguments: str) -> tuple[int, str]:
    """Return what a reader sees who has a token for the output bucket, and nothing else."""
    place = ["--url", clinic.server.url, "--org", clinic.server.org, "--bucket", clinic.released]
    return run_check(*place, *arguments, environment={"INFLUX_VERIFY_TOKEN": clinic.server.make_token(read=[clinic.released])})
