"""The journal: which intervals of time were released, under which promise, and which output has taken what.

What it records as released stays released, whatever crashes next: every call is on disk before it returns. Beside it lies the fence
(`service/state/fence.py`), by which an old or damaged copy is recognised before it can make us release anything twice.
"""

from __future__ import annotations

import dataclasses
import json
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from anonymizer.batch import Promise, WindowCounts
from anonymizer.errors import JournalDamaged, StateUnavailable
from anonymizer.windows import Window, WindowRange
from disk.durable_file import make_folder
from service.state.fence import Fence, Fenced
from service.state.intervals import IntervalSet, merged, missing
from service.state.journal_file import WAY_ON, JournalFile
from service.state.output_positions import GIVEN_UP, LOST_CHUNK, OutputPositions
from service.time_texts import moment_text

_STREAM = "streaming"

_COUNTS = tuple(field.name for field in dataclasses.fields(WindowCounts))

_INTERVAL_COLUMNS = f"start_ns, end_ns, chunk, epoch, released_ns, windows, recounts, late, {', '.join(_COUNTS)}"

_INSERT_INTERVAL = f"INSERT INTO intervals ({_INTERVAL_COLUMNS}) VALUES ({', '.join('?' * (8 + len(_COUNTS)))})"

#: Intervals i that overlap [:start, :end).
_OVERLAPS = (
    "i.start_ns < :end AND i.start_ns >= coalesce((SELECT max(start_ns) FROM intervals WHERE start_ns <= :start), :start) "
    "AND i.end_ns > :start"
)

#: How many of a JSON list's delays have passed since the release.
_RECOUNTS_DUE = "(SELECT count(*) FROM json_each(?) AS delay WHERE released_ns + delay.value <= ?)"

#: How many entries one transaction examines when merging neighbours.
_MERGED_AT_ONCE = 10_000

#: A recount number that is never reached: marks intervals that are not counted again.
_NEVER_AGAIN = 1_000_000


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
        late: Rows known to have come after the release.
        is_comparable: Whether counting its windows now is comparable with what was read, because the same sources are read.
    """

    interval: Window
    chunk: int
    promise: Promise | None
    window_ns: int | None
    windows: int
    counts: WindowCounts
    late: int
    is_comparable: bool = True


@dataclass(frozen=True, slots=True)
class Epoch:
    """A period of releases under the same settings. A change of any of these begins the next epoch.

    Args:
        promise: The promise of its windows.
        window_ns: The length of its windows.
        selection: Digest of which sources and series are read.
    """

    promise: Promise
    window_ns: int
    selection: str = ""


@dataclass(frozen=True, slots=True)
class Recount:
    """A released window to count again in the source: rows read then, rows late since, number of recounts."""

    window: Window
    read: int
    late: int
    recounts: int


class Journal:
    """The release record of one data set; `outputs` records what each output has taken. Safe to use from several threads.

    Args:
        folder: STATE_DIR; made when it is not there.
        data_set: The data set it belongs to; None for a tool that does not check this.
        address: The data set's name by server address, for a token that cannot read the bucket's id; empty if there is none.
        accepting_gap: Mark everything the fence knows and the journal does not as released, so that it never will be.
        has_grown_from: Returns whether the data set is the recorded one with rows appended.
        copied: For a copy made while another process used the original: what its fence held before the journal was copied, and after.
            Without it the fence in the folder is read and updated.

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
        has_grown_from: Callable[[str], bool] | None = None,
        copied: tuple[Fenced, Fenced] | None = None,
    ) -> None:
        try:
            make_folder(folder)
        except OSError as error:
            raise StateUnavailable(f"STATE_DIR {folder} cannot be made ({error.strerror})") from None
        self._fence = Fence(folder / "fence")
        self._file = JournalFile(folder / "journal.sqlite")
        self.outputs = OutputPositions(self._file)
        try:
            self._check_data_set(data_set, address, has_grown_from)
            self._known = self._read_intervals()
            self._unfenced: list[Window] = []
            if copied is not None:
                self._refuse_if_older(copied[0])
                self._refuse_if_beyond(copied[1])
            else:
                self._check_fence(accepting_gap=accepting_gap)
        except BaseException:
            self._file.close()
            raise

    @property
    def name(self) -> str:
        """A random secret name of this journal; empty before it has a data set."""
        return str(self._facts().get("journal", ""))

    @property
    def data_set(self) -> str:
        """The data set's name at first use, which batch ids keep for good; empty before that."""
        return self._facts().get("data_set", "")

    @property
    def place(self) -> str:
        """Where STATE_DIR was when that was last remembered; empty before."""
        return self._facts().get("state_dir", "")

    @property
    def spool_address(self) -> str:
        """Where workers spool chunks, as it was last remembered; empty: in STATE_DIR."""
        return self._facts().get("spool_url", "")

    def remember_spool(self, address: str) -> None:
        """Remember where workers spool chunks."""
        if address != self.spool_address:
            with self._file.transaction() as db:
                db.execute("INSERT OR REPLACE INTO facts VALUES ('spool_url', ?)", (address,))

    def remember_place(self, place: str) -> None:
        """Remember where STATE_DIR is."""
        if place != self.place:
            with self._file.transaction() as db:
                db.execute("INSERT OR REPLACE INTO facts VALUES ('state_dir', ?)", (place,))

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
        return [Released(Window(start, end), self._promise(promise)) for start, end, promise in rows]

    def entries_within(self, span: Window) -> list[Entry]:
        """Return what is known of every released interval that overlaps the span, in order."""
        rows = self._file.rows(
            f"SELECT i.start_ns, i.end_ns, i.chunk, e.promise, e.window_ns, i.windows, i.late, "
            f"i.recounts < {_NEVER_AGAIN}, {', '.join(_COUNTS)} FROM intervals i "
            f"LEFT JOIN epochs e ON e.epoch = i.epoch WHERE {_OVERLAPS} ORDER BY i.start_ns",
            {"start": span.start_ns, "end": span.end_ns},
        )
        return [
            Entry(
                Window(start, end),
                chunk,
                self._promise(promise),
                window_ns,
                windows,
                WindowCounts(*counts),
                late,
                bool(comparable),
            )
            for start, end, chunk, promise, window_ns, windows, late, comparable, *counts in rows
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
        """Record these windows as released, for good. They may be offered to outputs only after `raise_fence`.

        Args:
            releases: The windows and their counts.
            chunk: The number their batches are spooled under.
            size_bytes: The size of the spool file.
            now_ns: When.
            stream_to_ns: Where the stream now is; None when a one-shot run releases.
            spool_name: What a worker called the spool file; empty: it is called after its number.
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
        """Write the latest releases to the fence; only then may outputs be offered them.

        Raises:
            StateUnavailable: It cannot be written now.
        """
        if self._unfenced:
            with self._fence_on_disk():
                self._fence.add(merged(sorted(self._unfenced)), self._known)
            self._unfenced.clear()
        self.outputs.offer_up_to(self.outputs.next_chunk() - 1)

    def released_intervals(self) -> list[Window]:
        """Return every released interval, neighbours merged, in order."""
        return list(self._known)

    def totals(self) -> WindowCounts:
        """Return the sums over everything that was released."""
        columns = ", ".join(f"coalesce(sum({name}), 0)" for name in _COUNTS)
        return WindowCounts(*self._file.rows(f"SELECT {columns} FROM intervals")[0])

    def late_rows(self) -> int:
        """Return how many rows are known to have come after their window was released."""
        return int(self._file.value("SELECT coalesce(sum(late), 0) FROM intervals"))

    def accept_gap(self, intervals: Sequence[Window]) -> list[Window]:
        """Mark intervals as released, so that they never will be; return those that were not known."""
        unknown = self._known.missing(merged(sorted(intervals)))
        with self._file.transaction() as db:
            db.executemany(
                _INSERT_INTERVAL,
                ((gap.start_ns, gap.end_ns, 0, 0, 0, 0, _NEVER_AGAIN, 0, *(0 for _ in _COUNTS)) for gap in unknown),
            )
            if unknown:
                # A release made there may be in a file beyond the length that this journal records.
                db.execute("UPDATE receipts SET receipt = json_set(receipt, '$.may_have_grown', json('true'))")
        for gap in unknown:
            self._known.add(gap)
        with self._fence_on_disk():
            self._fence.replace(self._known)
        self._unfenced.clear()
        return unknown

    def merge_before(self, time_ns: int, *, recounts: int) -> int:
        """Merge neighbouring entries that every output has taken, that end before `time_ns`, and that need no more recounts.

        Does not merge across the start of an output, nor with lost chunks: the journal must still tell which output should have which rows.

        Args:
            time_ns: Nanoseconds since the epoch.
            recounts: How often an interval is counted again.

        Returns:
            How many entries the journal has less.
        """
        fewer, from_ns = 0, -(1 << 63)
        while True:
            # A bounded number at a time, so that outputs can write records in between.
            last_ns = self._file.value(
                "SELECT max(start_ns) FROM (SELECT start_ns FROM intervals WHERE start_ns >= ? AND start_ns < ? ORDER BY start_ns LIMIT ?)",
                from_ns,
                time_ns,
                _MERGED_AT_ONCE,
            )
            if last_ns is None or last_ns == from_ns:
                return fewer
            fewer += self._merge_between(from_ns, last_ns, before_ns=time_ns, recounts=recounts)
            # The last entry may have been merged into one that goes on.
            from_ns = self._file.value("SELECT max(start_ns) FROM intervals WHERE start_ns <= ?", last_ns)

    def _merge_between(self, first_ns: int, last_ns: int, *, before_ns: int, recounts: int) -> int:
        """Merge entries that start from `first_ns` to `last_ns`; return how many fewer there are."""
        sums = ", ".join(f"sum({name})" for name in ("windows", "late", *_COUNTS))
        mergeable = (
            "SELECT *, (SELECT count(*) FROM outputs o WHERE o.since < i.chunk) AS outputs_then FROM intervals i "
            "WHERE start_ns BETWEEN :first AND :last AND end_ns <= :before "
            "AND recounts >= :recounts AND epoch > 0 AND NOT EXISTS (SELECT 1 FROM chunks c WHERE c.chunk = i.chunk) "
            f"AND '{LOST_CHUNK}' || chunk NOT IN ({GIVEN_UP})"
        )
        like_the_one_before = " AND ".join(
            f"{here} IS lag({there}) OVER (ORDER BY start_ns)"
            for here, there in (("start_ns", "end_ns"), ("epoch", "epoch"), ("outputs_then", "outputs_then"))
        )
        run = (
            "SELECT *, sum(is_first) OVER (ORDER BY start_ns) AS run FROM "
            f"(SELECT *, NOT ({like_the_one_before}) AS is_first FROM ({mergeable}))"
        )
        with self._file.transaction() as db:
            made = db.execute(
                f"SELECT min(start_ns), max(end_ns), max(chunk), epoch, max(released_ns), min(recounts), {sums} FROM ({run}) "
                "GROUP BY run, epoch HAVING count(*) > 1",
                {"first": first_ns, "last": last_ns, "before": before_ns, "recounts": recounts},
            ).fetchall()
            fewer = 0
            for start, end, chunk, epoch, released_ns, counted, windows, late, *counts in made:
                fewer += db.execute("DELETE FROM intervals WHERE start_ns >= ? AND start_ns < ?", (start, end)).rowcount - 1
                db.execute(_INSERT_INTERVAL, (start, end, chunk, epoch, released_ns, windows, counted, late, *counts))
        return fewer

    # What came late

    def due_for_recount(self, after_ns: Sequence[int], *, now_ns: int, most: int) -> list[Recount]:
        """Return windows to count again, in order of time. Merged entries are not counted again.

        Args:
            after_ns: How long after the release, ascending; one recount each.
            now_ns: The time.
            most: The most windows to return.
        """
        due = [
            Recount(Window(start, end), read, late, recounts)
            for done, delay_ns in enumerate(after_ns)
            for start, end, read, late, recounts in self._file.rows(
                "SELECT start_ns, end_ns, read, late, recounts FROM intervals WHERE recounts = ? AND released_ns <= ? "
                "AND windows = 1 ORDER BY released_ns, start_ns LIMIT ?",
                done,
                now_ns - delay_ns,
                most,
            )
        ]
        return sorted(due, key=lambda one: one.window)[:most]

    def record_recounts(self, recounts: Iterable[Recount], *, after_ns: Sequence[int], now_ns: int) -> None:
        """Record late rows for windows that were counted again. One count serves every recount that was due."""
        with self._file.transaction() as db:
            db.executemany(
                f"UPDATE intervals SET late = ?, recounts = max(recounts + 1, {_RECOUNTS_DUE}) WHERE start_ns = ?",
                ((one.late, json.dumps(list(after_ns)), now_ns, one.window.start_ns) for one in recounts),
            )

    def record_late(self, late: Mapping[int, int]) -> None:
        """Remember how many rows came late for released intervals, by their starts."""
        with self._file.transaction() as db:
            db.executemany(
                "UPDATE intervals SET late = ? WHERE start_ns = ?", ((rows, start_ns) for start_ns, rows in late.items())
            )

    # What a data set of files was made of

    def parts(self) -> dict[str, str]:
        """Return the files that were there at the last start, by path, and their states."""
        return dict(self._file.rows("SELECT path, state FROM parts"))

    def record_parts(self, parts: Mapping[str, str], *, gone: Collection[str]) -> None:
        """Remember what is there now, and forget what has gone."""
        known = self.parts()
        changed = [(path, state) for path, state in parts.items() if known.get(path) != state]
        if changed or gone:
            with self._file.transaction() as db:
                db.executemany("DELETE FROM parts WHERE path = ?", ((path,) for path in gone))
                db.executemany("INSERT OR REPLACE INTO parts VALUES (?, ?)", changed)

    # Where the stream is

    def stream_position_ns(self) -> int | None:
        """Return where the stream continues; None if there never was one."""
        position_ns: int | None = self._file.value("SELECT position_ns FROM positions WHERE stream = ?", _STREAM)
        return position_ns

    def move_stream(self, position_ns: int) -> None:
        """Record that the stream has passed windows without a release. They stay open for a one-shot run."""
        with self._file.transaction() as db:
            db.execute("INSERT OR REPLACE INTO positions VALUES (?, ?)", (_STREAM, position_ns))

    # Promises

    def last_epoch(self) -> Epoch | None:
        """Return what holds for windows released now; None before the first epoch."""
        rows = self._file.rows("SELECT promise, window_ns, selection FROM epochs ORDER BY epoch DESC LIMIT 1")
        promise = self._promise(rows[0][0]) if rows else None
        return None if promise is None else Epoch(promise, rows[0][1], rows[0][2])

    def begin_epoch(self, epoch: Epoch, *, now_ns: int) -> None:
        """Record what holds for every window released from now on.

        Windows of which other sources were read cannot be compared with a count any more, so they are not counted again.
        """
        with self._file.transaction() as db:
            db.execute(
                "UPDATE intervals SET recounts = ? WHERE epoch IN (SELECT epoch FROM epochs WHERE selection <> ?)",
                (_NEVER_AGAIN, epoch.selection),
            )
            described = json.dumps(dataclasses.asdict(epoch.promise))
            db.execute(
                "INSERT INTO epochs (began_ns, window_ns, promise, selection) VALUES (?, ?, ?, ?)",
                (now_ns, epoch.window_ns, described, epoch.selection),
            )

    def _check_data_set(self, data_set: str | None, address: str, has_grown_from: Callable[[str], bool] | None) -> None:
        """Check that the journal belongs to this data set, by its name or address, and record both."""
        if data_set is None:
            return
        facts = self._facts()
        if "data_set" not in facts:
            facts = {"data_set": data_set, "journal": uuid.uuid4().hex}
        elif not _is_same_data_set(facts, data_set, address):
            if has_grown_from is not None and has_grown_from(facts["data_set"]):
                return
            # A file's name is its digest, with which a reader could check a guessed value.
            told = f" ({facts['data_set']}, this one is {data_set})" if address else ""
            raise JournalDamaged(
                f"{self._file.path} belongs to another data set{told}: another server, bucket, measurement, field, cohort or file. Give "
                f"each data set a STATE_DIR of its own{'' if address else self._if_rewritten()}"
            )
        facts["data_set_address"] = address
        if data_set != address:
            facts["data_set_id"] = data_set
        if facts != self._facts():
            with self._file.transaction() as db:
                db.executemany("INSERT OR REPLACE INTO facts VALUES (?, ?)", facts.items())

    def _if_rewritten(self) -> str:
        """Return what else to do where a file cannot be told from an older version of itself."""
        end_ns: int | None = self._file.value("SELECT max(end_ns) FROM intervals")
        if end_ns is None:
            return ""
        return (
            ". Only rows at the end of a CSV file can be told from those before: if INPUT_FILE is the same recording, rewritten with rows "
            f"added, set QUERY_START_TIME={moment_text(end_ns)} as well (the end of what was released), or the rest is released twice"
        )

    def _promise(self, described: str | None) -> Promise | None:
        """Return the promise of an epoch; None for an accepted gap, which belongs to none."""
        if described is None:
            return None
        try:
            promise = Promise(**self._file.parsed(described))
        except TypeError:
            promise = None
        if promise is None or type(promise.k) is not int:
            raise JournalDamaged(f"{self._file.path} is damaged (it holds an invalid promise). {WAY_ON}")
        return promise

    def _facts(self) -> dict[str, str]:
        return dict(
            self._file.rows(
                "SELECT name, value FROM facts "
                "WHERE name IN ('data_set', 'data_set_id', 'data_set_address', 'journal', 'state_dir', 'spool_url')"
            )
        )

    def _check_fence(self, *, accepting_gap: bool) -> None:
        """Check that journal and fence agree; a fence that lacks the last release, as after a crash, is updated."""
        fenced = self._fence.read()
        beyond = self._known_beyond(fenced)
        # Half a line is a release that no output was offered: accept-gap may skip it, since it can be released safely.
        if fenced.unread and not fenced.is_explained_by(beyond) and not (accepting_gap and fenced.is_cut):
            raise JournalDamaged(
                f"{self._file.path} is older than {self._fence.path}, or that is damaged: its last line cannot be read, and is not "
                "that of the journal's last release. Put good copies of both in their place. Without them only the output bucket can tell "
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
                f"{self._file.path} is older than {self._fence.path}: it does not know of {len(unknown)} stretches of time that were "
                f"released. {WAY_ON}"
            )

    def _refuse_if_beyond(self, fenced: Fenced) -> None:
        last = self._file.rows(
            "SELECT start_ns, end_ns FROM intervals WHERE chunk = (SELECT max(chunk) FROM intervals) ORDER BY start_ns"
        )
        beyond = missing(self._known_beyond(fenced), merged(Window(*row) for row in last))
        if beyond:
            raise JournalDamaged(
                f"{self._file.path} knows of {len(beyond)} stretches of time that {self._fence.path} does not: one of them is an old or "
                "damaged copy. Put good copies of both in their place; or run: scripts/state.py accept-gap, which marks everything that "
                "either of them knows as released, so that none of it is released twice"
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


def _is_same_data_set(facts: Mapping[str, str], data_set: str, address: str) -> bool:
    """Return whether a data set is the one of a journal's facts: by itself, or by its address where one of the two tells no more."""
    known, known_id = facts["data_set"], facts.get("data_set_id", "")
    if known_id and data_set != address:
        return data_set == known_id
    # A journal of an earlier version knows one of the two, and not which.
    return data_set == known or address in {known, facts.get("data_set_address")} - {""}
