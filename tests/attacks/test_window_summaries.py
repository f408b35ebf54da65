"""What a window summary adds to the rows beside it: how many rows are missing, and nothing about any row's value.

Everything in it that has to do with values can be counted from the rows, and is counted here from the rows alone; the rest are
numbers of rows that were not released, settings, and digests.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np
import pytest

from anonymizer.anonymize import anonymize_chunk
from anonymizer.batch import Batch
from anonymizer.samples import Samples, make_samples
from anonymizer.verify import verify
from anonymizer.windows import NANOSECONDS, WindowRange
from outputs.encoding import summary_of
from tests.documentation.sample import together, windows
from utility.choices import CLASSIC, DEFAULT, OPTIMAL, Choice, recipe_of

ONE_WINDOW = windows().part(0, 1)
TINY = WindowRange(0, 5 * NANOSECONDS, 5 * NANOSECONDS)

#: Of rows that were not released there are these numbers; of released ones with an imputed value, whose value says so itself, the last two.
COUNTS = {"rows_read", "rows_withheld", "rows_invalid", "rows_duplicate", "rows_starred", "rows_suppressed"}

#: The same in every window of a run, or a name of the window.
SETTINGS = {"schema", "batch_id", "window_seconds", "k", "k_unit", "method", "settings_digest", "key_id", "partial"}


def batch_of(samples: Samples, choice: Choice, span: WindowRange = ONE_WINDOW, k: int = 5) -> Batch:
    batch = anonymize_chunk(samples, span, recipe_of(choice, k=k, window_s=5)).results[0].batch
    assert batch is not None
    return batch.certified(verify(batch))


def counted_from_rows(batch: Batch, imputed: int) -> dict[str, Any]:
    """Return what can be counted from the rows: of values that of `imputed` rows left out, the mean of the others."""
    rows_behind = Counter(batch.values_uv.tolist())
    if imputed:
        (value,) = (
            value
            for value, rows in rows_behind.items()
            if rows >= imputed
            and math.isclose(value, (math.fsum(batch.values_uv) - imputed * value) / (len(batch) - imputed), abs_tol=1e-6)
        )
        rows_behind[value] -= imputed
    return {
        "rows_released": len(batch),
        "distinct_values": len(+rows_behind),
        "smallest_group": min((+rows_behind).values()),
        "distinct_sources": len(set(batch.source_index.tolist())),
    }


@pytest.mark.parametrize("choice", [DEFAULT, OPTIMAL, CLASSIC], ids=lambda choice: choice.name)
def test_whatever_a_summary_says_of_values_can_be_counted_from_the_rows(choice: Choice) -> None:
    batch = batch_of(together(), choice)
    summary = dict(summary_of(batch))

    of_values = {name: value for name, value in summary.items() if name not in COUNTS | SETTINGS}

    assert of_values == counted_from_rows(batch, int(summary["rows_starred"]) + int(summary["rows_suppressed"]))


def moved_within_groups(samples: Samples, batch: Batch) -> Samples:
    """Return other raw data with the same release: in every group of one value, rows hand their raw value on to the next row."""
    inside = np.flatnonzero(samples.times_ns < ONE_WINDOW.end_ns)
    order = inside[np.lexsort((samples.source_codes[inside], samples.times_ns[inside]))]
    values = samples.values_uv.copy()
    for value in np.unique(batch.values_uv):
        is_mine = batch.values_uv == value
        # A cut between equal values goes by time: where one lies in two groups, who carries it must stay.
        movable = is_mine & ~np.isin(samples.values_uv[order], samples.values_uv[order[~is_mine]])
        values[order[movable]] = np.roll(values[order[movable]], 1)
    return make_samples(samples.times_ns, samples.source_codes, samples.source_ids, values)


@pytest.mark.parametrize("choice", [DEFAULT, OPTIMAL], ids=lambda choice: choice.name)
def test_raw_data_that_release_the_same_rows_have_the_same_summary(choice: Choice) -> None:
    samples = together()
    batch = batch_of(samples, choice)
    others = moved_within_groups(samples, batch)
    other = batch_of(others, choice)

    assert (samples.values_uv != others.values_uv).sum() > 100
    assert np.array_equal(batch.values_uv, other.values_uv)
    assert summary_of(batch) == summary_of(other)


def both_values(mean: float, squared_error: float) -> set[float]:
    """Attack: of two rows, mean and squared error give both values."""
    half = math.sqrt(squared_error / 2)
    return {mean - half, mean + half}


def test_mean_and_squared_error_of_two_rows_would_give_both_away() -> None:
    assert both_values(mean=150.0, squared_error=5000.0) == {100.0, 200.0}


def test_two_rows_of_one_group_have_the_summary_of_any_other_two() -> None:
    def summary(*values: float) -> dict[str, Any]:
        batch = batch_of(make_samples([1, 2], [0, 0], ["a"], values), OPTIMAL, TINY, k=2)
        return {name: value for name, value in summary_of(batch).items()}

    assert summary(100.0, 200.0) == summary(140.0, 160.0) == summary(-7.0, 1999.0)
