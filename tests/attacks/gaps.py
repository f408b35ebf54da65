"""What the gaps of `RESIDUAL=drop` tell: which rows are missing, and how near to a heartbeat they were."""

from __future__ import annotations

import numpy as np

from anonymizer.samples import Samples
from anonymizer.windows import NANOSECONDS
from tests.core.plain_anonymizer import PlainSettings
from tests.documentation.sample import Bools, batches_of
from utility.records import beats_of

#: How near to a beat a row counts as part of its R wave, in seconds.
NEAR_A_BEAT_S = 0.02


def dropped(samples: Samples, settings: PlainSettings) -> Bools:
    """Return which rows of one record a reader misses: what times there are shows where there are none."""
    released = np.concatenate([batch.times_ns for batch in batches_of(samples, settings)])
    return ~np.isin(samples.times_ns, released)


def near_a_beat(samples: Samples) -> Bools:
    """Return which rows of one record lie near an annotated beat."""
    beats = beats_of(samples.source_ids[0])
    after = np.searchsorted(beats, samples.times_ns)
    before_ns = np.abs(samples.times_ns - beats[np.maximum(after - 1, 0)])
    after_ns = np.abs(samples.times_ns - beats[np.minimum(after, len(beats) - 1)])
    near: Bools = np.minimum(before_ns, after_ns) <= NEAR_A_BEAT_S * NANOSECONDS
    return near
