"""Tries on a sample of raw ECG how often attackers would name the wearer, for several ways to release it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from anonymizer.anonymize import Recipe, anonymize_chunk
from anonymizer.batch import Batch
from anonymizer.rhythm_anonymizer import BeatDetector
from anonymizer.samples import Samples, arrange, picked
from anonymizer.windows import NANOSECONDS, WindowRange, covering_windows
from recognition.attackers import ATTACKS, Attack, Floats, Ints, Recognition, Trace, attempt_on_raw, carry_out

#: How raw ECG is called among the ways to release it.
AS_MEASURED = "as measured"


@dataclass(frozen=True, slots=True)
class Way:
    """One way to release the sample.

    Args:
        name: Its name in tables.
        recipe: How it is anonymized; source ids must stay as they are.
        window_s: Length of a window in seconds.
    """

    name: str
    recipe: Recipe
    window_s: int


def recognitions(
    samples: Samples, ways: Sequence[Way], detector: BeatDetector, *, most_people: int, attacks: Sequence[Attack] = ATTACKS
) -> Iterator[tuple[str, Sequence[Recognition]]]:
    """Yield the name of each way, raw ECG first, and how often each attacker names the right wearer in what would be released.

    The attackers have the raw first half of each recording. Nothing is yielded with fewer than two wearers to tell apart.

    Args:
        samples: Raw ECG of several wearers.
        ways: The ways to release it.
        detector: Finds the attackers' heartbeats.
        most_people: Of so many wearers, the first who show heartbeats; more make no attacker better, only slower.
        attacks: What is tried.
    """
    raw = _raw_traces(samples, min((way.window_s for way in ways), default=1))
    everyone = attempt_on_raw(list(raw.values()), detector)
    with_beats = [number for number, features in enumerate(everyone.known) if len(features.shapes)][:most_people]
    if len(with_beats) < 2:
        return
    people, attempt = [list(raw)[number] for number in with_beats], everyone.of(with_beats)
    yield AS_MEASURED, carry_out(attempt, attacks)
    for way in ways:
        yield way.name, carry_out(attempt.on(_released(samples, people, way)), attacks)


def _released(samples: Samples, people: Sequence[int], way: Way) -> list[Trace]:
    if way.recipe.promise.k is None:
        # What is released of one does not depend on others.
        samples = picked(samples, np.flatnonzero(np.isin(samples.source_codes, people)))
    results = anonymize_chunk(samples, _windows(samples, way.window_s), way.recipe).results
    return _released_traces([result.batch for result in results if result.batch is not None], people)


def _windows(samples: Samples, window_s: int) -> WindowRange:
    return covering_windows(int(samples.times_ns.min()), int(samples.times_ns.max()) + 1, window_s * NANOSECONDS)


def _raw_traces(samples: Samples, window_s: int) -> dict[int, Trace]:
    """Return the rows of each source that can be anonymized, by its code."""
    if not len(samples):
        return {}
    rows = arrange(samples, _windows(samples, window_s), np.arange(len(samples.source_ids)))
    codes = np.unique(rows.source_codes).tolist()
    return {code: _trace(rows.source_codes == code, rows.times_ns, rows.values_uv) for code in codes}


def _released_traces(batches: Sequence[Batch], people: Sequence[int]) -> list[Trace]:
    if not batches:
        return [Trace(np.empty(0, dtype=np.int64), np.empty(0)) for _ in people]
    codes = np.concatenate([batch.source_index for batch in batches])
    times_ns = np.concatenate([batch.times_ns for batch in batches])
    values_uv = np.concatenate([batch.values_uv for batch in batches])
    return [_trace(codes == code, times_ns, values_uv) for code in people]


def _trace(mine: npt.NDArray[np.bool_], times_ns: Ints, values_uv: Floats) -> Trace:
    return Trace(times_ns[mine], values_uv[mine])
