"""A person hears of contradictions at once and then once an hour, of units and ids once: counts, never an id."""

from __future__ import annotations

import pytest

from anonymizer.units import UnitDoubts
from service.telemetry.data_warnings import WARN_EVERY_S, DataWarnings
from tests.service.fakes import FakeClock


def test_contradictions_are_told_of_at_once_then_together_after_an_hour(caplog: pytest.LogCaptureFixture) -> None:
    clock, asked = FakeClock(), []
    warnings = DataWarnings(clock)

    def advice() -> str:
        asked.append(clock.now_s)
        return "Choose a lead."

    for second in range(0, int(WARN_EVERY_S) + 1, 600):
        clock.now_s = second
        warnings.contradicted(rows=10, windows=1, sources=1 + (second == 600), advice=advice)

    told_first, told_later = (record.getMessage() for record in caplog.records)
    assert "10 rows of 1 windows" in told_first
    assert told_first.endswith("(10 rows in this run). Choose a lead.")
    assert "60 rows of 6 windows are withheld: up to 2 sources" in told_later
    assert "(70 rows in this run)" in told_later
    assert len(asked) == 2, "the source is asked for advice only where it is given"


def test_units_and_ids_are_told_of_once(caplog: pytest.LogCaptureFixture) -> None:
    warnings = DataWarnings(FakeClock())

    for _ in range(3):
        warnings.units_look_wrong(UnitDoubts(sources=6, still=2))
        warnings.units_look_wrong(UnitDoubts(sources=6, apart=1))
        warnings.ids_are_formulas(4)

    said = [record.getMessage() for record in caplog.records]
    assert [line[:40] for line in said] == [
        "⚠️ The values of 2 of 6 sources hardly m",
        "⚠️ The values of 1 of 6 sources move a h",
        "⚠️ 4 source ids that are released unchan",
    ]
    assert "VALUE_UNIT" in said[0]
