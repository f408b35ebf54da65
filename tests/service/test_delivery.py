"""Every output gets every batch, once and in order, at its own pace."""

from __future__ import annotations

import contextlib
import os
import stat
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from anonymizer.batch import Batch
from anonymizer.errors import BatchRejected, IntentChanged, OutputDenied, OutputUnavailable, StateUnavailable
from anonymizer.ports import Output, Receipt
from disk.durable_file import read_ours, write_durably
from outputs.memory import MemoryOutput
from service.clock import Stopped, SystemClock
from service.delivery.delivery import Delivery
from service.delivery.outbox import Outbox, Store
from service.retry import RetriesExhausted, Retry
from service.state.epochs import Epoch
from service.state.journal import Journal
from service.state.output_positions import OutputPositions
from service.state.set_aside import SetAside
from service.state.spool import Spool, SpoolDamaged
from service.telemetry.hub import Telemetry
from tests.service.batches import PROMISE, make_batch


class Named(MemoryOutput):
    """A memory output with a name of its own, and something to do before each write."""

    def __init__(self, name: str, before_write: Callable[[Batch], None] = lambda batch: None) -> None:
        super().__init__()
        self.name = name
        self.writes: list[str] = []
        self.opened_with: Mapping[str, Receipt] | None = None
        self._before_write = before_write

    def open(self, receipts: Mapping[str, Receipt]) -> None:
        self.opened_with = receipts

    def write(self, batch: Batch) -> None:
        self._before_write(batch)
        self.writes.append(batch.batch_id)
        super().write(batch)


class OpensLate(Named):
    """Opens when it is allowed to, so that several chunks wait for it."""

    def __init__(self, name: str, before_write: Callable[[Batch], None] = lambda batch: None) -> None:
        super().__init__(name, before_write)
        self.may_open = threading.Event()

    def open(self, receipts: Mapping[str, Receipt]) -> None:
        assert self.may_open.wait(60)


def down(batch: Batch) -> None:
    raise OutputUnavailable("down")


class Desk:
    """State in a folder and one delivery on it."""

    def __init__(self, folder: Path, *outputs: Output, budget_s: float | None = 1.0, spool_max_bytes: int = 1 << 30) -> None:
        self.clock = SystemClock()
        self.journal = Journal(folder, data_set="fake")
        if self.journal.epochs.last() is None:
            self.journal.epochs.begin(Epoch(PROMISE, 5 * 10**9), now_ns=0)
        self.telemetry = Telemetry(k=2, verbose=False)
        self.store = Store(self.journal, Spool(folder / "spool"), SetAside(folder / "set_aside"))
        self.delivery = Delivery(
            outputs,
            self.store,
            retry=Retry(self.clock, budget_s=budget_s, draw=lambda: 0.0),
            telemetry=self.telemetry,
            clock=self.clock,
            spool_max_bytes=spool_max_bytes,
            batch_by_batch=False,
        )
        self.delivery.start()
        OPEN.append(self)

    def release(self, *indexes: int) -> None:
        self.delivery.release([make_batch(index) for index in indexes], stream_to_ns=None)

    def deliver(self, *indexes: int) -> None:
        self.release(*indexes)
        self.delivery.drain()

    def close(self) -> None:
        OPEN.remove(self)
        self.delivery.stop(1.0)
        self.journal.close()


OPEN: list[Desk] = []


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    for desk in [*OPEN]:
        desk.close()


def ids(*indexes: int) -> list[str]:
    return [make_batch(index).batch_id for index in indexes]


def test_every_output_gets_every_batch_once_and_in_order(tmp_path: Path) -> None:
    a, b = Named("a"), Named("b")
    desk = Desk(tmp_path, a, b)

    for index in range(0, 20, 2):
        desk.release(index, index + 1)
    desk.delivery.drain()

    assert a.writes == b.writes == ids(*range(20))
    assert desk.store.spool.numbers() == set()
    assert {(one.taken, one.pending) for one in desk.journal.outputs.positions()} == {(80, 0)}


def test_what_was_released_but_not_taken_is_offered_again_from_the_spool(tmp_path: Path) -> None:
    first = Desk(tmp_path, Named("a", down), budget_s=0)
    first.deliver(1, 2)
    first.close()
    again = Named("a")

    second = Desk(tmp_path, again)
    second.delivery.drain()

    assert again.writes == ids(1, 2)
    assert second.journal.outputs.positions()[0].pending == 0


def test_one_output_that_is_down_delays_no_other_and_catches_up(tmp_path: Path) -> None:
    is_down = threading.Event()
    is_down.set()

    def fail_while_down(batch: Batch) -> None:
        if is_down.is_set():
            raise OutputUnavailable("down", retry_after_s=0.01)

    slow, fast = Named("slow", fail_while_down), Named("fast")
    desk = Desk(tmp_path, slow, fast, budget_s=None)
    for index in range(6):
        desk.release(index)
    until(lambda: len(fast.writes) == 6)
    assert slow.writes == []

    is_down.clear()
    desk.delivery.drain()

    assert slow.writes == fast.writes == ids(*range(6))


def test_an_output_that_stores_chunks_is_given_each_whole_and_again_until_it_has_it(tmp_path: Path) -> None:
    class Chunks(Named):
        chunks: list[list[str]] = []  # noqa: RUF012  (one test's)
        failures = 2

        def write_chunk(self, batches: Sequence[Batch]) -> Receipt:
            self.chunks.append([batch.batch_id for batch in batches])
            if len(self.chunks) <= self.failures:
                raise OutputUnavailable("down", retry_after_s=0.01)
            return {"key": "", "last": batches[-1].batch_id}

    chunks, single = Chunks("chunks"), Named("single")
    desk = Desk(tmp_path, chunks, single)

    desk.deliver(1, 2, 3)
    desk.deliver(4)

    assert chunks.chunks == [ids(1, 2, 3)] * 3 + [ids(4)]
    assert (chunks.writes, single.writes) == ([], ids(1, 2, 3, 4))
    assert desk.journal.outputs.receipts("chunks") == {"": {"key": "", "last": ids(4)[0]}}
    assert {(one.taken, one.pending) for one in desk.journal.outputs.positions()} == {(16, 0)}


@pytest.mark.parametrize(("rows", "taken"), [(None, 8), ((1, 3), 10)])
def test_what_an_output_refuses_is_set_aside_alone_and_the_others_are_delivered(
    rows: tuple[int, ...] | None, taken: int, tmp_path: Path
) -> None:
    def refuse_second(batch: Batch) -> None:
        if batch.batch_id == ids(2)[0]:
            raise BatchRejected("422", rows=rows)

    picky = Named("picky", refuse_second)
    desk = Desk(tmp_path, picky)

    desk.deliver(1, 2, 3)

    assert picky.writes == ids(1, 3)
    (kept,) = desk.store.set_aside.all()
    assert (kept.output, kept.batch_id, kept.rows, kept.count, kept.reason) == ("picky", ids(2)[0], rows, 12 - taken, "422")
    assert kept.batch().values_uv.tolist() == make_batch(2).values_uv.tolist()
    (standing,) = desk.journal.outputs.positions()
    assert (standing.taken, standing.set_aside, standing.pending) == (taken, 12 - taken, 0)
    assert desk.telemetry.totals.set_aside == 12 - taken


def test_a_changed_intent_is_recorded_before_the_write_is_tried_again_and_without_a_pause(tmp_path: Path) -> None:
    seen: list[Mapping[str, Receipt]] = []

    class Splitting(Named):
        most = 8

        def intent(self, batch: Batch) -> Receipt:  # type: ignore[override]  # a memory output has none
            return {"key": "split", "most": self.most}

        def write(self, batch: Batch) -> None:
            seen.append(desk.journal.outputs.receipts("splitting"))
            if self.most > 2:
                self.most //= 2
                raise IntentChanged("413")
            super().write(batch)

    desk = Desk(tmp_path, Splitting("splitting"), budget_s=0)

    desk.deliver(1)

    assert [receipts["split"]["most"] for receipts in seen] == [8, 4, 2]
    assert desk.delivery.failures() == []


def test_a_full_disk_delays_a_release_and_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = Named("a")
    desk = Desk(tmp_path, output, budget_s=None)
    failures: dict[str, list[Exception]] = {name: [OSError(28, "No space left on device")] for name in ("spool", "fence")}
    for name, errors in failures.items():
        monkeypatch.setattr(f"service.state.{name}.write_durably", failing_first(write_durably, errors))

    desk.deliver(1)

    assert (failures, output.writes) == ({"spool": [], "fence": []}, ids(1))
    assert len(desk.journal.released_intervals()) == 1


def failing_first(function: Callable[..., Any], errors: list[Exception]) -> Callable[..., Any]:
    """Return a function that raises the errors, one per call, before it does its work."""

    def fail_first(*values: Any, **options: Any) -> Any:
        if errors:
            raise errors.pop(0)
        return function(*values, **options)

    return fail_first


@pytest.mark.parametrize("asked", ["next_chunk", "spooled", "next_pending", "record_taken", "forget_chunks_all_have"])
def test_a_journal_that_cannot_be_used_for_a_moment_ends_neither_worker_nor_release(
    asked: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    errors: list[Exception] = []
    monkeypatch.setattr(OutputPositions, asked, failing_first(getattr(OutputPositions, asked), errors))
    output = OpensLate("a")
    desk = Desk(tmp_path, output, budget_s=None)
    errors += [StateUnavailable("the disk fails for a moment"), StateUnavailable("the disk fails for a moment")]
    output.may_open.set()

    for index in range(3):
        desk.delivery.wait_for_room()
        desk.release(index)
    desk.delivery.drain()

    assert (errors, desk.delivery.failures(), output.writes) == ([], [], ids(0, 1, 2))


@pytest.mark.parametrize("is_damaged", [False, True])
def test_a_spool_file_that_cannot_be_read_for_a_moment_is_waited_for_and_what_was_written_before_a_damaged_one_is_on_record(
    is_damaged: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = OpensLate("a")
    output.concurrency = 2 if is_damaged else 1
    desk = Desk(tmp_path, output, budget_s=None)
    for index in range(4):
        desk.release(index)
    # The last two are kept in memory, the others must be read.
    errors: list[Exception] = [OSError(5, "Input/output error"), OSError(24, "Too many open files")]
    monkeypatch.setattr("service.state.spool.read_ours", failing_first(read_ours, [] if is_damaged else errors))
    if is_damaged:
        (tmp_path / "spool" / "000000000002.spool").write_bytes(b"damaged")

    output.may_open.set()
    desk.delivery.drain()

    if is_damaged:
        assert isinstance(desk.delivery.failures()[0], SpoolDamaged)
        assert desk.journal.outputs.positions()[0].position == 1
    else:
        assert (errors, desk.delivery.failures(), output.writes) == ([], [], ids(0, 1, 2, 3))


def test_nothing_is_offered_before_spool_journal_and_fence_know_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a power cut may leave is decided by the order in which things are synced to the disk."""
    events: list[str] = []
    real_fsync, real_release = os.fsync, Journal.record_release

    def fsync(descriptor: int) -> None:
        events.append("fsync " + ("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file"))
        real_fsync(descriptor)

    def record_release(journal: Journal, *values: Any, **options: Any) -> None:
        events.append("journal")
        real_release(journal, *values, **options)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Journal, "record_release", record_release)
    desk = Desk(tmp_path, Named("a", lambda batch: events.append("write")))
    events.clear()

    desk.deliver(1)

    synced_file = ["fsync file", "fsync folder"]
    assert events == [*synced_file, "journal", *synced_file, "write"]
    assert desk.journal._file.value("PRAGMA synchronous") == 2  # FULL: a transaction is on the disk when it returns


def test_nothing_is_offered_while_the_fence_is_still_being_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The journal knows the release by then, and workers look for work whenever they are woken."""
    output = Named("a")
    desk = Desk(tmp_path, output)
    real_fsync, slow = os.fsync, True

    def fsync(descriptor: int) -> None:
        while slow and not released.is_set():
            desk.delivery.outbox.wake_all()
            assert output.writes == []
            released.wait(0.01)
        real_fsync(descriptor)

    released = threading.Event()
    really_record = desk.journal.record_release

    def record_release(*values: Any, **options: Any) -> None:
        really_record(*values, **options)
        monkeypatch.setattr(os, "fsync", fsync)
        threading.Timer(0.3, released.set).start()

    monkeypatch.setattr(desk.journal, "record_release", record_release)

    desk.deliver(1)

    assert (output.writes, desk.delivery.failures()) == (ids(1), [])


def test_what_the_fence_cannot_be_told_is_not_offered_and_stays_pending(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = Named("a")
    desk = Desk(tmp_path, output, budget_s=0)
    with monkeypatch.context() as patch:
        patch.setattr("service.state.fence.write_durably", failing_first(write_durably, [OSError(5, "Input/output error")] * 9))
        with pytest.raises(RetriesExhausted, match="fence cannot be written now"):
            desk.release(1)
        desk.close()
    assert output.writes == []
    again = Named("a")

    Desk(tmp_path, again).delivery.drain()

    assert again.writes == ids(1), "the start brings the fence up to date before it offers anything"


def test_what_must_be_recorded_first_is_on_the_disk_before_the_write(tmp_path: Path) -> None:
    seen: list[Mapping[str, Receipt]] = []

    class Careful(Named):
        def intent(self, batch: Batch) -> Receipt:  # type: ignore[override]  # a memory output has none
            return {"key": "file", "length": 0}

    careful = Careful("careful", lambda batch: seen.append(desk.journal.outputs.receipts("careful")))
    desk = Desk(tmp_path, careful)

    desk.deliver(1)

    assert seen == [{"file": {"key": "file", "length": 0}}]
    assert careful.writes == ids(1)


@pytest.mark.parametrize("failures", [0, 1])
def test_what_must_be_recorded_of_a_chunk_is_recorded_at_once_where_batches_are_written_side_by_side(
    failures: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If that fails, each write records its own first."""
    recorded: list[int] = []

    class Careful(OpensLate):
        concurrency = 2
        left = failures

        def intent(self, batch: Batch) -> Receipt:  # type: ignore[override]  # a memory output has none
            if self.left:
                self.left -= 1
                raise OutputUnavailable("the folder is not there")
            return {"key": batch.batch_id, "length": 0}

        def write(self, batch: Batch) -> Receipt:  # type: ignore[override]
            assert batch.batch_id in desk.journal.outputs.receipts("careful")
            super().write(batch)
            return {"key": batch.batch_id, "forget": True}

    careful = Careful("careful")
    desk = Desk(tmp_path, careful)
    really_record = desk.journal.outputs.record_receipt

    def record(name: str, *receipts: Receipt) -> None:
        recorded.append(len(receipts))
        really_record(name, *receipts)

    monkeypatch.setattr(desk.journal.outputs, "record_receipt", record)
    for first in (0, 3, 6):
        desk.release(first, first + 1, first + 2)
    careful.may_open.set()
    desk.delivery.drain()

    assert desk.delivery.failures() == []
    assert sorted(recorded) == ([1, 1, 1, 3, 3] if failures else [3, 3, 3])
    assert sorted(careful.writes) == sorted(ids(*range(9)))
    assert desk.journal.outputs.receipts("careful") == {}


def test_a_one_shot_output_that_stays_away_is_given_up_and_keeps_what_is_pending(tmp_path: Path) -> None:
    fine = Named("fine")
    desk = Desk(tmp_path, Named("dead", down), fine, budget_s=0)
    desk.deliver(1)

    assert [type(failure) for failure in desk.delivery.failures()] == [RetriesExhausted]
    assert not desk.delivery.is_delivering()
    assert fine.writes == ids(1)
    assert {one.name: one.pending for one in desk.journal.outputs.positions()} == {"dead": 4, "fine": 0}


def test_an_output_that_refuses_us_is_known_before_anything_is_read(tmp_path: Path) -> None:
    class Refusing(Named):
        def open(self, receipts: Mapping[str, Receipt]) -> None:
            raise OutputDenied("wrong token")

    desk = Desk(tmp_path, Refusing("refusing"), Named("fine"))

    desk.delivery.wait_until_tried()

    assert [str(failure) for failure in desk.delivery.failures()] == ["wrong token"]


def test_reading_pauses_while_the_spool_is_full_and_goes_on_when_there_is_room(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    gate = threading.Event()

    def wait_at_the_gate(batch: Batch) -> None:
        gate.wait(60)

    desk = Desk(tmp_path, Named("slow", wait_at_the_gate), budget_s=None, spool_max_bytes=1)
    desk.delivery.wait_for_room()
    desk.release(1)

    def open_the_gate() -> None:
        until(lambda: "Reading pauses" in caplog.text)
        assert "Reading resumes" not in caplog.text
        gate.set()

    opening = threading.Thread(target=open_the_gate)
    opening.start()

    desk.delivery.wait_for_room()

    assert gate.is_set()
    opening.join()
    assert "Reading resumes" in caplog.text
    gate.clear()
    desk.release(2)
    desk.clock.stop(15)
    with pytest.raises(Stopped):
        desk.delivery.wait_for_room()
    gate.set()


def test_a_spool_file_that_was_never_released_is_removed_at_the_start(tmp_path: Path) -> None:
    Spool(tmp_path / "spool").write(1, [make_batch(9)])
    output = Named("a")

    desk = Desk(tmp_path, output)
    desk.deliver(1)

    assert output.writes == ids(1)


def test_a_spool_file_of_released_rows_that_no_output_waits_for_is_moved_and_not_deleted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = Desk(tmp_path, Named("a", down), budget_s=0)
    first.release(1)
    first.deliver(2)
    first.close()
    spool = tmp_path / "spool"
    given_up, other_journal = sorted(spool.iterdir())
    contents = {given_up.read_bytes(), other_journal.read_bytes()}
    # One chunk was given up by an older version; the other is of a journal that knew more chunks than the one that is there now.
    with contextlib.closing(Journal(tmp_path, data_set="fake")) as journal:
        journal.outputs.give_up_chunk(1)
        journal.outputs.give_up_chunk(2)
    other_journal.rename(spool / f"{900:012d}.spool")

    second = Desk(tmp_path, Named("a"))
    second.close()

    assert list(spool.iterdir()) == []
    assert {path.read_bytes() for path in (tmp_path / "given_up").iterdir()} == contents
    assert caplog.text.count("may hold released rows that no output waits for; it was moved to") == 2
    assert stat.S_IMODE((tmp_path / "given_up").stat().st_mode) == 0o700


def test_a_damaged_spool_file_stops_the_output_and_loses_nothing_in_silence(tmp_path: Path) -> None:
    first = Desk(tmp_path, Named("a", down), budget_s=0)
    first.deliver(1)
    first.close()
    (path,) = (tmp_path / "spool").iterdir()
    path.write_bytes(path.read_bytes()[:-1])

    second = Desk(tmp_path, Named("a"))
    second.delivery.drain()

    assert [type(failure) for failure in second.delivery.failures()] == [SpoolDamaged]
    assert second.journal.outputs.positions()[0].pending == 4


def until(condition: Callable[[], bool], *, within_s: float = 60) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "did not come true in time"
        time.sleep(0.01)


@pytest.mark.parametrize("concurrency", [1, 2])
def test_only_an_output_that_takes_several_at_a_time_gets_more_before_the_last_is_on_record(
    concurrency: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second chunk is written while the first cannot be recorded; or only then."""
    second_is_written = threading.Event()
    recorded: list[int] = []
    output = OpensLate("a", lambda batch: second_is_written.set() if batch.batch_id == ids(1)[0] else None)
    output.concurrency = concurrency
    desk = Desk(tmp_path, output)
    really_record = desk.journal.outputs.record_taken

    def record_late(name: str, *, chunk: int, **values: Any) -> None:
        if not recorded:
            assert second_is_written.wait(60 if concurrency == 2 else 0.3) == (concurrency == 2)
        recorded.append(chunk)
        really_record(name, chunk=chunk, **values)

    monkeypatch.setattr(desk.journal.outputs, "record_taken", record_late)

    for index in range(3):
        desk.release(index)
    output.may_open.set()
    desk.delivery.drain()

    assert desk.delivery.failures() == []
    assert recorded == [1, 2, 3], "in the order of release"
    assert sorted(output.writes) == sorted(ids(0, 1, 2))


@pytest.mark.parametrize(("rows_under_way", "most"), [(10**6, 10), (20, 5), (8, 2), (1, 0)])
def test_an_output_that_takes_many_at_a_time_gets_few_batches_ahead_where_they_fill_the_memory(
    rows_under_way: int, most: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.delivery.output_worker._ROWS_UNDER_WAY", rows_under_way)
    may_be_written, taken, really_take = threading.Event(), list[int](), Outbox.batches_of

    def take(outbox: Outbox, chunk: int) -> list[Batch]:
        taken.append(chunk)
        return really_take(outbox, chunk)

    monkeypatch.setattr(Outbox, "batches_of", take)
    output = OpensLate("a", lambda _: assert_set(may_be_written))
    output.concurrency = 11
    desk = Desk(tmp_path, output)
    for index in range(15):
        desk.release(index)
    output.may_open.set()
    until(lambda: len(taken) == 1 + most)
    time.sleep(0.1)  # for any further one
    assert len(taken) == 1 + most, "the one that is waited for, and those behind it"
    may_be_written.set()
    desk.delivery.drain()
    assert sorted(output.writes) == sorted(ids(*range(15)))


@pytest.mark.parametrize(("rows_in_memory", "read_from_disk"), [(8, 1), (7, 2)])
def test_only_the_newest_chunks_are_in_memory_until_they_are_taken(
    rows_in_memory: int, read_from_disk: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.delivery.outbox._ROWS_IN_MEMORY", rows_in_memory)
    output = OpensLate("a")
    desk = Desk(tmp_path, output)
    read, really_read = list[int](), desk.store.spool.read

    def note(number: int) -> list[Batch]:
        read.append(number)
        return really_read(number)

    monkeypatch.setattr(desk.store.spool, "read", note)
    for index in range(3):
        desk.release(index)
    output.may_open.set()
    desk.delivery.drain()

    assert output.writes == ids(0, 1, 2)
    assert len(read) == read_from_disk
    assert not desk.delivery.outbox._recent


class StoresTogether(Named):
    """Stores up to eight rows together, which are two batches here, unless one of them is refused."""

    rows_together = 8

    def __init__(self, refused: str) -> None:
        super().__init__("together", self._refuse)
        self._refused = refused
        self.groups: list[list[str]] = []

    def write_together(self, batches: Sequence[Batch]) -> bool:
        self.groups.append([batch.batch_id for batch in batches])
        return self._refused not in self.groups[-1]

    def _refuse(self, batch: Batch) -> None:
        if batch.batch_id == self._refused:
            raise BatchRejected("no")


def test_batches_are_stored_together_and_one_by_one_where_one_of_them_is_refused(tmp_path: Path) -> None:
    output = StoresTogether(refused=ids(3)[0])
    desk = Desk(tmp_path, output)

    desk.deliver(0, 1, 2, 3, 4)

    assert output.groups == [ids(0, 1), ids(2, 3)], "the last one is alone"
    assert output.writes == ids(2, 4)
    assert [kept.batch_id for kept in desk.store.set_aside.all()] == ids(3)
    (standing,) = desk.journal.outputs.positions()
    assert (standing.taken, standing.set_aside, standing.pending) == (16, 4, 0)


def assert_set(event: threading.Event) -> None:
    assert event.wait(60)
