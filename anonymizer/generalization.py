"""The result of a grouping method for the rows of a chunk, and the rounding that every method starts with."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from anonymizer.hierarchy import Hierarchy

#: Level of a row that is not released.
WITHHELD_LEVEL = 0

#: Group number of a row that is in no group.
NO_GROUP = -1


@dataclass(frozen=True, slots=True, eq=False)
class Generalization:
    """The outcome for the rows of a chunk; each array has shape (n,) and the order of the rows.

    Args:
        values_uv: Released values; NaN for rows that are not released.
        levels: 1 to 7 for a range of that level, 8 past the last level, 9 suppressed, 0 withheld; uint8.
        imputed: Rows that carry their window's imputed mean instead of a group's value.
        imputed_values_uv: That mean for each window, shape (windows,); NaN where no row carries it.
        coded: Rows outside the hierarchy that were top- or bottom-coded.
        groups: How many groups were formed in each window, shape (windows,).
        group_of_row: A number for each row's group, or `NO_GROUP`. Rounding can give two groups the same value; this tells them apart.
        noisy: Rows withheld because the beats of their source cannot be distinguished from noise; None if the method detects no beats.
    """

    values_uv: npt.NDArray[np.float64]
    levels: npt.NDArray[np.uint8]
    imputed: npt.NDArray[np.bool_]
    imputed_values_uv: npt.NDArray[np.float64]
    coded: npt.NDArray[np.bool_]
    groups: npt.NDArray[np.int64]
    group_of_row: npt.NDArray[np.int64]
    noisy: npt.NDArray[np.bool_] | None = None


def whole_leaves(values_uv: npt.NDArray[np.float64], hierarchy: Hierarchy) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Return whole microvolts (halves rounded to even), top- and bottom-coded to the hierarchy's ends, and which rows were coded."""
    whole = np.rint(values_uv)
    # Clipped before the cast, which would overflow for floats beyond 64 bits.
    clipped = np.clip(whole, hierarchy.first_leaf, hierarchy.last_leaf)
    return clipped.astype(np.int64), whole != clipped
