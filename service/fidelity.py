"""UTILITY_METRICS: how much of the signal is left, said for many windows at a time. One window's figures would tell its values."""

from __future__ import annotations

import logging

from anonymizer.fidelity import Fidelity
from service.events import Events, Unit
from service.sums import FEWEST_WINDOWS

_LOG = logging.getLogger("ecg_anonymizer")


class FidelityReport(Events):
    """Adds up released windows, and says what they came to whenever there are enough."""

    def __init__(self) -> None:
        self._sum = Fidelity()
        self._windows = 0

    def anonymized(self, unit: Unit) -> None:
        """Add the windows of which something is released."""
        for result in unit.results:
            if result.batch is not None and result.statistics.fidelity is not None:
                self._sum = self._sum + result.statistics.fidelity
                self._windows += 1
        if self._windows >= FEWEST_WINDOWS:
            self._say()

    def _say(self) -> None:
        _LOG.info(
            "🩺 Fidelity over %d windows, %d rows: r %.4f, PRDN %.2f %%",
            self._windows,
            self._sum.rows,
            self._sum.correlation,
            self._sum.prdn_percent,
        )
        self._sum, self._windows = Fidelity(), 0
