"""Erases from Parquet files, in a folder or a bucket: the summaries of a chunk are replaced first, then its rows.

A file that is replaced keeps its name and its promise; its digest is that of the rows that are left. A file without a row is removed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from anonymizer.cohorts import is_among
from anonymizer.errors import SourceRefused
from operations.erasure.rows import Cut, Left, Rows, Rule
from outputs.parquet_encoding import ROWS, SUFFIX, WINDOWS, stored_rows, stored_summaries, with_summaries, without_rows
from outputs.parquet_held import file_of
from outputs.parquet_places import Place
from service import crash_points
from service.state.erasures import Taken
from service.state.journal import Journal
from service.state.removals import set_aside_place


class ParquetPlace:
    """The Parquet files of one data set.

    Args:
        place: Where they are.
        labels: Of the data set, in names of files.
        output: The output's name in the journal.
        journal: Records what is taken.
    """

    def __init__(self, place: Place, labels: Collection[str], output: str, journal: Journal) -> None:
        self._place = place
        self._labels = frozenset(labels)
        self._journal = journal
        self._aside = AsideRows(output, journal)
        position = {one.name: one.position for one in journal.outputs.positions()}.get(output)
        self._pending = {chunk for chunk in journal.outputs.spooled_chunks() if position is not None and chunk > position}

    def erase(self, rule: Rule, *, is_dry: bool) -> Iterator[Cut]:
        """Erase from every chunk's files, or only look; yield what is taken from each.

        Raises:
            SourceRefused: A file cannot be understood, so that nobody can say whose rows it holds.
        """
        files: dict[str, list[str]] = defaultdict(list)
        for path in self._place.paths(ROWS):
            if self._is_ours(path):
                files[path.rpartition("/")[2]].append(path)
        summaries: dict[str, list[str]] = defaultdict(list)
        for path in self._place.paths(WINDOWS):
            summaries[path.rpartition("/")[2]].append(path)
        for name, paths in files.items():
            yield self._erase_chunk(name, paths, summaries[name], rule, is_dry=is_dry)

    def other_data_sets(self) -> int:
        """Return how many files belong to other data sets."""
        names = {path.rpartition("/")[2] for path in self._place.paths(ROWS)}
        return sum(name.endswith(SUFFIX) and not self._is_ours(name) for name in names)

    def _is_ours(self, path: str) -> bool:
        file = file_of(path)
        return file is not None and is_among(file.label, self._labels)

    def _erase_chunk(self, name: str, paths: list[str], summaries: list[str], rule: Rule, *, is_dry: bool) -> Cut:
        contents = {path: self._content(path) for path in paths}
        try:
            parts = {path: stored_rows(content) for path, content in contents.items()}
        except (pa.ArrowException, OSError, KeyError):
            raise SourceRefused(f"PARQUET_URL: a file of {name} cannot be read as Parquet of ours: {_UNKNOWN}") from None
        code_of = {one: code for code, one in enumerate(sorted({one for part in parts.values() for one in part.ids}))}
        rows = Rows(
            np.concatenate([part.times_ns for part in parts.values()]),
            np.concatenate([np.array([code_of[one] for one in part.ids], dtype=np.int32)[part.codes] for part in parts.values()]),
            tuple(code_of),
            np.concatenate([part.values_uv for part in parts.values()]),
        )
        cut = rule.cut(rows)
        if is_dry or not cut.is_gone.any():
            return cut
        self._journal.erasures.record(f"parquet {name}", cut.taken)
        crash_points.reached(crash_points.ERASURE_FOUND)
        if self._is_pending(name, rule):
            # It is written again from the spool, perhaps under another name: its first or last window may be gone.
            for path in (*summaries, *paths):
                self._place.remove(path)
            return cut
        for path in summaries:
            self._replace_summaries(path, cut, rule)
        crash_points.reached(crash_points.ERASURE_HALFWAY)
        first = 0
        for path, part in parts.items():
            stop = first + len(part.times_ns)
            self._replace_rows(path, contents[path], cut, first, stop)
            first = stop
        crash_points.reached(crash_points.ERASURE_REPLACED)
        return cut

    def _is_pending(self, name: str, rule: Rule) -> bool:
        """Return whether the output has not taken the chunk of some files, or the journal does not know that it has."""
        entry = rule.windows.entry_at(int(name.removesuffix(SUFFIX).rsplit("-", 2)[1]))
        return entry is not None and entry.chunk in self._pending

    def _replace_rows(self, path: str, content: bytes, cut: Cut, first: int, stop: int) -> None:
        if not cut.is_gone[first:stop].any():
            return
        left = without_rows(path, content, cut.is_gone[first:stop])
        if left is None:
            self._place.remove(path)
        else:
            self._place.replace(path, left)

    def _replace_summaries(self, path: str, cut: Cut, rule: Rule) -> None:
        content = self._content(path)
        try:
            told = stored_summaries(content)
        except (pa.ArrowException, OSError, KeyError):
            raise SourceRefused(f"PARQUET_URL: {path} cannot be read as Parquet of ours: {_UNKNOWN}") from None
        recorded = self._journal.erasures.recorded()
        new = [
            {**one, **changes(rule, recorded[start_ns], cut.left[start_ns], one, self._aside.left(start_ns))}
            if (start_ns := int(one["window_start"])) in cut.left
            else one
            for one in told
        ]
        self._place.replace(path, with_summaries(path, content, new))

    def _content(self, path: str) -> bytes:
        content = self._place.read(path)
        if content is None:
            raise SourceRefused(f"PARQUET_URL: {path} was there a moment ago and is not any more: {_UNKNOWN}")
        return content


_UNKNOWN = "what it holds is not known. Put a good copy in its place, or move it away"


class AsideRows:
    """Rows that an output refused, by window.

    Args:
        output: The output's name in the journal.
        journal: The journal.
    """

    def __init__(self, output: str, journal: Journal) -> None:
        self._output = output
        self._journal = journal
        self._refused = journal.outputs.set_aside_for(output)

    def before(self, start_ns: int) -> int:
        """Return how many rows of a window were refused and not erased before this erasure."""
        return sum(rows for batch_id, rows in self._refused.items() if batch_id.split("-")[-2:-1] == [str(start_ns)])

    def left(self, start_ns: int) -> int:
        """Return how many of these are left."""
        if not (refused := self.before(start_ns)):
            return 0
        taken = self._journal.erasures.recorded(set_aside_place(self._output)).get(start_ns)
        return refused - (0 if taken is None else min(refused, taken.rows))


def changes(rule: Rule, taken: Taken, left: Left, told: Mapping[str, Any], aside: int) -> dict[str, int | bool]:
    """Return the fields of a window's summary that an erasure changes; the same ones when it is made again.

    Args:
        rule: Knows the window.
        taken: What the window loses.
        left: What is left in the place.
        told: The summary's counts; need not be known of a window that the journal knows by itself.
        aside: Rows of the window that the place refused and that are left.
    """
    entry = rule.windows.entry_at(taken.start_ns)
    assert entry is not None, "a window that the journal knows"
    counts = entry.counts
    if entry.windows == 1:
        released, read = counts.released - taken.rows, counts.read - counts.excluded - taken.rows
    else:
        # The journal has only the sums of old windows. What was read and not released stays the same, however often this is made.
        released = left.rows + aside
        read = int(told["rows_read"]) - int(told["rows_released"]) + released
    certificate = left.certificate
    changed: dict[str, int | bool] = {
        "rows_read": read,
        "rows_released": released,
        "distinct_sources": 0 if certificate is None else certificate.distinct_sources,
        "erased": True,
    }
    if entry.promise is not None and entry.promise.k is not None:
        changed |= {"rows_starred": 0, "rows_suppressed": 0} if counts.starred + counts.suppressed else {}
        changed |= {
            "distinct_values": 0 if certificate is None else certificate.distinct_values,
            "smallest_group": 0 if certificate is None else certificate.smallest_group,
        }
    return changed
