"""How the service is at one moment: the one truth that metrics, health, page and systemd's status line are written from. Counts only."""

from __future__ import annotations

from dataclasses import dataclass

from anonymizer.batch import WindowCounts
from service.telemetry.events import Phase
from service.telemetry.fidelity_totals import FidelityStep


@dataclass(frozen=True, slots=True)
class Trouble:
    """Somebody who cannot be used now: since when (nanoseconds since the epoch), and the last reason."""

    since_ns: int
    reason: str


@dataclass(frozen=True, slots=True)
class OutputState:
    """One output.

    Args:
        name: What kind it is and where it goes.
        kind: Such as `csv`.
        position: The last chunk it has taken.
        taken: Rows it has taken since the journal knows it.
        set_aside: Rows it refused for good.
        pending: Rows that wait for it.
        unaccounted: Rows released in this run that are neither taken nor set aside nor pending; must be 0.
        retries: Writes of this run that were tried again.
        trouble: Why it takes nothing now; None while it does.
        last_error: The last reason it gave, and when; None when it never gave one in this run.
        has_ended: Whether it is not written to any more in this run.
    """

    name: str
    kind: str
    position: int
    taken: int
    set_aside: int
    pending: int
    unaccounted: int
    retries: int
    trouble: Trouble | None
    last_error: Trouble | None
    has_ended: bool


@dataclass(frozen=True, slots=True)
class Moment:
    """What happened within one stretch of time of the run, by our clock; `lag_s` is the highest seen in it."""

    start_ns: int
    windows_released: int = 0
    windows_withheld: int = 0
    windows_empty: int = 0
    rows_read: int = 0
    rows_withheld: int = 0
    rows_late: int = 0
    rows_contradictory: int = 0
    lag_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Durations:
    """A histogram of how long windows took: for each of `BUCKETS_S`, how many took no longer; their number and their sum."""

    within: tuple[int, ...]
    count: int
    sum_s: float


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything, at `now_ns`.

    Args:
        now_ns: Nanoseconds since the epoch.
        started_ns: When the run began.
        phase: Where the run is.
        is_stream: Whether there is no end.
        windows_in_all: How many windows there will be; None without an end.
        up_to_ns: Every window that ends by then is done with; None before the first look.
        lag_s: How long the next window has been due; 0 when it is not, and in a run with an end.
        idle_s: How long the work loop has not come by, waiting it has announced left out.
        idle_limit_s: From when on that means that it hangs.
        lag_limit_s: From when on the service counts as behind.
        source_trouble: Why the source cannot be used now.
        state_trouble: Why our own disk cannot.
        reading_pauses: Whether the spool is full.
        counts: Rows by fate.
        windows: Windows by outcome.
        violations: Batches that failed verification.
        rows_late: Rows that came after their window's release.
        rows_outside: Rows of times or sources that were not asked for; they count as not read.
        invalid_by_reason: Invalid rows by what they lack: `time`, `source` or `number`.
        rows_contradictory: Withheld rows whose source held two different values for one time.
        unaccounted: Rows that were read and are neither released, withheld, invalid nor duplicate; must be 0.
        rows_at_level: Released rows by level 1 … 9, in steps of at least 12 windows.
        windows_in_levels: How many windows these are the sums of.
        fidelity: How much of the signal the last twelve windows or more left; None without UTILITY_METRICS, and before there were so many.
        groups: Different released values, summed over windows.
        smallest_group: The fewest rows that shared one, ever in this run; 0 before the first release.
        durations: How long windows took.
        source_retries: Questions to the source that were asked again.
        state_retries: Uses of our disk that were tried again.
        spool_bytes: How much waits on disk for outputs.
        spool_limit_bytes: How much may.
        outputs: Each output.
        moments: What happened lately, oldest first.
    """

    now_ns: int
    started_ns: int
    phase: Phase
    is_stream: bool
    windows_in_all: int | None
    up_to_ns: int | None
    lag_s: float
    idle_s: float
    idle_limit_s: float
    lag_limit_s: float
    source_trouble: Trouble | None
    state_trouble: Trouble | None
    reading_pauses: bool
    counts: WindowCounts
    windows: dict[str, int]
    violations: int
    rows_late: int
    rows_outside: int
    invalid_by_reason: dict[str, int]
    rows_contradictory: int
    unaccounted: int
    rows_at_level: tuple[int, ...]
    windows_in_levels: int
    fidelity: FidelityStep | None
    groups: int
    smallest_group: int
    durations: Durations
    source_retries: int
    state_retries: int
    spool_bytes: int
    spool_limit_bytes: int
    outputs: tuple[OutputState, ...]
    moments: tuple[Moment, ...]
