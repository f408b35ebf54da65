"""InfluxDB: what the real server makes of our line protocol, and what we make of its refusals."""

from __future__ import annotations

import dataclasses
import itertools
import re
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from anonymizer.batch import Batch
from anonymizer.errors import OutputDenied, OutputError, OutputUnavailable
from outputs.encoding import summary_of, value_texts
from outputs.influx_lines import Lines
from outputs.influxdb import InfluxOutput, InfluxTarget, encode_rows, encode_summary
from tests.conftest import Bucket
from tests.outputs.batches import START_S, TAG_TEXTS, Row, make_batch, rows_of, usual_batch
from tests.servers.socket_server import Serve, http_answer
from transport.influx_connection import Address, InfluxConnection, InfluxFault

#: Everything that means something in line protocol, in Flux or in a regular expression, and a few that do not.
SPECIAL = ("\\", ",", " ", "=", '"', "$", "{", "'", "#", "\t", "\r", "\n", "\0", "a", "é")

#: Alone, in pairs, and in pairs between letters.
ODD_TEXTS = (
    *SPECIAL,
    *map("".join, itertools.product(SPECIAL, repeat=2)),
    *(f"a{first}{second}b" for first, second in itertools.product(SPECIAL, repeat=2)),
    "time",
    "_time",
    "_field",
    "_measurement",
    "_value",
)


class RecordingConnection(InfluxConnection):
    """Notes what is written, and stores it or fails."""

    def __init__(self, bucket: Bucket | None = None, *faults: InfluxFault) -> None:
        super().__init__(
            Address(url=bucket.server.url if bucket else "http://127.0.0.1:1", org="testbed"),
            lambda: bucket.write_token if bucket else "t",
        )
        self._stores = bucket is not None
        self.faults = list(faults)
        self.most_bytes = 10**9
        self.requests: list[bytes] = []

    def ping(self) -> None:
        if self._stores:
            super().ping()

    def write(self, bucket: str, lines: bytes | memoryview) -> None:
        if self.faults:
            raise self.faults.pop(0)
        if len(lines) > self.most_bytes:
            raise InfluxFault("413 Request Entity Too Large", status=413)
        self.requests.append(bytes(lines))
        if self._stores:
            super().write(bucket, lines)


def target_in(bucket: str, **names: Any) -> InfluxTarget:
    usual: dict[str, Any] = {"measurement": "ecg", "field": "ecg", "source_tag": "source_id"}
    return InfluxTarget(bucket=bucket, lines_per_write=4, **{**usual, **names})


@pytest.fixture
def connections() -> Iterator[list[InfluxConnection]]:
    """Connections to be closed at the end."""
    made: list[InfluxConnection] = []
    yield made
    for connection in made:
        connection.close()


def output_to(
    bucket: Bucket,
    connections: list[InfluxConnection],
    *,
    token: str | None = None,
    org: str = "testbed",
    name: str | None = None,
) -> InfluxOutput:
    address = Address(url=bucket.server.url, org=org)
    connections.append(InfluxConnection(address, lambda: bucket.write_token if token is None else token))
    return InfluxOutput(connections[-1], target_in(name or bucket.name))


def series_in(bucket: Bucket) -> list[dict[str, Any]]:
    """Return all series as the InfluxQL interface gives them, in JSON: no escape of line protocol, Flux or CSV is involved."""
    question = {"db": bucket.name, "q": "SELECT * FROM /.*/ GROUP BY *", "epoch": "ns"}
    (result,) = bucket.server.ask("GET", "/query", params=question).json()["results"]
    return list(result.get("series", ()))


def values_in(bucket: Bucket) -> dict[str, list[tuple[dict[str, str], dict[str, Any]]]]:
    """Return by measurement the tags and fields of every point, without those that other series have."""
    found: dict[str, list[tuple[dict[str, str], dict[str, Any]]]] = {}
    for series in series_in(bucket):
        tags = {tag: value for tag, value in series.get("tags", {}).items() if value}
        for values in series["values"]:
            fields = {name: value for name, value in zip(series["columns"], values, strict=True) if value is not None}
            found.setdefault(series["name"], []).append((tags, fields))
    return found


# --- what is written ------------------------------------------------------------------------------------------------------------


def test_a_row_is_a_line_with_its_value_as_a_float_and_its_time_in_nanoseconds() -> None:
    batch = make_batch([(0, "ward 3, bed=4", -145.0), (1, 'b"\\x', 2.5)])

    lines = encode_rows(batch, target_in("bucket", measurement="my ecg", field="m=V", source_tag="the tag")).decode()

    assert lines == (
        r"my\ ecg_anonymized,the\ tag=ward\ 3\,\ bed\=4 m\=V=-145.0 1762180200000000000" + "\n"
        r'my\ ecg_anonymized,the\ tag=b"\x m\=V=2.5 1762180200000000001' + "\n"
    )


VALUES_UV = st.integers(-4100, 4100).map(float) | st.sampled_from([-0.0, 0.5, -145.25, 1 / 3, 1e15, -2.2250738585072014e-308])


@given(st.data(), st.lists(st.text("abcé心", min_size=1, max_size=9), min_size=1, max_size=5, unique=True), st.booleans())
def test_lines_are_those_of_plain_python_at_any_time(data: st.DataObject, ids: list[str], are_recent: bool) -> None:
    earliest_ns = st.sampled_from([-(2**63) + 1, 0, 10**18 - 2]) if not are_recent else st.just(10**18)
    times_ns = earliest_ns.flatmap(lambda first_ns: st.integers(first_ns, 2**63 - 1) | st.integers(first_ns, first_ns + 3))
    rows = data.draw(st.lists(st.tuples(times_ns, st.integers(0, len(ids) - 1), VALUES_UV), max_size=40))
    times, codes, values = zip(*rows, strict=True) if rows else ((), (), ())
    batch = dataclasses.replace(
        usual_batch(),
        times_ns=np.array(times, dtype=np.int64),
        source_index=np.array(codes, dtype=np.int32),
        source_ids=tuple(ids),
        values_uv=np.array(values, dtype=np.float64),
    )

    lines = encode_rows(batch, target_in("bucket")).decode()

    expected = [
        f"ecg_anonymized,source_id={ids[code]} ecg={text} {time_ns}\n"
        for time_ns, code, text in sorted(
            zip(times, codes, value_texts(batch.values_uv).to_pylist(), strict=True), key=lambda row: row[1]
        )
    ]
    assert lines == "".join(expected)


@pytest.mark.parametrize(("rows", "lines"), [(1, [1, 1]), (4, [4, 1]), (5, [4, 1, 1]), (8, [4, 4, 1]), (10, [4, 4, 2, 1])])
def test_no_request_has_more_lines_than_asked_and_the_summary_comes_last(rows: int, lines: list[int]) -> None:
    connection = RecordingConnection()
    batch = usual_batch(rows=rows)

    InfluxOutput(connection, target_in("bucket")).write(batch)

    text = encode_rows(batch, target_in("bucket"))
    # Two are under way at a time, so they may come in another order.
    requests = [*sorted(connection.requests[:-1], key=text.index), connection.requests[-1]]
    assert [request.count(b"\n") for request in requests] == lines
    assert b"".join(requests[:-1]) == text
    assert requests[-1] == encode_summary(batch, target_in("bucket"))


@pytest.mark.parametrize("batches_at_once", [1, 2])
def test_two_requests_are_under_way_at_a_time_however_many_batches_are_and_the_summary_comes_last(batches_at_once: int) -> None:
    two_are_there = threading.Barrier(2, timeout=60)
    under_way: list[bytes] = []
    most = 0

    class Watched(RecordingConnection):
        def write(self, bucket: str, lines: bytes | memoryview) -> None:
            nonlocal most
            text = bytes(lines)
            under_way.append(text)
            most = max(most, len(under_way))
            if b"_windows" not in text:
                two_are_there.wait()
            time.sleep(0.02)  # for any third one to come
            super().write(bucket, lines)
            under_way.remove(text)

    output = InfluxOutput(Watched(), target_in("bucket"))
    batches = [usual_batch(window=window, rows=16) for window in range(batches_at_once)]
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(output.write, batches))

    assert most == 2
    for batch in batches:
        requests = output._connection.requests  # type: ignore[attr-defined]
        rows = [request for request in requests if request in encode_rows(batch, target_in("bucket"))]
        assert len(rows) == 4
        assert requests.index(encode_summary(batch, target_in("bucket"))) > max(map(requests.index, rows))


def test_a_large_window_is_encoded_request_by_request_while_earlier_ones_are_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    encoded: list[int] = []
    three_are_encoded = threading.Event()
    of = Lines.of

    def noted(lines: Lines, picked: Any) -> memoryview:
        text = of(lines, picked)
        encoded.append(bytes(text).count(b"\n"))
        if len(encoded) == 3:
            three_are_encoded.set()
        return text

    monkeypatch.setattr(Lines, "of", noted)
    encoded_when_sent: list[int] = []

    class Watched(RecordingConnection):
        def write(self, bucket: str, lines: bytes | memoryview) -> None:
            three_are_encoded.wait(timeout=60)
            time.sleep(0.02)  # for any fourth one to be encoded
            encoded_when_sent.append(len(encoded))
            super().write(bucket, lines)

    batch = usual_batch(rows=40)
    output = InfluxOutput(Watched(), target_in("bucket"))

    output.write(batch)

    assert encoded == [4] * 10
    assert encoded_when_sent[0] == 3, "two requests are sent, and the text of one more is ready"
    requests = output._connection.requests  # type: ignore[attr-defined]
    assert sorted(b"".join(requests[:-1]).splitlines()) == sorted(encode_rows(batch, target_in("bucket")).splitlines())


@pytest.mark.influxdb
def test_every_text_a_source_id_may_hold_is_stored_as_it_is(output_bucket: Bucket) -> None:
    storable = [text for text in ODD_TEXTS if "\n" not in text and not text.endswith("\\")]
    triples = ["".join(three) + "x" for three in itertools.product('\\, ="', repeat=3)]
    batch = make_batch([(i, source_id, 1.0) for i, source_id in enumerate(dict.fromkeys([*storable, *triples]))])

    output_bucket.write(encode_rows(batch, target_in(output_bucket.name)))

    stored = [
        Row(fields["time"], tags["source_id"], fields["ecg"]) for tags, fields in values_in(output_bucket)["ecg_anonymized"]
    ]
    assert sorted(stored) == rows_of(batch)


def test_an_id_that_cannot_be_written_does_not_keep_the_windows_without_it_from_being_written() -> None:
    connection = RecordingConnection()

    InfluxOutput(connection, target_in("bucket")).write(make_batch([(0, "a", 1.0)], all_ids=("a", "line\nend", "back\\")))

    assert b"source_id=a ecg=1.0" in connection.requests[0]


@pytest.mark.influxdb
@pytest.mark.parametrize("name", ["measurement", "field", "source_tag"])
def test_a_name_is_either_refused_at_the_start_or_stored_as_it_is(name: str, output_bucket: Bucket) -> None:
    batch = make_batch([(0, "x", 0.5), (1, "y", 1.5)])
    targets = {}
    lines = []
    for number, text in enumerate(ODD_TEXTS):
        target = target_in(output_bucket.name, **{"measurement": f"m{number}", name: text})
        if _is_accepted(target):
            targets[text] = target
            lines.append(encode_rows(batch, target))

    output_bucket.write(b"".join(lines))

    stored = values_in(output_bucket)
    assert len(targets) > len(ODD_TEXTS) / 2
    for text, target in targets.items():
        assert stored.get(f"{target.measurement}_anonymized") == [
            ({target.source_tag: "x"}, {"time": START_S * 10**9, target.field: 0.5}),
            ({target.source_tag: "y"}, {"time": START_S * 10**9 + 1, target.field: 1.5}),
        ], repr(text)


def _is_accepted(target: InfluxTarget) -> bool:
    try:
        InfluxOutput(RecordingConnection(), target).open({})
    except OutputDenied:
        return False
    return True


@pytest.mark.parametrize(
    ("setting", "names"),
    [
        ("INFLUX_MEASUREMENT", {"measurement": "#ecg"}),
        ("INFLUX_FIELD", {"field": "time"}),
        ("SOURCE_TAG", {"source_tag": "wearer\\"}),
    ],
)
def test_a_name_under_which_rows_would_silently_be_lost_is_named(setting: str, names: dict[str, str]) -> None:
    with pytest.raises(OutputDenied, match=setting):
        InfluxOutput(RecordingConnection(), target_in("bucket", **names)).open({})


# --- the summary ----------------------------------------------------------------------------------------------------------------


@pytest.mark.influxdb
def test_the_summary_is_one_point_at_the_start_of_the_window_and_values_are_floats_counts_integers_and_texts_strings(
    output_bucket: Bucket, connections: list[InfluxConnection]
) -> None:
    batch, output = usual_batch(), output_to(output_bucket, connections)
    output.open({})
    assert series_in(output_bucket) == [], "opening stores nothing and needs no right to read"

    output.write(batch)
    output.write(batch)

    assert values_in(output_bucket)["ecg_anonymized_windows"] == [({}, {"time": batch.window.start_ns, **summary_of(batch)})]
    question = {"db": output_bucket.name, "q": "SHOW FIELD KEYS"}
    (result,) = output_bucket.server.ask("GET", "/query", params=question).json()["results"]
    types = {series["name"]: dict(series["values"]) for series in result["series"]}
    kinds = {bool: "boolean", int: "integer", str: "string"}
    assert types["ecg_anonymized"] == {"ecg": "float"}
    assert types["ecg_anonymized_windows"] == {name: kinds[type(value)] for name, value in summary_of(batch).items()}


@pytest.mark.influxdb
@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=st.lists(TAG_TEXTS, min_size=12, max_size=24))
def test_summaries_of_cohorts_are_points_of_their_own_whatever_tag_and_value_are_called(
    output_bucket: Bucket, texts: list[str]
) -> None:
    batch, measurement = usual_batch(), f"m{uuid4().hex}"
    cohorts = {(f"t{tag}", value) for tag, value in zip(texts[::2], texts[1::2], strict=False)}
    targets = [target_in(output_bucket.name, measurement=measurement, summary_tags=(cohort,)) for cohort in cohorts]

    output_bucket.write(b"".join(encode_summary(batch, target) for target in [*targets, *targets]))

    stored = values_in(output_bucket)[f"{measurement}_anonymized_windows"]
    summary = {"time": batch.window.start_ns, **summary_of(batch)}
    assert sorted(stored, key=str) == sorted((({tag: value}, summary) for tag, value in cohorts), key=str)


@pytest.mark.influxdb
def test_a_window_without_all_its_rows_has_no_summary(output_bucket: Bucket) -> None:
    connection = RecordingConnection(output_bucket)
    output = InfluxOutput(connection, target_in(output_bucket.name))
    connection.most_bytes = 1000
    output.write(usual_batch(window=0, rows=10))
    connection.faults = [InfluxFault("no answer in time")]

    with pytest.raises(OutputUnavailable):
        output.write(usual_batch(window=1, rows=10))

    assert [fields["time"] for _, fields in values_in(output_bucket)["ecg_anonymized_windows"]] == [START_S * 10**9]
    connection.close()


# --- several windows at a time --------------------------------------------------------------------------------------------------


@pytest.mark.influxdb
def test_windows_are_stored_together_in_full_requests_and_then_their_summaries_in_one(output_bucket: Bucket) -> None:
    connection, target = RecordingConnection(output_bucket), target_in(output_bucket.name)
    batches = [usual_batch(window=window, rows=rows) for window, rows in enumerate((6, 1, 2))]

    assert InfluxOutput(connection, target).write_together(batches)

    *rows, summaries = connection.requests
    assert [len(request.splitlines()) for request in rows] == [3, 3, 3], "four lines at most"
    lines = [line for batch in batches for line in encode_rows(batch, target).splitlines()]
    assert b"".join(rows).splitlines() == sorted(lines, key=_source_of_line), "each source's lines are together, in order of time"
    assert summaries == b"".join(encode_summary(batch, target) for batch in batches)
    assert len(values_in(output_bucket)["ecg_anonymized"]) == 9
    connection.close()


@given(
    st.lists(
        st.lists(st.tuples(st.integers(0, 4999), st.sampled_from("abcä")), min_size=1, max_size=6, unique=True),
        min_size=1,
        max_size=4,
    ),
    st.integers(1, 9),
)
def test_lines_of_several_windows_are_those_of_each_whatever_sources_they_have(
    windows: list[list[tuple[int, str]]], lines_per_write: int
) -> None:
    batches = [
        make_batch([(offset_ns, source_id, float(offset_ns)) for offset_ns, source_id in rows], window=window)
        for window, rows in enumerate(windows)
    ]
    connection, target = RecordingConnection(), dataclasses.replace(target_in("bucket"), lines_per_write=lines_per_write)

    assert InfluxOutput(connection, target).write_together(batches)

    lines = [line for batch in batches for line in encode_rows(batch, target).splitlines()]
    sent = b"".join(connection.requests[:-1]).splitlines()
    assert sorted(sent) == sorted(lines)
    for source in {_source_of_line(line) for line in lines}:
        assert [line for line in sent if _source_of_line(line) == source] == [
            line for line in lines if _source_of_line(line) == source
        ]
    assert all(len(request.splitlines()) <= lines_per_write for request in connection.requests[:-1])


def _source_of_line(line: bytes) -> bytes:
    return line.partition(b" ")[0]


@pytest.mark.parametrize("status", [400, 413, 422])
@pytest.mark.parametrize("good_requests", [0, 1, 3], ids=["rows", "more rows", "summaries"])
def test_windows_of_which_something_is_refused_are_not_stored_together(status: int, good_requests: int) -> None:
    connection = RecordingConnection()
    really_write = connection.write

    def write(bucket: str, lines: bytes | memoryview) -> None:
        if len(connection.requests) == good_requests:
            raise InfluxFault(f"{status} not that", status=status)
        really_write(bucket, lines)

    connection.write = write  # type: ignore[method-assign]
    batches = [usual_batch(window=window) for window in range(2)]

    assert not InfluxOutput(connection, target_in("bucket")).write_together(batches)


def test_windows_with_an_id_that_cannot_be_written_are_not_stored_together() -> None:
    connection = RecordingConnection()
    batches = [usual_batch(), make_batch([(0, "a\nb", 1.0), (1, "a\nb", 1.0)], window=1)]

    assert not InfluxOutput(connection, target_in("bucket")).write_together(batches)
    assert connection.requests == []


def test_windows_that_cannot_be_stored_together_now_come_again() -> None:
    connection = RecordingConnection(None, InfluxFault("503 busy", status=503, retry_after_s=7.0))
    output, batches = InfluxOutput(connection, target_in("bucket")), [usual_batch(window=window) for window in range(2)]

    with pytest.raises(OutputUnavailable):
        output.write_together(batches)

    assert output.write_together(batches)


# --- refusals -------------------------------------------------------------------------------------------------------------------


WRONG = [
    ({"token": "wrong"}, 401),
    ({"token": ""}, 401),
    ({"token": "read"}, 403),
    ({"org": "nobody"}, 404),
    ({"name": "none"}, 404),
]


@pytest.mark.influxdb
@pytest.mark.parametrize(("wrong", "status"), WRONG, ids=str)
def test_a_wrong_token_organization_or_bucket_is_noticed_at_the_start_and_later(
    wrong: dict[str, str], status: int, output_bucket: Bucket, connections: list[InfluxConnection]
) -> None:
    if wrong.get("token") == "read":
        wrong = {"token": output_bucket.read_token}
    output = output_to(output_bucket, connections, **wrong)

    asks: list[Callable[[], object]] = [lambda: output.open({}), lambda: output.write(usual_batch())]
    for ask in asks:
        with pytest.raises(OutputDenied, match=rf"\({status} .*check .*INFLUX_OUTPUT_TOKEN.*INFLUX_OUTPUT_BUCKET"):
            ask()


@pytest.mark.parametrize(
    ("fault", "kind", "retry_after_s"),
    [
        (InfluxFault("429 slow down", status=429, retry_after_s=7.0), OutputUnavailable, 7.0),
        (InfluxFault("503 busy", status=503, retry_after_s=600.0), OutputUnavailable, 600.0),
        (InfluxFault("500 oops at 'ecg_anonymized,source_id=patient-7 ecg=1.0 1'", status=500), OutputUnavailable, None),
        (InfluxFault("500 lost ecg_anonymized,source_id=patient-7", status=500), OutputUnavailable, None),
        (InfluxFault("no answer in time"), OutputUnavailable, None),
        (InfluxFault("405 what?", status=405), OutputDenied, None),
        (InfluxFault("302 elsewhere", status=302), OutputDenied, None),
        (InfluxFault("the answer to a write was 200", status=200), OutputDenied, None),
    ],
    ids=lambda value: str(value) if isinstance(value, InfluxFault) else "",
)
def test_a_status_says_whether_to_wait_to_set_aside_or_to_stop(
    fault: InfluxFault, kind: type[OutputError], retry_after_s: float | None
) -> None:
    with pytest.raises(OutputError) as raised:
        InfluxOutput(RecordingConnection(None, fault), target_in("bucket")).write(usual_batch())

    assert type(raised.value) is kind
    assert getattr(raised.value, "retry_after_s", None) == retry_after_s
    assert "patient" not in str(raised.value)


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_server_that_refuses_the_probe_is_not_taken_for_one_that_refuses_a_batch(status: int) -> None:
    connection = RecordingConnection(None, InfluxFault(f"{status} what is this?", status=status))

    with pytest.raises(OutputDenied, match=r"INFLUX_OUTPUT_URL"):
        InfluxOutput(connection, target_in("bucket")).open({})


def test_a_web_page_that_answers_200_has_stored_nothing(serve: Serve) -> None:
    server = serve([http_answer("200 OK", b"<html>Please log in</html>")])
    connection = InfluxConnection(Address(url=server.url, org="testbed"), lambda: "token")

    with pytest.raises(OutputDenied, match=r"200, not InfluxDB's 204"):
        InfluxOutput(connection, target_in("bucket")).write(usual_batch())
    connection.close()


# --- requests that are too large ------------------------------------------------------------------------------------------------


@pytest.mark.influxdb
@pytest.mark.parametrize("rows", [1, 2, 7, 8])
def test_a_request_that_is_too_large_is_halved_until_it_fits(rows: int, output_bucket: Bucket) -> None:
    connection = RecordingConnection(output_bucket)
    connection.most_bytes = len(encode_summary(usual_batch(rows=rows), target_in(output_bucket.name)))
    batch = make_batch([(i, f"{i}" * 300, 1.0) for i in range(rows)])

    InfluxOutput(connection, target_in(output_bucket.name)).write(batch)

    stored = [
        Row(fields["time"], tags["source_id"], fields["ecg"]) for tags, fields in values_in(output_bucket)["ecg_anonymized"]
    ]
    assert sorted(stored) == rows_of(batch)
    assert all(len(re.findall(rb"\n", request)) <= 2 for request in connection.requests)
    connection.close()


def test_a_batch_repeats_its_bytes_exactly() -> None:
    def requests_of(batch: Batch) -> list[bytes]:
        connection = RecordingConnection()
        InfluxOutput(connection, target_in("bucket")).write(batch)
        # Two are sent at a time, so that their order is not fixed.
        return sorted(connection.requests)

    assert requests_of(usual_batch(rows=10)) == requests_of(usual_batch(rows=10))
