"""Puts the figures of the last runs into documentation/PERFORMANCE.md: `python -m benchmarks.page`."""

from __future__ import annotations

import json
import re
import statistics
from typing import Any

from benchmarks.figures import FOLDER, ROOT

PAGE = ROOT / "documentation" / "PERFORMANCE.md"

BEGIN, END = "<!-- figures: begin -->\n", "<!-- figures: end -->\n"


def main() -> None:
    """Replace the tables of what was measured, by their titles; others stay."""
    page = PAGE.read_text(encoding="utf-8")
    before, _, rest = page.partition(BEGIN)
    earlier, _, after = rest.partition(END)
    measured = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(FOLDER.glob("*.json"))]
    tables = {one["title"]: _table(one) for one in measured}
    others = {
        table[2:].partition("**")[0]: f"\n{table.strip()}\n"
        for table in re.split(r"^(?=\*\*)", earlier, flags=re.M)
        if table.strip()
    }
    PAGE.write_text(
        before + BEGIN + "\n".join(table for _, table in sorted({**others, **tables}.items())) + END + after, encoding="utf-8"
    )


def _table(kept: dict[str, Any]) -> str:
    about = kept["machine"]
    lines = [
        f"\n**{kept['title']}** ({kept['taken']}; {about['cores']} cores, {about['processor']}, Python {about['python']}, "
        f"commit {about['commit']})\n",
        "| quantity | median | least | most |",
        "| --- | --- | --- | --- |",
    ]
    for one in kept["series"]:
        least, middle, most = min(one["values"]), statistics.median(one["values"]), max(one["values"])
        unit = f" {one['unit']}" if one["unit"] else ""
        lines.append(f"| {one['name'].strip()} | {middle:.3g}{unit} | {least:.3g} | {most:.3g} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
