"""A recording, and a service that reads it and writes CSV and Parquet files."""

from __future__ import annotations

import json
import random
from pathlib import Path

#: Where the rows lie in time: over a full hour.
START_S = 1_762_181_900  # 2025-11-03T14:58:20Z

#: A wearer who is alone in some windows, which are withheld with K_UNIT=source.
ALONE = "withheld-wearer"

Files = dict[str, bytes]


def make_recording(path: Path, *, seconds: int) -> None:
    """Write rows of three wearers at 4 Hz, and of one who is alone for a while."""
    chance = random.Random(20251103)
    rows = ["timestamp,source_id,ecg"]
    for quarter in range(4 * seconds):
        second, rest = divmod(quarter, 4)
        sources = (ALONE,) if second // 5 % 8 == 3 else ("a", "b", "c")
        rows += [f"{(START_S + second) * 1000 + rest * 250},{source},{chance.randrange(-300, 300)}" for source in sources]
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")


def settings_for(recording: Path, folder: Path, **changes: object) -> dict[str, object]:
    """Return settings of a run that writes to a folder, about two windows a chunk."""
    return {
        "INPUT_FILE": recording,
        "OUTPUT_TO_INFLUX": "false",
        "CSV_FILENAME_PATTERN": "all_%Y%m%d.csv",
        "OUTPUT_TO_PARQUET": "true",
        "PARQUET_URL": folder / "parquet",
        "K_UNIT": "source",
        "K_VALUE": "2",
        "MAX_RECORDS_PER_QUERY": "480",
        "VERBOSE_LOGGING": "false",
        **changes,
    }


def files_in(folder: Path) -> Files:
    """Return every file that a reader sees."""
    found = (path for place in ("csv", "parquet") for path in (folder / place).rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found if not path.name.startswith(".")}


def is_object(line: str) -> bool:
    """Return whether a line of a log is a JSON object."""
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False


def spool_files(folder: Path) -> list[str]:
    """Return the names of spool files, released or not."""
    return sorted(path.name for path in folder.rglob("*.spool"))
