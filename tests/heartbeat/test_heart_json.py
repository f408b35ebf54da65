from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scripts.heartbeat.json_lines import BadJson, decode, encode, read_entries
from tests.heartbeat.commands import json_values

objects = st.dictionaries(st.text(), json_values, max_size=4)


def read(text: str | bytes) -> list[tuple[str, Any, tuple[str, ...]]]:
    data = text if isinstance(text, bytes) else text.encode()
    return [(found.place, found.value, found.problems) for found in read_entries(data, name="f")]


def values_of(text: str) -> list[Any]:
    found = read(text)
    assert not any(problems for _, _, problems in found)
    return [value for _, value, _ in found]


@given(st.lists(objects), st.sampled_from([None, 2]), st.booleans())
def test_an_array_and_json_lines_give_the_same_entries(entries: list[Any], indent: int | None, ascii_only: bool) -> None:
    array = json.dumps(entries, indent=indent, ensure_ascii=ascii_only)
    lines = "".join(json.dumps(value, ensure_ascii=ascii_only) + "\n" for value in entries)

    assert values_of(array) == values_of(lines) == entries


@given(objects, st.sampled_from([None, 0, 2, 4]))
def test_one_object_is_one_entry_however_it_is_laid_out(value: dict[str, Any], indent: int | None) -> None:
    assert values_of(json.dumps(value, indent=indent)) == [value]


@given(json_values)
def test_what_is_encoded_is_one_line_and_decodes_to_the_same_value(value: Any) -> None:
    line = encode(value)

    assert b"\n" not in line
    assert decode(line.decode()) == value


@given(st.lists(objects, min_size=1))
def test_an_entry_of_an_array_is_placed_on_the_line_where_it_begins(entries: list[Any]) -> None:
    texts = [json.dumps(value, indent=1) for value in entries]
    text = "\n[\n" + ",\n".join(texts) + "]"
    first_lines = [3 + sum(before.count("\n") + 1 for before in texts[:index]) for index in range(len(texts))]

    assert [place for place, _, _ in read(text)] == [f"f:{line}" for line in first_lines]


def test_blank_lines_hold_no_entry_but_are_counted() -> None:
    assert read('\n{"a": 1}\r\n   \n{"b": 2}') == [("f:2", {"a": 1}, ()), ("f:4", {"b": 2}, ())]


@pytest.mark.parametrize(
    ("text", "entries"),
    [
        *((empty, []) for empty in ("", "\n \n", "\ufeff", "[]", "[ \n ]")),
        ('\ufeff{"a": 1}', [{"a": 1}]),
        ('{"a": "x\u2028y\x85z"}\n{"a": "b"}\n', [{"a": "x\u2028y\x85z"}, {"a": "b"}]),
    ],
)
def test_an_empty_input_holds_no_entries_a_byte_order_mark_is_skipped_and_only_a_newline_ends_a_line(
    text: str, entries: list[Any]
) -> None:
    assert values_of(text) == entries


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('{"a": NaN}', "NaN is not a number that JSON has"),
        ('{"a": -Infinity}', "-Infinity is not a number that JSON has"),
        ('{"a": 1e999}', "too large for a double"),
        ('{"a": ' + "9" * 5000 + "}", "too large for a double"),
        ('{"a": {"b": 1, "b": 1}}', 'gives the key "b" twice'),
        ('{"a": "\\ud800"}', "half of a surrogate pair"),
        ('{"\\udfff": 1}', "half of a surrogate pair"),
        ("[" * 100_000, "nested too deeply"),
        ('{"a": 1', "is not JSON"),
        ("{'a': 1}", "is not JSON"),
        ("", "is not JSON"),
    ],
)
def test_text_that_programs_read_differently_is_refused(text: str, problem: str) -> None:
    with pytest.raises(BadJson, match=problem):
        decode(text)


def test_every_bad_line_is_named_and_the_good_ones_are_read() -> None:
    found = read(b'{"a": 1}\nwhat?\n{"b": 2}\n\xff\n{"a": 1, "a": 2}\n{"c"')

    assert [place for place, _, problems in found if problems] == ["f:2", "f:4", "f:5", "f:6"]
    assert [value for _, value, problems in found if not problems] == [{"a": 1}, {"b": 2}]
    assert "byte 0xff at column 1" in found[3][2][0]
    assert "was the file cut off here?" in found[5][2][0]


def test_json_lines_are_known_as_such_when_their_first_line_is_broken() -> None:
    found = read('{"a": \n{"b": 2}\n')

    assert [(place, value) for place, value, _ in found] == [("f:1", None), ("f:2", {"b": 2})]


@pytest.mark.parametrize(
    ("text", "line", "parts"),
    [
        ('{\n  "a": 1,\n  "b": what\n}\n', 3, ["column 8", "a JSON array, or JSON Lines"]),
        ('{\n  "a": 1\n}\n{\n  "b": 2\n}\n', 4, ["a JSON array, or JSON Lines"]),
        ('{"a": 1}\n{"b": 2}\n'.encode("utf-16"), 1, ["save it as UTF-8"]),
    ],
    ids=["a mistake in a multi-line object", "a second multi-line object", "UTF-16"],
)
def test_a_document_that_cannot_be_read_is_one_problem_on_its_own_line_that_says_what_to_do(
    text: str | bytes, line: int, parts: list[str]
) -> None:
    [(place, _, [problem])] = read(text)

    assert place == f"f:{line}"
    assert all(part in problem for part in parts)
