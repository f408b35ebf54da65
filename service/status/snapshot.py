"""The state of the service at one moment: what metrics, health, page and systemd's status line are made from. Counts only."""

from __future__ import annotations

from dataclasses import dataclass

from service.telemetry.events import Phase
from service.telemetry.fidelity_steps import FidelityStep
from service.telemetry.totals import Totals


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why something cannot be used now: since when (nanoseconds since the epoch), and the last reason."""

    since_ns: int
    reason: str


@dataclass(frozen=True, slots=True)
class OutputState:
    """One output.

    Args:
        name: Its kind and its target.
        kind: Such as `csv`.
        position: The last chunk it has taken.
        taken: Rows it has taken since it was added to the journal.
        set_aside: Rows it refused for good.
        pending: Rows that wait for it.
        unaccounted: Rows released in this run that are neither taken nor set aside nor pending; must be 0.
        retries: Writes of this run that were tried again.
        trouble: Why it takes nothing now; None while it takes rows.
        last_error: Its last error in this run, and when; None if there was none.
        has_ended: Whether the service has given it up for this run.
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
    """What happened in one stretch of the run, by our clock; `lag_s` is the highest lag in it."""

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
    """How long windows took, as a histogram: windows within each of `BUCKETS_S`, their number, and the sum of their times."""

    within: tuple[int, ...]
    count: int
    sum_s: float


@dataclass(frozen=True, slots=True)
class Run:
    """Where the run is.

    Args:
        started_ns: When it began.
        phase: What it does now.
        is_stream: Whether it has no end.
        windows_in_all: How many windows there will be; None without an end.
        up_to_ns: Every window that ends by then is done; None before the first look.
    """

    started_ns: int
    phase: Phase
    is_stream: bool
    windows_in_all: int | None
    up_to_ns: int | None


@dataclass(frozen=True, slots=True)
class Pace:
    """Whether the run keeps up.

    Args:
        lag_s: How long the next window has been due; 0 when it is not, and in a run with an end.
        lag_limit_s: Above this lag the service counts as behind.
        idle_s: Time since the work loop last showed that it is alive, announced waits not counted.
        idle_limit_s: Above this the loop counts as hanging.
    """

    lag_s: float
    lag_limit_s: float
    idle_s: float
    idle_limit_s: float


@dataclass(frozen=True, slots=True)
class Dependency:
    """What the run cannot do without, the source or its own disk: why it cannot be used now, and retries in this run."""

    trouble: Trouble | None = None
    retries: int = 0


@dataclass(frozen=True, slots=True)
class SpoolState:
    """Bytes that wait on disk for outputs, the most that may, and whether reading pauses because that is reached."""

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
        run: Where the run is.
        pace: Whether it keeps up.
        source: Whether the source answers.
        state: Whether STATE_DIR can be used.
        spool: What waits on disk.
        totals: What the run adds up to.
        levels: How far rows were generalized.
        fidelity: What is left of the signal in the last step of twelve windows or more; None before it, and without UTILITY_METRICS.
        durations: How long windows took.
        outputs: Each output.
        moments: The last hour, oldest first.
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
