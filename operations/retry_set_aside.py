"""Offering what was set aside again, after an operator has fixed the cause."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from anonymizer.errors import BatchRejected
from anonymizer.ports import Output
from service.delivery.output_worker import Offer
from service.state.journal import Journal
from service.state.set_aside import SetAside


@dataclass(frozen=True, slots=True)
class SecondAnswer:
    """What an output said this time.

    Args:
        batch_id: Of which batch.
        taken: How many rows it took of those it had refused.
        refused: How many it still refuses.
        reason: Why; empty when none.
    """

    batch_id: str
    taken: int
    refused: int
    reason: str = ""


def unknown(journal: Journal, set_aside: SetAside) -> int:
    """Return how many batches are kept that the journal does not know to be set aside.

    Most often the output took one just before the process ended; but the journal may also be an older copy. So they are never removed here.
    """
    known = {standing.name: journal.outputs.set_aside_for(standing.name) for standing in journal.outputs.positions()}
    return sum(one.batch_id not in known.get(one.output, {}) for one in set_aside.all())


def offer_again(output: Output, journal: Journal, set_aside: SetAside) -> Iterator[SecondAnswer]:
    """Offer an output every batch of which it refused rows, as a whole: what it has already, it recognises.

    Raises:
        OutputUnavailable: It does not answer; what is not yet yielded stays set aside.
        SpoolDamaged: A batch's file is missing or damaged.
    """
    refused_before = journal.outputs.set_aside_for(output.name)
    waiting = [one for one in set_aside.all() if one.output == output.name and one.batch_id in refused_before]
    if not waiting:
        return
    output.open(journal.outputs.receipts(output.name))
    offer = Offer(output, journal.outputs)
    try:
        for one in waiting:
            before = refused_before[one.batch_id]
            batch = one.batch()
            try:
                receipt = offer.once(batch)
            except BatchRejected as rejection:
                still = set_aside.keep(batch, output=output.name, rejection=rejection)
                journal.outputs.record_taken_after_all(output.name, one.batch_id, receipt=None, still_refused=still)
                yield SecondAnswer(one.batch_id, before - still, still, str(rejection))
            else:
                journal.outputs.record_taken_after_all(output.name, one.batch_id, receipt=receipt)
                offer.receipts_were_recorded()
                set_aside.remove(one)
                yield SecondAnswer(one.batch_id, before, 0)
    finally:
        output.close()
