"""The test bed writes what it says it wrote."""

from __future__ import annotations

import numpy as np
import pytest

from testbed.line_protocol import SeriesNames, line_protocol

TIMES_NS = np.array([1_762_180_200_000_000_000, 1_762_180_200_002_777_777, 1_762_180_200_005_555_555])


def test_each_sample_is_one_line_in_the_order_given_and_no_samples_are_no_bytes() -> None:
    nothing = np.array([], dtype=np.int64)
    lines = line_protocol(
        ["a", "b"],
        source_index=np.array([1, 0, 1]),
        values_uv=np.array([-145, 0, 32767], dtype=np.int16),
        times_ns=TIMES_NS,
        names=SeriesNames(),
    )

    assert lines.decode().splitlines() == [
        "ecg,source_id=b ecg=-145.0 1762180200000000000",
        "ecg,source_id=a ecg=0.0 1762180200002777777",
        "ecg,source_id=b ecg=32767.0 1762180200005555555",
    ]
    assert line_protocol(["a"], source_index=nothing, values_uv=nothing, times_ns=nothing, names=SeriesNames()) == b""


@pytest.mark.parametrize(
    ("names", "source", "head"),
    [
        (SeriesNames(), "ward 3, bed=4", r"ecg,source_id=ward\ 3\,\ bed\=4 ecg="),
        (SeriesNames("my ecg", "m V", "device,id"), "a", r"my\ ecg,device\,id=a m\ V="),
    ],
)
def test_names_with_commas_spaces_and_equals_signs_stay_one_name(names: SeriesNames, source: str, head: str) -> None:
    lines = line_protocol([source], source_index=np.array([0]), values_uv=np.array([7]), times_ns=TIMES_NS[:1], names=names)

    assert lines.decode() == f"{head}7.0 1762180200000000000\n"
