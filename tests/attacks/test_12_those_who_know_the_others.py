"""Attack 12, which is not prevented: those who know all rows of a group but one can work out that one."""

from __future__ import annotations

import numpy as np

from anonymizer.anonymize import anonymize_chunk
from anonymizer.samples import make_samples
from anonymizer.windows import NANOSECONDS, WindowRange
from tests.core.plain_anonymizer import PlainSettings
from tests.documentation.sample import alone, released_values, windows
from utility.choices import SOURCE, recipe_of


def test_a_reader_who_knows_all_rows_of_a_group_but_one_can_work_out_that_one() -> None:
    record = alone()[0]
    after = released_values(record, PlainSettings())
    first_window = windows().index_of(record.times_ns) == 0
    before, after = record.values_uv[first_window], after[first_window]

    for value in np.unique(after):
        *known, unknown = before[after == value]
        n = len(known) + 1
        assert abs(n * value - sum(known) - unknown) <= n / 2


def test_k_minus_one_wearers_who_put_their_rows_together_can_work_out_the_others_value() -> None:
    # One group of five wearers, one row each: four of them know all but the last row.
    values = [103.0, 250.0, -40.0, 611.0, 87.0]
    samples = make_samples(np.arange(5), np.arange(5), list("abcde"), values)
    span = WindowRange(0, 5 * NANOSECONDS, 5 * NANOSECONDS)
    batch = anonymize_chunk(samples, span, recipe_of(SOURCE, k=5, window_s=5)).results[0].batch
    assert batch is not None

    for unknown in range(5):
        known = sum(values) - values[unknown]
        assert abs(5 * batch.values_uv[unknown] - known - values[unknown]) <= 5 / 2
