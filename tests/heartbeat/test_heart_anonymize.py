from __future__ import annotations

import copy
import hashlib
import hmac
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scripts.anonymize import anonymize_data
from tests.heartbeat.commands import SALT, SCRIPTS, json_values, run

names = st.sampled_from(["source_id", "notes", "metrics", "device", "ünder", ""])
salts = st.text(min_size=1) | st.binary(min_size=1)


def definition(value: Any, salt: str | bytes) -> str:
    """The digest as the documentation defines it, computed with Python's own hmac."""
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    key = salt.encode() if isinstance(salt, str) else salt
    return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()


@given(st.dictionaries(names, json_values), salts, st.lists(names))
def test_every_named_field_becomes_its_digest_all_others_and_their_order_stay_and_the_input_is_not_changed(
    data: dict[str, Any], salt: str | bytes, fields: list[str]
) -> None:
    before = copy.deepcopy(data)

    result = anonymize_data(data, salt, (name for name in fields + fields))

    assert list(result.items()) == [(name, definition(value, salt) if name in fields else value) for name, value in data.items()]
    assert data == before
    assert result is not data


@given(st.text(), st.text(), salts)
def test_two_strings_share_a_digest_exactly_when_they_are_equal(one: str, other: str, salt: str | bytes) -> None:
    digests = [anonymize_data({"source_id": value}, salt, ["source_id"])["source_id"] for value in (one, other)]

    assert (digests[0] == digests[1]) == (one == other)


def test_a_digest_published_in_rfc_4231_comes_out() -> None:
    result = anonymize_data({"source_id": "what do ya want for nothing?"}, "Jefe", ["source_id"])

    assert result == {"source_id": "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"}


@pytest.mark.parametrize(
    ("value", "salt", "fields", "error", "message"),
    [
        ("a", "", ["source_id"], ValueError, "salt must not be empty"),
        ("a", b"", ["source_id"], ValueError, "salt must not be empty"),
        ("a", None, ["source_id"], TypeError, "salt must be str or bytes, got NoneType"),
        ("a", SALT, "source_id", TypeError, "must be a list of names"),
        ({"heart_rate": float("nan")}, SALT, ["source_id"], ValueError, "JSON"),
    ],
)
def test_an_empty_or_missing_salt_one_name_instead_of_a_list_and_a_value_without_json_text_are_refused(
    value: Any, salt: Any, fields: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        anonymize_data({"source_id": value}, salt, fields)


def test_the_function_can_be_imported_as_a_module_of_the_scripts_folder(tmp_path: Path) -> None:
    program = (
        "import sys; sys.path.insert(0, sys.argv[1]); from anonymize import anonymize_data; print(anonymize_data({}, 'x', []))"
    )
    assert subprocess.check_output([sys.executable, "-c", program, str(SCRIPTS)], cwd=tmp_path, text=True) == "{}\n"


@pytest.mark.parametrize(
    ("arguments", "stdin", "exit_code", "stdout", "stderr"),
    [
        (
            (),
            '[{"source_id": "a", "n": 1.5},\n {"other": null}]',
            0,
            f'{{"source_id":"{definition("a", SALT)}","n":1.5}}\n{{"other":null}}\n',
            "",
        ),
        (
            ("--fields", "notes, n, sourceid"),
            '{"notes": "x", "n": null, "source_id": "a"}',
            0,
            f'{{"notes":"{definition("x", SALT)}","n":"{definition(None, SALT)}","source_id":"a"}}\n',
            "warning: no entry has the field 'sourceid'",
        ),
        ((), '{"source_id": "a"}\n[1]\n', 1, "", "<stdin>:2: must be an object, got an array\n"),
    ],
    ids=["an array", "fields asked for, and one that no entry has", "no object"],
)
def test_the_command_writes_json_lines_with_the_fields_replaced_warns_of_absent_ones_and_writes_all_or_nothing(
    salt_file: Path, arguments: tuple[str, ...], stdin: str, exit_code: int, stdout: str, stderr: str
) -> None:
    ended = run("anonymize.py", *arguments, stdin=stdin, settings={"HEART_SALT_FILE": salt_file})

    assert (ended.exit_code, ended.stdout) == (exit_code, stdout)
    assert ended.stderr.startswith(stderr) if stderr else not ended.stderr
