"""METHOD=rhythm on real ECG: the rhythm stays, no value depends on the shape, and what cannot be read is withheld."""

from __future__ import annotations

import numpy as np
import pytest

from anonymizer.anonymize import ChunkResult, Recipe, anonymize_chunk
from anonymizer.batch import Promise
from anonymizer.pseudonyms import KeptIds
from anonymizer.public_beat import TEMPLATE_DIGEST
from anonymizer.rhythm_anonymizer import RhythmAnonymizer
from anonymizer.samples import Samples, make_samples, picked
from anonymizer.verify import verify
from anonymizer.windows import NANOSECONDS, WindowRange
from detection.sleepecg_detector import SleepecgDetector
from utility.heartbeats import agreement
from utility.records import records, together

LENGTH_NS = 10 * NANOSECONDS
RECIPE = Recipe(
    RhythmAnonymizer(SleepecgDetector()), KeptIds(), Promise(method="rhythm", template_digest=TEMPLATE_DIGEST), "data-set"
)

Released = dict[tuple[int, str], float]


def windows_of(samples: Samples) -> WindowRange:
    first, last = int(samples.times_ns.min()), int(samples.times_ns.max())
    return WindowRange(first // LENGTH_NS * LENGTH_NS, (last // LENGTH_NS + 1) * LENGTH_NS, LENGTH_NS)


def anonymized(samples: Samples, windows: WindowRange | None = None) -> ChunkResult:
    return anonymize_chunk(samples, windows or windows_of(samples), RECIPE)


def rows_of(*chunks: ChunkResult) -> Released:
    """Return every released row, each batch checked by the second opinion."""
    rows: Released = {}
    for batch in (result.batch for chunk in chunks for result in chunk.results if result.batch is not None):
        verify(batch)
        ids = [batch.source_ids[index] for index in batch.source_index.tolist()]
        rows |= dict(zip(zip(batch.times_ns.tolist(), ids, strict=True), batch.values_uv.tolist(), strict=True))
    return rows


@pytest.fixture(scope="module")
def whole() -> Released:
    return rows_of(anonymized(together(128)))


def test_the_same_rows_are_released_in_any_order_any_chunking_and_with_or_without_other_sources(whole: Released) -> None:
    samples = together(128)
    shuffled = picked(samples, np.random.default_rng(7).permutation(len(samples)))
    windows = windows_of(samples)
    chunks = [anonymized(samples, windows.part(first, first + 1)) for first in range(len(windows))]
    alone = [anonymized(record.samples()) for record in records(128)]

    assert rows_of(anonymized(shuffled)) == whole
    assert rows_of(*chunks) == whole
    assert rows_of(*alone) == whole


def test_no_value_depends_on_the_shape(whole: Released) -> None:
    """Twice the amplitude, another offset: beats stay where they are, and so every released value is the same."""
    samples = together(128)
    other = make_samples(samples.times_ns, samples.source_codes, samples.source_ids, 2 * samples.values_uv + 300)

    assert rows_of(anonymized(other)) == whole
    assert max(whole.values()) == 1000
    assert sum(value == 1000 for value in whole.values()) > 1000


@pytest.mark.parametrize("hertz", [360, 128])
def test_beats_stand_where_cardiologists_marked_them(hertz: int) -> None:
    found = annotated = 0
    for record in records(hertz):
        released = rows_of(anonymized(record.samples()))
        if record.source_id in ("mitbih-104", "mitbih-108"):
            continue  # Much of these two is noise, in which the detector errs with raw data too.
        beats = np.array([time_ns for (time_ns, _), value in sorted(released.items()) if value == 1000])
        matched = agreement(beats, record.beats_ns)
        found, annotated = found + int((matched.found_ns >= 0).sum()), annotated + matched.annotated
    assert found / annotated > 0.99


def test_what_shows_no_beats_is_withheld_and_noise_is_counted_as_such() -> None:
    record = records(360)[0]
    seconds = np.arange(20 * 360) / 360
    noise = 200 * np.random.default_rng(3).standard_normal(len(seconds)) + 300 * np.sin(2 * np.pi * 17 * seconds)
    times_ns = (seconds * NANOSECONDS).astype(np.int64)
    parts = {
        "noise": (times_ns, noise),
        "flat": (times_ns, np.full(len(times_ns), 12.0)),
        "short": (times_ns[:400], record.values_uv[:400]),
        "slow": (times_ns[::90], record.values_uv[: len(times_ns) : 90]),
    }
    samples = make_samples(
        np.concatenate([times for times, _ in parts.values()]),
        np.repeat(np.arange(4), [len(times) for times, _ in parts.values()]),
        list(parts),
        np.concatenate([values for _, values in parts.values()]),
    )
    chunk = anonymized(samples)

    assert rows_of(chunk) == {}
    assert sum(result.statistics.noisy for result in chunk.results) == len(noise)
    assert all(result.counts.are_conserved() for result in chunk.results)


def test_uneven_times_gaps_and_rates_from_50_to_1000_hz_keep_the_beats() -> None:
    record = records(360)[0]
    start_ns = int(record.times_ns[0])
    original = rows_of(anonymized(record.samples()))
    beats = np.array([time_ns for (time_ns, _), value in sorted(original.items()) if value == 1000])
    random = np.random.default_rng(5)
    for hertz in (50, 100, 250, 1000):
        times_ns = start_ns + np.arange(60 * hertz) * NANOSECONDS // hertz + random.integers(0, 10**9 // hertz // 3, 60 * hertz)
        times_ns = times_ns[(times_ns - start_ns) % (20 * NANOSECONDS) > 3 * NANOSECONDS]
        values = np.interp(times_ns, record.times_ns, record.values_uv)
        released = rows_of(anonymized(make_samples(times_ns, np.zeros(len(times_ns), dtype=np.int32), ["w"], values)))
        here = np.array([time_ns for (time_ns, _), value in sorted(released.items()) if value == 1000])
        wanted = beats[(beats < times_ns[-1]) & (np.abs(times_ns[:, None] - beats).min(axis=0) < 10_000_000)]
        share = np.abs(here[:, None] - wanted).min(axis=0) <= 150_000_000
        assert share.mean() > 0.9, hertz
