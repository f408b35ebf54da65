"""Times and lengths as people read them."""

from __future__ import annotations

import pytest

from service.time_texts import length_text, many_text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        *((0, "0 s"), (0.35, "0.3 s"), (2.5, "2.5 s"), (102, "102 s"), (119.9, "119.9 s")),
        *(
            (119.97, "2 min"),
            (150, "2.5 min"),
            (7199, "120 min"),
            (7200, "2 h"),
            (36.5 * 3600, "36.5 h"),
            (8_000_000, "2,222.2 h"),
        ),
    ],
)
def test_a_short_length_is_not_shown_as_zero(seconds: float, text: str) -> None:
    assert length_text(seconds) == text


def test_one_is_written_in_the_singular() -> None:
    assert [many_text(number, "row") for number in (0, 1, 1200)] == ["0 rows", "1 row", "1,200 rows"]
