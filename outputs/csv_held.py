"""Reads CSV files of the service back, and removes old ones. A file's name tells which windows it may hold."""

from __future__ import annotations

import os
import stat
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv

from anonymizer.errors import SourceUnavailable
from anonymizer.windows import NANOSECONDS, WindowRange
from disk.durable_file import remove_durably
from outputs.csv_names import HEADER, one_name_s

_TIME = pa.timestamp("ns", tz="UTC")


class HeldCsv:
    """The CSV files of one output.

    Args:
        folder: CSV_OUTPUT_DIR.
        pattern: CSV_FILENAME_PATTERN.
    """

    def __init__(self, folder: Path, pattern: str) -> None:
        self._folder = folder
        self._pattern = pattern
        self.name = f"csv:{os.path.realpath(folder)}"
        #: The length of the interval that has a name of its own; None if names repeat, so that none tells its age.
        self.unit_ns = (one_name_s(pattern) or 0) * NANOSECONDS or None

    def file_name(self, start_ns: int) -> str:
        """Return the name of the file of a window that starts then."""
        return datetime.fromtimestamp(start_ns // NANOSECONDS, UTC).strftime(self._pattern)

    def rows_in(self, windows: WindowRange) -> npt.NDArray[np.int64]:
        """Return how many rows the files hold for each window, shape (len(windows),); a missing file holds none.

        Raises:
            SourceUnavailable: A file cannot be read as one of ours.
        """
        found = np.zeros(len(windows), dtype=np.int64)
        windows_of_file: dict[str, list[int]] = defaultdict(list)
        for index, window in enumerate(windows):
            windows_of_file[self.file_name(window.start_ns)].append(index)
        for file_name, indexes in windows_of_file.items():
            of_rows = windows.index_of(self._times(file_name))
            held = np.bincount(of_rows[(of_rows >= 0) & (of_rows < len(windows))], minlength=len(windows))
            found[indexes] = held[indexes]
        return found

    def is_mounted(self) -> bool:
        """Return whether there is such a folder."""
        return os.path.isdir(self._folder)  # noqa: PTH112  (Path.is_dir raises what the disk says)

    def is_there(self, file_name: str) -> bool:
        """Return whether there is anything of that name."""
        return os.path.lexists(self._folder / file_name)

    def whole_times(self, file_name: str, *, committed: int | None) -> npt.NDArray[np.int64]:
        """Return the times of a file of which every byte is the service's, in nanoseconds, shape (n,).

        Args:
            file_name: Its name.
            committed: Its committed length; None if it is not known.

        Raises:
            ValueError: It is no such file; the message says why, as the end of a sentence.
        """
        path = self._folder / file_name
        try:
            status = path.lstat()
            if not stat.S_ISREG(status.st_mode):
                raise ValueError("is a link or no regular file")
            if committed is not None and status.st_size != committed:
                raise ValueError("is longer or shorter than what was written to it")
            with path.open("rb") as file:
                if file.readline() != HEADER:
                    raise ValueError("does not begin with the header of a file of the service")
            return self._times(file_name)
        except OSError as error:
            raise ValueError(f"cannot be read ({error.strerror or error})") from None
        except SourceUnavailable:
            raise ValueError("holds lines that the service did not write") from None

    def remove(self, file_names: Iterable[str], *, after_each: Callable[[], None]) -> dict[str, str]:
        """Remove files for good; return why some could not be removed, by name. Raises OSError as `remove_durably` does."""
        return remove_durably([self._folder / name for name in file_names], after_each=after_each)

    def others(self, before_ns: int, *, but_for: Collection[str]) -> int:
        """Return how many files are older than that by their last change, whatever they are, but for those of some names."""
        limit_s = before_ns / NANOSECONDS
        try:
            with os.scandir(self._folder) as entries:
                return sum(_is_file_before(entry, limit_s) and entry.name not in but_for for entry in entries)
        except OSError:
            return 0

    def _times(self, file_name: str) -> npt.NDArray[np.int64]:
        only_times = pa_csv.ConvertOptions(include_columns=["timestamp"], column_types={"timestamp": _TIME})
        path = self._folder / file_name
        try:
            if not path.exists():
                return np.empty(0, dtype=np.int64)
            table = pa_csv.read_csv(path, parse_options=pa_csv.ParseOptions(newlines_in_values=True), convert_options=only_times)
        except (pa.ArrowInvalid, pa.ArrowKeyError, OSError) as error:
            raise SourceUnavailable(f"{path} cannot be read as the service's CSV ({type(error).__name__})") from None
        times: npt.NDArray[np.int64] = pc.cast(table.column("timestamp"), pa.int64()).to_numpy()
        return times


def _is_file_before(entry: os.DirEntry[str], limit_s: float) -> bool:
    try:
        return entry.is_file(follow_symlinks=False) and entry.stat(follow_symlinks=False).st_mtime < limit_s
    except OSError:
        return False
