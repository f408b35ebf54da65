"""The public beat: the table is the published formula, and the rule is what its definition says, in exact arithmetic."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anonymizer.batch import Batch, Promise, WindowCounts
from anonymizer.errors import PrivacyViolation
from anonymizer.public_beat import TABLE_NV, TEMPLATE_DIGEST, public_beats_uv
from anonymizer.verify import verify
from anonymizer.windows import NANOSECONDS, Window

MS = 1_000_000

Segment = tuple[list[int], list[int]]


def formula(milliseconds: int) -> float:
    """McSharry et al. 2003, table 1, with angles in degrees and t in seconds."""
    waves = ((-70, 1.2, 0.25), (-15, -5.0, 0.1), (0, 30.0, 0.1), (15, -7.5, 0.1), (100, 0.75, 0.4))
    angle = 2 * math.pi * milliseconds / 1000
    return sum(a * b * b * math.exp(-((angle - math.radians(at)) ** 2) / (2 * b * b)) for at, a, b in waves)


def defined_nv(offset_ns: int) -> int:
    """T(u): the table, interpolated linearly, floored."""
    whole, part = divmod(offset_ns + 250 * MS, MS)
    return TABLE_NV[whole] + ((TABLE_NV[whole + 1] - TABLE_NV[whole]) * part // MS if part else 0)


def defined_uv(time: int, beats: list[int]) -> int:
    """The rule, case by case, for one row; Python's whole numbers have no limit."""
    if time in beats:
        return 1000
    before, after = [one for one in beats if one < time], [one for one in beats if one > time]
    if not before:
        interval = beats[1] - beats[0]
    elif not after:
        interval = beats[-1] - beats[-2]
    else:
        interval = after[0] - before[-1]
    q = math.isqrt(min(max(interval, 300 * MS), 2000 * MS) * 10**9)
    tail = min(450 * MS * q // 10**9, 58 * interval // 100)
    lead = min(250 * MS, 38 * interval // 100)
    if not before:
        nv = defined_nv(-min(after[0] - time, lead))
    elif not after:
        nv = defined_nv(min(time - before[-1], tail) * 10**9 // q)
    elif (a := time - before[-1]) <= tail:
        nv = defined_nv(a * 10**9 // q)
    elif interval - a <= lead:
        nv = defined_nv(a - interval)
    else:
        begin, end = defined_nv(tail * 10**9 // q), defined_nv(-lead)
        nv = begin + (end - begin) * (a - tail) // (interval - lead - tail)
    return min(999, (nv + 500) // 1000)


@st.composite
def segments(draw: st.DrawFn) -> Segment:
    """Times of a segment, uneven, and which of them are beats, two or more, 200 ms or more apart."""
    step = draw(st.integers(MS, 20 * MS))
    jitter = draw(st.lists(st.integers(0, step - 1), min_size=60, max_size=150))
    times = [number * step + shift for number, shift in enumerate(jitter)]
    beats: list[int] = []
    for time in draw(st.permutations(times)):
        if len(beats) < 8 and all(abs(time - one) >= 200 * MS for one in beats):
            beats.append(time)
    if len(beats) < 2:
        times, beats = [*times, times[-1] + 200 * MS], [times[0], times[-1] + 200 * MS]
    return times, sorted(beats)


def batch_of(times: list[int], values: np.ndarray, *, sources: np.ndarray | None = None) -> Batch:
    """A batch as the method would build it."""
    index = np.zeros(len(times), dtype=np.int32) if sources is None else sources
    return Batch(
        batch_id="d-0",
        window=Window(0, 3600 * NANOSECONDS),
        times_ns=np.array(times, dtype=np.int64),
        source_index=index,
        source_ids=("a", "b"),
        values_uv=values.astype(np.float64),
        promise=Promise(None, None, "rhythm", template_digest=TEMPLATE_DIGEST),
        counts=WindowCounts(read=len(times), released=len(times)),
    )


def test_the_table_is_the_published_formula_scaled_to_one_millivolt() -> None:
    assert [round(10**6 * formula(at) / formula(0)) for at in range(-250, 451)] == list(TABLE_NV)


@given(segments())
def test_every_row_is_what_the_rule_says_and_the_second_opinion_explains_it(segment: Segment) -> None:
    times, beats = segment
    built = public_beats_uv(np.array(times), np.array(beats))
    assert built.tolist() == [defined_uv(time, beats) for time in times]
    assert verify(batch_of(times, built)).distinct_sources == 1


@given(segments(), st.data())
def test_the_second_opinion_finds_one_row_changed_by_a_microvolt(segment: Segment, data: st.DataObject) -> None:
    times, beats = segment
    built = public_beats_uv(np.array(times), np.array(beats))
    row = data.draw(st.sampled_from([at for at, time in enumerate(times) if time not in beats]))
    built[row] += data.draw(st.sampled_from((-1, 1)))
    with pytest.raises(PrivacyViolation):
        verify(batch_of(times, built))


def test_the_second_opinion_finds_what_the_method_never_makes() -> None:
    times = [number * 4 * MS for number in range(500)]
    beats = [times[at] for at in (20, 180, 390)]
    built = public_beats_uv(np.array(times), np.array(beats))
    shifted = built.copy()
    shifted[150:210] = built[149:209]
    cases = {
        "rows of one beat shifted by a sample": batch_of(times, shifted),
        "a flat source": batch_of(times, np.zeros(500)),
        "a raw window": batch_of(times, np.round(300 * np.sin(np.arange(500) / 9))),
        "one beat": batch_of(times[:150], built[:150]),
        "two beats within 200 ms": batch_of(times, np.where(np.arange(500) == 60, 1000, built)),
        "a half microvolt": batch_of(times, built + 0.5 * (np.arange(500) == 7)),
        "another template": _with(batch_of(times, built), template_digest="0123456789abcdef"),
        "a k": _with(batch_of(times, built), k=5),
    }
    for what, batch in cases.items():
        with pytest.raises(PrivacyViolation, match=r"batch d-0 (holds|names|promises)"):
            print(what, verify(batch))
    with pytest.raises(PrivacyViolation):
        verify(_with(batch_of(times, built), template_digest=""))


def test_sources_and_gaps_are_told_apart() -> None:
    times = sorted([number * 4 * MS for number in range(500)] + [3000 * MS + number * 4 * MS for number in range(500)])
    first, second = np.array(times[:500]), np.array(times[500:])
    beats = first[[20, 180, 390]], second[[100, 300]]
    built = np.concatenate([public_beats_uv(first, beats[0]), public_beats_uv(second, beats[1])])
    assert verify(batch_of(times, built)).distinct_sources == 1
    both = batch_of(times, built, sources=np.repeat(np.array([0, 1], dtype=np.int32), 500))
    assert verify(both).distinct_sources == 2
    lone = built.copy()
    lone[500:] = 0
    with pytest.raises(PrivacyViolation):
        verify(batch_of(times, lone))


def _with(batch: Batch, **changes: object) -> Batch:
    promise = {name: getattr(batch.promise, name) for name in batch.promise.__slots__} | changes
    fields = {name: getattr(batch, name) for name in batch.__slots__} | {"promise": Promise(**promise)}
    return Batch(**fields)
