"""The core alone: the time to anonymize and verify a chunk of windows, and one live window, by method, k and unit of k.

All measurements alternate over several rounds, so that changes of the machine's speed affect all of them.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

import anonymizer
from anonymizer.anonymize import Method, Recipe, anonymize_chunk
from anonymizer.batch import KUnit, Promise
from anonymizer.hierarchy import Hierarchy, parse_hierarchy
from anonymizer.level_hierarchy_anonymizer import LevelHierarchyAnonymizer
from anonymizer.optimal_anonymizer import OptimalAnonymizer
from anonymizer.pseudonyms import KeptIds
from anonymizer.samples import Samples, make_samples
from anonymizer.verify import verify
from anonymizer.windows import NANOSECONDS, WindowRange
from benchmarks.figures import Figures
from ecg_frames import anonymize_frame
from testbed.wearers import Wearers

WINDOW_S = 5
_START_S = 1762180200


@dataclass(frozen=True)
class Load:
    """Input data: some windows of some wearers' ECG."""

    name: str
    samples: Samples
    windows: WindowRange


@dataclass(frozen=True)
class Choice:
    """A method, k and unit of k."""

    method: str
    k: int
    k_unit: KUnit


#: The service's default.
DEFAULT = Choice("hierarchy", 5, "record")

_KS: dict[KUnit, tuple[int, ...]] = {"record": (5, 10, 20), "source": (5, 10)}

CHOICES = [Choice(method, k, k_unit) for k_unit, each in _KS.items() for method in ("hierarchy", "optimal") for k in each]


def make_load(name: str, wearers: int, windows: int) -> Load:
    """Return the rows of `windows` windows, sorted by time."""
    span = WindowRange(_START_S * NANOSECONDS, (_START_S + windows * WINDOW_S) * NANOSECONDS, WINDOW_S * NANOSECONDS)
    worn = Wearers(wearers)
    rows = worn.samples_between(span.start_ns, span.end_ns)
    return Load(name, make_samples(rows.times_ns, rows.wearer, worn.source_ids, rows.values_uv), span)


def make_recipe(choice: Choice, hierarchy: Hierarchy) -> Recipe:
    """Return the recipe of a choice. Ids are kept, since pseudonyms cost nothing per row."""
    method: Method
    if choice.method == "optimal":
        method = OptimalAnonymizer(hierarchy, choice.k, choice.k_unit)
    else:
        method = LevelHierarchyAnonymizer(hierarchy, choice.k, k_unit=choice.k_unit)
    return Recipe(method, KeptIds(), Promise(choice.k, choice.k_unit, choice.method), "benchmark")


def anonymize_and_verify(load: Load, recipe: Recipe) -> tuple[float, float]:
    """Return the seconds to anonymize, and to verify."""
    started_s = time.perf_counter()
    results = anonymize_chunk(load.samples, load.windows, recipe).results
    anonymized_s = time.perf_counter()
    released = sum(verify(result.batch).distinct_values > 0 for result in results if result.batch is not None)
    verified_s = time.perf_counter()
    if released != len(load.windows):
        raise SystemExit(f"{len(load.windows) - released} windows were withheld, so the measurement is invalid")
    return anonymized_s - started_s, verified_s - anonymized_s


def _choices_for(load: Load) -> list[Choice]:
    """Return what can be measured: one wearer's window is withheld where k counts sources."""
    return [choice for choice in CHOICES if choice.k_unit == "record" or len(load.samples.source_ids) > 1]


def measure(*, repeats: int) -> Figures:
    """Return rows per second of a chunk, milliseconds of single windows, and what a frame costs beside the core alone."""
    figures = Figures(f"The core alone, one thread: anonymize and verify, {repeats} rounds")
    hierarchy = parse_hierarchy(Path(anonymizer.__file__).with_name("smarko_hierarchy_ecg.csv").read_text(encoding="utf-8"))
    chunk, frames = make_load("chunk", 12, 64), _Frames(hierarchy)
    loads = [chunk, make_load("18,000 rows", 10, 1), make_load("1,800 rows", 1, 1)]
    _one_round(Figures("warm-up"), loads, frames, hierarchy)
    for _ in range(repeats):
        _one_round(figures, loads, frames, hierarchy)
    return figures


def _one_round(figures: Figures, loads: list[Load], frames: _Frames, hierarchy: Hierarchy) -> None:
    for load in loads:
        for choice in _choices_for(load):
            both_s = sum(anonymize_and_verify(load, make_recipe(choice, hierarchy)))
            is_chunk = len(load.windows) > 1
            figures.add(
                f"{choice.method}, k {choice.k}, {choice.k_unit}, {load.name}",
                len(load.samples) / both_s / 1e6 if is_chunk else 1000 * both_s,
                "M rows/s" if is_chunk else "ms",
            )
    for name, frame_s, core_s in frames.seconds():
        figures.add(f"frame of a million rows, ids as {name}", 1000 * frame_s, "ms")
        figures.add(f"frame of a million rows, ids as {name}, ÷ the core alone", frame_s / core_s, "×")


class _Frames:
    """A million rows as a frame, by type of the id column."""

    def __init__(self, hierarchy: Hierarchy) -> None:
        self._recipe = make_recipe(DEFAULT, hierarchy)
        self._load = load = make_load("94 windows of 6 wearers", 6, 94)
        ids = pd.Categorical.from_codes(load.samples.source_codes, list(load.samples.source_ids))
        times = pd.DatetimeIndex(load.samples.times_ns.view("datetime64[ns]")).tz_localize("UTC")
        frame = pd.DataFrame({"timestamp": times, "source_id": ids, "ecg": load.samples.values_uv})
        self._frames = {"categories": frame, "text": frame.astype({"source_id": "str"})}

    def seconds(self) -> Iterator[tuple[str, float, float]]:
        """Yield each type, and the seconds of `anonymize_frame` and of the core alone."""
        for name, frame in self._frames.items():
            core_s = sum(anonymize_and_verify(self._load, self._recipe))
            started_s = time.perf_counter()
            anonymize_frame(frame)
            yield name, time.perf_counter() - started_s, core_s
