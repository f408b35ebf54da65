"""Times and lengths as people read them."""

from __future__ import annotations

import pytest

from anonymizer.windows import NANOSECONDS
from service.time_texts import length_text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (102, "102 s"), (119, "119 s"), (120, "2 min"), (7199, "119 min"), (7200, "2.0 h"), (36.5 * 3600, "36.5 h")],
)
def test_a_length_is_told_so_that_a_short_one_is_not_taken_for_none(seconds: float, text: str) -> None:
    assert length_text(round(seconds * NANOSECONDS)) == text
