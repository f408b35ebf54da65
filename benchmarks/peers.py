"""The nearest libraries of others beside this project's core, on the same rows: real ECG in whole microvolts, most values of it tied.

They run in an environment of their own, built once into a cache. Only the seconds of their calls count: not the start of the interpreter,
imports, compiling, nor the transfer of rows. A server's own copy task and the classic way are measured by `benchmarks.throughput`.
"""

from __future__ import annotations

import hashlib
import json
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import anonymizer
from anonymizer.anonymize import anonymize_chunk
from anonymizer.batch import Batch
from anonymizer.generalization import whole_leaves
from anonymizer.hierarchy import Hierarchy, parse_hierarchy
from anonymizer.regrouping import regroup
from anonymizer.samples import ArrangedSamples, arrange
from anonymizer.verify import verify
from benchmarks.core import Choice, Load, make_load, make_recipe
from benchmarks.figures import Figures
from testbed.own_environment import build, python_of

_FOLDER = Path(__file__).parent
_REQUIREMENTS = _FOLDER / "peers_requirements.txt"

_KS = (5, 20)

#: Calls per round, here and there: one of a millisecond alone tells little.
CALLS = 3

#: The libraries' names, by the name of the work in `peers_program`.
_METHODS = {"auto": "microagg1d", "galil_park": "microagg1d, method galil_park"}
_REMOVED = (0, 5)


@dataclass(frozen=True, slots=True, eq=False)
class _Rows:
    """The rows of a load, as the core and the others get them."""

    load: Load
    arranged: ArrangedSamples
    values: npt.NDArray[np.int64]

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        return np.bincount(self.arranged.window_index)


def measure(*, repeats: int) -> Figures:
    """Return, per peer, our time, theirs, the ratio in the same round, and the ratio of squared errors."""
    figures = Figures(f"Libraries of others on the same rows, one thread, {repeats} rounds")
    hierarchy = parse_hierarchy(Path(anonymizer.__file__).with_name("smarko_hierarchy_ecg.csv").read_text(encoding="utf-8"))
    every = [
        _rows_of(make_load(*size), hierarchy) for size in (("1,800 rows", 1, 1), ("18,000 rows", 10, 1), ("1.4 M rows", 12, 64))
    ]
    released = {k: _released(every[0].load, hierarchy, k) for k in _KS}
    with tempfile.TemporaryDirectory() as name:
        given, results = Path(name, "given.npz"), Path(name, "results.npz")
        np.savez(given, **_as_arrays(every, released, hierarchy))
        try:
            python = _interpreter()
        except (subprocess.CalledProcessError, OSError) as error:
            # Said in the table, where the figures would be.
            figures.add(f"not measured: the libraries could not be installed ({type(error).__name__})", float("nan"), "")
            return figures
        with _running(python, given, results) as ask:
            ask()
            errors = _errors(every, released, results)
            for _ in range(repeats):
                _one_round(figures, every, released, hierarchy, ask(), errors)
    return figures


def _rows_of(load: Load, hierarchy: Hierarchy) -> _Rows:
    arranged = arrange(load.samples, load.windows, np.arange(len(load.samples.source_ids)))
    return _Rows(load, arranged, whole_leaves(arranged.values_uv, hierarchy)[0])


def _released(load: Load, hierarchy: Hierarchy, k: int) -> Batch:
    recipe = make_recipe(Choice("hierarchy", k, "record"), hierarchy)
    (result,) = anonymize_chunk(load.samples, load.windows, recipe).results
    assert result.batch is not None, "real ECG is released"
    return result.batch


def _as_arrays(every: list[_Rows], released: dict[int, Batch], hierarchy: Hierarchy) -> dict[str, Any]:
    leaves = hierarchy.first_leaf + np.arange(hierarchy.leaves)
    ranges = [
        [f"{low};{high}" for low, high in zip(level.lows[level.range_of_leaf], level.highs[level.range_of_leaf], strict=True)]
        for level in hierarchy.levels
    ]
    arrays = {"ks": np.array(_KS), "leaves": leaves, "ranges": np.array([*ranges, ["*"] * len(leaves)])}
    for rows in every:
        arrays |= {f"{rows.load.name}/values": rows.values, f"{rows.load.name}/lengths": rows.lengths}
    return arrays | {f"released/{k}": batch.values_uv for k, batch in released.items()}


def _interpreter() -> Path:
    """Return the interpreter of the others' environment, which is built if it is missing: a minute, 0.7 GB."""
    digest = hashlib.sha256(_REQUIREMENTS.read_bytes()).hexdigest()[:12]
    python = python_of(f"peers-{digest}")
    if not python.exists():
        print("installing the libraries that ours is compared with", flush=True)
        build(python, ["-r", str(_REQUIREMENTS)])
    return python


@contextmanager
def _running(python: Path, given: Path, results: Path) -> Iterator[Callable[[], dict[str, float]]]:
    """Yield what has the others do all their work once, and returns the seconds of each piece."""
    command = [str(python), str(_FOLDER / "peers_program.py"), str(given), str(results), str(CALLS)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8") as program:
        assert program.stdin is not None
        assert program.stdout is not None
        asked, answered = program.stdin, program.stdout

        def ask() -> dict[str, float]:
            print(flush=True, file=asked)
            answer: dict[str, float] = json.loads(answered.readline())
            return answer

        yield ask
        asked.close()


def _one_round(
    figures: Figures,
    every: list[_Rows],
    released: dict[int, Batch],
    hierarchy: Hierarchy,
    theirs: dict[str, float],
    errors: dict[str, tuple[str, float]],
) -> None:
    def add(name: str, ours_s: float, work: str) -> None:
        note, error = errors.get(work, ("", 0.0))
        figures.add(f"{name}{note}, ours", 1000 * ours_s, "ms")
        figures.add(f"{name}{note}, theirs", 1000 * theirs[work], "ms")
        figures.add(f"{name}{note}, theirs ÷ ours", theirs[work] / ours_s, "×")
        if error:
            figures.add(f"{name}{note}, squared error, theirs ÷ ours", error, "×")

    window = every[0].load
    for rows in every:
        for k in _KS:
            ours_s = _seconds(partial(_groups, rows, k))
            for method, called in _METHODS.items():
                add(f"groups of {k}, {rows.load.name}: {called}", ours_s, f"{method}/{rows.load.name}/{k}")
    for k in _KS:
        ours_s = _seconds(partial(_released_and_verified, window, hierarchy, k))
        for removed in _REMOVED:
            add(f"window of {window.name}, k {k}: anjana", ours_s, f"anjana/{removed}/{k}")
    for k in _KS:
        add(f"k of a window counted, k {k}: pyCANON", _seconds(partial(verify, released[k])), f"pycanon/{k}")


def _groups(rows: _Rows, k: int) -> npt.NDArray[np.int64]:
    regrouped = regroup(rows.arranged, rows.values, np.arange(len(rows.values)), k, "record")
    groups = np.empty_like(regrouped.groups)
    groups[regrouped.positions] = regrouped.groups
    return groups


def _released_and_verified(load: Load, hierarchy: Hierarchy, k: int) -> None:
    verify(_released(load, hierarchy, k))


def _seconds(work: Callable[[], object]) -> float:
    """Return the seconds of one piece of work; the median of several calls, as `peers_program` does."""
    return statistics.median(_once(work) for _ in range(CALLS))


def _once(work: Callable[[], object]) -> float:
    started_s = time.perf_counter()
    work()
    return time.perf_counter() - started_s


# Errors: exact for groups of whole numbers


def _errors(every: list[_Rows], released: dict[int, Batch], results: Path) -> dict[str, tuple[str, float]]:
    """Return, for each piece of the others' work, what is to be said of its rows, and its squared error ÷ ours; 0 where there is none."""
    errors: dict[str, tuple[str, float]] = {}
    with np.load(results) as found:
        for k in _KS:
            for rows in every:
                ours = _error_of_groups(rows, _groups(rows, k))
                for method in _METHODS:
                    work = f"{method}/{rows.load.name}/{k}"
                    errors[work] = "", float(_error_of_groups(rows, found[work]) / ours)
            values = every[0].values
            ours_uv = float(np.mean((released[k].values_uv - values) ** 2))
            for removed in _REMOVED:
                work = f"anjana/{removed}/{k}"
                kept, released_uv = values[found[f"{work}/kept"]], _midpoints(found[work])
                if np.isinf(released_uv).all():
                    errors[work] = ", every value made *", 0.0
                    continue
                note = f", {1 - len(kept) / len(values):.0%} of rows removed" if len(kept) < len(values) else ""
                errors[work] = note, float(np.mean((released_uv - kept) ** 2)) / ours_uv
    return errors


def _error_of_groups(rows: _Rows, groups: npt.NDArray[np.int64]) -> Fraction:
    """Return the sum of squared distances from each group's mean. Groups may be numbered from 0 in each window."""
    _, group = np.unique(rows.arranged.window_index * len(groups) + groups, return_inverse=True)
    sizes, sums, squares = np.bincount(group), *(np.zeros(group.max() + 1, dtype=np.int64) for _ in range(2))
    np.add.at(sums, group, rows.values)
    np.add.at(squares, group, rows.values**2)
    together = Fraction(int(squares.sum()))
    return together - sum(Fraction(of_sum**2, size) for of_sum, size in zip(sums.tolist(), sizes.tolist(), strict=True))


def _midpoints(texts: npt.NDArray[np.str_]) -> npt.NDArray[np.float64]:
    """Return the middle of ranges such as `-5;4`; infinity for `*`, of which nothing is left."""
    known = {text: _midpoint(text) for text in np.unique(texts).tolist()}
    return np.array([known[text] for text in texts.tolist()])


def _midpoint(text: str) -> float:
    low, _, high = text.partition(";")
    return float("inf") if text == "*" else (float(low) + float(high or low)) / 2
