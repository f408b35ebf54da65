"""Writes one batch to one output, after recording the output's intent."""

from __future__ import annotations

from anonymizer.batch import Batch
from anonymizer.errors import IntentChanged
from anonymizer.ports import Output, Receipt
from service.state.output_positions import OutputPositions


class Offer:
    """Offers batches to an output.

    Args:
        output: Already open.
        positions: Remembers its intents.
    """

    def __init__(self, output: Output, positions: OutputPositions) -> None:
        self._output = output
        self._positions = positions
        self._on_record: Receipt | None = None

    def once(self, batch: Batch) -> Receipt | None:
        """Record the output's intent, unless there is none or it is recorded, and write. Raises as `Output.write` does."""
        while True:
            intent = self._output.intent(batch)
            if intent is not None and intent != self._on_record:
                self._positions.record_receipt(self._output.name, intent)
                self._on_record = intent
            try:
                return self._output.write(batch)
            except IntentChanged:
                continue

    def receipts_were_recorded(self) -> None:
        """Forget which intent is recorded: receipts with the same keys may have replaced it."""
        self._on_record = None
