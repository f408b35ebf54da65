"""What Prometheus reads: documented to the last series, there from the start, and telling when something does not add up."""

from __future__ import annotations

import dataclasses
import math
import re

import pytest
from prometheus_client.parser import text_string_to_metric_families

from anonymizer.batch import WindowCounts
from anonymizer.cohorts import Cohort
from anonymizer.fidelity_sums import Fidelity
from anonymizer.windows import NANOSECONDS
from service.status.board import Board
from service.status.metrics import exposition
from service.status.page_data import page_data
from service.status.snapshot import Snapshot
from service.telemetry.fidelity_steps import FidelityStep
from service.telemetry.totals import Sums
from tests.documentation.pages import DOCUMENTATION, table_with, text_of
from tests.service.fakes import FakeClock
from tests.status import states
from tests.status.events import Sink, settings_with

PAGE = DOCUMENTATION / "METRICS.md"

Series = dict[tuple[str, frozenset[tuple[str, str]]], float]


def series_of(snapshot: Snapshot) -> Series:
    """Return every series by its full name and labels, as Prometheus' own parser reads them."""
    text = exposition(snapshot).decode()
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(snapshot: Snapshot, name: str, **labels: str) -> float:
    return series_of(snapshot)[f"ecg_anonymizer_{name}", frozenset(labels.items())]


def fresh() -> Snapshot:
    """Return what a board shows before anything happened."""
    board = Board(settings_with(), FakeClock(1000.0), Sums())
    board.expect([Sink("csv:./output"), Sink("api:http://sink")])
    return board.look()


def of_a_cohort() -> Snapshot:
    """Return a stream that goes well, of a part of its bucket."""
    return states.healthy(changes={"run.cohort": Cohort("ward", "3")})


def documented() -> dict[str, tuple[str, frozenset[str]]]:
    """Return type and labels of every metric on the page, by name."""
    rows = re.findall(r"^\| `(ecg_anonymizer_\w+)` \| (\w+) \| (.*?) \| .+ \|$", text_of(PAGE), re.MULTILINE)
    return {name: (kind, frozenset(re.findall(r"`(\w+)`", labels))) for name, kind, labels in rows}


def exported() -> dict[str, tuple[str, frozenset[str]]]:
    found = {}
    for family in text_string_to_metric_families(exposition(of_a_cohort()).decode()):
        labels = frozenset(name for sample in family.samples for name in sample.labels if name != "le")
        if family.name.endswith("_info"):
            found[family.name] = "info", labels
        else:
            found[f"{family.name}_total" if family.type == "counter" else family.name] = family.type, labels
    return found


def test_the_page_names_every_metric_with_type_labels_and_help_text_as_exported_and_no_other() -> None:
    assert documented() == exported()
    helps = dict(re.findall(r"^# HELP (\S+) (.*)$", exposition(of_a_cohort()).decode(), re.MULTILINE))
    rows = dict(re.findall(r"^\| `(ecg_anonymizer_\w+)` \| .* \| (.+) \|$", text_of(PAGE), re.MULTILINE))

    assert rows == helps


def test_every_value_of_a_label_is_explained_on_the_page() -> None:
    explained = text_of(PAGE).partition("## Labels")[2]

    for (_, labels), _ in series_of(states.healthy()).items():
        for name, label in labels:
            if name in ("outcome", "kind"):
                assert f"`{label}`" in explained
    assert {row["label"].strip("`") for row in table_with(PAGE, "label", "values")} >= {"level", "output", "kind"}


def test_every_series_but_those_of_fidelity_is_there_before_anything_happened() -> None:
    names = {name for name, _ in series_of(fresh())}
    expected = {name for name, _ in series_of(states.healthy()) if "fidelity" not in name}

    assert names == expected
    assert [value(fresh(), "windows_total", outcome=outcome) for outcome in ("released", "withheld", "empty")] == [0, 0, 0]
    assert [value(fresh(), "rows_at_level_total", level=str(level)) for level in range(1, 10)] == [0] * 9
    assert value(fresh(), "output_set_aside_rows", output="csv:./output") == 0
    assert value(fresh(), "window_duration_seconds_count") == 0


def test_names_have_the_prefix_and_base_units_and_no_label_names_a_source_or_a_window() -> None:
    labels = {name for _, labels in series_of(states.one_output_down()) for name, _ in labels}

    assert all(re.fullmatch(r"ecg_anonymizer_[a-z_]+", name) for name in exported())
    assert not [name for name in exported() if re.search(r"_(ms|milliseconds|minutes|kb|megabytes|percent)\b", name)]
    assert labels == {"outcome", "kind", "lacks", "level", "output", "le", "version", "python", "numpy", "pyarrow"}


def test_fidelity_is_exported_in_ratios_and_of_a_flat_line_none_is_made_up() -> None:
    flat = dataclasses.replace(states.healthy(), fidelity=FidelityStep(12, Fidelity(rows=100)))

    assert {name for name, _ in series_of(flat) if "fidelity" in name} == {"ecg_anonymizer_fidelity_windows"}
    assert not [found for found in series_of(flat).values() if math.isnan(found)]


DOWN = states.one_output_down()


@pytest.mark.parametrize(
    ("snapshot", "name", "labels", "expected"),
    [
        (states.healthy(), "fidelity_windows", {}, 12),
        (states.healthy(), "fidelity_correlation", {}, pytest.approx(396 / 400)),
        (states.healthy(), "fidelity_prdn_ratio", {}, pytest.approx((4 / 400) ** 0.5)),
        (states.healthy(), "rows_total", {"outcome": "read"}, 892_000),
        (states.healthy(), "rows_total", {"outcome": "withheld"}, 2_068),
        (states.healthy(), "windows_total", {"outcome": "withheld"}, 6),
        (states.healthy(), "late_rows_total", {}, 9),
        (states.healthy(), "rows_at_level_total", {"level": "2"}, 240_100),
        (states.healthy(), "window_duration_seconds_bucket", {"le": "0.05"}, 300),
        (states.healthy(), "window_duration_seconds_bucket", {"le": "+Inf"}, 412),
        (states.healthy(), "position_timestamp_seconds", {}, states.NOW_NS // NANOSECONDS - 15),
        (states.healthy(), "ready", {}, 1),
        (DOWN, "output_up", {"output": states.API}, 0),
        (DOWN, "output_up", {"output": states.CSV}, 1),
        (DOWN, "output_pending_rows", {"output": states.API}, 41_040),
        (DOWN, "output_position", {"output": states.API}, 393),
        (DOWN, "output_retries_total", {"output": states.API}, 7),
        (DOWN, "output_last_error_timestamp_seconds", {"output": states.API}, states.NOW_NS // NANOSECONDS - 95),
        (DOWN, "ready", {}, 0),
        (states.changed(states.healthy(), {"totals.counts": WindowCounts(read=9, released=6)}), "unaccounted_rows", {}, 3),
        (states.source_down(), "source_up", {}, 0),
        (states.changed(states.healthy(), {"spool.is_full": True}), "reading_paused", {}, 1),
        (states.changed(states.healthy(), {"totals.violations": 2}), "verification_failures_total", {}, 2),
        (states.changed(states.healthy(), {"pace.idle_s": 1000.0}), "live", {}, 0),
        (states.changed(states.healthy(), {"spool.size_bytes": 77}), "spool_bytes", {}, 77),
        (states.changed(states.healthy(), {"pace.lag_s": 12.5}), "lag_seconds", {}, 12.5),
        (
            states.changed(states.healthy(), {"totals.counts": WindowCounts(read=9, released=9, starred=4)}),
            "rows_total",
            {"outcome": "released"},
            9,
        ),
    ],
)
def test_what_was_counted_and_what_is_wrong_is_exported(
    snapshot: Snapshot, name: str, labels: dict[str, str], expected: float
) -> None:
    assert value(snapshot, name, **labels) == expected


def test_a_run_without_groups_exports_none_and_counts_noise() -> None:
    board = Board(settings_with(METHOD="rhythm"), FakeClock(1000.0), Sums())
    shown = board.look()
    names = {name for name, _ in series_of(shown)}

    assert "ecg_anonymizer_noisy_rows_total" in names
    assert not [name for name in names if "group" in name or "level" in name]
    assert (page_data(shown)["groups"], page_data(shown)["levels"]) == (None, None)
