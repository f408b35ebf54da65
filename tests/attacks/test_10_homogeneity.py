"""Attack 10, which is not prevented: where all rows of a group had the released value, the reader has it exactly. Measured and reported."""

from __future__ import annotations

import numpy as np
import pytest

from tests.core.plain_anonymizer import PlainSettings
from tests.documentation.figures import FIGURES
from tests.documentation.pages import PRIVACY, text_of
from tests.documentation.sample import alone, released_values, windows


def test_all_rows_of_a_group_may_have_the_released_value() -> None:
    record = alone()[0]
    before, after = record.values_uv, released_values(record, PlainSettings())
    window = windows().index_of(record.times_ns)
    groups = {(number, value): before[(window == number) & (after == value)] for number in (0, 1) for value in np.unique(after)}

    exact = [rows for (_, value), rows in groups.items() if len(rows) and (rows == value).all()]
    assert exact


@pytest.mark.parametrize("k", [5, 20])
def test_a_reader_who_takes_every_value_at_its_word_is_right_as_often_as_the_page_says(k: int) -> None:
    right = np.mean([(record.values_uv == released_values(record, PlainSettings(k=k))).mean() for record in alone()])

    (row,) = (line for line in FIGURES["unchanged"][0]() if line.startswith(f"| {k} |"))
    assert f"| {100 * right:.1f} % |" in row
    assert row in text_of(PRIVACY)
