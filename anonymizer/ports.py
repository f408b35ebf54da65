"""The contract of an output. That of a source is in `samples.py`, which no output can import."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from anonymizer.batch import Batch

#: What an output must remember of its last write, as a JSON object. The service stores it.
Receipt = Mapping[str, Any]


class Output(Protocol):
    """A destination for batches.

    The service calls `open` once, `write` for each batch, then `close` once. Calls never overlap, except writes if `concurrency` allows it.
    An output neither buffers nor retries; the service does. `close` is not called after a crash. A batch whose write was interrupted
    comes again with the same id and bytes, so `write` must replace or recognise what it has already stored.
    Every batch carries its certificate: nothing reaches an output without passing verification.
    """

    #: What kind of output it is, such as `csv`.
    kind: str

    #: Its kind and destination, such as `csv:/srv/ecg/output`, in canonical form; contains no secret.
    name: str

    #: Most concurrent writes, final once the output is open. With 1 an output needs no lock; with more, no two batches may share a receipt.
    concurrency: int

    def open(self, receipts: Mapping[str, Receipt]) -> None:
        """Connect to the destination, and undo what a crash left after the last receipts.

        Args:
            receipts: By key, the last receipt that this output returned for that key (a receipt's `key` entry; `""` without one).

        Raises:
            OutputUnavailable: The destination cannot be reached now.
        """

    def target(self, batch: Batch) -> str:
        """Return where the batch goes, for the log, such as a file's path."""

    def intent(self, batch: Batch) -> Receipt | None:
        """Return what must be recorded before the batch is written, so that a crash in between can be undone; None for nothing.

        Called before every write. The service stores it as a receipt, unless it has just stored the same, then calls `write`. With a
        concurrency above 1 it is first called for several batches that are about to be written, to store their intents together.
        """

    def write(self, batch: Batch) -> Receipt | None:
        """Store the batch. Return its receipt, if any, only once the batch is as durable as the destination can make it.

        A receipt replaces the one of the same key; `{"key": ..., "forget": true}` removes it, so that receipts do not grow for ever.

        Raises:
            OutputUnavailable: The service must offer the same batch again later.
            IntentChanged: The service must call `intent` again, record it, and write again at once.
            BatchRejected: The destination will never take it, or the rows that the error names. An operator who has fixed the cause may
                offer the whole batch again, much later.
        """

    def close(self) -> None:
        """Release connections and files. Never loses a batch for which `write` returned."""


@runtime_checkable
class GroupOutput(Output, Protocol):
    """An output that stores several batches of a chunk with less work than one by one. It has no intents and no receipts."""

    #: About how many rows are stored together.
    rows_together: int

    def write_together(self, batches: Sequence[Batch]) -> bool:
        """Store batches as `write` stores each. Return whether every row of them is stored; if not, the service calls `write` for each.

        Raises:
            OutputUnavailable: The service must offer the same batches again later.
        """


@runtime_checkable
class ChunkOutput(Output, Protocol):
    """An output that stores the batches of a chunk together. All others get them one by one."""

    def write_chunk(self, batches: Sequence[Batch]) -> Receipt | None:
        """Store batches that were released together, in order of time, as `write` stores one. Never refuses single rows.

        The service offers a chunk whose write was interrupted again, with the same batches, perhaps in another process.
        """
