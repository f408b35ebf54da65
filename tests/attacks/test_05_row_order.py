"""Attack 5: rows in the order of sorting or arrival tell more than their values do."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

import numpy as np
import pytest

from anonymizer.anonymize import anonymize_chunk
from anonymizer.batch import Batch
from anonymizer.samples import Samples
from anonymizer.verify import verify
from outputs import csv_lines
from outputs.http_api import ApiTarget, HttpApi
from outputs.influxdb import InfluxTarget, encode_rows
from tests.core.both_ways import recipe_of, shipped_ranges
from tests.core.plain_anonymizer import PlainSettings
from tests.documentation.sample import Floats, Ints, alone, together, windows
from tests.servers.api_server import ApiServer

ONE_WINDOW = windows().part(0, 1)


def first_window_of(samples: Samples) -> Batch:
    batch = anonymize_chunk(samples, ONE_WINDOW, recipe_of(PlainSettings(k=20), shipped_ranges())).results[0].batch
    assert batch is not None
    return batch.certified(verify(batch))


def raw_values_of(batch: Batch, samples: Samples) -> Floats:
    """Return what was measured for each released row; known only from the raw data."""
    keys = zip(samples.times_ns.tolist(), samples.source_codes.tolist(), strict=True)
    raw = dict(zip(keys, samples.values_uv.tolist(), strict=True))
    return np.array([raw[key] for key in zip(batch.times_ns.tolist(), batch.source_index.tolist(), strict=True)])


def rightly_ordered(order: Ints, batch: Batch, raw: Floats) -> float:
    """Attack: say that of two rows of one value, the one that comes first was the lower. Return how often that is right."""
    groups: dict[float, list[int]] = defaultdict(list)
    for row in order.tolist():
        groups[float(batch.values_uv[row])].append(row)
    right = wrong = 0
    for rows in groups.values():
        steps = np.diff(raw[rows])
        right, wrong = right + int((steps > 0).sum()), wrong + int((steps < 0).sum())
    return right / (right + wrong)


def test_rows_left_in_the_order_of_sorting_tell_which_of_two_was_lower() -> None:
    samples = alone()[0]
    batch = first_window_of(samples)
    raw = raw_values_of(batch, samples)

    assert rightly_ordered(np.argsort(raw, kind="stable"), batch, raw) == 1.0


def test_the_order_of_released_rows_is_that_of_time_and_id_and_tells_nothing_else() -> None:
    samples = together()
    batch = first_window_of(samples)
    keys = [
        (time_ns, batch.source_ids[index])
        for time_ns, index in zip(batch.times_ns.tolist(), batch.source_index.tolist(), strict=True)
    ]
    raw = raw_values_of(batch, samples)

    assert keys == sorted(keys)
    # Guessing is right half the time; an ECG falls and rises.
    assert 0.4 < rightly_ordered(np.arange(len(batch)), batch, raw) < 0.6


def as_csv(batch: Batch, _: ApiServer) -> bytes:
    return bytes(csv_lines.encode(batch))


def as_lines(batch: Batch, _: ApiServer) -> bytes:
    return encode_rows(batch, InfluxTarget(bucket="b", measurement="ecg", field="ecg", source_tag="source_id"))


def as_payload(batch: Batch, api_server: ApiServer) -> bytes:
    api_server.reset()
    HttpApi(ApiTarget(endpoint=api_server.endpoint)).write(batch)
    return b"".join(delivery.body for delivery in api_server.deliveries())


@pytest.mark.parametrize("written", [as_csv, as_lines, as_payload])
@pytest.mark.parametrize("seed", [1, 2])
def test_whatever_order_rows_arrive_in_every_output_has_the_same_bytes(
    written: Callable[[Batch, ApiServer], bytes], seed: int, api_server: ApiServer
) -> None:
    samples = together()
    inside = np.flatnonzero(samples.times_ns < ONE_WINDOW.end_ns)
    shuffled = np.random.default_rng(seed).permutation(inside)

    one, other = (
        first_window_of(Samples(samples.times_ns[rows], samples.source_codes[rows], samples.source_ids, samples.values_uv[rows]))
        for rows in (inside, shuffled)
    )

    assert written(one, api_server) == written(other, api_server)
