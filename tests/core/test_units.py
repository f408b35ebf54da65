"""Sources in another unit are seen, and no real ECG is taken for one: not in quiet windows, not on a flat line."""

from __future__ import annotations

import tracemalloc

import numpy as np
import numpy.typing as npt
import pytest

from anonymizer.samples import arrange, make_samples
from anonymizer.units import UnitDoubts, unit_doubts
from anonymizer.windows import NANOSECONDS, covering_windows
from testbed.sample_ecg import read_sample_ecg

Signal = npt.NDArray[np.float64]

HERTZ = 360
NONE = UnitDoubts()


def doubts(signals: dict[str, Signal], *, window_s: int = 5) -> UnitDoubts:
    """Return what is said of signals that begin together, in their units."""
    ids = sorted(signals)
    times = [np.arange(len(signals[name])) * NANOSECONDS // HERTZ for name in ids]
    codes = [np.full(len(times_ns), code) for code, times_ns in enumerate(times)]
    samples = make_samples(np.concatenate(times), np.concatenate(codes), ids, np.concatenate([signals[name] for name in ids]))
    windows = covering_windows(0, int(samples.times_ns.max()) + 1, window_s * NANOSECONDS)
    return unit_doubts(arrange(samples, windows, np.arange(len(ids))), len(ids))


@pytest.fixture(scope="module")
def wearers() -> dict[str, Signal]:
    ecg = read_sample_ecg()
    return {f"w{number}": np.asarray(values, dtype=np.float64) for number, values in enumerate(ecg.values_uv)}


def parts(wearers: dict[str, Signal]) -> list[dict[str, Signal]]:
    step = 20 * HERTZ
    return [{name: values[first : first + step] for name, values in wearers.items()} for first in range(0, 300 * HERTZ, step)]


@pytest.mark.parametrize("window_s", [1, 5, 20])
def test_real_ecg_raises_no_doubt_together_or_alone(wearers: dict[str, Signal], window_s: int) -> None:
    for part in parts(wearers):
        assert doubts(part, window_s=window_s) == UnitDoubts(sources=6)
        for name, values in part.items():
            assert doubts({name: values}, window_s=window_s) == UnitDoubts(sources=1)


@pytest.mark.parametrize("window_s", [1, 5])
def test_millivolts_taken_for_microvolts_hardly_move(wearers: dict[str, Signal], window_s: int) -> None:
    for part in parts(wearers):
        assert doubts({name: values / 1000 for name, values in part.items()}, window_s=window_s).still == 6
        assert doubts({**part, "w3": 200 + part["w3"] / 1000}, window_s=window_s) == UnitDoubts(sources=6, still=1)


def test_one_source_in_microvolts_among_millivolts_stands_apart(wearers: dict[str, Signal]) -> None:
    for part in parts(wearers):
        in_another = {**part, "w2": part["w2"] * 1000}
        assert doubts(in_another) == UnitDoubts(sources=6, apart=1)
        assert doubts({name: in_another[name] for name in ("w1", "w2")}) == UnitDoubts(sources=2, apart=1)
        nanovolts = {name: values * (1000 if name != "w4" else 1) for name, values in part.items()}
        assert doubts(nanovolts) == UnitDoubts(sources=6, apart=1)


def test_a_flat_line_drift_a_step_and_a_short_piece_raise_no_doubt(wearers: dict[str, Signal]) -> None:
    rng = np.random.default_rng(7)
    rows = 20 * HERTZ
    quiet = {
        "off": np.zeros(rows),
        "noise of whole microvolts": rng.integers(-3, 4, rows).astype(float),
        "noise of a coarse converter": 5.0 * rng.integers(-1, 2, rows),
        "drift": parts(wearers)[0]["w0"] + np.linspace(0, 400_000, rows),
        "electrode": parts(wearers)[0]["w0"] + 100_000.0 * (np.arange(rows) > 0.6 * rows),
        "piece": np.linspace(0, 1, HERTZ // 2),
    }

    assert doubts({**parts(wearers)[0], **quiet}) == UnitDoubts(sources=12)


def test_thousands_of_sources_that_come_and_go_take_no_memory_for_those_that_are_away() -> None:
    rng = np.random.default_rng(3)
    sources, rows, windows = 100_000, 20_000, covering_windows(0, 1000 * NANOSECONDS, NANOSECONDS)
    ids = [f"{number:06}" for number in range(sources)]
    samples = make_samples(rng.integers(0, windows.end_ns, rows), rng.integers(0, sources, rows), ids, rng.normal(0, 100, rows))
    arranged = arrange(samples, windows, np.arange(sources))

    tracemalloc.start()
    found = unit_doubts(arranged, sources)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert (found.still, found.apart) == (0, 0)
    assert peak_bytes < 20_000_000


def test_large_chunks_are_looked_at_in_some_windows_and_values_may_be_anything(wearers: dict[str, Signal]) -> None:
    long = {name: np.tile(values, 2) / 1000 for name, values in wearers.items()}

    assert doubts(long, window_s=1) == UnitDoubts(sources=6, still=6)
    assert doubts({"a": np.full(HERTZ, 1e308), "b": np.tile([1e308, -1e308], HERTZ)}) == UnitDoubts(sources=2)
    assert (
        unit_doubts(arrange(make_samples([], [], [], []), covering_windows(0, 1, NANOSECONDS), np.array([], dtype=np.int64)), 0)
        == NONE
    )
