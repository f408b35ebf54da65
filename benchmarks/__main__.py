"""`make bench`: the figures of documentation/PERFORMANCE.md, on this machine; a table, JSON and a plot each in build/bench.

Without arguments, the parts that the page's goals are about; the others by name.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

from benchmarks import backlog, core, growth, parquet, peers, scale, small, throughput, versions
from benchmarks.figures import FOLDER, Figures, machine
from benchmarks.plots import plot

#: What the goals are about, and the rest. The live tables are `benchmarks.live`.
GOALS = ("throughput", "core", "growth", "peers")
OTHERS = ("small", "backlog", "parquet", "scale", "versions")


def main() -> None:
    """Run the benchmarks that the arguments name, or all."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "what",
        nargs="*",
        choices=(*GOALS, *OTHERS, []),
        help=f"only these (default {' '.join(GOALS)})",
    )
    parser.add_argument("--wearers", type=int, default=6)
    parser.add_argument("--minutes", type=int, default=30)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--parts", nargs="+", choices=scale.PARTS, default=scale.PARTS, help="of scale: only these")
    options = parser.parse_args()
    kinds: dict[str, Callable[[], Figures]] = {
        "throughput": lambda: throughput.measure(wearers=options.wearers, minutes=options.minutes, repeats=options.repeats),
        "core": lambda: core.measure(repeats=options.repeats),
        "peers": lambda: peers.measure(repeats=options.repeats),
        "versions": lambda: versions.measure(wearers=options.wearers, minutes=min(10, options.minutes), repeats=options.repeats),
        "small": lambda: small.measure(repeats=max(5, options.repeats)),
        "growth": lambda: growth.measure(repeats=options.repeats),
        "backlog": lambda: backlog.measure(repeats=options.repeats),
        "parquet": lambda: parquet.measure(repeats=options.repeats),
        "scale": lambda: scale.measure(repeats=options.repeats, parts=options.parts),
    }
    about = machine()
    print(f"{about['cores']} cores, {about['processor']}, Python {about['python']}, commit {about['commit']}")
    for name in options.what or GOALS:
        began_s = time.monotonic()
        figures = kinds[name]()
        figures.show()
        figures.keep(name)
        plot(figures, FOLDER / f"{name}.svg")
        print(f"({name} took {(time.monotonic() - began_s) / 60:.1f} minutes)")
    print(f"\nKept in {FOLDER}")


if __name__ == "__main__":
    main()
