"""The sample ECG on its way through the core, as the figures of the documentation need it: six records together, and each alone."""

from __future__ import annotations

from functools import cache, partial

import numpy as np
import numpy.typing as npt

from anonymizer.anonymize import WindowResult, anonymize_chunk
from anonymizer.batch import Batch
from anonymizer.samples import Samples, make_samples
from anonymizer.windows import NANOSECONDS, WindowRange, covering_windows
from testbed.sample_ecg import read_sample_ecg
from tests.core.both_ways import recipe_of, shipped_ranges
from tests.core.plain_anonymizer import PlainSettings

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

WINDOW_S = 5

CLASSIC = partial(PlainSettings, max_level=7, residual="impute", imputation="midpoint")


@cache
def together() -> Samples:
    """Return all six records, as one data set."""
    ecg = read_sample_ecg()
    records, columns = ecg.values_uv.shape
    codes = np.repeat(np.arange(records), columns)
    return make_samples(np.tile(ecg.times_ns, records), codes, ecg.source_ids, ecg.values_uv.ravel())


@cache
def alone() -> tuple[Samples, ...]:
    """Return the six records, each as a data set of its own: the hard case, since no other source shares its windows."""
    ecg = read_sample_ecg()
    codes = np.zeros(len(ecg.times_ns), dtype=np.int32)
    return tuple(
        make_samples(ecg.times_ns, codes, [name], values) for name, values in zip(ecg.source_ids, ecg.values_uv, strict=True)
    )


@cache
def windows() -> WindowRange:
    """Return the windows of the records."""
    times_ns = read_sample_ecg().times_ns
    return covering_windows(int(times_ns[0]), int(times_ns[-1]) + 1, WINDOW_S * NANOSECONDS)


def results_of(samples: Samples, settings: PlainSettings) -> tuple[WindowResult, ...]:
    """Return every window of `samples` after anonymization."""
    return anonymize_chunk(samples, windows(), recipe_of(settings, shipped_ranges())).results


def batches_of(samples: Samples, settings: PlainSettings) -> list[Batch]:
    """Return what is released of `samples`."""
    return [result.batch for result in results_of(samples, settings) if result.batch is not None]


def released_values(samples: Samples, settings: PlainSettings) -> Floats:
    """Return the released values of one record of which every row is released, in order of time."""
    return np.concatenate([batch.values_uv for batch in batches_of(samples, settings)])
