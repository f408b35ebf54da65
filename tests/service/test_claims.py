"""Claims: of services that cut one bucket in different ways, at most those of one cut ever hold, in whatever order their steps fall."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from anonymizer.cohorts import Claim, Cohort, claim_in, cut_of
from anonymizer.errors import OutputUnavailable, SourceDenied, SourceUnavailable
from anonymizer.samples import RowsBeside
from anonymizer.windows import NANOSECONDS, Window
from outputs.parquet_claims import ParquetClaims
from outputs.parquet_places import Folder
from service.pipeline.claims import Claimant, CutOtherwise, end_rival_claims, hold_claim, refuse_rival_labels
from service.pipeline.cut_guard import CutGuard
from service.pipeline.rows_without_cohort import RowsWithoutCohort
from service.pipeline.upkeep import Upkeep
from service.retry import Retry
from service.state.journal import Journal
from service.telemetry.hub import Telemetry
from tests.service.fakes import FakeClock, FakeSource

BASE = "0123456789ab"
WARD_3, WARD_4, SITE_A = (Cohort("ward", "3").label(BASE), Cohort("ward", "4").label(BASE), Cohort("site", "A").label(BASE))

#: Longer than a service that only asks is waited for.
LONG_S = 700.0


class Store:
    """Claims in memory."""

    place = "bucket 'out'"

    def __init__(self, *claims: Claim) -> None:
        self.said = list(claims)
        self.before: Callable[[], None] = lambda: None

    def claims(self) -> list[Claim]:
        self.before()
        return list({claim.service: claim for claim in sorted(self.said, key=lambda one: one.time_ns)}.values())

    def put(self, claim: Claim) -> None:
        self.before()
        self.said.append(claim)


class Turns:
    """Lets threads take steps one at a time, in an order that a seed decides; a step may be followed by a long sleep of all clocks."""

    def __init__(self, seed: int, *, sleeps: bool) -> None:
        self.now_s = 1e9
        self._draw = random.Random(seed)
        self._sleeps = sleeps
        self._waiting: dict[str, threading.Event] = {}
        self._changed = threading.Condition()
        self._alive = 0

    def run(self, bodies: dict[str, Callable[[], None]]) -> None:
        self._alive = len(bodies)
        threads = [threading.Thread(target=self._body, args=(body,), daemon=True) for body in bodies.values()]
        for thread in threads:
            thread.start()
        while True:
            with self._changed:
                self._changed.wait_for(lambda: len(self._waiting) == self._alive, timeout=60)
                if not self._alive:
                    return
                go = self._waiting.pop(self._draw.choice(sorted(self._waiting)))
                self.now_s += LONG_S if self._sleeps and self._draw.random() < 0.05 else 0.2
            go.set()

    def take(self, who: str) -> None:
        go = threading.Event()
        with self._changed:
            self._waiting[who] = go
            self._changed.notify_all()
        go.wait(60)

    def _body(self, body: Callable[[], None]) -> None:
        try:
            body()
        finally:
            with self._changed:
                self._alive -= 1
                self._changed.notify_all()


class TurnClock:
    """A clock whose waits are steps."""

    def __init__(self, turns: Turns, who: str, ahead_s: float) -> None:
        self._turns, self._who, self._ahead_s = turns, who, ahead_s

    def now_ns(self) -> int:
        return int((self._turns.now_s + self._ahead_s) * 1e9)

    def monotonic_s(self) -> float:
        return self._turns.now_s

    def wait(self, seconds: float) -> None:
        self._turns.take(self._who)

    def is_stopping(self) -> bool:
        return False


def who_holds(seed: int, labels: dict[str, str], *, sleeps: bool) -> set[str]:
    """Let services start at one moment; return those that hold their claim in the end."""
    turns, said, holders = Turns(seed, sleeps=sleeps), list[Claim](), set[str]()
    clocks_apart = random.Random(seed)

    def body(name: str, label: str) -> Callable[[], None]:
        store = Store()
        store.said = said
        store.before = lambda: turns.take(name)
        clock = TurnClock(turns, name, clocks_apart.uniform(-90, 90))

        def start() -> None:
            try:
                hold_claim(store, Claimant(name, (label,), ""), clock)
            except CutOtherwise:
                return
            holders.add(name)

        return start

    turns.run({name: body(name, label) for name, label in labels.items()})
    return holders


@pytest.mark.parametrize("sleeps", [False, True])
def test_never_do_two_cuts_hold_and_hardly_ever_none(sleeps: bool) -> None:
    labels = {"three": WARD_3, "four": WARD_4, "site": SITE_A, "whole": BASE}
    rounds, without = 150, 0

    for seed in range(rounds):
        holders = who_holds(seed, labels, sleeps=sleeps)
        assert len({cut_of(labels[name]) for name in holders}) <= 1, (seed, holders)
        without += not holders

    assert without <= rounds * (0.2 if sleeps else 0.02), "one service is left to release"


def test_two_wards_never_see_rivals_in_each_other() -> None:
    for seed in range(20):
        assert who_holds(seed, {"three": WARD_3, "four": WARD_4}, sleeps=True) == {"three", "four"}


def held(label: str, service: str = "other", time_ns: int = 5) -> Claim:
    return Claim(service, "held", time_ns, (label,))


@pytest.mark.parametrize(
    ("ours", "theirs", "is_refused"),
    [
        (WARD_3, WARD_4, False),
        (WARD_3, Cohort("ward", "").label(BASE), False),
        (WARD_3, SITE_A, True),
        (WARD_3, BASE, True),
        (BASE, WARD_3, True),
        (BASE, Cohort("ward", "").label(BASE), True),
        (BASE, BASE, False),
        (WARD_3, "ba9876543210", False),
        (BASE, Cohort("ward", "3").label("ba9876543210"), False),
    ],
)
def test_only_another_cut_of_the_same_data_set_is_a_rival(ours: str, theirs: str, is_refused: bool) -> None:
    store, claimant, clock = Store(held(theirs)), Claimant("us", (ours,), "ward=3"), FakeClock()

    if not is_refused:
        assert {claim.state for claim in hold_claim(store, claimant, clock)} == {"held"}
        refuse_rival_labels({theirs: 7}, claimant, {}, "bucket")
        return
    with pytest.raises(CutOtherwise, match="the same rows would be released twice"):
        hold_claim(store, claimant, clock)
    assert store.said == [held(theirs)], "nothing is claimed where another holds"
    with pytest.raises(CutOtherwise, match="accept-gap"):
        refuse_rival_labels({theirs: 7}, claimant, {theirs: 6}, "bucket")
    refuse_rival_labels({theirs: 7}, claimant, {theirs: 7}, "bucket")
    assert end_rival_claims(store, claimant) == 1
    hold_claim(store, claimant, clock)


def test_a_bucket_known_by_its_id_to_one_service_and_by_its_address_to_another_is_one() -> None:
    by_id, by_address = BASE, "aaaaaaaaaaaa"
    store = Store(Claim("other", "held", 5, (by_id, by_address)))

    with pytest.raises(CutOtherwise):
        hold_claim(store, Claimant("us", (Cohort("ward", "3").label(by_address),), ""), FakeClock())


def test_a_store_that_does_not_show_what_was_written_prevents_every_release() -> None:
    class Forgetful(Store):
        def put(self, claim: Claim) -> None:
            pass

    with pytest.raises(SourceUnavailable, match="does not show the claim"):
        hold_claim(Forgetful(), Claimant("us", (BASE,), ""), FakeClock())


def test_claims_in_files_are_read_as_they_were_written_and_other_content_is_refused(tmp_path: Path) -> None:
    store = ParquetClaims(Folder(tmp_path / "out"), must_hold=False)
    assert store.claims() == []
    first, second = Claim("us", "asked", 5, (WARD_3, BASE)), Claim("us", "held", 10**18, (WARD_3, BASE))

    for claim in (second, first, held(WARD_4)):
        store.put(claim)

    assert sorted(store.claims(), key=str) == sorted([second, held(WARD_4)], key=str)
    assert claim_in(first.text) == first
    (tmp_path / "out" / "claims" / "notes.txt").write_text("")
    with pytest.raises(Exception, match="this version cannot read"):
        store.claims()


class Labels:
    """What an output holds summaries of."""

    def __init__(self, ends_ns: dict[str, int], error: Exception | None = None) -> None:
        self.ends_ns, self.error = ends_ns, error

    def labels(self, span: Window) -> dict[str, int]:
        return {}

    def newest_labels(self) -> dict[str, int]:
        if self.error is not None:
            raise self.error
        return self.ends_ns

    def is_missing(self) -> bool:
        return False


class Opened:
    """Opens an output, as often as asked."""

    def __init__(self, labels: Labels, store: Store) -> None:
        self.labels, self.store = labels, store

    def __call__(self) -> Opened:
        return self

    def __enter__(self) -> tuple[Labels, Store]:
        return self.labels, self.store

    def __exit__(self, *_: object) -> None:
        pass


def test_a_stream_looks_again_every_hour_and_sooner_where_it_could_not(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    clock, labels, store = FakeClock(), Labels({}), Store()
    journal = Journal(tmp_path, data_set=WARD_3)
    guard = CutGuard([Opened(labels, store)], Claimant("us", (WARD_3,), "ward=3"), journal, clock)
    guard.start(Window(0, 10), Retry(clock, budget_s=0))
    assert [claim.state for claim in store.said] == ["asked", "held"]

    labels.ends_ns = {BASE: 5}
    clock.now_s += 3599
    guard.look_if_due()
    clock.now_s += 2
    with pytest.raises(CutOtherwise):
        guard.look_if_due()
    journal.facts.accept_labels({BASE: 5})
    clock.now_s += 3600
    guard.look_if_due()

    labels.error = SourceUnavailable("no answer")
    clock.now_s += 3600
    guard.look_if_due()
    assert "cannot be seen in bucket 'out': no answer" in caplog.text
    labels.error, labels.ends_ns = None, {SITE_A: 5}
    clock.now_s += 300
    with pytest.raises(CutOtherwise):
        guard.look_if_due()
    journal.close()


def test_rows_of_no_cohort_are_counted_every_hour_each_once_and_later_if_the_source_does_not_answer(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Source(FakeSource):
        def rows_beside(self, start_ns: int, end_ns: int) -> RowsBeside:
            self._fail()
            asked.append((start_ns, end_ns))
            return RowsBeside(without_time=0, not_requested=(end_ns - start_ns) // NANOSECONDS)

    asked: list[tuple[int, int]] = []
    served: list[bool] = []
    clock, source, telemetry = FakeClock(), Source(), Telemetry(k=5, verbose=False)
    journal = Journal(tmp_path, data_set=WARD_3)
    count = RowsWithoutCohort(source, journal, telemetry, clock, tag="ward", are_served=lambda: bool(served)).look_if_due

    def after(seconds: int) -> int:
        clock.now_s += seconds
        journal.move_stream((1_000_000 + int(clock.now_s)) * NANOSECONDS)
        count()
        return len(asked)

    start_ns = (1_000_000 + int(clock.now_s)) * NANOSECONDS
    # The first look is at the last minute, a minute after the start; then every hour, each at what was released since.
    assert [after(59), after(2), after(3590), after(11)] == [0, 1, 1, 2]
    source.failures = [SourceUnavailable("no answer")]
    assert [after(3600), after(3599), after(2)] == [2, 2, 3]
    seconds = [[(at - start_ns) // NANOSECONDS for at in span] for span in asked]
    assert seconds == [[1, 61], [61, 3662], [3662, 10863]]
    assert telemetry.totals.outside == 10862
    assert caplog.text.count("rows have no tag ward, so they belong to no cohort and are not released") == 3
    # A service that releases them has begun.
    served.append(True)
    assert after(3601) == 4
    assert caplog.text.count("rows have no tag ward") == 3
    journal.close()


def test_a_token_that_cannot_read_claims_all_the_same_and_says_what_it_does_not_see(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clock, store = FakeClock(), Store()
    labels = Labels({}, SourceDenied("403"))
    journal = Journal(tmp_path, data_set=WARD_3)

    CutGuard([Opened(labels, store)], Claimant("us", (WARD_3,), "ward=3"), journal, clock).start(
        Window(0, 10), Retry(clock, budget_s=0)
    )

    assert [claim.state for claim in store.said] == ["held"]
    assert "cannot be seen in bucket 'out': 403. Make sure that none does" in caplog.text
    journal.close()


def test_an_empty_mount_point_gets_no_claim(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()

    with pytest.raises(OutputUnavailable, match="is its disk missing"):
        ParquetClaims(Folder(tmp_path / "out"), must_hold=True).put(held(WARD_3))
    assert list((tmp_path / "out").iterdir()) == []


def test_the_release_loop_ends_where_a_look_finds_another_cut(tmp_path: Path) -> None:
    def look() -> None:
        raise CutOtherwise("another cut")

    clock, journal = FakeClock(), Journal(tmp_path, data_set=WARD_3)
    with pytest.raises(CutOtherwise):
        Upkeep(FakeSource(), journal, None, clock, most_recounts=0, looks=[look])()
    journal.close()
