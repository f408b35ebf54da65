"""Where batches go: the contract of an output. The contract of a source of samples is in `samples.py`, out of every output's reach."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from anonymizer.batch import Batch

#: What an output must remember of its last write, as JSON can hold it; stored for it by the service.
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

    #: What kind it is and where it goes, such as `csv:/srv/ecg/output`: the same however a setting spells it; no secret in it.
    name: str

    #: How many batches may be written at a time; with 1 an output needs no lock. With more, no two have a receipt in common.
    concurrency: int

    def open(self, receipts: Mapping[str, Receipt]) -> None:
        """Reach the destination, and undo what a crash left beyond the last receipts.

        Args:
            receipts: By key, the last receipt this output gave for that key (a receipt's `key` entry; `""` without one).

        Raises:
            OutputUnavailable: The destination cannot be reached now.
        """

    def target(self, batch: Batch) -> str:
        """Return where the batch goes, for the log, such as a file's path."""

    def intent(self, batch: Batch) -> Receipt | None:
        """Return what must be on record before the batch is written, so that a crash in between can be undone; None when nothing must.

        Asked for before every write. The service stores it as a receipt, unless it has just stored the same, then calls `write`.
        """

    def write(self, batch: Batch) -> Receipt | None:
        """Return only once the batch is as durable as the destination can make it, with what the output must remember of it.

        A receipt replaces the one of the same key; one that says `{"key": ..., "forget": true}` removes it, so that receipts do not
        grow for ever.

        Raises:
            OutputUnavailable: Offer the same batch again later.
            IntentChanged: Ask for the intent again, record it, and write again at once.
            BatchRejected: It, or the rows the error names, will never be taken. The batch may be offered again as a whole, much later,
                by an operator who has fixed the cause.
        """

    def close(self) -> None:
        """Let go. Never loses a batch that `write` returned from."""


@runtime_checkable
class ChunkOutput(Output, Protocol):
    """An output that stores the batches of a chunk together. Every other is given them one by one."""

    def write_chunk(self, batches: Sequence[Batch]) -> Receipt | None:
        """Store batches that were released together, in order of time, as `write` stores one; it refuses no single row.

        A chunk whose write was interrupted comes again with the same batches, perhaps to another process.
        """
