"""Offers set-aside batches again, after an operator has fixed the cause."""

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
    """An output's answer to a batch that is offered again.

    Args:
        batch_id: The batch.
        taken: How many of the refused rows it has taken now.
        refused: How many it still refuses.
        reason: Why; empty if it refuses none.
    """

    batch_id: str
    taken: int
    refused: int
    reason: str = ""


def unknown(journal: Journal, set_aside: SetAside) -> int:
    """Return the number of set-aside batches on disk that the journal does not list.

    Usually the output took them just before the process ended. But the journal may also be an old copy, so they are never removed here.
    """
    known = {position.name: journal.outputs.set_aside_for(position.name) for position in journal.outputs.positions()}
    return sum(one.batch_id not in known.get(one.output, {}) for one in set_aside.all())


def offer_again(output: Output, journal: Journal, set_aside: SetAside) -> Iterator[SecondAnswer]:
    """Offer an output every batch with refused rows. Batches are offered whole; the output recognises rows that it already has.

    Raises:
        OutputUnavailable: It does not answer. Batches that were not yielded stay set aside.
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
                offer.receipts_were_recorded([] if receipt is None else [receipt])
                set_aside.remove(one)
                yield SecondAnswer(one.batch_id, before, 0)
    finally:
        output.close()
