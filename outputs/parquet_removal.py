"""Removes old Parquet files: the rows of a chunk go, its window summaries stay and say so.

Summaries hold counts and no row. They are what remembers releases when STATE_DIR is lost, so they are never removed.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from anonymizer.errors import OutputDenied, OutputUnavailable
from anonymizer.windows import HOUR_NS, Window
from outputs.parquet_encoding import ROWS, WINDOWS, folder_of, stored_rows, stored_summaries, with_summaries
from outputs.parquet_held import File, HeldParquet, file_of


class OldParquet(HeldParquet):
    """The same files, to remove old ones. Those of a former STATE_DIR stay: no journal has their rows on record."""

    def files(self, before_ns: int) -> tuple[list[File], int]:
        """Return the files of chunks that end by then, in order, and how many other files lie in folders of that time.

        Raises:
            OutputUnavailable: The place cannot be listed now; also OutputDenied.
        """
        paths = self._place.paths(ROWS, before=f"{ROWS}/{folder_of(max(0, before_ns), 'day')}~")
        ours = [file for path in paths if (file := file_of(path)) is not None and file.label in self._labels]
        others = sum(not path.rpartition("/")[2].startswith(".") for path in paths) - len(ours)
        return sorted((file for file in ours if file.span.end_ns <= before_ns), key=lambda one: one.span), others

    def whole_times(self, path: str) -> npt.NDArray[np.int64]:
        """Return the times of a file's rows in nanoseconds, shape (n,).

        Raises:
            ValueError: It is not a file of the service; the message says why, as the end of a sentence.
            OutputUnavailable: It cannot be read now; also OutputDenied.
        """
        try:
            return stored_rows(self._place.read(path) or b"").times_ns
        except (pa.ArrowException, OSError, KeyError):
            raise ValueError("cannot be read as Parquet of the service") from None

    def remove(self, path: str) -> str:
        """Remove a file, after its summaries say so; return why that failed, empty if it did not."""
        try:
            self._mark(path)
            self._place.remove(path)
        except (OutputDenied, OutputUnavailable, ValueError) as error:
            return str(error)
        return ""

    def is_there(self, path: str) -> bool:
        """Return whether a file is there. Raises as `files` does, also where nothing of its chunk is: a disk may be missing."""
        if self._place.read(path) is not None:
            return True
        file = file_of(path)
        if file is None or not any(map(self._place.read, _paths_of_summaries(path.rpartition("/")[2], file.span))):
            raise OutputUnavailable(
                "PARQUET_URL does not hold the summaries of a chunk either, which are never removed: is its disk missing?"
            )
        return False

    def _mark(self, path: str) -> None:
        """Let the summaries of a file's chunk say that rows were removed."""
        file = file_of(path)
        assert file is not None, "as `files` returned it"
        for summaries in _paths_of_summaries(path.rpartition("/")[2], file.span):
            if (content := self._place.read(summaries)) is None:
                continue
            try:
                told = stored_summaries(content)
            except (pa.ArrowException, OSError, KeyError):
                raise ValueError(f"{summaries} cannot be read as Parquet of the service") from None
            if not all(one.get("removed") for one in told):
                self._place.replace(summaries, with_summaries(summaries, content, [{**one, "removed": True} for one in told]))


def _paths_of_summaries(name: str, span: Window) -> Iterator[str]:
    """Yield where the summaries of a chunk can be, with folders of an hour or a day."""
    hours = range(span.start_ns // HOUR_NS * HOUR_NS, span.end_ns, HOUR_NS)
    found = {folder_of(time_ns, "hour") for time_ns in hours} | {folder_of(time_ns, "day") for time_ns in hours}
    return (f"{WINDOWS}/{one}/{name}" for one in sorted(found))
