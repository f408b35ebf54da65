"""The InfluxDB source against the real server: all rows, only those asked for, exactly; and a sentence for everything else."""

from __future__ import annotations

import hashlib
import random
import re
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any
from uuid import uuid4

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from anonymizer.anonymize import Recipe
from anonymizer.cohorts import Cohort
from anonymizer.errors import SourceDenied, SourceError, SourceRefused, SourceUnavailable
from anonymizer.samples import NO_SOURCE, Samples
from anonymizer.windows import HOUR_NS, NANOSECONDS, Window, WindowRange
from inputs import influx_source as influxdb
from inputs.flux_csv import FluxError, read_tables
from inputs.influx_dialect import InfluxSeries
from inputs.influx_source import InfluxSource
from service.pipeline.chunks import Chunk, finish_chunk
from testbed.influxdb_server import InfluxServer
from tests.conftest import Bucket
from tests.outputs.batches import ODD_IDS, TAG_TEXTS
from tests.servers.socket_server import Serve, http_answer
from tests.transport.answers import whole_answer
from transport.influx_connection import Address, InfluxConnection, InfluxFault

#: 2025-11-03T14:00:00Z, a whole hour.
HOUR_START_NS = 1_762_178_400 * NANOSECONDS

#: The first ten seconds of it.
TEN_SECONDS = WindowRange(HOUR_START_NS, HOUR_START_NS + 10 * NANOSECONDS, 5 * NANOSECONDS)

#: Possible names of a measurement, field or tag; line protocol can carry all of these.
ODD_NAMES: tuple[str, ...] = (
    "two words",
    "a,b",
    "a=b",
    'say "hello"',
    '"',
    "it's",
    "${x}",
    "${",
    "$",
    "back\\slash",
    "心電図",
    "a|b>c",
    "r._value",
)
ODD_NAMES += ("/* */", "// no comment", "%", "carriage\rreturn", "tab\there")

#: What an attacker might call one: each tries to end the string it is put into.
HOSTILE = (
    'x" or "1" == "1',
    'x") or (true',
    'x")) |> drop(columns: ["source_id"]) //',
    'x\\" or true //',
    'x\\\\" or true //',
    '${"x" + "y"}',
    'x" or r["_measurement"] == "secret',
    '"]) |> group() |> union(tables: [from(bucket: "secret',
)

MakeSource = Callable[..., InfluxSource]

pytestmark = pytest.mark.influxdb


@pytest.fixture
def make_source(raw_bucket: Bucket) -> Iterator[MakeSource]:
    """What makes a source of the bucket, closed at the end."""
    made: list[InfluxSource] = []
    server = raw_bucket.server

    def make(
        *,
        url: str = server.url,
        org: str = server.org,
        org_setting: str = "INFLUX_ORG",
        token: str = raw_bucket.read_token,
        is_open: bool = False,
        **changes: Any,
    ) -> InfluxSource:
        usual = {"bucket": raw_bucket.name, "measurement": "ecg", "field": "ecg", "source_tag": "source_id"}
        connection = InfluxConnection(Address(url=url, org=org, org_setting=org_setting, timeout_s=30.0), lambda: token)
        made.append(InfluxSource(connection, InfluxSeries(**{**usual, **changes})))
        if is_open:
            made[-1].open()
        return made[-1]

    yield make
    for source in made:
        source.close()


def line(
    time_ns: int,
    value: str,
    *,
    measurement: str = "ecg",
    field: str = "ecg",
    tags: Iterable[tuple[str, str]] = (("source_id", "a"),),
) -> bytes:
    """Return one point in line protocol."""

    def escaped(text: str, special: str) -> str:
        return re.sub(f"([{special}])", r"\\\1", text)

    head = ",".join([escaped(measurement, ", "), *(f"{escaped(tag, ',= ')}={escaped(text, ',= ')}" for tag, text in tags)])
    return f"{head} {escaped(field, ',= ')}={value} {time_ns}\n".encode()


def rows_of(samples: Samples) -> list[tuple[int, str | None, float]]:
    """Return time, source and value of each row, sorted."""
    ids = [*samples.source_ids, None]
    columns = samples.times_ns.tolist(), samples.source_codes.tolist(), samples.values_uv.tolist()
    return sorted((time_ns, ids[code], value) for time_ns, code, value in zip(*columns, strict=True))


# --- values ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("suffix", "values"),
    [
        ("i", [0, 1, -1, 32_767, -32_768, 2**31, -(2**53), 2**53, 2**63 - 1, -(2**63)]),
        ("u", [0, 1, 65_535, 2**53, 2**64 - 1]),
        ("", [0.0, 1.0, -1.0, 0.5, 1 / 3, -145.25, 5e-324, 1.7976931348623157e308, 2.0**53 + 2, 1e-7, 123456789.123456789, 1e21]),
    ],
    ids=["integers", "unsigned", "floats"],
)
def test_every_value_is_read_exactly(suffix: str, values: list[float], raw_bucket: Bucket, make_source: MakeSource) -> None:
    chance = random.Random(len(suffix))
    if not suffix:
        values = [*values, *(chance.uniform(-5000, 5000) for _ in range(500))]
    raw_bucket.write(b"".join(line(HOUR_START_NS + i, f"{value!r}{suffix}") for i, value in enumerate(values)))

    samples = make_source().read(TEN_SECONDS)

    assert rows_of(samples) == [(HOUR_START_NS + i, "a", float(value)) for i, value in enumerate(values)]


def test_millivolts_become_microvolts(raw_bucket: Bucket, make_source: MakeSource) -> None:
    raw_bucket.write(line(HOUR_START_NS, "-0.145") + line(HOUR_START_NS + 1, "1"))

    assert make_source(microvolts_per_unit=1000.0).read(TEN_SECONDS).values_uv.tolist() == [-145.0, 1000.0]


def test_a_field_that_changes_its_type_with_the_hour_is_read_and_counted_whole(
    influxdb: InfluxServer, make_source: MakeSource
) -> None:
    influxdb.make_bucket("shards-of-an-hour", shard_group_s=3600)
    kinds = ["i", ".0", "u", ".5"]
    lines = [
        line(HOUR_START_NS + hour * HOUR_NS + i * NANOSECONDS, f"{i}{kind}") for hour, kind in enumerate(kinds) for i in range(50)
    ]
    influxdb.write_lines("shards-of-an-hour", b"".join(lines))
    windows = WindowRange(HOUR_START_NS, HOUR_START_NS + 4 * HOUR_NS, 10 * NANOSECONDS)

    source = make_source(bucket="shards-of-an-hour", token=influxdb.token)

    assert source.count(windows).sum() == len(source.read(windows)) == 200


YEAR_NS = 365 * 24 * HOUR_NS


def test_the_next_row_of_ten_empty_years_is_found_with_a_few_questions(raw_bucket: Bucket, make_source: MakeSource) -> None:
    source, first_ns, stop_ns = make_source(is_open=True), HOUR_START_NS - 10 * YEAR_NS, HOUR_START_NS + HOUR_NS
    raw_bucket.write(
        line(first_ns + 5, "1.5")
        + line(HOUR_START_NS + 7, "1.5", tags=[("source_id", "b")])
        + line(HOUR_START_NS, "2.5", field="ppg")
    )

    began_s = time.monotonic()
    found = [source.next_row_ns(*span) for span in ((first_ns, stop_ns), (first_ns + 6, stop_ns), (HOUR_START_NS + 8, stop_ns))]
    took_s = time.monotonic() - began_s

    assert found == [first_ns + 5, HOUR_START_NS + 7, None]
    assert source.next_row_ns(first_ns + 6, HOUR_START_NS + 7) is None, "the end is not asked for"
    assert make_source(sources=("a",)).next_row_ns(HOUR_START_NS - HOUR_NS, stop_ns) is None, "nor are other sources"
    assert took_s < 60

    many = tuple(f"wearer-{number}" for number in range(100))
    of_many = make_source(sources=(*many, "b"), is_open=True)
    began_s = time.monotonic()
    assert of_many.next_row_ns(first_ns + 6, stop_ns) == HOUR_START_NS + 7
    assert time.monotonic() - began_s < 60, "a long DEVICE_FILTER makes no long question"


def test_where_shard_groups_are_unknown_hours_are_asked_for_and_an_answer_comes_now_and_then(
    raw_bucket: Bucket, make_source: MakeSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(influxdb, "_MOST_ASKED", 20)
    source, stop_ns = make_source(), HOUR_START_NS + 100 * HOUR_NS
    raw_bucket.write(line(HOUR_START_NS + 60 * HOUR_NS, "1.5"))

    found = [HOUR_START_NS]
    while (found_ns := source.next_row_ns(found[-1], stop_ns)) is not None and found_ns != found[-1]:
        found.append(found_ns)

    # 1 + 4 + 16 hours in one call.
    assert found == [HOUR_START_NS + hours * HOUR_NS for hours in (0, 21, 42, 60)]


def test_no_row_is_stepped_over_where_the_field_changes_its_type_and_back(
    influxdb: InfluxServer, make_source: MakeSource
) -> None:
    influxdb.make_bucket("flips-by-the-week")
    week_ns = 7 * 24 * HOUR_NS
    monday_ns = HOUR_START_NS // week_ns * week_ns - 3 * 24 * HOUR_NS
    floats = [monday_ns + HOUR_NS, monday_ns + 30 * week_ns + 40 * HOUR_NS]
    whole_ns = monday_ns + 11 * week_ns + 3 * HOUR_NS
    influxdb.write_lines("flips-by-the-week", b"".join([line(whole_ns, "3i"), *(line(at_ns, "1.5") for at_ns in floats)]))
    source = make_source(bucket="flips-by-the-week", token=influxdb.token, is_open=True)

    # The server itself, asked for all of that, says that there is nothing: it follows the type of the first week.
    span = Window(floats[0] + 1, floats[1])
    question = f'from(bucket: "flips-by-the-week") |> range(start: time(v: {span.start_ns}), stop: time(v: {span.end_ns}))'
    assert influxdb.rows(f"{question} |> first()") == influxdb.rows(f"{question} |> last()") == []
    assert source.next_row_ns(span.start_ns, span.end_ns) == whole_ns


def test_no_row_is_stepped_over_in_shard_groups_that_are_shorter_than_the_bucket_now_says(
    influxdb: InfluxServer, make_source: MakeSource
) -> None:
    influxdb.make_bucket("groups-of-an-hour", shard_group_s=3600)
    influxdb.write_lines("groups-of-an-hour", line(HOUR_START_NS + 60, "3i") + line(HOUR_START_NS + HOUR_NS + 60, "1.5"))
    source = make_source(bucket="groups-of-an-hour", token=influxdb.token, is_open=True)
    source._shard_group_ns = 24 * HOUR_NS

    found_ns = source.next_row_ns(HOUR_START_NS + 61, HOUR_START_NS + 4 * HOUR_NS)

    assert found_ns is not None
    assert found_ns <= HOUR_START_NS + HOUR_NS + 60


@pytest.mark.parametrize("group_s", [3600, 24 * 3600])
def test_the_next_row_is_never_behind_the_first(group_s: int, influxdb: InfluxServer, make_source: MakeSource) -> None:
    bucket, chance = f"rows-of-any-type-{group_s}", random.Random(group_s)
    influxdb.make_bucket(bucket, shard_group_s=group_s)
    group_ns = group_s * NANOSECONDS
    first_ns = HOUR_START_NS // group_ns * group_ns
    times_ns = sorted(first_ns + chance.randrange(30 * group_ns) for _ in range(12))
    kinds = {number: chance.choice(["i", ".5", "u"]) for number in range(30)}
    influxdb.write_lines(bucket, b"".join(line(at_ns, f"1{kinds[(at_ns - first_ns) // group_ns]}") for at_ns in times_ns))
    source = make_source(bucket=bucket, token=influxdb.token, is_open=True)

    for start_ns in [first_ns, *(at_ns + more for at_ns in times_ns for more in (0, 1))]:
        expected = min((at_ns for at_ns in times_ns if at_ns >= start_ns), default=None)
        assert source.next_row_ns(start_ns, first_ns + 30 * group_ns) == expected


def test_what_retention_has_removed_long_ago_is_not_asked_for(influxdb: InfluxServer, make_source: MakeSource) -> None:
    influxdb.make_bucket("kept-for-an-hour", retention_s=3600)
    now_ns = time.time_ns()
    influxdb.write_lines("kept-for-an-hour", line(now_ns - 60 * NANOSECONDS, "1.5"))
    source = make_source(bucket="kept-for-an-hour", token=influxdb.token, is_open=True)

    began_s = time.monotonic()
    assert source.next_row_ns(0, now_ns) == now_ns - 60 * NANOSECONDS
    assert time.monotonic() - began_s < 30


@pytest.mark.parametrize(("value", "kind"), [('"high"', "string"), ("true", "boolean")])
def test_a_field_without_numbers_is_refused(value: str, kind: str, raw_bucket: Bucket, make_source: MakeSource) -> None:
    raw_bucket.write(line(HOUR_START_NS, value))

    with pytest.raises(SourceRefused, match=f"field 'ecg' of measurement 'ecg' holds {kind} values; numbers are needed"):
        make_source().read(TEN_SECONDS)


# --- which rows -----------------------------------------------------------------------------------------------------------------


def test_a_range_includes_its_start_and_excludes_its_end(raw_bucket: Bucket, make_source: MakeSource) -> None:
    start_ns, end_ns = TEN_SECONDS.start_ns, TEN_SECONDS.end_ns
    times_ns = [start_ns - 1, start_ns, start_ns + 5 * NANOSECONDS - 1, start_ns + 5 * NANOSECONDS, end_ns - 1, end_ns]
    raw_bucket.write(b"".join(line(time_ns, "1.0") for time_ns in times_ns))
    source = make_source()

    assert source.read(TEN_SECONDS).times_ns.tolist() == times_ns[1:-1]
    assert source.count(TEN_SECONDS).tolist() == [2, 2]
    for time_ns in times_ns:
        (window,) = (WindowRange(time_ns // NANOSECONDS * NANOSECONDS, (time_ns // NANOSECONDS + 1) * NANOSECONDS, NANOSECONDS),)
        assert time_ns in source.read(window).times_ns


@pytest.mark.parametrize("length_s", [1, 5, 7, 3600, 7200])
def test_as_many_rows_are_counted_as_are_read_in_every_window(length_s: int, raw_bucket: Bucket, make_source: MakeSource) -> None:
    chance = np.random.default_rng(length_s)
    span_ns = 200 * NANOSECONDS
    middle_ns = HOUR_START_NS + HOUR_NS
    edges = [middle_ns - 1, middle_ns, middle_ns + 1, middle_ns - 7 * NANOSECONDS, middle_ns + 7 * NANOSECONDS]
    times_ns = np.unique([*(middle_ns + chance.integers(-span_ns, span_ns, 2000)), *edges])
    names = [f"source-{i}" for i in chance.integers(0, 5, len(times_ns))]
    raw_bucket.write(b"".join(line(int(t), "1.5", tags=[("source_id", name)]) for t, name in zip(times_ns, names, strict=True)))
    length_ns = length_s * NANOSECONDS
    first_ns, last_ns = ((middle_ns + offset_ns) // length_ns * length_ns for offset_ns in (-span_ns, span_ns))
    windows = WindowRange(first_ns - length_ns, last_ns + 2 * length_ns, length_ns)
    source = make_source()

    counted, read = source.count(windows), source.read(windows)

    assert counted.tolist() == np.bincount(windows.index_of(times_ns), minlength=len(windows)).tolist()
    assert sorted(read.times_ns.tolist()) == times_ns.tolist()
    assert read.source_ids == tuple(f"source-{i}" for i in range(5))


def test_other_measurements_and_fields_are_left_alone_and_nothing_is_read_where_there_is_nothing(
    raw_bucket: Bucket, make_source: MakeSource
) -> None:
    raw_bucket.write(
        line(HOUR_START_NS, "2.0", field="ppg")
        + line(HOUR_START_NS, "3.0", measurement="ecg2")
        + line(HOUR_START_NS, '"note"', measurement="ecg", field="text")
    )
    source = make_source()
    assert len(source.read(TEN_SECONDS)) == 0
    assert source.count(TEN_SECONDS).tolist() == [0, 0]
    assert source.count(TEN_SECONDS.part(0, 0)).tolist() == []

    raw_bucket.write(line(HOUR_START_NS, "1.0"))
    assert rows_of(source.read(TEN_SECONDS)) == [(HOUR_START_NS, "a", 1.0)]


def test_a_row_without_the_tag_is_a_row_without_a_source_and_an_hour_of_them_stops_nothing(
    raw_bucket: Bucket, make_source: MakeSource
) -> None:
    raw_bucket.write(line(HOUR_START_NS, "1.0") + line(HOUR_START_NS + HOUR_NS, "2.0", tags=[("other", "x")]))
    two_hours = WindowRange(HOUR_START_NS, HOUR_START_NS + 2 * HOUR_NS, HOUR_NS)
    source = make_source()

    assert source.count(two_hours).tolist() == [1, 1]
    assert rows_of(source.read(two_hours)) == [(HOUR_START_NS, "a", 1.0), (HOUR_START_NS + HOUR_NS, None, 2.0)]
    assert source.read(two_hours.part(1, 2)).source_codes.tolist() == [NO_SOURCE]

    raw_bucket.write(line(HOUR_START_NS + 1, "2.0", tags=[("other", "x")]))
    both = source.read(TEN_SECONDS)
    assert (sorted(both.source_codes.tolist()), both.source_ids) == (sorted([0, NO_SOURCE]), ("a",))


def test_a_tag_that_is_not_there_is_refused_and_the_others_are_named(raw_bucket: Bucket, make_source: MakeSource) -> None:
    raw_bucket.write(line(HOUR_START_NS, "1.0", tags=[("device", "x"), ("lead", "I")]))

    with pytest.raises(
        SourceRefused, match=r"no tag 'source_id', so wearers could not be told apart; it has: 'device', 'lead'\."
    ):
        make_source().read(TEN_SECONDS)


# --- names ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["measurement", "field", "source_tag"])
def test_a_name_may_hold_anything_that_line_protocol_can_carry(place: str, raw_bucket: Bucket, make_source: MakeSource) -> None:
    # Of a tag's name the server's CSV drops carriage returns, so that one is refused as a tag that is not there.
    for number, name in enumerate(name for name in ODD_NAMES if place != "source_tag" or "\r" not in name):
        named = {"measurement": f"m{number}", "field": "f", "source_tag": "t", place: name}
        raw_bucket.write(
            line(HOUR_START_NS, "1.0", measurement=named["measurement"], field=named["field"], tags=[(named["source_tag"], "x")])
        )
        source = make_source(**named)

        assert rows_of(source.read(TEN_SECONDS)) == [(HOUR_START_NS, "x", 1.0)], name
        assert source.count(TEN_SECONDS).tolist() == [1, 0], name


@pytest.mark.parametrize(
    "name", ["two words", "a,b", "a=b", "it's", "${x}", "back\\slash", "心電図", "a/b", "x) |> limit(n: 0) //"]
)
def test_a_bucket_may_be_called_anything_the_server_allows(name: str, influxdb: InfluxServer, make_source: MakeSource) -> None:
    influxdb.make_bucket(name)
    influxdb.write_lines(name, line(HOUR_START_NS, "1.0"))

    source = make_source(bucket=name, token=influxdb.token, is_open=True)

    assert rows_of(source.read(TEN_SECONDS)) == [(HOUR_START_NS, "a", 1.0)]


def test_a_source_may_be_called_anything_and_be_asked_for_by_that_name(raw_bucket: Bucket, make_source: MakeSource) -> None:
    raw_bucket.write(b"".join(line(HOUR_START_NS + i, "1.0", tags=[("source_id", name)]) for i, name in enumerate(ODD_IDS)))

    assert rows_of(make_source().read(TEN_SECONDS)) == [(HOUR_START_NS + i, name, 1.0) for i, name in enumerate(ODD_IDS)]
    for i, name in enumerate(ODD_IDS):
        source = make_source(sources=(name, "nobody"))
        assert rows_of(source.read(TEN_SECONDS)) == [(HOUR_START_NS + i, name, 1.0)]
        assert source.count(TEN_SECONDS).tolist() == [1, 0]


def test_a_tag_may_be_called_anything_and_be_filtered_by(raw_bucket: Bucket, make_source: MakeSource) -> None:
    pairs = [(name, value) for name in ODD_NAMES[:6] for value in ODD_IDS]
    lines = [line(HOUR_START_NS + i, "1.0", tags=[pair, ("source_id", "a")]) for i, pair in enumerate(pairs)]
    raw_bucket.write(b"".join(lines))

    for i, pair in enumerate(pairs):
        assert make_source(tags=(pair,)).read(TEN_SECONDS).times_ns.tolist() == [HOUR_START_NS + i], pair


def test_several_filters_must_all_hold(raw_bucket: Bucket, make_source: MakeSource) -> None:
    for i, (source_id, lead, site) in enumerate(
        [("a", "I", "x"), ("a", "II", "x"), ("b", "I", "x"), ("c", "I", "x"), ("a", "I", "y")]
    ):
        raw_bucket.write(line(HOUR_START_NS + i, "1.0", tags=[("lead", lead), ("site", site), ("source_id", source_id)]))

    source = make_source(sources=("a", "b"), tags=(("lead", "I"), ("site", "x")))

    assert [row[:2] for row in rows_of(source.read(TEN_SECONDS))] == [(HOUR_START_NS, "a"), (HOUR_START_NS + 2, "b")]


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("place", ["bucket", "measurement", "field", "sources", "tag", "tag value", "source_tag"])
def test_no_text_can_leave_the_string_it_is_put_into(place: str, text: str, raw_bucket: Bucket, make_source: MakeSource) -> None:
    raw_bucket.write(line(HOUR_START_NS, "1.0") + line(HOUR_START_NS, "2.0", measurement="secret"))
    asked: dict[str, dict[str, object]] = {
        "sources": {"sources": (text,)},
        "tag": {"tags": ((text, "a"),)},
        "tag value": {"tags": (("source_id", text),)},
    }
    source = make_source(**asked.get(place, {place: text}))

    if place == "bucket":
        with pytest.raises(SourceDenied, match="does not exist or INFLUX_TOKEN may not read it"):
            source.read(TEN_SECONDS)
        return
    if place == "source_tag":
        with pytest.raises(SourceRefused, match="has no tag"):
            source.read(TEN_SECONDS)
    else:
        assert len(source.read(TEN_SECONDS)) == 0
    assert source.count(TEN_SECONDS).sum() == (1 if place == "source_tag" else 0)


# --- cohorts ----------------------------------------------------------------------------------------------------------------------


def cohort_of(tag: str, value: str) -> dict[str, object]:
    """Return what makes a source that of a cohort."""
    return {"cohort": Cohort(tag, value), "tags": ((tag, value),)}


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    tag=TAG_TEXTS.filter(lambda text: "@" not in text).map("t{}".format),
    values=st.lists(TAG_TEXTS, min_size=1, max_size=3, unique=True),
)
def test_each_cohort_holds_its_rows_and_no_other_whatever_its_tag_and_value_are_called(
    raw_bucket: Bucket, tag: str, values: list[str]
) -> None:
    # A measurement for each example: all share the bucket.
    measurement, cohorts = f"m{uuid4().hex}", ["", *values]
    lines = [
        line(HOUR_START_NS + i, f"{at}.0", measurement=measurement, tags=[("source_id", "a"), *([(tag, value)] if value else [])])
        for at, value in enumerate(cohorts)
        for i in range(at + 1)
    ]
    raw_bucket.write(b"".join(lines))
    server = raw_bucket.server
    connection = InfluxConnection(Address(url=server.url, org=server.org), lambda: raw_bucket.read_token)

    for at, value in enumerate(cohorts):
        series = InfluxSeries(
            bucket=raw_bucket.name,
            measurement=measurement,
            field="ecg",
            source_tag="source_id",
            cohort=Cohort(tag, value),
            tags=((tag, value),),
        )
        source = InfluxSource(connection, series)
        source.open()
        assert rows_of(source.read(TEN_SECONDS)) == [(HOUR_START_NS + i, "a", float(at)) for i in range(at + 1)]
        assert source.count(TEN_SECONDS).tolist() == [at + 1, 0]
        assert source.next_row_ns(HOUR_START_NS - HOUR_NS, HOUR_START_NS + HOUR_NS) == HOUR_START_NS
    connection.close()


def test_a_cohort_is_a_data_set_of_its_own_and_the_bucket_without_cohorts_keeps_its_name(
    raw_bucket: Bucket, make_source: MakeSource
) -> None:
    raw_bucket.write(line(HOUR_START_NS, "1.0", tags=[("source_id", "a"), ("ward", "3")]))
    whole = make_source(is_open=True).data_set

    labels = {
        (tag, value): make_source(is_open=True, **cohort_of(tag, value)).data_set
        for tag, value in (("ward", "3"), ("ward", "4"), ("ward", ""), ("site", "3"))
    }

    assert re.fullmatch("[0-9a-f]{12}", whole)
    assert len({whole, *labels.values()}) == 5
    # By sha256sum: ward 3 is 4e0740….
    digests = {text: hashlib.sha256(text.encode()).hexdigest()[:12] for text in ("ward", "site", "3", "4", "")}
    assert labels == {key: f"{whole}.{digests[key[0]]}.{digests[key[1]]}" for key in labels}


def test_a_tag_that_no_row_has_makes_no_cohort_of_all_rows(raw_bucket: Bucket, make_source: MakeSource) -> None:
    raw_bucket.write(line(HOUR_START_NS, "1.0", tags=[("source_id", "a"), ("ward", "3")]))

    with pytest.raises(
        SourceRefused, match="has no tag 'wrad'; it has: 'source_id', 'ward', so without COHORT this service would release"
    ):
        make_source(is_open=True, **cohort_of("wrad", ""))
    mistyped = make_source(is_open=True, **cohort_of("wrad", "3"))
    assert any("has no tag 'wrad'" in remark for remark in mistyped.remarks)
    assert mistyped.advice_when_empty() == "Measurement 'ecg' has no tag 'wrad'; it has: 'source_id', 'ward'. Set COHORT_TAG."
    assert "COHORT_TAG, COHORT, DEVICE_FILTER" in make_source(is_open=True, **cohort_of("ward", "9")).advice_when_empty()


def test_the_one_character_that_the_server_cannot_select_a_tag_by_is_the_one_that_is_refused(
    raw_bucket: Bucket, make_source: MakeSource
) -> None:
    raw_bucket.write(line(HOUR_START_NS, "1.0", tags=[("source_id", "a"), ("w@rd", "3")]))

    # When this fails, the server has learnt it, and settings may allow it.
    assert len(make_source(**cohort_of("w@rd", "3")).read(TEN_SECONDS)) == 0
    assert len(make_source(**cohort_of("w@rd", "")).read(TEN_SECONDS)) == 1


# --- two series -----------------------------------------------------------------------------------------------------------------


def test_two_series_of_one_source_and_time_contradict_each_other_until_one_is_chosen(
    raw_bucket: Bucket, make_source: MakeSource, recipe: Recipe
) -> None:
    leads = [
        line(HOUR_START_NS + i, f"{i + value}.0", tags=[("lead", lead), ("source_id", "a")])
        for i in range(9)
        for lead, value in (("I", 0), ("II", 7))
    ]
    raw_bucket.write(b"".join(leads))

    both = make_source()
    contradictory = finish_chunk(both, Chunk(TEN_SECONDS, both.count(TEN_SECONDS)), recipe)
    assert [result.counts.withheld for result in contradictory.results] == [18, 0]
    assert "other tags are: 'lead'" in both.hint_on_contradictions()

    one = make_source(tags=(("lead", "I"),))
    finished = finish_chunk(one, Chunk(TEN_SECONDS, one.count(TEN_SECONDS)), recipe)
    assert [result.counts.read for result in finished.results] == [9, 0]


def test_rows_that_the_database_repeats_count_once(raw_bucket: Bucket, make_source: MakeSource, recipe: Recipe) -> None:
    # Where older rows came after newer ones were put into files, InfluxDB up to 2.7.12 answers with some of the newer ones twice (26711).
    def write(rows: range) -> None:
        times = [HOUR_START_NS + i * 10_000_000 for i in rows]
        raw_bucket.write(b"".join(line(time, f"{time % 7}.0", tags=[("source_id", who)]) for time in times for who in "ab"))

    write(range(1000, 4000))
    raw_bucket.server.put_away(raw_bucket.name)
    write(range(500))
    windows = WindowRange(HOUR_START_NS, HOUR_START_NS + 40 * NANOSECONDS, 5 * NANOSECONDS)
    source = make_source()

    finished = finish_chunk(source, Chunk(windows, source.count(windows)), recipe)

    assert [result.counts.released for result in finished.results] == [1000, 0, 1000, 1000, 1000, 1000, 1000, 1000]
    duplicate = sum(result.counts.duplicate for result in finished.results)
    assert len(source.read(windows)) == 7000 + duplicate
    if raw_bucket.server.version == "v2.7.12":
        assert duplicate == 1000


# --- advice ---------------------------------------------------------------------------------------------------------------------


def test_a_refusal_for_lack_of_rows_lists_what_the_bucket_has(raw_bucket: Bucket, make_source: MakeSource) -> None:
    assert "has no measurement 'ecg'; it has: none." in make_source().advice_when_empty()
    raw_bucket.write(line(HOUR_START_NS, "1.0", measurement="raw", field="uV") + line(HOUR_START_NS, "1.0", measurement="notes"))

    assert "has no measurement 'ecg'; it has: 'notes', 'raw'. Set INFLUX_MEASUREMENT" in make_source().advice_when_empty()
    assert "has no field 'ecg'; it has: 'uV'. Set INFLUX_FIELD." in make_source(measurement="raw").advice_when_empty()
    assert "at these times; check the times" in make_source(measurement="raw", field="uV").advice_when_empty()


def test_advice_that_cannot_be_had_is_done_without(make_source: MakeSource, serve: Serve) -> None:
    other_table = b"#datatype,string,long,string\r\n,result,table,name\r\n,_result,0,ecg\r\n\r\n"
    answers = (b"", b"<html></html>\r\n\r\n", other_table, other_table.replace(b"name", b"_value").replace(b"ecg", b"\xff"))
    servers = [serve([http_answer("200 OK", answer)]).url for answer in answers]

    for url in ("http://127.0.0.1:1", *servers):
        assert "check the times" in make_source(url=url).advice_when_empty()
        assert "wait ten minutes" in make_source(url=url).hint_on_contradictions()


# --- refusals and failures ------------------------------------------------------------------------------------------------------


def ways_to_ask(source: InfluxSource) -> list[Callable[[], object]]:
    return [source.open, *(partial(question, TEN_SECONDS) for question in (source.read, source.count, source.count_by_source))]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"token": "s3cret-wrong"}, r"refuses INFLUX_TOKEN \(401"),
        ({"token": ""}, r"refuses INFLUX_TOKEN \(401"),
        ({"token": "s3cret “curly”"}, r"refuses INFLUX_TOKEN \(the token holds characters"),
        ({"org": "nobody"}, r"no organization 'nobody'.*check INFLUX_ORG"),
        ({"org": "nobody", "org_setting": "INFLUX_OUTPUT_ORG"}, r"no organization 'nobody'.*check INFLUX_OUTPUT_ORG"),
        ({"bucket": "none"}, r"bucket 'none' does not exist or INFLUX_TOKEN may not read it \(404"),
        ({"token": "write"}, r"does not exist or INFLUX_TOKEN may not read it \(404"),
    ],
    ids=str,
)
def test_what_only_an_operator_can_fix_is_denied_with_the_setting_to_check(
    wrong: dict[str, str], message: str, raw_bucket: Bucket, make_source: MakeSource
) -> None:
    if wrong.get("token") == "write":
        wrong = {"token": raw_bucket.write_token}
    source = make_source(**wrong)

    for ask in ways_to_ask(source):
        with pytest.raises(SourceDenied, match=message) as denied:
            ask()

        assert "s3cret" not in str(denied.value)


GOOD = (
    b"#datatype,string,long,dateTime:RFC3339,double,string\r\n,result,table,_time,_value,source_id\r\n"
    b",_result,0,2025-11-03T14:00:00Z,4711815,patient-7\r\n\r\n"
)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (GOOD + b"\r\n#datatype,string,string\r\n,error,reference\r\n,disk on fire,\r\n", "broke off its answer: disk on fire"),
        (GOOD[:-2], "broke off its answer: the answer was cut"),
        (GOOD[:-20], "broke off its answer: the answer was cut"),
        (b"", "broke off its answer: the answer is empty"),
        (b"<html>Please log in</html>\r\n\r\n", "broke off its answer"),
        (GOOD.replace(b"4711815", b"4711815x"), "holds a row of another form"),
    ],
    ids=["error after rows", "without its end", "cut in a row", "empty", "a web page", "no number"],
)
def test_an_answer_that_is_not_whole_is_asked_for_again_and_not_shown(
    body: bytes, reason: str, serve: Serve, make_source: MakeSource
) -> None:
    source = make_source(url=serve([http_answer("200 OK", body)]).url)

    for ask in (source.read, source.count):
        with pytest.raises(SourceUnavailable, match=reason) as unavailable:
            ask(TEN_SECONDS)

        assert not isinstance(unavailable.value, SourceDenied)
        assert "patient" not in str(unavailable.value)
        assert "4711815" not in str(unavailable.value)


def test_a_real_error_after_rows_is_noticed(influxdb: InfluxServer, raw_bucket: Bucket) -> None:
    # The answer of the real server to a query that fails late, to know that ours above is not made up.
    raw_bucket.write(line(HOUR_START_NS, "1.0"))
    flux = f'rows = from(bucket: "{raw_bucket.name}") |> range(start: 0) rows |> yield(name: "good") '
    flux += 'rows |> map(fn: (r) => ({r with _value: int(v: r.source_id)})) |> yield(name: "bad")'
    connection = InfluxConnection(Address(url=influxdb.url, org=influxdb.org), lambda: raw_bucket.read_token)

    answer = _first_answer(connection, flux)
    connection.close()

    assert b"\r\n\r\n\r\n#datatype,string,string\r\n,error,reference" in answer
    with pytest.raises(FluxError, match="cannot convert"):
        list(read_tables([answer]))


def _first_answer(connection: InfluxConnection, flux: str) -> bytes:
    """Return the first answer with status 200: one time in ten the server finds the error before it has sent anything, and says 400."""
    for _ in range(20):
        try:
            return whole_answer(connection, flux)
        except InfluxFault as fault:
            if fault.status != 400:
                raise
    raise AssertionError("the server never began an answer")


STATUSES = [("302 Found", SourceDenied), ("405 Method Not Allowed", SourceDenied), ("500 Oops", SourceUnavailable)]


@pytest.mark.parametrize(("status", "kind"), [*STATUSES, ("503 Busy", SourceUnavailable), ("", SourceUnavailable)])
def test_a_status_says_whether_to_wait_or_to_stop_and_a_server_that_is_down_is_waited_for(
    status: str, kind: type[SourceError], serve: Serve, make_source: MakeSource
) -> None:
    server = serve([http_answer(status, b"<html></html>")])
    source = make_source(url=server.url)
    if not status:
        server.stop()

    for ask in ways_to_ask(source):
        with pytest.raises(SourceError, match=status or "connection refused") as raised:
            ask()

        assert type(raised.value) is kind
    assert status or source.now_ns() is None


# --- clock and identity ---------------------------------------------------------------------------------------------------------


def test_the_servers_clock_is_known_once_it_was_asked_and_never_ahead(make_source: MakeSource) -> None:
    source = make_source(is_open=True)

    for _ in range(20):
        told_ns = source.now_ns()
        assert told_ns is not None
        assert -5 * NANOSECONDS < told_ns - time.time_ns() <= 0
    assert source.clock_check_in_s() >= 0


def test_who_asks_when_it_tells_most_knows_the_servers_clock_ever_better_although_he_always_wakes_late(
    make_source: MakeSource,
) -> None:
    source = make_source(is_open=True)

    behind_ns = list[int]()
    # Three times are enough where this process wakes up in time; on a busy machine some tell little.
    while len(behind_ns) < 3 or (behind_ns[-1] >= 250_000_000 and len(behind_ns) < 30):
        time.sleep(source.clock_check_in_s() + 0.002)
        told_ns = source.now_ns()
        assert told_ns is not None
        behind_ns.append(time.time_ns() - told_ns)

    assert min(behind_ns) >= 0, "it is this machine's own clock"
    assert behind_ns[-1] < 250_000_000, "an eighth of a second is left"


def test_shard_groups_that_are_not_whole_hours_are_refused(influxdb: InfluxServer, make_source: MakeSource) -> None:
    name = f"odd-{time.time_ns()}"
    influxdb.make_bucket(name, shard_group_s=5400)

    with pytest.raises(SourceRefused, match="shard groups of 5400 s; only whole hours"):
        make_source(bucket=name, token=influxdb.make_token(read=[name])).open()


def test_a_data_set_is_told_apart_by_where_it_is_and_not_by_how_it_is_reached_by_whom_or_what_is_asked_of_it(
    make_source: MakeSource, output_bucket: Bucket
) -> None:
    def data_set(**changes: Any) -> str:
        return str(make_source(is_open=True, **changes).data_set)

    usual, server = data_set(), output_bucket.server
    others = [data_set(measurement="x"), data_set(field="x"), data_set(bucket=output_bucket.name, token=output_bucket.read_token)]

    assert data_set(sources=("a",), tags=(("lead", "I"),), source_tag="x") == usual
    assert data_set(url=server.url.replace("127.0.0.1", "localhost")) == data_set(token=server.token) == usual
    assert len({usual, *others}) == 4
