"""Every state a person may meet has a code, a headline, a sentence, and an answer to "what to do"."""

from __future__ import annotations

import re
from typing import Any

import pytest

from anonymizer.batch import WindowCounts
from service.status.judgement import judge
from service.status.page_data import page_data
from service.status.snapshot import Moment, Trouble
from service.telemetry.events import Sweep
from tests.documentation.pages import ROOT
from tests.status import states

HELP = (ROOT / "service" / "status" / "pages" / "help.html").read_text(encoding="utf-8")

NOT_READY: list[tuple[dict[str, Any], str, str]] = [
    ({"run.phase": "connecting"}, "connecting", "Starting"),
    ({"run.phase": "stopping"}, "stopping", "Stopping"),
    ({"source.trouble": Trouble(states.NOW_NS, "refused")}, "source_unreachable", "The source does not answer"),
    ({"source.trouble": Trouble(0, "refused"), "run.phase": "connecting"}, "source_unreachable", "The source does not answer"),
    ({"state.trouble": Trouble(states.NOW_NS, "disk full")}, "state_unavailable", "Our own disk cannot be used"),
    ({"workforce.trouble": Trouble(states.NOW_NS, "cannot be reached")}, "workers_unavailable", "No worker can be reached"),
    ({"outputs": states.one_output_down().outputs}, "output_unreachable", "An output does not take data"),
    ({"outputs": (states.output("x", trouble=Trouble(0, "401"), has_ended=True),)}, "output_ended", "An output is not written"),
    ({"spool.is_full": True}, "reading_paused", "Reading pauses"),
    ({"pace.lag_s": 60.1}, "behind", "Behind"),
    ({"pace.idle_s": 240.1}, "hangs", "The work loop hangs"),
]

NOTICES: list[tuple[dict[str, Any], str]] = [
    ({"moments": (Moment(0, rows_read=90, rows_withheld=14), Moment(1, rows_read=10, rows_withheld=1))}, "withheld"),
    ({"moments": (Moment(0, rows_read=1000, rows_withheld=3, rows_contradictory=3),)}, "contradictory"),
    ({"moments": (Moment(0, rows_read=1000, rows_late=1), Moment(1, rows_read=1000, rows_late=2))}, "late"),
    ({"outputs": (states.output("x", set_aside=1),)}, "set_aside"),
    ({"removed": Sweep(kept=2)}, "retention_kept"),
    ({"totals.violations": 1}, "verification_failed"),
    ({"totals.counts": WindowCounts(read=3, released=2)}, "not_conserved"),
    ({"outputs": (states.output("x", unaccounted=-1),)}, "not_conserved"),
]


def test_what_was_withheld_as_noise_is_shown_apart() -> None:
    moments = (Moment(0, rows_read=100, rows_withheld=40, rows_noisy=30),)
    (notice,) = judge(states.changed(states.healthy(), {"moments": moments})).notices

    assert notice.text == "40 % of the last hour's rows were withheld (30 % as noise)."


def test_a_stream_that_goes_well_is_ready_and_says_how_far_it_is() -> None:
    judgement = judge(states.healthy())

    assert (judgement.is_live, judgement.is_ready, judgement.state) == (True, True, "ok")
    assert judgement.headline == "All is well"
    assert judgement.sentence == "Up to 2025-11-03 14:29:45 UTC everything is done; 0 rows wait for outputs."


@pytest.mark.parametrize(("changes", "code", "headline"), NOT_READY, ids=[code for _, code, _ in NOT_READY])
def test_what_keeps_data_from_flowing_makes_it_not_ready(changes: dict[str, Any], code: str, headline: str) -> None:
    judgement = judge(states.changed(states.healthy(), changes))

    assert [one.code for one in judgement.reasons] == [code]
    assert judgement.state == "trouble"
    assert judgement.headline.startswith(headline)
    assert judgement.is_live == (code != "hangs")


@pytest.mark.parametrize(("changes", "code"), NOTICES)
def test_what_an_operator_should_look_at_leaves_it_ready(changes: dict[str, Any], code: str) -> None:
    judgement = judge(states.changed(states.healthy(), changes))

    assert judgement.is_ready
    assert (judgement.state, [one.code for one in judgement.notices]) == ("attention", [code])


@pytest.mark.parametrize(
    "changes",
    [
        {"pace.lag_s": 60.0},
        {"pace.idle_s": 240.0},
        {"moments": (Moment(0, rows_read=90, rows_withheld=14), Moment(1, rows_read=10))},
        {"moments": (Moment(0, rows_read=1000, rows_late=1), Moment(1, rows_read=1000, rows_late=1))},
        {"totals.late": 800_000, "moments": ()},
    ],
)
def test_what_is_within_its_limit_is_well(changes: dict[str, Any]) -> None:
    assert judge(states.changed(states.healthy(), changes)).state == "ok"


def test_every_code_has_its_place_on_the_help_page() -> None:
    explained = set(re.findall(r'<dt id="(\w+)">', HELP))

    assert explained == {code for _, code, _ in NOT_READY} | {code for _, code in NOTICES}


def test_the_sentence_tells_the_last_error_and_rows_that_wait_and_of_a_run_with_an_end_how_much_is_done() -> None:
    sentence = judge(states.one_output_down()).sentence
    with_an_end = states.changed(states.healthy(), {"run.is_stream": False, "run.windows_in_all": 720})

    assert all(part in sentence for part in ("connection refused", "since 14:28:25 UTC", "41,040 rows wait for it"))
    assert judge(with_an_end).sentence == "418 of 720 windows done."


def test_the_page_is_given_nothing_but_counts_times_and_names_of_outputs() -> None:
    data = page_data(states.one_output_down())

    def texts(value: object) -> list[str]:
        if isinstance(value, dict):
            return [text for one in value.values() for text in texts(one)]
        if isinstance(value, list | tuple):
            return [text for one in value for text in texts(one)]
        return [value] if isinstance(value, str) else []

    known = {
        "trouble",
        "working",
        "1.0.0",
        "output_unreachable",
        "csv",
        "influxdb",
        "api",
        states.CSV,
        states.INFLUXDB,
        states.API,
    }
    reason = "API at https://research.example/api/data cannot be reached: connection refused"
    for text in set(texts(data)) - known:
        assert (
            re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", text) or reason in text or text == "An output does not take data"
        ), text
