"""Listeners receive every event: from the loop, deliveries and retries, in order and complete."""

from __future__ import annotations

import inspect
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from anonymizer.anonymize import Recipe
from anonymizer.errors import BatchRejected, OutputError, OutputUnavailable, SourceUnavailable, StateUnavailable
from anonymizer.hierarchy import parse_hierarchy
from anonymizer.level_hierarchy_anonymizer import LevelHierarchyAnonymizer
from anonymizer.pseudonyms import KeptIds
from anonymizer.samples import Samples
from anonymizer.windows import NANOSECONDS, WindowRange
from outputs.memory import MemoryOutput
from service.clock import SystemClock
from service.delivery.delivery import Delivery
from service.delivery.outbox import Store
from service.pipeline import read_ahead
from service.pipeline.release_loop import Parts, run
from service.pipeline.schedule import Schedule, Span, Stream
from service.retry import Retry
from service.settings.declared import SHIPPED_HIERARCHY
from service.state.epochs import Epoch
from service.state.journal import Journal
from service.state.set_aside import SetAside
from service.state.spool import Spool
from service.telemetry.events import SOURCE, STATE, Events
from service.telemetry.hub import Telemetry
from tests.service.batches import PROMISE
from tests.service.fakes import FakeClock, FakeSource

LENGTH_NS = 5 * NANOSECONDS

EVENTS = [name for name in vars(Events) if not name.startswith("_")]


def heard(happened: list[tuple[str, tuple[Any, ...]]]) -> Events:
    """Return a listener that writes down every event with its values."""

    def hearing(name: str) -> Callable[..., None]:
        return lambda self, *values, **named: happened.append((name, (*values, *named.values())))

    listener: Events = type("Listener", (Events,), {name: hearing(name) for name in EVENTS})()
    return listener


@pytest.mark.parametrize("event", EVENTS)
def test_every_event_is_handed_on_to_every_listener(event: str) -> None:
    class Deaf(Events):
        """Ignores what the log and the sums would need real values for."""

    happened: list[tuple[str, tuple[Any, ...]]] = []
    telemetry = Telemetry(k=5, verbose=True)
    telemetry._listeners = (Deaf(), heard(happened), heard(happened))
    values = list(range(len(inspect.signature(getattr(Events, event)).parameters) - 1))
    by_name = {
        name: 7 for name, one in inspect.signature(getattr(Events, event)).parameters.items() if one.kind == one.KEYWORD_ONLY
    }

    getattr(telemetry, event)(*values[: len(values) - len(by_name)], **by_name)

    expected = (event, (*values[: len(values) - len(by_name)], *by_name.values()))
    assert happened == [expected, expected]


class Weighed(FakeSource):
    """Notes how many of the rows that it returned were in memory together."""

    most_held = 0

    def __init__(self, rows: Sequence[tuple[float, str, float]]) -> None:
        super().__init__(rows)
        self.concurrent_reads = 2
        self._returned: list[weakref.ref[Any]] = []

    def read(self, windows: WindowRange) -> Samples:
        samples = super().read(windows)
        self._returned.append(weakref.ref(samples.values_uv))
        self.most_held = max(self.most_held, sum(len(held) for one in self._returned if (held := one()) is not None))
        return samples


def rows_of(*windows: int) -> list[tuple[float, str, float]]:
    """Return twenty rows in each of these windows."""
    return [(5 * window + index / 4, "ab"[index % 2], float(index % 3)) for window in windows for index in range(20)]


class Ward:
    """The loop on a source, here of four windows, the third empty, with two outputs and a listener."""

    def __init__(self, folder: Path, source: FakeSource | None = None) -> None:
        self.source = source or FakeSource(rows_of(0, 1, 3))
        self.happened: list[tuple[str, tuple[Any, ...]]] = []
        self.clock = SystemClock()
        self.telemetry = Telemetry(k=2, verbose=False, listeners=[heard(self.happened)])
        self.retry = Retry(self.clock, budget_s=None, draw=lambda: 0.0, telemetry=self.telemetry)
        self.good, self.bad = MemoryOutput(), MemoryOutput((OutputUnavailable("away"), BatchRejected("never")))
        self.good.name, self.bad.name = "good", "bad"
        self.journal = Journal(folder, data_set="fake")
        self.journal.epochs.begin(Epoch(PROMISE, LENGTH_NS), now_ns=0)
        store = Store(self.journal, Spool(folder / "spool"), SetAside(folder / "set_aside"))
        shared: dict[str, Any] = {"retry": self.retry, "telemetry": self.telemetry, "clock": self.clock}
        self.delivery = Delivery([self.good, self.bad], store, **shared, spool_max_bytes=1 << 30, batch_by_batch=True)

    def work(self, schedule: Schedule | None = None, *, is_stream: bool = False) -> None:
        hierarchy = parse_hierarchy(SHIPPED_HIERARCHY.read_text(encoding="utf-8-sig"))
        method = LevelHierarchyAnonymizer(hierarchy=hierarchy, k=2, max_level=3, residual="regroup", imputation="mean")
        parts = Parts(
            source=self.source,
            recipe=Recipe(method=method, names=KeptIds(), promise=PROMISE, data_set="fake"),
            journal=self.journal,
            delivery=self.delivery,
            telemetry=self.telemetry,
            retry=self.retry,
            clock=self.clock,
            most_rows=1,
            is_stream=is_stream,
            unit_is_window=True,
            advance=lambda windows, rows: None,
            give_back_memory=lambda: self.happened.append(("gave back", ())),
        )
        self.delivery.start()
        run(schedule or Span(WindowRange(0, 4 * LENGTH_NS, LENGTH_NS)), parts)
        self.delivery.drain()
        self.delivery.stop(1.0)
        self.journal.close()

    def all(self, event: str) -> list[tuple[Any, ...]]:
        return [values for name, values in self.happened if name == event]


def test_the_loop_comes_by_before_and_after_each_chunk_and_an_output_is_waited_for_by_its_own_name(tmp_path: Path) -> None:
    ward = Ward(tmp_path)

    ward.work()

    assert ward.all("phase") == [("working",)]
    assert [up_to // LENGTH_NS for (up_to,) in ward.all("reached")] == [0, 1, 2, 3, 4, 4]
    assert [(rows, windows) for _, rows, windows in ward.all("took")] == [(20, 1)] * 3
    assert len(ward.all("gave back")) == 3, "each has more rows than a chunk should"
    assert [windows.start_ns // LENGTH_NS for (windows,) in ward.all("nothing_in")] == [2]
    assert len(ward.all("anonymized")) == 3
    assert [(who, str(reason)) for who, reason, _ in ward.all("waits")] == [("bad", "away")]
    assert [rows for _, _, rows, _ in ward.all("rejected")] == [20]
    taken = {"good": 0, "bad": 0}
    for output, rows in ward.all("wrote"):
        taken[output.name] += rows
    assert taken == {"good": 60, "bad": 40}


def test_releases_are_told_before_and_after_they_stand_in_the_journal(tmp_path: Path) -> None:
    ward = Ward(tmp_path)
    known: list[tuple[str, int]] = []
    for event in ("releasing", "released"):
        setattr(ward.telemetry, event, lambda rows, event=event: known.append((event, ward.journal.totals().released)))

    ward.work()

    assert known == [("releasing", 0), ("released", 20), ("releasing", 20), ("released", 40), ("releasing", 40), ("released", 60)]


def test_a_stream_that_is_behind_has_one_large_window_in_memory_at_a_time_and_reads_early_only_once_it_keeps_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Of twenty rows, a window is large, and has five parts.
    monkeypatch.setattr(read_ahead, "_ROWS_PER_PART", 4)
    source = Weighed(rows_of(*range(17)))
    ward = Ward(tmp_path, source)

    # Twelve windows are due at once, four more while the stream runs, and one a second after its end.
    stream = Stream(source, FakeClock(62, stop_after_s=24), 0, LENGTH_NS, 2 * NANOSECONDS, interval_s=5)
    ward.work(stream, is_stream=True)

    reads = [windows for question, windows in source.questions if question == "read"]
    assert source.most_held == 20
    assert [windows.start_ns for windows in reads[:12]] == list(range(0, 12 * LENGTH_NS, LENGTH_NS)), "each read once, and whole"
    assert {windows.length_ns for windows in reads[13:]} == {NANOSECONDS}
    assert reads[-1].start_ns >= 16 * LENGTH_NS, "read, and not released"
    assert [(batch.window.start_ns, len(batch)) for batch in ward.good.batches.values()] == [
        (window * LENGTH_NS, 20) for window in range(16)
    ]


def test_a_source_that_is_down_is_waited_for_as_the_source_and_a_worker_that_gives_up_is_reported(tmp_path: Path) -> None:
    ward = Ward(tmp_path)
    ward.source.failures = [SourceUnavailable("refused")]
    ward.bad._failures = [OutputError("a fault of the output's own")]

    ward.work()

    names = [name for name, values in ward.happened if name in ("waits", "recovered") and values[0] == SOURCE]
    assert names == ["waits", "recovered"]
    assert [(output.name, str(reason)) for output, reason in ward.all("gave_up")] == [("bad", "a fault of the output's own")]


def test_a_stream_that_passes_an_empty_window_waits_for_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ward = Ward(tmp_path)
    really_move, failures, moved = ward.journal.move_stream, [StateUnavailable("disk full")], []

    def full_at_first(position_ns: int) -> None:
        if failures:
            raise failures.pop()
        moved.append(position_ns // LENGTH_NS)
        really_move(position_ns)

    monkeypatch.setattr(ward.journal, "move_stream", full_at_first)

    ward.work(is_stream=True)

    assert moved == [3], "behind the one window without rows"
    assert [(who, str(reason)) for who, reason, _ in ward.all("waits") if who == STATE] == [(STATE, "disk full")]
