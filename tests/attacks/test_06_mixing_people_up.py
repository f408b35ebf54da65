"""Attack 6, on integrity: rows of equal times that come unsorted, until one wearer's heartbeat stands under another's name."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

from anonymizer.pseudonyms import Pseudonymizer
from tests.attacks.recording import KEY, PSEUDONYMS, released_in, run
from utility.choices import DEFAULT, OPTIMAL, Choice

#: Eight wearers, each at a level of his own, 500 µV apart: a row with another's value is off by 400 µV at least.
WEARERS = [f"wearer-{number}" for number in range(8)]
LEVEL_UV = {name: 500 * number - 1800 for number, name in enumerate(WEARERS)}
NEAR_UV = 50


def rows_of_equal_times(rows: int = 120) -> list[tuple[int, str, int]]:
    """Return rows of time, wearer and value: all wearers measure at the same times, in an order that has nothing to do with it."""
    made = [(time, name, LEVEL_UV[name] + time % 40) for time in range(rows) for name in WEARERS]
    return [made[position] for position in np.random.default_rng(6).permutation(len(made))]


def mixed_up(released: list[tuple[int, str, float]]) -> int:
    """Return how many rows carry a value that their wearer cannot have had."""
    return sum(abs(value - LEVEL_UV[name] - 20) > NEAR_UV for _, name, value in released)


def test_joining_names_and_values_by_time_alone_mixes_people_up() -> None:
    rows = rows_of_equal_times()
    by_time = sorted(rows, key=lambda row: row[0])
    by_value = sorted(rows, key=lambda row: (row[0], row[2]))
    joined = [(time, name, float(value)) for (time, name, _), (_, _, value) in zip(by_time, by_value, strict=True)]

    assert mixed_up(joined) > len(rows) / 2


@pytest.mark.parametrize("choice", [DEFAULT, OPTIMAL], ids=lambda choice: choice.name)
def test_each_row_carries_its_own_name_from_input_to_output(tmp_path: Path, choice: Choice) -> None:
    rows = rows_of_equal_times()
    lines = [f"2025-11-03T14:30:00.{time:03}Z,{name},{value}" for time, name, value in rows]
    (tmp_path / "recording.csv").write_text("\n".join(["timestamp,source_id,ecg", *lines]) + "\n", encoding="utf-8")

    code, log = run(tmp_path, **PSEUDONYMS, **choice.settings)

    assert code == 0, log
    name_of = {Pseudonymizer(KEY.encode()).released_id(name): name for name in WEARERS}
    released = [(int(time[20:23]), name_of[pseudonym], float(value)) for time, pseudonym, value in released_in(tmp_path)]
    times_of: dict[str, list[int]] = defaultdict(list)
    for time, name, _ in released:
        times_of[name].append(time)
    assert times_of == {name: list(range(120)) for name in WEARERS}
    assert mixed_up(released) == 0
