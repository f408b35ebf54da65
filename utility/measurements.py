"""Measures one way to anonymize on the six public records: alone in their windows, the hard case, or all six in the same ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np

from utility.choices import Choice, recipe_of
from utility.fidelity_measures import HeartbeatLoss, Likeness, heartbeat_loss, likeness
from utility.least_error import least_squared_error, squared_error_as_released, squared_error_of_groups
from utility.outcome import Outcome, Signal, outcome_of
from utility.records import Record, records, together

WINDOW_S = 5


@dataclass(frozen=True)
class Setting:
    """What is measured.

    Args:
        choice: The way to anonymize.
        hertz: 360 or 128.
        k: How many share each value.
        window_s: Length of a window in seconds.
        shared: Whether all six records lie in the same windows; else each is alone.
    """

    choice: Choice
    hertz: int
    k: int
    window_s: int = WINDOW_S
    shared: bool = False

    def __hash__(self) -> int:
        return hash((self.choice.name, self.hertz, self.k, self.window_s, self.shared))


@dataclass(frozen=True, slots=True)
class OfRecord:
    """What was measured of one record; the heartbeats are None when less than half of its rows is released."""

    source_id: str
    likeness: Likeness
    heartbeats: HeartbeatLoss | None


@dataclass(frozen=True, slots=True)
class Measured:
    """What was measured of a setting.

    Args:
        of_records: Each of the six.
        squared_errors: Of each record, or of all six together.
        least_errors: The least there is for k rows, likewise.
        rows: Rows read.
        released: Of these released.
        invented: Of these with the mean of others instead of their group's value.
        withholdable: Rows not released of windows that hold k rows (or sources).
    """

    of_records: tuple[OfRecord, ...]
    squared_errors: tuple[float, ...]
    least_errors: tuple[float, ...]
    rows: int
    released: int
    invented: int
    withholdable: int

    @property
    def pooled_ratio(self) -> float:
        """Squared error ÷ the least there is, over all records."""
        return sum(self.squared_errors) / sum(self.least_errors)

    @property
    def worst_ratio(self) -> float:
        """The same of the record where it is highest."""
        return max(error / least for error, least in zip(self.squared_errors, self.least_errors, strict=True))

    def mean(self, of: Callable[[OfRecord], float]) -> float:
        """Return the mean over the records; NaN as soon as one has no figure."""
        return float(np.mean([of(record) for record in self.of_records]))

    def worst(self, of: Callable[[OfRecord], float]) -> float:
        """Return the highest of the records."""
        return max(of(record) for record in self.of_records)


def heartbeats(of: Callable[[HeartbeatLoss], float]) -> Callable[[OfRecord], float]:
    """Return what reads a figure of the heartbeats; NaN where there is none."""
    return lambda record: of(record.heartbeats) if record.heartbeats is not None else float("nan")


@cache
def measure(setting: Setting) -> Measured:
    """Anonymize the records and measure what came of it; asked again, it remembers.

    Raises:
        ConfigurationError: The service would refuse the settings.
    """
    outcomes = list(outcomes_of(setting))
    signals = [signal for outcome in outcomes for signal in outcome.signals()]
    six = {record.source_id: record for record in records(setting.hertz)}
    return Measured(
        of_records=tuple(_of_record(six[signal.source_id], signal) for signal in signals),
        squared_errors=tuple(_squared_error(outcome, setting.choice) for outcome in outcomes),
        least_errors=tuple(least_squared_error(outcome, setting.k) for outcome in outcomes),
        rows=sum(outcome.counts.read for outcome in outcomes),
        released=sum(outcome.counts.released for outcome in outcomes),
        invented=sum(outcome.counts.starred + outcome.counts.suppressed for outcome in outcomes),
        withholdable=sum(outcome.withholdable_rows for outcome in outcomes),
    )


@cache
def error_percent(setting: Setting) -> float:
    """Return PRDN, the mean of the records, and measure nothing else."""
    return float(np.mean([likeness(signal).prdn for outcome in outcomes_of(setting) for signal in outcome.signals()]))


def outcomes_of(setting: Setting) -> Iterator[Outcome]:
    """Yield what becomes of each record, or of all six in one."""
    recipe = recipe_of(setting.choice, k=setting.k, window_s=setting.window_s)
    data_sets = [together(setting.hertz)] if setting.shared else [record.samples() for record in records(setting.hertz)]
    yield from (outcome_of(samples, recipe, window_s=setting.window_s) for samples in data_sets)


def _of_record(record: Record, signal: Signal) -> OfRecord:
    enough = bool((~np.isnan(signal.released_uv)).mean() > 1 / 2)
    return OfRecord(record.source_id, likeness(signal), heartbeat_loss(signal, record.beats_ns, record.hertz) if enough else None)


def _squared_error(outcome: Outcome, choice: Choice) -> float:
    """Return the error before rounding where values are means of their group, else the error as released."""
    if choice.settings.get("IMPUTATION") == "midpoint":
        return squared_error_as_released(outcome)
    return squared_error_of_groups(outcome)
