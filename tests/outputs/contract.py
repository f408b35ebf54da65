"""What every output promises, whatever it writes to: each promise a function that fails for an output that breaks it.

The sentences are those of `anonymizer/ports.py`. They are run on every output by `test_contract.py`, on the example of
`outputs/README.md`, and on outputs that are broken on purpose, since a contract that cannot be broken says nothing.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable

from anonymizer.batch import Batch
from anonymizer.errors import BatchRejected, IntentChanged, OutputError, OutputUnavailable
from anonymizer.ports import Output, Receipt
from tests.outputs.batches import ODD_IDS, make_batch, row_of, rows_of, usual_batch
from tests.outputs.destinations import Destination, Fault

#: Values next to each other in one window: whole, halves, unrounded, tiny, huge.
VALUES_UV = (0.0, 1.0, -1.0, 0.5, -145.5, 1 / 3, -2 / 3, 1e-7, 123_456_789.25, 2.0**53, 1e20, -1e20, 32_767.0)

FAULTS = tuple(Fault)

Promise = Callable[[Destination], None]


class Service:
    """Does with an output what the service does: opens it with its receipts, offers each batch, keeps what is to be remembered.

    Args:
        output: The output.
        receipts: What is on record; changed as it is delivered to.
        reopen: Whether the output is to be opened.
    """

    def __init__(self, output: Output, receipts: dict[str, Receipt] | None = None, *, reopen: bool = True) -> None:
        self.output = output
        self.receipts = receipts if receipts is not None else {}
        if reopen:
            output.open(_as_json(self.receipts))

    def deliver(self, *batches: Batch) -> None:
        for batch in batches:
            self._keep(self._write(batch))

    def deliver_and_die(self, *batches: Batch) -> None:
        """Deliver, and be gone before anything but the intents could be kept."""
        for batch in batches:
            self._write(batch)

    def intend_and_die(self, batch: Batch) -> None:
        """Be gone before the write."""
        self._keep(self.output.intent(batch))

    def deliver_and_fail(self, batch: Batch) -> Exception:
        """Return what the write raised."""
        try:
            self.deliver(batch)
        except Exception as error:  # noqa: BLE001  # which one it may be is what the contract is about
            return error
        raise AssertionError("a write that did not store the batch reported success")

    def _write(self, batch: Batch) -> Receipt | None:
        while True:
            self._keep(self.output.intent(batch))
            try:
                return self.output.write(batch)
            except IntentChanged:
                continue

    def _keep(self, receipt: Receipt | None) -> None:
        if receipt is None:
            return
        if receipt.get("forget"):
            self.receipts.pop(receipt.get("key", ""), None)
        else:
            self.receipts[receipt.get("key", "")] = receipt


def _as_json(receipts: dict[str, Receipt]) -> dict[str, Receipt]:
    """Return receipts as they come back from where they were kept."""
    try:
        read: dict[str, Receipt] = json.loads(json.dumps(receipts))
    except TypeError as error:
        raise AssertionError(f"a receipt cannot be stored: {error}") from None
    return read


def every_row_arrives_as_it_was_sent(destination: Destination) -> None:
    """Whatever its value, its source's id and its place in the window, and whatever the others of its window and those before are like."""
    chance = random.Random(20251103)
    of_each_window: tuple[list[tuple[int, str, float]], ...] = (
        [(i * 1_000_003, f"source-{i % 7}", chance.choice(VALUES_UV) + i % 11) for i in range(1000)],
        [(i, "a", value) for i, value in enumerate(VALUES_UV)],
        [(i, source_id, 1.5) for i, source_id in enumerate(ODD_IDS)],
        [(7, f"source-{i}", 3.0) for i in range(20)],
        [(0, "the first and", 1.0), (4_999_999_999, "the last nanosecond", 1.0)],
        *([(0, "a", value), (1, "b", value)] for value in (7.0, 7.5, 22 / 3)),
    )
    ids = ("nobody", "no-one\n", "none\\")
    batches = [make_batch(rows, window=window, all_ids=ids) for window, rows in enumerate(of_each_window)]

    Service(destination.output()).deliver(*batches)

    assert destination.rows() == rows_of(*batches)


def no_zero_is_negative(destination: Destination) -> None:
    if not destination.outlives:
        return  # what stays in memory is the batch itself
    whole = make_batch([(0, "a", -0.0), (1, "b", 1.0)], window=0)
    halves = make_batch([(0, "a", -0.0), (1, "b", 0.5)], window=1)

    Service(destination.output()).deliver(whole, halves)

    assert [math.copysign(1, row.value_uv) for row in destination.rows() if row.value_uv == 0] == [1, 1]


def windows_may_come_in_any_order(destination: Destination) -> None:
    batches = [usual_batch(window=window) for window in (3, 0, 20_000, 1, -400)]

    Service(destination.output()).deliver(*batches)

    assert destination.rows() == rows_of(*batches)


def a_batch_offered_again_is_stored_once(destination: Destination) -> None:
    before, batch, after = (usual_batch(window=window) for window in (0, 1, 2))
    service = Service(destination.output())

    service.deliver(before, batch, batch, after)

    assert destination.rows() == rows_of(before, batch, after)


def a_failed_write_is_an_output_error(destination: Destination) -> None:
    for number, fault in enumerate(FAULTS):
        service = Service(destination.output(fault))

        error = service.deliver_and_fail(usual_batch(window=number))

        assert isinstance(error, OutputError), f"{fault}: {type(error).__name__} is foreign to the service"
        assert isinstance(error, OutputUnavailable), f"{fault}: the batch would be set aside for a fault that passes"


def what_an_error_says_holds_neither_token_nor_source(destination: Destination) -> None:
    for number, fault in enumerate(FAULTS):
        batch = make_batch([(i, f"patient-{i % 2}", 1.0) for i in range(8)], window=number)
        service = Service(destination.output(fault))

        said = str(service.deliver_and_fail(batch))

        assert destination.secret not in said
        assert "patient" not in said
        assert said.strip()


def a_batch_that_failed_is_stored_once_when_offered_again(destination: Destination) -> None:
    receipts: dict[str, Receipt] = {}
    for number, fault in enumerate(FAULTS):
        before, batch, after = (usual_batch(window=3 * number + i, rows=20) for i in range(3))
        service = Service(destination.output(fault), receipts)
        stored_before = destination.rows()

        service.deliver_and_fail(batch)
        service.deliver(batch, after, before)

        assert destination.rows() == sorted([*stored_before, *rows_of(batch, after, before)]), fault


def a_failure_leaves_what_was_stored_before(destination: Destination) -> None:
    if not destination.outlives:
        return
    earlier = usual_batch(window=0)
    service = Service(destination.output())
    service.deliver(earlier)
    for number, fault in enumerate(FAULTS, start=1):
        failing = Service(destination.output(fault), service.receipts)

        failing.deliver_and_fail(usual_batch(window=number, rows=20))

        assert set(rows_of(earlier)) <= set(destination.rows()), fault


def a_write_that_a_crash_interrupted_is_completed_to_exactly_one_copy(destination: Destination) -> None:
    if not destination.outlives:
        return
    receipts: dict[str, Receipt] = {}
    expected = []
    for number, fault in enumerate(FAULTS):
        before, batch, after = (usual_batch(window=3 * number + i, rows=20) for i in range(3))
        Service(destination.output(), receipts).deliver(before)
        Service(destination.output(fault), receipts).deliver_and_fail(batch)

        # No close: the process is gone. The next one has the receipts of what was taken, and is offered what was not.
        Service(destination.output(), receipts).deliver(batch, after)

        expected += rows_of(before, batch, after)
        assert destination.rows() == sorted(expected), fault


def batches_stored_just_before_a_crash_are_stored_once(destination: Destination) -> None:
    if not destination.outlives:
        return
    before, *batches, after = (usual_batch(window=window) for window in range(5))
    service = Service(destination.output())
    service.deliver(before)
    service.deliver_and_die(*batches)

    # What was not known to be taken comes again from its beginning.
    Service(destination.output(), service.receipts).deliver(*batches, after)

    assert destination.rows() == rows_of(before, *batches, after)


def a_crash_between_what_was_put_on_record_and_the_write_is_undone(destination: Destination) -> None:
    if not destination.outlives:
        return
    before, batch, after = (usual_batch(window=window, rows=20) for window in range(3))
    receipts: dict[str, Receipt] = {}
    Service(destination.output(), receipts).deliver(before)
    for _ in range(2):
        Service(destination.output(), receipts).intend_and_die(batch)

    Service(destination.output(), receipts).deliver(batch, after)

    assert destination.rows() == rows_of(before, batch, after)


def crash_after_crash_batches_are_stored_once(destination: Destination) -> None:
    if not destination.outlives:
        return
    batches = [usual_batch(window=window, rows=10) for window in range(6)]
    receipts: dict[str, Receipt] = {}
    # Further each time, and once less far.
    for count in (1, 3, 2, 6):
        Service(destination.output(), receipts).deliver_and_die(*batches[:count])

    Service(destination.output(), receipts).deliver(*batches)

    assert destination.rows() == rows_of(*batches)


def what_must_be_remembered_does_not_grow_with_the_windows(destination: Destination) -> None:
    service = Service(destination.output())
    service.deliver(*(usual_batch(window=window) for window in range(3)))
    after_few = len(service.receipts)

    service.deliver(*(usual_batch(window=window) for window in range(3, 40)))

    assert len(service.receipts) == after_few <= 1


def what_must_be_remembered_is_put_on_record_as_json(destination: Destination) -> None:
    service = Service(destination.output())
    for window in range(2):
        service.intend_and_die(usual_batch(window=window, rows=20))
        assert _as_json(service.receipts) == service.receipts

        service.deliver(usual_batch(window=window, rows=20))
        assert _as_json(service.receipts) == service.receipts


def asking_what_to_put_on_record_changes_nothing(destination: Destination) -> None:
    service = Service(destination.output())
    service.deliver(usual_batch(window=0))

    told = [service.output.intent(usual_batch(window=1)) for _ in range(3)]

    assert told[0] == told[1] == told[2]
    assert destination.rows() == rows_of(usual_batch(window=0))


def a_batch_that_was_refused_in_part_is_stored_once_when_offered_again_as_a_whole(destination: Destination) -> None:
    refusing = destination.refusing()
    if refusing is None:
        return
    batch, other = usual_batch(window=0, rows=20), usual_batch(window=1, rows=20)
    service = Service(refusing)

    rejected = service.deliver_and_fail(batch)

    assert isinstance(rejected, BatchRejected), "a part that will never be taken is no reason to wait"
    assert "patient" not in str(rejected)
    assert "source-1" not in str(rejected)
    rows = rejected.rows
    assert rows is not None, "what was stored would be taken for set aside"
    assert list(rows) == sorted(set(rows))
    everything = rows_of(batch)
    assert sorted([*destination.rows(), *(row_of(batch, index) for index in rows)]) == everything

    # Windows go on, and much later the batch is offered again, in another process.
    service.deliver(other)
    Service(destination.output(), service.receipts).deliver(batch)

    assert destination.rows() == rows_of(batch, other)
    assert len(service.receipts) <= 1


def everything_stays_after_close(destination: Destination) -> None:
    service = Service(destination.output())
    service.deliver(usual_batch())

    service.output.close()

    assert destination.rows() == rows_of(usual_batch())


def it_can_be_described_without_a_secret(destination: Destination) -> None:
    output = destination.output()
    described = f"{output.kind} {output.name} {output.target(usual_batch())} {output!r}"

    assert destination.secret not in described
    assert output.kind.isidentifier()
    assert output.name.startswith(output.kind)


CONTRACT: tuple[Promise, ...] = (
    every_row_arrives_as_it_was_sent,
    no_zero_is_negative,
    windows_may_come_in_any_order,
    a_batch_offered_again_is_stored_once,
    a_failed_write_is_an_output_error,
    what_an_error_says_holds_neither_token_nor_source,
    a_batch_that_failed_is_stored_once_when_offered_again,
    a_failure_leaves_what_was_stored_before,
    a_write_that_a_crash_interrupted_is_completed_to_exactly_one_copy,
    batches_stored_just_before_a_crash_are_stored_once,
    a_crash_between_what_was_put_on_record_and_the_write_is_undone,
    crash_after_crash_batches_are_stored_once,
    what_must_be_remembered_does_not_grow_with_the_windows,
    what_must_be_remembered_is_put_on_record_as_json,
    asking_what_to_put_on_record_changes_nothing,
    a_batch_that_was_refused_in_part_is_stored_once_when_offered_again_as_a_whole,
    everything_stays_after_close,
    it_can_be_described_without_a_secret,
)
