"""Certified batches for tests of what comes after the core."""

from __future__ import annotations

import numpy as np

from anonymizer.batch import Batch, Promise, WindowCounts
from anonymizer.verify import verify
from anonymizer.windows import NANOSECONDS, Window

PROMISE = Promise(2, "record", "hierarchy", settings_digest="0123456789abcdef")


def make_batch(index: int, *, rows: int = 4, length_s: int = 5) -> Batch:
    """Return the batch of window number `index` since the epoch: two sources in turn, all with the window's number as value."""
    window = Window(index * length_s * NANOSECONDS, (index + 1) * length_s * NANOSECONDS)
    batch = Batch(
        batch_id=f"fake-{window.start_ns}-{window.end_ns}",
        window=window,
        times_ns=window.start_ns + np.arange(rows, dtype=np.int64),
        source_index=(np.arange(rows) % 2).astype(np.int32),
        source_ids=("a", "b"),
        values_uv=np.full(rows, float(index)),
        promise=PROMISE,
        counts=WindowCounts(read=rows, released=rows),
    )
    return batch.certified(verify(batch))
