"""The places that RETENTION_DAYS removes from, and what of each is due.

A file is due once each of its windows ended, and was released, before a time. It must hold only rows that the journal has on record, and
every output must have taken what is to go into it; anything else is kept.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from anonymizer.errors import OutputUnavailable
from anonymizer.windows import NANOSECONDS, Window
from disk.durable_file import read_ours, remove_durably
from outputs.csv_held import HeldCsv
from outputs.parquet_removal import OldParquet
from service.state.journal import Entry, Journal
from service.state.removals import HeldFile, Part, set_aside_place
from service.state.set_aside import Kept as KeptRows
from service.state.set_aside import SetAside
from service.state.spool import SpoolDamaged

#: How many intervals the journal is asked for at a time.
_AT_A_TIME = 1000


class NotRemoved(Exception):
    """A file is kept; the message says why, as the end of a sentence."""


class NotDue(Exception):
    """A file is younger than the term, or an output still waits for rows of it."""


@dataclass(frozen=True, slots=True)
class Left:
    """A file that is due by its age and is kept: its name in the log, and why, as the end of a sentence."""

    name: str
    reason: str


class Place(Protocol):
    """What is removed from one place."""

    #: Its name in the journal; empty: nothing of it is on record.
    name: str

    #: What it holds, in words: `CSV files`.
    what: str

    def due(self, before_ns: int) -> Iterator[HeldFile | Left]:
        """Yield what is due, and what is kept although it is that old. Changes nothing.

        Raises:
            OutputUnavailable: The place cannot be read now; also StateUnavailable.
        """

    def remove(self, files: Sequence[HeldFile], *, after_each: Callable[[], None]) -> dict[str, str]:
        """Remove files that are due; return why some could not be removed, by path.

        Raises:
            OSError: They are gone, and may come back after a power cut.
        """

    def is_there(self, path: str) -> bool:
        """Return whether anything is left of a file. Raises as `due` does."""

    def others(self, before_ns: int) -> int:
        """Return how many old files are there that are not the service's to remove. Asked after `due`."""


class OnRecord:
    """Compares the rows of a file with the journal.

    Args:
        journal: The journal.
        place: The output whose file it is.
    """

    def __init__(self, journal: Journal, place: str) -> None:
        self._journal = journal
        self._place = place

    def windows(self, span: Window, before_ns: int) -> list[tuple[Entry, Window]]:
        """Return the entries with windows that start in a span, and the time from their first window there to their last.

        Raises:
            NotDue: One of them is younger, or not yet taken.
            NotRemoved: Nothing is known of one, or there is none.
        """
        positions = {one.name: one.position for one in self._journal.outputs.positions()}
        found = []
        for entry in self._journal.entries_within(span):
            part = _part_within(entry, span)
            if part is None:
                continue
            if entry.window_ns is None:
                raise NotRemoved(
                    "holds times that were only accepted as released, so that the journal has no rows of it on record"
                )
            if max(entry.released_ns, part.end_ns) > before_ns or entry.chunk > positions.get(self._place, entry.chunk):
                raise NotDue
            found.append((entry, part))
        if not found:
            raise NotRemoved("holds times that the journal in STATE_DIR never released")
        return found

    def parts(self, windows: Sequence[tuple[Entry, Window]], times_ns: npt.NDArray[np.int64]) -> tuple[Part, ...]:
        """Return what a file holds of each entry.

        Raises:
            NotRemoved: It holds a row that is not on record, or more than were released.
        """
        times_ns = np.sort(times_ns)
        parts = []
        for entry, span in windows:
            first, stop = np.searchsorted(times_ns, [span.start_ns, span.end_ns])
            rows = int(stop - first)
            removed, _ = self._journal.removals.rows_in(self._place, entry.interval)
            if rows > entry.counts.released - removed:
                raise NotRemoved("holds more rows than were released of its windows")
            parts.append(Part(span, rows))
        if sum(part.rows for part in parts) != len(times_ns):
            raise NotRemoved("holds rows of times that were not released")
        return tuple(parts)


def _part_within(entry: Entry, span: Window) -> Window | None:
    """Return the windows of an entry that start in a span; None if there is none."""
    start_ns, end_ns = entry.interval.start_ns, entry.interval.end_ns
    length_ns = entry.window_ns or end_ns - start_ns
    first = max(0, -(-(span.start_ns - start_ns) // length_ns))
    stop = -(-(min(span.end_ns, end_ns) - start_ns) // length_ns)
    return Window(start_ns + first * length_ns, start_ns + stop * length_ns) if first < stop else None


class CsvPlace:
    """Old CSV files of one output. Their names are made from the windows in the journal, so that no other file is looked at.

    Args:
        held: The files.
        journal: The journal.
        is_stream: Whether this process also writes files, of times from the stream's position on.
    """

    what = "CSV files"

    def __init__(self, held: HeldCsv, journal: Journal, *, is_stream: bool) -> None:
        self._held = held
        self._journal = journal
        self._is_stream = is_stream
        self._record = OnRecord(journal, held.name)
        self._left = set[str]()
        self.name = held.name

    def due(self, before_ns: int) -> Iterator[HeldFile | Left]:
        """Yield the files of old windows."""
        self._left.clear()
        receipts = self._journal.outputs.receipts(self.name)
        # A later window may still be written to the file of the stream's position.
        stream_ns = self._journal.stream_position_ns() if self._is_stream else None
        end_ns = before_ns if stream_ns is None else min(before_ns, stream_ns)
        for span in self._spans(before_ns):
            name = self._held.file_name(span.start_ns)
            if span.end_ns > end_ns or not self._held.is_there(name):
                continue
            try:
                windows = self._record.windows(span, before_ns)
                yield HeldFile(
                    name, self._record.parts(windows, self._held.whole_times(name, committed=_length(receipts.get(name))))
                )
            except NotDue:
                continue
            except (NotRemoved, ValueError) as error:
                self._left.add(name)
                yield Left(name, str(error))

    def remove(self, files: Sequence[HeldFile], *, after_each: Callable[[], None]) -> dict[str, str]:
        """Remove files."""
        return self._held.remove([file.path for file in files], after_each=after_each)

    def is_there(self, path: str) -> bool:
        """Return whether the file is there."""
        if not self._held.is_mounted():
            raise OutputUnavailable("CSV_OUTPUT_DIR is not there: is its disk missing?")
        return self._held.is_there(path)

    def others(self, before_ns: int) -> int:
        """Return how many other old files are in the folder."""
        return self._held.others(before_ns, but_for=self._left)

    def _spans(self, before_ns: int) -> Iterator[Window]:
        """Yield the interval of each name that old windows may have been written to, in order."""
        unit_ns = self._held.unit_ns
        if unit_ns is None:
            return
        next_ns, after_ns = -(1 << 62), -(1 << 62)
        while due := self._journal.removals.due(self.name, before_ns=before_ns, after_ns=after_ns, most=_AT_A_TIME):
            after_ns = due[-1].start_ns
            for interval in due:
                next_ns = max(next_ns, interval.start_ns // unit_ns * unit_ns)
                while next_ns < interval.end_ns:
                    yield Window(next_ns, next_ns + unit_ns)
                    next_ns += unit_ns


def _length(receipt: object) -> int | None:
    """Return the committed length of a file that is not complete; None if it is complete, or may have grown."""
    if not isinstance(receipt, dict) or receipt.get("may_have_grown"):
        return None
    return int(receipt["length"])


class ParquetPlace:
    """Old Parquet files of one output.

    Args:
        held: The files.
        journal: The journal.
    """

    what = "Parquet files"

    def __init__(self, held: OldParquet, journal: Journal) -> None:
        self._held = held
        self._record = OnRecord(journal, held.name)
        self._others = 0
        self.name = held.name

    def due(self, before_ns: int) -> Iterator[HeldFile | Left]:
        """Yield the files of old chunks."""
        files, self._others = self._held.files(before_ns)
        for file in files:
            try:
                windows = self._record.windows(file.span, before_ns)
                yield HeldFile(file.path, self._record.parts(windows, self._held.whole_times(file.path)))
            except NotDue:
                continue
            except (NotRemoved, ValueError) as error:
                yield Left(file.path, str(error))

    def remove(self, files: Sequence[HeldFile], *, after_each: Callable[[], None]) -> dict[str, str]:
        """Remove files."""
        failed = {}
        for file in files:
            if reason := self._held.remove(file.path):
                failed[file.path] = reason
            after_each()
        return failed

    def is_there(self, path: str) -> bool:
        """Return whether the file is there."""
        return self._held.is_there(path)

    def others(self, before_ns: int) -> int:
        """Return how many files of other data sets, or of no data set, lie in folders of that time."""
        return self._others


class SetAsidePlace:
    """Rows that one output refused, and that nobody offered to it again.

    Args:
        folder: The folder of set-aside rows.
        output: The output's name.
        journal: The journal.
    """

    what = "set-aside batches"

    def __init__(self, folder: Path, output: str, journal: Journal) -> None:
        self._folder = folder
        self.output = output
        self._journal = journal
        self.name = set_aside_place(output)

    def due(self, before_ns: int) -> Iterator[HeldFile | Left]:
        """Yield the batches of old windows."""
        try:
            for kept in [one for one in SetAside(self._folder).all() if one.output == self.output]:
                yield from self._judged(kept, before_ns)
        except SpoolDamaged as error:
            yield Left("set_aside", f"cannot be read: {error}")

    def remove(self, files: Sequence[HeldFile], *, after_each: Callable[[], None]) -> dict[str, str]:
        """Remove batches, then their descriptions: what is left of a pair is found again by its description."""
        failed = {}
        for file in files:
            for suffix in (".spool", ".json"):
                if problems := remove_durably([self._folder / f"{file.path}{suffix}"]):
                    failed[file.path] = next(iter(problems.values()))
                    break
            after_each()
        return failed

    def is_there(self, path: str) -> bool:
        """Return whether the description of a batch, which is removed last, is there."""
        return (self._folder / f"{path}.json").exists()

    def others(self, before_ns: int) -> int:
        """Return 0: nothing else is in this folder."""
        return 0

    def _judged(self, kept: KeptRows, before_ns: int) -> Iterator[HeldFile | Left]:
        start_ns = int(kept.path.stem.partition("-")[0])
        entries = self._journal.entries_within(Window(start_ns, start_ns + 1))
        known = [entry for entry in entries if entry.window_ns is not None]
        if not known:
            yield Left(kept.path.name, "is of a window that the journal in STATE_DIR never released")
            return
        (entry,) = known
        assert entry.window_ns is not None, "as known"
        span = Window(start_ns, start_ns + entry.window_ns)
        if max(entry.released_ns, span.end_ns) <= before_ns:
            yield HeldFile(kept.path.stem, (Part(span, kept.count),))


class ReportsPlace:
    """The report of each run; `report.html`, the copy of the last one, goes with it.

    Args:
        state_dir: STATE_DIR.
    """

    name = ""
    what = "reports"

    _NAME = re.compile(r"report-(\d{8}T\d{6})Z\.html")

    def __init__(self, state_dir: Path) -> None:
        self._folder = state_dir / "reports"
        self._last = state_dir / "report.html"

    def due(self, before_ns: int) -> Iterator[HeldFile | Left]:
        """Yield the reports that were made before then."""
        try:
            names = sorted(path.name for path in self._folder.iterdir())
        except FileNotFoundError:
            return
        except OSError as error:
            yield Left("reports", f"cannot be listed ({error.strerror or error})")
            return
        for name in names:
            if (found := self._NAME.fullmatch(name)) and _made_ns(found[1]) <= before_ns:
                yield HeldFile(name)

    def remove(self, files: Sequence[HeldFile], *, after_each: Callable[[], None]) -> dict[str, str]:
        """Remove reports."""
        copies = [self._last] if any(self._is_last(file.path) for file in files) else []
        return remove_durably([*copies, *(self._folder / file.path for file in files)], after_each=after_each)

    def is_there(self, path: str) -> bool:
        """Return whether a report is there."""
        return (self._folder / path).exists()

    def others(self, before_ns: int) -> int:
        """Return 0: other files in this folder are an operator's."""
        return 0

    def _is_last(self, name: str) -> bool:
        try:
            return read_ours(self._last) == read_ours(self._folder / name)
        except OSError:
            return False


def _made_ns(text: str) -> int:
    try:
        return int(datetime.strptime(text, "%Y%m%dT%H%M%S").replace(tzinfo=UTC).timestamp()) * NANOSECONDS
    except ValueError:
        return 1 << 62
