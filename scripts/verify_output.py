"""Check anonymized CSV files from the outside: is every released value shared by at least k rows (or sources) of its window?

For anybody, without trust in the program that wrote the files: this script uses Python's standard library and nothing of the project.
It also checks that values are finite, that no source has two rows for one time, and that rows are in order.
Exit codes: 0 every window keeps the promise, 1 at least one does not, 64 the files or arguments cannot be used.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import math
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import NoReturn

HEADER = ["timestamp", "source_id", "ecg"]

EXIT_VIOLATION, EXIT_USAGE = 1, 64

#: A mean of thousands of numbers may differ by this much for rounding.
MEAN_TOLERANCE = 1e-6


class UnusableFile(Exception):
    """A file is not of the form this script checks."""


@dataclass(frozen=True, slots=True)
class Row:
    """One released row: nanoseconds since the epoch, released id, value."""

    time_ns: int
    source: str
    value: float


@dataclass(frozen=True, slots=True)
class Question:
    """What was promised."""

    k: int
    batch_seconds: int
    by_source: bool
    imputed: bool


@dataclass(frozen=True, slots=True)
class Finding:
    """What a window was found to hold, and what is wrong with it."""

    start_ns: int
    rows: int
    sources: int
    distinct_values: int
    smallest_group: int
    imputed_rows: int
    problems: tuple[str, ...]


def read_rows(path: Path) -> Iterator[Row]:
    """Yield the rows of a CSV file.

    Raises:
        UnusableFile: It cannot be read or is of another form; with the line.
    """
    seconds: dict[str, int] = {}
    try:
        with path.open(encoding="utf-8", newline="") as file:
            lines = csv.reader(file)
            if next(lines, None) != HEADER:
                raise UnusableFile(f"{path}: expected the header {','.join(HEADER)}")
            for cells in lines:
                try:
                    time, source, value = cells
                    yield Row(_nanoseconds(time, seconds), source, float(value))
                except ValueError:
                    raise UnusableFile(f"{path}, line {lines.line_num}: expected a time, an id and a number") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UnusableFile(f"{path} cannot be read ({error})") from None


def _nanoseconds(text: str, seconds: dict[str, int]) -> int:
    """Return `2025-11-03T14:30:00.123456789Z` in nanoseconds since the epoch; `seconds` remembers what was parsed before."""
    whole, _, fraction = text.removesuffix("Z").partition(".")
    if whole not in seconds:
        seconds[whole] = int(datetime.fromisoformat(f"{whole}+00:00").timestamp())
    return seconds[whole] * 1_000_000_000 + int(fraction.ljust(9, "0") or "0")


def windows_of(rows: Iterable[Row], batch_seconds: int) -> dict[int, list[Row]]:
    """Return the rows of each window, by the window's start."""
    length_ns = batch_seconds * 1_000_000_000
    windows: dict[int, list[Row]] = defaultdict(list)
    for row in rows:
        windows[row.time_ns // length_ns * length_ns].append(row)
    return windows


def examine(start_ns: int, rows: list[Row], question: Question) -> Finding:
    """Count who shares each value of a window, and say what breaks the promise."""
    sharers = _sharers(rows, by_source=question.by_source)
    lonely = [value for value, count in sharers.items() if count < question.k]
    imputed = lonely if _is_mean_of_others(lonely, rows) else []
    problems = []
    if imputed and not question.imputed:
        problems.append("rows carry the mean of all others (RESIDUAL=impute); accept these with --imputed")
    elif lonely and not imputed:
        problems.append(f"{len(lonely)} values are shared by fewer than {question.k}")
    if any(not math.isfinite(row.value) for row in rows):
        problems.append("values that are not finite")
    if len({(row.time_ns, row.source) for row in rows}) < len(rows):
        problems.append("a source has two rows for one time")
    if any((a.time_ns, a.source) > (b.time_ns, b.source) for a, b in itertools.pairwise(rows)):
        problems.append("rows are not in order of time and id")
    return Finding(
        start_ns=start_ns,
        rows=len(rows),
        sources=len({row.source for row in rows}),
        distinct_values=len(sharers),
        smallest_group=min((count for value, count in sharers.items() if value not in imputed), default=0),
        imputed_rows=sum(row.value in imputed for row in rows),
        problems=tuple(problems),
    )


def _sharers(rows: list[Row], *, by_source: bool) -> dict[float, int]:
    """Return how many rows, or different sources, stand behind each value."""
    if not by_source:
        return Counter(row.value for row in rows)
    sources: dict[float, set[str]] = defaultdict(set)
    for row in rows:
        sources[row.value].add(row.source)
    return {value: len(names) for value, names in sources.items()}


def _is_mean_of_others(lonely: list[float], rows: list[Row]) -> bool:
    """Return whether the only value that too few share is the mean of all others: an imputed one, which tells nothing of its own rows."""
    others = [row.value for row in rows if row.value not in lonely]
    return len(lonely) == 1 and bool(others) and abs(lonely[0] - math.fsum(others) / len(others)) <= MEAN_TOLERANCE


def print_table(findings: Iterable[Finding]) -> None:
    """Print a line for each window."""
    print(f"{'window':<20} {'rows':>8} {'sources':>8} {'values':>8} {'smallest':>8} {'imputed':>8}  problems")
    for finding in findings:
        start = datetime.fromtimestamp(finding.start_ns // 1_000_000_000, tz=_UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        counts = (finding.rows, finding.sources, finding.distinct_values, finding.smallest_group, finding.imputed_rows)
        print(f"{start:<20} " + " ".join(f"{count:>8}" for count in counts) + f"  {'; '.join(finding.problems) or '-'}")


_UTC = datetime.fromisoformat("1970-01-01T00:00:00+00:00").tzinfo


def main(arguments: list[str]) -> int:
    """Check the files; return the exit code."""
    options = _parse(arguments)
    question = Question(options.k, options.batch_seconds, options.k_unit == "source", options.imputed)
    try:
        rows = [row for path in options.files for row in read_rows(path)]
    except UnusableFile as error:
        sys.stderr.write(f"{error}\n")
        return EXIT_USAGE
    findings = [examine(start_ns, held, question) for start_ns, held in sorted(windows_of(rows, options.batch_seconds).items())]
    if options.table:
        print_table(findings)
    return _verdict(findings, question)


def _verdict(findings: list[Finding], question: Question) -> int:
    if not findings:
        print("No rows: nothing was released.")
        return 0
    broken = [finding for finding in findings if finding.problems]
    what = "sources" if question.by_source else "rows"
    print(
        f"{len(findings)} windows of {question.batch_seconds} s, {sum(finding.rows for finding in findings)} rows. "
        f"Smallest group: {min(finding.smallest_group for finding in findings)} {what} (promised: {question.k})."
    )
    if not broken:
        print("OK: every released value is shared as promised.")
        return 0
    for problem, windows in Counter(problem for finding in broken for problem in finding.problems).most_common():
        print(f"VIOLATION in {windows} windows: {problem}")
    return EXIT_VIOLATION


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(EXIT_USAGE, f"{self.prog}: {message}\n")


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = _Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="CSV files; windows may be spread over them")
    parser.add_argument("--k", type=int, required=True, help="how many must share each value")
    parser.add_argument("--batch-seconds", type=int, required=True, help="length of a window, BATCH_SIZE_SECONDS")
    parser.add_argument("--k-unit", choices=("record", "source"), default="record", help="what k counts: rows or sources")
    parser.add_argument("--imputed", action="store_true", help="accept rows with the mean of all others (RESIDUAL=impute)")
    parser.add_argument("--table", action="store_true", help="print a line for each window")
    options = parser.parse_args(arguments)
    if options.k < 1 or options.batch_seconds < 1:
        parser.error("--k and --batch-seconds must be at least 1")
    return options


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
