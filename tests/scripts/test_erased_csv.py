"""Erasure from a CSV file reads it in pieces: whatever its size and form, only whole rows of the source are left out."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest

from anonymizer.batch import WindowCounts
from anonymizer.windows import Window
from operations.erasure import csv_rows
from operations.erasure.csv_rows import pieces
from operations.erasure.rows import NO_WINDOW, Person, ReleasedWindows, Rule
from service.state.journal import Entry
from tests.service.batches import PROMISE

SECOND_NS = 10**9
WINDOWS = 12

HEADER = "timestamp,source_id,ecg\n"

PLAIN = ("a", "a-b", "mine", "mine-2", "ü")
QUOTED = (*PLAIN, 'with "quotes", commas', "two\nlines")


def entry(number: int) -> Entry:
    window = Window(number * SECOND_NS, (number + 1) * SECOND_NS)
    return Entry(window, 1, replace(PROMISE, k=2), SECOND_NS, 1, WindowCounts(read=9, released=9), 0)


def row(time_ns: int, source_id: str, value: float) -> str:
    at = datetime.fromtimestamp(time_ns // SECOND_NS, UTC)
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow((f"{at:%Y-%m-%dT%H:%M:%S}.{time_ns % SECOND_NS:09d}Z", source_id, value))
    return line.getvalue()


@pytest.mark.parametrize("block_bytes", [64, 500, 1 << 20])
@pytest.mark.parametrize("names", [PLAIN, QUOTED])
@pytest.mark.parametrize("tail", ["", "2025-11-03T14:3", "\n\nwhat is this?,x\nno,row,here\n"])
def test_pieces_are_the_whole_file_and_end_where_windows_do(
    names: tuple[str, ...], tail: str, block_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(csv_rows, "BLOCK_BYTES", block_bytes)
    random = np.random.default_rng(len(names) + len(tail))
    rows = [
        (int(time_ns), str(random.choice(names)), float(random.choice((1.0, 2.0, 7.25))))
        for window in random.permutation(WINDOWS + 2).tolist()  # the last two are in no released window
        for time_ns in np.sort(random.integers(0, SECOND_NS, 7)) + window * SECOND_NS
    ]
    lines = [row(*one) for one in rows]
    content = (HEADER + "".join(lines) + tail).encode()
    windows = ReleasedWindows([entry(number) for number in range(WINDOWS)])
    rule = Rule(Person(frozenset({"mine", 'with "quotes", commas'})), windows, strict=False)

    found = list(pieces(io.BytesIO(content), len(content), windows))

    assert b"".join(piece.content for piece in found) == content
    read = [
        (time_ns, piece.rows.ids[code], value)
        for piece in found
        for time_ns, code, value in zip(
            piece.rows.times_ns.tolist(), piece.rows.codes.tolist(), piece.rows.values_uv.tolist(), strict=True
        )
    ]
    assert read == rows
    starts = [set(windows.starts_of(piece.rows.times_ns).tolist()) - {NO_WINDOW} for piece in found]
    assert sum(map(len, starts)) == len(set().union(*starts)), "each window is in one piece"
    kept = b"".join(piece.without(rule.cut(piece.rows).is_gone) for piece in found)
    assert (
        kept.decode()
        == HEADER + "".join(line for line, (_, name, _) in zip(lines, rows, strict=True) if name not in rule.person.exact) + tail
    )
