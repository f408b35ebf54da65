"""Batches of which an output will never take some rows: kept on disk with the reason, and offered again by a command.

Only anonymized rows are ever here. One pair of files for each batch and output: what was refused and why, and the whole batch.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from anonymizer.batch import Batch
from anonymizer.errors import BatchRejected, StateUnavailable
from service.spool import decode, encode, write_durably


@dataclass(frozen=True, slots=True)
class Kept:
    """What an output refused of one batch.

    Args:
        output: The output's name.
        batch_id: The batch.
        reason: Why.
        rows: The refused rows as indices into the batch; None: all of them.
        count: How many they are.
        path: The file with the batch.
    """

    output: str
    batch_id: str
    reason: str
    rows: tuple[int, ...] | None
    count: int
    path: Path

    def batch(self) -> Batch:
        """Return the whole batch.

        Raises:
            SpoolDamaged: The file does not hold what was written.
        """
        return decode(self.path.read_bytes(), name=self.path.name)[0]


class SetAside:
    """A folder of what was set aside.

    Args:
        folder: Made when something is kept.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def keep(self, batch: Batch, *, output: str, rejection: BatchRejected) -> int:
        """Keep what was refused of a batch; keeping it again replaces it. Returns how many rows that is.

        Raises:
            StateUnavailable: The disk cannot take it now.
        """
        count = len(batch) if rejection.rows is None else len(rejection.rows)
        described = {
            "output": output,
            "batch_id": batch.batch_id,
            "reason": str(rejection),
            "count": count,
            "rows": rejection.rows,
        }
        name = f"{batch.window.start_ns:020d}-{hashlib.sha256(output.encode()).hexdigest()[:8]}"
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_durably(self._folder / f"{name}.spool", encode([batch]))
            write_durably(self._folder / f"{name}.json", json.dumps(described, indent=2).encode())
        except OSError as error:
            raise StateUnavailable(f"{self._folder} cannot be written to now ({error.strerror or error})") from None
        return count

    def all(self) -> Iterator[Kept]:
        """Yield everything that was set aside, in order of time."""
        for path in sorted(self._folder.glob("*.json")):
            described = json.loads(path.read_bytes())
            rows = described["rows"]
            yield Kept(
                described["output"],
                described["batch_id"],
                described["reason"],
                None if rows is None else tuple(rows),
                described["count"],
                path.with_suffix(".spool"),
            )

    def remove(self, kept: Kept) -> None:
        """Forget what the output has taken after all."""
        kept.path.with_suffix(".json").unlink(missing_ok=True)
        kept.path.unlink(missing_ok=True)
