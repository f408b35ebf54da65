"""The recordings that INPUT_FILE names: a file, or all files of a folder or glob as one data set.

Each file is one recording of one source. Messages identify a file by its number in name order, never by its name, which may be a
patient's.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from anonymizer.errors import SourceRefused
from anonymizer.samples import Samples
from inputs.file_columns import ValueKind
from inputs.file_survey import Cells
from inputs.file_times import TimeKind
from inputs.recordings.dicom import open_dicom
from inputs.recordings.edf import open_edf
from inputs.recordings.paths import TABLES, Kind, files_of_folder, kind_of, recordings_at
from inputs.recordings.recording import Opener, RecordedFile, Recording, Unreadable, Wanted
from inputs.recordings.wfdb import files_of, open_wfdb

#: Samples that are read together.
ROWS_READ_TOGETHER = 1 << 18

#: The readers by kind of recording.
_OPENERS: dict[Kind, Opener] = {"EDF": open_edf, "WFDB": open_wfdb, "DICOM": open_dicom}

#: Prefix of default source names.
NEUTRAL_NAME = "recording"


def opener_of(given: str, settings: RecordingSettings) -> Callable[[], Recordings] | None:
    """Return a function that opens the recordings that INPUT_FILE names; None if it names something else.

    The function raises SourceRefused as `Recordings` does, and if there are tables among the recordings.
    """
    paths = recordings_at(given)
    if not paths:
        return None

    def opened() -> Recordings:
        tables = sum(one.suffix.lower() in TABLES for one in files_of_folder(given))
        if tables:
            raise SourceRefused(
                f"INPUT_FILE names {len(paths)} recordings and {tables} CSV or Parquet files: put them into folders of their own, "
                "and anonymize one after the other"
            )
        return Recordings(paths, settings)

    return opened


@dataclass(frozen=True, slots=True)
class RecordingSettings:
    """The settings for recordings.

    Args:
        channel: INPUT_CHANNEL.
        source_ids: INPUT_SOURCE_ID: none, one for all files, or one per file.
        start_ns: INPUT_START_TIME.
        given_unit: VALUE_UNIT if it is not µV, for a warning: headers state the unit.
    """

    channel: str = ""
    source_ids: tuple[str, ...] = ()
    start_ns: int | None = None
    given_unit: str = ""


@dataclass(frozen=True, slots=True)
class WhichFile:
    """A file by its number in name order, and the number of files."""

    number: int
    count: int

    @contextmanager
    def named(self) -> Iterator[None]:
        """Turn errors that make the file unreadable into SourceRefused with its number."""
        which = f": file {self.number} of {self.count} (in the order of their names)" if self.count > 1 else ""
        try:
            yield
        except Unreadable as error:
            raise SourceRefused(f"INPUT_FILE{which} {error}") from None
        except ImportError as error:
            raise SourceRefused(
                f"INPUT_FILE{which} needs the Python package {error.name}, which is not installed: pip install -r requirements-formats.txt"
            ) from None


@dataclass(frozen=True, slots=True)
class RecordingPart:
    """Samples that are read together.

    Args:
        recording: The recording.
        source_id: Its source.
        file: Its file.
        first, stop: The range of samples.
    """

    recording: Recording
    source_id: str
    file: WhichFile
    first: int
    stop: int

    def cells(self, is_wanted: Callable[[Samples], np.ndarray]) -> Cells:
        """Return its samples as cells of a file, values in microvolts."""
        times_ns = self.recording.times_ns(self.first, self.stop)
        with self.file.named():
            values_uv = self.recording.read(self.first, self.stop)
        samples = Samples(times_ns, np.zeros(len(times_ns), np.int32), (self.source_id,), values_uv)
        is_known = self.recording.has_zone or not self.recording.has_start
        time_kinds = np.full(len(samples), TimeKind.CALENDAR if is_known else TimeKind.WITHOUT_ZONE, np.int8)
        value_kinds = np.where(np.isfinite(values_uv), ValueKind.NUMBER, ValueKind.MISSING).astype(np.int8)
        return Cells(samples, time_kinds, value_kinds, is_wanted(samples))

    def place(self, row: int) -> str:
        """Return the place of one of its samples, counted from 1."""
        of_file = f" of file {self.file.number}" if self.file.count > 1 else ""
        return f"sample {self.first + row + 1}{of_file}"


class Recordings:
    """The recordings of a data set, each opened once and checked.

    Args:
        paths: The files, in order.
        settings: What to read.

    Raises:
        SourceRefused: One cannot be read, with its number; or the settings do not fit.
        OSError: A file cannot be read.
    """

    def __init__(self, paths: Sequence[Path], settings: RecordingSettings) -> None:
        self._count = len(paths)
        source_ids = self._source_ids(settings.source_ids)
        wanted = Wanted(settings.channel, settings.start_ns)
        digests: list[str] = []
        self._recordings: list[tuple[Recording, str, WhichFile]] = []
        for number, (path, source_id) in enumerate(zip(paths, source_ids, strict=True), start=1):
            which = WhichFile(number, self._count)
            with which.named():
                files, recording = _opened(path, wanted)
            digests.append(_digest_of([file.digest for file in files]))
            self._recordings.append((recording, source_id, which))
        if any(not recording.has_start for recording, _, _ in self._recordings):
            # With another start time the same samples would be released a second time.
            digests.append(f"from {settings.start_ns}")
        self.digest = _digest_of(digests)
        self.remarks = [*self._unused_start(settings), *_unused_unit(settings)]

    @property
    def rows(self) -> int:
        """How many samples there are."""
        return sum(recording.rows for recording, _, _ in self._recordings)

    def parts(self) -> Iterator[RecordingPart]:
        """Yield all samples, in parts."""
        for recording, source_id, file in self._recordings:
            for first in range(0, recording.rows, ROWS_READ_TOGETHER):
                yield RecordingPart(recording, source_id, file, first, min(first + ROWS_READ_TOGETHER, recording.rows))

    def _source_ids(self, given: tuple[str, ...]) -> list[str]:
        if len(given) == 1:
            return list(given) * self._count
        if not given and self._count == 1:
            return [NEUTRAL_NAME]
        if not given:
            return [f"{NEUTRAL_NAME}-{number:0{len(str(self._count))}}" for number in range(1, self._count + 1)]
        if len(given) != self._count:
            raise SourceRefused(
                f"INPUT_SOURCE_ID has {len(given)} names, and INPUT_FILE {self._count} recordings: give one name for all, or "
                "one for each, in the order of the files' names"
            )
        return list(given)

    def _unused_start(self, settings: RecordingSettings) -> list[str]:
        own = sum(recording.has_start for recording, _, _ in self._recordings)
        if settings.start_ns is None or not own:
            return []
        which = (
            "it says when it was recorded" if self._count == 1 else f"{own} of {self._count} files say when they were recorded"
        )
        return [f"INPUT_FILE: {which}, so INPUT_START_TIME is not used for {'it' if self._count == 1 else 'them'}"]


def _unused_unit(settings: RecordingSettings) -> list[str]:
    if not settings.given_unit:
        return []
    return [f"INPUT_FILE: VALUE_UNIT={settings.given_unit} is not used: recordings say themselves what their values are in"]


def _opened(path: Path, wanted: Wanted) -> tuple[list[RecordedFile], Recording]:
    """Return the files of a recording and its wanted channel."""
    kind = kind_of(path)
    if kind is None:
        raise Unreadable("was written to while it was read")
    files = [RecordedFile(one) for one in (files_of(path) if kind == "WFDB" else (path,))]
    return files, _OPENERS[kind](files, wanted)


def _digest_of(digests: Sequence[str]) -> str:
    """Return the only digest, or one of all in sorted order, so that file names do not matter."""
    return digests[0] if len(digests) == 1 else hashlib.sha256("\n".join(sorted(digests)).encode()).hexdigest()
