"""The core alone: the time to anonymize and verify a chunk of windows, and one live window, by method, k and unit of k.

`python -m benchmarks.core` interleaves all measurements over several rounds, so that changes of the machine's speed affect all of them. It
prints medians, and ratios to the default settings in the same round.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
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

    def __str__(self) -> str:
        return f"{self.name}, {len(self.samples):,} rows"


@dataclass(frozen=True)
class Choice:
    """A method, k and unit of k."""

    method: str
    k: int
    k_unit: KUnit

    def __str__(self) -> str:
        return f"{self.method:<10} k {self.k:<3} {self.k_unit}"


#: All ratios are relative to this one.
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


def measure(loads: list[Load], hierarchy: Hierarchy, rounds: int) -> dict[tuple[str, Choice], list[tuple[float, float]]]:
    """Return the seconds of every load and choice, per round. The first round is a warm-up."""
    seconds: dict[tuple[str, Choice], list[tuple[float, float]]] = {}
    for number in range(rounds + 1):
        for load in loads:
            for choice in _choices_for(load):
                taken = anonymize_and_verify(load, make_recipe(choice, hierarchy))
                if number:
                    seconds.setdefault((load.name, choice), []).append(taken)
    return seconds


def _choices_for(load: Load) -> list[Choice]:
    """Return what can be measured: one wearer's window is withheld where k counts sources."""
    return [choice for choice in CHOICES if choice.k_unit == "record" or len(load.samples.source_ids) > 1]


def _rate_in(load: Load) -> Callable[[float], str]:
    return lambda both_s: f"{len(load.samples) / both_s / 1e6:.1f} M rows/s"


def print_table(load: Load, figure: Callable[[float], str], taken: dict[Choice, list[tuple[float, float]]]) -> None:
    """Print one line per choice."""
    print(f"\n{load}")
    print(f"{'':<24} {'median':>14} {'best':>14} {'anonymize':>10} {'verify':>8} {'÷ default':>10}")
    default = [sum(each) for each in taken[DEFAULT]]
    for choice, each in taken.items():
        both = [sum(one) for one in each]
        ratio = statistics.median(ours / theirs for ours, theirs in zip(both, default, strict=True))
        anonymized, verified = (1000 * statistics.median(part) for part in zip(*each, strict=True))
        print(
            f"{choice!s:<24} {figure(statistics.median(both)):>14} {figure(min(both)):>14}"
            f" {anonymized:>7.1f} ms {verified:>5.1f} ms {ratio:>10.2f}"
        )


def measure_frames(hierarchy: Hierarchy, rounds: int) -> dict[str, list[tuple[float, float]]]:
    """Return, by type of the id column, the seconds of `anonymize_frame` and of the core alone on a million rows, per round."""
    load = make_load("a frame of 94 windows of 6 wearers, 360 Hz, 5 s", 6, 94)
    ids = pd.Categorical.from_codes(load.samples.source_codes, list(load.samples.source_ids))
    times = pd.DatetimeIndex(load.samples.times_ns.view("datetime64[ns]")).tz_localize("UTC")
    frame = pd.DataFrame({"timestamp": times, "source_id": ids, "ecg": load.samples.values_uv})
    frames = {"categories": frame, "text": frame.astype({"source_id": "str"})}
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in frames}
    for number in range(rounds + 1):
        for name, one in frames.items():
            core_s = sum(anonymize_and_verify(load, make_recipe(DEFAULT, hierarchy)))
            started_s = time.perf_counter()
            anonymize_frame(one)
            if number:
                seconds[name].append((time.perf_counter() - started_s, core_s))
    print(f"\n{load}: anonymize_frame beside the core alone")
    for name, each in seconds.items():
        ratio = statistics.median(ours / cores for ours, cores in each)
        ours_s, core_s = (1000 * statistics.median(part) for part in zip(*each, strict=True))
        print(f"ids as {name:<17} {ours_s:>11.1f} ms {core_s:>11.1f} ms {ratio:>10.2f}")
    return seconds


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.core", description="How quickly the core anonymizes.")
    parser.add_argument("--rounds", type=int, default=5, help="how often everything is done (default 5)")
    rounds = parser.parse_args().rounds
    hierarchy = parse_hierarchy(Path(anonymizer.__file__).with_name("smarko_hierarchy_ecg.csv").read_text(encoding="utf-8"))
    chunk = make_load("a chunk of 64 windows of 12 wearers, 360 Hz, 5 s", 12, 64)
    windows = [make_load(f"one live window of {wearers} wearers, 360 Hz, 5 s", wearers, 1) for wearers in (10, 1)]
    print(f"{os.cpu_count()} cores, {rounds} rounds; anonymize and verify, one thread")
    seconds = measure([chunk, *windows], hierarchy, rounds)
    for load in (chunk, *windows):
        taken = {choice: each for (name, choice), each in seconds.items() if name == load.name}
        print_table(load, _rate_in(chunk) if load is chunk else lambda both_s: f"{1000 * both_s:.1f} ms", taken)
    figures = Figures(f"The core alone, one thread: anonymize and verify, {rounds} rounds")
    for (name, choice), each in seconds.items():
        for both_s in map(sum, each):
            if name == chunk.name:
                figures.add(
                    f"chunk, {choice.method}, k {choice.k}, {choice.k_unit}", len(chunk.samples) / both_s / 1e6, "M rows/s"
                )
            else:
                rows = next(len(load.samples) for load in windows if load.name == name)
                figures.add(f"{rows:,} rows, {choice.method}, k {choice.k}, {choice.k_unit}", 1000 * both_s, "ms")
    for name, of_frames in measure_frames(hierarchy, rounds).items():
        for frame_s, core_s in of_frames:
            figures.add(f"frame of a million rows, ids as {name}", 1000 * frame_s, "ms")
            figures.add(f"frame of a million rows, ids as {name}, ÷ the core alone", frame_s / core_s, "×")
    figures.keep("core")


if __name__ == "__main__":
    main()
