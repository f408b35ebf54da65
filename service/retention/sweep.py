"""Sweeps: at the end of a one-shot run, and in a stream every hour in a thread of its own, also while source or outputs are down.

A wrong clock must not remove what is young: a time that is far beyond the last one on record is believed only after the clock was seen
to go on from there for a day.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import islice

from anonymizer.errors import JournalDamaged, OutputUnavailable, StateUnavailable
from anonymizer.windows import HOUR_NS
from service import crash_points
from service.clock import Clock
from service.log_event import LogEvent
from service.retention.places import Left, Place, SetAsidePlace
from service.state.journal import Journal
from service.state.removals import HeldFile, SeenClock
from service.state.trail import REMOVED, Trail
from service.telemetry.events import Sweep
from service.telemetry.hub import Telemetry
from service.time_texts import date_and_time

_DAY_NS = 24 * HOUR_NS

#: How long a stream waits between two sweeps.
EVERY_S = 3600.0

#: How many files are removed between two entries in the journal.
_FILES_AT_A_TIME = 256

#: A clock may have gone on by so many days, or this share of the term, since it was last believed.
_LEAST_STEP_DAYS = 2
_STEP_SHARE = 4

#: A thread that waits for a disk or a store is left behind after so long.
_END_S = 2.0

#: So many names are logged per sweep and place.
_MOST_NAMED = 3

_REMOVED = LogEvent("retention_removed", "🧹 RETENTION_DAYS=%d: removed %d %s, %d rows", "days files what rows", logging.INFO)
_SET_ASIDE_REMOVED = LogEvent(
    "retention_removed_set_aside",
    "⚠️ RETENTION_DAYS=%d: %d rows in %d batches that were set aside were removed; %s will never get them",
    "days rows batches output",
    logging.WARNING,
)
_SET_ASIDE_DUE = LogEvent(
    "retention_set_aside_due",
    "⚠️ RETENTION_DAYS=%d: within a day, %d rows in %d batches that were set aside are removed; if %s is to get them, fix what it refused "
    "and run scripts/state.py retry-set-aside",
    "days rows batches output",
    logging.WARNING,
)
_KEPT = LogEvent(
    "retention_kept", "⚠️ RETENTION_DAYS=%d: %s is old enough, but is not removed: it %s", "days file reason", logging.WARNING
)
_KEPT_MORE = LogEvent(
    "retention_kept_more",
    "⚠️ RETENTION_DAYS=%d: %d more %s are old enough, but are not removed, for such reasons",
    "days files what",
    logging.WARNING,
)
_OTHERS = LogEvent(
    "retention_others",
    "⚠️ RETENTION_DAYS=%d: %d other old files lie beside the %s, which this service did not write or does not know any more; they stay. "
    "If they hold ECG, remove them by hand",
    "days files what",
    logging.WARNING,
)
_CLOCK_DOUBTED = LogEvent(
    "retention_clock_doubted",
    "⚠️ RETENTION_DAYS=%d: the clock says %s, the last time on record is %s. Until it has gone on from there for a day, only what is old "
    "by the earlier time is removed. If the clock is wrong, set it",
    "days now last",
    logging.WARNING,
)
_POSTPONED = LogEvent(
    "retention_postponed", "⚠️ RETENTION_DAYS=%d: removing old %s is postponed: %s", "days what reason", logging.WARNING
)
_FINISHED = LogEvent("retention_finished", "🧹 A removal of %d files was interrupted and is finished", "files", logging.INFO)


class Retention:
    """Removes what is older than a term.

    Args:
        days: RETENTION_DAYS; None: nothing is removed.
        places: What to remove from.
        journal: Knows what was released, and records what is removed.
        clock: The service's clock.
        telemetry: Is told of each sweep.
        is_stream: Whether windows are released meanwhile.
        trail: Returns the audit log, if there is one.
    """

    def __init__(
        self,
        days: int | None,
        places: Sequence[Place],
        journal: Journal,
        clock: Clock,
        telemetry: Telemetry,
        *,
        is_stream: bool,
        trail: Callable[[], Trail | None],
    ) -> None:
        self._days = days
        self._places = {place.name: place for place in places}
        self._journal = journal
        self._clock = clock
        self._telemetry = telemetry
        self._is_stream = is_stream
        self._trail = trail
        self._is_ending = threading.Event()
        self._thread: threading.Thread | None = None
        self._warned_ns = -_DAY_NS
        # Before this run releases anything: by a wrong clock, that would agree with it.
        self._last_release_ns = journal.removals.last_release_ns()

    def settle(self) -> None:
        """Finish what a crash interrupted: files that are gone were removed, the others are looked at again.

        Raises:
            StateUnavailable: The journal cannot be used now.
        """
        finished = 0
        for name, paths in self._journal.removals.begun().items():
            place = self._places.get(name)
            if place is None:
                # The output is turned off: its files are looked at once it is on again.
                continue
            try:
                left = [path for path in paths if place.is_there(path)]
            except OutputUnavailable:
                continue
            gone = sorted(set(paths) - set(left))
            self._journal.removals.finish(name, gone=gone, kept=left)
            finished += len(gone)
        if finished:
            _FINISHED.log(finished)
            self._tell({"state": "finished after an interruption", "files": finished})

    def start(self) -> None:
        """Sweep now, and every hour, in a thread."""
        if self._days is not None:
            self._thread = threading.Thread(target=self._run, name="retention", daemon=True)
            self._thread.start()

    def end(self) -> None:
        """Let the thread end after the file in hand."""
        self._is_ending.set()
        if self._thread is not None:
            self._thread.join(_END_S)

    def sweep(self) -> None:
        """Remove what is due from every place. Trouble with one place is logged, and does not keep the others from it."""
        if self._days is None or self._is_stopping():
            return
        self.settle()
        now_ns = self._believed_now_ns()
        before_ns = now_ns - self._days * _DAY_NS
        files, rows, kept, others = Counter[str](), 0, 0, 0
        for place in self._places.values():
            try:
                self._warn_of_set_aside(place, before_ns)
                found = self._clear(place, before_ns)
                files[place.what] += found[0]
                rows, kept, others = rows + found[1], kept + found[2], others + found[3]
            except (OutputUnavailable, StateUnavailable) as error:
                _POSTPONED.log(self._days, place.what, error)
            except OSError as error:
                _POSTPONED.log(self._days, place.what, error.strerror or error)
        if self._may_warn():
            self._warned_ns = self._clock.now_ns()
        self._telemetry.swept(Sweep(self._clock.now_ns(), dict(files), rows, kept, others))

    def _run(self) -> None:
        while not self._is_stopping():
            try:
                self.sweep()
            except Exception as error:  # noqa: BLE001  (a thread that died would leave everything as it is)
                is_ours = isinstance(error, StateUnavailable | JournalDamaged)
                if not self._is_stopping():
                    _POSTPONED.log(self._days, "files", error if is_ours else type(error).__name__)
            self._is_ending.wait(EVERY_S)

    def _may_warn(self) -> bool:
        """Return whether the last warnings are a day old."""
        return abs(self._clock.now_ns() - self._warned_ns) >= _DAY_NS

    def _is_stopping(self) -> bool:
        return self._is_ending.is_set() or self._clock.is_stopping()

    def _believed_now_ns(self) -> int:
        """Return the time, or an earlier one as long as the clock is in doubt."""
        assert self._days is not None, "asked by a sweep"
        seen, now_ns = self._journal.removals.clock(), self._clock.now_ns()
        last_ns = seen.trusted_ns or self._last_release_ns or now_ns
        step_ns = max(_LEAST_STEP_DAYS, self._days // _STEP_SHARE) * _DAY_NS
        if now_ns <= last_ns + step_ns or self._has_gone_on(seen, now_ns):
            self._journal.removals.remember_clock(SeenClock(max(now_ns, last_ns) if now_ns > last_ns - step_ns else last_ns))
            return now_ns
        doubted_ns = seen.doubted_ns if 0 < seen.doubted_ns <= now_ns else now_ns
        self._journal.removals.remember_clock(SeenClock(last_ns, doubted_ns))
        _CLOCK_DOUBTED.log(self._days, date_and_time(now_ns), date_and_time(last_ns))
        return min(now_ns, last_ns + step_ns)

    def _has_gone_on(self, seen: SeenClock, now_ns: int) -> bool:
        """Return whether a time in doubt was seen a day ago, and, in a stream, the source's clock agrees with it."""
        if not seen.doubted_ns or now_ns < seen.doubted_ns + _DAY_NS:
            return False
        # Windows fall due by the earlier of two clocks, ours and the server's.
        position_ns = self._journal.stream_position_ns() if self._is_stream else None
        return position_ns is None or position_ns >= seen.doubted_ns

    def _clear(self, place: Place, before_ns: int) -> tuple[int, int, int, int]:
        """Remove what is due from a place; return files, rows, files kept, and other files."""
        assert self._days is not None, "asked by a sweep"
        left: list[Left] = []
        files = rows = 0
        due = _only_due(place.due(before_ns), left)
        while not self._is_stopping() and (batch := list(islice(due, _FILES_AT_A_TIME))):
            if not files:
                self._tell({"state": "begun", "days": self._days, "what": place.what, "before": date_and_time(before_ns)})
            removed = self._remove(place, batch, left)
            files, rows = files + len(removed), rows + sum(one.rows for one in removed)
        if files:
            self._tell({"state": "ended", "days": self._days, "what": place.what, "files": files, "rows": rows})
            self._log_removed(place, files, rows)
        others = place.others(before_ns)
        self._log_left(place, left, others)
        return files, rows, len(left), others

    def _remove(self, place: Place, batch: Sequence[HeldFile], left: list[Left]) -> list[HeldFile]:
        removals = self._journal.removals
        removals.begin(place.name, batch)
        crash_points.reached(crash_points.REMOVAL_BEGUN)
        failed = place.remove(batch, after_each=lambda: crash_points.reached(crash_points.REMOVAL_HALFWAY))
        crash_points.reached(crash_points.REMOVAL_DONE)
        # A store may remove an object and lose its answer.
        kept = [path for path in failed if place.is_there(path)]
        gone = [file for file in batch if file.path not in kept]
        removals.finish(place.name, gone=[file.path for file in gone], kept=kept)
        left += [Left(path, f"cannot be removed ({failed[path]})") for path in kept]
        return gone

    def _log_removed(self, place: Place, files: int, rows: int) -> None:
        if isinstance(place, SetAsidePlace):
            _SET_ASIDE_REMOVED.log(self._days, rows, files, place.output)
        else:
            _REMOVED.log(self._days, files, place.what, rows)

    def _log_left(self, place: Place, left: Sequence[Left], others: int) -> None:
        """Log what is kept, once a day."""
        if not self._may_warn():
            return
        for one in left[:_MOST_NAMED]:
            _KEPT.log(self._days, one.name, one.reason)
        if len(left) > _MOST_NAMED:
            _KEPT_MORE.log(self._days, len(left) - _MOST_NAMED, place.what)
        if others:
            _OTHERS.log(self._days, others, place.what)

    def _warn_of_set_aside(self, place: Place, before_ns: int) -> None:
        """Warn, once a day, of rows that are lost to an output within a day."""
        if not isinstance(place, SetAsidePlace) or not self._may_warn():
            return
        soon = list(_only_due(place.due(before_ns + _DAY_NS), []))
        now = list(_only_due(place.due(before_ns), []))
        if len(soon) > len(now):
            rows = sum(one.rows for one in soon) - sum(one.rows for one in now)
            _SET_ASIDE_DUE.log(self._days, rows, len(soon) - len(now), place.output)

    def _tell(self, what: dict[str, object]) -> None:
        """Tell it in the audit log."""
        if (trail := self._trail()) is not None:
            trail.add(REMOVED, what)


def _only_due(found: Iterator[HeldFile | Left], left: list[Left]) -> Iterator[HeldFile]:
    """Yield what is due; put aside what is kept."""
    for one in found:
        if isinstance(one, Left):
            left.append(one)
        else:
            yield one
