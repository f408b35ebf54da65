"""UTILITY_METRICS: signal fidelity, aggregated over many windows. One window's figures would reveal its values."""

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
    """Sums over a number of windows. Each window is in exactly one step, so steps cannot be subtracted from each other."""

    windows: int
    sums: Fidelity


class FidelitySteps:
    """Collects released windows until there are enough to report."""

    def __init__(self) -> None:
        self._sum = Fidelity()
        self._windows = 0

    def add(self, unit: Unit) -> FidelityStep | None:
        """Add the released windows of a unit; return their sums once there are twelve or more, and start again."""
        for result in unit.results:
            if result.has_batch and result.statistics.fidelity is not None:
                self._sum = self._sum + result.statistics.fidelity
                self._windows += 1
        if self._windows < FEWEST_WINDOWS:
            return None
        step = FidelityStep(self._windows, self._sum)
        self._sum, self._windows = Fidelity(), 0
        return step


class FidelityReport(Events):
    """Logs each step."""

    def __init__(self) -> None:
        self._steps = FidelitySteps()

    def anonymized(self, unit: Unit) -> None:
        """Add the windows; log the step that they complete."""
        if step := self._steps.add(unit):
            _FIDELITY.log(step.windows, step.sums.rows, step.sums.correlation, step.sums.prdn_percent)
