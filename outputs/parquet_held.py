"""Reads a Parquet output back: which windows have a summary, and how many rows each has. File names show which files to read."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from anonymizer.cohorts import is_among
from anonymizer.errors import OutputDenied, OutputUnavailable, SourceDenied, SourceRefused, SourceUnavailable
from anonymizer.windows import Window, WindowRange
from outputs.parquet_encoding import ROWS, SUFFIX, WINDOWS, folder_of
from outputs.parquet_places import Place

_T = TypeVar("_T")

#: A file is in the folder of its window's start, and a window that began before a span may reach into it.
_LOOK_BACK_NS = 2 * 24 * 3600 * 10**9


class File(NamedTuple):
    """What a file's name states: the data set's label, and the span of its chunk."""

    path: str
    label: str
    span: Window


class HeldParquet:
    """A data set's files in one place. Those of a former STATE_DIR count too, whose labels have only the first part of one of ours.

    Args:
        place: Where the files are.
        labels: The data set's labels in names of files, present and former.
    """

    def __init__(self, place: Place, labels: Collection[str]) -> None:
        self._place = place
        self._labels = frozenset(labels)
        self.name = f"parquet:{place.name}"
        self._listed: dict[str, tuple[str, list[File]]] = {}

    def released(self, labels: Collection[str], span: Window) -> list[Window]:
        """Return the windows of the data set that reach into the span and have a summary, in order.

        Args:
            labels: What the data set is called, besides those that were given.
            span: From when to when.

        Raises:
            SourceDenied: Our keys may not read it.
            SourceRefused: A file is damaged.
            SourceUnavailable: It cannot be read now.
        """
        found = [Window(start_ns, end_ns) for start_ns, end_ns, _ in self._summaries(span, self._labels.union(labels))]
        return sorted(window for window in found if window.end_ns > span.start_ns and window.start_ns < span.end_ns)

    def labels(self, span: Window) -> dict[str, int]:
        """Return what data sets with summaries in the span are called, and where the last chunk of each ends; raises as `released`."""
        ends_ns: dict[str, int] = {}
        for file in self._all_files(WINDOWS, span):
            ends_ns[file.label] = max(file.span.end_ns, ends_ns.get(file.label, file.span.end_ns))
        return ends_ns

    def newest_labels(self) -> dict[str, int]:
        """Return nothing: to find the newest files all would have to be listed; their service has a claim."""
        return {}

    def rows_released(self, span: Window) -> dict[int, int]:
        """Return how many released rows each summary in the span states, by the window's start. Raises as `released` does."""
        return {
            start_ns: rows for start_ns, _, rows in self._summaries(span, self._labels) if span.start_ns <= start_ns < span.end_ns
        }

    def rows_in(self, windows: WindowRange) -> npt.NDArray[np.int64]:
        """Return how many rows lie in each window, shape (len(windows),). Raises as `released` does."""
        found = np.zeros(len(windows), dtype=np.int64)
        for file in self._all_files(ROWS, Window(windows.start_ns, windows.end_ns)):
            if not is_among(file.label, self._labels):
                continue
            index = windows.index_of(self._table(file, ["timestamp"]).column(0).cast(pa.int64()).to_numpy())
            found += np.bincount(index[(index >= 0) & (index < len(windows))], minlength=len(windows))
        return found

    def is_missing(self) -> bool:
        """Return False: whether there is anything, the listing tells."""
        return False

    def _summaries(self, span: Window, labels: Collection[str]) -> Iterator[tuple[int, int, int]]:
        for file in (file for file in self._all_files(WINDOWS, span) if is_among(file.label, labels)):
            table = self._table(file, ["window_start", "window_end", "rows_released"])
            columns = [column.cast(pa.int64()).to_pylist() for column in table.columns]
            yield from zip(*columns, strict=True)

    def _all_files(self, folder: str, span: Window) -> list[File]:
        """Return the files of all data sets whose chunks reach into a span."""
        begin = f"{folder}/{folder_of(max(0, span.start_ns - _LOOK_BACK_NS), 'day')}"
        listed_from, files = self._listed.get(folder, ("\U0010ffff", []))
        if begin < listed_from:
            paths = self._asked(lambda: self._place.paths(folder, after=begin))
            files = [file for path in paths if (file := file_of(path))]
            self._listed[folder] = begin, files
        return [file for file in files if file.span.end_ns > span.start_ns and file.span.start_ns < span.end_ns]

    def _table(self, file: File, columns: list[str]) -> pa.Table:
        content = self._asked(lambda: self._place.read(file.path))
        try:
            return pq.ParquetFile(pa.BufferReader(content or b"")).read(columns)
        except (pa.ArrowException, OSError, KeyError):
            raise SourceRefused(
                f"PARQUET_URL: {file.path} cannot be read as Parquet of ours, so what it holds is not known: put a good copy in its place, "
                "or move it away"
            ) from None

    def _asked(self, question: Callable[[], _T]) -> _T:
        try:
            return question()
        except OutputDenied as error:
            raise SourceDenied(str(error)) from None
        except OutputUnavailable as error:
            raise SourceUnavailable(str(error)) from None


def file_of(path: str) -> File | None:
    """Return what a file's name states; None for a file that the service did not name."""
    label, *span = path.rpartition("/")[2].removesuffix(SUFFIX).rsplit("-", 2)
    if not path.endswith(SUFFIX) or len(span) != 2 or not all(text.isdecimal() for text in span):
        return None
    start_ns, end_ns = map(int, span)
    return File(path, label, Window(start_ns, end_ns)) if start_ns < end_ns else None
