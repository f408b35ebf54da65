"""The fence: a small file of its own with every interval that was released, written after each release.

A journal that knows less than the fence beside it is an old copy; one that knows more than its last release beyond it is none of ours.
Either way working with it could release windows twice.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from anonymizer.errors import JournalDamaged
from anonymizer.windows import Window
from disk.durable_file import write_durably

_FORM = 1


class Fence:
    """The file.

    Args:
        path: Where it is; it need not exist.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> list[Window]:
        """Return the intervals it holds, in order; none when there is no fence yet.

        Raises:
            JournalDamaged: It cannot be read.
        """
        try:
            return [Window(start_ns, end_ns) for start_ns, end_ns in json.loads(self.path.read_bytes())["intervals"]]
        except FileNotFoundError:
            return []
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise JournalDamaged(
                f"{self.path} cannot be read ({type(error).__name__}). It only says again what the journal beside it knows: if that is "
                "no old copy, move the fence away and run scripts/state.py accept-gap"
            ) from None

    def raise_to(self, intervals: Sequence[Window]) -> None:
        """Replace what it holds, durably.

        Raises:
            OSError: The disk cannot take it now.
        """
        described = {"form": _FORM, "intervals": [[interval.start_ns, interval.end_ns] for interval in intervals]}
        write_durably(self.path, json.dumps(described).encode())
