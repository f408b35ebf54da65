"""EXCLUDED_SOURCES_FILE: additions act at once, removals after a quiet minute, and a file that cannot be understood releases nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from anonymizer.errors import ConfigurationError, StateUnavailable
from anonymizer.exclusion import FOR_EVER_NS
from service.pipeline.exclusion_list import ExclusionList
from service.state.journal import Journal
from tests.service.fakes import FakeClock
from tests.service.journals import new_journal

S = 10**9


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return new_journal(tmp_path / "state")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "excluded.txt"


def until(found: ExclusionList, *ids: str) -> list[int | None]:
    exclusion = found.snapshot()
    return [exclusion.until_ns_of(one, one) for one in ids]


def test_an_addition_acts_at_once_and_a_removal_after_an_unchanged_minute_for_rows_measured_later(
    journal: Journal, file: Path
) -> None:
    clock, stays = FakeClock(1000.0), FOR_EVER_NS
    found = ExclusionList(file, journal, clock)
    file.write_text("\ufeffA\r\n\r\n b \r\n", encoding="utf-8")
    assert until(found, "a", "B", "c") == [stays, stays, None]
    file.write_text("a\nc", encoding="utf-8")
    assert until(found, "a", "b", "c") == [stays, stays, stays]
    clock.wait(59)
    file.write_text("a\nc\nd", encoding="utf-8")
    assert until(found, "b", "d") == [stays, stays]
    clock.wait(59.9)
    assert until(found, "b") == [stays], "the file changed within the last minute"
    # The minute goes on over a restart.
    clock.wait(0.2)
    again = ExclusionList(file, journal, clock)
    returned_ns = clock.now_ns()
    assert until(again, "a", "b", "c") == [stays, returned_ns, stays]
    clock.wait(500)
    assert until(again, "b") == [returned_ns], "rows measured while it was excluded are never released"
    file.write_text("a\nb\nc\nd", encoding="utf-8")
    assert until(again, "b") == [stays]
    assert journal.exclusions.until_ns() == again.snapshot().until_ns
    journal.close()


def test_characters_that_cannot_be_seen_hide_no_id_and_lines_of_another_form_are_warned_of(
    journal: Journal, file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stays = FOR_EVER_NS
    found = ExclusionList(file, journal, FakeClock())
    file.write_text("a\n\ufeffb\nc\u200b\npatient\u00ad-4711\nمی\u200cخ\n", encoding="utf-8")
    assert until(found, "a", "b", "c", "patient-4711", "می\u200cخ") == [stays] * 5
    assert "count as one id each" not in caplog.text
    file.write_text('a\nb # withdrew\n"c"\nd,e\n', encoding="utf-8")

    assert until(found, "a", "b # withdrew", '"c"', "d,e", "d") == [stays] * 4 + [None]

    found.snapshot()
    assert caplog.text.count("EXCLUDED_SOURCES_FILE: 3 lines, such as line 2, hold a comma") == 1
    journal.close()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot be read (No such file or directory)"),
        (b"good\nb\xffd\n", "line 2, is not UTF-8 text"),
        ("good\n".encode("utf-16"), "line 1, is not UTF-8 text"),
        (b"good\na\0b\n", "line 2, holds a control character"),
        (b"a\rb\n", "line 1, holds a control character"),
        (b"good\na\t2025\n", "line 2, holds a control character"),
        ("a\u2028b\n".encode(), "line 1, holds a control character"),
        ("good\na\x85b\n".encode(), "line 2, holds a control character"),
        (b"x" * (17 << 20), "has more than 16777216 bytes"),
    ],
)
def test_nothing_is_released_while_the_list_cannot_be_understood(
    journal: Journal, file: Path, content: bytes | None, said: str
) -> None:
    found = ExclusionList(file, journal, FakeClock())
    if content is not None:
        file.write_bytes(content)

    with pytest.raises(StateUnavailable) as refused:
        found.snapshot()

    assert said in str(refused.value)
    assert "good" not in str(refused.value)
    journal.close()


def test_a_setting_that_is_taken_away_is_no_empty_list(journal: Journal, file: Path) -> None:
    file.write_text("a\n", encoding="utf-8")
    ExclusionList(file, journal, FakeClock()).snapshot()

    with pytest.raises(ConfigurationError, match="1 sources were excluded by it: set it again"):
        ExclusionList(None, journal, FakeClock())

    file.write_text("", encoding="utf-8")
    clock = FakeClock()
    emptied = ExclusionList(file, journal, clock)
    emptied.snapshot()
    clock.wait(61)
    emptied.snapshot()
    assert ExclusionList(None, journal, clock).snapshot().until_ns, "the journal still knows since when its rows count again"
    journal.close()
