"""UTILITY_METRICS: what is left of the signal, aggregated over many windows. One window's figures would reveal its values."""

from __future__ import annotations

from dataclasses import dataclass

from anonymizer.batch import WindowCounts
from anonymizer.fidelity_sums import Fidelity
from service.log_event import LogEvent
from service.telemetry.events import Events, Unit
from service.telemetry.totals import FEWEST_WINDOWS

_FIDELITY = LogEvent(
    "fidelity", "🩺 Fidelity over %d windows, %d rows: r %.4f, PRDN %.2f %%", "windows rows correlation prdn_percent"
)
_RHYTHM = LogEvent(
    "rhythm",
    "🩺 Rhythm over %d windows, %d rows: %d beats, %.1f %% of the rows withheld as noise, %.1f %% for other reasons",
    "windows rows beats noisy_percent otherwise_withheld_percent",
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


class RhythmReport(Events):
    """Logs what METHOD=rhythm keeps: of every window with rows, since what it withholds is what it loses."""

    def __init__(self) -> None:
        self._windows = self._beats = self._noisy = 0
        self._counts = WindowCounts()

    def anonymized(self, unit: Unit) -> None:
        """Add the windows; log the sums of twelve or more, and start again."""
        for result in unit.results:
            counts = result.counts.without_excluded()
            self._windows += counts.read > 0
            self._beats += result.statistics.beats
            self._noisy += result.statistics.noisy
            self._counts += counts
        if self._windows >= FEWEST_WINDOWS:
            rows, withheld = self._counts.read, self._counts.withheld
            _RHYTHM.log(self._windows, rows, self._beats, 100 * self._noisy / rows, 100 * (withheld - self._noisy) / rows)
            self._windows = self._beats = self._noisy = 0
            self._counts = WindowCounts()
