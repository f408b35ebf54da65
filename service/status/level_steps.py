"""Rows by level, shown only in sums over at least twelve windows.

The levels of one window reveal more of its values than its release does (documentation/PRIVACY.md). A reader who polls a sum could
subtract, so the sum moves in steps of that many windows.
"""

from __future__ import annotations

import numpy as np

from anonymizer.hierarchy import SUPPRESSED_LEVEL
from service.status.snapshot import Levels
from service.telemetry.events import Unit
from service.telemetry.totals import FEWEST_WINDOWS


class LevelSteps:
    """Sums that change only when twelve more windows are complete."""

    def __init__(self) -> None:
        self._shown = np.zeros(SUPPRESSED_LEVEL + 1, dtype=np.int64)
        self._waiting = self._shown.copy()
        self._windows = self._windows_waiting = 0

    @property
    def shown(self) -> Levels:
        """The sums as of the last step."""
        return Levels(tuple(int(rows) for rows in self._shown[1:]), self._windows)

    def add(self, unit: Unit) -> None:
        """Add a unit's windows; withheld and empty ones do not count."""
        self._waiting = self._waiting + unit.rows_at_level
        self._windows_waiting += sum(result.has_batch for result in unit.results)
        if self._windows_waiting >= FEWEST_WINDOWS:
            self._shown = self._shown + self._waiting
            self._windows += self._windows_waiting
            self._waiting = np.zeros_like(self._waiting)
            self._windows_waiting = 0
