"""Anonymizing from Python, in six short examples: `python example_usage.py`.

The first takes and returns a pandas frame, as a notebook does (documentation/NOTEBOOKS.md); the others show the core below it, which
takes arrays and returns arrays. The rows are those of `documentation/ALGORITHM.md`, where the results are worked out by hand. No file
is read except the hierarchy, and no server is contacted.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from anonymizer.anonymize import Names, Recipe, anonymize_chunk
from anonymizer.batch import Batch, Promise
from anonymizer.errors import PrivacyViolation
from anonymizer.hierarchy import make_hierarchy_text, parse_hierarchy
from anonymizer.level_hierarchy_anonymizer import LevelHierarchyAnonymizer
from anonymizer.pseudonyms import KeptIds, Pseudonymizer
from anonymizer.samples import make_samples
from anonymizer.verify import verify
from anonymizer.windows import NANOSECONDS, WindowRange
from ecg_frames import anonymize_frame

MEASURED_UV = [11, 10, 9, 4.5, -24, -60, 462, 980, 1140, 850, -150, 7, 10, 20, 23, 22]

#: One row every 4 ms, all of one source, in one window of 5 s.
TIMES_NS = np.arange(len(MEASURED_UV)) * 4_000_000
WINDOW = WindowRange(start_ns=0, end_ns=5 * NANOSECONDS, length_ns=5 * NANOSECONDS)

SHIPPED = parse_hierarchy((Path(__file__).parent / "anonymizer" / "smarko_hierarchy_ecg.csv").read_text(encoding="utf-8"))

K = 3


def a_frame() -> None:
    """Anonymize a frame. The same rows come out under the same index, with a certificate of what was promised and counted."""
    raw = pd.DataFrame({"timestamp": TIMES_NS, "source_id": "wearable-07", "ecg": MEASURED_UV})
    released, certificate = anonymize_frame(raw, k=K, window="5s", epoch="ns")
    print("1. A frame:", *released["ecg"])
    print("   Counted:", certificate.windows[["rows_released", "distinct_values", "smallest_group"]].iloc[0].to_dict())


def anonymized(method: LevelHierarchyAnonymizer, names: Names | None = None) -> Batch:
    """Return the one window after anonymization."""
    samples = make_samples(TIMES_NS, np.zeros(len(TIMES_NS)), ["wearable-07"], MEASURED_UV)
    recipe = Recipe(method, names or KeptIds(), Promise(k=K, k_unit="record", method="hierarchy"), data_set="example")
    (result,) = anonymize_chunk(samples, WINDOW, recipe).results
    assert result.batch is not None, "a window of at least k rows is released"
    return result.batch


def one_window() -> None:
    """Anonymize a window with the default settings: levels 1 to 3, then optimal groups, each with its mean."""
    batch = anonymized(LevelHierarchyAnonymizer(SHIPPED, k=K))
    print("2. Default settings:", *batch.values_uv)


def classic_settings() -> None:
    """Anonymize it as the original requirements have it: seven levels, midpoints, and the window's mean for the rest."""
    batch = anonymized(LevelHierarchyAnonymizer(SHIPPED, k=K, max_level=7, residual="impute", imputation="midpoint"))
    print("3. Classic settings:", *batch.values_uv)
    print(f"   {batch.counts.starred} rows carry the mean of the others, {batch.imputed_value_uv}")


def pseudonyms() -> None:
    """Replace source ids by keyed pseudonyms. Never write a key into a program; this one protects no one."""
    names = Pseudonymizer(b"a key for this example alone")
    batch = anonymized(LevelHierarchyAnonymizer(SHIPPED, k=K), names)
    print("4. Released id:", batch.source_ids[0])
    print("   Key id:", names.key_id)


def second_opinion() -> None:
    """Verify a batch, then one that was altered to contain a single row's own value."""
    batch = anonymized(LevelHierarchyAnonymizer(SHIPPED, k=K))
    print("5. Verified:", verify(batch))
    tampered = batch.values_uv.copy()
    tampered[8] = MEASURED_UV[8]
    try:
        verify(replace(batch, values_uv=tampered))
    except PrivacyViolation as violation:
        print("   Refused:", violation)


def own_hierarchy() -> None:
    """Use ranges of your own: here ±3000 µV, and 50 µV wide at level 1, so that the baseline becomes one group."""
    text = make_hierarchy_text(-3000, 3000, widths=(50, 100, 200, 400, 800, 1600, 3200))
    batch = anonymized(LevelHierarchyAnonymizer(parse_hierarchy(text), k=K))
    print("6. A hierarchy of one's own:", *batch.values_uv)


if __name__ == "__main__":
    a_frame()
    one_window()
    classic_settings()
    pseudonyms()
    second_opinion()
    own_hierarchy()
