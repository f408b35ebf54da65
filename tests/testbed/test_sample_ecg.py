"""The sample ECG reaches the bucket as it is in the file."""

from __future__ import annotations

import pyarrow.parquet as pq

from testbed.line_protocol import SeriesNames
from testbed.sample_ecg import SAMPLE_FILE, read_sample_ecg


def test_every_row_of_the_file_is_in_exactly_one_request() -> None:
    table = pq.read_table(SAMPLE_FILE)
    times_ns = table["timestamp"].to_numpy().astype("datetime64[ns]").astype(int).tolist()
    rows = zip(table["source_id"].to_pylist(), table["ecg"].to_pylist(), times_ns, strict=True)
    expected = sorted(f"ecg,source_id={source} ecg={value}.0 {time_ns}" for source, value, time_ns in rows)

    few, many = (list(read_sample_ecg().lines(SeriesNames(), per_request=count)) for count in (10_000_000, 999))

    assert len(many) > len(few) == 1
    assert sorted(few[0].decode().splitlines()) == expected
    assert b"".join(many) == few[0]
