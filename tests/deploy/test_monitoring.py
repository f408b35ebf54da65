"""Dashboard and alerts against the metrics that exist: a query for a series that is not exported shows nothing and never alerts."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import promql_parser
import pytest
from prometheus_client.parser import text_string_to_metric_families
from ruamel.yaml import YAML

from service.status.metrics import exposition
from service.telemetry.log_lines import LATE_LIMIT, SUPPRESSION_LIMIT
from tests.deploy.compose_file import compose, service
from tests.deploy.docker_files import ROOT
from tests.documentation.pages import DOCUMENTATION, anchors_of, text_of
from tests.status import states

PROMETHEUS = ROOT / "deploy" / "prometheus"
GRAFANA = ROOT / "deploy" / "grafana"
DASHBOARD: dict[str, Any] = json.loads((GRAFANA / "dashboards" / "ecg-anonymizer.json").read_text(encoding="utf-8"))

#: Grafana fills this in; any span will do.
INTERVAL = "$__rate_interval"


def loaded(path: str) -> Any:
    return YAML(typ="safe", pure=True).load((ROOT / "deploy" / path).read_text(encoding="utf-8"))


def rules() -> list[dict[str, Any]]:
    return [rule for group in loaded("prometheus/alerts.yml")["groups"] for rule in group["rules"]]


def dashboard_queries() -> Iterator[tuple[str, str]]:
    for panel in DASHBOARD["panels"]:
        for target in panel["targets"]:
            yield panel["title"], target["expr"].replace(INTERVAL, "5m")


def documented_queries() -> Iterator[tuple[str, str]]:
    for query in re.findall(
        r"^\| [^|]+ \| `(.+)` \|$", text_of(DOCUMENTATION / "METRICS.md").partition("## Questions")[2], re.MULTILINE
    ):
        yield "METRICS.md", query


QUERIES = [*dashboard_queries(), *((rule["alert"], rule["expr"]) for rule in rules()), *documented_queries()]

EXPORTED = [
    sample
    for family in text_string_to_metric_families(exposition(states.one_output_down()).decode())
    for sample in family.samples
]


def selectors(node: Any) -> Iterator[Any]:
    """Yield every selection of series in a parsed query."""
    if isinstance(node, promql_parser.VectorSelector):
        yield node
    elif isinstance(node, promql_parser.MatrixSelector):
        yield node.vector_selector
    else:
        for name in ("expr", "lhs", "rhs"):
            if (part := getattr(node, name, None)) is not None:
                yield from selectors(part)
        for part in getattr(node, "args", None) or ():
            yield from selectors(part)


def test_there_are_queries_to_check() -> None:
    assert len(list(dashboard_queries())) > 20
    assert len(rules()) > 10
    assert len(list(documented_queries())) > 5


@pytest.mark.parametrize(("place", "query"), QUERIES, ids=[f"{place}: {query[:40]}" for place, query in QUERIES])
def test_every_query_can_be_read_and_finds_series_that_are_exported(place: str, query: str) -> None:
    found = list(selectors(promql_parser.parse(query)))

    assert found, place
    for selector in found:
        wanted = {matcher.name: matcher for matcher in selector.matchers.matchers}
        if selector.name == "up":
            assert wanted["job"].value == loaded("prometheus/prometheus.yml")["scrape_configs"][0]["job_name"]
            continue
        labels = [sample.labels for sample in EXPORTED if sample.name == selector.name]
        assert labels, f"{place}: {selector.name} is not exported"
        for name, matcher in wanted.items():
            assert matcher.value in {one.get(name) for one in labels}, f"{place}: {selector.name} has no {name}={matcher.value}"


def test_legends_name_labels_that_the_series_have() -> None:
    for panel in DASHBOARD["panels"]:
        for target in panel["targets"]:
            names = {one.name for one in selectors(promql_parser.parse(target["expr"].replace(INTERVAL, "5m")))}
            labels = {label for sample in EXPORTED if sample.name in names for label in sample.labels}
            assert set(re.findall(r"{{(\w+)}}", target["legendFormat"])) <= labels, panel["title"]


def test_rates_are_of_counters_and_of_nothing_else() -> None:
    for place, query in QUERIES:
        for name in re.findall(r"(?:rate|increase)\((\w+)", query):
            assert name.endswith(("_total", "_bucket")), f"{place}: {name}"


def test_every_alert_has_a_runbook_that_says_what_to_do() -> None:
    operations = DOCUMENTATION / "OPERATIONS.md"
    text = text_of(operations)
    for rule in rules():
        page, _, anchor = rule["annotations"]["runbook"].partition("#")
        assert (ROOT / page) == operations
        assert anchor == rule["alert"].lower()
        assert anchor in anchors_of(operations)
        entry = text.partition(f"### {rule['alert']}\n")[2].partition("\n### ")[0]
        assert len(entry.split()) > 15, f"{rule['alert']}: a runbook says more than that"
        assert rule["labels"]["severity"] in ("critical", "warning")
        assert rule["annotations"]["summary"]


def test_everything_a_person_must_know_of_has_an_alert() -> None:
    watched = " ".join(rule["expr"] for rule in rules())

    for metric in ("lag_seconds", 'outcome="withheld"', "unaccounted_rows", "output_unaccounted_rows", "output_set_aside_rows"):
        assert metric in watched
    for metric in ("verification_failures_total", "output_up", "source_up", "live", "spool_bytes", "state_up", "late_rows_total"):
        assert f"ecg_anonymizer_{metric}" in watched


def test_limits_are_those_the_service_itself_warns_at() -> None:
    expressions = {rule["alert"]: rule["expr"] for rule in rules()}

    assert f" {SUPPRESSION_LIMIT} * " in expressions["MuchWithheld"]
    assert f" {LATE_LIMIT} * " in expressions["ManyLateRows"]


def test_panels_do_not_lie_on_each_other() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24
        taken |= cells


def test_the_dashboard_asks_the_source_that_is_provisioned() -> None:
    (source,) = loaded("grafana/provisioning/datasources/prometheus.yml")["datasources"]

    assert {panel["datasource"]["uid"] for panel in DASHBOARD["panels"]} == {source["uid"]}
    (provider,) = loaded("grafana/provisioning/dashboards/ecg-anonymizer.yml")["providers"]
    mounted = {volume.split(":")[1]: volume.split(":")[0] for volume in service("grafana")["volumes"]}
    assert mounted[provider["options"]["path"]] == "./deploy/grafana/dashboards"
    assert mounted["/etc/grafana/provisioning"] == "./deploy/grafana/provisioning"


def test_prometheus_asks_where_the_service_answers_and_with_its_token() -> None:
    (scrape,) = loaded("prometheus/prometheus.yml")["scrape_configs"]
    (target,) = scrape["static_configs"][0]["targets"]
    host, _, port = target.partition(":")

    assert host in compose()["services"]
    assert service(host)["environment"]["STATUS_ADDRESS"].endswith(f":{port}")
    assert scrape["authorization"]["credentials_file"] == "/run/secrets/status_token"
    assert service("prometheus")["secrets"] == [{"source": "status_token", "target": "status_token"}]
    assert compose()["secrets"]["status_token"] == {"environment": "STATUS_TOKEN"}
