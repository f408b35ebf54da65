"""The example in `outputs/README.md` is an output like any other: it keeps the whole contract."""

from __future__ import annotations

import json
import re
import types
from pathlib import Path
from typing import Any

import pytest

from tests.outputs.batches import Row, time_ns_of
from tests.outputs.contract import CONTRACT, Promise
from tests.outputs.destinations import Files

README = Path(__file__).parents[2] / "outputs" / "README.md"


def example() -> Any:
    """Return the example as a module."""
    (source,) = re.findall(r"^```python\n(.*?)^```$", README.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    module = types.ModuleType("readme_example")
    exec(compile(source, str(README), "exec"), module.__dict__)
    return module


def json_rows(path: Path) -> list[Row]:
    records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [Row(time_ns_of(record["timestamp"]), record["source_id"], record["ecg"]) for record in records]


@pytest.mark.parametrize("promise", CONTRACT, ids=lambda promise: promise.__name__)
def test_the_example_promises_that(promise: Promise, tmp_path: Path) -> None:
    promise(Files(tmp_path, example().JsonFiles, json_rows, "*.json"))


def test_the_example_says_how_it_delivers() -> None:
    assert "\nDelivery: " in example().__doc__


def test_every_output_is_in_the_table() -> None:
    listed = set(re.findall(r"^\| `(\w+\.py)` \|", README.read_text(encoding="utf-8"), re.MULTILINE))

    assert listed == {path.name for path in README.parent.glob("*.py")} - {"__init__.py"}


def test_every_file_the_page_names_is_there() -> None:
    text = README.read_text(encoding="utf-8")

    for name in re.findall(r"\]\((\.\./[^)]+)\)", text):
        assert (README.parent / name).is_file(), name
    for name in re.findall(r"`(tests/[^`]+\.py)`", text):
        assert (README.parents[1] / name).is_file(), name
