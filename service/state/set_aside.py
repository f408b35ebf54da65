"""Batches with rows that an output refused for good: kept on disk with the reason, until an operator's command offers them again.

Only anonymized rows are stored here. Each batch and output has a pair of files: the refused rows with the reason, and the whole batch.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from anonymizer.batch import Batch
from anonymizer.errors import BatchRejected, StateUnavailable
from disk.durable_file import make_folder, read_ours, write_durably
from service.state.spool import SpoolDamaged, decode, encode

#: What an operator can do about a damaged or missing file.
_WAY_ON = "Put a good copy in its place; or move it and the file of the same name beside it away: its rows then stay refused"


@dataclass(frozen=True, slots=True)
class Kept:
    """Rows of one batch that an output refused.

    Args:
        output: The output's name.
        batch_id: The batch.
        reason: Why.
        rows: The refused rows as indices into the batch; None: all of them.
        count: The number of refused rows.
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
            SpoolDamaged: The file is missing or damaged.
            StateUnavailable: The disk cannot be read now.
        """
        content = _read(self.path)
        try:
            batch = decode(content, name=self.path.name)[0]
        except SpoolDamaged:
            raise SpoolDamaged(f"{self.path} is damaged. {_WAY_ON}") from None
        if batch.batch_id != self.batch_id:
            raise SpoolDamaged(f"{self.path} contains a different window than was set aside under its name. {_WAY_ON}")
        return batch


class SetAside:
    """A folder of set-aside rows.

    Args:
        folder: Created when the first rows are set aside.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def keep(self, batch: Batch, *, output: str, rejection: BatchRejected) -> int:
        """Keep the refused rows of a batch, replacing an earlier copy; return their number.

        Raises:
            StateUnavailable: The disk cannot write them now.
        """
        count = len(batch) if rejection.rows is None else len(rejection.rows)
        described = {
            "output": output,
            "batch_id": batch.batch_id,
            "reason": str(rejection),
            "count": count,
            "rows": rejection.rows,
        }
        name = f"{batch.window.start_ns:020d}-{_output_digest(output)}"
        try:
            make_folder(self._folder)
            write_durably(self._folder / f"{name}.spool", encode([batch]))
            write_durably(self._folder / f"{name}.json", json.dumps(described, indent=2).encode())
        except OSError as error:
            raise StateUnavailable(f"{self._folder} cannot be written to now ({error.strerror or error})") from None
        return count

    def rename_outputs(self, new_names: Mapping[str, str]) -> None:
        """Rename outputs, given as a map from old to new name. Can be repeated after an interruption.

        Raises:
            SpoolDamaged: A file is missing or damaged.
            StateUnavailable: The disk cannot be used now.
        """
        for path in self._descriptions():
            described = _parsed(path)
            new = new_names.get(described["output"])
            if new is None:
                continue
            renamed = path.with_stem(f"{path.stem.partition('-')[0]}-{_output_digest(new)}")
            try:
                if path.with_suffix(".spool").exists():
                    path.with_suffix(".spool").replace(renamed.with_suffix(".spool"))
                write_durably(renamed, json.dumps({**described, "output": new}, indent=2).encode())
                path.unlink()
            except OSError as error:
                raise StateUnavailable(f"{self._folder} cannot be written to now ({error.strerror or error})") from None

    def all(self) -> Iterator[Kept]:
        """Yield everything that was set aside, in order of time.

        Raises:
            SpoolDamaged: A file is missing or damaged.
            StateUnavailable: The disk cannot be read now.
        """
        for path in self._descriptions():
            described = _parsed(path)
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
        """Remove rows that the output has taken after all. Files that cannot be removed now are removed at the next retry."""
        with suppress(OSError):
            kept.path.with_suffix(".json").unlink(missing_ok=True)
            kept.path.unlink(missing_ok=True)

    def _descriptions(self) -> list[Path]:
        try:
            return sorted(self._folder / name for name in os.listdir(self._folder) if name.endswith(".json"))  # noqa: PTH208  (see Spool.numbers)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise StateUnavailable(f"{self._folder} cannot be read now ({error.strerror or error})") from None


def _output_digest(output: str) -> str:
    """Return the part of a file name that identifies the output."""
    return hashlib.sha256(output.encode()).hexdigest()[:8]


def _parsed(path: Path) -> dict[str, Any]:
    content = _read(path)
    try:
        described = json.loads(content)
        if described.keys() >= {"output", "batch_id", "reason", "count", "rows"} and isinstance(described["rows"], list | None):
            return dict(described)
    except (ValueError, AttributeError, RecursionError):
        pass
    raise SpoolDamaged(f"{path} is damaged. {_WAY_ON}")


def _read(path: Path) -> bytes:
    try:
        return read_ours(path)
    except FileNotFoundError:
        raise SpoolDamaged(f"{path} is missing. {_WAY_ON}") from None
    except OSError as error:
        raise StateUnavailable(f"{path} cannot be read now ({error.strerror or error})") from None
