"""`.env` fails closed: however a good one is mangled, no line that means nothing is passed over; what is taken means one thing."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest
from dotenv import dotenv_values
from hypothesis import example, given, settings
from hypothesis import strategies as st

from anonymizer.errors import ConfigurationError
from service.settings.declared import KNOWN_NAMES
from service.settings.env_file import UnreadableValue, meaning, parse
from service.settings.load import load

GOOD = """\
# The service of ward 3.
INFLUX_URL=https://influxdb.example:8086
INFLUX_TOKEN='read-only = "token" #1'
INFLUX_ORG="ward 3"

export K_VALUE=20
K_UNIT = source
\tPSEUDONYMIZE_SOURCE_ID=true
PSEUDONYM_SALT=7c1e4fa09b3d582611e0c94da5f87b36d28e07b15f6a493cc0d1e89b24f7a35e
DEVICE_FILTER=w1,w2
STATE_DIR="./state"
  # The end.
"""

#: What a slip of the finger, an editor or a chat program puts into a line.
PIECES = [*"'\"=:# \t\\\0\r\n\x0b\x85\u2028\ufeff\u00a0\u200b“”‘＝：xX_é", " #", "export "]
PIECES += ["K_VALUE=5\n", "K_VALUE: 5\n", "k_value=5\n", "COLOUR=blue\n"]

LINE = re.compile(
    r"""[ \t]*(?:export[ \t]+)?(?P<name>[A-Za-z_][A-Za-z0-9_.-]*)[ \t]*=[ \t]*
    (?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|(?!['"])(?:(?![ \t]\#).)*)[ \t]*""",
    re.VERBOSE,
)


def lines_that_mean_nothing(content: bytes) -> set[int]:
    """Return the numbers of lines that cannot be read, set a name that is unknown, or set one that was set before."""
    bad, seen = set(), set()
    for number, raw in enumerate(content.removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
        try:
            line = raw.removesuffix(b"\r").decode()
        except UnicodeDecodeError:
            bad.add(number)
            continue
        if any(unicodedata.category(one) in ("Cc", "Zl", "Zp") and one != "\t" for one in line) or "\ufeff" in line:
            bad.add(number)
            continue
        if re.fullmatch(r"[ \t]*(#.*)?", line):
            continue
        setting = LINE.fullmatch(line)
        if setting is None or setting["name"] not in KNOWN_NAMES or setting["name"] in seen:
            bad.add(number)
        if setting is not None:
            seen.add(setting["name"])
    return bad


def swap(lines: list[str], one: int, other: int) -> None:
    lines[one], lines[other] = lines[other], lines[one]


LINE_CHANGES: list[Callable[[list[str], int, int], None]] = [
    lambda lines, one, other: lines.insert(one, lines[other]),
    lambda lines, one, other: swap(lines, one, other),
    lambda lines, one, other: lines.__delitem__(one),
    lambda lines, one, other: lines.insert(one, lines[other].lower()),
    lambda lines, one, other: lines.__setitem__(one, lines[one].rstrip("\n")),
    lambda lines, one, other: lines.__setitem__(one, lines[one].replace("=", ": ", 1)),
    lambda lines, one, other: lines.__setitem__(one, lines[one].replace("=", "", 1)),
    lambda lines, one, other: lines.__setitem__(one, lines[one].replace("=", " ", 1)),
    lambda lines, one, other: lines.__setitem__(one, lines[one].replace("_", "", 1)),
    lambda lines, one, other: lines.__setitem__(one, lines[one].replace("=", "='", 1)),
]


@st.composite
def mangled(draw: st.DrawFn) -> bytes:
    """Draw what may have become of a good `.env`."""
    lines = GOOD.splitlines(keepends=True)
    for _ in range(draw(st.integers(0, 2))):
        change = draw(st.sampled_from(LINE_CHANGES))
        change(lines, *(draw(st.integers(0, len(lines) - 1)) for _ in range(2)))
    text = "".join(lines)
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(text)))
        text = text[:at] + draw(st.sampled_from(["", *PIECES])) + text[at + draw(st.integers(0, 1)) :]
    ends = draw(st.sampled_from(["\n", "\n", "\n", "\r\n", "\r"]))
    encoding = draw(st.sampled_from(["utf-8", "utf-8", "utf-8", "utf-8-sig", "utf-16", "utf-16-le", "latin-1", "cp037"]))
    return text.replace("\n", ends).encode(encoding, "replace")


@given(content=mangled())
@settings(max_examples=1000, deadline=None)
@example(content=GOOD.encode())
@example(content=GOOD.replace("=true\nP", "=true").encode())
@example(content=GOOD.replace('"./state"', '"./state').encode())
@example(content=GOOD.replace("K_VALUE=20", "K_VALUE: 20").encode())
@example(content=GOOD.replace("K_UNIT = source", "K_UNIT = source\nK_UNIT = source").encode())
def test_no_mangled_line_is_passed_over_without_an_error_or_a_warning_with_its_number(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    assert_nothing_is_passed_over(tmp_path_factory.getbasetemp() / "mangled.env", content)


def test_no_character_anywhere_in_a_file_makes_a_line_be_passed_over(tmp_path: Path) -> None:
    good = "INFLUX_ORG='w'\nK_VALUE=20\n# x\nSTATE_DIR=s\n"
    for at in range(len(good) + 1):
        for piece in ("", *PIECES):
            for taken in (0, 1):
                assert_nothing_is_passed_over(tmp_path / "mangled.env", (good[:at] + piece + good[at + taken :]).encode())


def assert_nothing_is_passed_over(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    path.chmod(0o600)
    bad = lines_that_mean_nothing(content)
    try:
        warnings = load(path, {}, must_exist=True).warnings
    except ConfigurationError as error:
        said = str(error)
    else:
        said = "\n".join(warnings)
        assert {line for line in bad if f"mangled.env, line {line}: " not in said} == set()

    # Half of a secret is none that a person could use, and none may stand there.
    assert "7c1e4fa09b3d" not in said
    assert "read-only" not in said


def test_the_good_file_is_taken_as_it_is_meant(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(GOOD)
    (tmp_path / ".env").chmod(0o600)

    found = load(tmp_path / ".env", {})

    assert found.warnings == ()
    assert lines_that_mean_nothing(GOOD.encode()) == set()
    assert (found.settings.k_value, found.settings.k_unit, found.settings.state_dir) == (20, "source", "./state")
    assert found.settings.influx_token.reveal() == 'read-only = "token" #1'


@given(content=mangled())
@settings(deadline=None)
def test_what_is_taken_of_a_file_is_what_the_library_reads_and_what_the_environment_means(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "same.env"
    path.write_bytes(content)

    found = parse(content, "same.env", KNOWN_NAMES)

    if not found.problems:
        assert found.values == dotenv_values(path, interpolate=False, encoding="utf-8-sig")
        for line in content.decode("utf-8-sig").splitlines():
            name, _, literal = line.strip().removeprefix("export ").partition("=")
            if name.strip() in found.values:
                assert meaning(literal) == found.values[name.strip()]


@given(value=st.text(st.sampled_from("ab\\'\"# \t=$"), max_size=8))
def test_a_value_in_quotes_is_taken_whole_or_refused_never_in_part(value: str) -> None:
    for quote in ("'", '"'):
        try:
            meant = meaning(f"{quote}{value}{quote}")
        except UnreadableValue:
            continue
        unescaped = re.sub(r"\\(.)", lambda one: one[1] if one[1] in "\\'\"" else one[0], value)
        assert meant == unescaped or "\\" in value
