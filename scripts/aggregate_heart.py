"""Summarize ledgers over the last days, as JSON. The counts are the same before and after pseudonyms; only the names of sources differ."""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

# Run as a command, only this folder is on the path: the project's folder holds `anonymizer`.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from scripts.heartbeat.command import DONE, Arguments, UsageError, run, warn, write_result
from scripts.heartbeat.entries import NANOSECONDS_PER_SECOND, SECONDS_PER_DAY, checked, instant_ns, timestamp_of, trusted
from scripts.heartbeat.ledger import LEDGER_NAME, read_ledger

DESCRIPTION = """Count the entries of one or more ledgers in the half-open span [until - days, until), and write the figures as JSON.
A metric's figures are over its values that are numbers. Invalid lines are named and nothing is counted."""

EXAMPLES = """  python scripts/aggregate_heart.py
  python scripts/aggregate_heart.py --days 30 --until 2025-11-04T00:00:00Z january.jsonl february.jsonl"""

Figures = dict[str, Any]


def main(arguments: Sequence[str], *, now_ns: Callable[[], int] = time.time_ns) -> int:
    """Run the command. `now_ns` gives the end of the span if `--until` does not."""
    asked = _read_arguments(arguments)
    end_ns = now_ns() if asked.until is None else asked.until
    start_ns = end_ns - asked.days * SECONDS_PER_DAY * NANOSECONDS_PER_SECOND
    try:
        end = timestamp_of(end_ns)
    except OverflowError:
        raise UsageError("--until lies outside the years 1 to 9999 in UTC; ask for a time in them") from None
    try:
        span = {"from": timestamp_of(start_ns), "to": end}
    except OverflowError:
        raise UsageError(f"--days {asked.days} reaches back beyond the year 1; ask for fewer") from None
    entries = _within(trusted(checked(chain.from_iterable(map(read_ledger, asked.ledgers)))), start_ns=start_ns, end_ns=end_ns)
    _warn_of_values_left_out(entries)
    write_result(json.dumps({**span, **aggregate(entries)}, ensure_ascii=False, indent=2) + "\n")
    return DONE


def aggregate(entries: Sequence[Figures]) -> Figures:
    """Return the figures of valid entries, names sorted. A symbol given twice in an entry counts twice."""
    sources = _counts(entry["source_id"] for entry in entries)
    return {
        "entries": len(entries),
        "distinct_sources": len(sources),
        "by_event_type": _counts(entry["event_type"] for entry in entries),
        "by_source": sources,
        "metrics": _figures_by_metric(entries),
        "symbols": _counts(symbol for entry in entries for symbol in entry["symbols"]),
    }


def _counts(names: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(names).items()))


def _figures_by_metric(entries: Iterable[Figures]) -> dict[str, Figures]:
    values: defaultdict[str, list[float]] = defaultdict(list)
    for entry in entries:
        for name, value in entry["metrics"].items():
            if _is_number(value):
                values[name].append(value)
    return {name: _figures(values[name]) for name in sorted(values)}


def _figures(values: Sequence[float]) -> Figures:
    # statistics.mean adds exactly: the mean does not depend on the order of lines, and no sum overflows a double.
    return {"count": len(values), "min": min(values), "mean": float(statistics.mean(values)), "max": max(values)}


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _warn_of_values_left_out(entries: Iterable[Figures]) -> None:
    left_out = sum(not _is_number(value) for entry in entries for value in entry["metrics"].values())
    if left_out:
        warn(f"warning: metric values that are not numbers, and are in no figure: {left_out}")


def _within(entries: Iterable[Figures], *, start_ns: int, end_ns: int) -> list[Figures]:
    """Return the entries at or after the start and before the end."""
    return [entry for entry in entries if start_ns <= instant_ns(entry["timestamp"]) < end_ns]


def _read_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    parser = Arguments(DESCRIPTION, EXAMPLES)
    parser.add_argument(
        "ledgers", nargs="*", default=[LEDGER_NAME], metavar="ledger", help=f"- is standard input (default: {LEDGER_NAME})"
    )
    parser.add_argument("--days", type=_days, default=7, metavar="N", help="how many days of 24 hours (default: 7)")
    parser.add_argument("--until", type=_until, metavar="TIME", help="the end, RFC 3339, not included (default: now)")
    return parser.read(arguments)


def _days(text: str) -> int:
    # Not int(): it takes "1_0" and digits of other scripts, and refuses very long numbers with a message of its own.
    if not (text.isascii() and text.isdigit() and len(text) < 8 and int(text)):
        raise argparse.ArgumentTypeError(f"must be a whole number of days, at least 1, got {text!r}")
    return int(text)


def _until(text: str) -> int:
    try:
        return instant_ns(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be an RFC 3339 time such as 2025-11-03T14:30:00Z, got {text!r}") from None


if __name__ == "__main__":
    sys.exit(run(main))
