"""The vocabulary: a batch, which is the only data that may be released, and its counts, promise and certificate.

Every module may import this one. It must never know a raw sample.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from anonymizer.windows import Window

KUnit = Literal["record", "source"]


@dataclass(frozen=True, slots=True)
class Promise:
    """What a batch promises.

    Args:
        k: The least number of rows (or sources) that share each released value; None for a method that forms no groups.
        k_unit: What k counts: `record` or `source`; None without k.
        method: The name of the method that made the released values.
        settings_digest: Digest of every setting that shapes values; never of filters or paths.
        key_id: Identifies the pseudonym key; empty while pseudonyms are off.
        template_digest: Identifies the public beat that released rows are taken from; empty for a method that forms groups.
    """

    k: int | None = None
    k_unit: KUnit | None = None
    method: str = ""
    settings_digest: str = ""
    key_id: str = ""
    template_digest: str = ""

    def stated(self) -> dict[str, int | str]:
        """Return its fields by name, without those that do not apply."""
        values = {name: getattr(self, name) for name in self.__slots__}
        return {name: value for name, value in values.items() if value is not None and (value or name != "template_digest")}


@dataclass(frozen=True, slots=True)
class WindowCounts:
    """What became of the rows of one window: `read = released + withheld + invalid + duplicate + excluded`.

    `starred` and `suppressed` are released rows that carry an imputed value instead of their group's: `starred` if the window has k or
    more of them (level 8, `*`), `suppressed` if it has fewer (level 9). `excluded` are rows of sources that may not be released; a batch
    knows nothing of them, and does not count them as read: they would reveal when a person was measured.
    """

    read: int = 0
    released: int = 0
    withheld: int = 0
    invalid: int = 0
    duplicate: int = 0
    starred: int = 0
    suppressed: int = 0
    excluded: int = 0

    def are_conserved(self) -> bool:
        """Return whether every row that was read is accounted for."""
        return self.read == self.released + self.withheld + self.invalid + self.duplicate + self.excluded

    def without_excluded(self) -> WindowCounts:
        """Return the counts as if the rows of excluded sources had not been read."""
        return replace(self, read=self.read - self.excluded, excluded=0) if self.excluded else self

    def numbers(self) -> tuple[int, ...]:
        """Return all counts, in order."""
        return _numbers_of(self)

    def __add__(self, other: WindowCounts) -> WindowCounts:
        return WindowCounts(*map(operator.add, self.numbers(), other.numbers()))


_numbers_of: Callable[[WindowCounts], tuple[int, ...]] = operator.attrgetter(*WindowCounts.__slots__)


@dataclass(frozen=True, slots=True)
class Certificate:
    """What `verify` counted in a batch: a second opinion, independent of the code that formed the groups.

    Args:
        distinct_values: How many different values were released, without imputed ones.
        smallest_group: How many rows share the rarest of them.
        distinct_sources: How many sources have at least one released row.
    """

    distinct_values: int
    smallest_group: int
    distinct_sources: int


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """One anonymized window: rows of time, released id and value, in order of time, then released id.

    Args:
        batch_id: The same for the same data set and window, whatever the settings.
        window: The span that all times lie in.
        times_ns: Nanoseconds since the epoch, shape (n,), int64.
        source_index: Position of each row's id in `source_ids`, shape (n,), int32.
        source_ids: Released ids; pseudonyms if enabled. May include ids that have no row in this batch.
        values_uv: Released values in microvolts, shape (n,), float64.
        promise: What the batch promises.
        counts: What became of the window's rows.
        imputed_rows: Which rows carry `imputed_value` instead of a group's, shape (n,), bool; None when none does.
        imputed_value_uv: The mean of the other rows' released values; None when no row is imputed.
        certificate: What `verify` counted; None before that.
        is_erased: Whether rows were taken back after the release: then k was held at the release, and may not be by what is left.
    """

    batch_id: str
    window: Window
    times_ns: npt.NDArray[np.int64]
    source_index: npt.NDArray[np.int32]
    source_ids: tuple[str, ...]
    values_uv: npt.NDArray[np.float64]
    promise: Promise
    counts: WindowCounts
    imputed_rows: npt.NDArray[np.bool_] | None = None
    imputed_value_uv: float | None = None
    certificate: Certificate | None = None
    is_erased: bool = False

    def __len__(self) -> int:
        return len(self.times_ns)

    def __repr__(self) -> str:
        return f"Batch({self.batch_id!r}, {len(self)} rows)"

    def certified(self, certificate: Certificate) -> Batch:
        """Return this batch with its certificate."""
        return replace(self, certificate=certificate)
