"""Runs the outside check as a person would, and makes what it looks at by hand."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent

SCRIPT = ROOT / "scripts" / "verify_output.py"

SECOND_NS = 10**9

#: 2025-11-03T14:30:00Z, a multiple of five and of six seconds.
START_NS = 1762180200 * SECOND_NS


def run_check(*arguments: str, environment: Mapping[str, str] | None = None, packages: bool = False) -> tuple[int, str]:
    """Return exit code and everything that was said. Nothing of our own environment gets in but the PATH, and packages if told."""
    done = subprocess.run(
        # Isolated, and without the packages of the environment: what anybody has who has Python.
        [sys.executable, "-I", *([] if packages else ["-S"]), str(SCRIPT), *arguments],
        env={"PATH": os.environ["PATH"], **(environment or {})},
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stdout + done.stderr


def write_csv(path: Path, rows: Iterable[tuple[str, str, str]]) -> Path:
    """Write rows as the service's CSV output does."""
    path.write_text("timestamp,source_id,ecg\n" + "".join(",".join(row) + "\n" for row in rows), encoding="utf-8")
    return path


def row_lines(
    start_ns: int, values: Iterable[float], *, sources: int = 2, measurement: str = "ecg_anonymized", names: str = "s"
) -> list[str]:
    """Return one row for each value as line protocol, a millisecond apart, by turns of each source."""
    return [
        f"{measurement},source_id={names}{i % sources} ecg={value} {start_ns + i * 10**6}"
        for i, value in enumerate(map(float, values))
    ]


def summary_line(start_ns: int, *, measurement: str = "ecg_anonymized_windows", **changed: int | str | bool) -> str:
    """Return the summary of ten rows of two values by two sources, or what `changed` makes of it."""
    fields: dict[str, int | str | bool] = {
        "schema": "1",
        "batch_id": f"abc-{start_ns}",
        "window_seconds": 5,
        "rows_read": 10,
        "rows_released": 10,
        "rows_withheld": 0,
        "rows_invalid": 0,
        "rows_duplicate": 0,
        "rows_starred": 0,
        "rows_suppressed": 0,
        "k": 5,
        "k_unit": "record",
        "method": "hierarchy",
        "distinct_values": 2,
        "smallest_group": 5,
        "distinct_sources": 2,
        "settings_digest": "0123456789abcdef",
        "key_id": "",
        "partial": False,
        **changed,
    }
    return f"{measurement} {','.join(f'{name}={_field(value)}' for name, value in fields.items())} {start_ns}"


def _field(value: int | str | bool) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value}i" if isinstance(value, int) else f'"{value}"'
