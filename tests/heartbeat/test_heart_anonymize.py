from __future__ import annotations

import copy
import hashlib
import hmac
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scripts.anonymize import anonymize_data
from tests.heartbeat.commands import SALT, run

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
names = st.sampled_from(["source_id", "notes", "metrics", "device", "ünder", ""])
dictionaries = st.dictionaries(names, json_values)
salts = st.text(min_size=1) | st.binary(min_size=1)


def definition(value: Any, salt: str | bytes) -> str:
    """The digest as the documentation defines it, with Python's own hmac and nothing of ours."""
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    key = salt.encode() if isinstance(salt, str) else salt
    return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()


@given(dictionaries, salts, st.lists(names))
def test_every_named_field_becomes_its_digest_and_no_other_field_changes(
    data: dict[str, Any], salt: str | bytes, fields: list[str]
) -> None:
    expected = {name: definition(value, salt) if name in fields else value for name, value in data.items()}

    assert anonymize_data(data, salt, fields) == expected


@given(dictionaries, salts, st.lists(names))
def test_the_input_is_not_changed(data: dict[str, Any], salt: str | bytes, fields: list[str]) -> None:
    before = copy.deepcopy(data)

    result = anonymize_data(data, salt, fields)

    assert data == before
    assert result is not data


@given(dictionaries, salts, st.lists(names))
def test_missing_fields_stay_missing_and_the_order_of_fields_stays(
    data: dict[str, Any], salt: str | bytes, fields: list[str]
) -> None:
    assert list(anonymize_data(data, salt, fields)) == list(data)


@given(st.text(), st.text(), salts)
def test_two_strings_share_a_digest_exactly_when_they_are_equal(one: str, other: str, salt: str | bytes) -> None:
    digests = [anonymize_data({"source_id": value}, salt, ["source_id"])["source_id"] for value in (one, other)]

    assert (digests[0] == digests[1]) == (one == other)


def test_a_digest_published_in_rfc_4231_comes_out() -> None:
    result = anonymize_data({"source_id": "what do ya want for nothing?"}, "Jefe", ["source_id"])

    assert result == {"source_id": "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"}


@pytest.mark.parametrize("salt", ["", b""])
def test_an_empty_salt_is_refused(salt: str | bytes) -> None:
    with pytest.raises(ValueError, match="salt must not be empty"):
        anonymize_data({"source_id": "a"}, salt, ["source_id"])


def test_a_salt_that_was_never_set_is_refused() -> None:
    with pytest.raises(TypeError, match="salt must be str or bytes, got NoneType"):
        anonymize_data({"source_id": "a"}, None, ["source_id"])  # type: ignore[arg-type]


def test_one_name_instead_of_a_list_of_names_is_refused_rather_than_read_as_letters() -> None:
    with pytest.raises(TypeError, match="must be a list of names"):
        anonymize_data({"source_id": "a"}, SALT, "source_id")


def test_a_value_that_has_no_json_text_is_refused() -> None:
    with pytest.raises(ValueError, match="JSON"):
        anonymize_data({"metrics": {"heart_rate": float("nan")}}, SALT, ["metrics"])


def test_names_may_come_from_a_generator_and_twice() -> None:
    result = anonymize_data({"a": "x", "b": "y"}, SALT, (name for name in ["a", "b", "a"]))

    assert result == {"a": definition("x", SALT), "b": definition("y", SALT)}


def test_the_command_writes_pseudonymized_json_lines(salt_file: Path) -> None:
    ended = run(
        "anonymize.py", stdin='[{"source_id": "a", "n": 1.5},\n {"other": null}]', settings={"HEART_SALT_FILE": salt_file}
    )

    assert ended.exit_code == 0
    assert ended.stdout == f'{{"source_id":"{definition("a", SALT)}","n":1.5}}\n{{"other":null}}\n'
    assert ended.stderr == ""


def test_the_command_replaces_the_fields_it_is_asked_to(salt_file: Path) -> None:
    ended = run(
        "anonymize.py", "--fields", "notes, n", stdin='{"notes": "x", "n": null}', settings={"HEART_SALT_FILE": salt_file}
    )

    assert json.loads(ended.stdout) == {"notes": definition("x", SALT), "n": definition(None, SALT)}


def test_the_command_warns_of_a_field_that_no_entry_has(salt_file: Path) -> None:
    ended = run("anonymize.py", "--fields", "sourceid", stdin='{"source_id": "a"}', settings={"HEART_SALT_FILE": salt_file})

    assert "no entry has the field 'sourceid'" in ended.stderr


def test_the_command_writes_nothing_when_one_entry_is_no_object(salt_file: Path) -> None:
    ended = run("anonymize.py", stdin='{"source_id": "a"}\n[1]\n', settings={"HEART_SALT_FILE": salt_file})

    assert (ended.exit_code, ended.stdout) == (1, "")
    assert ended.stderr.startswith("<stdin>:2: must be an object, got an array\n")
