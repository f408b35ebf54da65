"""Puts the figures of the last runs into documentation/PERFORMANCE.md: `python -m benchmarks.page`."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.figures import FOLDER, ROOT, Series
from benchmarks.goals import MEASURES, cell, goals_table

PAGE = ROOT / "documentation" / "PERFORMANCE.md"

_GOALS_HEAD = "| measure | goal | before | now (least–most) | |\n| --- | --- | --- | --- | --- |\n"


@dataclass(frozen=True, slots=True)
class Layout:
    """How the page shows one part of the benchmark.

    Args:
        columns: Endings of series that stand beside each other in one row; the longest that fits counts.
        dropped: Series that stay in build/bench alone, as a regular expression.
        first: Heading of the column of series without an ending.
    """

    columns: tuple[str, ...] = ()
    dropped: str = r"(?!)"
    first: str = "median (least–most)"


_PEERS = (", ours", ", theirs", ", theirs ÷ ours", ", squared error, theirs ÷ ours")

#: In the order of the page.
LAYOUTS = {
    "throughput": Layout((", rate", ", processor", ", peak memory"), dropped="bucket to bucket, per row"),
    "peers": Layout(_PEERS),
    "live": Layout(
        (
            ", window end to visible, p50",
            ", window end to visible, p99",
            ", p50 of the last third − of the first",
            ", processor",
            ", server's processor",
            ", generator's processor",
            ", others' processor",
            ", caught up in",
            ", peak memory",
        ),
        dropped=", windows$|, memory",
    ),
    "growth": Layout((" ÷ the fewest", " ÷ one", ", peak memory"), first="time"),
    "backlog": Layout((", record", ", catch up", ", peak memory"), dropped="÷ the fewest"),
    "core": Layout((", chunk", ", 18,000 rows", ", 1,800 rows", ", ÷ the core alone")),
    "small": Layout(),
    "parquet": Layout((", size", ", peak memory"), first="speed"),
    "scale": Layout((": per chunk",), dropped="start left out"),
    "versions": Layout(
        (", count and read alone, rate", ", InfluxDB → InfluxDB, rate", ", InfluxDB → InfluxDB, processor"),
        dropped="alone$|InfluxDB$",
    ),
}


def main() -> None:
    """Replace the rows and tables of what was measured; others stay."""
    page = PAGE.read_text(encoding="utf-8")
    kept = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in FOLDER.glob("*.json")}
    measured = {part: _series(one) for part, one in kept.items()}
    page = _replaced(page, "goals", lambda earlier: _goals(earlier, measured))
    PAGE.write_text(_replaced(page, "figures", lambda earlier: _tables(earlier, kept, measured)), encoding="utf-8")


def _series(kept: Mapping[str, Any]) -> dict[str, Series]:
    every = [Series(one["name"].strip(), one["unit"], one["values"]) for one in kept["series"]]
    return {one.name: one for one in every}


def _replaced(page: str, name: str, table: Callable[[str], str]) -> str:
    begin, end = f"<!-- {name}: begin -->\n", f"<!-- {name}: end -->\n"
    before, _, rest = page.partition(begin)
    earlier, _, after = rest.partition(end)
    return before + begin + table(earlier) + end + after


def _goals(earlier: str, measured: Mapping[str, Mapping[str, Series]]) -> str:
    rows = {line.split(" | ")[0][2:]: line for line in earlier.splitlines()[2:]} | goals_table(measured)
    return _GOALS_HEAD + "".join(f"{rows[measure]}\n" for measure in MEASURES if measure in rows)


def _tables(earlier: str, kept: Mapping[str, Any], measured: Mapping[str, Mapping[str, Series]]) -> str:
    tables = {
        found[1]: table.strip()
        for table in re.split(r"^(?=\*\*)", earlier, flags=re.M)
        if (found := re.search(r"<!-- (\w+) -->", table))
    }
    for part, one in kept.items():
        if part in LAYOUTS:
            tables[part] = _table(part, one, _shown(part, measured))
    return "\n\n".join(tables[part] for part in LAYOUTS if part in tables) + "\n"


def _shown(part: str, measured: Mapping[str, Mapping[str, Series]]) -> list[Series]:
    series = list(measured[part].values())
    if part == "peers":
        series += [one for one in measured.get("throughput", {}).values() if one.name.endswith(_PEERS)]
    return [one for one in series if not re.search(LAYOUTS[part].dropped, one.name)]


def _table(part: str, kept: Mapping[str, Any], series: list[Series]) -> str:
    about, layout = kept["machine"], LAYOUTS[part]
    rows: dict[str, dict[str, str]] = {}
    for one in series:
        column = max((ending for ending in layout.columns if one.name.endswith(ending)), key=len, default="")
        rows.setdefault(one.name.removesuffix(column), {})[column] = cell(one)
    columns = [column for column in ("", *layout.columns) if any(column in row for row in rows.values())]
    heads = [column.strip(", :") or layout.first for column in columns]
    title = f"**{kept['title']}** ({kept['taken']}; {about['cores']} cores, {about['processor']}, commit {about['commit']})"
    return "\n".join(
        [
            f"{title} <!-- {part} -->\n",
            f"| | {' | '.join(heads)} |",
            f"| --- |{' --- |' * len(heads)}",
            *(f"| {name} | {' | '.join(row.get(column, '') for column in columns)} |" for name, row in rows.items()),
        ]
    )


if __name__ == "__main__":
    main()
