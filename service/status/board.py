"""Collects the state of a run from its events, for readers in other threads. Sums and reasons only, of the last hour at most."""

from __future__ import annotations

import dataclasses
import math
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from anonymizer.hierarchy import SUPPRESSED_LEVEL
from anonymizer.ports import Output
from anonymizer.windows import HOUR_NS, MOST_WINDOWS, NANOSECONDS, WindowRange
from service.clock import Clock
from service.settings.declared import Settings, cohort_of
from service.state.output_positions import OutputPosition, OutputPositions
from service.status.journal_reader import JournalReader
from service.status.snapshot import Dependency, Durations, Levels, Moment, OutputState, Pace, Run, Snapshot, SpoolState, Trouble
from service.telemetry.events import SOURCE, STATE, WORKERS, Events, Phase, Sweep, Unit
from service.telemetry.fidelity_steps import FidelityStep, FidelitySteps
from service.telemetry.totals import FEWEST_WINDOWS, Sums, totals_of

#: Upper bounds of the histogram of durations, in seconds.
BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

#: The last hour is kept in intervals of this length.
MOMENT_S = 10
_MOST_MOMENTS = 3600 // MOMENT_S

#: The next window may have been due for this long, or for so many windows, before the service counts as behind.
_LAG_LIMIT_S = 60.0
_LAG_LIMIT_WINDOWS = 6

#: Between two signs of life, the release loop may query each hour of a run of windows this often, and take this long for the rest. A query
#: that exceeds INFLUX_QUERY_TIMEOUT is itself a sign of life. A loop that is silent for longer counts as hanging.
_QUERIES_PER_HOUR = 3
_IDLE_LIMIT_S = 120.0


@dataclass(slots=True)
class _OutputNotes:
    """The state of an output, as known from events."""

    kind: str
    retries: int = 0
    trouble: Trouble | None = None
    last_error: Trouble | None = None
    has_ended: bool = False


@dataclass(frozen=True, slots=True)
class _Figures:
    """Figures from the journal: each output's position, the size of the spool, and bounds of the rows released in this run by then.

    A release may be recorded while the journal is read, so the journal may be ahead of the board by one release.
    """

    positions: Mapping[str, OutputPosition] = field(default_factory=dict)
    spool_bytes: int = 0
    fewest_released: int = 0
    most_released: int = 0

    def unaccounted(self, position: OutputPosition, rows_at_start: int) -> int:
        """Return how many rows released in this run are neither taken nor refused nor pending at an output."""
        known = _rows(position) - rows_at_start
        return max(self.fewest_released - known, 0) + min(self.most_released - known, 0)


class LevelSteps:
    """Rows by level, in sums that change only once twelve more windows are complete.

    The levels of one window reveal more of its values than its release does (documentation/PRIVACY.md). A reader who polls a sum could
    subtract, so the sum moves in steps of that many windows.
    """

    def __init__(self) -> None:
        self._shown = np.zeros(SUPPRESSED_LEVEL + 1, dtype=np.int64)
        self._waiting = self._shown.copy()
        self._windows = self._windows_waiting = 0

    @property
    def shown(self) -> Levels:
        """The sums as of the last step."""
        return Levels(tuple(int(rows) for rows in self._shown[1:]), self._windows)

    def add(self, unit: Unit) -> None:
        """Add a unit's windows; withheld and empty ones do not count."""
        self._waiting = self._waiting + unit.rows_at_level
        self._windows_waiting += sum(result.has_batch for result in unit.results)
        if self._windows_waiting >= FEWEST_WINDOWS:
            self._shown = self._shown + self._waiting
            self._windows += self._windows_waiting
            self._waiting = np.zeros_like(self._waiting)
            self._windows_waiting = 0


class Board(Events):
    """Listens to a run and returns snapshots of it. Safe to use from several threads.

    Args:
        settings: Supplies limits and lengths.
        clock: The service's clock.
        sums: The totals of the run.
    """

    def __init__(self, settings: Settings, clock: Clock, sums: Sums) -> None:
        self._clock = clock
        self._is_stream = settings.streaming_mode
        self._cohort = cohort_of(settings)
        self._has_groups = settings.method != "rhythm"
        self._length_ns = settings.batch_size_seconds * NANOSECONDS
        self._lateness_ns = settings.allowed_lateness_seconds * NANOSECONDS
        self._lag_limit_s = max(_LAG_LIMIT_S, _LAG_LIMIT_WINDOWS * settings.batch_size_seconds)
        hours = 1 + math.ceil(MOST_WINDOWS * self._length_ns / HOUR_NS)
        self._idle_limit_s = _IDLE_LIMIT_S + _QUERIES_PER_HOUR * hours * settings.influx_query_timeout
        self._spool_limit_bytes = settings.spool_max_bytes
        self._lock = threading.RLock()
        self._sums = sums
        self._levels = LevelSteps()
        self._fidelity_steps = FidelitySteps()
        self._fidelity: FidelityStep | None = None
        self._phase: Phase = "connecting"
        self._started_ns = clock.now_ns()
        self._windows_in_all: int | None = None
        self._up_to_ns: int | None = None
        self._alive_until_s = clock.monotonic_s()
        self._troubles: dict[str, Trouble] = {}
        self._retries = {SOURCE: 0, STATE: 0, WORKERS: 0}
        self._reading_pauses = False
        self._workers: int | None = None
        self._removed = Sweep()
        self._within, self._timed, self._timed_s = [0] * len(BUCKETS_S), 0, 0.0
        self._moments: deque[Moment] = deque(maxlen=_MOST_MOMENTS)
        self._notes: dict[str, _OutputNotes] = {}
        self._positions: OutputPositions | None = None
        self._figures = JournalReader(self._read_journal, _Figures())
        self._rows_at_start: dict[str, int] = {}
        self._rows_released = self._rows_in_flight = 0

    def expect(self, outputs: Sequence[Output]) -> None:
        """Set the outputs, so that each is shown from the start."""
        with self._lock:
            self._notes = {output.name: _OutputNotes(output.kind) for output in outputs}

    def plan(self, windows_in_all: int | None) -> None:
        """Set the number of windows of the run; None for a run without an end."""
        with self._lock:
            self._windows_in_all = windows_in_all

    def watch(self, positions: OutputPositions) -> None:
        """Read the journal from now on. It must already have every output, and this run must not have released anything.

        Raises:
            StateUnavailable: It cannot be read now.
        """
        rows_at_start = {one.name: _rows(one) for one in positions.positions()}
        with self._lock:
            self._rows_at_start = rows_at_start
            self._positions = positions

    def unwatch(self) -> None:
        """Read the journal for the last time, before it is closed."""
        self._figures.latest()
        self._positions = None

    def look(self) -> Snapshot:
        """Return a snapshot. Does not wait for a busy journal, and does not block events."""
        figures = self._figures.latest()
        with self._lock:
            self._note_lag()
            return Snapshot(
                now_ns=self._clock.now_ns(),
                run=Run(
                    self._started_ns,
                    self._phase_now(),
                    self._is_stream,
                    self._windows_in_all,
                    self._up_to_ns,
                    self._cohort,
                    self._has_groups,
                ),
                pace=Pace(self._lag_s(), self._lag_limit_s, self._idle_s(), self._idle_limit_s),
                source=self._dependency(SOURCE),
                state=self._dependency(STATE),
                spool=SpoolState(figures.spool_bytes, self._spool_limit_bytes, self._reading_pauses),
                totals=self._sums.totals,
                levels=self._levels.shown,
                fidelity=self._fidelity,
                durations=Durations(tuple(self._within), self._timed, self._timed_s),
                outputs=tuple(self._output(name, note, figures) for name, note in self._notes.items()),
                moments=tuple(self._moments),
                workers=self._workers,
                workforce=self._dependency(WORKERS),
                removed=self._removed,
            )

    # Events

    def phase(self, phase: Phase) -> None:
        """Record the phase of the run."""
        with self._lock:
            self._phase = phase
            self._alive_until_s = self._clock.monotonic_s()

    def reached(self, up_to_ns: int) -> None:
        """Record that the loop is alive, and its position."""
        with self._lock:
            self._alive_until_s = self._clock.monotonic_s()
            self._up_to_ns = up_to_ns
            self._note_lag()

    def workers(self, count: int) -> None:
        """Remember how many there are."""
        with self._lock:
            self._workers = count

    def waits(self, who: str, reason: Exception, seconds: float) -> None:
        """Record since when and why; a loop in an announced wait is alive."""
        with self._lock:
            now_ns = self._clock.now_ns()
            note = self._notes.get(who)
            if note is not None:
                note.retries += 1
                note.trouble = Trouble(note.trouble.since_ns if note.trouble else now_ns, str(reason))
                note.last_error = Trouble(now_ns, str(reason))
                return
            since_ns = self._troubles[who].since_ns if who in self._troubles else now_ns
            self._troubles[who] = Trouble(since_ns, str(reason))
            self._retries[who] = self._retries.get(who, 0) + 1
            self._alive_until_s = self._clock.monotonic_s() + seconds

    def recovered(self, who: str) -> None:
        """Clear the trouble."""
        with self._lock:
            self._troubles.pop(who, None)
            if who in self._notes:
                self._notes[who].trouble = None

    def gave_up(self, output: Output, reason: Exception) -> None:
        """Record that the service stopped writing to the output."""
        with self._lock:
            note, now_ns = self._notes[output.name], self._clock.now_ns()
            note.has_ended = True
            note.trouble = note.last_error = Trouble(now_ns, str(reason))

    def rejected(self, output: Output, batch: object, rows: int, reason: Exception) -> None:
        """Record the reason; the journal has the rows."""
        with self._lock:
            if output.name in self._notes:
                self._notes[output.name].last_error = Trouble(self._clock.now_ns(), str(reason))

    def reading_pauses(self, waiting_bytes: int, most_bytes: int) -> None:
        """Mark reading as paused."""
        self._reading_pauses = True

    def reading_resumes(self) -> None:
        """Mark reading as resumed."""
        self._reading_pauses = False

    def nothing_in(self, windows: WindowRange) -> None:
        """Note empty windows."""
        with self._lock:
            self._note(windows_empty=len(windows))

    def expired(self, windows: WindowRange) -> None:
        """Note expired windows as empty."""
        with self._lock:
            self._note(windows_empty=len(windows))

    def anonymized(self, unit: Unit) -> None:
        """Note a unit's windows and rows by outcome."""
        with self._lock:
            totals = totals_of(unit)
            self._note(
                windows_released=totals.released_windows,
                windows_withheld=totals.withheld_windows,
                windows_empty=totals.empty_windows,
                rows_read=totals.counts.without_excluded().read,
                rows_withheld=totals.counts.withheld,
                rows_contradictory=totals.contradictory,
                rows_noisy=totals.noisy,
            )
            self._levels.add(unit)
            self._fidelity = self._fidelity_steps.add(unit) or self._fidelity

    def late(self, *, rows: int, windows: int, of_rows: int, sufficient_lateness_s: int) -> None:
        """Note late rows."""
        with self._lock:
            self._note(rows_late=rows)

    def took(self, seconds: float, rows: int, windows: int = 1) -> None:
        """Add the windows to the histogram, each with an equal share of the time."""
        with self._lock:
            each_s = seconds / windows
            self._timed += windows
            self._timed_s += seconds
            for index, bound_s in enumerate(BUCKETS_S):
                self._within[index] += windows if each_s <= bound_s else 0

    def swept(self, sweep: Sweep) -> None:
        """Add what was removed."""
        with self._lock:
            self._removed = self._removed.followed_by(sweep)

    def releasing(self, rows: int) -> None:
        """Record that the journal may already have these rows."""
        with self._lock:
            self._rows_in_flight = rows

    def released(self, rows: int) -> None:
        """Record that the journal has them."""
        with self._lock:
            self._rows_released += rows
            self._rows_in_flight = 0

    # What is shown

    def _phase_now(self) -> Phase:
        return "stopping" if self._clock.is_stopping() else self._phase

    def _dependency(self, who: str) -> Dependency:
        return Dependency(self._troubles.get(who), self._retries[who])

    def _idle_s(self) -> float:
        return max(0.0, self._clock.monotonic_s() - self._alive_until_s) if self._phase == "working" else 0.0

    def _lag_s(self) -> float:
        if not self._is_stream or self._up_to_ns is None:
            return 0.0
        due_ns = self._up_to_ns + self._length_ns + self._lateness_ns
        return max(0.0, (self._clock.now_ns() - due_ns) / NANOSECONDS)

    def _note_lag(self) -> None:
        lag_s = self._lag_s()
        if lag_s or self._moments:
            self._change(lambda moment: dataclasses.replace(moment, lag_s=max(moment.lag_s, lag_s)))

    def _note(self, **more: int) -> None:
        self._change(
            lambda moment: dataclasses.replace(moment, **{name: getattr(moment, name) + by for name, by in more.items()})
        )

    def _change(self, changed: Callable[[Moment], Moment]) -> None:
        step_ns = MOMENT_S * NANOSECONDS
        start_ns = self._clock.now_ns() // step_ns * step_ns
        if not self._moments or self._moments[-1].start_ns < start_ns:
            self._moments.append(Moment(start_ns))
        self._moments[-1] = changed(self._moments[-1])

    def _read_journal(self) -> _Figures:
        """Return the current figures of the journal. Reading may take long, so it does not hold the lock."""
        with self._lock:
            watched, fewest = self._positions, self._rows_released
        if watched is None:
            return self._figures.last
        positions = {one.name: one for one in watched.positions()}
        spool_bytes = watched.spooled().size_bytes
        with self._lock:
            return _Figures(positions, spool_bytes, fewest, self._rows_released + self._rows_in_flight)

    def _output(self, name: str, note: _OutputNotes, figures: _Figures) -> OutputState:
        known = figures.positions.get(name)
        one = known or OutputPosition(name, 0, 0, 0, 0, 0)
        return OutputState(
            name=name,
            kind=note.kind,
            position=one.position,
            taken=one.taken,
            set_aside=one.set_aside,
            pending=one.pending,
            unaccounted=figures.unaccounted(one, self._rows_at_start.get(name, 0)) if known else 0,
            retries=note.retries,
            trouble=note.trouble,
            last_error=note.last_error,
            has_ended=note.has_ended,
        )


def _rows(position: OutputPosition) -> int:
    return position.taken + position.set_aside + position.pending
