"""The board says what events told it, keeps no more than an hour, and notices rows that got lost on the way to an output."""

from __future__ import annotations

import dataclasses
import threading
from pathlib import Path

import pytest

from anonymizer.errors import OutputUnavailable, SourceUnavailable, StateUnavailable
from anonymizer.fidelity_sums import Fidelity
from anonymizer.windows import NANOSECONDS
from service.retry import Retry
from service.state.epochs import Epoch
from service.state.journal import Journal, Release
from service.status.board import Board
from service.status.judgement import judge
from service.status.snapshot import Trouble
from service.telemetry.events import SOURCE, STATE, Unit
from service.telemetry.fidelity_steps import FidelityStep
from service.telemetry.hub import Telemetry
from service.telemetry.totals import Sums
from tests.service.batches import PROMISE, make_batch
from tests.service.fakes import FakeClock
from tests.status.events import LENGTH_NS, Sink, settings_with, unit


class Watched:
    """A board with a clock that tests move, of windows of 5 s that are due 10 s after their end."""

    def __init__(self) -> None:
        self.clock = FakeClock(1000.0)
        sums = Sums()
        self.board = Board(settings_with(), self.clock, sums)
        self.run = Telemetry(k=5, verbose=False, listeners=[self.board], sums=sums)
        self.csv, self.api = Sink("csv:./output"), Sink("api:http://sink")
        self.board.expect([self.csv, self.api])
        self.board.phase("working")


@pytest.fixture
def watched() -> Watched:
    return Watched()


def test_windows_and_rows_are_counted_by_their_outcome(watched: Watched) -> None:
    watched.run.anonymized(unit({1: 30, 3: 10}, {0: 4}, {}, invalid=2))
    watched.run.nothing_in(unit({}, {}, {}).windows)
    watched.run.expired(unit({}, {}).windows)
    watched.run.skipped(7, unit({}).windows, [])

    now = watched.board.look()

    assert now.totals.windows_by_outcome == {"released": 1, "withheld": 2, "empty": 3, "expired": 2, "skipped": 7}
    assert (now.totals.counts.read, now.totals.counts.released, now.totals.counts.withheld, now.totals.counts.invalid) == (
        50,
        40,
        4,
        6,
    )
    assert now.totals.unaccounted == 0
    (moment,) = now.moments
    assert (moment.windows_released, moment.windows_withheld, moment.windows_empty) == (1, 2, 5), (
        "expired ones are empty on the plot"
    )
    assert (moment.rows_read, moment.rows_withheld) == (50, 4)


def test_lag_is_how_long_the_next_window_has_been_due_and_a_run_with_an_end_has_none(watched: Watched) -> None:
    # Windows end at multiples of 5 s; the one after 985 s ends at 990 and is due at 1000.
    watched.board.reached(985 * NANOSECONDS)
    assert watched.board.look().pace.lag_s == 0

    watched.clock.now_s = 1004.5
    assert watched.board.look().pace.lag_s == 4.5

    watched.board.reached(990 * NANOSECONDS)
    assert watched.board.look().pace.lag_s == 0

    with_an_end = Board(settings_with(STREAMING_MODE="false"), FakeClock(1e6), Sums())
    with_an_end.reached(5 * NANOSECONDS)
    assert with_an_end.look().pace.lag_s == 0


def test_the_loop_is_alive_while_it_comes_by_or_waits_as_announced(watched: Watched) -> None:
    # 4096 windows of 5 s lie in 6 hours and a part of one; each may be asked for three times, 30 s each.
    watched.clock.now_s += 120 + 3 * 7 * 30
    assert judge(watched.board.look()).is_live

    watched.clock.now_s += 1
    assert not judge(watched.board.look()).is_live

    watched.board.reached(0)
    assert watched.board.look().pace.idle_s == 0

    watched.board.waits(SOURCE, SourceUnavailable("away"), 50.0)
    watched.clock.now_s += 50
    assert watched.board.look().pace.idle_s == 0


def test_a_source_disk_or_output_that_is_waited_for_is_in_trouble_until_it_goes_on(watched: Watched) -> None:
    watched.board.waits(SOURCE, SourceUnavailable("refused"), 0.5)
    watched.clock.now_s += 5
    watched.board.waits(SOURCE, SourceUnavailable("no route"), 1.0)
    watched.board.waits(STATE, StateUnavailable("disk full"), 1.0)
    watched.board.waits(watched.api.name, OutputUnavailable("503"), 1.0)
    watched.clock.now_s += 5
    watched.board.waits(watched.api.name, OutputUnavailable("504"), 1.0)

    now = watched.board.look()
    assert now.source.trouble is not None
    assert (now.source.trouble.since_ns, now.source.trouble.reason) == (1000 * NANOSECONDS, "no route")
    assert (now.source.retries, now.state.retries, now.outputs[1].retries, now.outputs[0].retries) == (2, 1, 2, 0)
    assert now.outputs[0].trouble is None
    assert now.outputs[1].trouble == Trouble(1005 * NANOSECONDS, "504"), "since the first, with the last reason"
    assert now.outputs[1].last_error == Trouble(1010 * NANOSECONDS, "504")

    for who in (SOURCE, STATE, watched.api.name):
        watched.board.recovered(who)
    now = watched.board.look()
    assert (now.source.trouble, now.state.trouble, now.outputs[1].trouble) == (None, None, None)
    assert now.outputs[1].last_error is not None, "the last error is remembered"


def test_retry_tells_the_board_who_is_waited_for(watched: Watched) -> None:
    retry = Retry(watched.clock, budget_s=None, telemetry=watched.board)
    seen: list[object] = []

    def failing_once(error: Exception) -> object:
        def action() -> None:
            if len(seen) % 2 == 0:
                seen.append(watched.board.look())
                raise error
            seen.append(watched.board.look())

        return action

    retry.until_done(failing_once(SourceUnavailable("x")))  # type: ignore[arg-type]
    retry.for_output(watched.csv.name).until_done(failing_once(OutputUnavailable("x")))  # type: ignore[arg-type]
    retry.for_output(watched.csv.name).until_done(failing_once(StateUnavailable("x")))  # type: ignore[arg-type]

    while_waiting = seen[1::2]
    troubles = [(one.source.trouble, one.outputs[0].trouble, one.state.trouble) for one in while_waiting]  # type: ignore[attr-defined]
    assert [[trouble is not None for trouble in three] for three in troubles] == [
        [True, False, False],
        [False, True, False],
        [False, False, True],
    ]
    after = watched.board.look()
    assert (after.source.trouble, after.outputs[0].trouble, after.state.trouble) == (None, None, None)


def test_levels_are_shown_only_in_sums_over_twelve_windows(watched: Watched) -> None:
    for _ in range(11):
        watched.run.anonymized(unit({2: 10}))
        assert watched.board.look().levels.rows == (0,) * 9
    watched.run.anonymized(unit({0: 40}))
    assert watched.board.look().levels.windows == 0, "a window of which nothing was released does not count"

    watched.run.anonymized(unit({3: 7}))
    assert watched.board.look().levels.rows[1:3] == (110, 7)
    assert watched.board.look().levels.windows == 12

    watched.run.anonymized(unit({3: 7}))
    assert watched.board.look().levels.rows[1:3] == (110, 7), "the next step takes twelve windows more"


def with_fidelity(step: Unit, **sums: float) -> Unit:
    """Return the unit with these sums in each of its windows."""
    results = [
        dataclasses.replace(one, statistics=dataclasses.replace(one.statistics, fidelity=Fidelity(rows=10, **sums)))
        for one in step.results
    ]
    return dataclasses.replace(step, results=tuple(results))


def test_fidelity_is_shown_of_twelve_windows_and_each_is_in_one_figure_only(watched: Watched) -> None:
    watched.run.anonymized(unit(*[{2: 10}] * 24))
    assert watched.board.look().fidelity is None, "without UTILITY_METRICS"

    for _ in range(11):
        watched.run.anonymized(with_fidelity(unit({2: 10}), raw=4.0, error=1.0))
        watched.run.anonymized(with_fidelity(unit({0: 10}), raw=9.0, error=9.0))
        assert watched.board.look().fidelity is None, "and a window of which nothing was released does not count"

    watched.run.anonymized(with_fidelity(unit({2: 10}), raw=4.0, error=1.0))
    first = watched.board.look().fidelity
    assert first == FidelityStep(12, Fidelity(rows=120, raw=48.0, error=12.0))

    for _ in range(11):
        watched.run.anonymized(with_fidelity(unit({2: 10}), raw=2.0, error=2.0))
        assert watched.board.look().fidelity == first, "the next step takes twelve windows more"
    watched.run.anonymized(with_fidelity(unit({2: 10}), raw=2.0, error=2.0))
    assert watched.board.look().fidelity == FidelityStep(12, Fidelity(rows=120, raw=24.0, error=24.0))


def test_groups_late_rows_and_durations_are_counted_and_windows_done_together_share_their_time(watched: Watched) -> None:
    for smallest, groups in ((8, 5), (6, 3), (9, 4)):
        watched.run.anonymized(unit({1: 40}, smallest=smallest, groups=groups))
    watched.run.late(rows=3, windows=2, of_rows=500, sufficient_lateness_s=20)
    watched.board.took(0.8, 1000, 4)
    watched.board.took(3.0, 1000, 1)

    now = watched.board.look()

    assert (now.totals.groups, now.totals.smallest_group) == (12, 6)
    assert (now.totals.late, now.moments[-1].rows_late) == (3, 3)
    # Of .005 .01 .025 .05 .1 .25 .5 1 2.5 5 10: four windows of 0.2 s, one of 3 s.
    assert now.durations.within == (0, 0, 0, 0, 0, 4, 4, 4, 4, 5, 5)
    assert (now.durations.count, now.durations.sum_s) == (5, 3.8)


def test_the_last_hour_is_kept_and_no_more(watched: Watched) -> None:
    for _ in range(500):
        watched.run.anonymized(unit({1: 5}))
        watched.clock.now_s += 10

    moments = watched.board.look().moments
    assert len(moments) == 360
    assert all(one.windows_released == 1 for one in moments[:-1])


class Books:
    """A journal with two outputs, and a board that watches it."""

    def __init__(self, folder: Path, watched: Watched) -> None:
        self.watched = watched
        self.journal = Journal(folder, data_set="fake")
        self.journal.epochs.begin(Epoch(PROMISE, LENGTH_NS), now_ns=0)
        self.journal.outputs.add_outputs([watched.csv.name, watched.api.name])
        self.released = 0

    def record(self, rows: int) -> None:
        batch = make_batch(self.released, rows=rows)
        self.released += 1
        self.journal.record_release(
            [Release(batch.window, batch.counts)], chunk=self.released, size_bytes=100 * rows, now_ns=0, stream_to_ns=None
        )

    def release(self, rows: int) -> None:
        self.watched.board.releasing(rows)
        self.record(rows)
        self.watched.board.released(rows)


@pytest.fixture
def books(tmp_path: Path, watched: Watched) -> Books:
    return Books(tmp_path, watched)


def test_each_output_shows_what_it_took_refused_and_still_lacks_also_after_the_journal_was_closed(books: Books) -> None:
    board, outputs = books.watched.board, books.journal.outputs
    board.watch(outputs)
    books.release(10)
    books.release(6)
    outputs.record_taken(books.watched.csv.name, chunk=1, receipts=[], rows=10, set_aside={"b": 3})

    csv, api = board.look().outputs

    assert (csv.position, csv.taken, csv.set_aside, csv.pending, csv.unaccounted) == (1, 7, 3, 6, 0)
    assert (api.position, api.taken, api.set_aside, api.pending, api.unaccounted) == (0, 0, 0, 16, 0)
    assert board.look().spool.size_bytes == 1600
    books.release(2)
    board.unwatch()
    books.journal.close()
    assert [one.pending for one in board.look().outputs] == [8, 18]


def test_rows_that_an_output_neither_took_nor_lacks_are_unaccounted_for(books: Books) -> None:
    board, outputs = books.watched.board, books.journal.outputs
    board.watch(outputs)
    books.release(10)

    # A fault of ours: the chunk counts as taken, but one row less than it has.
    outputs.record_taken(books.watched.csv.name, chunk=1, receipts=[], rows=9)

    assert [one.unaccounted for one in board.look().outputs] == [1, 0]
    assert "not_conserved" in [one.code for one in judge(board.look()).notices]


def test_nothing_is_unaccounted_for_while_a_release_is_being_recorded(books: Books) -> None:
    board = books.watched.board
    board.watch(books.journal.outputs)
    books.release(4)

    board.releasing(10)
    assert [one.unaccounted for one in board.look().outputs] == [0, 0], "not yet in the journal"
    books.record(10)
    assert [one.unaccounted for one in board.look().outputs] == [0, 0], "in it, and we were not told yet"
    board.released(10)
    assert [one.unaccounted for one in board.look().outputs] == [0, 0]


def test_what_an_earlier_run_left_is_no_fault_of_this_one(books: Books) -> None:
    books.record(10)
    books.journal.outputs.record_taken(books.watched.csv.name, chunk=1, receipts=[], rows=10)
    board = books.watched.board
    board.watch(books.journal.outputs)
    books.release(6)

    assert [(one.taken, one.pending, one.unaccounted) for one in board.look().outputs] == [(10, 6, 0), (0, 16, 0)]


def test_a_system_without_threads_still_shows_what_was_known_last(books: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    board = books.watched.board
    board.watch(books.journal.outputs)
    books.release(6)
    assert [one.pending for one in board.look().outputs] == [6, 6]

    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    books.release(4)

    assert [one.pending for one in board.look().outputs] == [6, 6]


def test_an_output_that_gave_up_is_said_to_have_ended(watched: Watched) -> None:
    watched.board.gave_up(watched.api, OutputUnavailable("refuses API_TOKEN"))

    assert watched.board.look().outputs[1].has_ended
    assert [one.code for one in judge(watched.board.look()).reasons] == ["output_ended"]
