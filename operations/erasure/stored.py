"""Erases from STATE_DIR: batches that wait for outputs, batches that were set aside, and spool files that were given up."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from anonymizer.batch import Batch
from disk.durable_file import read_ours, sync_folder, write_durably
from operations.erasure.rows import BatchCut, Left, Rule, cut_batch
from service import crash_points
from service.state.erasures import Taken
from service.state.journal import Journal
from service.state.removals import set_aside_place
from service.state.set_aside import Kept, SetAside
from service.state.shared_spool import MixedSpool
from service.state.spool import GIVEN_UP, SpoolDamaged, decode, encode


class Stored:
    """What STATE_DIR keeps of released rows.

    Args:
        folder: STATE_DIR.
        journal: Its journal.
        spool: Its spool.
    """

    def __init__(self, folder: Path, journal: Journal, spool: MixedSpool) -> None:
        self._folder = folder
        self._journal = journal
        self._spool = spool
        self._set_aside = SetAside(folder / "set_aside")
        self._left: dict[int, Left] = {}

    def erase(self, rule: Rule, *, is_dry: bool, left: dict[int, Left]) -> dict[str, int]:
        """Erase, or only count; return the rows of each place.

        Args:
            rule: Whose rows go.
            is_dry: Whether to change nothing.
            left: Is filled with what is left of each window that loses rows, by its start.

        Raises:
            SpoolDamaged: A file cannot be understood, so that nobody can say whose rows it holds.
        """
        self._left = left
        return {
            "spool": sum(self._cut_chunk(chunk, rule, is_dry=is_dry) for chunk in self._journal.outputs.spooled_chunks()),
            "set aside": sum(self._cut_kept(kept, rule, is_dry=is_dry) for kept in list(self._set_aside.all())),
            "given up": sum(
                self._cut_given_up(path, rule, is_dry=is_dry) for path in sorted((self._folder / GIVEN_UP).glob("*"))
            ),
        }

    def sizes(self) -> dict[int, int]:
        """Return the sizes of all spool files, by chunk."""
        sizes = {}
        for chunk in self._journal.outputs.spooled_chunks():
            name = self._spool.name_of(chunk)
            content = None if name is None else self._spool.shared.content(name)
            path = self._folder / "spool" / f"{chunk:012d}.spool"
            sizes[chunk] = len(content or b"") if name is not None else path.stat().st_size if path.exists() else 0
        return sizes

    def remove_leftovers(self) -> list[str]:
        """Remove spool files that the journal does not wait for: of an interrupted erasure, and of workers whose run was killed.

        Return the names of workers' files with windows that accept-gap marked as released: they may be all that is left of them.
        """
        known = set(self._journal.outputs.spooled_chunks())
        for number in self._spool.numbers() - known:
            self._spool.remove(number)
        self._spool.remove_unfinished()
        waiting, label = self._spool.names(), self._journal.facts.spool_label
        return self._spool.shared.remove_all_but(waiting, label, is_kept=self._journal.is_accepted) if label else []

    def _cut_chunk(self, chunk: int, rule: Rule, *, is_dry: bool) -> int:
        batches = self._spool.read(chunk)
        left, taken, is_changed = self._cut(batches, rule)
        if is_dry or not is_changed:
            return sum(one.rows for one in taken)
        self._journal.erasures.record(f"spool {chunk}", taken)
        crash_points.reached(crash_points.ERASURE_FOUND)
        self._replace_chunk(chunk, left)
        crash_points.reached(crash_points.ERASURE_REPLACED)
        return sum(one.rows for one in taken)

    def _replace_chunk(self, chunk: int, left: Sequence[Batch]) -> None:
        name = self._spool.name_of(chunk)
        if name is None:
            # Without a batch, the file stays until the books say that no output waits for it.
            self._spool.write(chunk, left)
            return
        if not left:
            write_durably(self._folder / "spool" / f"{chunk:012d}.spool", encode(left, number=chunk))
            return
        new = self._spool.shared.write(name.partition("/")[0], left).name
        self._journal.erasures.rename_spool_file(chunk, new)
        self._spool.add(chunk, new)
        if new != name:
            self._spool.shared.remove(name)

    def _cut_kept(self, kept: Kept, rule: Rule, *, is_dry: bool) -> int:
        if not kept.path.exists() and self._journal.erasures.recorded(f"batch {kept.path.stem}"):
            # An erasure was interrupted while it removed the pair.
            if not is_dry:
                self._remove(kept.path)
            return 0
        described = json.loads(read_ours(kept.path.with_suffix(".json")))
        digest = hashlib.sha256(read_ours(kept.path)).hexdigest()
        batch = kept.batch()
        # The description is replaced first: until its batch follows, it tells which rows of the earlier batch it means.
        rows = described["rows" if described.get("batch_digest", digest) == digest else "rows_before"]
        cut = cut_batch(batch, rule)
        left, taken, gone = cut.batch, cut.taken, cut.is_gone
        if left is batch:
            return 0
        self._note(cut)
        refused = range(len(batch)) if rows is None else rows
        of_refused = [row for row in refused if gone[row]]
        if is_dry:
            return len(of_refused)
        if taken is not None:
            self._journal.erasures.record(
                set_aside_place(kept.output), [Taken(taken.start_ns, len(of_refused), 0)] if of_refused else []
            )
            self._journal.erasures.record(f"batch {kept.path.stem}", [taken])
        crash_points.reached(crash_points.ERASURE_FOUND)
        if left is None or len(of_refused) == len(refused):
            self._remove(kept.path)
        else:
            positions = (~gone).cumsum() - 1
            still = None if rows is None else [int(positions[row]) for row in refused if not gone[row]]
            self._replace_kept(kept.path, left, described, rows, still, len(refused) - len(of_refused))
        crash_points.reached(crash_points.ERASURE_REPLACED)
        return len(of_refused)

    def _replace_kept(
        self, path: Path, left: Batch, described: dict[str, Any], rows: Any, still: list[int] | None, count: int
    ) -> None:
        """Replace the pair of files: the description first, which tells of both states of the batch."""
        content = encode([left])
        digest = hashlib.sha256(content).hexdigest()
        new = {**described, "rows": still, "count": count, "batch_digest": digest, "rows_before": rows}
        write_durably(path.with_suffix(".json"), json.dumps(new, indent=2).encode())
        crash_points.reached(crash_points.ERASURE_HALFWAY)
        write_durably(path, content)

    def _remove(self, path: Path) -> None:
        path.unlink(missing_ok=True)
        crash_points.reached(crash_points.ERASURE_HALFWAY)
        path.with_suffix(".json").unlink(missing_ok=True)
        sync_folder(path.parent)

    def _cut_given_up(self, path: Path, rule: Rule, *, is_dry: bool) -> int:
        try:
            batches = decode(read_ours(path), name=path.name)
        except SpoolDamaged:
            raise SpoolDamaged(
                f"{path} is damaged, so that nobody can say whose rows it holds, and no output waits for it: remove it, then run this again"
            ) from None
        left, taken, is_changed = self._cut(batches, rule)
        if is_dry or not is_changed:
            return sum(one.rows for one in taken)
        self._journal.erasures.record(f"given up {path.name}", taken)
        write_durably(path, encode(left))
        crash_points.reached(crash_points.ERASURE_REPLACED)
        return sum(one.rows for one in taken)

    def _cut(self, batches: Sequence[Batch], rule: Rule) -> tuple[list[Batch], list[Taken], bool]:
        """Return the batches that are left, what is taken, and whether anything changes: rows, or only a table with the source's id."""
        cuts = [cut_batch(batch, rule) for batch in batches]
        for cut in cuts:
            self._note(cut)
        left = [cut.batch for cut in cuts if cut.batch is not None]
        taken = [cut.taken for cut in cuts if cut.taken is not None]
        is_changed = len(left) < len(batches) or any(before is not after for before, after in zip(batches, left, strict=True))
        return left, taken, is_changed

    def _note(self, cut: BatchCut) -> None:
        if cut.taken is not None and cut.left is not None:
            self._left[cut.taken.start_ns] = cut.left
