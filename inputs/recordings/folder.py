"""The recordings that INPUT_FILE names: a file, or all files of a folder or a glob, which are one data set.

Each file is one recording of one source. Files are told apart by their number in the order of their names, never by a name: it may be that
of a patient.
"""

from __future__ import annotations

import glob
import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from anonymizer.errors import SourceRefused
from anonymizer.samples import Samples
from inputs.file_columns import ValueKind
from inputs.file_format import SUFFIXES, format_of_file
from inputs.file_survey import Cells
from inputs.file_times import TimeKind
from inputs.recordings.dicom import open_dicom
from inputs.recordings.edf import open_edf
from inputs.recordings.recording import Opener, RecordedFile, Recording, Unreadable, Wanted
from inputs.recordings.wfdb import files_of, open_wfdb

#: Samples that are read together.
ROWS_READ_TOGETHER = 1 << 18

#: The readers, by how a file's name ends, or would end if it were named after its format.
_OPENERS: dict[str, Opener] = {
    ".edf": open_edf,
    ".bdf": open_edf,
    ".hea": open_wfdb,
    ".dcm": open_dicom,
    ".dicom": open_dicom,
}

#: The endings of other files that are read, and not together with recordings.
_TABLES = (".csv", ".gz", ".parquet", ".pq")

#: What lists the DICOM files of a folder; it holds no samples, and is itself DICOM.
_DICOM_DIRECTORY = "DICOMDIR"

#: What the default names of sources begin with.
NEUTRAL_NAME = "recording"


def recordings_at(given: str) -> tuple[Path, ...]:
    """Return the recordings that a path, a folder or a glob names, in order of their names; none where it names something else.

    A WFDB record may be named by its header or by its file of samples, if the header lies beside it.
    """
    found = _files_of_folder(given)
    headers = (one.with_suffix(".hea") if one.suffix.lower() == ".dat" else one for one in found)
    return tuple(dict.fromkeys(one for one in headers if one.is_file() and _opener_for(one)))


def _opener_for(path: Path) -> Opener | None:
    """Return what reads a recording, told by its name or else by its first bytes; None for any other file."""
    suffix = path.suffix.lower()
    if suffix in _TABLES or path.name == _DICOM_DIRECTORY:
        return None
    return _OPENERS.get(suffix) or _OPENERS.get(SUFFIXES.get(format_of_file(path), ""))


def _files_of_folder(given: str) -> Sequence[Path]:
    """Return all files that a path, a folder or a glob names, in order of their names; without hidden ones.

    None where it cannot be reached: that is said where the path is checked.
    """
    try:
        return _reached_files_of_folder(given)
    except OSError:
        return []


def _reached_files_of_folder(given: str) -> Sequence[Path]:
    path = Path(given)
    if path.is_dir():
        found = [one for one in path.rglob("*") if _is_shown(one.relative_to(path))]
    elif glob.has_magic(given) and not path.exists():
        found = [Path(one) for one in glob.glob(given, recursive=True)]  # noqa: PTH207  (a pathlib glob needs the folder it begins in)
    else:
        found = [path]
    return sorted(one for one in found if one.is_file())


def opener_of(given: str, settings: RecordingSettings) -> Callable[[], Recordings] | None:
    """Return what opens the recordings that INPUT_FILE names; None where it names something else.

    What it returns raises SourceRefused as `Recordings` does, and where tables stand among the recordings.
    """
    paths = recordings_at(given)
    if not paths:
        return None

    def opened() -> Recordings:
        tables = sum(one.suffix.lower() in _TABLES for one in _files_of_folder(given))
        if tables:
            raise SourceRefused(
                f"INPUT_FILE names {len(paths)} recordings and {tables} CSV or Parquet files: put them into folders of their own, "
                "and anonymize one after the other"
            )
        return Recordings(paths, settings)

    return opened


def _is_shown(path: Path) -> bool:
    """Return whether neither a file nor a folder above it is hidden."""
    return not any(part.startswith(".") for part in path.parts)


@dataclass(frozen=True, slots=True)
class RecordingSettings:
    """What the settings say about recordings.

    Args:
        channel: INPUT_CHANNEL.
        source_ids: INPUT_SOURCE_ID: none, one for all files, or one each.
        start_ns: INPUT_START_TIME.
        given_unit: VALUE_UNIT, where it is not µV; headers say the unit.
    """

    channel: str = ""
    source_ids: tuple[str, ...] = ()
    start_ns: int | None = None
    given_unit: str = ""


@dataclass(frozen=True, slots=True)
class WhichFile:
    """A file by its number, of how many, in the order of their names."""

    number: int
    count: int

    @contextmanager
    def named(self) -> Iterator[None]:
        """Turn what makes the file unreadable into SourceRefused with its number."""
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
        recording: Of which recording.
        source_id: Whose.
        file: Which file it is of.
        first, stop: From which sample up to which.
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
        """Return where one of its samples stands, counted as people do."""
        of_file = f" of file {self.file.number}" if self.file.count > 1 else ""
        return f"sample {self.first + row + 1}{of_file}"


class Recordings:
    """The recordings of a data set, each opened once and checked.

    Args:
        paths: Their files, in order.
        settings: What to read of them.

    Raises:
        SourceRefused: One cannot be read, with its number; or the settings do not fit.
        OSError: The disk's.
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
            # At another time the same samples would be released a second time.
            digests.append(f"from {settings.start_ns}")
        self.digest = _digest_of(digests)
        self.remarks = [*self._unused_start(settings), *_unused_unit(settings)]

    @property
    def rows(self) -> int:
        """How many samples there are."""
        return sum(recording.rows for recording, _, _ in self._recordings)

    def parts(self) -> Iterator[RecordingPart]:
        """Yield all samples in parts."""
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
    opener = _opener_for(path)
    if opener is None:
        raise Unreadable("was written to while it was read")
    files = [RecordedFile(one) for one in (files_of(path) if opener is open_wfdb else (path,))]
    return files, opener(files, wanted)


def _digest_of(digests: Sequence[str]) -> str:
    """Return the one digest, or that of all, in any order: names of files do not matter."""
    return digests[0] if len(digests) == 1 else hashlib.sha256("\n".join(sorted(digests)).encode()).hexdigest()
