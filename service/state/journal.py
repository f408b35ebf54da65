"""The journal: which time intervals were released, under which promise, and which output has taken what.

Every call is on disk before it returns, so that a release recorded here survives any crash. The fence beside it (`service/state/fence.py`)
reveals an old or damaged copy of the journal before the service can release anything twice.
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
from anonymizer.windows import HOUR_NS, Window, WindowRange
from disk.durable_file import make_folder
from service.state.digests import KEYED, Digests, of_filters
from service.state.erasures import Erasures
from service.state.exclusions import Exclusions
from service.state.fence import Fence, Fenced
from service.state.intervals import IntervalSet, merged, missing
from service.state.journal_file import WAY_ON, JournalFile
from service.state.output_positions import GIVEN_UP, LOST_CHUNK, OutputPositions
from service.state.removals import Removals
from service.time_texts import moment_text

_STREAM = "streaming"

_REQUEST_DIGITS = 8

_COUNTS = tuple(field.name for field in dataclasses.fields(WindowCounts))

_INTERVAL_COLUMNS = f"start_ns, end_ns, chunk, epoch, released_ns, windows, recounts, late, {', '.join(_COUNTS)}"

_INSERT_INTERVAL = f"INSERT INTO intervals ({_INTERVAL_COLUMNS}) VALUES ({', '.join('?' * (8 + len(_COUNTS)))})"

#: Intervals i that overlap [:start, :end).
_OVERLAPS = (
    "i.start_ns < :end AND i.start_ns >= coalesce((SELECT max(start_ns) FROM intervals WHERE start_ns <= :start), :start) "
    "AND i.end_ns > :start"
)

#: How many delays of a JSON list have passed since the release.
_RECOUNTS_DUE = "(SELECT count(*) FROM json_each(?) AS delay WHERE released_ns + delay.value <= ?)"

#: How many entries one transaction examines when merging neighbours.
_MERGED_AT_ONCE = 10_000

#: Entries of different days of release are not merged, so that the journal tells each day's age.
_DAY_OF_RELEASE = f"released_ns / {24 * HOUR_NS}"

#: A recount number that is never reached; marks intervals that are not counted again.
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


@dataclass(frozen=True, slots=True)
class Epoch:
    """A period of releases under the same settings. A change of any field begins the next epoch.

    Args:
        promise: The promise of its windows.
        window_ns: The length of its windows.
        selection: Digest of the sources and series that are read.
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


#: Takes a function that recognises a version of a file by its plain digest, and returns that version's digest; None if there is none.
EarlierVersion = Callable[[Callable[[str], bool]], str | None]


@dataclass(frozen=True, slots=True)
class PartChanges:
    """What changed in the files of a data set since the last start: paths of added and changed ones, digests of paths of those gone."""

    added: tuple[str, ...]
    changed: tuple[str, ...]
    gone: tuple[str, ...]
    is_first: bool


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
        self._first_file = ""
        self.outputs = OutputPositions(self._file)
        self.exclusions = Exclusions(self._file)
        self.erasures = Erasures(self._file)
        self.removals = Removals(self._file)
        try:
            self._check_data_set(data_set, address, earlier_version)
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

    @property
    def name(self) -> str:
        """A random secret name of this journal; empty before it has a data set."""
        return str(self._facts().get("journal", ""))

    @property
    def digests(self) -> Digests:
        """What makes this journal's digests."""
        return Digests(self.name)

    @property
    def data_set(self) -> str:
        """The data set's name at first use, which batch ids keep forever; empty before that, and of a file that was not opened."""
        recorded = self._facts().get("data_set", "")
        return self._first_file if recorded.startswith(KEYED) else recorded

    def first_version(self, data_set: str, earlier_version: EarlierVersion) -> str | None:
        """Return the plain digest that the input file had at first use; None if it is another file now.

        Args:
            data_set: The plain digest that it has now.
            earlier_version: Finds an earlier version of it.
        """
        if self._first_file:
            return self._first_file
        recorded = self._facts().get("data_set", "")

        def is_first(digest: str) -> bool:
            # Versions up to form 4 recorded the plain digest.
            return recorded in (digest, self.digests.of_file(digest))

        return data_set if not recorded or is_first(data_set) else earlier_version(is_first)

    def labels(self) -> dict[str, str]:
        """Return the labels that an input file was released under, by the id of the pseudonym key; empty: without pseudonyms."""
        rows = self._file.rows("SELECT value FROM facts WHERE name = 'labels'")
        return {str(key_id): str(label) for key_id, label in self._file.parsed(rows[0][0]).items()} if rows else {}

    def remember_label(self, key_id: str, label: str) -> None:
        """Remember an input file's label, which could not be computed again once the file is gone."""
        labels = self.labels()
        if labels.get(key_id) != label:
            with self._file.transaction() as db:
                described = json.dumps({**labels, key_id: label}, sort_keys=True)
                db.execute("INSERT OR REPLACE INTO facts VALUES ('labels', ?)", (described,))

    @property
    def place(self) -> str:
        """The last recorded path of STATE_DIR; empty if there is none."""
        return self._facts().get("state_dir", "")

    @property
    def spool_address(self) -> str:
        """Where workers spool chunks, as it was last remembered; empty: in STATE_DIR."""
        return self._facts().get("spool_url", "")

    @property
    def spool_label(self) -> str:
        """The label of workers' files, as it was last remembered; empty: there never were any."""
        return self._facts().get("spool_label", "")

    def remember_spool(self, address: str) -> None:
        """Remember where workers spool chunks."""
        self._remember("spool_url", address, self.spool_address)

    def remember_spool_label(self, label: str) -> None:
        """Remember the label of workers' files: those of a run that was killed are found by it."""
        self._remember("spool_label", label, self.spool_label)

    def remember_place(self, place: str) -> None:
        """Record the path of STATE_DIR."""
        self._remember("state_dir", place, self.place)

    def _remember(self, name: str, value: str, before: str) -> None:
        if value != before:
            with self._file.transaction() as db:
                db.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, value))

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

    def is_accepted(self, span: Window) -> bool:
        """Return whether accept-gap marked any interval as released that overlaps the span."""
        return any(entry.promise is None for entry in self.entries_within(span))

    def entries_within(self, span: Window) -> list[Entry]:
        """Return the entries of all released intervals that overlap the span, in order."""
        rows = self._file.rows(
            f"SELECT i.start_ns, i.end_ns, i.chunk, e.promise, e.window_ns, i.windows, i.late, "
            f"i.recounts < {_NEVER_AGAIN}, i.erased, i.released_ns, {', '.join(_COUNTS)} FROM intervals i "
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

    def late_rows(self) -> int:
        """Return how many rows are known to have arrived after their window's release."""
        return int(self._file.value("SELECT coalesce(sum(late), 0) FROM intervals"))

    def accept_gap(self, intervals: Sequence[Window]) -> list[Window]:
        """Mark intervals as released, so that they are never released again; return those that the journal did not know."""
        unknown = self._known.missing(merged(sorted(intervals)))
        with self._file.transaction() as db:
            db.executemany(
                _INSERT_INTERVAL,
                ((gap.start_ns, gap.end_ns, 0, 0, 0, 0, _NEVER_AGAIN, 0, *(0 for _ in _COUNTS)) for gap in unknown),
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

    def accept_labels(self, ends_ns: Mapping[str, int]) -> None:
        """Remember that the windows of other labels up to these times, in nanoseconds since the epoch, count as released here."""
        accepted = self.accepted_labels()
        accepted |= {label: max(end_ns, accepted.get(label, end_ns)) for label, end_ns in ends_ns.items()}
        with self._file.transaction() as db:
            db.execute("INSERT OR REPLACE INTO facts VALUES ('accepted_labels', ?)", (json.dumps(accepted, sort_keys=True),))

    def accepted_labels(self) -> dict[str, int]:
        """Return up to which time the windows of other labels count as released here."""
        rows = self._file.rows("SELECT value FROM facts WHERE name = 'accepted_labels'")
        return {str(label): int(end_ns) for label, end_ns in self._file.parsed(rows[0][0]).items()} if rows else {}

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

    # Late rows

    def due_for_recount(self, after_ns: Sequence[int], *, now_ns: int, most: int) -> list[Recount]:
        """Return windows to count again, in order of time. Merged entries are not counted again.

        Args:
            after_ns: How long after the release, ascending; one recount each.
            now_ns: The time.
            most: The maximum number of windows to return.
        """
        due = [
            Recount(Window(start, end), read, late, recounts)
            for done, delay_ns in enumerate(after_ns)
            for start, end, read, late, recounts in self._file.rows(
                "SELECT start_ns, end_ns, read + erased, late, recounts FROM intervals WHERE recounts = ? AND released_ns <= ? "
                "AND windows = 1 ORDER BY released_ns, start_ns LIMIT ?",
                done,
                now_ns - delay_ns,
                most,
            )
        ]
        return sorted(due, key=lambda one: one.window)[:most]

    def record_recounts(self, recounts: Iterable[Recount], *, after_ns: Sequence[int], now_ns: int) -> None:
        """Record the late rows of windows that were counted again. One count satisfies all recounts that were due."""
        with self._file.transaction() as db:
            db.executemany(
                f"UPDATE intervals SET late = ?, recounts = max(recounts + 1, {_RECOUNTS_DUE}) WHERE start_ns = ?",
                ((one.late, json.dumps(list(after_ns)), now_ns, one.window.start_ns) for one in recounts),
            )

    def record_late(self, late: Mapping[int, int]) -> None:
        """Record the number of late rows of released intervals, by their starts."""
        with self._file.transaction() as db:
            db.executemany(
                "UPDATE intervals SET late = ? WHERE start_ns = ?", ((rows, start_ns) for start_ns, rows in late.items())
            )

    # The files of a data set. Their paths may name wearers, so only digests of them are kept.

    def compare_parts(self, parts: Mapping[str, str], *, request: str) -> PartChanges:
        """Return what changed since the last start.

        Args:
            parts: The state of each file that was found, by path.
            request: The glob that chose them; empty: all. Of a file that is missing and was last seen under another glob nothing can be
                said, so that it stays known.
        """
        known, asked, digests = self._parts(), self._request(request), self.digests
        now = {path: digests.of_path(path) for path in parts}
        return PartChanges(
            tuple(path for path, one in now.items() if one not in known),
            tuple(path for path, one in now.items() if one in known and known[one][0] != digests.of_state(parts[path])),
            tuple(
                known.keys() - now.values()
                if not request
                else (one for one in known.keys() - now.values() if known[one][1] == asked)
            ),
            is_first=not known,
        )

    def record_parts(self, parts: Mapping[str, str], *, request: str, gone: Collection[str]) -> None:
        """Record the current files, and forget those that are gone, given by the digests of their paths."""
        known, asked, digests = self._parts(), self._request(request), self.digests
        now = {digests.of_path(path): (digests.of_state(state), asked) for path, state in parts.items()}
        changed = [(path, " ".join(what)) for path, what in now.items() if known.get(path) != what]
        if changed or gone:
            with self._file.transaction() as db:
                db.executemany("DELETE FROM parts WHERE path = ?", ((path,) for path in gone))
                db.executemany("INSERT OR REPLACE INTO parts VALUES (?, ?)", changed)

    def _parts(self) -> dict[str, tuple[str, str]]:
        """Return the state of each file, and the glob under which it was last seen, by path, all as digests."""
        rows = self._file.rows("SELECT path, state FROM parts")
        return {path: (state.partition(" ")[0], state.partition(" ")[2]) for path, state in rows}

    def _request(self, request: str) -> str:
        return self.digests.of_state(f"request {request}")[:_REQUEST_DIGITS]

    # The stream's position

    def stream_position_ns(self) -> int | None:
        """Return where the stream continues; None if there never was one."""
        position_ns: int | None = self._file.value("SELECT position_ns FROM positions WHERE stream = ?", _STREAM)
        return position_ns

    def move_stream(self, position_ns: int) -> None:
        """Record that the stream has passed windows without releasing them. A one-shot run can still release them."""
        with self._file.transaction() as db:
            db.execute("INSERT OR REPLACE INTO positions VALUES (?, ?)", (_STREAM, position_ns))

    # Promises

    def last_epoch(self) -> Epoch | None:
        """Return the current epoch; None before the first."""
        rows = self._file.rows("SELECT promise, window_ns, selection FROM epochs ORDER BY epoch DESC LIMIT 1")
        promise = self._promise(rows[0][0]) if rows else None
        return None if promise is None else Epoch(promise, rows[0][1], rows[0][2])

    def has_epoch_of(self, key_id: str) -> bool:
        """Return whether a run has begun under a pseudonym key; empty: without pseudonyms."""
        promises = (self._promise(described) for (described,) in self._file.rows("SELECT promise FROM epochs"))
        return any(promise is not None and promise.key_id == key_id for promise in promises)

    def key_ids(self) -> set[str]:
        """Return the ids of all keys under which windows were released; empty for windows without pseudonyms."""
        rows = self._file.rows("SELECT promise FROM epochs WHERE epoch IN (SELECT epoch FROM intervals)")
        return {promise.key_id for (described,) in rows if (promise := self._promise(described)) is not None}

    def replace_digest_of_filters(self, key: bytes, digest: str) -> None:
        """Replace the digest of current filters that form 4 made under the pseudonym key, so that no change of settings is seen.

        Args:
            key: The key that form 4 used.
            digest: The plain digest of the current filters.
        """
        before, now = of_filters(key, digest), self.digests.of_filters(digest)
        if before != now and self._file.rows("SELECT 1 FROM epochs WHERE selection = ?", before):
            with self._file.transaction() as db:
                db.execute("UPDATE epochs SET selection = ? WHERE selection = ?", (now, before))

    def begin_epoch(self, epoch: Epoch, *, now_ns: int) -> None:
        """Record the epoch of every window released from now on.

        A change of the sources that are read ends recounts of earlier windows, whose counts can no longer be compared.
        """
        with self._file.transaction() as db:
            db.execute(
                "UPDATE intervals SET recounts = ? WHERE epoch IN (SELECT epoch FROM epochs WHERE selection <> ?)",
                (_NEVER_AGAIN, epoch.selection),
            )
            described = json.dumps(epoch.promise.stated())
            db.execute(
                "INSERT INTO epochs (began_ns, window_ns, promise, selection) VALUES (?, ?, ?, ?)",
                (now_ns, epoch.window_ns, described, epoch.selection),
            )

    def _check_data_set(self, data_set: str | None, address: str, earlier_version: EarlierVersion | None) -> None:
        """Check that the journal belongs to this data set, by its name or address, and record both; of a file only a keyed digest."""
        if data_set is None:
            return
        facts = self._facts()
        if "data_set" not in facts:
            facts = {**facts, "data_set": data_set, "journal": uuid.uuid4().hex}
            self._record_data_set(facts, data_set, address)
            return
        first = data_set if address else self.first_version(data_set, earlier_version or (lambda _: None))
        if first is None or (address and not _is_same_data_set(facts, data_set, address)):
            # A file's name is its digest, which is not shown: it would let a reader verify guessed values.
            is_shown = address and not facts["data_set"].startswith(KEYED)
            difference = f" ({facts['data_set']}, this one is {data_set})" if is_shown else ""
            raise JournalDamaged(
                f"{self._file.path} belongs to another data set{difference}: another server, bucket, measurement, field, cohort, file or "
                f"folder. Give each data set a STATE_DIR of its own{'' if address else self._advice_if_rewritten()}"
            )
        self._record_data_set(facts, data_set if address else first, address)

    def _record_data_set(self, facts: dict[str, str], data_set: str, address: str) -> None:
        known, facts = self._facts(), {**facts, "data_set_address": address}
        is_plain_file = not address and not facts["data_set"].startswith(KEYED)
        if not address:
            self._first_file, facts["data_set"] = data_set, Digests(facts["journal"]).of_file(data_set)
            facts.pop("data_set_id", None)
        elif data_set != address:
            facts["data_set_id"] = data_set
        if facts == known:
            return
        with self._file.transaction() as db:
            db.executemany("INSERT OR REPLACE INTO facts VALUES (?, ?)", facts.items())
            if is_plain_file and "data_set" in known:
                db.execute("DELETE FROM facts WHERE name = 'data_set_id'")
                self._file.replaces_plain_text(db)
        self._file.scrub_after_upgrade()

    def _advice_if_rewritten(self) -> str:
        """Return further advice for a file that may be a new version of the recorded one."""
        end_ns: int | None = self._file.value("SELECT max(end_ns) FROM intervals")
        if end_ns is None:
            return ""
        return (
            ". Added rows are recognised only at the end of a CSV file: if INPUT_FILE is the same recording, rewritten with rows added, "
            f"also set QUERY_START_TIME={moment_text(end_ns)} (the end of the released time), or the rest is released twice"
        )

    def _promise(self, described: str | None) -> Promise | None:
        """Return the promise of an epoch; None for an accepted gap, which has no epoch."""
        if described is None:
            return None
        try:
            promise = Promise(**self._file.parsed(described))
        except TypeError:
            promise = None
        if promise is None or not promise.method or (type(promise.k) is not int and not promise.template_digest):
            raise JournalDamaged(f"{self._file.path} is damaged (it contains an invalid promise). {WAY_ON}")
        return promise

    def _facts(self) -> dict[str, str]:
        return dict(
            self._file.rows(
                "SELECT name, value FROM facts "
                "WHERE name IN ('data_set', 'data_set_id', 'data_set_address', 'journal', 'state_dir', 'spool_url', 'spool_label')"
            )
        )

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


def _is_same_data_set(facts: Mapping[str, str], data_set: str, address: str) -> bool:
    """Return whether a journal's facts name this data set: by its id if both sides know it, else by its address."""
    known, known_id = facts["data_set"], facts.get("data_set_id", "")
    if known_id and data_set != address:
        return data_set == known_id
    # A journal of an earlier version recorded one of the two, without saying which.
    return data_set == known or address in {known, facts.get("data_set_address")} - {""}
