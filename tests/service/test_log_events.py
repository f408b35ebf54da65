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
from service.log_event import LogEvent
from service.telemetry.hub import Telemetry
from service.telemetry.log_writer import JsonLines, set_up_logging
from tests.documentation.pages import DOCUMENTATION, ROOT, text_of
from tests.integration.service_process import run_on_file

PAGE = DOCUMENTATION / "LOG_EVENTS.md"

START = 1762180200 * NANOSECONDS  # 2025-11-03 14:30:00 UTC

#: Functions of a logger that make a line.
LOGGING = {"debug", "info", "warning", "error", "exception", "critical", "log"}


def calls_in_the_code() -> Iterator[tuple[Path, ast.Call, str]]:
    """Yield every call of a name or a method of a name in what runs as the service, with its place and the name that is called."""
    folders = ("service", "operations", "disk", "inputs", "outputs", "transport", "anonymizer")
    for path in [ROOT / "central_anonymizer.py", *(path for folder in folders for path in (ROOT / folder).rglob("*.py"))]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                yield path.relative_to(ROOT), node, ast.unparse(node.func)


def is_logged_directly(node: ast.Call) -> bool:
    return (
        isinstance(node.func, ast.Attribute)
        and node.func.attr in LOGGING
        and ast.unparse(node.func.value).lower() in {"_log", "log", "logging", "logger", "_logger", "logging.getlogger()"}
    )


def declared() -> Iterator[LogEvent]:
    """Yield every event that is declared in the code, wherever it stands."""
    for path, node, called in calls_in_the_code():
        if called == "LogEvent":
            name, text, *fields = [ast.literal_eval(one) for one in node.args[:3]]
            yield LogEvent(name, text, *fields)
        elif is_logged_directly(node) and path.parts[0] == "outputs":
            extra = next(ast.literal_eval(one.value) for one in node.keywords if one.arg == "extra")
            name, fields = extra["event"]
            yield LogEvent(name, ast.literal_eval(node.args[0]), fields)


EVENTS = list(declared())


def test_every_line_is_logged_as_a_declared_event() -> None:
    past = [f"{path} line {node.lineno}" for path, node, _ in calls_in_the_code() if is_logged_directly(node)]
    unnamed = [event.text for event in EVENTS if not event.name]

    assert len(EVENTS) > 60
    assert [place for place in past if not place.startswith(("service/log_event.py", "outputs/committed_file.py"))] == []
    assert unnamed == ["=" * 60], "decoration is left out of JSON, and so is nothing else"


def test_every_value_of_a_line_has_a_name() -> None:
    for event in EVENTS:
        values = re.findall(r"%(?!%)[-\d.]*[a-z]", event.text.replace("%%", ""))
        assert len(values) == len(event.fields.split()), event.text


def test_the_page_has_every_event_with_its_fields_and_text_and_no_other() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \| (.+) \|$", text_of(PAGE), re.MULTILINE)
    fields: dict[str, set[str]] = {}
    texts: dict[str, set[str]] = {}
    for event in filter(lambda event: event.name, EVENTS):
        fields.setdefault(event.name, set()).update(event.fields.split())
        texts.setdefault(event.name, set()).add(as_on_the_page(event.text))

    assert {name: set(re.findall(r"`(\w+)`", named)) for name, named, _ in rows} == fields
    assert {name: set(text.split("; ")) if name in SEVERAL else {text} for name, _, text in rows} == texts


def as_on_the_page(text: str) -> str:
    """Return a text with `…` for each value."""
    return re.sub(r"%(?!%)[-\d.]*[a-z]", "…", text).replace("%%", "%").strip()


#: Events with a text for each kind of output.
SEVERAL = {"writing", "wrote"}


def test_no_field_hides_what_every_line_has() -> None:
    assert not {"time", "level", "event", "message", "exception"} & {field for event in EVENTS for field in event.fields.split()}


def as_json(event: LogEvent | str, *arguments: object, **more: Any) -> dict[str, Any]:
    """Return the line of an event, or of a text that a library logs."""
    text = event.text if isinstance(event, LogEvent) else event
    record = logging.LogRecord("ecg_anonymizer", logging.WARNING, "", 0, text, arguments, more.get("exc_info"))
    record.created = 1762180200.5
    if isinstance(event, LogEvent):
        record.event = (event.name, event.fields)
    line = JsonLines().format(record)
    assert "\n" not in line
    found: dict[str, Any] = json.loads(line)
    return found


def named(name: str) -> LogEvent:
    return next(event for event in EVENTS if event.name == name)


def test_a_line_has_time_level_name_text_and_values() -> None:
    line = as_json(named("waiting"), OSError("refused"), 2.25)

    assert line == {
        "time": "2025-11-03T14:30:00.500Z",
        "level": "WARNING",
        "event": "waiting",
        "message": "⏳ refused; trying again in 2.2 s",
        "reason": "refused",
        "retry_in_seconds": 2.25,
    }


def test_numbers_stay_numbers_levels_a_table_and_what_json_does_not_have_is_null() -> None:
    assert as_json(named("levels"), {2: np.int64(180), 3: 460})["rows_at_level"] == {"2": 180, "3": 460}
    line = as_json(named("fidelity"), 12, 60, math.nan, math.inf)
    assert (line["event"], line["windows"]) == ("fidelity", 12)
    assert list(line.values()).count(None) == 2


def test_what_a_library_logs_is_an_event_too_and_a_fault_of_ours_is_one_line_with_its_trace() -> None:
    assert as_json("Retrying (%r) after %s", 1, "x")["event"] == "other"
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
        LogEvent("", "=" * 60).log()
        logging.getLogger().handlers[0].flush()
    finally:
        logging.getLogger().handlers[:] = handlers

    lines = [json.loads(line) for line in stream.buffer.getvalue().decode("ascii").splitlines()]
    assert [line["event"] for line in lines] == ["day", "processing", "no_data"], "decoration is left out"
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
    assert "other" not in events
    assert events[0] == "started"
    expected = {"configuration", "processing", "fetched", "anonymizing", "satisfied", "levels", "window_statistics"}
    assert expected | {"writing", "wrote"} <= set(events)
    done = next(line for line in lines if line["event"] == "done")
    assert (done["rows_read"], done["rows_released"], done["windows"]) == (200, 200, 2)
