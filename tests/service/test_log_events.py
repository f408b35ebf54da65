"""LOG_FORMAT=json: one object a line, every line known by name, and the names on a page."""

from __future__ import annotations

import ast
import io
import json
import logging
import math
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from anonymizer.windows import NANOSECONDS, WindowRange
from service.telemetry.hub import Telemetry
from service.telemetry.log_events import DECORATION, LOG_EVENTS, OTHER
from service.telemetry.log_lines import _DELIVERY_LINES, _OTHER_LINES
from service.telemetry.log_writer import JsonLines, set_up_logging
from tests.documentation.pages import DOCUMENTATION, ROOT, text_of
from tests.integration.service_process import run_on_file

PAGE = DOCUMENTATION / "LOG_EVENTS.md"

START = 1762180200 * NANOSECONDS  # 2025-11-03 14:30:00 UTC

#: Lines that are chosen while the program runs, and what they are chosen from.
CHOSEN = {text for pair in (*_DELIVERY_LINES.values(), _OTHER_LINES) for text in pair}


def lines_in_the_code() -> Iterator[tuple[str, str]]:
    """Yield every text that is logged, with its place."""
    folders = ("service", "operations", "disk", "inputs", "outputs", "transport", "anonymizer")
    for path in [ROOT / "central_anonymizer.py", *(path for folder in folders for path in (ROOT / folder).rglob("*.py"))]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                of_a_logger = isinstance(node.func.value, ast.Name) and node.func.value.id == "_LOG"
                if of_a_logger or (node.func.attr == "_detail" and node.args):
                    text = node.args[1 if node.func.attr == "log" else 0]
                    yield (
                        f"{path.relative_to(ROOT)} line {node.lineno}",
                        ast.literal_eval(text) if isinstance(text, ast.Constant) else "",
                    )


def test_every_line_that_is_logged_has_a_name_for_programs_and_no_name_is_left_of_one_that_is_gone() -> None:
    lines = list(lines_in_the_code())
    known = {text for _, text in lines if text}

    assert len(known) > 40
    assert [(place, text) for place, text in lines if text and text not in LOG_EVENTS] == []
    chosen_in = {place.rpartition(" line ")[0] for place, text in lines if not text}
    assert chosen_in == {"service/telemetry/log_lines.py", "service/startup.py"}
    assert set(LOG_EVENTS) >= CHOSEN
    assert [text for text in LOG_EVENTS if text not in known | CHOSEN] == []


def test_every_value_of_a_line_has_a_name() -> None:
    for text, event in LOG_EVENTS.items():
        assert len(re.findall(r"%(?!%)[-\d.]*[a-z]", text.replace("%%", ""))) == len(event.fields), text


def test_the_page_has_every_event_with_its_fields_and_no_other() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \| .+ \|$", text_of(PAGE), re.MULTILINE)
    expected: dict[str, set[str]] = {}
    for event in LOG_EVENTS.values():
        expected.setdefault(event.name, set()).update(event.fields)

    assert {name: set(re.findall(r"`(\w+)`", fields)) for name, fields in rows} == expected


def test_no_field_hides_what_every_line_has() -> None:
    assert not {"time", "level", "event", "message", "exception"} & {
        field for event in LOG_EVENTS.values() for field in event.fields
    }


def as_json(message: str, *arguments: object, **more: Any) -> dict[str, Any]:
    record = logging.LogRecord("ecg_anonymizer", logging.WARNING, "", 0, message, arguments, more.get("exc_info"))
    record.created = 1762180200.5
    line = JsonLines().format(record)
    assert "\n" not in line
    found: dict[str, Any] = json.loads(line)
    return found


def test_a_line_has_time_level_name_text_and_values() -> None:
    line = as_json("⏳ %s; trying again in %.1f s", OSError("refused"), 2.25)

    assert line == {
        "time": "2025-11-03T14:30:00.500Z",
        "level": "WARNING",
        "event": "waiting",
        "message": "⏳ refused; trying again in 2.2 s",
        "reason": "refused",
        "retry_in_seconds": 2.25,
    }


def test_numbers_stay_numbers_levels_a_table_and_what_json_does_not_have_is_null() -> None:
    assert as_json("📈 Level distribution: %s", {2: np.int64(180), 3: 460})["rows_at_level"] == {"2": 180, "3": 460}
    line = as_json("🩺 Fidelity over %d windows, %d rows: r %.4f, PRDN %.2f %%", 12, 60, math.nan, math.inf)
    assert (line["event"], line["windows"]) == ("fidelity", 12)
    assert list(line.values()).count(None) == 2


def test_what_a_library_logs_is_an_event_too_and_a_fault_of_ours_is_one_line_with_its_trace() -> None:
    assert as_json("Retrying (%r) after %s", 1, "x")["event"] == OTHER.name
    assert as_json("100 %")["message"] == "100 %"
    try:
        raise RuntimeError("ours")
    except RuntimeError:
        assert "RuntimeError: ours" in as_json("x", exc_info=sys.exc_info())["exception"]


def test_windows_are_whole_times_for_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", stream)
    handlers = logging.getLogger().handlers[:]
    try:
        set_up_logging("INFO", "json")
        Telemetry(k=5, verbose=True).nothing_in(WindowRange(START, START + 5 * NANOSECONDS, 5 * NANOSECONDS))
        logging.getLogger().info("=" * 60)
        logging.getLogger().handlers[0].flush()
    finally:
        logging.getLogger().handlers[:] = handlers

    lines = [json.loads(line) for line in stream.buffer.getvalue().decode("ascii").splitlines()]
    assert [line["event"] for line in lines] == ["day", "processing", "no_data"], "decoration is left out"
    assert "=" * 60 in DECORATION
    assert lines[0]["day"] == "2025-11-03"
    assert lines[1]["windows"] == {"start": "2025-11-03T14:30:00Z", "end": "2025-11-03T14:30:05Z"}
    assert lines[1]["message"] == "📦 Processing batch: 14:30:00 - 14:30:05"


def test_a_whole_run_is_one_object_a_line(tmp_path: Path) -> None:
    recording = tmp_path / "recording.csv"
    rows = [f"2025-11-03T14:30:{index % 10:02d}.{index:03d}Z,{'ab'[index % 2]},{index % 3}" for index in range(200)]
    recording.write_text("\n".join(["timestamp,source_id,ecg", *rows]), encoding="utf-8")

    code, log = run_on_file(tmp_path, recording, LOG_FORMAT="json")

    lines = [json.loads(line) for line in log.splitlines()]
    events = [line["event"] for line in lines]
    assert code == 0
    assert OTHER.name not in events
    assert events[0] == "started"
    expected = {"configuration", "processing", "fetched", "anonymizing", "satisfied", "levels", "window_statistics"}
    assert expected | {"writing", "wrote"} <= set(events)
    done = next(line for line in lines if line["event"] == "done")
    assert (done["rows_read"], done["rows_released"], done["windows"]) == (200, 200, 2)
