"""Batches that an output will never take: kept on disk with the reason, so that nothing is lost, and offered again by a command.

Only anonymized rows are ever here. One file a batch and output.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from anonymizer.batch import Batch
from service.spool import decode, encode, write_durably


@dataclass(frozen=True, slots=True)
class Kept:
    """One batch that was set aside."""

    output: str
    reason: str
    batch: Batch
    path: Path


class SetAside:
    """A folder of batches that were set aside.

    Args:
        folder: Made when something is kept.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def keep(self, batch: Batch, *, output: str, reason: str) -> None:
        """Keep a batch; keeping it again replaces it."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        name = f"{batch.window.start_ns}-{hashlib.sha256(output.encode()).hexdigest()[:8]}"
        write_durably(self._folder / f"{name}.spool", encode([batch]))
        described = {"output": output, "reason": reason, "batch_id": batch.batch_id, "rows": len(batch)}
        write_durably(self._folder / f"{name}.json", json.dumps(described, indent=2).encode())

    def all(self) -> Iterator[Kept]:
        """Yield everything that was set aside, in order of time."""
        for path in sorted(self._folder.glob("*.json")):
            described = json.loads(path.read_bytes())
            spooled = path.with_suffix(".spool")
            yield Kept(described["output"], described["reason"], decode(spooled.read_bytes(), name=spooled.name)[0], path)
