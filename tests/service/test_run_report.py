"""The report of a run: every question a privacy officer has, answered with the right figures, in one file that holds no data."""

from __future__ import annotations

import dataclasses
import hashlib
import html
import json
import re
from collections import Counter
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jinja2 import Environment, UndefinedError

from anonymizer.batch import Promise
from anonymizer.windows import NANOSECONDS, Window
from service.report.figures import Figures, Plot
from service.report.page import page
from service.report.run_recorder import RunRecorder
from service.report.templates import environment_of, render
from service.report.time_bins import MOST_BINS, TimeBins
from service.state.output_positions import OutputPosition
from service.telemetry.events import Unit
from service.telemetry.hub import Telemetry
from service.telemetry.totals import Sums
from tests.documentation.pages import ROOT
from tests.integration.service_process import KEY, run_on_file, run_service
from tests.service.fakes import FakeClock
from tests.status.events import Sink, settings_with, unit

PROMISE = Promise(5, "record", "hierarchy", settings_digest="0123456789abcdef", key_id="feedc0de")

#: What the privacy officer of a hospital asks, and where the report answers.
QUESTIONS = [
    "What was promised",
    "Time range",
    "Was the promise kept, and who checked it",
    "What was withheld",
    "Where it went",
    "What remains risky",
    "Read and found in order",
]


@given(st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 100)), max_size=60), st.integers(1, 50))
def test_no_figure_is_lost_however_wide_the_stretches_become(figures: list[tuple[int, int]], width: int) -> None:
    bins = TimeBins(width)
    for time, value in figures:
        bins.add(time, {"x": value})

    plot = bins.plot("x")
    starts, ((_, sums),) = list(plot.starts_ns), plot.series

    expected = Counter[int]()
    for time, value in figures:
        expected[time // bins.width_ns * bins.width_ns] += value
    assert len(starts) <= MOST_BINS
    assert starts == list(range(starts[0], starts[-1] + 1, bins.width_ns)) if starts else not figures
    assert {start: value for start, value in zip(starts, sums, strict=True) if value} == {k: v for k, v in expected.items() if v}


class Watching:
    """A run with events, and its recorder."""

    def __init__(self, **settings: object) -> None:
        sums = Sums()
        self.clock = FakeClock(1000.0)
        self.recorder = RunRecorder(
            settings_with(STREAMING_MODE="false", DEVICE_FILTER="patient-17", **settings), self.clock, sums
        )
        self.run = Telemetry(k=5, verbose=False, listeners=[self.recorder], sums=sums)


def positions(*, pending: int = 0) -> Sequence[OutputPosition]:
    return [OutputPosition("csv:./output", 0, 3, 10_000, 0, pending)]


def figures_of_a_run(**settings: object) -> Figures:
    """Return the report of a run of sixteen windows from the epoch on: 14 released, 1 withheld, 1 empty, then 3 expired."""
    watching = Watching(**settings)
    csv = Sink("csv:./output")
    watching.run.anonymized(unit(*[{1: 30, 8: 12}] * 14, {0: 4}, {}, smallest=6, groups=4))
    watching.run.expired(unit({}, {}, {}, start_ns=80 * NANOSECONDS).windows)
    watching.recorder.wrote(csv, 500)
    watching.recorder.rejected(csv, None, 88, ValueError("x"))
    watching.clock.now_s += 2
    watching.recorder.took(2.0, 592, 16)
    watching.recorder.finished(2.0)
    return watching.recorder.figures(positions(pending=7), PROMISE)


def read(figures: Figures) -> str:
    """Return the report with one space wherever a browser shows one."""
    return re.sub(r"\s+", " ", page(figures))


def test_a_run_is_added_up() -> None:
    figures = figures_of_a_run()

    assert (figures.windows_in_all, figures.windows_released) == (19, 14)
    assert (figures.counts.read, figures.counts.released, figures.counts.withheld) == (592, 588, 4)
    assert figures.asked == Window(0, 95 * NANOSECONDS)
    assert figures.promised[0].spans == (Window(0, 70 * NANOSECONDS),)
    assert [dataclasses.astuple(one) for one in figures.outputs] == [("csv:./output", 500, 88, 7)]
    detail = figures.detail
    assert detail is not None
    assert (detail.windows_withheld, detail.windows_empty, detail.windows_expired, detail.violations) == (1, 1, 3, 0)
    assert detail.rows_at_level == (420, 0, 0, 0, 0, 0, 0, 168, 0)
    assert (detail.smallest_group, detail.groups, detail.is_complete) == (6, 56, True)
    assert detail.smallest_groups == (("fewer than 5", 0), ("5", 0), ("6 … 9", 14), ("10 … 24", 0), ("25 or more", 0))
    assert sum(dict(figures.over_time.series)["released"]) == 14
    assert sum(dict(figures.over_time.series)["rows_withheld"]) == 4
    rows_a_second = dict(detail.throughput.series)["rows"]
    assert sum(rows_a_second) * detail.throughput.width_ns / NANOSECONDS == pytest.approx(592)


def test_what_levels_of_few_windows_would_tell_is_left_out() -> None:
    watching = Watching()
    watching.run.anonymized(unit(*[{1: 30}] * 11))

    figures = watching.recorder.figures(positions(), PROMISE)

    assert figures.detail is not None
    assert (figures.detail.rows_at_level, figures.detail.unchanged) == (None, None)
    text = read(figures)
    assert "Not shown: with fewer than 12 windows" in text
    assert "keep the value that was measured" not in text


def test_a_year_of_nothing_is_quick_to_report() -> None:
    watching = Watching()
    year = unit({}).windows.__class__(0, 31_536_000 * NANOSECONDS, 5 * NANOSECONDS)
    for first in range(0, len(year), 4096):
        watching.run.nothing_in(year.part(first, min(first + 4096, len(year))))

    figures = watching.recorder.figures(positions(), PROMISE)

    assert figures.windows_in_all == 6_307_200
    assert sum(dict(figures.over_time.series)["empty"]) == 6_307_200
    assert len(figures.over_time.starts_ns) <= MOST_BINS


def test_every_question_has_its_place() -> None:
    headings = re.findall(r"<h2>(.*?)</h2>", read(figures_of_a_run()))

    assert [one for one in headings if one in QUESTIONS] == QUESTIONS


def test_the_answers_are_those_of_the_run() -> None:
    text = html.unescape(re.sub(r"(<[^>]+>|\s)+", " ", page(figures_of_a_run())))

    for answer in (
        "at least 5 rows of the same window of 5 s",
        "Settings digest 0123456789abcdef",
        "Pseudonym key id feedc0de",
        "Requested: 1970-01-01 00:00:00 - 1970-01-01 00:01:35 UTC",
        "1970-01-01 00:00:00 - 1970-01-01 00:01:10 UTC",
        "592 rows read = 588 released + 4 withheld + 0 invalid + 0 duplicate",
        "14 windows of 19 released",
        "Batches that passed 14",
        "Smallest group of the run 6 rows",
        "csv:./output 500 88 7",
        "python scripts/verify_output.py FILES --k 5 --batch-seconds 5 --k-unit record",
        "Source ids were released as they are",
        "all k rows may be of one person",
    ):
        assert answer in text


@pytest.mark.parametrize(
    ("change", "kept"),
    [
        ({}, True),
        ({"counts": {"released": 587}}, False),
        ({"detail": {"violations": 1}}, False),
        ({"detail": {"smallest_group": 4}}, False),
        ({"detail": {"smallest_group": 5}}, True),
    ],
)
def test_the_verdict_is_that_nothing_speaks_against_it(change: dict[str, dict[str, Any]], kept: bool) -> None:
    figures = figures_of_a_run()
    for part, values in change.items():
        figures = dataclasses.replace(figures, **{part: dataclasses.replace(getattr(figures, part), **values)})

    assert figures.was_kept is kept
    assert ("The promise was kept for everything that was released." in read(figures)) is kept
    assert ("Something is wrong" in read(figures)) is not kept


def test_what_is_wrong_is_named_and_what_to_do() -> None:
    figures = figures_of_a_run()
    assert figures.detail is not None
    failed = read(dataclasses.replace(figures, detail=dataclasses.replace(figures.detail, violations=1)))
    small = read(dataclasses.replace(figures, detail=dataclasses.replace(figures.detail, smallest_group=4)))

    assert "No row of a failed batch was released." in failed
    assert "A group that is smaller than promised was released." in small
    assert "not released: nothing of its windows left" not in small
    assert "smaller than promised" not in failed
    for text in (failed, small):
        assert "Read and found in order" not in text, "an officer must not sign that by mistake"
    assert "It must not happen" not in read(figures)


@pytest.mark.parametrize(
    ("outputs", "asked_for"),
    [
        (["csv:./output"], ["FILES --k 5"]),
        (["influxdb:http://influxdb:8086/released"], ["--env-file .env --k 5"]),
        (["csv:./output", "influxdb:x", "api:y"], ["FILES --k 5", "--env-file .env --k 5"]),
        (["api:https://research.example/api"], []),
    ],
)
def test_the_outside_check_is_named_for_every_output_that_can_be_read_back(outputs: list[str], asked_for: list[str]) -> None:
    figures = figures_of_a_run()
    some = figures.outputs[0]
    text = read(dataclasses.replace(figures, outputs=tuple(dataclasses.replace(some, name=name) for name in outputs)))

    assert re.findall(r"verify_output\.py (.*? --k 5)", text) == asked_for


def test_the_independent_check_and_the_reader_learn_of_imputed_rows() -> None:
    figures = figures_of_a_run()
    imputed = dataclasses.replace(figures, counts=dataclasses.replace(figures.counts, starred=9, suppressed=2))

    assert "--k-unit record --imputed</code>" in read(imputed)
    assert "The exception: 11 rows with the mean of all other rows of their window" in read(imputed)
    for text in ("--imputed", "Except for"):
        assert text not in read(figures)


def test_a_report_of_the_public_beat_speaks_of_no_k_and_no_group_and_names_noise() -> None:
    promise = Promise(None, None, "rhythm", template_digest="feed0123feed0123")
    watching = Watching(METHOD="rhythm", BATCH_SIZE_SECONDS="5")
    watching.run.anonymized(noisy(unit(*[{0: 30, 8: 12}] * 14, smallest=0, groups=0), rows=20))
    figures = watching.recorder.figures(positions(), promise)
    text = re.sub(r"(<[^>]+>|\s)+", " ", page(figures)).partition("Settings All settings")[0]

    assert figures.was_kept
    assert "verify_output.py FILES --method rhythm --batch-seconds 5 (FILES" in text
    assert re.search(r"withheld as noise: their beats cannot be told from it\s+280\b", text)
    assert re.search(r"too few beats, or too short a part without a gap\s+140\b", text)
    for words in (
        "Each released row is that of the public beat",
        "Public beat feed0123feed0123",
        "verify_rhythm.py",
        "a rhythm identifies",
    ):
        assert words in text
    for words in ("--k ", "None", "roup", "K_UNIT=", "by level", "shared by"):
        assert words not in text.replace("None.", "")
    both = dataclasses.replace(figures, promised=(*figures.promised, *figures_of_a_run().promised))
    assert re.findall(r"FILES (--\w+ \w+)", read(both)) == ["--method rhythm", "--k 5"]


def noisy(unit: Unit, *, rows: int) -> Unit:
    """Return the unit with so many of each window's withheld rows withheld as noise."""
    results = (dataclasses.replace(one, statistics=dataclasses.replace(one.statistics, noisy=rows)) for one in unit.results)
    return dataclasses.replace(unit, results=tuple(results))


def test_invalid_rows_are_told_by_what_they_lack_and_only_by_that() -> None:
    figures = figures_of_a_run()
    assert figures.detail is not None
    reasons = {"time": 3, "source": 0, "number": 2000}
    text = read(dataclasses.replace(figures, detail=dataclasses.replace(figures.detail, invalid_by_reason=reasons)))

    assert re.findall(r"– of these, without a (\w+)</th><td>([\d,]+)", text) == [("time", "3"), ("number", "2,000")]
    assert "– of these" not in read(figures)


def test_each_promise_has_its_times_and_its_outside_check() -> None:
    figures = figures_of_a_run()
    (one,) = figures.promised
    other = dataclasses.replace(one, promise=dataclasses.replace(PROMISE, k=7), spans=(Window(0, 5 * NANOSECONDS),))
    text = re.sub(r"<[^>]+>", " ", read(dataclasses.replace(figures, promised=(one, other))))

    assert re.findall(r"This holds for ([^.]+)\.", text) == [
        "1970-01-01 00:00:00 - 1970-01-01 00:01:10 UTC",
        "1970-01-01 00:00:00 - 1970-01-01 00:00:05 UTC",
    ]
    assert [*map(int, re.findall(r"FILES --k (\d)", text))] == [5, 7]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "from field ecg of measurement ecg in bucket raw_data, of chosen sources or series only."),
        ({"INFLUX_INPUT_BUCKET": "<b>"}, "in bucket &lt;b&gt;,"),
    ],
)
def test_it_says_of_which_data(settings: dict[str, object], said: str) -> None:
    assert said in read(figures_of_a_run(**settings))


def test_whom_a_file_may_be_called_after_is_not_said(tmp_path: Path) -> None:
    path = tmp_path / "anna.csv"
    path.write_text("timestamp,source_id,ecg\n", encoding="utf-8")
    text = read(figures_of_a_run(INPUT_FILE=path))

    assert "from a file; its name is not shown, because it may name a person." in text
    assert "anna" not in text


def test_a_run_that_was_cut_short_says_so() -> None:
    watching = Watching()
    watching.run.anonymized(unit({1: 30}))

    assert "The run did not finish" in read(watching.recorder.figures(positions(), PROMISE))
    assert "The run did not finish" not in read(figures_of_a_run())


def test_the_file_needs_nothing_else() -> None:
    text = read(figures_of_a_run())

    assert not re.findall(
        r"(?:src|href)=|@import|url\(|https?://", re.sub(r'"http://localhost:8086"|http://localhost:8086', "", text)
    )
    assert "<script>" not in text


#: What would end an element, an attribute or a script, or begin one.
EVIL = """</script><script>alert('1')</script>"&amp;<b>{{ 1 }}"""


class Reader(HTMLParser):
    """Reads a page as a browser does: what its elements are, whether each is closed, and every piece of text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: Counter[str] = Counter()
        self.attributes: set[str] = set()
        self.texts: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements[tag] += 1
        self.attributes |= {name for name, _ in attrs}
        if tag not in ("br", "meta"):
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements[tag] += 1

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def with_texts(text: str, value: Any) -> Any:
    """Return a value with a text added to every text in it, but for the names of series and of settings."""
    if isinstance(value, str):
        return value + text
    if isinstance(value, Plot):
        return value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        changed = {field.name: with_texts(text, getattr(value, field.name)) for field in dataclasses.fields(value)}
        return dataclasses.replace(value, **changed)
    return tuple(with_texts(text, one) for one in value) if isinstance(value, tuple) else value


@pytest.mark.parametrize("of", ["INPUT_FILE", "INFLUX_INPUT_BUCKET"])
def test_no_text_can_break_the_page_wherever_it_stands(of: str) -> None:
    def spoiled(text: str) -> Figures:
        figures = figures_of_a_run()
        settings = tuple((name, text if name != "INPUT_FILE" or name == of else "") for name, _ in figures.settings)
        evil: Figures = dataclasses.replace(with_texts(text, figures), settings=settings)
        return evil

    plain, evil = Reader(page(spoiled("x"))), Reader(page(spoiled(EVIL)))

    assert evil.elements == plain.elements
    assert evil.attributes == plain.attributes
    assert evil.texts.count(EVIL) == len(figures_of_a_run().settings) - (of != "INPUT_FILE")
    text = re.sub(r"\s+", " ", " ".join(evil.texts))
    if of == "INPUT_FILE":
        assert "a file; its name is not shown" in text
    else:
        cohort = f"of the cohort {EVIL}={EVIL} only"
        assert f"field {EVIL} of measurement {EVIL} in bucket {EVIL}, {cohort}, of chosen sources or series only." in text
    for ours in (f"csv:./output{EVIL}", f"hierarchy{EVIL}", f"feedc0de{EVIL}", f"Rows, in this run{EVIL}."):
        assert ours in evil.texts


def test_no_template_trusts_a_text_but_our_drawings_and_a_misspelt_name_is_an_error(tmp_path: Path) -> None:
    templates = [path for folder in ("service/report", "utility", "examples") for path in (ROOT / folder / "template").iterdir()]
    trusted = re.findall(r"\S*\|\s*safe\b|autoescape", "".join(path.read_text(encoding="utf-8") for path in templates))

    assert sorted(trusted) == ["drawing|safe", "plot.svg|safe"]
    (tmp_path / "page.html").write_text("{{ figure }}", encoding="utf-8")

    with pytest.raises(UndefinedError, match="'figure' is undefined"):
        render(tmp_path / "page.html", figures=1)


@pytest.mark.parametrize("why_not", ["", "Python writes none", "the folder cannot be made", "the file is damaged"])
def test_a_template_is_compiled_again_only_if_it_changed_or_the_compiled_one_cannot_be_used(
    why_not: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    template = tmp_path / "template" / "page.html"
    template.parent.mkdir()
    monkeypatch.setattr("sys.dont_write_bytecode", why_not == "Python writes none")
    if why_not == "the folder cannot be made":
        (tmp_path / "__pycache__").write_text("", encoding="utf-8")
    compiled: list[str] = []
    generate = Environment._generate

    def count(self: Environment, *arguments: Any, **options: Any) -> str:
        compiled.append("once")
        return generate(self, *arguments, **options)

    monkeypatch.setattr(Environment, "_generate", count)
    (tmp_path / "current").symlink_to(tmp_path)
    for text, installed in (("{{ a }}<", "."), ("{{ a }}<", "current"), ("{{ a }}>", ".")):
        template.write_text(text, encoding="utf-8")
        environment_of.cache_clear()
        assert render(tmp_path / installed / "template" / "page.html", a="&") == f"&amp;{text[-1]}"
        if why_not == "the file is damaged":
            for path in (tmp_path / "__pycache__").iterdir():
                path.write_bytes(path.read_bytes()[:30])

    assert len(compiled) == (3 if why_not else 2)
    assert list(template.parent.iterdir()) == [template]


def test_the_figures_are_in_the_file_for_programs_and_the_signature_is_for_them() -> None:
    text = page(figures_of_a_run())
    (data,) = re.findall(r'<script type="application/json" id="figures">(.*)</script>', text)

    assert json.loads(data)["counts"]["released"] == 588
    assert f"<code>{hashlib.sha256(data.encode()).hexdigest()}</code>" in text


def test_it_contains_no_secret_and_no_name_of_a_person() -> None:
    text = read(figures_of_a_run(PSEUDONYMIZE_SOURCE_ID="true", PSEUDONYM_SALT="the-key-of-the-pseudonyms"))

    for private in ("patient-17", "the-key-of-the-pseudonyms", "read-only-token"):
        assert private not in text
    assert "Source ids were released as they are" not in text


# Of the real program


def write_recording(path: Path) -> None:
    """Write two minutes of two wearers, a row every 50 ms; values repeat so that groups form, but for one that is unique."""
    rows = [
        f"2025-11-03T14:{30 + index // 1200:02d}:{index // 20 % 60:02d}.{index % 20 * 50:03d}Z,{name},{index % 7 * 10}"
        for index in range(2400)
        for name in ("anna", "ben")
    ]
    path.write_text("\n".join(["timestamp,source_id,ecg", *rows, "2025-11-03T14:30:00.010Z,anna,x"]), encoding="utf-8")


def report_of(folder: Path) -> str:
    return (folder / "state" / "report.html").read_text(encoding="utf-8")


def test_every_run_with_an_end_writes_its_report_and_one_over_what_was_released_that_it_released_nothing(tmp_path: Path) -> None:
    write_recording(tmp_path / "recording.csv")
    csv = tmp_path / "<i>&'\"x"
    settings = {"PSEUDONYMIZE_SOURCE_ID": "true", "PSEUDONYM_SALT": KEY, "CSV_OUTPUT_DIR": csv}

    code, log = run_on_file(tmp_path, tmp_path / "recording.csv", **settings)

    report = report_of(tmp_path)
    released = [line.split(",")[1] for path in csv.glob("*.csv") for line in path.read_text().splitlines()[1:]]
    (data,) = re.findall(r'id="figures">(.*)</script>', report)
    figures = json.loads(data)
    assert code == 0
    assert f"📄 Report: {tmp_path / 'state' / 'report.html'}" in log
    assert (figures["counts"]["read"], figures["counts"]["released"], figures["counts"]["invalid"]) == (4801, 4800, 1)
    assert len(released) == 4800
    assert figures["outputs"][0]["taken"] == 4800
    assert figures["detail"]["is_complete"] is True
    assert [path.read_text(encoding="utf-8") for path in (tmp_path / "state" / "reports").iterdir()] == [report]
    for private in ("anna", "ben", KEY, *set(released)):
        assert private not in report

    run_on_file(tmp_path, tmp_path / "recording.csv", **settings)

    report = report_of(tmp_path)
    assert "Nothing was released." in report
    assert "24 windows had been released before" in report
    assert f"<td>csv:{csv}</td>" in html.unescape(report)
    assert "<i>" not in report


def test_a_run_whose_output_gives_up_still_writes_its_report(tmp_path: Path) -> None:
    write_recording(tmp_path / "recording.csv")
    away = {"OUTPUT_TO_API": "true", "API_ENDPOINT": "http://127.0.0.1:9/api", "RETRY_BUDGET_SECONDS": "1"}

    code, log = run_on_file(tmp_path, tmp_path / "recording.csv", **away)

    assert code == 69, log
    assert "The run did not finish" in report_of(tmp_path)


@pytest.mark.parametrize("why", ["its place is taken", "jinja2 is hidden"])
def test_a_report_that_cannot_be_written_fails_no_run_and_nothing_else_needs_the_template_engine(
    why: str, tmp_path: Path
) -> None:
    write_recording(tmp_path / "recording.csv")
    if why == "jinja2 is hidden":
        # Stands before the installed package, and cannot be imported.
        (tmp_path / "jinja2.py").write_text(f"raise ImportError('{why}')\n", encoding="utf-8")
    else:
        (tmp_path / "state" / "report.html").mkdir(parents=True)
    settings = {"INPUT_FILE": tmp_path / "recording.csv", "OUTPUT_TO_INFLUX": "false"}

    code, log = run_service(tmp_path, settings, environment={"PYTHONPATH": str(tmp_path)})

    assert code == 0, log
    assert "The report could not be written to" in log
    assert "jinja2" not in why or why in log


def test_the_demo_names_its_report() -> None:
    assert "state/report.html" in (ROOT / "examples" / "demo.py").read_text(encoding="utf-8")
