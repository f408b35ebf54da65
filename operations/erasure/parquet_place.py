"""Erases from Parquet files, in a folder or a bucket: the summaries of a chunk are replaced first, then its rows.

A file that is replaced keeps its name and its promise; its digest is that of the rows that are left. A file without a row is removed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from anonymizer.batch import Certificate
from anonymizer.errors import SourceRefused
from operations.erasure.rows import Cut, Rows, Rule
from outputs.parquet_encoding import ROWS, SUFFIX, WINDOWS, stored_rows, stored_summaries, with_summaries, without_rows
from outputs.parquet_places import Place
from service import crash_points
from service.state.erasures import Taken
from service.state.journal import Journal


class ParquetPlace:
    """The Parquet files of one data set.

    Args:
        place: Where they are.
        labels: Of the data set, in names of files.
        journal: Records what is taken.
    """

    def __init__(self, place: Place, labels: Collection[str], journal: Journal) -> None:
        self._place = place
        self._labels = frozenset(labels)
        self._journal = journal

    def erase(self, rule: Rule, *, is_dry: bool) -> Iterator[Cut]:
        """Erase from every chunk's files, or only look; yield what is taken from each.

        Raises:
            SourceRefused: A file cannot be understood, so that nobody can say whose rows it holds.
        """
        files: dict[str, list[str]] = defaultdict(list)
        for path in self._place.paths(ROWS):
            name = path.rpartition("/")[2]
            if name.endswith(SUFFIX) and not name.startswith(".") and name.rsplit("-", 2)[0] in self._labels:
                files[name].append(path)
        summaries: dict[str, list[str]] = defaultdict(list)
        for path in self._place.paths(WINDOWS):
            summaries[path.rpartition("/")[2]].append(path)
        for name, paths in files.items():
            yield self._erase_chunk(name, paths, summaries[name], rule, is_dry=is_dry)

    def other_data_sets(self) -> int:
        """Return how many files belong to other data sets."""
        names = {path.rpartition("/")[2] for path in self._place.paths(ROWS)}
        return sum(name.endswith(SUFFIX) and name.rsplit("-", 2)[0] not in self._labels for name in names)

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
            {**one, **changes(rule, recorded[int(one["window_start"])], cut.left[int(one["window_start"])], one)}
            if one["window_start"] in cut.left
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


def changes(rule: Rule, taken: Taken, left: Certificate | None, told: Mapping[str, Any]) -> dict[str, int | bool]:
    """Return the fields of a window's summary that an erasure changes; the same ones when it is made again.

    Args:
        rule: Knows the window.
        taken: What the window loses.
        left: What is counted of the rest; None if nothing is left.
        told: The summary; may be empty where the journal knows the window by itself.
    """
    entry = rule.windows.entry_at(taken.start_ns)
    assert entry is not None, "a window that the journal knows"
    counts, is_single = entry.counts, entry.windows == 1
    if not is_single and told.get("erased"):
        return {}
    released = counts.released if is_single else int(told["rows_released"])
    read = counts.read - counts.excluded if is_single else int(told["rows_read"])
    changed: dict[str, int | bool] = {
        "rows_read": read - taken.rows,
        "rows_released": released - taken.rows,
        "distinct_sources": 0 if left is None else left.distinct_sources,
        "erased": True,
    }
    if entry.promise is not None and entry.promise.k is not None:
        changed |= {"rows_starred": 0, "rows_suppressed": 0} if counts.starred + counts.suppressed else {}
        changed |= {
            "distinct_values": 0 if left is None else left.distinct_values,
            "smallest_group": 0 if left is None else left.smallest_group,
        }
    return changed
