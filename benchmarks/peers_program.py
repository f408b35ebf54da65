"""What libraries of others need for the same rows: run by `benchmarks.peers` in an environment without this project.

A round per line on standard input, answered by a line of JSON with the seconds of each piece of work. The first round leaves the results in
a file, and compiles what is compiled.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from anjana.anonymity import k_anonymity  # type: ignore[import-not-found]  # only in the environment of its own
from microagg1d import univariate_microaggregation  # type: ignore[import-not-found]
from pycanon import anonymity  # type: ignore[import-not-found]

#: microagg1d's choice for k up to 21, and one of its methods that keeps its promise where values are tied.
METHODS = ("auto", "galil_park")

#: Shares of rows that anjana may remove, in per cent.
REMOVED = (0, 5)


def work_on(rows: dict[str, Any]) -> dict[str, Callable[[], Any]]:
    """Return what is measured, by name.

    Args:
        rows: Arrays by name: each load's values, its windows' lengths, the hierarchy, and the window as this project released it.
    """
    loads = [name.removesuffix("/values") for name in rows if name.endswith("/values")]
    levels = dict(enumerate([rows["leaves"], *rows["ranges"]]))
    values = rows[f"{loads[0]}/values"]
    window = pd.DataFrame({"source_id": "wearer", "ecg": values, "row": np.arange(len(values))})
    work: dict[str, Callable[[], Any]] = {}
    for k in rows["ks"].tolist():
        for load in loads:
            windows = np.split(rows[f"{load}/values"].astype(float), np.cumsum(rows[f"{load}/lengths"])[:-1])
            work |= {f"{method}/{load}/{k}": partial(_groups, windows, k, method) for method in METHODS}
        work |= {f"anjana/{most}/{k}": partial(_anonymized, window, k, most, levels) for most in REMOVED}
        released = pd.DataFrame({"ecg": rows[f"released/{k}"]})
        work[f"pycanon/{k}"] = partial(anonymity.k_anonymity, released, ["ecg"])
    return work


def _groups(windows: list[Any], k: int, method: str) -> Any:
    return np.concatenate([univariate_microaggregation(values, k, method=method) for values in windows])


def _anonymized(window: Any, k: int, most_removed: int, levels: dict[int, Any]) -> Any:
    return k_anonymity(window, ["source_id"], ["ecg"], k, most_removed, {"ecg": levels})


def main() -> None:
    """Answer until standard input ends."""
    with np.load(sys.argv[1]) as rows:
        work = work_on(dict(rows))
    for number, _ in enumerate(sys.stdin):
        seconds: dict[str, float] = {}
        results: dict[str, Any] = {}
        for name, do in work.items():
            calls = []
            for _ in range(int(sys.argv[3])):
                started_s = time.perf_counter()
                result = do()
                calls.append(time.perf_counter() - started_s)
            seconds[name] = statistics.median(calls)
            results |= _as_arrays(name, result) if not number else {}
        if not number:
            np.savez(sys.argv[2], **results)
        print(json.dumps(seconds), flush=True)


def _as_arrays(name: str, result: Any) -> dict[str, Any]:
    if isinstance(result, pd.DataFrame):
        return {name: result["ecg"].to_numpy(dtype=str), f"{name}/kept": result["row"].to_numpy()}
    return {name: np.asarray(result)}


if __name__ == "__main__":
    main()
