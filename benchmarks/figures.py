"""Measured figures: shown as median and spread over all rounds, and saved as JSON with the machine's description."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent

#: Folder of the last runs' tables and plots; `make clean` removes it.
FOLDER = ROOT / "build" / "bench"


@dataclass(slots=True)
class Series:
    """One quantity, measured once per round.

    Args:
        name: Its name.
        unit: Its unit, such as `s`.
        values: One per round.
    """

    name: str
    unit: str
    values: list[float] = field(default_factory=list)

    def add(self, value: float) -> float:
        """Record one value, and return it."""
        self.values.append(value)
        return value

    @property
    def median(self) -> float:
        """The median over all rounds."""
        return statistics.median(self.values)

    def __str__(self) -> str:
        spread = f"({min(self.values):.3g} to {max(self.values):.3g})" if len(self.values) > 1 else ""
        return f"{self.name:<58} {self.median:>9.3g} {self.unit:<9} {spread}"


class Figures:
    """All quantities of one benchmark, in the order in which they were first measured.

    Args:
        title: What was measured.
    """

    def __init__(self, title: str) -> None:
        self.title = title
        self.series: dict[str, Series] = {}

    def add(self, name: str, value: float, unit: str = "s") -> float:
        """Record one value of a quantity, and return it."""
        return self.series.setdefault(name, Series(name, unit)).add(value)

    def show(self) -> None:
        """Print one line per quantity."""
        print(f"\n{self.title}\n{'-' * len(self.title)}")
        for one in self.series.values():
            print(one)

    def keep(self, name: str) -> None:
        """Save all figures as JSON."""
        FOLDER.mkdir(parents=True, exist_ok=True)
        described = {
            "title": self.title,
            "taken": time.strftime("%Y-%m-%d", time.gmtime()),
            "machine": machine(),
            "series": [{"name": one.name, "unit": one.unit, "values": one.values} for one in self.series.values()],
        }
        (FOLDER / f"{name}.json").write_text(json.dumps(described, indent=2), encoding="utf-8")


def machine() -> dict[str, Any]:
    """Return a description of the machine, and the commit."""
    return {
        "cores": os.cpu_count(),
        "processor": _processor(),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()}",
        "commit": _commit(),
    }


def _processor() -> str:
    try:
        lines: Iterable[str] = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or "unknown"
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


def _commit() -> str:
    asked = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True, check=False)
    return asked.stdout.strip() or "unknown"
