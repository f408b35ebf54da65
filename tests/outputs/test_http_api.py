"""The HTTP API: what arrives at a real server in another process, and what we make of its answers."""

from __future__ import annotations

import contextlib
import json
import re
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import requests

from anonymizer.errors import BatchRejected, IntentChanged, OutputDenied, OutputError, OutputUnavailable
from outputs import api_parts, http_api
from outputs.encoding import summary_of
from outputs.http_api import ApiTarget, HttpApi
from tests.outputs.batches import ODD_IDS, Row, make_batch, rows_of, time_ns_of, usual_batch
from tests.outputs.contract import Service
from tests.outputs.destinations import SECRET
from tests.servers.api_server import ApiServer, Reply
from tests.servers.socket_server import Pause, Reset, Serve, chunk, http_answer
from tests.transport.slow_server import MORE_THAN_BUFFERS_HOLD, slow_reader

SCHEMA = json.loads((Path(__file__).parents[2] / "documentation" / "api-batch.schema.json").read_text(encoding="utf-8"))

MakeApi = Callable[..., HttpApi]


@pytest.fixture
def make_api(api_server: ApiServer) -> Iterator[MakeApi]:
    """What makes an output that writes to the API server, or elsewhere, and is closed at the end."""
    made: list[HttpApi] = []

    def make(
        endpoint: str = api_server.endpoint,
        *,
        token: str | Callable[[], str] = SECRET,
        timeout_s: float = 10.0,
        ca_file: str = "",
    ) -> HttpApi:
        read_token = token if callable(token) else lambda: token
        made.append(HttpApi(ApiTarget(endpoint=endpoint, timeout_s=timeout_s, ca_file=ca_file), read_token))
        made[-1].open({})
        return made[-1]

    yield make
    for output in made:
        output.close()


MOST_ROWS = api_parts.MOST_ROWS_PER_PART


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of at most eight rows, so that a small batch has several."""
    monkeypatch.setattr(api_parts, "MOST_ROWS_PER_PART", 8)


@pytest.fixture
def large_parts(_small_parts: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts as large as they really are."""
    monkeypatch.setattr(api_parts, "MOST_ROWS_PER_PART", MOST_ROWS)


def validator() -> jsonschema.Draft202012Validator:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    return jsonschema.Draft202012Validator(SCHEMA)


def records_in(payloads: list[Any]) -> list[Row]:
    found = (record for payload in payloads for record in payload["records"])
    return sorted(Row(time_ns_of(record["timestamp"]), record["source_id"], record["ecg"]) for record in found)


STORE = Reply(status=201, store=True)


def row_ranges(api_server: ApiServer) -> list[str]:
    return [delivery.key.rpartition(":")[2] for delivery in api_server.deliveries()]


# --- the payload ----------------------------------------------------------------------------------------------------------------


def test_a_payload_is_what_the_documentation_shows(make_api: MakeApi, api_server: ApiServer) -> None:
    batch = make_batch([(0, "a", -145.0), (7_812_500, 'ward "3"', 2.5)])

    make_api().write(batch)

    (payload,) = api_server.stored()
    assert payload == {
        "schema": "1",
        "batch_id": batch.batch_id,
        "part": 1,
        "parts": 1,
        "window_start": "2025-11-03T14:30:00.000000000Z",
        "window_end": "2025-11-03T14:30:05.000000000Z",
        "k": 2,
        "k_unit": "record",
        "rows": 2,
        "summary": summary_of(batch),
        "records": [
            {"timestamp": "2025-11-03T14:30:00.000000000Z", "source_id": "a", "ecg": -145.0},
            {"timestamp": "2025-11-03T14:30:00.007812500Z", "source_id": 'ward "3"', "ecg": 2.5},
        ],
    }
    (delivery,) = api_server.deliveries()
    assert delivery.headers["content-type"] == "application/json"
    assert b'"ecg":-145.0}' in delivery.body


@pytest.mark.parametrize(
    "rows",
    [
        [(i, "a", 1.0) for i in range(2)],
        [(i, "b", i // 2) for i in range(20)],
        [(i, s, i % 7 / 3) for i, s in enumerate(ODD_IDS)],
    ],
)
def test_every_payload_keeps_to_the_documented_schema(rows: list[Any], make_api: MakeApi, api_server: ApiServer) -> None:
    make_api().write(make_batch(rows))

    for payload in api_server.stored():
        validator().validate(payload)
        assert payload["rows"] == len(payload["records"])


def test_the_schema_describes_every_field_and_the_unit_of_every_quantity() -> None:
    def properties(schema: Any) -> Iterator[tuple[str, Any]]:
        if isinstance(schema, dict):
            yield from schema.get("properties", {}).items()
            for part in schema.values():
                yield from properties(part)
        elif isinstance(schema, list):
            for part in schema:
                yield from properties(part)

    described = dict(properties(SCHEMA))

    definitions = SCHEMA["$defs"]
    for name, schema in described.items():
        if "$ref" in schema:
            schema = {**definitions[schema["$ref"].rpartition("/")[2]], **schema}
        assert len(schema.get("description", "")) > len("As above"), name
    assert "µV" in described["ecg"]["description"]
    assert "in seconds" in described["window_seconds"]["description"]
    assert "UTC, nanoseconds" in definitions["time"]["description"]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda payload: payload.update(level=3),
        lambda payload: payload["records"][0].update(level=3),
        lambda payload: payload["summary"].update(mean=1.5),
        lambda payload: payload.pop("summary"),
        lambda payload: payload["records"][0].update(timestamp="2025-11-03T14:30:00Z"),
        lambda payload: payload["records"][0].update(ecg="1.0"),
        lambda payload: payload.update(k=1),
        lambda payload: payload.update(records=[]),
    ],
)
def test_the_schema_allows_nothing_that_was_not_promised(
    spoil: Callable[[Any], None], make_api: MakeApi, api_server: ApiServer
) -> None:
    make_api().write(usual_batch())
    (payload,) = api_server.stored()

    spoil(payload)

    assert not validator().is_valid(payload)


# --- parts and keys -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rows", "ranges"), [(1, ["0-1"]), (8, ["0-8"]), (9, ["0-8", "8-9"]), (20, ["0-8", "8-16", "16-20"])])
def test_a_large_batch_comes_in_numbered_parts(rows: int, ranges: list[str], make_api: MakeApi, api_server: ApiServer) -> None:
    make_api().write(usual_batch(rows=rows))

    stored = api_server.stored()
    assert row_ranges(api_server) == ranges
    assert [(payload["part"], payload["parts"]) for payload in stored] == [(i + 1, len(ranges)) for i in range(len(ranges))]
    assert sum(payload["rows"] for payload in stored) == stored[0]["summary"]["rows_released"] == rows


def test_every_part_of_every_batch_has_a_key_of_its_own_that_never_changes(make_api: MakeApi, api_server: ApiServer) -> None:
    batches = [usual_batch(window=window, rows=20) for window in range(3)]

    for _ in range(2):
        output = make_api()
        for batch in batches:
            output.write(batch)

    deliveries = [(delivery.key, delivery.body) for delivery in api_server.deliveries()]
    assert deliveries[:9] == deliveries[9:]
    assert len({key for key, _ in deliveries}) == 9
    assert len(api_server.stored()) == 9


def test_a_batch_whose_answer_was_lost_is_stored_once(make_api: MakeApi, api_server: ApiServer) -> None:
    api_server.script(Reply(store=True, drop=True), Reply(store=True, hang_s=5.0))
    output = make_api(timeout_s=1.0)

    for _ in range(2):
        with pytest.raises(OutputUnavailable, match="cannot be reached"):
            output.write(usual_batch())
    output.write(usual_batch())

    assert records_in(api_server.stored()) == rows_of(usual_batch())
    assert len(api_server.stored()) == 1


@pytest.mark.usefixtures("large_parts")
def test_no_first_request_is_near_a_limit_that_apis_have(make_api: MakeApi, api_server: ApiServer) -> None:
    short = make_batch([(i, "a", i // 2 / 3) for i in range(20_000)])
    long = make_batch([(i, f"{i % 3}é\0" * 2000, 1.0) for i in range(60)], window=1)

    for batch in (short, long):
        make_api().write(batch)

    assert max(len(delivery.body) for delivery in api_server.deliveries()) <= 1_000_000
    assert records_in(api_server.stored()) == rows_of(short, long)
    # Nor are they so small that there are many.
    assert len(api_server.deliveries()) < 10


@pytest.mark.usefixtures("large_parts")
def test_the_ids_of_other_windows_do_not_make_parts_small(make_api: MakeApi, api_server: ApiServer) -> None:
    make_api().write(make_batch([(i, "a", 1.0) for i in range(500)], all_ids=("a", "x" * 900_000)))

    assert row_ranges(api_server) == ["0-500"]


# --- a part that is too large ---------------------------------------------------------------------------------------------------


def test_a_part_that_is_too_large_is_halved_until_it_fits(make_api: MakeApi, api_server: ApiServer) -> None:
    make_api().write(usual_batch(rows=3))
    api_server.limit(len(api_server.deliveries()[0].body))

    Service(make_api()).deliver(usual_batch(window=1, rows=20))

    # 8 and 4 rows were refused.
    assert row_ranges(api_server)[1:4] == ["0-8", "0-4", "0-2"]
    assert records_in(api_server.stored()[1:]) == rows_of(usual_batch(window=1, rows=20))
    last = api_server.stored()[-1]
    assert last["part"] == last["parts"]


def test_no_smaller_part_is_sent_before_it_is_on_record(make_api: MakeApi, api_server: ApiServer) -> None:
    batch = usual_batch(rows=20)
    api_server.script(Reply(status=413))
    output = make_api()
    before = output.intent(batch)

    with pytest.raises(IntentChanged):
        output.write(batch)

    assert row_ranges(api_server) == ["0-8"]
    after = output.intent(batch)
    assert after != before
    assert [stop for stop, _ in after["parts"]] == [4, 8, 12, 16, 20]
    output.write(batch)
    assert row_ranges(api_server)[1:] == ["0-4", "4-8", "8-12", "12-16", "16-20"]


@pytest.mark.parametrize(
    ("replies", "tries", "rows", "ranges"),
    [
        ([STORE, Reply(status=413)], 0, 20, ["0-8", "8-16", "8-12", "12-16", "16-20"]),
        ([STORE, Reply(status=503)], 1, 20, ["0-8", "8-16", "8-16", "16-20"]),
        ([Reply(drop=True, store=True), Reply(status=200), Reply(status=413)], 1, 16, ["0-8", "0-8", "8-16", "8-12", "12-16"]),
    ],
    ids=["413", "503", "doubt that ends"],
)
def test_parts_that_were_taken_are_not_sent_again_nor_cut_anew_and_the_next_may_be_cut(
    replies: list[Reply], tries: int, rows: int, ranges: list[str], make_api: MakeApi, api_server: ApiServer
) -> None:
    batch = usual_batch(rows=rows)
    api_server.script(*replies)
    service = Service(make_api())
    for _ in range(tries):
        assert isinstance(service.deliver_and_fail(batch), OutputUnavailable)

    service.deliver(batch)

    assert row_ranges(api_server) == ranges
    assert records_in(api_server.stored()) == rows_of(batch)
    numbers = [(payload["part"], payload["parts"]) for payload in api_server.stored()]
    assert tries or numbers == [(1, 3), (2, 4), (3, 4), (4, 4)]


@pytest.mark.parametrize("sent", range(1, 7))
def test_wherever_a_crash_broke_off_a_batch_that_was_cut_every_key_comes_back_with_its_bytes(
    sent: int, make_api: MakeApi, api_server: ApiServer
) -> None:
    batch = usual_batch(rows=20)
    refusals = [STORE, Reply(status=413), Reply(status=413)]
    api_server.script(*refusals, *[STORE] * (sent - 1), Reply(status=500, store=True))
    crashed = Service(make_api())
    assert isinstance(crashed.deliver_and_fail(batch), OutputUnavailable)

    after = Service(make_api(), crashed.receipts)
    after.deliver(batch, usual_batch(window=1, rows=3))

    bodies: dict[str, set[bytes]] = {}
    for delivery in api_server.deliveries():
        bodies.setdefault(delivery.key, set()).add(delivery.body)
    assert all(len(different) == 1 for different in bodies.values())
    assert records_in(api_server.stored()) == rows_of(batch, usual_batch(window=1, rows=3))
    assert after.receipts == {}


def test_several_batches_of_a_chunk_that_were_cut_are_each_cut_the_same_way_after_a_crash(
    make_api: MakeApi, api_server: ApiServer
) -> None:
    batches = [usual_batch(window=window, rows=20) for window in range(6)]
    crashed = Service(make_api())
    for number, batch in enumerate(batches):
        # Each is cut at another place.
        api_server.script(*[STORE] * (number % 3), Reply(status=413))
        crashed.deliver_and_die(batch)

    after = Service(make_api(), crashed.receipts)
    after.deliver(*batches)

    assert len(api_server.stored()) == len({(payload["batch_id"], payload["part"]) for payload in api_server.stored()})
    assert records_in(api_server.stored()) == rows_of(*batches)
    assert after.receipts == {}


IN_DOUBT = {
    "reset": Reply(drop=True, store=True),
    "timeout": Reply(hang_s=4.0, store=True),
    "409": Reply(status=409, store=True),
    "500": Reply(status=500, store=True),
    "502": Reply(status=502, body="<html>Bad Gateway</html>", store=True),
    "504": Reply(status=504, store=True),
    "an error after 200": Reply(status=200, body='{"error":"of some kind"}', store=True),
}


@pytest.mark.parametrize("reply", IN_DOUBT.values(), ids=IN_DOUBT)
def test_a_part_that_may_have_been_taken_is_never_cut_anew(reply: Reply, make_api: MakeApi, api_server: ApiServer) -> None:
    batch = usual_batch(rows=20)
    api_server.script(STORE, reply)
    service = Service(make_api(timeout_s=2.0))
    assert isinstance(service.deliver_and_fail(batch), OutputUnavailable)
    api_server.limit(300)

    for _ in range(2):
        said = service.deliver_and_fail(batch)
        assert type(said) is OutputUnavailable
        for part in ("413", "it may have taken before", "Let it take requests of ", f"Idempotency-Key {batch.batch_id}:8-16"):
            assert part in str(said)

    # Doing what the message asks fixes it.
    api_server.limit(0)
    service.deliver(batch)
    assert records_in(api_server.stored()) == rows_of(batch)
    assert set(row_ranges(api_server)) == {"0-8", "8-16", "16-20"}


NOT_PROCESSED = {str(status): Reply(status=status) for status in (301, 302, 307, 401, 403, 404, 405, 429, 503)}


@pytest.mark.parametrize("reply", NOT_PROCESSED.values(), ids=NOT_PROCESSED)
def test_a_part_that_was_certainly_not_taken_is_cut(reply: Reply, make_api: MakeApi, api_server: ApiServer) -> None:
    batch = usual_batch(rows=20)
    api_server.script(reply, Reply(status=413))
    service = Service(make_api())
    assert isinstance(service.deliver_and_fail(batch), OutputUnavailable)

    service.deliver(batch)

    assert row_ranges(api_server)[2:] == ["0-4", "4-8", "8-12", "12-16", "16-20"]
    assert records_in(api_server.stored()) == rows_of(batch)


def test_doubt_about_a_part_ends_neither_with_an_answer_that_does_not_speak_of_it_nor_with_a_crash(
    make_api: MakeApi, api_server: ApiServer
) -> None:
    batch = usual_batch(rows=8)
    api_server.script(Reply(drop=True, store=True), Reply(status=503), Reply(status=413))
    service = Service(make_api())
    said = [str(service.deliver_and_fail(batch)) for _ in range(3)]
    assert "it may have taken before" in said[2]

    # A part that was about to be sent.
    crashed = Service(make_api())
    crashed.intend_and_die(batch)
    api_server.limit(300)
    refusal = Service(make_api(), crashed.receipts).deliver_and_fail(batch)
    assert type(refusal) is OutputUnavailable
    assert "it may have taken before" in str(refusal)


def test_an_api_that_was_not_there_has_taken_nothing(make_api: MakeApi, api_server: ApiServer, serve: Serve) -> None:
    closed = serve([])
    closed.stop()
    batch = usual_batch(rows=8)
    service = Service(make_api(closed.url))
    assert isinstance(service.deliver_and_fail(batch), OutputUnavailable)

    # It comes up, with a limit.
    service.output._target = ApiTarget(endpoint=api_server.endpoint)  # type: ignore[attr-defined]
    api_server.script(Reply(status=413))
    service.deliver(batch)

    assert row_ranges(api_server) == ["0-8", "0-4", "4-8"]


def test_a_batch_of_which_not_even_a_row_is_taken_is_rejected_and_does_not_make_later_ones_small(
    make_api: MakeApi, api_server: ApiServer
) -> None:
    api_server.script(*[Reply(status=413)] * 4)
    service = Service(make_api())

    rejected = service.deliver_and_fail(usual_batch(window=0, rows=8))
    service.deliver(usual_batch(window=1, rows=8))

    assert isinstance(rejected, BatchRejected)
    assert rejected.rows is None
    assert "413 Request Entity Too Large, even to a single row" in str(rejected)
    assert row_ranges(api_server)[-1] == "0-8"


@pytest.mark.usefixtures("large_parts")
def test_a_limit_that_was_found_is_kept_to_by_later_batches(make_api: MakeApi, api_server: ApiServer) -> None:
    api_server.limit(100_000)
    service = Service(make_api())

    for window in range(3):
        service.deliver(usual_batch(window=window, rows=5000))

    refused_windows = {delivery.json["window_start"] for delivery in api_server.deliveries() if len(delivery.body) > 100_000}
    assert refused_windows == {"2025-11-03T14:30:00.000000000Z"}
    assert records_in(api_server.stored()) == rows_of(*(usual_batch(window=window, rows=5000) for window in range(3)))


# --- a batch that is refused ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [400, 422])
@pytest.mark.parametrize(("taken", "rows"), [(0, None), (1, range(8, 20)), (2, range(16, 20))])
def test_what_a_refused_part_and_those_behind_it_hold_is_set_aside(
    status: int, taken: int, rows: range | None, make_api: MakeApi, api_server: ApiServer
) -> None:
    api_server.script(*[STORE] * taken, Reply(status=status))

    rejected = Service(make_api()).deliver_and_fail(usual_batch(rows=20))

    assert isinstance(rejected, BatchRejected)
    assert rejected.rows == (None if rows is None else tuple(rows))
    assert len(api_server.deliveries()) == taken + 1


@pytest.mark.parametrize("restarted", [False, True])
def test_a_batch_that_was_refused_in_part_may_be_offered_again_as_a_whole(
    restarted: bool, make_api: MakeApi, api_server: ApiServer
) -> None:
    batch = usual_batch(rows=20)
    api_server.script(STORE, Reply(status=413), STORE, Reply(status=400))
    service = Service(make_api())
    service.deliver_and_fail(batch)
    service.deliver(usual_batch(window=1))

    if restarted:
        service = Service(make_api(), service.receipts)
    service.deliver(batch)

    assert records_in(api_server.stored()) == rows_of(batch, usual_batch(window=1))
    assert service.receipts == {}


# --- answers --------------------------------------------------------------------------------------------------------------------


SUCCESSES = [*dict.fromkeys((status, "") for status in (201, 202, 204, 207, 299))]
SUCCESSES += [
    (200, body)
    for body in (
        *("", "stored", "<html>error</html>", "{}", '{"status":201,"ok":1}', '[{"error":"of another batch"}]', '"error"'),
        *('{"ok":true,"error":null,"errors":[],"status":"success"}', '{"success":true,"error":false,"errors":{}}'),
        *('{"records":[{"error":"x"}]}', '{"error":"cut off', "[" * 50_000, "\N{ANATOMICAL HEART}"),
    )
]


@pytest.mark.parametrize(("status", "body"), SUCCESSES)
def test_every_success_is_one_and_may_say_what_it_likes(status: int, body: str, make_api: MakeApi, api_server: ApiServer) -> None:
    api_server.script(Reply(status=status, body=body))

    make_api().write(usual_batch())


ERRORS = [
    f'{{"error":"{SECRET}"}}',
    '{"error":true}',
    '{"ok":true,"error":{"code":7}}',
    '{"errors":["patient-7"]}',
    '{"ok":false}',
]
ERRORS += ['{"status":"error"}', '{"status":"FAILED"}', '{"success":false}', f'\n {{"error":"{"x" * 60_000}"}}']


@pytest.mark.parametrize("status", [200, 201, 202])
@pytest.mark.parametrize("body", ERRORS, ids=lambda body: body[:20])
def test_a_success_with_an_error_in_its_body_is_a_failure_and_the_batch_is_offered_again(
    status: int, body: str, make_api: MakeApi, api_server: ApiServer
) -> None:
    output = make_api()
    api_server.script(Reply(status=status, body=body))

    sentence = rf"answered {status} \w+, but the answer's body says that something went wrong"
    with pytest.raises(OutputUnavailable, match=sentence) as raised:
        output.write(usual_batch())

    assert_shows_nothing(raised.value)
    output.write(usual_batch())
    assert records_in(api_server.stored()) == rows_of(usual_batch())


def assert_shows_nothing(error: Exception) -> None:
    assert SECRET not in str(error)
    assert "patient" not in str(error)


@pytest.mark.parametrize(
    ("statuses", "kind", "advice"),
    [
        ((400, 422), BatchRejected, ""),
        ((401, 403, 404, 405), OutputDenied, "check API_ENDPOINT, API_TOKEN"),
        ((300, 301, 302, 303, 304, 307, 308), OutputDenied, "a redirect, which is not followed"),
        ((408, 409, 425, 429, 500, 502, 503, 504, 507), OutputUnavailable, ""),
    ],
    ids=["rejected", "denied", "redirected", "unavailable"],
)
def test_a_status_says_whether_to_wait_to_set_aside_or_to_stop(
    statuses: tuple[int, ...], kind: type[OutputError], advice: str, make_api: MakeApi, api_server: ApiServer
) -> None:
    output = make_api()
    for status in statuses:
        api_server.script(Reply(status=status, body=f"{SECRET} patient-7"))

        with pytest.raises(OutputError, match=rf"answered {status} .*{re.escape(advice)}") as raised:
            output.write(usual_batch())

        assert type(raised.value) is kind
        assert_shows_nothing(raised.value)


def in_90_s() -> str:
    return format_datetime(datetime.now(UTC) + timedelta(seconds=90), usegmt=True)


WAITS = [
    ("7", 7),
    ("0", 0),
    ("1000000000", 600),
    ("9" * 5000, 600),
    ("soon", None),
    ("", None),
    ("-7", None),
    (None, None),
    (in_90_s, 89),
]


@pytest.mark.parametrize("status", [409, 429, 503])
@pytest.mark.parametrize(("header", "expected_s"), WAITS, ids=lambda value: str(value)[:12])
def test_a_wait_that_is_asked_for_is_passed_on_within_reason(
    status: int, header: str | Callable[[], str] | None, expected_s: float | None, make_api: MakeApi, api_server: ApiServer
) -> None:
    until = header() if callable(header) else header
    api_server.script(Reply(status=status, headers={} if until is None else {"Retry-After": until}))

    with pytest.raises(OutputUnavailable) as raised:
        make_api().write(usual_batch())

    told_s = raised.value.retry_after_s
    assert told_s == (pytest.approx(expected_s, abs=5) if callable(header) else expected_s)


# --- the token ------------------------------------------------------------------------------------------------------------------


def test_the_token_is_sent_as_bearer_and_without_one_none_not_even_one_from_netrc(
    make_api: MakeApi, api_server: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "netrc").write_text("default login someone password else\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))

    make_api(token="").write(usual_batch(window=0))
    make_api().write(usual_batch(window=1))

    assert [one.headers.get("authorization") for one in api_server.deliveries()] == [None, f"Bearer {SECRET}"]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_neither_token_nor_batch_is_sent_to_where_a_redirect_points(
    status: int, make_api: MakeApi, api_server: ApiServer, serve: Serve
) -> None:
    elsewhere = serve([http_answer("200 OK")])
    api_server.script(Reply(status=status, headers={"Location": f"{elsewhere.url}/ecg"}))

    with pytest.raises(OutputDenied, match="set API_ENDPOINT to where it points"):
        make_api().write(usual_batch())

    assert elsewhere.requests == []


@pytest.mark.parametrize("token", ["curly “quotes”", "line\nend", "carriage\rreturn", "tök€n"])
def test_a_token_that_cannot_be_sent_is_denied_without_being_shown(token: str, make_api: MakeApi, api_server: ApiServer) -> None:
    with pytest.raises(OutputDenied, match="API_TOKEN") as denied:
        make_api(token=token).write(usual_batch())

    assert token not in str(denied.value)
    assert api_server.deliveries() == []


def test_a_key_in_the_address_is_sent_and_not_shown(make_api: MakeApi, api_server: ApiServer) -> None:
    output = make_api(f"{api_server.endpoint}?key={SECRET}")
    api_server.script(Reply(status=500))
    with pytest.raises(OutputUnavailable) as raised:
        output.write(usual_batch())

    said = f"{raised.value} {output.name} {output.target(usual_batch())}"

    assert SECRET not in said
    assert api_server.endpoint in said
    assert api_server.deliveries()[0].path.endswith(f"?key={SECRET}")


@pytest.mark.parametrize("status", [401, 403])
def test_a_token_that_is_refused_is_asked_for_again(status: int, make_api: MakeApi, api_server: ApiServer) -> None:
    tokens = ["half “written”", "old-token", SECRET]
    output = make_api(token=lambda: tokens.pop(0))
    api_server.script(Reply(status=status), Reply(status=500))

    for kind in (OutputDenied, OutputDenied, OutputUnavailable):
        with pytest.raises(kind):
            output.write(usual_batch())
    output.write(usual_batch())

    used = [delivery.headers["authorization"] for delivery in api_server.deliveries()]
    assert used == ["Bearer old-token", f"Bearer {SECRET}", f"Bearer {SECRET}"]


def test_a_token_that_cannot_be_read_just_now_stays_the_last_one(make_api: MakeApi, api_server: ApiServer) -> None:
    def read_token() -> str:
        if api_server.deliveries():
            raise PermissionError("not now")
        return SECRET

    output = make_api(token=read_token)
    api_server.script(Reply(status=401))
    with pytest.raises(OutputDenied):
        output.write(usual_batch())
    output.write(usual_batch())

    assert {delivery.headers["authorization"] for delivery in api_server.deliveries()} == {f"Bearer {SECRET}"}


# --- a server that misbehaves ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "answer",
    [[Reset()], [], [b"SSH-2.0-OpenSSH_9.2\r\n"], [b"HTTP/1.1 20"], [b"HTTP/1.1 99 huh\r\n\r\n"], [http_answer("600 what")]],
    ids=["reset", "closed", "not HTTP", "cut head", "status 99", "status 600"],
)
def test_an_invalid_answer_is_retried(answer: list[Any], make_api: MakeApi, serve: Serve) -> None:
    with pytest.raises(OutputUnavailable):
        make_api(serve(answer).url).write(usual_batch())


@pytest.mark.parametrize(
    "body",
    [
        [http_answer("200 OK", b"{", length=100)],
        [http_answer("200 OK", b"{", length=100), Reset()],
        [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk(b"{")[:-1]],
        [http_answer("200 OK", b"no gzip at all", "Content-Encoding: gzip")],
        [b"HTTP/1.1 200"],
    ],
    ids=["cut", "reset", "cut chunk", "not gzip", "cut behind the status"],
)
def test_a_success_counts_even_when_the_rest_of_the_answer_is_broken(body: list[Any], make_api: MakeApi, serve: Serve) -> None:
    make_api(serve(body).url).write(usual_batch())


@pytest.mark.parametrize(
    ("endpoint", "kind", "sentence"),
    [
        *((f"{at}/ecg", OutputUnavailable, r"cannot be reached \(\w+\)") for at in ("http://127.0.0.1:1", "https://127.0.0.1:1")),
        ("http://no-such-host.invalid/ecg", OutputUnavailable, r"cannot be reached \(\w+\)"),
        *((f"http://{at}/ecg", OutputDenied, "API_ENDPOINT") for at in ("a..b", f"{'a' * 70}.example", "[::1")),
        ("ftp://host/ecg", OutputDenied, "API_ENDPOINT"),
    ],
)
def test_an_unreachable_api_is_waited_for_and_an_invalid_address_is_denied(
    endpoint: str, kind: type[OutputError], sentence: str, make_api: MakeApi
) -> None:
    with pytest.raises(kind, match=sentence):
        make_api(endpoint).write(usual_batch())


def test_an_api_that_never_answers_or_byte_by_byte_is_given_up_in_time(
    make_api: MakeApi, api_server: ApiServer, serve: Serve
) -> None:
    api_server.script(Reply(hang_s=30.0))
    with within_s(20), pytest.raises(OutputUnavailable, match=r"\(ReadTimeout\)"):
        make_api(timeout_s=0.3).write(usual_batch())

    drip = [step for byte in http_answer("200 OK", b"{}") for step in (bytes([byte]), Pause(0.2))]
    with within_s(9), pytest.raises(OutputUnavailable):
        make_api(serve(drip).url, timeout_s=0.5).write(usual_batch())


def test_an_answer_that_comes_byte_by_byte_or_never_ends_does_not_hold_up_the_next_window(
    make_api: MakeApi, api_server: ApiServer, serve: Serve
) -> None:
    api_server.script(Reply(status=201, store=True, body="x" * 1000, drip_s=0.1))
    output = make_api(timeout_s=1.0)
    with within_s(20):
        output.write(usual_batch(window=0))
        output.write(usual_batch(window=1))
    assert len(api_server.stored()) == 2

    endless = serve([b"HTTP/1.1 200 OK\r\n\r\n", *[b"x" * 1_000_000] * 30, Pause(30)])
    with within_s(20):
        make_api(endless.url, timeout_s=20.0).write(usual_batch())


@contextlib.contextmanager
def within_s(seconds: float) -> Iterator[None]:
    started_s = time.monotonic()
    yield
    assert time.monotonic() - started_s < seconds


@pytest.mark.usefixtures("large_parts")
def test_a_part_that_is_taken_byte_by_byte_is_given_up_in_time(make_api: MakeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    # More than is ever sent at once: what the system keeps between two sockets of one machine would hold that.
    monkeypatch.setattr(http_api, "MOST_BYTES_PER_PART", 4 * MORE_THAN_BUFFERS_HOLD)
    batch = make_batch([(i, "x" * 1000, 1.0) for i in range(MORE_THAN_BUFFERS_HOLD // 1000)])
    with slow_reader() as url, within_s(20), pytest.raises(OutputUnavailable):
        make_api(url, timeout_s=0.5).write(batch)


def test_connections_are_used_again(make_api: MakeApi, api_server: ApiServer) -> None:
    output = make_api()

    for window in range(5):
        output.write(usual_batch(window=window))

    assert len({delivery.client_port for delivery in api_server.deliveries()}) == 1


@pytest.mark.parametrize("variable", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_the_authority_that_was_set_is_not_replaced_by_one_from_the_environment(
    variable: str, make_api: MakeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = make_api("https://127.0.0.1:1/ecg", ca_file=str(tmp_path / "ours.pem"))
    asked: list[object] = []

    def send(request: object, **options: object) -> None:
        asked.append(options["verify"])
        raise requests.ConnectionError

    monkeypatch.setenv(variable, str(tmp_path / "theirs.pem"))
    monkeypatch.setattr(output._session.get_adapter("https://"), "send", send)
    with pytest.raises(OutputUnavailable):
        output.write(usual_batch())

    assert asked == [str(tmp_path / "ours.pem")]
