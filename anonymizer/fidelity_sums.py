"""Fidelity of the released signal, as sums that add up over windows. For operators only: those of one window can reveal its values."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, slots=True)
class Fidelity:
    """Sums over released rows; `+` combines windows.

    Deviations are from each source's own mean in its window, so that slow drift and different baselines do not improve the figures.

    Args:
        rows: Number of rows.
        raw: Σ of squared deviations of measured values, in µV².
        released: Σ of squared deviations of released values, in µV².
        together: Σ of products of both deviations, in µV².
        error: Σ (measured − released)², in µV².
    """

    rows: int = 0
    raw: float = 0.0
    released: float = 0.0
    together: float = 0.0
    error: float = 0.0

    def __add__(self, other: Fidelity) -> Fidelity:
        return Fidelity(*(getattr(self, name) + getattr(other, name) for name in self.__slots__))

    @property
    def correlation(self) -> float:
        """Pearson's r between measured and released values; NaN if either is constant."""
        scale = math.sqrt(self.raw * self.released)
        return self.together / scale if scale else math.nan

    @property
    def prdn_percent(self) -> float:
        """Normalized root-mean-square difference: 100 · ‖measured − released‖ ÷ ‖measured − its mean‖; NaN for a flat signal."""
        return 100 * math.sqrt(self.error / self.raw) if self.raw else math.nan


def fidelity_of(
    raw_uv: npt.NDArray[np.float64], released_uv: npt.NDArray[np.float64], sources: npt.NDArray[np.int32]
) -> Fidelity:
    """Return the sums over the rows of one window.

    Args:
        raw_uv: Measured values, shape (n,).
        released_uv: Released values, shape (n,).
        sources: Each row's source as a code from 0, shape (n,).
    """
    if not len(raw_uv):
        return Fidelity()
    rows_of_source = np.maximum(np.bincount(sources), 1)

    def deviations(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return values - (np.bincount(sources, weights=values) / rows_of_source)[sources]

    raw, released, error = deviations(raw_uv), deviations(released_uv), raw_uv - released_uv
    return Fidelity(
        rows=len(raw_uv),
        raw=float(raw @ raw),
        released=float(released @ released),
        together=float(raw @ released),
        error=float(error @ error),
    )
