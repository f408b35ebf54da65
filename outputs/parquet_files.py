"""Parquet files in a folder or a bucket: the rows of each chunk of windows under `rows/`, one summary per window under `windows/`.

Delivery: once: a file is put in place whole, under a name made of its windows; an existing file with the same rows counts as taken, and
one with other rows is never replaced.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from anonymizer.batch import Batch
from anonymizer.errors import OutputDenied, OutputUnavailable
from anonymizer.ports import Receipt
from outputs.parquet_encoding import ROWS, ParquetFile, Partition, files_of, rows_digest_of
from outputs.parquet_places import Place

#: The journal remembers only that there are files: then an empty folder means that its disk is not mounted.
_WAS_WRITTEN: Receipt = {"key": "", "written": True}


class ParquetFiles:
    """Writes each chunk to files of its own. Stateless between chunks, so that several processes may write to one place.

    Args:
        place: Where to put files.
        partition: The span of time that one folder holds.
        label: The data set's label in names of files; empty: as in batch ids.
    """

    kind = "parquet"
    concurrency = 1

    def __init__(self, place: Place, partition: Partition, *, label: str = "") -> None:
        self._place = place
        self._label = label
        self._partition: Partition = partition
        self.name = f"parquet:{place.name}"

    def open(self, receipts: Mapping[str, Receipt]) -> None:
        """Check that the place can be used, and that it is the one written to before."""
        self._place.open(must_hold=ROWS if receipts else "")

    def target(self, batch: Batch) -> str:
        """Return where the batch goes, for the log."""
        return self._place.name

    def intent(self, batch: Batch) -> None:
        """Return None: a file written again is recognised."""

    def write(self, batch: Batch) -> Receipt:
        """Write a chunk of one window."""
        return self.write_chunk([batch])

    def write_chunk(self, batches: Sequence[Batch]) -> Receipt:
        """Put the files of a chunk in place, summaries last."""
        for file in files_of([self._named(batch) for batch in batches], self._partition):
            if not self._place.put_new(file.path, file.content):
                self._recognise(file)
        return _WAS_WRITTEN

    def close(self) -> None:
        """Nothing stays open between writes."""

    def _named(self, batch: Batch) -> Batch:
        if not self._label:
            return batch
        return replace(batch, batch_id=f"{self._label}-{batch.window.start_ns}-{batch.window.end_ns}")

    def _recognise(self, file: ParquetFile) -> None:
        content = self._place.read(file.path)
        if content is None:
            raise OutputUnavailable(f"PARQUET_URL: {file.path} was there a moment ago and is not any more")
        if content != file.content and rows_digest_of(content) != file.rows_digest:
            raise OutputDenied(
                f"PARQUET_URL holds {file.path} already, with other rows than those to be written, and it is never replaced: another "
                "STATE_DIR released these windows, or the file is damaged. Put the right STATE_DIR back; or move the file away if it "
                "is not needed any more"
            )
