"""The examples run as a command, print what is right, and stay short."""

from __future__ import annotations

import ast
import hashlib
import hmac
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence

import pytest

import example_usage
from tests.core.both_ways import shipped_ranges
from tests.core.plain_anonymizer import Level, PlainSettings, Row, anonymize_window
from tests.documentation.pages import ROOT
from tests.documentation.sample import CLASSIC

FILE = ROOT / "example_usage.py"

#: So many lines, and a reader still sees all of an example at once.
MOST_LINES = 15


@pytest.fixture(scope="module")
def printed() -> list[str]:
    ended = subprocess.run([sys.executable, str(FILE)], capture_output=True, encoding="utf-8", check=True)
    assert ended.stderr == ""
    return ended.stdout.splitlines()


def values_in(line: str) -> list[float]:
    return [float(word) for word in line.partition(": ")[2].split()]


def values_by_the_definition(settings: PlainSettings, levels: Sequence[Level] | None = None) -> list[float]:
    rows = [
        Row(int(time_ns), "a", value) for time_ns, value in zip(example_usage.TIMES_NS, example_usage.MEASURED_UV, strict=True)
    ]
    return [row.value_uv for row in anonymize_window(rows, levels or shipped_ranges().levels, settings).rows]


def test_a_frame_comes_out_as_the_definition_says_and_is_counted(printed: list[str]) -> None:
    expected = values_by_the_definition(PlainSettings(k=3))

    assert printed[0].startswith("1. ")
    assert values_in(printed[0]) == expected
    rows_behind = Counter(expected)
    counted = {"rows_released": 16, "distinct_values": len(rows_behind), "smallest_group": min(rows_behind.values())}
    assert printed[1] == f"   Counted: {counted}"


def test_the_default_settings_release_what_the_definition_says(printed: list[str]) -> None:
    assert printed[2].startswith("2. ")
    assert values_in(printed[2]) == values_by_the_definition(PlainSettings(k=3))


def test_the_classic_settings_release_what_the_definition_says(printed: list[str]) -> None:
    assert printed[3].startswith("3. ")
    assert values_in(printed[3]) == values_by_the_definition(CLASSIC(k=3))
    assert printed[4] == "   4 rows carry the mean of the others, -7.25"


def test_the_pseudonym_is_the_hmac_of_the_id(printed: list[str]) -> None:
    expected = hmac.new(b"a key for this example alone", b"wearable-07", hashlib.sha256).hexdigest()

    assert printed[5] == f"4. Released id: {expected}"
    assert printed[6].startswith("   Key id: ")


def test_a_batch_is_verified_and_a_tampered_one_refused(printed: list[str]) -> None:
    assert printed[7] == "5. Verified: Certificate(distinct_values=5, smallest_group=3, distinct_sources=1)"
    assert printed[8].startswith("   Refused: ")
    assert "promises k=3 but a value is shared by 1" in printed[8]


def test_a_hierarchy_of_ones_own_is_used(printed: list[str]) -> None:
    widths = (50, 100, 200, 400, 800, 1600, 3200)
    levels = [{v: (low := -3000 + w * ((v + 3000) // w), min(low + w - 1, 3000)) for v in range(-3000, 3001)} for w in widths]

    assert printed[9].startswith("6. ")
    assert values_in(printed[9]) == values_by_the_definition(PlainSettings(k=3), levels)
    assert values_in(printed[9]) != values_in(printed[2])
    assert len(printed) == 10


def test_every_example_is_short_and_says_what_it_shows() -> None:
    functions = [node for node in ast.parse(FILE.read_text(encoding="utf-8")).body if isinstance(node, ast.FunctionDef)]

    assert len(functions) == 7
    for function in functions:
        assert ast.get_docstring(function)
        assert function.end_lineno is not None
        assert function.end_lineno - function.lineno < MOST_LINES
