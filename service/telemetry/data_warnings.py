"""Warnings about the data: contradictions, units, ids. Each is logged once, contradictions once per hour; with counts only."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable

from anonymizer.units import UnitDoubts
from service.clock import Clock
from service.log_event import LogEvent
from service.telemetry.events import Events, Unit

CONTRADICTORY = LogEvent(
    "contradictory",
    "⚠️ %d rows of %d windows are withheld: up to %d sources per window hold two different values for one time "
    "(%d rows in this run). %s",
    "rows windows sources rows_in_run advice",
    logging.WARNING,
)
VALUES_HARDLY_MOVE = LogEvent(
    "values_hardly_move",
    "⚠️ The values of %d of %d sources hardly move: all within ±3 µV for a second or more, and no flat line. Are they "
    "millivolts? Check VALUE_UNIT, which applies to all sources",
    "sources of_sources",
    logging.WARNING,
)
UNITS_DIFFER = LogEvent(
    "units_differ",
    "⚠️ The values of %d of %d sources move a hundred times more, or less, than those of the others: are they in another "
    "unit? VALUE_UNIT applies to all sources; convert the others where they are written",
    "sources of_sources",
    logging.WARNING,
)
IDS_ARE_FORMULAS = LogEvent(
    "ids_are_formulas",
    "⚠️ %d source ids that are released unchanged begin with =, +, -, @, a tab or a line end: a spreadsheet that opens "
    "the CSV may run them as formulas. Set PSEUDONYMIZE_SOURCE_ID=true, or import that column as text",
    "sources",
    logging.WARNING,
)

IDS_ARE_ALIKE = LogEvent(
    "ids_are_alike",
    "⚠️ %d source ids differ only in case, blanks or forms of characters, and K_UNIT=source counts them as different people: "
    "if they are one, fewer than k share a value. Write each id in one way",
    "sources",
    logging.WARNING,
)
ONE_SOURCE_ALONE = LogEvent(
    "one_source_alone",
    "⚠️ Windows hold rows of a single source: with K_UNIT=record all k rows that share a value are then that person's",
    level=logging.WARNING,
)

#: The first contradiction is logged immediately, further ones at most this often.
WARN_EVERY_S = 3600.0


class DataWarnings(Events):
    """Logs each warning once, contradictions once per hour.

    Args:
        clock: The service's clock.
        counts_rows: Whether k counts rows, so that they may all be one person's.
    """

    def __init__(self, clock: Clock, *, counts_rows: bool = False) -> None:
        self._clock = clock
        self._counts_rows = counts_rows
        self._warned_s = -math.inf
        self._rows = self._rows_in_all = self._windows = self._sources = 0
        self._logged: set[str] = set()

    def contradicted(self, *, rows: int, windows: int, sources: int, advice: Callable[[], str]) -> None:
        """Warn, or add to the next warning."""
        self._rows += rows
        self._rows_in_all += rows
        self._windows += windows
        self._sources = max(self._sources, sources)
        now_s = self._clock.monotonic_s()
        if now_s - self._warned_s < WARN_EVERY_S:
            return
        self._warned_s = now_s
        CONTRADICTORY.log(self._rows, self._windows, self._sources, self._rows_in_all, advice())
        self._rows = self._windows = self._sources = 0

    def units_look_wrong(self, doubts: UnitDoubts) -> None:
        """Warn of each kind once."""
        if doubts.still and self._is_new("still"):
            VALUES_HARDLY_MOVE.log(doubts.still, doubts.sources)
        if doubts.apart and self._is_new("apart"):
            UNITS_DIFFER.log(doubts.apart, doubts.sources)

    def ids_are_formulas(self, sources: int) -> None:
        """Warn once."""
        if self._is_new("ids"):
            IDS_ARE_FORMULAS.log(sources)

    def ids_are_alike(self, sources: int) -> None:
        """Warn once."""
        if self._is_new("alike"):
            IDS_ARE_ALIKE.log(sources)

    def anonymized(self, unit: Unit) -> None:
        """Warn once of windows whose released rows are all of one source."""
        certificates = (result.certificate for result in unit.results if self._counts_rows)
        if any(one is not None and one.distinct_sources == 1 for one in certificates) and self._is_new("alone"):
            ONE_SOURCE_ALONE.log()

    def _is_new(self, subject: str) -> bool:
        is_new = subject not in self._logged
        self._logged.add(subject)
        return is_new
