"""Brings batches to every output: waits for those that cannot take them now, goes on without those that never will."""

from __future__ import annotations

from collections.abc import Sequence

from anonymizer.batch import Batch
from anonymizer.errors import BatchRejected
from anonymizer.ports import Output
from service.patience import Patience
from service.telemetry import Telemetry


class Delivery:
    """Offers each batch to each output, one after the other.

    Args:
        outputs: Already open.
        patience: How long to wait for one that is unavailable.
        telemetry: Told what happens.
    """

    def __init__(self, outputs: Sequence[Output], patience: Patience, telemetry: Telemetry) -> None:
        self._outputs = outputs
        self._patience = patience
        self._telemetry = telemetry

    def deliver(self, batches: Sequence[Batch]) -> None:
        """Return once every output has taken every batch, or refused it for good. Raises as `Patience.until_done` does."""
        if not batches:
            return
        for output in self._outputs:
            self._telemetry.writing(output, batches)
            taken = [batch for batch in batches if self._is_taken(output, batch)]
            self._telemetry.wrote(output, taken)

    def _is_taken(self, output: Output, batch: Batch) -> bool:
        try:
            self._patience.until_done(lambda: output.write(batch))
        except BatchRejected as error:
            self._telemetry.rejected(output, batch, error)
            return False
        return True
