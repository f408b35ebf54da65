"""sleepecg's heartbeat detector (Pan & Tompkins 1985, with adaptive thresholds)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from anonymizer.errors import ConfigurationError


class SleepecgDetector:
    """Finds heartbeats with `sleepecg.detect_heartbeats`.

    Raises:
        ConfigurationError: The library is not installed.
    """

    def __init__(self) -> None:
        try:
            # Only METHOD=rhythm needs it; its package exports the name without saying so to type checkers.
            from sleepecg import detect_heartbeats  # type: ignore[attr-defined]
        except ImportError:
            raise ConfigurationError(
                "METHOD=rhythm needs the Python package sleepecg, which is not installed: pip install -r requirements-rhythm.txt"
            ) from None
        self._detect = detect_heartbeats

    def beats(self, values_uv: npt.NDArray[np.float64], hertz: float) -> npt.NDArray[np.int64]:
        """Return the positions of R peaks in evenly spaced samples, ascending; none where the detector fails, as on a flat line."""
        if not np.ptp(values_uv):
            return np.empty(0, dtype=np.int64)
        try:
            return np.asarray(self._detect(values_uv, hertz), dtype=np.int64)
        except (ValueError, IndexError, ArithmeticError):
            return np.empty(0, dtype=np.int64)
