"""The journal: which time intervals were released, under which promise, and which output has taken what.

Every call is on disk before it returns, so that a release recorded here survives any crash. The fence beside it (`service/state/fence.py`)
reveals an old or damaged copy of the journal before the service can release anything twice.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from anonymizer.batch import Promise, WindowCounts
from anonymizer.errors import JournalDamaged, StateUnavailable
from anonymizer.windows import HOUR_NS, Window, WindowRange
from disk.durable_file import make_folder
from service.state.data_set_parts import DataSetParts
from service.state.epochs import Epochs
from service.state.erasures import Erasures
from service.state.exclusions import Exclusions
from service.state.facts import EarlierVersion, Facts
from service.state.fence import Fence, Fenced
from service.state.intervals import IntervalSet, merged, missing
from service.state.journal_file import WAY_ON, JournalFile
from service.state.late_rows import NEVER_AGAIN, LateRows
from service.state.output_positions import GIVEN_UP, LOST_CHUNK, OutputPositions
from service.state.removals import Removals

_STREAM = "streaming"

_COUNTS = tuple(field.name for field in dataclasses.fields(WindowCounts))

_INTERVAL_COLUMNS = f"start_ns, end_ns, chunk, epoch, released_ns, windows, recounts, late, {', '.join(_COUNTS)}"

_INSERT_INTERVAL = f"INSERT INTO intervals ({_INTERVAL_COLUMNS}) VALUES ({', '.join('?' * (8 + len(_COUNTS)))})"

#: Intervals i that overlap [:start, :end).
_OVERLAPS = (
    "i.start_ns < :end AND i.start_ns >= coalesce((SELECT max(start_ns) FROM intervals WHERE start_ns <= :start), :start) "
    "AND i.end_ns > :start"
)

#: How many entries one transaction examines when merging neighbours.
_MERGED_AT_ONCE = 10_000

#: Entries of different days of release are not merged, so that the journal tells each day's age.
_DAY_OF_RELEASE = f"released_ns / {24 * HOUR_NS}"


@dataclass(frozen=True, slots=True)
class Release:
    """One released window, as recorded in the journal."""

    window: Window
    counts: WindowCounts


@dataclass(frozen=True, slots=True)
class Released:
    """A released interval and its promise; None for an accepted gap."""

    interval: Window
    promise: Promise | None


@dataclass(frozen=True, slots=True)
class Entry:
    """The journal's entry for a released interval: one window, or many old ones merged.

    Args:
        interval: The interval.
        chunk: The chunk it was released in; the last one, if merged.
        promise: The promise it was released under; None for an accepted gap, of which nothing is known.
        window_ns: Length of its windows; None for such a gap.
        windows: How many windows it covers.
        counts: The sums over its windows.
        late: Rows known to have arrived after the release.
        erased: Rows that were read and taken back by an erasure; the counts do not include them.
        released_ns: When it was released; the last of its windows, if merged.
        is_comparable: Whether a new count can be compared with the rows read, because the same sources are read.
    """

    interval: Window
    chunk: int
    promise: Promise | None
    window_ns: int | None
    windows: int
    counts: WindowCounts
    late: int
    is_comparable: bool = True
    erased: int = 0
    released_ns: int = 0

    @property
    def rows_read(self) -> int:
        """How many rows were read at the release, with those erased since."""
        return self.counts.read + self.erased


class Journal:
    """The release record of one data set; `outputs` records what each output has taken. Safe to use from several threads.

    Args:
        folder: STATE_DIR; created if missing.
        data_set: The data set it belongs to; None for a tool that does not check this.
        address: The data set's name by server address, for a token that cannot read the bucket's id; empty if there is none.
        accepting_gap: Whether to mark every interval that only the fence lists as released, so that it is never released again.
        earlier_version: Returns the earlier version of a file that a function recognises by its digest; None if rows were not just
            appended to that version.
        copied: For a copy made while another process used the original: the fence before and after the journal was copied. Without it,
            the fence in the folder is read and updated.
        is_erasing: Whether it is opened to go on with an open erasure; everything else is refused meanwhile.

    Raises:
        JournalDamaged: It cannot be read, is older than its fence, or belongs to another data set. The message says what to do.
        StateUnavailable: The disk cannot be used now, or another process holds the file.
    """

    def __init__(
        self,
        folder: Path,
        *,
        data_set: str | None,
        address: str = "",
        accepting_gap: bool = False,
        earlier_version: EarlierVersion | None = None,
        copied: tuple[Fenced, Fenced] | None = None,
        is_erasing: bool = False,
    ) -> None:
        try:
            make_folder(folder)
        except OSError as error:
            raise StateUnavailable(f"STATE_DIR {folder} cannot be made ({error.strerror})") from None
        #: Called after each release, before an output is offered it; may raise StateUnavailable.
        self.after_fence: Callable[[], None] = lambda: None
        self._fence = Fence(folder / "fence")
        self._file = JournalFile(folder / "journal.sqlite", is_copy=copied is not None)
        self.facts = Facts(self._file)
        self.epochs = Epochs(self._file)
        self.parts = DataSetParts(self._file, self.facts)
        self.late_rows = LateRows(self._file)
        self.outputs = OutputPositions(self._file)
        self.exclusions = Exclusions(self._file)
        self.erasures = Erasures(self._file)
        self.removals = Removals(self._file)
        try:
            self.facts.check_data_set(data_set, address, earlier_version)
            self._known = self._read_intervals()
            self._unfenced: list[Window] = []
            if copied is not None:
                self._refuse_if_older(copied[0])
                self._refuse_if_beyond(copied[1])
            else:
                self._check_fence(accepting_gap=accepting_gap)
                if not is_erasing:
                    self.erasures.refuse_open_one()
        except BaseException:
            self._file.close()
            raise

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    # What was released

    def released_within(self, windows: WindowRange) -> list[Released]:
        """Return every released interval that overlaps the windows, in order."""
        rows = self._file.rows(
            "SELECT i.start_ns, i.end_ns, e.promise FROM intervals i LEFT JOIN epochs e ON e.epoch = i.epoch "
            f"WHERE {_OVERLAPS} ORDER BY i.start_ns",
            {"start": windows.start_ns, "end": windows.end_ns},
        )
        return [Released(Window(start, end), self.epochs.promise(promise)) for start, end, promise in rows]

    def is_accepted(self, span: Window) -> bool:
        """Return whether accept-gap marked any interval as released that overlaps the span."""
        return any(entry.promise is None for entry in self.entries_within(span))

    def entries_within(self, span: Window) -> list[Entry]:
        """Return the entries of all released intervals that overlap the span, in order."""
        rows = self._file.rows(
            f"SELECT i.start_ns, i.end_ns, i.chunk, e.promise, e.window_ns, i.windows, i.late, "
            f"i.recounts < {NEVER_AGAIN}, i.erased, i.released_ns, {', '.join(_COUNTS)} FROM intervals i "
            f"LEFT JOIN epochs e ON e.epoch = i.epoch WHERE {_OVERLAPS} ORDER BY i.start_ns",
            {"start": span.start_ns, "end": span.end_ns},
        )
        return [
            Entry(
                Window(start, end),
                chunk,
                self.epochs.promise(promise),
                window_ns,
                windows,
                WindowCounts(*counts),
                late,
                bool(comparable),
                erased,
                released_ns,
            )
            for start, end, chunk, promise, window_ns, windows, late, comparable, erased, released_ns, *counts in rows
        ]

    def record_release(
        self,
        releases: Sequence[Release],
        *,
        chunk: int,
        size_bytes: int,
        now_ns: int,
        stream_to_ns: int | None,
        spool_name: str = "",
    ) -> None:
        """Record these windows as released, permanently. They may be offered to outputs only after `raise_fence`.

        Args:
            releases: The windows and their counts.
            chunk: The number of the spool file with their batches.
            size_bytes: The size of the spool file.
            now_ns: The time.
            stream_to_ns: The stream's new position; None in a one-shot run.
            spool_name: A worker's name for the spool file; empty: the file is named after its number.
        """
        rows = sum(release.counts.released for release in releases)
        with self._file.transaction() as db:
            epoch = db.execute("SELECT coalesce(max(epoch), 0) FROM epochs").fetchone()[0]
            self.outputs.record_chunk(db, chunk, size_bytes=size_bytes, rows=rows, spool_name=spool_name)
            db.executemany(
                _INSERT_INTERVAL,
                (
                    (one.window.start_ns, one.window.end_ns, chunk, epoch, now_ns, 1, 0, 0, *one.counts.numbers())
                    for one in releases
                ),
            )
            if stream_to_ns is not None:
                db.execute("INSERT OR REPLACE INTO positions VALUES (?, ?)", (_STREAM, stream_to_ns))
        for release in releases:
            self._known.add(release.window)
            self._unfenced.append(release.window)

    def raise_fence(self) -> None:
        """Write the latest releases to the fence, then allow them to be offered to outputs.

        Raises:
            StateUnavailable: It cannot be written now.
        """
        if self._unfenced:
            with self._fence_on_disk():
                self._fence.add(merged(sorted(self._unfenced)), self._known)
            self._unfenced.clear()
        self.after_fence()
        self.outputs.offer_up_to(self.outputs.next_chunk() - 1)

    def released_intervals(self) -> list[Window]:
        """Return all released intervals, neighbours merged, in order."""
        return list(self._known)

    def totals(self) -> WindowCounts:
        """Return the sums over all released windows."""
        columns = ", ".join(f"coalesce(sum({name}), 0)" for name in _COUNTS)
        return WindowCounts(*self._file.rows(f"SELECT {columns} FROM intervals")[0])

    def accept_gap(self, intervals: Sequence[Window]) -> list[Window]:
        """Mark intervals as released, so that they are never released again; return those that the journal did not know."""
        unknown = self._known.missing(merged(sorted(intervals)))
        with self._file.transaction() as db:
            db.executemany(
                _INSERT_INTERVAL,
                ((gap.start_ns, gap.end_ns, 0, 0, 0, 0, NEVER_AGAIN, 0, *(0 for _ in _COUNTS)) for gap in unknown),
            )
            if unknown:
                # An output file may contain that release, beyond the length that this journal records.
                db.execute("UPDATE receipts SET receipt = json_set(receipt, '$.may_have_grown', json('true'))")
        for gap in unknown:
            self._known.add(gap)
        with self._fence_on_disk():
            self._fence.replace(self._known)
        self._unfenced.clear()
        return unknown

    def merge_before(self, time_ns: int, *, recounts: int) -> int:
        """Merge neighbouring entries that every output has taken, that end before `time_ns`, and that need no more recounts.

        Entries are not merged across the first chunk of an output, nor with lost chunks: the journal must still show which output should
        have which rows; nor across days of release.

        Args:
            time_ns: Nanoseconds since the epoch.
            recounts: How often an interval is counted again.

        Returns:
            By how many entries the journal shrank.
        """
        fewer, from_ns = 0, -(1 << 63)
        while True:
            # In bounded steps, so that outputs can record receipts in between.
            last_ns = self._file.value(
                "SELECT max(start_ns) FROM (SELECT start_ns FROM intervals WHERE start_ns >= ? AND start_ns < ? ORDER BY start_ns LIMIT ?)",
                from_ns,
                time_ns,
                _MERGED_AT_ONCE,
            )
            if last_ns is None or last_ns == from_ns:
                self.removals.merge_before(time_ns)
                return fewer
            fewer += self._merge_between(from_ns, last_ns, before_ns=time_ns, recounts=recounts)
            # The last entry may now be part of one that extends further.
            from_ns = self._file.value("SELECT max(start_ns) FROM intervals WHERE start_ns <= ?", last_ns)

    def _merge_between(self, first_ns: int, last_ns: int, *, before_ns: int, recounts: int) -> int:
        """Merge entries that start from `first_ns` to `last_ns`; return by how many their number fell."""
        sums = ", ".join(f"sum({name})" for name in ("erased", "windows", "late", *_COUNTS))
        mergeable = (
            "SELECT *, (SELECT count(*) FROM outputs o WHERE o.since < i.chunk) AS outputs_then FROM intervals i "
            "WHERE start_ns BETWEEN :first AND :last AND end_ns <= :before "
            "AND recounts >= :recounts AND epoch > 0 AND NOT EXISTS (SELECT 1 FROM chunks c WHERE c.chunk = i.chunk) "
            f"AND '{LOST_CHUNK}' || chunk NOT IN ({GIVEN_UP})"
        )
        continues_previous = " AND ".join(
            f"{here} IS lag({there}) OVER (ORDER BY start_ns)"
            for here, there in (
                ("start_ns", "end_ns"),
                ("epoch", "epoch"),
                ("outputs_then", "outputs_then"),
                (_DAY_OF_RELEASE, _DAY_OF_RELEASE),
            )
        )
        run = (
            "SELECT *, sum(is_first) OVER (ORDER BY start_ns) AS run FROM "
            f"(SELECT *, NOT ({continues_previous}) AS is_first FROM ({mergeable}))"
        )
        with self._file.transaction() as db:
            made = db.execute(
                f"SELECT min(start_ns), max(end_ns), max(chunk), epoch, max(released_ns), min(recounts), {sums} FROM ({run}) "
                "GROUP BY run, epoch HAVING count(*) > 1",
                {"first": first_ns, "last": last_ns, "before": before_ns, "recounts": recounts},
            ).fetchall()
            fewer = 0
            for start, end, chunk, epoch, released_ns, counted, erased, windows, late, *counts in made:
                fewer += db.execute("DELETE FROM intervals WHERE start_ns >= ? AND start_ns < ?", (start, end)).rowcount - 1
                db.execute(_INSERT_INTERVAL, (start, end, chunk, epoch, released_ns, windows, counted, late, *counts))
                if erased:
                    db.execute("UPDATE intervals SET erased = ? WHERE start_ns = ?", (erased, start))
        return fewer

    # The stream's position

    def stream_position_ns(self) -> int | None:
        """Return where the stream continues; None if there never was one."""
        position_ns: int | None = self._file.value("SELECT position_ns FROM positions WHERE stream = ?", _STREAM)
        return position_ns

    def move_stream(self, position_ns: int) -> None:
        """Record that the stream has passed windows without releasing them. A one-shot run can still release them."""
        with self._file.transaction() as db:
            db.execute("INSERT OR REPLACE INTO positions VALUES (?, ?)", (_STREAM, position_ns))

    def _check_fence(self, *, accepting_gap: bool) -> None:
        """Check that journal and fence agree; add the last release if the fence lacks it, as after a crash."""
        fenced = self._fence.read()
        beyond = self._known_beyond(fenced)
        # A partial line is a release that no output was offered: it can be released safely, so accept-gap may skip it.
        if fenced.unread and not fenced.is_explained_by(beyond) and not (accepting_gap and fenced.is_cut):
            raise JournalDamaged(
                f"{self._file.path} is older than {self._fence.path}, or the latter is damaged: its last line cannot be read, and does not "
                "belong to the journal's last release. Put good copies of both in their place. Without them only the output bucket shows "
                "what was released last: set INFLUX_VERIFY_TOKEN, move the fence away, and run scripts/state.py accept-gap"
            )
        if accepting_gap:
            self.accept_gap(fenced.intervals)
        else:
            self._refuse_if_older(fenced)
            self._refuse_if_beyond(fenced)
            if beyond or not fenced.is_current:
                with self._fence_on_disk():
                    self._fence.replace(self._known)
        self.outputs.offer_up_to(self.outputs.next_chunk() - 1)

    def _refuse_if_older(self, fenced: Fenced) -> None:
        unknown = self._known.missing(fenced.intervals)
        if unknown:
            raise JournalDamaged(
                f"{self._file.path} is older than {self._fence.path}: {len(unknown)} released intervals are missing from it. {WAY_ON}"
            )

    def _refuse_if_beyond(self, fenced: Fenced) -> None:
        last = self._file.rows(
            "SELECT start_ns, end_ns FROM intervals WHERE chunk = (SELECT max(chunk) FROM intervals) ORDER BY start_ns"
        )
        beyond = missing(self._known_beyond(fenced), merged(Window(*row) for row in last))
        if beyond:
            raise JournalDamaged(
                f"{self._file.path} lists {len(beyond)} released intervals that {self._fence.path} does not: one of the two is an old or "
                "damaged copy. Put good copies of both in their place; or run: scripts/state.py accept-gap, which marks every interval in "
                "either of them as released, so that none is released twice"
            )

    def _known_beyond(self, fenced: Fenced) -> list[Window]:
        return missing(list(self._known), fenced.intervals)

    @contextmanager
    def _fence_on_disk(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StateUnavailable(f"{self._fence.path} cannot be written now ({error.strerror or error})") from None

    def _read_intervals(self) -> IntervalSet:
        try:
            return IntervalSet(
                Window(*row) for row in self._file.rows("SELECT start_ns, end_ns FROM intervals ORDER BY start_ns")
            )
        except ValueError as error:
            raise JournalDamaged(f"{self._file.path} is damaged ({error}). {WAY_ON}") from None
