"""Measures one configuration on the six public records: each alone in its windows (the hardest case), or all six in the same windows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from recognition.attackers import Recognition, Trace, attempt_on_raw, carry_out
from utility.choices import RAW, Choice, recipe_of
from utility.fidelity_measures import HeartbeatLoss, Likeness, heartbeat_loss, likeness
from utility.heartbeats import detector
from utility.least_error import least_squared_error, squared_error_as_released, squared_error_of_groups
from utility.outcome import Outcome, Signal, outcome_of
from utility.records import Record, records, together

WINDOW_S = 5


@dataclass(frozen=True)
class Setting:
    """What is measured.

    Args:
        choice: The configuration.
        hertz: 360 or 128.
        k: Least number of rows or sources that share each value.
        window_s: Length of a window in seconds.
        shared: Whether all six records share their windows; otherwise each is alone.
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
    """The figures of one record; `heartbeats` is None if at most half of its rows are released."""

    source_id: str
    likeness: Likeness
    heartbeats: HeartbeatLoss | None


@dataclass(frozen=True, slots=True)
class Measured:
    """The figures of a setting.

    Args:
        of_records: Figures of each of the six records.
        squared_errors: Of each record, or of all six together.
        least_errors: The minimum for k rows, likewise.
        rows: Rows read.
        released: Rows released.
        invented: Released rows with an imputed value instead of their group's.
        withholdable: Withheld rows of windows with at least k rows (or sources).
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
        """Squared error ÷ minimum, over all records."""
        return sum(self.squared_errors) / sum(self.least_errors)

    @property
    def worst_ratio(self) -> float:
        """Squared error ÷ minimum, of the worst record."""
        return max(error / least for error, least in zip(self.squared_errors, self.least_errors, strict=True))

    def mean(self, of: Callable[[OfRecord], float]) -> float:
        """Return the mean over the records; NaN if any has no figure."""
        return float(np.mean([of(record) for record in self.of_records]))

    def worst(self, of: Callable[[OfRecord], float]) -> float:
        """Return the highest figure of any record."""
        return max(of(record) for record in self.of_records)


def heartbeats(of: Callable[[HeartbeatLoss], float]) -> Callable[[OfRecord], float]:
    """Return a function that reads a heartbeat figure of a record; NaN if it has none."""
    return lambda record: of(record.heartbeats) if record.heartbeats is not None else float("nan")


@cache
def measure(setting: Setting) -> Measured:
    """Anonymize the records and measure the outcome. Cached.

    Raises:
        ConfigurationError: The service would refuse the settings.
    """
    outcomes = list(outcomes_of(setting))
    signals = [signal for outcome in outcomes for signal in outcome.signals()]
    six = {record.source_id: record for record in records(setting.hertz)}
    return Measured(
        of_records=tuple(_of_record(six[signal.source_id], signal) for signal in signals),
        squared_errors=tuple(_squared_error(outcome, setting.choice) for outcome in outcomes),
        least_errors=_least_errors(setting, outcomes),
        rows=sum(outcome.counts.read for outcome in outcomes),
        released=sum(outcome.counts.released for outcome in outcomes),
        invented=sum(outcome.counts.starred + outcome.counts.suppressed for outcome in outcomes),
        withholdable=sum(outcome.withholdable_rows for outcome in outcomes),
    )


@cache
def error_percent(setting: Setting) -> float:
    """Return the mean PRDN of the records, without the slower measures. Cached."""
    return float(np.mean([likeness(signal).prdn for outcome in outcomes_of(setting) for signal in outcome.signals()]))


@cache
def recognitions(setting: Setting) -> tuple[Recognition, ...]:
    """Return how often each of `ATTACKS` names the right one of the six in what would be released, or in raw ECG with `RAW`."""
    return tuple(carry_out(attempt_on_raw(raw_traces(setting.hertz), detector()).on(released_traces(setting))))


def raw_traces(hertz: int) -> list[Trace]:
    """Return the six records as they are."""
    return [Trace(record.times_ns, record.values_uv) for record in records(hertz)]


def released_traces(setting: Setting) -> list[Trace]:
    """Return what would be released of the six records, in their order; with `RAW` what was measured."""
    if setting.choice is RAW:
        return raw_traces(setting.hertz)
    signals = {signal.source_id: signal for outcome in outcomes_of(setting) for signal in outcome.signals()}
    return [signals[record.source_id].released for record in records(setting.hertz)]


def outcomes_of(setting: Setting) -> Iterator[Outcome]:
    """Yield the outcome of each record, or one of all six together."""
    recipe = recipe_of(setting.choice, k=setting.k, window_s=setting.window_s)
    data_sets = [together(setting.hertz)] if setting.shared else [record.samples() for record in records(setting.hertz)]
    yield from (outcome_of(samples, recipe, window_s=setting.window_s) for samples in data_sets)


def _of_record(record: Record, signal: Signal) -> OfRecord:
    enough = bool((~np.isnan(signal.released_uv)).mean() > 1 / 2)
    return OfRecord(record.source_id, likeness(signal), heartbeat_loss(signal, record.beats_ns, record.hertz) if enough else None)


#: The minimum depends on the records and their windows, not on how they are anonymized: by rate, k, window and whether they share.
_least_known: dict[tuple[int, int, int, bool], tuple[float, ...]] = {}


def _least_errors(setting: Setting, outcomes: Sequence[Outcome]) -> tuple[float, ...]:
    key = setting.hertz, setting.k, setting.window_s, setting.shared
    if key not in _least_known:
        _least_known[key] = tuple(least_squared_error(outcome, setting.k) for outcome in outcomes)
    return _least_known[key]


def _squared_error(outcome: Outcome, choice: Choice) -> float:
    """Return the error before rounding if values are group means, otherwise the error as released."""
    if choice.settings.get("IMPUTATION") == "midpoint":
        return squared_error_as_released(outcome)
    return squared_error_of_groups(outcome)
