"""What is promised of reading and writing holds on each InfluxDB, in each language that it can be asked in.

Flux on version 2 has pages of tests of its own (`test_influx_source.py`); here stand those promises that another language or another answer
could break.
"""

from __future__ import annotations

import functools
import itertools
import json
import random
import re
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anonymizer.cohorts import Claim
from anonymizer.errors import OutputDenied, OutputError, SourceDenied, SourceError, SourceRefused
from anonymizer.samples import NO_SOURCE, rows_by_source
from anonymizer.windows import HOUR_NS, NANOSECONDS, Window, WindowRange
from inputs.influx_dialect import InfluxSeries
from inputs.influx_source import InfluxSource
from inputs.influxql_dialect import from_the_end
from inputs.window_summaries import WindowSummaries
from operations.output_readers import BucketReader
from outputs.influx_claims import InfluxClaims
from outputs.influxdb import InfluxOutput, InfluxTarget
from testbed.influxdb1_server import Influx1Server
from testbed.influxdb_server import InfluxServer
from tests.inputs.test_influx_source import HOSTILE, HOUR_START_NS, ODD_NAMES, TEN_SECONDS, line, rows_of
from tests.outputs.batches import ODD_IDS, usual_batch
from tests.scripts.verifying import summary_line
from tests.servers.socket_server import Serve, http_answer
from transport.influx_connection import Address, InfluxConnection
from transport.influx_faults import InfluxFault
from transport.influx_versions import quoted_name, quoted_text
from transport.influxql_answers import Series

pytestmark = pytest.mark.influxdb


class Server(Protocol):
    """What the test bed's servers have in common; a token is what one of them takes for credentials."""

    url: str
    org: str
    token: str

    def make_bucket(self, name: str) -> object: ...
    def make_token(self, *, read: Any = (), write: Any = ()) -> str: ...
    def write_lines(self, bucket: str, lines: bytes) -> None: ...


@dataclass
class World:
    """One server, asked in one language."""

    server: Any
    language: Any
    numbers: Iterator[int]
    #: Whether every token may do everything, and a field has one type for ever.
    is_version_3: bool = False

    def bucket(self) -> str:
        """Return a new bucket."""
        name = f"bucket-{self.language}-{next(self.numbers)}"
        self.server.make_bucket(name)
        return name

    def connection(self, token: str | None = None, **changes: Any) -> InfluxConnection:
        """Return a connection, as the administrator unless a token is given."""
        given = {"url": self.server.url, "org": self.server.org, "language": self.language, **changes}
        return InfluxConnection(Address(**given), lambda: self.server.token if token is None else token)

    def source(self, bucket: str, *, token: str | None = None, is_open: bool = False, **changes: Any) -> InfluxSource:
        """Return a source."""
        series = InfluxSeries(**{"bucket": bucket, "measurement": "ecg", "field": "ecg", "source_tag": "source_id", **changes})
        source = InfluxSource(self.connection(token), series)
        if is_open:
            source.open()
        return source

    def output(self, bucket: str, *, token: str | None = None) -> InfluxOutput:
        """Return an output."""
        target = InfluxTarget(bucket=bucket, measurement="ecg", field="ecg", source_tag="source_id")
        return InfluxOutput(self.connection(token), target)


_NUMBERS = itertools.count()

#: Which server, by its fixture, and what it is asked in.
WORLDS = {
    "2 in Flux": ("influxdb", "flux"),
    "2 in InfluxQL": ("influxdb", "influxql"),
    "1": ("influxdb1", "auto"),
    "3": ("influxdb3", "auto"),
}


@pytest.fixture(params=WORLDS)
def world(request: pytest.FixtureRequest) -> World:
    """Each server and language in turn."""
    name, language = WORLDS[request.param]
    return World(request.getfixturevalue(name), language, _NUMBERS, is_version_3=request.param == "3")


def test_every_value_is_read_exactly_whatever_its_type(world: World) -> None:
    chance = random.Random(7)
    floats = [0.0, -1.0, 0.5, 1 / 3, 5e-324, 1.7976931348623157e308, 2.0**53 + 2, 1e-7, 1e21]
    floats += [chance.uniform(-5e3, 5e3) for _ in range(99)]
    whole = [0, 1, -1, -32_768, 2**31, -(2**53), 2**53, 2**63 - 1, -(2**63)]
    bucket, whole_in = world.bucket(), "whole" if world.is_version_3 else "ecg"
    # In another shard, where the field may be of another type.
    later_ns = HOUR_START_NS + 4 * 7 * 24 * HOUR_NS
    written = [(HOUR_START_NS + i, repr(value), "ecg", value) for i, value in enumerate(floats)]
    written += [(later_ns + i, f"{value}i", whole_in, float(value)) for i, value in enumerate(whole)]
    world.server.write_lines(bucket, b"".join(line(at_ns, text, measurement=name) for at_ns, text, name, _ in written))

    for start_ns, name in ((HOUR_START_NS, "ecg"), (later_ns, whole_in)):
        windows, source = (
            WindowRange(start_ns, start_ns + 10 * NANOSECONDS, 5 * NANOSECONDS),
            world.source(bucket, measurement=name),
        )
        expected = [(at_ns, "a", float(value)) for at_ns, _, _, value in written if start_ns <= at_ns < start_ns + HOUR_NS]
        assert rows_of(source.read(windows)) == expected
        assert source.count(windows).tolist() == [len(expected), 0]


@pytest.mark.parametrize("length_s", [5, 7, 7200])
def test_as_many_rows_are_counted_as_are_read_in_every_window(length_s: int, world: World) -> None:
    chance, bucket, middle_ns = np.random.default_rng(length_s), world.bucket(), HOUR_START_NS + HOUR_NS
    edges = [middle_ns + offset for offset in (-1, 0, 1, -7 * NANOSECONDS, 7 * NANOSECONDS)]
    times_ns = np.unique([*(middle_ns + chance.integers(-200 * NANOSECONDS, 200 * NANOSECONDS, 500)), *edges])
    # Some rows have no source; a source has two leads.
    names = [f"source-{i}" if i else "" for i in chance.integers(0, 5, len(times_ns))]
    leads = chance.choice(["I", "II"], len(times_ns))
    tags = [[("lead", lead), *[("source_id", name)] * bool(name)] for name, lead in zip(names, leads, strict=True)]
    world.server.write_lines(bucket, b"".join(line(int(t), "1.5", tags=of) for t, of in zip(times_ns, tags, strict=True)))
    length_ns = length_s * NANOSECONDS
    first_ns, last_ns = ((middle_ns + offset) // length_ns * length_ns for offset in (-200 * NANOSECONDS, 200 * NANOSECONDS))
    windows = WindowRange(first_ns - length_ns, last_ns + 2 * length_ns, length_ns)
    source = world.source(bucket, is_open=True)

    index = windows.index_of(times_ns).tolist()
    assert source.count(windows).tolist() == np.bincount(index, minlength=len(windows)).tolist()
    by_source = [Counter(name for at, name in zip(index, names, strict=True) if at == number) for number in range(len(windows))]
    assert source.count_by_source(windows) == rows_by_source(source.read(windows), windows) == by_source
    filtered = world.source(bucket, tags=(("lead", "II"),), sources=("source-1", "source-3"))
    kept = Counter(name for name, lead in zip(names, leads, strict=True) if lead == "II" and name in filtered._series.sources)
    assert sum(filtered.count_by_source(windows), Counter()) == kept
    assert sorted(source.read(windows).times_ns.tolist()) == times_ns.tolist()
    found_ns = source.next_row_ns(first_ns - 50 * 24 * HOUR_NS, last_ns + 2 * length_ns)
    assert found_ns == times_ns[0]


def test_names_and_ids_may_hold_anything_and_rows_without_the_tag_have_no_source(world: World) -> None:
    bucket = world.bucket()
    # Version 3 takes no tabs, and of two backslashes one.
    unwritable = "\t|\\\\" if world.is_version_3 else "$^"
    ids = [name for name in ODD_IDS if not re.search(unwritable, name)]
    lines = [line(HOUR_START_NS + i, "1.0", tags=[("source_id", name)]) for i, name in enumerate(ids)]
    lines.append(line(HOUR_START_NS + 99, "1.0", tags=[("other", "x")]))
    names = [name for name in ODD_NAMES if "\r" not in name and not re.search(unwritable, name)]
    for number, name in enumerate(names):
        lines.append(line(HOUR_START_NS, "2.0", measurement=name, field=name, tags=[("t", "x")]))
        lines.append(line(HOUR_START_NS, "3.0", measurement=f"tag {number}", tags=[(name, "y")]))
    world.server.write_lines(bucket, b"".join(lines))

    read = world.source(bucket).read(TEN_SECONDS)
    assert rows_of(read) == [*((HOUR_START_NS + i, name, 1.0) for i, name in enumerate(ids)), (HOUR_START_NS + 99, None, 1.0)]
    assert read.source_codes.tolist().count(NO_SOURCE) == 1
    assert world.source(bucket).count_by_source(TEN_SECONDS) == [Counter([*ids, ""]), Counter()]
    assert world.source(bucket, source_tag="nope").count_by_source(TEN_SECONDS) == [Counter({"": len(ids) + 1}), Counter()]
    for i, name in enumerate(ids):
        source = world.source(bucket, sources=(name, "nobody"))
        assert rows_of(source.read(TEN_SECONDS)) == [(HOUR_START_NS + i, name, 1.0)]
        assert source.count(TEN_SECONDS).tolist() == [1, 0]
    for number, name in enumerate(names):
        source = world.source(bucket, measurement=name, field=name, source_tag="t", tags=(("t", "x"),))
        assert rows_of(source.read(TEN_SECONDS)) == [(HOUR_START_NS, "x", 2.0)], name
        assert rows_of(world.source(bucket, measurement=f"tag {number}", source_tag=name).read(TEN_SECONDS)) == [
            (HOUR_START_NS, "y", 3.0)
        ]
    with pytest.raises(
        SourceRefused, match="has no tag 'nope', so wearers could not be told apart; it has: 'other', 'source_id'"
    ):
        world.source(bucket, source_tag="nope").read(TEN_SECONDS)


def test_a_thousand_sources_can_be_named(world: World) -> None:
    bucket = world.bucket()
    named = [f"a wearer with a long name, number {number}" for number in range(1000)]
    world.server.write_lines(
        bucket, b"".join(line(HOUR_START_NS + i, "1.0", tags=[("source_id", name)]) for i, name in enumerate([*named, "another"]))
    )
    for sources in (named[:1], named[:2], named[:500], named[1:]):
        source = world.source(bucket, sources=tuple(sources))
        assert source.count(TEN_SECONDS).tolist() == [len(sources), 0]
        assert {row[1] for row in rows_of(source.read(TEN_SECONDS))} == set(sources)


HOSTILE_INFLUXQL = (
    "x' OR 'a' = 'a",
    'x" OR "a" = "a',
    "x\\' OR 1=1 --",
    'ecg" WHERE 1=1; DROP MEASUREMENT "ecg',
    "'; DROP DATABASE x; --",
    "/.*/",
    "*",
)


@pytest.mark.parametrize("place", ["measurement", "field", "sources", "tag", "tag value", "source_tag"])
def test_no_text_can_leave_the_quotes_it_is_put_into(place: str, world: World) -> None:
    bucket = world.bucket()
    world.server.write_lines(bucket, line(HOUR_START_NS, "1.0") + line(HOUR_START_NS, "2.0", measurement="secret"))
    for text in (*HOSTILE, *HOSTILE_INFLUXQL):
        asked: dict[str, dict[str, object]] = {
            "sources": {"sources": (text,)},
            "tag": {"tags": ((text, "a"),)},
            "tag value": {"tags": (("source_id", text),)},
        }
        changes: dict[str, Any] = asked.get(place, {place: text})
        source = world.source(bucket, **changes)
        if place == "source_tag":
            with pytest.raises(SourceRefused, match="has no tag"):
                source.read(TEN_SECONDS)
            assert source.count_by_source(TEN_SECONDS) == [Counter([""]), Counter()], text
        else:
            assert len(source.read(TEN_SECONDS)) == 0, text
            assert source.count(TEN_SECONDS).sum() == 0, text
            assert not any(source.count_by_source(TEN_SECONDS)), text
    assert len(world.source(bucket).read(TEN_SECONDS)) == 1


@given(st.text(st.characters(exclude_characters="\r\0", exclude_categories=["Cs"])))
def test_quoted_text_ends_where_it_should_and_says_what_was_given(text: str) -> None:
    for quoted, quote in ((quoted_name(text), '"'), (quoted_text(text), "'")):
        inner = quoted[1:-1]
        assert quoted[0] == quoted[-1] == quote
        # As the server's scanner reads it: an escape and what it stands for, or any character but the quote, a backslash, a line end.
        assert re.fullmatch(rf"(?:\\[n\\{quote}]|[^\n\\{quote}])*", inner), quoted
        assert re.sub(r"\\(.)", lambda found: "\n" if found[1] == "n" else found[1], inner) == text


@pytest.mark.parametrize(("value", "kind"), [('"high"', "string"), ("true", "boolean")])
def test_a_field_that_is_no_number_anywhere_in_the_span_is_refused_and_not_passed_over(
    value: str, kind: str, world: World
) -> None:
    bucket, later_ns = world.bucket(), HOUR_START_NS + 4 * 7 * 24 * HOUR_NS
    # On version 3 a field has one type for ever.
    numbers_in = "other" if world.is_version_3 else "ecg"
    world.server.write_lines(bucket, line(HOUR_START_NS, "1.0", measurement=numbers_in) + line(later_ns, value))
    source, refused = (
        world.source(bucket, is_open=True),
        f"field 'ecg' of measurement 'ecg' holds {kind} values; numbers are needed",
    )

    assert source.count(TEN_SECONDS).tolist() == [int(not world.is_version_3), 0]
    assert len(source.read(TEN_SECONDS)) == int(not world.is_version_3)
    found_ns = source.next_row_ns(HOUR_START_NS + 10 * NANOSECONDS, later_ns + 1)
    assert found_ns is not None
    assert found_ns <= later_ns
    later = WindowRange(later_ns // NANOSECONDS * NANOSECONDS, (later_ns // NANOSECONDS + 5) * NANOSECONDS, 5 * NANOSECONDS)
    with pytest.raises(SourceRefused, match=refused):
        source.read(later)
    if world.language != "flux":
        for count in (source.count, source.count_by_source):
            with pytest.raises(SourceRefused, match=refused):
                count(later)


def test_what_is_wrong_is_said_with_the_setting_and_without_a_secret_or_a_person(world: World) -> None:
    bucket, other = world.bucket(), world.bucket()
    world.server.write_lines(bucket, line(HOUR_START_NS, "1.0", tags=[("source_id", "patient-7"), ("lead", "I")]))
    token = world.server.make_token(read=[bucket])
    wrong = [
        (world.source(bucket, token="some:s3cret"), "refuses INFLUX_TOKEN"),
        (world.source("none", token=token, sources=("patient-7",)), "does not exist or INFLUX_TOKEN.* may not read it"),
    ]
    if not world.is_version_3:
        wrong.append((world.source(other, token=token), "does not exist or INFLUX_TOKEN.* may not read it"))
    for source, message in wrong:
        questions = (source.read, source.count, source.count_by_source)
        for ask in (source.open, *(functools.partial(question, TEN_SECONDS) for question in questions)):
            with pytest.raises(SourceDenied, match=message) as denied:
                ask()
            assert not re.search("s3cret|patient|SELECT", str(denied.value))

    good = world.source(bucket, token=token, is_open=True)
    assert rows_of(good.read(TEN_SECONDS)) == [(HOUR_START_NS, "patient-7", 1.0)]
    assert "other tags are: 'lead'" in good.hint_on_contradictions()
    assert "it has: 'ecg'. Set INFLUX_MEASUREMENT" in world.source(bucket, measurement="none").advice_when_empty()
    assert "has no field 'none'; it has: 'ecg'. Set INFLUX_FIELD" in world.source(bucket, field="none").advice_when_empty()
    assert "'lead' is a tag of measurement 'ecg', and no field" in world.source(bucket, field="lead").advice_when_empty()
    assert "check the times" in good.advice_when_empty()


def test_a_window_is_stored_and_its_summary_found_and_what_cannot_be_is_said(world: World) -> None:
    bucket, full = world.bucket(), world.bucket()
    batch = usual_batch(rows=50)
    output = world.output(bucket, token=world.server.make_token(write=[bucket]))
    output.open({})
    output.write(batch)
    output.write(batch)
    summaries = WindowSummaries(world.connection(), bucket=bucket, measurement="ecg")
    window, day_ns = batch.window, 24 * HOUR_NS
    around = Window(window.start_ns - day_ns, window.end_ns + day_ns)

    assert summaries.released([batch.batch_id.split("-")[0]], around) == [window]
    assert summaries.released([batch.batch_id.split("-")[0]], Window(window.end_ns - 1, window.end_ns)) == [window]
    assert summaries.released(["other"], around) == []
    assert not summaries.is_missing()
    # Years apart, in another series.
    far_ns = window.start_ns - 3 * 365 * day_ns
    world.server.write_lines(bucket, summary_line(far_ns, batch_id=f"ds-{far_ns}-{far_ns + 5 * NANOSECONDS}").encode())
    far = Window(far_ns, far_ns + 5 * NANOSECONDS)
    assert summaries.released(["ds", batch.batch_id.split("-")[0]], Window(0, 2**63 - 2)) == [far, window]
    assert summaries.released(["ds"], Window(far_ns + 1, far_ns + 2)) == [far]

    read = world.source(bucket, measurement="ecg_anonymized")
    assert len(read.read(WindowRange(window.start_ns, window.end_ns, window.end_ns - window.start_ns))) == 50

    other_token = world.server.make_token(write=[bucket])
    for name, token in ((bucket, "some:s3cret"), ("none", None), *([] if world.is_version_3 else [(full, other_token)])):
        with pytest.raises(OutputDenied, match="does not let us write") as denied:
            world.output(name, token=token).open({})
        assert "s3cret" not in str(denied.value)
    assert WindowSummaries(world.connection(), bucket="none", measurement="ecg").is_missing()
    with pytest.raises(SourceDenied, match="does not tell what bucket 'organization' holds") as missing:
        WindowSummaries(world.connection(), bucket="organization", measurement="ecg").newest_labels()
    assert missing.value.was_reached, "no organization is missing, whatever the bucket is called"

    at_ns = window.start_ns
    world.server.write_lines(full, line(at_ns, "1i", measurement="ecg_anonymized"))
    with pytest.raises(OutputDenied, match="as another type than float") as typed:
        world.output(full).write(batch)
    assert "source_id=" not in str(typed.value)


def test_the_data_set_is_told_apart_by_what_it_is_and_not_by_how_it_is_reached(world: World) -> None:
    bucket, other = world.bucket(), world.bucket()

    def data_set(name: str = bucket, **changes: Any) -> str:
        return world.source(name, is_open=True, **changes).data_set

    assert len({data_set(), data_set(other), data_set(measurement="x"), data_set(field="x")}) == 4
    assert data_set(sources=("a",), source_tag="x") == data_set()
    named = InfluxSource(
        world.connection(url=world.server.url.replace("127.0.0.1", "localhost")),
        InfluxSeries(bucket=bucket, measurement="ecg", field="ecg", source_tag="source_id"),
    )
    named.open()
    assert named.data_set == data_set()


# --- version 2 in InfluxQL ------------------------------------------------------------------------------------------------------


def test_flux_and_influxql_have_one_data_set_and_a_mapping_must_lead_to_the_bucket(influxdb: InfluxServer) -> None:
    flux, influxql = (World(influxdb, language, _NUMBERS) for language in ("flux", "influxql"))
    bucket, other, slashed = flux.bucket(), flux.bucket(), f"raw/{time.time_ns()}"
    influxdb.make_bucket(slashed)
    for name in (bucket, slashed):
        influxdb.write_lines(name, line(HOUR_START_NS, "1.0"))
        token = influxdb.make_token(read=[name])
        sources = [world.source(name, token=token, is_open=True) for world in (flux, influxql)]
        assert sources[0].data_set == sources[1].data_set
        assert rows_of(sources[0].read(TEN_SECONDS)) == rows_of(sources[1].read(TEN_SECONDS)) == [(HOUR_START_NS, "a", 1.0)]
        assert [source.server.rpartition(" ")[2] for source in sources] == ["Flux", "InfluxQL"]
        assert sources[0].server.startswith(f"InfluxDB 2 ({influxdb.version}), asked in ")

    mapping = {
        "orgID": influxdb.org_id(),
        "bucketID": influxdb.bucket_id(other),
        "database": bucket,
        "retention_policy": "autogen",
    }
    influxdb.ask("POST", "/api/v2/dbrps", json={**mapping, "default": True})
    for token in (influxdb.token, influxdb.make_token(read=[bucket])):
        source = influxql.source(bucket, token=token)
        for ask in (source.open, lambda source=source: source.read(TEN_SECONDS), lambda source=source: source.count(TEN_SECONDS)):
            with pytest.raises(SourceRefused, match="no database mapping leads to bucket"):
                ask()

    # Another mapping leads there.
    other_way = {**mapping, "bucketID": influxdb.bucket_id(bucket), "database": "another name", "default": True}
    influxdb.ask("POST", "/api/v2/dbrps", json=other_way)
    assert rows_of(influxql.source(bucket, is_open=True).read(TEN_SECONDS)) == [(HOUR_START_NS, "a", 1.0)]


# --- version 1 ------------------------------------------------------------------------------------------------------------------


def test_version_1_reads_and_writes_the_policy_that_is_asked_for_and_says_where_the_field_is(influxdb1: Influx1Server) -> None:
    world = World(influxdb1, "auto", _NUMBERS)
    bucket = world.bucket()
    influxdb1.ask(f'CREATE RETENTION POLICY "two years" ON "{bucket}" DURATION 104w REPLICATION 1')
    influxdb1.write_lines(bucket, line(time.time_ns() // HOUR_NS * HOUR_NS, "1.0"), policy="two years")
    series = InfluxSeries(bucket=bucket, measurement="ecg", field="ecg", source_tag="source_id")
    usual, kept = (InfluxSource(world.connection(retention_policy=policy), series) for policy in ("", "two years"))
    for source in (usual, kept, slashed := world.source(f"{bucket}/two years")):
        source.open()

    span = time.time_ns() - 24 * HOUR_NS, time.time_ns()
    assert [source.next_row_ns(*span) is not None for source in (usual, kept, slashed)] == [False, True, True]
    assert "'ecg' is in retention policy 'two years', not in the one that is read. Set INFLUX_RET" in usual.advice_when_empty()
    assert kept.data_set == slashed.data_set != usual.data_set
    assert [source.kept_since_ns() is None for source in (usual, kept)] == [True, False]
    with pytest.raises(SourceDenied, match="retention policy not found"):
        InfluxSource(world.connection(retention_policy="none"), series).open()
    with pytest.raises(OutputDenied, match="does not let us write"):
        world.output(f"{bucket}/none").open({})
    world.output(f"{bucket}/two years").open({})


def test_version_1_takes_user_and_password(influxdb1: Influx1Server) -> None:
    user, _, password = influxdb1.token.partition(":")
    world = World(influxdb1, "auto", _NUMBERS)
    bucket = world.bucket()
    influxdb1.ask("CREATE USER \"o'brien\" WITH PASSWORD 'späte \"rose\" \\'' WITH ALL PRIVILEGES")
    for name, secret in ((user, password), ("o'brien", 'späte "rose" \'')):
        given = world.connection(token="", username=name, password=functools.partial(str, secret))
        InfluxSource(given, InfluxSeries(bucket=bucket, measurement="ecg", field="ecg", source_tag="source_id")).open()
    wrong = world.connection(token="", username=user, password=lambda: "s3cret")
    with pytest.raises(SourceError, match="refuses INFLUX_USERNAME and INFLUX_PASSWORD") as denied:
        InfluxSource(wrong, InfluxSeries(bucket=bucket, measurement="ecg", field="ecg", source_tag="source_id")).open()
    assert "s3cret" not in str(denied.value)


def test_version_1_names_no_user_of_it_in_a_refusal(influxdb1: Influx1Server) -> None:
    world = World(influxdb1, "auto", _NUMBERS)
    bucket = world.bucket()
    influxdb1.ask("CREATE USER \"o'canary of ward 7\" WITH PASSWORD 'p:canary word'")
    token = "o'canary of ward 7:p:canary word"
    series = InfluxSeries(bucket=bucket, measurement="ecg", field="ecg", source_tag="source_id", sources=("canary-wearer",))
    as_user = world.connection(token="", username="o'canary of ward 7", password=lambda: "p:canary word")
    for source in (world.source(bucket, token=token, sources=("canary-wearer",)), InfluxSource(as_user, series)):
        with pytest.raises(
            SourceDenied, match=r"may not read it .403 error authorizing query: the user not authorized"
        ) as denied:
            source.open()
        assert "canary" not in str(denied.value)
    with pytest.raises(OutputDenied, match=r"does not let us write .* .403 the user is not authorized to write to") as unwritten:
        world.output(bucket, token=token).open({})
    assert "canary" not in str(unwritten.value)


#: What servers and proxies of each version answer, with what must not be shown: rows, ids, users, what was sent as credentials.
QUOTING = {
    "1.6.7": [
        (400, 'partial write: max-values-per-tag limit exceeded (9/9): measurement="ecg" tag="source_id" value="a"WEARER-7" dropped=1'),
        (400, "unable to parse 'ecg_anonymized,source_id=WEARER-7 ecg=1': bad timestamp\nunable to parse 'WEARER-7'"),
        (400, 'unable to parse "ecg_anonymized,source_id=WEARER-7 ecg=1": bad timestamp'),
        (403, '"CANARY" user is not authorized to write to database "held"'),
        (403, "error authorizing query: CANARY not authorized to execute statement 'SELECT WEARER-7', requires READ on held"),
        (401, "bad header: Basic Q0FOQVJZOnMzY3JldC1DQU5BUlk="),
        (502, "CANARY: s3cret-CANARY was refused by the gateway"),
    ],
    "2.7.12": [
        (400, "unable to parse 'ecg_anonymized,source_id=WEARER-7 ecg=1': missing fields"),
        (422, 'dropped 1 points outside retention policy of duration 1h - oldest point ecg_anonymized,source_id=WEARER-7 at 1'),
        (400, "line 1 (snippet: ecg_anonymized,source_id=WEARER-7 ecg=1) is malformed"),
        (500, "CANARY:s3cret-CANARY"),
    ],
    "3.6.0": [
        (400, "partial write of line protocol occurred: ecg_anonymized,source_id=WEARER-7"),
        (500, "column 'WEARER-7' in ecg_anonymized, source_id=WEARER-7"),
        (401, "the token CANARY:s3cret-CANARY is not one"),
        (503, "WEARER-7"),
    ],
}  # fmt: skip


@pytest.mark.parametrize("version", QUOTING)
def test_nothing_that_a_server_quotes_is_shown(version: str, serve: Serve) -> None:
    for status, message in QUOTING[version]:
        answer = http_answer(f"{status} Refused", json.dumps({"error": message, "message": message}).encode())
        ping = http_answer("204 No Content", b"", f"X-Influxdb-Version: {version}")
        server = serve([ping], *([answer] for _ in range(60)))
        address = Address(
            url=server.url,
            org="o",
            language="auto",
            username="CANARY" if version == "1.6.7" else "",
            password=lambda: "s3cret-CANARY",
        )
        target = InfluxTarget(bucket="held", measurement="ecg", field="ecg", source_tag="source_id")
        output = InfluxOutput(InfluxConnection(address, lambda: "CANARY:s3cret-CANARY"), target)

        with pytest.raises((OutputError, SourceError)) as refused:
            output.write(usual_batch(rows=2))

        assert not re.search("CANARY|WEARER", str(refused.value)), message
        assert "Q0FOQV" not in str(refused.value)
        assert re.search(r"\b[45]\d\d\b|older than", str(refused.value)), "and yet it says something"


def test_a_server_without_flux_is_named_when_it_is_asked_in_flux(influxdb1: Influx1Server, influxdb3: Any) -> None:
    for server, version in ((influxdb1, "1.6.7"), (influxdb3, "3")):
        world = World(server, "flux", _NUMBERS)
        with pytest.raises(
            SourceRefused, match=rf"it is an InfluxDB {version}\S*, which does not answer Flux: set INFLUX_QUERY_LANGUAGE=auto"
        ):
            world.source(world.bucket()).open()
        # A probe of version 3 would make the database that it asks for.
        for name in (held := world.bucket(), "nowhere"):
            with pytest.raises(OutputDenied, match="which does not answer Flux: set INFLUX_QUERY_LANGUAGE=auto"):
                world.output(name).open({})
            claims = InfluxClaims(world.connection(), world.output(name)._target, list)
            with pytest.raises(OutputDenied, match="which does not answer Flux: set INFLUX_QUERY_LANGUAGE=auto"):
                claims.put(Claim("us", "asked", 1, ("label",)))
        known = world.connection(language="auto")
        known.bucket(held)
        with pytest.raises(InfluxFault, match="404"):
            known.bucket("nowhere")


def test_version_3_is_written_to_by_many_at_a_time_since_each_waits_for_its_log(world: World) -> None:
    output = world.output(world.bucket())
    assert output.concurrency == 3, "before the server was asked"
    output.open({})
    assert output.concurrency == (65 if world.is_version_3 else 3)


def test_a_summary_of_another_data_set_does_not_stand_for_one_of_ours_that_is_missing(world: World) -> None:
    bucket = world.bucket()
    names = {
        ward: f"{label}-{HOUR_START_NS}-{HOUR_START_NS + 5 * NANOSECONDS}" for ward, label in (("3", "ours"), ("4", "theirs"))
    }
    lines = {
        ward: f'ecg_anonymized_windows,ward={ward} batch_id="{name}" {HOUR_START_NS}\n'.encode() for ward, name in names.items()
    }
    span = Window(HOUR_START_NS, HOUR_START_NS + 10 * NANOSECONDS)
    summaries = WindowSummaries(world.connection(), bucket=bucket, measurement="ecg")
    reader = BucketReader("influx", world.source(bucket), functools.partial(summaries.released, ["ours"]))

    world.server.write_lines(bucket, lines["4"])
    assert reader.summarized(span) == set()
    world.server.write_lines(bucket, lines["3"])
    assert reader.summarized(span) == {HOUR_START_NS}


@pytest.mark.parametrize("most_hours", [1, 7, 1000])
def test_each_series_last_text_is_found_however_little_the_server_reads_at_once(most_hours: int) -> None:
    held = {"ward 3": [2, 90], "ward 4": [1, 3], "ward 5": [97]}

    def ask(part: Window) -> list[Series]:
        if part.end_ns - part.start_ns > most_hours * HOUR_NS:
            raise InfluxFault("413 too much", status=413)
        inside = {ward: [hour for hour in hours if part.start_ns <= hour * HOUR_NS < part.end_ns] for ward, hours in held.items()}
        return [Series({"ward": ward}, ["time", "last"], [[hours[-1], ward]]) for ward, hours in inside.items() if hours]

    found = dict[str, int]()
    for part in from_the_end(Window(0, 100 * HOUR_NS), ask):
        for one in part:
            found.setdefault(one.tags["ward"], one.column(0)[0])
    assert found == {"ward 3": 90, "ward 4": 3, "ward 5": 97}
