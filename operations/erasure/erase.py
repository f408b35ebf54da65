"""One erasure, step by step: dry run, or open, take from every place, book, search the bytes, end.

Each step can be interrupted and made again: what a place loses is on record before the place changes, and the books are made once, in one
transaction. While an erasure is open the service does not start.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from anonymizer.errors import ConfigurationError
from anonymizer.exclusion import id_digest, released_id_digest
from disk.durable_file import make_folder, read_ours, write_durably
from operations.erasure.bucket import BucketRows
from operations.erasure.csv_folder import CsvFolder
from operations.erasure.parquet_place import ParquetPlace
from operations.erasure.rows import Cut, Person, ReleasedWindows, Rule, cut_batch
from operations.erasure.stored import Stored
from service import crash_points
from service.pipeline.released_elsewhere import ANY_TIME
from service.state.erasures import OpenErasure
from service.state.journal import Entry, Journal
from service.state.shared_spool import MixedSpool

#: Shorter ids are found in any file by chance: their bytes are not searched for.
_SHORTEST_SEARCHED_BYTES = 6

_BLOCK_BYTES = 1 << 22

#: What no command of ours can reach, in every erasure.
_NEVER_REACHED = (
    "the raw data: delete it with the tools of its own server, and set EXCLUDED_SOURCES_FILE where it may be measured again",
    "backups, snapshots and replicas of databases, folders and STATE_DIR; what a disk keeps of deleted blocks",
    "whatever readers of the outputs have copied",
    "InfluxDB's own files until it has compacted them: documentation/OPERATIONS.md says how to force that",
    "a trace in the values of others: means that were formed with these rows stay as they were released",
)

EraseLedger = Callable[[Path, Person, bool], int]


@dataclass(frozen=True, slots=True)
class Places:
    """Everything that may hold released rows.

    Args:
        state_dir: STATE_DIR.
        journal: Its journal.
        spool: Its spool.
        csv: Folders with CSV files, by the output's name.
        parquet: Parquet files, by the output's name.
        buckets: Output buckets, by the output's name.
        apis: Names of outputs that cannot be read back.
        ledgers: Ledgers of the heartbeat tools.
        erase_ledger: Erases from one, or only counts; returns how many entries.
    """

    state_dir: Path
    journal: Journal
    spool: MixedSpool
    csv: Mapping[str, Path] = field(default_factory=dict)
    parquet: Mapping[str, Callable[[], ParquetPlace]] = field(default_factory=dict)
    buckets: Mapping[str, BucketRows] = field(default_factory=dict)
    apis: Sequence[str] = ()
    ledgers: Sequence[Path] = ()
    erase_ledger: EraseLedger = lambda *_: 0


@dataclass(slots=True)
class Found:
    """What was found, or taken.

    Args:
        rows: By place.
        windows: Starts of windows that lose rows.
        outside: Rows of the source in no window that the journal knows.
        out_of_reach: Sentences on places that cannot be erased from.
        ids: The source's ids as they were met.
    """

    rows: dict[str, int] = field(default_factory=dict)
    windows: set[int] = field(default_factory=set)
    outside: int = 0
    out_of_reach: list[str] = field(default_factory=list)

    def add(self, place: str, cut: Cut) -> None:
        """Add what is taken from a place."""
        self.rows[place] = self.rows.get(place, 0) + int(cut.is_gone.sum())
        self.windows |= {one.start_ns for one in cut.taken}
        self.outside += cut.outside


class Erasure:
    """The erasure of one source.

    Args:
        places: Where it may be.
        person: Who.
        strict: Whether rows go too whose value fewer than k still share.
        now_ns: Returns the time.
    """

    def __init__(self, places: Places, person: Person, *, strict: bool, now_ns: Callable[[], int]) -> None:
        self._places = places
        self._person = person
        self._strict = strict
        self._now_ns = now_ns
        self._journal = places.journal
        self._entries: list[Entry] = self._journal.entries_within(ANY_TIME)
        self._rule = Rule(person, ReleasedWindows(self._entries), strict)

    def find(self) -> Found:
        """Return what an erasure would take. Changes nothing."""
        return self._take(is_dry=True)

    def run(self, source_digest: str) -> tuple[Found, Path]:
        """Erase; return what was taken, and the certificate.

        Raises:
            ConfigurationError: Another erasure is open, or something that may be the source's is left and not understood.
        """
        erasure = self._open(source_digest)
        crash_points.reached(crash_points.ERASURE_OPEN)
        self._hold_back_from_apis()
        found = self._take(is_dry=False)
        found.windows |= self._journal.erasures.recorded().keys()
        certificate = self._write_certificate(erasure, found, ended_ns=None)
        self._check_that_nothing_is_left()
        stored = Stored(self._places.state_dir, self._journal, self._places.spool)
        self._journal.erasures.book(spooled_bytes=stored.sizes())
        crash_points.reached(crash_points.ERASURE_BOOKED)
        stored.remove_leftovers()
        self._journal.erasures.forget_parts(self._searched())
        (self._places.state_dir / "data_set_index").unlink(missing_ok=True)
        self._journal.erasures.scrub()
        crash_points.reached(crash_points.ERASURE_SCRUBBED)
        self._search_bytes()
        ended_ns = self._now_ns()
        self._write_certificate(erasure, found, ended_ns=ended_ns)
        self._journal.erasures.end(now_ns=ended_ns)
        return found, certificate

    def _open(self, digest: str) -> OpenErasure:
        erasures = self._journal.erasures
        erasure = erasures.open_one()
        if erasure is None:
            erasure = OpenErasure(digest, self._now_ns(), self._strict)
            erasures.begin(erasure)
        if erasure.digest != digest:
            raise ConfigurationError(
                "another erasure is open in STATE_DIR, of another source: run that one again, with the id or pseudonym it was begun with"
            )
        if erasure.strict != self._strict:
            raise ConfigurationError(
                f"the open erasure was begun {'with' if erasure.strict else 'without'} --strict: run it again that way"
            )
        return erasure

    def _take(self, *, is_dry: bool) -> Found:
        places, rule, found = self._places, self._rule, Found()
        for place, rows in Stored(places.state_dir, self._journal, places.spool).erase(rule, is_dry=is_dry).items():
            if rows:
                found.rows[place] = rows
        for name, folder in places.csv.items():
            for _, cut in CsvFolder(folder, name, self._journal).erase(rule, is_dry=is_dry):
                found.add(name, cut)
        for name, make in places.parquet.items():
            files = make()
            for cut in files.erase(rule, is_dry=is_dry):
                found.add(name, cut)
            if others := files.other_data_sets():
                found.out_of_reach.append(
                    f"{others} files of other data sets in {name}: erase with the settings of their services"
                )
        for path in places.ledgers:
            found.rows[f"ledger {path}"] = places.erase_ledger(path, self._person, is_dry)
        self._take_from_buckets(found, is_dry=is_dry)
        found.out_of_reach += [f"{name}: what it has taken; ask its operator" for name in places.apis]
        return found

    def _take_from_buckets(self, found: Found, *, is_dry: bool) -> None:
        for name, bucket in self._places.buckets.items():
            if bucket.is_out_of_reach:
                found.out_of_reach.append(f"{name}: InfluxDB 3 Core cannot delete rows, only tables and databases")
                continue
            for cut in bucket.erase(self._rule, self._entries, self._person.exact, is_dry=is_dry):
                found.add(name, cut)

    def _hold_back_from_apis(self) -> None:
        """Mark, for each API, the batches that it may have taken already and that the erasure changes."""
        for name in self._places.apis:
            begun = self._journal.outputs.receipts(name)
            key_of = {str(receipt.get("batch_id")): key for key, receipt in begun.items()}
            keys = [
                key_of[batch.batch_id]
                for chunk in self._journal.outputs.spooled_chunks()
                for batch in self._places.spool.read(chunk)
                if batch.batch_id in key_of and cut_batch(batch, self._rule)[1] is not None
            ]
            self._journal.erasures.hold_back(name, keys)

    def _check_that_nothing_is_left(self) -> None:
        """Look at every place once more, as a reader would."""
        left = {place: rows for place, rows in self.find().rows.items() if rows}
        if left:
            raise ConfigurationError(
                f"the erasure stays open: rows are still there ({', '.join(f'{rows} in {place}' for place, rows in left.items())}). Does "
                "another program write there? Stop it, and run this again"
            )

    def _searched(self) -> list[bytes]:
        return [text.encode() for text in self._person.exact if len(text.encode()) >= _SHORTEST_SEARCHED_BYTES]

    def _search_bytes(self) -> None:
        """Search every file for the source's ids, whatever the file is."""
        folders = [self._places.state_dir, *self._places.csv.values()]
        files = [Path(above) / name for folder in folders for above, _, names in os.walk(folder) for name in names]
        hits = [path for path in (*files, *self._places.ledgers) if _holds(path, self._searched())]
        if hits:
            shown = ", ".join(str(path) for path in hits[:10])
            raise ConfigurationError(
                f"the erasure stays open: {len(hits)} files still hold the id or the pseudonym, in rows that are not understood: {shown}. "
                "Remove these rows or move the files away, and run this again"
            )

    def _write_certificate(self, erasure: OpenErasure, found: Found, *, ended_ns: int | None) -> Path:
        path = self._places.state_dir / "erasures" / f"{_file_time(erasure.began_ns)}.json"
        before: dict[str, Any] = json.loads(read_ours(path)) if path.exists() else {}
        windows = {tuple(one) for one in before.get("windows", [])} | set(self._spans(found.windows))
        rows = {**found.rows}
        for place, count in before.get("rows", {}).items():
            # What an interrupted attempt took is no longer found.
            rows[place] = max(count, rows.get(place, 0))
        described = {
            "what": "erasure of one source from what was released",
            "source": erasure.digest,
            "began": _time(erasure.began_ns),
            "ended": None if ended_ns is None else _time(ended_ns),
            "strict": erasure.strict,
            "rows": rows,
            "rows_in_no_known_window": max(found.outside, before.get("rows_in_no_known_window", 0)),
            "searched": [
                "no byte of the id or the pseudonym is left in STATE_DIR, CSV files and ledgers; Parquet files and buckets were read again"
                if self._searched()
                else f"ids of fewer than {_SHORTEST_SEARCHED_BYTES} bytes are found anywhere by chance: places were read again instead"
            ],
            "out_of_reach": [*found.out_of_reach, *_NEVER_REACHED],
            "windows": sorted(windows),
        }
        make_folder(path.parent)
        write_durably(path, json.dumps(described, indent=1).encode())
        return path

    def _spans(self, starts_ns: Iterable[int]) -> Iterator[tuple[str, str]]:
        for start_ns in starts_ns:
            entry = self._rule.windows.entry_at(start_ns)
            if entry is not None and entry.window_ns:
                yield _time(start_ns), _time(start_ns + entry.window_ns)


def digest_of_id(journal: Journal, source_id: str) -> str:
    """Return the digest by which the journal knows a source from its id."""
    return id_digest(journal.digests.exclusion_key, source_id)


def digest_of_pseudonym(journal: Journal, pseudonym: str) -> str:
    """Return the digest by which the journal knows a source from its released id."""
    return released_id_digest(journal.digests.exclusion_key, pseudonym)


def _holds(path: Path, texts: Sequence[bytes]) -> bool:
    longest = max(map(len, texts), default=0)
    try:
        with path.open("rb") as file:
            tail = b""
            while block := file.read(_BLOCK_BYTES):
                if any(text in tail + block for text in texts):
                    return True
                tail = block[-longest:]
    except FileNotFoundError:
        pass
    return False


def _time(time_ns: int) -> str:
    return f"{datetime.fromtimestamp(time_ns // 10**9, UTC):%Y-%m-%dT%H:%M:%SZ}"


def _file_time(time_ns: int) -> str:
    return f"{datetime.fromtimestamp(time_ns // 10**9, UTC):%Y%m%d-%H%M%S}-{time_ns % 10**9:09d}"
