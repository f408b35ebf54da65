"""UTILITY_METRICS: how much of the signal is left, said for many windows at a time. One window's figures would tell its values."""

from __future__ import annotations

from dataclasses import dataclass

from anonymizer.fidelity_sums import Fidelity
from service.log_event import LogEvent
from service.telemetry.events import Events, Unit
from service.telemetry.totals import FEWEST_WINDOWS

_FIDELITY = LogEvent(
    "fidelity", "🩺 Fidelity over %d windows, %d rows: r %.4f, PRDN %.2f %%", "windows rows correlation prdn_percent"
)


@dataclass(frozen=True, slots=True)
class FidelityStep:
    """What `windows` windows came to, of which each stands in one step only: steps cannot be subtracted from one another."""

    windows: int
    sums: Fidelity


class FidelitySteps:
    """Puts released windows together until there are enough to speak of."""

    def __init__(self) -> None:
        self._sum = Fidelity()
        self._windows = 0

    def add(self, unit: Unit) -> FidelityStep | None:
        """Take in the windows of which something is released; return what they came to once they are twelve or more, and begin anew."""
        for result in unit.results:
            if result.batch is not None and result.statistics.fidelity is not None:
                self._sum = self._sum + result.statistics.fidelity
                self._windows += 1
        if self._windows < FEWEST_WINDOWS:
            return None
        step = FidelityStep(self._windows, self._sum)
        self._sum, self._windows = Fidelity(), 0
        return step


class FidelityReport(Events):
    """Says in the log what each step came to."""

    def __init__(self) -> None:
        self._steps = FidelitySteps()

    def anonymized(self, unit: Unit) -> None:
        """Add the windows; say it when there are enough."""
        if step := self._steps.add(unit):
            _FIDELITY.log(step.windows, step.sums.rows, step.sums.correlation, step.sums.prdn_percent)
