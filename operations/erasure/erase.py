"""One erasure, step by step: dry run, or open, take from every place, book, search the bytes, end.

Each step can be interrupted and made again: what a place loses is on record before the place changes, and the books are made once, in one
transaction. While an erasure is open the service does not start.
"""

from __future__ import annotations

import itertools
import json
import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
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
from operations.erasure.rows import SHORTEST_SEARCHED_BYTES, Cut, Left, Person, ReleasedWindows, Rule, cut_batch
from operations.erasure.stored import Stored
from service import crash_points
from service.pipeline.released_elsewhere import ANY_TIME
from service.state.erasures import OpenErasure
from service.state.journal import Entry, Journal
from service.state.shared_spool import MixedSpool

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
        doubts: Sentences on what cannot be found with the id that was given.
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
    doubts: Sequence[str] = ()


@dataclass(slots=True)
class Found:
    """What was found, or taken.

    Args:
        rows: By place.
        windows: Starts of windows that lose rows.
        outside: Rows of the source in no window that the journal knows.
        out_of_reach: Sentences on places that cannot be erased from.
        left_behind: How many rows of the source are known to be in such places, by place.
        traces: By window that loses rows: how many values are left in it, and how many of these keep a trace of the source.
        certificate: What the certificate says, with what interrupted attempts took; empty: there is none.
    """

    rows: dict[str, int] = field(default_factory=dict)
    windows: set[int] = field(default_factory=set)
    outside: int = 0
    out_of_reach: list[str] = field(default_factory=list)
    left_behind: dict[str, int] = field(default_factory=dict)
    traces: dict[int, tuple[int, int]] = field(default_factory=dict)
    certificate: dict[str, Any] = field(default_factory=dict)

    def add(self, place: str, cut: Cut) -> None:
        """Add what is taken from a place."""
        self.rows[place] = self.rows.get(place, 0) + int(cut.is_gone.sum())
        self.windows |= {one.start_ns for one in cut.taken}
        self.outside += cut.outside
        self.add_traces(cut.left)

    def add_traces(self, left: Mapping[int, Left]) -> None:
        """Add what is left of windows, which several places hold alike."""
        for start_ns, one in left.items():
            values, traced = self.traces.get(start_ns, (0, 0))
            self.traces[start_ns] = (max(values, one.values), max(traced, one.traced_values))

    @property
    def rows_in_all(self) -> dict[str, int]:
        """The rows by place, with those of interrupted attempts."""
        return dict(self.certificate.get("rows", self.rows))

    @property
    def windows_in_all(self) -> int:
        """How many windows lose rows, with those of interrupted attempts."""
        return len(self.certificate.get("windows", self.windows))

    @property
    def trace(self) -> dict[str, int]:
        """How many distinct values are left in the windows, and how many of these belong to groups that held rows of the source."""
        return {
            "values_left": sum(values for values, _ in self.traces.values()),
            "of_groups_with_the_source": sum(traced for _, traced in self.traces.values()),
        }


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
        if not self._certificate_of(erasure).exists():
            # Before anything is taken: an attempt that is interrupted takes its figures with it.
            self._write_certificate(erasure, self.find(), ended_ns=None)
        crash_points.reached(crash_points.ERASURE_OPEN)
        self._hold_back_from_apis()
        found = self._take(is_dry=False)
        found.windows |= self._journal.erasures.recorded().keys()
        certificate = self._write_certificate(erasure, found, ended_ns=None)
        self._check_that_nothing_is_left()
        stored = Stored(self._places.state_dir, self._journal, self._places.spool)
        self._journal.erasures.book(spooled_bytes=stored.sizes())
        crash_points.reached(crash_points.ERASURE_BOOKED)
        found.out_of_reach += [
            f"{name} in SPOOL_URL, whose windows accept-gap marked as released: move it away"
            for name in stored.remove_leftovers()
        ]
        # A cache; an earlier version kept paths in it.
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
        left: dict[int, Left] = {}
        stored = Stored(places.state_dir, self._journal, places.spool).erase(rule, is_dry=is_dry, left=left)
        found.rows |= {place: rows for place, rows in stored.items() if rows}
        found.windows |= left.keys()
        found.add_traces(left)
        for name, folder in places.csv.items():
            for cut in CsvFolder(folder, name, self._journal).erase(rule, is_dry=is_dry):
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
        found.out_of_reach += places.doubts
        return found

    def _take_from_buckets(self, found: Found, *, is_dry: bool) -> None:
        for name, bucket in self._places.buckets.items():
            if bucket.is_out_of_reach:
                if rows := bucket.rows_left(self._person, self._entries):
                    found.left_behind[name] = rows
                found.out_of_reach.append(
                    f"{name}: InfluxDB 3 Core cannot delete rows, only tables and databases; {rows} rows of the source are in it"
                )
                continue
            for cut in bucket.erase(self._rule, self._entries, is_dry=is_dry):
                found.add(name, cut)
            self._tell_of_cohorts(found, name, bucket)

    def _tell_of_cohorts(self, found: Found, name: str, bucket: BucketRows) -> None:
        if not bucket.is_shared:
            return
        if bucket.of_other_cohorts:
            found.left_behind[name] = bucket.of_other_cohorts
        found.out_of_reach.append(
            f"{name}: what services of other cohorts released; {bucket.of_other_cohorts} rows of the source were met there. Run this with "
            "the settings of each"
        )
        if bucket.unclear_windows:
            found.out_of_reach.append(
                f"{name}: in {bucket.unclear_windows} windows the raw bucket does not tell any more which rows this cohort released: only "
                "rows of the source were taken there, and the summaries say partial"
            )

    def _hold_back_from_apis(self) -> None:
        """Mark, for each API, the batches that it may have taken already and that the erasure changes."""
        for name in self._places.apis:
            begun = self._journal.outputs.receipts(name)
            key_of = {str(receipt.get("batch_id")): key for key, receipt in begun.items()}
            keys = [
                key_of[batch.batch_id]
                for chunk in self._journal.outputs.spooled_chunks()
                for batch in self._places.spool.read(chunk)
                if batch.batch_id in key_of and cut_batch(batch, self._rule).taken is not None
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
        """Return the ids whose bytes are searched for, as CSV and JSON may write them too."""
        return [form for form in _written_forms(self._person.exact) if len(form) >= SHORTEST_SEARCHED_BYTES]

    def _search_bytes(self) -> None:
        """Search every file for the source's ids, whatever the file is."""
        folders = [self._places.state_dir, *self._places.csv.values()]
        files = [Path(above) / name for folder in folders for above, _, names in os.walk(folder) for name in names]
        others = _written_forms(self._person.others)
        hits = [path for path in (*files, *self._places.ledgers) if _holds(path, self._searched(), others)]
        if hits:
            shown = ", ".join(str(path) for path in hits[:10])
            raise ConfigurationError(
                f"the erasure stays open: {len(hits)} files still hold the id or the pseudonym, in rows that are not understood: {shown}. "
                "Remove these rows or move the files away, and run this again"
            )

    def _write_certificate(self, erasure: OpenErasure, found: Found, *, ended_ns: int | None) -> Path:
        path = self._certificate_of(erasure)
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
            "found": any(rows.values()),
            "trace": {name: max(count, before.get("trace", {}).get(name, 0)) for name, count in found.trace.items()},
            "rows_left_out_of_reach": found.left_behind,
            "rows_in_no_known_window": max(found.outside, before.get("rows_in_no_known_window", 0)),
            "searched": [
                "no byte of the id or the pseudonym is left in STATE_DIR, CSV files and ledgers; Parquet files and buckets were read again"
                if self._searched()
                else f"ids of fewer than {SHORTEST_SEARCHED_BYTES} bytes are found anywhere by chance: places were read again instead"
            ],
            "out_of_reach": [*found.out_of_reach, *_NEVER_REACHED],
            "windows": sorted(windows),
        }
        found.certificate = described
        make_folder(path.parent)
        write_durably(path, json.dumps(described, indent=1).encode())
        return path

    def _certificate_of(self, erasure: OpenErasure) -> Path:
        return self._places.state_dir / "erasures" / f"{_file_time(erasure.began_ns)}.json"

    def _spans(self, starts_ns: Iterable[int]) -> Iterator[tuple[str, str]]:
        for start_ns in starts_ns:
            entry = self._rule.windows.entry_at(start_ns)
            if entry is not None and entry.window_ns:
                yield _time(start_ns), _time(start_ns + entry.window_ns)


def was_erased(state_dir: Path, digest: str) -> bool:
    """Return whether a certificate says that rows of a source were erased."""
    told = (json.loads(read_ours(path)) for path in (state_dir / "erasures").glob("*.json"))
    return any(one.get("source") == digest and any(one.get("rows", {}).values()) for one in told)


def digest_of_id(journal: Journal, source_id: str) -> str:
    """Return the digest by which the journal knows a source from its id."""
    return id_digest(journal.facts.digests.exclusion_key, source_id)


def digest_of_pseudonym(journal: Journal, pseudonym: str) -> str:
    """Return the digest by which the journal knows a source from its released id."""
    return released_id_digest(journal.facts.digests.exclusion_key, pseudonym)


def _written_forms(texts: Collection[str]) -> list[bytes]:
    """Return the bytes of texts as they are, and as CSV and JSON write them."""
    quoted = (text for one in texts for text in (one, one.replace('"', '""'), json.dumps(one)[1:-1]))
    unescaped = (json.dumps(one, ensure_ascii=False)[1:-1] for one in texts)
    return sorted({text.encode() for text in itertools.chain(quoted, unescaped)})


def _holds(path: Path, texts: Sequence[bytes], others: Sequence[bytes]) -> bool:
    """Return whether a file holds one of some texts, other than as a part of a longer one of others."""
    if not texts:
        return False
    longest = max(map(len, (*texts, *others)))
    # At one place, the longer one is tried first.
    wanted = re.compile(b"|".join(map(re.escape, sorted({*texts, *others}, key=len, reverse=True))))
    try:
        with path.open("rb") as file:
            content, is_last = b"", False
            while not is_last:
                block = file.read(_BLOCK_BYTES)
                content, is_last = content + block, not block
                # A text that begins later may go on in the next block.
                end = len(content) if is_last else max(0, len(content) - longest)
                position = 0
                for found in wanted.finditer(content):
                    if found.start() >= end:
                        break
                    if found[0] in texts:
                        return True
                    position = found.end()
                content = content[max(position, end) :]
    except FileNotFoundError:
        pass
    return False


def _time(time_ns: int) -> str:
    return f"{datetime.fromtimestamp(time_ns // 10**9, UTC):%Y-%m-%dT%H:%M:%SZ}"


def _file_time(time_ns: int) -> str:
    return f"{datetime.fromtimestamp(time_ns // 10**9, UTC):%Y%m%d-%H%M%S}-{time_ns % 10**9:09d}"
