"""The state of the service at one moment, as shown by metrics, health, page and systemd's status line. Counts only."""

from __future__ import annotations

from dataclasses import dataclass, field

from anonymizer.cohorts import Cohort
from service.telemetry.events import Phase, Sweep
from service.telemetry.fidelity_steps import FidelityStep
from service.telemetry.totals import Totals


@dataclass(frozen=True, slots=True)
class Trouble:
    """Something is unavailable: since when (nanoseconds since the epoch), and the latest reason."""

    since_ns: int
    reason: str


@dataclass(frozen=True, slots=True)
class OutputState:
    """One output.

    Args:
        name: Its kind and target.
        kind: A kind such as `csv`.
        position: The last chunk it has taken.
        taken: Rows it has taken since it was added to the journal.
        set_aside: Rows it refused for good.
        pending: Rows that wait for it.
        unaccounted: Rows released in this run that are neither taken nor set aside nor pending; must be 0.
        retries: Retried writes of this run.
        trouble: Why it takes nothing now; None while it takes rows.
        last_error: Its last error in this run, with its time; None if there was none.
        has_ended: Whether the service stopped writing to it for the rest of this run.
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
    """Sums of one interval of the run, by the service's clock; `lag_s` is the highest lag in it."""

    start_ns: int
    windows_released: int = 0
    windows_withheld: int = 0
    windows_empty: int = 0
    rows_read: int = 0
    rows_withheld: int = 0
    rows_late: int = 0
    rows_contradictory: int = 0
    rows_noisy: int = 0
    lag_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Durations:
    """How long windows took, as a histogram: windows within each of `BUCKETS_S`, their number, and the sum of their times."""

    within: tuple[int, ...]
    count: int
    sum_s: float


@dataclass(frozen=True, slots=True)
class Run:
    """The progress of the run.

    Args:
        started_ns: When it began.
        phase: Its current phase.
        is_stream: Whether it has no end.
        windows_in_all: The number of its windows; None for a run without an end.
        up_to_ns: Every window that ends by then is done; None before the first poll.
        cohort: The part of the bucket that is released; None: all of it.
        has_groups: Whether rows are released in groups; METHOD=rhythm forms none.
    """

    started_ns: int
    phase: Phase
    is_stream: bool
    windows_in_all: int | None
    up_to_ns: int | None
    cohort: Cohort | None = None
    has_groups: bool = True


@dataclass(frozen=True, slots=True)
class Pace:
    """Whether the run keeps up.

    Args:
        lag_s: How long the next window has been due; 0 if none is due, and in a run with an end.
        lag_limit_s: Above this lag the service counts as behind.
        idle_s: Time since the release loop's last sign of life, without announced waits.
        idle_limit_s: Above this the loop counts as hanging.
    """

    lag_s: float
    lag_limit_s: float
    idle_s: float
    idle_limit_s: float


@dataclass(frozen=True, slots=True)
class Dependency:
    """The source or the service's own disk: why it is unavailable, and the retries in this run."""

    trouble: Trouble | None = None
    retries: int = 0


@dataclass(frozen=True, slots=True)
class SpoolState:
    """Bytes that wait on disk for outputs, their limit, and whether reading pauses because the limit is reached."""

    size_bytes: int
    limit_bytes: int
    is_full: bool


@dataclass(frozen=True, slots=True)
class Levels:
    """Released rows by level 1 … 9, in steps of at least 12 windows, and the number of windows they come from."""

    rows: tuple[int, ...]
    windows: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything, at `now_ns` (nanoseconds since the epoch).

    Args:
        now_ns: The time.
        run: The progress of the run.
        pace: Whether it keeps up.
        source: Whether the source answers.
        state: Whether STATE_DIR can be used.
        spool: The size of the spool.
        totals: The totals of the run.
        levels: How far rows were generalized.
        fidelity: The signal's fidelity in the last step of at least twelve windows; None before it, and without UTILITY_METRICS.
        durations: How long windows took.
        outputs: The outputs.
        moments: The last hour, oldest first.
        workers: How many worker processes share the work; None without DASK_SCHEDULER.
        workforce: Whether they can be reached.
        removed: What RETENTION_DAYS removed in this run, with what the last sweep kept; at time 0 before the first.
    """

    now_ns: int
    run: Run
    pace: Pace
    source: Dependency
    state: Dependency
    spool: SpoolState
    totals: Totals
    levels: Levels
    fidelity: FidelityStep | None
    durations: Durations
    outputs: tuple[OutputState, ...]
    moments: tuple[Moment, ...]
    workers: int | None = None
    workforce: Dependency = Dependency()
    removed: Sweep = field(default_factory=Sweep)
