"""Batches to deliver, and rows to compare what arrived with what was sent."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from hypothesis import strategies as st

from anonymizer.batch import Batch, Certificate, Promise, WindowCounts
from anonymizer.windows import NANOSECONDS, Window

#: 2025-11-03T14:30:00Z, where the first window of most tests starts.
START_S = 1_762_180_200

#: Windows of this length are used throughout.
LENGTH_S = 5

#: Characters that mean something to a database, a spreadsheet, JSON, a shell or a person, alone and together. None holds a line end.
ODD_IDS: tuple[str, ...] = (
    "plain",
    'say "hello"',
    '"',
    "a,b",
    ",",
    "ward 3, bed=4",
    " leading and trailing ",
    "a=b=c",
    "tab\there",
)
ODD_IDS += (
    "back\\slash",
    "back\\,slash and comma",
    "back\\ slash and space",
    "back\\=slash and equals",
    'back\\"slash and quote',
)
ODD_IDS += ("\\\\two", "${HOME}", "${", "$(rm)", "#comment", "it's", "=1+1", "-1", "NULL", "nan", "true", "1.0", "<b>&amp;</b>")
ODD_IDS += ("Müller-Lüdenscheidt", "心電図", "🫀", "e\u0301 is not \u00e9", "%s %d {0}", "x" * 1000)


class Row(NamedTuple):
    """One released row, as readers of the destination see it."""

    time_ns: int
    source_id: str
    value_uv: float


def make_batch(rows: Iterable[tuple[int, str, float]], *, window: int = 0, all_ids: Sequence[str] = ()) -> Batch:
    """Return a certified batch.

    Args:
        rows: Nanoseconds since the window's start, released id and value of each row, in any order.
        window: Which window, counted from `START_S`.
        all_ids: Released ids of the chunk, with or without a row here; those of the rows are always among them.
    """
    ordered = sorted(rows, key=lambda row: row[:2])
    ids = tuple(dict.fromkeys([*all_ids, *(row[1] for row in ordered)]))
    start_ns = (START_S + window * LENGTH_S) * NANOSECONDS
    end_ns = start_ns + LENGTH_S * NANOSECONDS
    values = np.array([row[2] for row in ordered], dtype=np.float64)
    _, rows_per_value = np.unique(values, return_counts=True)
    return Batch(
        batch_id=f"0123456789ab-{start_ns}-{end_ns}",
        window=Window(start_ns, end_ns),
        times_ns=np.array([start_ns + row[0] for row in ordered], dtype=np.int64),
        source_index=np.array([ids.index(row[1]) for row in ordered], dtype=np.int32),
        source_ids=ids,
        values_uv=values,
        promise=Promise(k=2, k_unit="record", method="hierarchy", settings_digest="00112233aabbccdd", key_id=""),
        counts=WindowCounts(read=len(ordered) + 3, released=len(ordered), withheld=1, invalid=1, duplicate=1),
        certificate=Certificate(len(rows_per_value), int(rows_per_value.min()), len({row[1] for row in ordered})),
    )


def usual_batch(*, window: int = 0, rows: int = 6) -> Batch:
    """Return a batch of two sources and whole values, different in every window."""
    return make_batch([(i // 2 * 8_000_000, f"source-{i % 2}", 100.0 * window + i // 2) for i in range(rows)], window=window)


def rows_of(*batches: Batch) -> list[Row]:
    """Return what should be stored once these batches are, sorted."""
    return sorted(
        Row(time_ns, batch.source_ids[index], value)
        for batch in batches
        for time_ns, index, value in zip(
            batch.times_ns.tolist(), batch.source_index.tolist(), batch.values_uv.tolist(), strict=True
        )
    )


def row_of(batch: Batch, index: int) -> Row:
    """Return one row of a batch."""
    return Row(int(batch.times_ns[index]), batch.source_ids[batch.source_index[index]], float(batch.values_uv[index]))


def time_ns_of(text: str) -> int:
    """Return the nanoseconds since the epoch of a time in UTC with any number of digits, by arithmetic of its own."""
    moment, _, fraction = text.removesuffix("Z").partition(".")
    assert text.endswith("Z"), f"{text!r} is no time in UTC"
    assert len(fraction) <= 9
    return int(np.datetime64(moment, "s").astype(np.int64)) * NANOSECONDS + int(fraction.ljust(9, "0") or 0)


#: Any text that the tag of a point can hold, often with what Flux or line protocol takes for more than a letter.
TAG_TEXTS = st.text(
    st.one_of(st.sampled_from("\"\\${},= |'#r[]_"), st.characters(exclude_categories=["Cs", "Cc"])), min_size=1, max_size=12
).filter(lambda text: not text.endswith("\\"))
