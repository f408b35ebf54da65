"""The second opinion: a good batch passes, and whatever breaks one of its promises is found by looking at the batch alone."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anonymizer.anonymize import anonymize_chunk
from anonymizer.batch import Batch, Certificate, KUnit, Promise, WindowCounts
from anonymizer.errors import PrivacyViolation
from anonymizer.verify import verify
from anonymizer.windows import Window
from tests.core.both_ways import recipe_of, samples_of, shipped_ranges
from tests.core.plain_anonymizer import PlainSettings
from tests.core.row_strategies import Chunk, chunks_of_any_kind, chunks_with_few_left_over, settings_of_any_kind

#: In the order of the samples; in the order of release B and C come before Ä.
IDS = ("wearer-Ä", "wearer-B", "wearer-C")
Ä, B, C = 0, 1, 2

#: Time, source, value. With k 3: three rows of three sources share 1111, four rows of three sources share 2222.
GOOD_ROWS = [
    (100, B, 1111.0),
    (100, C, 1111.0),
    (100, Ä, 2222.0),
    (101, B, 2222.0),
    (150, Ä, 1111.0),
    (160, C, 2222.0),
    (199, B, 2222.0),
]

#: Three rows each of 1000 and 2000, and two that carry their mean.
IMPUTED_ROWS = [
    (100, B, 1000.0),
    (101, B, 1000.0),
    (102, B, 1000.0),
    (103, C, 2000.0),
    (104, C, 2000.0),
    (105, C, 2000.0),
    (106, Ä, 1500.0),
    (107, Ä, 1500.0),
]


def batch_of(
    rows: list[tuple[int, int, float]], *, k: int = 3, k_unit: KUnit = "record", counts: WindowCounts | None = None
) -> Batch:
    """Return a batch of the window [100, 200) that holds `rows`, all accounted for unless `counts` says otherwise."""
    return Batch(
        batch_id="test-100-200",
        window=Window(100, 200),
        times_ns=np.array([time_ns for time_ns, _, _ in rows], dtype=np.int64),
        source_index=np.array([source for _, source, _ in rows], dtype=np.int32),
        source_ids=IDS,
        values_uv=np.array([value for _, _, value in rows], dtype=np.float64),
        promise=Promise(k=k, k_unit=k_unit, method="hierarchy"),
        counts=counts or WindowCounts(read=len(rows), released=len(rows)),
    )


def good_batch(k_unit: KUnit = "record") -> Batch:
    """Return a batch that keeps every promise."""
    return batch_of(GOOD_ROWS, k_unit=k_unit, counts=WindowCounts(read=11, released=7, withheld=1, invalid=2, duplicate=1))


def imputed_batch(
    rows: list[tuple[int, int, float]] = IMPUTED_ROWS, *, imputed: int = 2, value_uv: float | None = 1500.0
) -> Batch:
    """Return a batch whose last rows carry the mean of the others."""
    return replace(
        batch_of(rows, counts=WindowCounts(read=len(rows), released=len(rows), suppressed=imputed)),
        imputed_rows=np.arange(len(rows)) >= len(rows) - imputed,
        imputed_value_uv=value_uv,
    )


def with_row(batch: Batch, place: int, row: tuple[int, int, float]) -> Batch:
    """Return the batch with another row at `place`."""
    times_ns, source_index, values_uv = batch.times_ns.copy(), batch.source_index.copy(), batch.values_uv.copy()
    times_ns[place], source_index[place], values_uv[place] = row
    return replace(batch, times_ns=times_ns, source_index=source_index, values_uv=values_uv)


def with_value(batch: Batch, place: int, value_uv: float) -> Batch:
    """Return the batch with another value at `place`."""
    return with_row(batch, place, (int(batch.times_ns[place]), int(batch.source_index[place]), value_uv))


def with_counts(batch: Batch, **counts: int) -> Batch:
    """Return the batch with other counts."""
    return replace(batch, counts=replace(batch.counts, **counts))


def with_promise(batch: Batch, k: int) -> Batch:
    """Return the batch with another k promised."""
    return replace(batch, promise=replace(batch.promise, k=k))


@dataclass(frozen=True, slots=True, eq=False)
class BatchWithRanges(Batch):
    """A batch with a column that must not leave."""

    ranges: tuple[str, ...] = ()


def with_a_further_column(batch: Batch) -> Batch:
    """Return the batch as one that tells more."""
    return BatchWithRanges(**{name: getattr(batch, name) for name in Batch.__slots__}, ranges=("[0, 1]",))


@pytest.mark.parametrize("k_unit", ["record", "source"])
def test_a_good_batch_passes_and_its_certificate_holds_what_was_counted(k_unit: KUnit) -> None:
    assert verify(good_batch(k_unit)) == Certificate(distinct_values=2, smallest_group=3, distinct_sources=3)


def test_a_batch_with_imputed_rows_passes_and_its_certificate_leaves_their_value_out() -> None:
    assert verify(imputed_batch()) == Certificate(distinct_values=2, smallest_group=3, distinct_sources=3)


def test_ids_without_a_row_are_not_counted_as_sources() -> None:
    assert verify(batch_of([(100, B, 7.0), (101, B, 7.0), (102, B, 7.0)])).distinct_sources == 1


def test_groups_that_rounding_gave_one_value_count_as_one() -> None:
    rows = [(100 + place, B, 7.0) for place in range(6)]

    assert verify(batch_of(rows)) == Certificate(distinct_values=1, smallest_group=6, distinct_sources=1)


def test_an_imputed_value_may_be_that_of_a_group_which_stands_without_it() -> None:
    rows = [(100 + place, B, 7.0) for place in range(5)]

    assert verify(imputed_batch(rows, value_uv=7.0)) == Certificate(distinct_values=1, smallest_group=3, distinct_sources=1)


#: What is broken, and how the refusal puts it.
BROKEN: dict[tuple[str, str], Callable[[], Batch]] = {
    # Who shares a value
    ("a value shared by k − 1 rows", "shared by 2 record"): lambda: batch_of(GOOD_ROWS[1:]),
    ("a lone row with its own value", "shared by 1 record"): lambda: with_value(good_batch(), 2, 2223.0),
    ("values that differ in the last bit only", "shared by 1 record"): lambda: with_value(
        good_batch(), 0, math.nextafter(1111.0, 2000.0)
    ),
    # Counted from −2500 both are 2500, to a float's last digit.
    ("values that differ by less than a float can tell far from zero", "shared by 1 record"): lambda: batch_of(
        [(100 + place, B, value) for place, value in enumerate([-2500.0] * 3 + [0.0] * 3 + [5e-324])]
    ),
    ("values that differ by half a microvolt", "shared by 1 record"): lambda: batch_of(
        [(100 + place, B, value) for place, value in enumerate([-2500.5] * 3 + [0.5] * 3 + [0.0])]
    ),
    ("values far apart", "shared by 1 record"): lambda: batch_of(
        [(100 + place, B, value) for place, value in enumerate([-1e300] * 3 + [1e300] * 3 + [0.0])]
    ),
    ("more promised than kept", "k=4 but a value is shared by 3"): lambda: with_promise(good_batch(), 4),
    ("k = 1", "not a valid k"): lambda: with_promise(good_batch(), 1),
    ("k = 0", "not a valid k"): lambda: with_promise(good_batch(), 0),
    # Form
    ("not a number", "not finite"): lambda: with_value(good_batch(), 0, math.nan),
    ("not a number in every row", "not finite"): lambda: batch_of(
        [(time_ns, source, math.nan) for time_ns, source, _ in GOOD_ROWS]
    ),
    ("infinity in enough rows", "not finite"): lambda: batch_of(
        [(time_ns, source, math.inf) for time_ns, source, _ in GOOD_ROWS]
    ),
    ("no rows", "at least 1"): lambda: batch_of([]),
    ("columns of two lengths", "one length"): lambda: replace(good_batch(), values_uv=good_batch().values_uv[:-1]),
    ("marks for some of the rows", "one length"): lambda: replace(imputed_batch(), imputed_rows=np.array([False, True])),
    ("a column that is not on the list", "list of what may leave"): lambda: with_a_further_column(good_batch()),
    # Times and order
    ("a time before the window", "outside its window"): lambda: with_row(good_batch(), 0, (99, B, 1111.0)),
    ("a time at the window's end", "outside its window"): lambda: with_row(good_batch(), 6, (200, B, 2222.0)),
    ("one source twice at one time", "one row per time and source"): lambda: with_row(good_batch(), 3, (100, Ä, 2222.0)),
    ("times out of order", "in that order"): lambda: with_row(good_batch(), 4, (161, Ä, 1111.0)),
    ("equal times in the order of the samples, not of the released ids", "in that order"): lambda: batch_of(
        [(100, Ä, 1111.0), (100, B, 1111.0), (100, C, 1111.0)]
    ),
    # Sources
    ("a row without a source", "without a source"): lambda: with_row(good_batch(), 3, (101, -1, 2222.0)),
    ("a row of a source that is not named", "without a source"): lambda: with_row(good_batch(), 3, (101, 3, 2222.0)),
    ("two sources under one id", "two sources under one id"): lambda: replace(
        good_batch(), source_ids=("wearer-Ä", "wearer-B", "wearer-B")
    ),
    # Conservation
    ("a row that was read and is nowhere", "does not account"): lambda: with_counts(good_batch(), read=12),
    ("a row that was released and never read", "does not account"): lambda: with_counts(good_batch(), read=10),
    ("a row more than is counted as released", "does not account"): lambda: with_counts(good_batch(), released=6, withheld=2),
    ("a row fewer than is counted as released", "does not account"): lambda: with_counts(good_batch(), released=8, withheld=0),
    # Imputed rows
    ("an imputed value that is not the mean", "not the mean"): lambda: imputed_batch(
        [*IMPUTED_ROWS[:6], (106, Ä, 1600.0), (107, Ä, 1600.0)], value_uv=1600.0
    ),
    ("an imputed value that is the mean of all rows and not of the others", "not the mean"): lambda: imputed_batch(
        [*IMPUTED_ROWS[:6], (106, Ä, 1500.1), (107, Ä, 1500.1)], value_uv=1500.1
    ),
    ("a marked row with a value of its own", "value of their own"): lambda: with_value(imputed_batch(), 7, 1501.0),
    ("marked rows with another value than the one declared", "value of their own"): lambda: imputed_batch(
        [*IMPUTED_ROWS[:6], (106, Ä, 1234.0), (107, Ä, 1234.0)]
    ),
    ("marked rows and no value declared", "nothing they could be imputed from"): lambda: imputed_batch(value_uv=None),
    ("marked rows and a value declared that is not a number", "imputed rows"): lambda: imputed_batch(value_uv=math.nan),
    ("marked rows that were not counted", "marks 2 rows"): lambda: with_counts(imputed_batch(), suppressed=0),
    ("more counted than marked", "marks 2 rows"): lambda: with_counts(imputed_batch(), starred=1),
    ("rows counted as imputed that were not marked", "marks 0 rows"): lambda: replace(
        imputed_batch(), imputed_rows=None, imputed_value_uv=None
    ),
    ("imputed rows only", "nothing they could be imputed from"): lambda: imputed_batch(IMPUTED_ROWS[6:]),
    # Two rows of 1500 of their own among the others: their mean is still 1500, and with the marked ones they are four.
    ("imputed rows counted towards k", "shared by 2 record"): lambda: imputed_batch(
        [*IMPUTED_ROWS, (108, Ä, 1500.0), (109, Ä, 1500.0)]
    ),
    # 1111 by B and C only, 2222 by all.
    ("a value shared by fewer than k sources, of enough rows", "shared by 2 source"): lambda: batch_of(
        [(100, B, 1111.0), (101, C, 1111.0), (102, B, 1111.0), (103, Ä, 2222.0), (104, B, 2222.0), (105, C, 2222.0)],
        k_unit="source",
    ),
    ("imputed rows where sources are counted", "no number of sources"): lambda: replace(
        imputed_batch([(100 + place, place % 3, 7.0) for place in range(8)], value_uv=7.0),
        promise=Promise(k=3, k_unit="source", method="hierarchy"),
    ),
}


@pytest.mark.parametrize(
    ("complaint", "broken"), [(why, make) for (_, why), make in BROKEN.items()], ids=[name for name, _ in BROKEN]
)
def test_a_batch_that_breaks_one_promise_is_refused_for_it(complaint: str, broken: Callable[[], Batch]) -> None:
    with pytest.raises(PrivacyViolation, match=complaint):
        verify(broken())


@pytest.mark.parametrize("broken", BROKEN.values(), ids=[name for name, _ in BROKEN])
def test_a_refusal_names_the_batch_and_shows_no_value_and_no_source(broken: Callable[[], Batch]) -> None:
    with pytest.raises(PrivacyViolation) as refused:
        verify(broken())

    message = str(refused.value)
    assert message.startswith("batch test-100-200 ")
    assert "wearer" not in message
    assert not any(str(int(value)) in message for value in (1111, 2222, 1000, 2000, 1234, 1500, 1501, 1600))


def test_an_imputed_value_that_no_row_carries_is_refused() -> None:
    # It would be an unchecked number in the batch, such as the raw value of one row.
    with pytest.raises(PrivacyViolation):
        verify(replace(good_batch(), imputed_value_uv=1234.0))


@pytest.mark.parametrize(
    "counts",
    [
        # Six were read, seven are released: a row that no sample stands for.
        WindowCounts(read=6, released=7, withheld=-1),
        WindowCounts(read=7, released=7, withheld=1, invalid=-1),
        WindowCounts(read=7, released=7, starred=1, suppressed=-1),
    ],
)
def test_counts_below_zero_account_for_nothing(counts: WindowCounts) -> None:
    with pytest.raises(PrivacyViolation):
        verify(replace(good_batch(), counts=counts))


@pytest.mark.parametrize(("starred", "suppressed"), [(2, 0), (1, 1)])
def test_fewer_imputed_rows_than_k_are_not_called_starred(starred: int, suppressed: int) -> None:
    with pytest.raises(PrivacyViolation):
        verify(with_counts(imputed_batch(), starred=starred, suppressed=suppressed))


def test_as_many_imputed_rows_as_k_are_not_called_suppressed() -> None:
    three = imputed_batch([*IMPUTED_ROWS, (108, Ä, 1500.0)], imputed=3)

    verify(with_counts(three, starred=3, suppressed=0))
    with pytest.raises(PrivacyViolation):
        verify(three)


def test_minus_zero_is_refused_because_a_reader_can_tell_it_from_zero() -> None:
    # Written out, "-0.0" is shared by two rows and "0.0" by one: as numbers they are three.
    with pytest.raises(PrivacyViolation):
        verify(batch_of([(100, B, -0.0), (101, B, -0.0), (102, B, 0.0)]))


def test_a_row_whose_id_is_empty_has_no_source() -> None:
    with pytest.raises(PrivacyViolation):
        verify(replace(good_batch(), source_ids=("wearer-Ä", "", "wearer-C")))


@given(
    values=st.lists(st.sampled_from((0.0, 1.0, 1.5, -7.0)), min_size=1, max_size=20),
    sources=st.lists(st.integers(0, 2), min_size=20, max_size=20),
    k=st.integers(2, 5),
    k_unit=st.sampled_from(("record", "source")),
)
def test_exactly_those_batches_pass_whose_rarest_value_is_shared_by_k(
    values: list[float], sources: list[int], k: int, k_unit: KUnit
) -> None:
    rows = [(100 + place, sources[place], value) for place, value in enumerate(values)]
    behind = {value: [source for _, source, other in rows if other == value] for value in values}
    fewest = min(len(set(found)) if k_unit == "source" else len(found) for found in behind.values())

    batch = batch_of(rows, k=k, k_unit=k_unit)

    if fewest >= k:
        assert verify(batch) == Certificate(len(behind), fewest, len({source for _, source, _ in rows}))
    else:
        with pytest.raises(PrivacyViolation, match=f"shared by {fewest} "):
            verify(batch)


@given(data=st.data(), choices=settings_of_any_kind())
def test_whatever_the_method_builds_passes(data: st.DataObject, choices: PlainSettings) -> None:
    chunk: Chunk = data.draw(chunks_of_any_kind() | chunks_with_few_left_over(choices.k))
    results = anonymize_chunk(samples_of(chunk.rows), chunk.windows, recipe_of(choices, shipped_ranges())).results

    for batch in (result.batch for result in results if result.batch is not None):
        certificate = verify(batch)
        imputed = [False] * len(batch) if batch.imputed_rows is None else batch.imputed_rows.tolist()
        behind = defaultdict(list)
        for value, source, is_imputed in zip(batch.values_uv.tolist(), batch.source_index.tolist(), imputed, strict=True):
            if not is_imputed:
                behind[value].append(source)
        fewest = min(len(set(found) if choices.k_unit == "source" else found) for found in behind.values())
        assert (certificate.distinct_values, certificate.smallest_group) == (len(behind), fewest)
        assert batch.certified(certificate).certificate == certificate
