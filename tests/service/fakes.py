"""A clock that tests move, and a source that holds what tests put in it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from anonymizer.samples import Inventory, RowsBeside, Samples, make_samples
from anonymizer.windows import NANOSECONDS, Window, WindowRange


class FakeClock:
    """Advances only when waited on; `on_wait` may change things meanwhile."""

    def __init__(self, now_s: float = 0.0, *, stop_after_s: float = math.inf) -> None:
        self.now_s = now_s
        self.stop_at_s = now_s + stop_after_s
        self.waits: list[float] = []
        self.on_wait: Callable[[], None] = lambda: None

    def now_ns(self) -> int:
        return round(self.now_s * NANOSECONDS)

    def monotonic_s(self) -> float:
        return self.now_s

    def wait(self, seconds: float) -> None:
        self.waits.append(seconds)
        # A wait of nothing would never end; real clocks move on by themselves.
        self.now_s += max(seconds, 1e-6)
        self.on_wait()

    def is_stopping(self) -> bool:
        return self.now_s >= self.stop_at_s


class FakeSource:
    """Rows of (time in seconds, source, value). `failures` are raised first, one a question; `short_reads` lose a row each."""

    name = "fake"
    server = ""
    may_have_a_namesake = False
    data_set = "fake"
    data_set_address = ""
    data_set_tells_samples = False
    is_surveyed = False
    repeats: Sequence[Window] | None = None
    inventory: Inventory | None = None
    remarks: tuple[str, ...] = ()

    def __init__(self, rows: Sequence[tuple[float, str, float]] = ()) -> None:
        self.rows = list(rows)
        self.concurrent_reads = 1
        self.failures: list[Exception] = []
        self.short_reads = 0
        self.questions: list[tuple[str, WindowRange]] = []
        self.looks = 0
        self.server_now_ns: int | None = None
        self.kept_since: int | None = None

    def open(self) -> None:
        self._fail()

    def look(self) -> None:
        self.looks += 1
        self._fail()

    def now_ns(self) -> int | None:
        return self.server_now_ns

    def clock_check_in_s(self) -> float:
        return math.inf

    def extent(self) -> tuple[int, int] | None:
        if not self.rows:
            return None
        times = [round(time * NANOSECONDS) for time, _, _ in self.rows]
        return min(times), max(times) + 1

    def rows_beside(self, start_ns: int, end_ns: int) -> RowsBeside:
        return RowsBeside()

    def added_since(self, data_set: str) -> None:
        return

    def earlier_version(self, is_known: Callable[[str], bool]) -> None:
        return

    def kept_since_ns(self) -> int | None:
        return self.kept_since

    def next_row_ns(self, start_ns: int, end_ns: int) -> int | None:
        times = (round(time * NANOSECONDS) for time, _, _ in self.rows)
        return min((time_ns for time_ns in times if start_ns <= time_ns < end_ns), default=None)

    def count(self, windows: WindowRange) -> npt.NDArray[np.int64]:
        self.questions.append(("count", windows))
        self._fail()
        index = windows.index_of(self._within(windows).times_ns)
        return np.bincount(index, minlength=len(windows)).astype(np.int64)

    def count_by_source(self, windows: WindowRange) -> list[Counter[str]]:
        self.questions.append(("count", windows))
        self._fail()
        rows = [(round(time * NANOSECONDS), source_id) for time, source_id, _ in self.rows]
        return [Counter(name for at_ns, name in rows if window.start_ns <= at_ns < window.end_ns) for window in windows]

    def read(self, windows: WindowRange) -> Samples:
        self.questions.append(("read", windows))
        self._fail()
        samples = self._within(windows)
        if self.short_reads:
            self.short_reads -= 1
            return Samples(samples.times_ns[1:], samples.source_codes[1:], samples.source_ids, samples.values_uv[1:])
        return samples

    def advice_when_empty(self) -> str:
        return "there is nothing here"

    def hint_on_contradictions(self) -> str:
        return "The other tags are: 'lead'."

    def close(self) -> None:
        pass

    def _fail(self) -> None:
        if self.failures:
            raise self.failures.pop(0)

    def _within(self, windows: WindowRange) -> Samples:
        rows = [row for row in self.rows if windows.start_ns <= round(row[0] * NANOSECONDS) < windows.end_ns]
        ids = sorted({source for _, source, _ in rows})
        return make_samples(
            [round(time * NANOSECONDS) for time, _, _ in rows],
            [ids.index(source) for _, source, _ in rows],
            ids,
            [value for _, _, value in rows],
        )
