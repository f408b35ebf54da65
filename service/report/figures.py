"""The figures of a report. They contain no rows, values or source ids."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from anonymizer.batch import Promise, WindowCounts
from anonymizer.windows import Window
from service.telemetry.events import Sweep


@dataclass(frozen=True, slots=True)
class Promised:
    """A promise, the length of its windows, and the times it covers; None for gaps that were only accepted as released."""

    promise: Promise | None
    window_s: int
    spans: tuple[Window, ...]


@dataclass(frozen=True, slots=True)
class Delivered:
    """Released rows of one output by outcome.

    Args:
        name: The output.
        taken: Rows it has taken: in this run, or ever, as `Figures.outputs_since` says.
        set_aside: Rows it refused, likewise.
        pending: Rows that still wait for it.
    """

    name: str
    taken: int
    set_aside: int
    pending: int


@dataclass(frozen=True, slots=True)
class Plot:
    """Sums by time: the start of each interval, their length, and the named series."""

    starts_ns: tuple[int, ...]
    width_ns: int
    series: tuple[tuple[str, tuple[float, ...]], ...]


@dataclass(frozen=True, slots=True)
class Attacked:
    """How often attackers would name the right wearer, over all wearers together.

    Args:
        people: How many wearers there were to tell apart; 0 if nothing could be measured.
        seconds: The length of what was looked at; the attackers knew the first half raw.
        attackers: Who they are.
        ways: Each way to release, and by attacker how many spans were given the right name, and how many there were.
        why_not: Why nothing was measured, as the end of a sentence.
    """

    people: int = 0
    seconds: int = 0
    attackers: tuple[str, ...] = ()
    ways: tuple[tuple[str, tuple[tuple[int, int], ...]], ...] = ()
    why_not: str = ""


@dataclass(frozen=True, slots=True)
class Detail:
    """Figures that only the run knows, because the journal does not keep them.

    Args:
        windows_withheld: Windows with rows, none of which were released.
        windows_empty: Windows without rows.
        windows_expired: Windows older than the source's retention.
        windows_skipped: Windows that were released before, and so were not released again.
        violations: Batches that failed verification and were withheld.
        rows_outside: Rows of times or sources that were not asked for; they do not count as read.
        invalid_by_reason: Invalid rows by what they lack: `time`, `source` or `number`.
        rows_contradictory: Withheld rows whose source held two different values for one time.
        rows_noisy: Withheld rows whose beats cannot be told from noise (METHOD=rhythm).
        smallest_group: The fewest rows that share a released value; 0 if nothing was released.
        groups: Different released values, summed over windows.
        smallest_groups: Windows by the size of their smallest group: (label, windows), in order; empty without groups.
        rows_at_level: Released rows by level 1 … 9; None without groups, and for fewer than 12 windows, which it would reveal too much of.
        unchanged: Released rows that keep their measured value; None likewise.
        took_s: How long the run took.
        throughput: Rows read per second over the run's own time.
        is_complete: Whether the run ended by itself.
        workers: How many worker processes shared the work, at most; 0: none.
        attacked: How often attackers are right on this data; None without UTILITY_METRICS.
        removed: What RETENTION_DAYS removed at the end of the run; None without it.
    """

    windows_withheld: int
    windows_empty: int
    windows_expired: int
    windows_skipped: int
    violations: int
    rows_outside: int
    invalid_by_reason: dict[str, int]
    rows_contradictory: int
    rows_noisy: int
    smallest_group: int
    groups: int
    smallest_groups: tuple[tuple[str, int], ...]
    rows_at_level: tuple[int, ...] | None
    unchanged: int | None
    took_s: float
    throughput: Plot
    is_complete: bool
    workers: int = 0
    attacked: Attacked | None = None
    removed: Sweep | None = None


@dataclass(frozen=True, slots=True)
class Figures:
    """A report.

    Args:
        made_ns: When it was made.
        of: Its subject, such as `a one-shot run`.
        asked: The requested times; None if there are none.
        promised: The promises, and the released times that they cover.
        windows_in_all: The windows to release; in a report from the journal, those from the first to the last released one.
        windows_released: Windows with released rows.
        counts: Rows by outcome.
        rows_late: Rows that arrived after their window's release.
        outputs_since: Since when outputs are counted, in words.
        outputs: The outputs.
        over_time: Windows and rows by the time they were measured.
        detail: Figures that only the run knows; None in a report from the journal.
        settings: Every setting as it may be shown.
        version: The version of the service.
        pseudonyms: Whether source ids are replaced.
    """

    made_ns: int
    of: str
    asked: Window | None
    promised: tuple[Promised, ...]
    windows_in_all: int
    windows_released: int
    counts: WindowCounts
    rows_late: int
    outputs_since: str
    outputs: tuple[Delivered, ...]
    over_time: Plot
    detail: Detail | None
    settings: tuple[tuple[str, str], ...]
    version: str
    pseudonyms: bool

    @property
    def was_kept(self) -> bool:
        """Whether the promise was kept: every row is accounted for, groups are large enough, and no batch failed verification."""
        return self.counts.are_conserved() and self.groups_are_large_enough and not (self.detail and self.detail.violations)

    @property
    def groups_are_large_enough(self) -> bool:
        """Whether no known group is smaller than promised."""
        smallest = self.detail.smallest_group if self.detail else 0
        return not smallest or all(
            one.promise is None or one.promise.k is None or smallest >= one.promise.k for one in self.promised
        )

    @property
    def forms_groups(self) -> bool:
        """Whether any promise is one of k; with METHOD=rhythm there are no groups and levels."""
        return not self.removes_shapes or any(one.promise is not None and one.promise.k is not None for one in self.promised)

    @property
    def removes_shapes(self) -> bool:
        """Whether any promise is that the shape is removed."""
        return any(one.promise is not None and one.promise.k is None for one in self.promised)

    @property
    def imputed(self) -> int:
        """Rows released with the mean of their window."""
        return self.counts.starred + self.counts.suppressed

    @property
    def released_spans(self) -> tuple[Window, ...]:
        """Times with rows that are known to be released."""
        return tuple(span for one in self.promised if one.promise for span in one.spans)

    @property
    def read_back(self) -> frozenset[str]:
        """Kinds of outputs that an independent check can read; an API cannot be read back."""
        return frozenset(one.name.partition(":")[0] for one in self.outputs) & {"csv", "influxdb", "parquet"}

    @property
    def outside_checks(self) -> Mapping[str, list[Window]]:
        """Options of `scripts/verify_output.py` for each promise, with the times that it covers."""
        imputed = " --imputed" if self.imputed else ""
        times: dict[str, list[Window]] = {}
        for one in self.promised:
            if one.promise:
                length = f"--batch-seconds {one.window_s}"
                options = f"--k {one.promise.k} {length} --k-unit {one.promise.k_unit}{imputed}"
                if one.promise.k is None:
                    options = f"--method {one.promise.method} {length}"
                times[options] = sorted([*times.get(options, []), *one.spans])
        return times
