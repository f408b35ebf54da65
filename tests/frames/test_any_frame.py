"""Any frame comes out as the plain implementation says, whatever its order, index, types and zones, with duplicates and missing cells."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st

from anonymizer.errors import SourceRefused
from ecg_frames import Anonymized, anonymize_frame
from tests.core.plain_anonymizer import PlainSettings, PlainWindow, Row, anonymize_windows, shipped_levels
from tests.core.row_strategies import ODD_IDS, settings_of_any_kind, values_of_some_kind

LEVELS = shipped_levels()

#: Whole seconds since the epoch where a frame begins: before it, at it, around a change of clocks, long after.
STARTS_S = (-7_200, 0, 1_761_440_000, 4_000_000_000)


@dataclass(frozen=True)
class Case:
    """Rows of up to three windows, and a frame that holds them."""

    rows: list[Row]
    length_s: int
    frame: pd.DataFrame
    zone: str | None
    epoch: str | None


@st.composite
def cases(draw: st.DrawFn) -> Case:
    length_s = draw(st.sampled_from((1, 5, 7)))
    start_ns = draw(st.sampled_from(STARTS_S)) // length_s * length_s * 10**9
    # In few steps of time sources often meet themselves again.
    step_ns = draw(st.sampled_from((1_000_000, 50_000_000)))
    time = st.integers(0, 3 * length_s * 10**9 // step_ns - 1).map(lambda step: start_ns + step * step_ns)
    ids = st.sampled_from(
        [*draw(st.lists(st.sampled_from(ODD_IDS), min_size=1, max_size=4)), *draw(st.sampled_from(([], [None, ""])))]
    )
    number = draw(st.integers(0, 60))
    rows = draw(st.lists(st.builds(Row, time, ids, values_of_some_kind(draw)), min_size=number, max_size=number))
    rows += rows[: draw(st.integers(0, 5))]
    if draw(st.integers(0, 3)):
        known: dict[tuple[int, str | None], float] = {}
        for row in rows:
            if math.isfinite(row.value_uv):
                known.setdefault((row.time_ns, row.source), row.value_uv)
        rows = [row._replace(value_uv=known[row.time_ns, row.source]) if math.isfinite(row.value_uv) else row for row in rows]
    return _in_some_form(draw, rows, length_s)


def _in_some_form(draw: st.DrawFn, rows: list[Row], length_s: int) -> Case:
    times = pd.DatetimeIndex(np.array([row.time_ns for row in rows], "datetime64[ns]")).tz_localize("UTC")
    form = draw(st.sampled_from(("utc", "ms", "far zone", "naive", "epoch", "index", "text")))
    zone, epoch = None, None
    column: object = times
    if form == "ms":
        column = times.as_unit("ms")
    elif form == "far zone":
        column = times.tz_convert("Australia/Lord_Howe")
    elif form == "naive":
        # This zone never changes its clocks, so every time is there once.
        zone, column = "Asia/Kathmandu", times.tz_convert("Asia/Kathmandu").tz_localize(None)
    elif form == "epoch":
        epoch, column = "us", times.as_unit("us").asi8
    elif form == "text":
        column = pd.Series([time.isoformat() for time in times], dtype=draw(st.sampled_from(("str", "object"))))
    ids = pd.Series([row.source for row in rows], dtype=draw(st.sampled_from(("object", "str", "category", "string[pyarrow]"))))
    values = pd.Series([row.value_uv for row in rows], dtype=draw(st.sampled_from(("float64", "object"))))
    frame = pd.DataFrame({"source_id": ids, "beside": 1, "timestamp": column, "ecg": values})
    frame.index = pd.Index(draw(st.permutations(range(len(frame)))) if draw(st.booleans()) else [3] * len(frame))
    if form == "index":
        frame = frame.drop(columns="timestamp").set_index(times)
    return Case(rows, length_s, frame, zone, epoch)


def expected_of(case: Case, choices: PlainSettings) -> tuple[dict[int, PlainWindow], int]:
    """Return the plain windows that hold rows, by their start."""
    length_ns = case.length_s * 10**9
    # A blank names no source in a file or frame.
    rows = [row._replace(source=None) if row.source is not None and row.source.isspace() else row for row in case.rows]
    start_ns = min((row.time_ns for row in rows), default=0) // length_ns * length_ns
    windows, outside = anonymize_windows(rows, start_ns=start_ns, length_ns=length_ns, windows=4, levels=LEVELS, settings=choices)
    return {start_ns + number * length_ns: one for number, one in enumerate(windows) if one.read}, outside


def most_contradict(case: Case) -> bool:
    """Return whether most sources hold two values for one time in most windows: then nothing is released."""
    values_at: dict[tuple[int, str | None], set[float]] = {}
    sources: dict[int, set[str]] = {}
    contradicting: dict[int, set[str]] = {}
    for row in case.rows:
        window = row.time_ns // (case.length_s * 10**9)
        sources.setdefault(window, set())
        if row.source and not row.source.isspace() and math.isfinite(row.value_uv):
            sources[window].add(row.source)
            values = values_at.setdefault((row.time_ns, row.source), set())
            values.add(row.value_uv)
            if len(values) > 1:
                contradicting.setdefault(window, set()).add(row.source)
    bad = sum(2 * len(contradicting.get(window, ())) > len(found) for window, found in sources.items())
    return 2 * bad > len(sources)


def anonymized(case: Case, choices: PlainSettings) -> Anonymized:
    return anonymize_frame(
        case.frame,
        k=choices.k,
        window=case.length_s,
        k_unit=choices.k_unit,
        method=choices.method,
        max_level=choices.max_level,
        residual=choices.residual,
        imputation=choices.imputation,
        zone=case.zone,
        epoch=case.epoch,  # type: ignore[arg-type]  # one of the units
    )


@settings(max_examples=3 * settings().max_examples)
@given(case=cases(), choices=settings_of_any_kind(st.integers(2, 5)))
def test_any_frame_comes_out_as_the_specification_says(case: Case, choices: PlainSettings) -> None:
    expected, outside = expected_of(case, choices)
    assert outside == 0
    try:
        released, certificate = anonymized(case, choices)
    except SourceRefused:
        assert most_contradict(case)
        return

    assert list(released.columns) == [name for name in case.frame.columns if name != "beside"]
    assert released.index.equals(case.frame.index)
    found = [
        (row.time_ns, row.source, value)
        for row, value in zip(case.rows, released["ecg"].tolist(), strict=True)
        if not math.isnan(value)
    ]
    assert sorted(found) == sorted((row.time_ns, row.released_id, row.value_uv) for one in expected.values() for row in one.rows)
    assert [start.value for start in certificate.windows.index] == list(expected)
    for (_, counted), window in zip(certificate.windows.iterrows(), expected.values(), strict=True):
        named = (counted["rows_read"], counted["rows_released"], counted["rows_invalid"], counted["rows_duplicate"])
        assert named == (window.read, window.released, window.invalid, window.duplicate)
        assert counted["rows_withheld"] == window.withheld
        if window.released:
            assert counted["distinct_sources"] == len({row.released_id for row in window.rows})


@given(case=cases(), choices=settings_of_any_kind(st.integers(2, 4)), order=st.randoms(use_true_random=False))
def test_the_order_of_the_rows_changes_no_value(case: Case, choices: PlainSettings, order: object) -> None:
    shuffled = list(range(len(case.rows)))
    order.shuffle(shuffled)  # type: ignore[attr-defined]
    other = Case([case.rows[at] for at in shuffled], case.length_s, case.frame.iloc[shuffled], case.zone, case.epoch)
    try:
        one, its = anonymized(case, choices)
    except SourceRefused:
        return

    two, others = anonymized(other, choices)

    pd.testing.assert_frame_equal(its.windows, others.windows)
    values = [
        sorted(
            (row.time_ns, row.source, value)
            for row, value in zip(rows, frame["ecg"].tolist(), strict=True)
            if not math.isnan(value)
        )
        for rows, frame in ((case.rows, one), (other.rows, two))
    ]
    assert values[0] == values[1]
