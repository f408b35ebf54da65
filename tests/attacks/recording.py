"""A recording made for attacks: two wearers whose values many rows share, and a few rows that resemble no other."""

from __future__ import annotations

import csv
from pathlib import Path

from tests.integration.service_process import Service

KEY = "f3a1c9e07b6d42858e1f90b7c3d2a4565d0e8f7219ab3c4de6f80517293b4ca6"

#: Rows that no other resembles; none of these may be found in anything a run writes.
LONE_UV = (1234.5678, -987.654, 2049.25)

IDS = ("canary-wearer-Ä", "canary-wearer-8")

START = "2025-11-03T14:30:0"

PSEUDONYMS: dict[str, object] = {"PSEUDONYMIZE_SOURCE_ID": "true", "PSEUDONYM_SALT": KEY}


def write_recording(path: Path, *extra: str) -> None:
    """Write two wearers of fifty alike values each, and three rows that stand alone."""
    rows = [f"{START}{i // 10}.{i % 10}0Z,{name},{value}" for name in IDS for i, value in enumerate([10, 12, 20, 21, 40] * 10)]
    rows += [f"{START}{i}.05Z,{IDS[0]},{value}" for i, value in enumerate(LONE_UV)]
    path.write_text("\n".join(["timestamp,source_id,ecg", *rows, *extra]) + "\n", encoding="utf-8")


def run(folder: Path, **settings: object) -> tuple[int, str]:
    """Run the service on the recording; return exit code and log."""
    with_defaults = {"INPUT_FILE": folder / "recording.csv", "OUTPUT_TO_INFLUX": "false", **settings}
    with Service(folder, with_defaults) as service:
        return service.exit_code(), service.log


def released_in(folder: Path) -> list[list[str]]:
    """Return the rows of all CSV files a run left, without the header."""
    texts = [path.read_text(encoding="utf-8") for path in sorted((folder / "csv").iterdir())]
    return [row for text in texts for row in list(csv.reader(text.splitlines()))[1:]]
