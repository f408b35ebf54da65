"""InfluxDB refuses some rows of a batch: exactly these are set aside, whatever the server says of them, and all others stored."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anonymizer.batch import Batch
from anonymizer.errors import BatchRejected, OutputDenied, OutputUnavailable
from anonymizer.windows import NANOSECONDS
from outputs.influxdb import InfluxOutput, InfluxTarget
from tests.conftest import Bucket
from tests.outputs.batches import LENGTH_S, START_S, Row, make_batch, row_of, rows_of, time_ns_of, usual_batch
from tests.outputs.limiting_proxy import limiting_proxy
from transport.influx_connection import Address, InfluxConnection, InfluxFault

HOUR_NS = 3600 * NANOSECONDS

MakeOutput = Callable[..., InfluxOutput]


class CountingConnection(InfluxConnection):
    """Counts what is written."""

    requests = 0

    def write(self, bucket: str, lines: bytes | memoryview) -> None:
        self.requests += 1
        super().write(bucket, lines)


@pytest.fixture
def make_output() -> Iterator[MakeOutput]:
    """What makes an output that writes to a bucket and is closed at the end."""
    made: list[InfluxOutput] = []

    def make(bucket: Bucket, *, url: str | None = None, lines_per_write: int = 20_000) -> InfluxOutput:
        connection = CountingConnection(Address(url=url or bucket.server.url, org=bucket.server.org), lambda: bucket.write_token)
        made.append(InfluxOutput(connection, target_in(bucket.name, lines_per_write)))
        return made[-1]

    yield make
    for output in made:
        output.close()


def target_in(bucket: str, lines_per_write: int) -> InfluxTarget:
    return InfluxTarget(bucket=bucket, measurement="ecg", field="ecg", source_tag="source_id", lines_per_write=lines_per_write)


def new_bucket(beside: Bucket, **properties: int) -> Bucket:
    name = f"{beside.name}-2"
    beside.server.make_bucket(name, **properties)
    return Bucket(beside.server, name, beside.server.make_token(read=[name]), beside.server.make_token(write=[name]))


def stored_rows(bucket: Bucket) -> list[Row]:
    question = {"db": bucket.name, "q": "SELECT ecg FROM ecg_anonymized GROUP BY *", "epoch": "ns"}
    (found,) = bucket.server.ask("GET", "/query", params=question).json()["results"]
    # Whatever was there before us is of source x.
    return sorted(
        Row(time_ns, series["tags"]["source_id"], value)
        for series in found.get("series", ())
        for time_ns, value in series["values"]
        if series["tags"]["source_id"] != "x"
    )


def summaries(bucket: Bucket) -> dict[int, bool]:
    """Return of each window that has a summary, by its start, whether that says `partial`."""
    question = (
        f'from(bucket: "{bucket.name}") |> range(start: 0) '
        '|> filter(fn: (r) => r._measurement == "ecg_anonymized_windows" and r._field == "partial")'
    )
    return {time_ns_of(row["_time"]): row["_value"] == "true" for row in bucket.reader().rows(question)}


def rows_at(batch: Batch, numbers: list[int]) -> list[Row]:
    """Return some rows of a batch by their index."""
    return sorted(row_of(batch, number) for number in numbers)


def refused_by(output: InfluxOutput, batch: Batch) -> BatchRejected:
    with pytest.raises(BatchRejected) as refused:
        output.write(batch)
    return refused.value


# --- the real server ------------------------------------------------------------------------------------------------------------


@pytest.mark.influxdb
@pytest.mark.parametrize(("old", "young"), [(1, 999), (999, 1), (500, 500), (1, 1)])
def test_rows_older_than_the_bucket_keeps_are_set_aside_and_younger_ones_stored(
    old: int, young: int, output_bucket: Bucket, make_output: MakeOutput
) -> None:
    bucket = new_bucket(output_bucket, retention_s=3600)
    edge_s = int(time.time()) - 3600
    # Ten minutes behind the edge, as that moves on while we test; and two hours before it: a row that is too old is taken after all
    # when the same request brings a young one of the same shard.
    window = (edge_s - 7200 - START_S) // LENGTH_S
    batch = make_batch(
        [((7800 if i >= old else 0) * NANOSECONDS + i, f"patient-{i % 6}", float(i // 2)) for i in range(old + young)],
        window=window,
    )

    refused = refused_by(make_output(bucket, lines_per_write=300), batch)

    assert refused.rows == tuple(range(old))
    assert f"{old} older than the bucket keeps rows" in str(refused)
    assert "patient" not in str(refused)
    assert stored_rows(bucket) == rows_at(batch, list(range(old, old + young)))


@pytest.mark.influxdb
def test_a_window_that_is_too_old_as_a_whole_takes_few_requests_and_leaves_no_summary(
    output_bucket: Bucket, make_output: MakeOutput
) -> None:
    bucket = new_bucket(output_bucket, retention_s=3600)
    batch = make_batch([(i, f"source-{i % 6}", float(i // 2)) for i in range(20_000)])
    output = make_output(bucket, lines_per_write=5000)

    refused = refused_by(output, batch)

    assert refused.rows is None
    assert "20000 older than the bucket keeps rows" in str(refused)
    assert (stored_rows(bucket), summaries(bucket)) == ([], {})
    assert output._connection.requests <= 20  # type: ignore[attr-defined]


@pytest.mark.influxdb
@pytest.mark.parametrize("side", ["before", "behind"])
def test_a_field_that_is_an_integer_in_one_shard_of_two_is_refused_there_only(
    side: str, output_bucket: Bucket, make_output: MakeOutput
) -> None:
    bucket = new_bucket(output_bucket, shard_group_s=3600)
    edge_ns = (START_S // 3600 + 1) * HOUR_NS
    window = (edge_ns // NANOSECONDS - START_S) // LENGTH_S - 1
    batch = make_batch([(4 * NANOSECONDS + i * 2_000_000, f"source-{i % 4}", float(i // 2)) for i in range(1000)], window=window)
    is_before = batch.times_ns < edge_ns
    assert 400 < is_before.sum() < 600
    bucket.write(f"ecg_anonymized,source_id=x ecg=1i {edge_ns + (-1 if side == 'before' else 10**9 * 1800)}".encode())

    refused = refused_by(make_output(bucket), batch)

    is_refused = is_before if side == "before" else ~is_before
    assert refused.rows == tuple(i for i in range(1000) if is_refused[i])
    assert "where the field has another type" in str(refused)
    assert stored_rows(bucket) == rows_at(batch, [i for i in range(1000) if not is_refused[i]])
    assert summaries(bucket) == {batch.window.start_ns: True}


@pytest.mark.influxdb
def test_a_field_that_has_another_type_in_the_bucket_is_a_fault_to_be_fixed_and_nothing_is_set_aside(
    output_bucket: Bucket, make_output: MakeOutput
) -> None:
    output_bucket.write(f"ecg_anonymized,source_id=x ecg=1i {START_S * NANOSECONDS}".encode())
    output = make_output(output_bucket)

    with pytest.raises(OutputDenied) as denied:
        output.write(usual_batch(rows=1000))

    for part in ("field 'ecg'", repr(output_bucket.name), "already exists as type integer", "INFLUX_OUTPUT_BUCKET", "remove"):
        assert part in str(denied.value)
    assert (stored_rows(output_bucket), summaries(output_bucket)) == ([], {})


LONG_IDS = {"plain": "patient-7" * 8000, "quoted": "patient-7'" * 8000}


@pytest.mark.influxdb
@pytest.mark.parametrize(
    ("source_id", "reason"),
    [
        *((one, "400") for one in LONG_IDS.values()),
        *((one, "200 of sources whose id line protocol cannot carry") for one in ("line\nend", "\n", "back\\", "\\")),
    ],
    ids=[*LONG_IDS, "a line end inside", "a line end", "a backslash behind", "a backslash"],
)
def test_rows_of_a_source_whose_id_the_server_does_not_take_or_line_protocol_cannot_carry_are_set_aside_alone(
    source_id: str, reason: str, output_bucket: Bucket, make_output: MakeOutput
) -> None:
    ids = ["a", source_id, "b", source_id]
    batch = make_batch([(i, ids[i % 4], float(i // 4)) for i in range(400)])

    refused = refused_by(make_output(output_bucket), batch)

    assert refused.rows == tuple(range(1, 400, 2))
    assert reason in str(refused)
    assert reason == "400" or "PSEUDONYMIZE_SOURCE_ID=true" in str(refused)
    assert source_id not in str(refused).replace("a backslash", "")
    assert "patient" not in str(refused)
    assert stored_rows(output_bucket) == rows_at(batch, [*range(0, 400, 2)])
    assert summaries(output_bucket) == {batch.window.start_ns: True}


@pytest.mark.influxdb
def test_a_proxy_with_a_limit_gets_smaller_requests_until_all_rows_are_stored(
    output_bucket: Bucket, make_output: MakeOutput
) -> None:
    batch = usual_batch(rows=5000)
    with limiting_proxy(output_bucket.server.url, 20_000) as proxy:
        make_output(output_bucket, url=proxy.url).write(batch)

        assert max(proxy.sizes) > 200_000
        assert len(proxy.sizes) < 100
    assert stored_rows(output_bucket) == rows_of(batch)
    assert summaries(output_bucket) == {batch.window.start_ns: False}


@pytest.mark.influxdb
def test_rows_too_large_for_a_proxy_are_set_aside_alone_and_stored_once_it_takes_them(
    output_bucket: Bucket, make_output: MakeOutput
) -> None:
    ids = ["a", "b", "long" * 1000, "c"]
    batch = make_batch([(i // 4, ids[i % 4], float(i // 8)) for i in range(64)])
    with limiting_proxy(output_bucket.server.url, 2000) as proxy:
        output = make_output(output_bucket, url=proxy.url)

        refused = refused_by(output, batch)

        bad = [i for i in range(64) if batch.source_ids[batch.source_index[i]] == "long" * 1000]
        assert refused.rows == tuple(bad)
        assert "16 too large for a request, even alone (413)" in str(refused)
        assert stored_rows(output_bucket) == rows_at(batch, sorted(set(range(64)) - set(bad)))
        assert summaries(output_bucket) == {batch.window.start_ns: True}

        # An operator fixes the proxy, and has what was set aside offered again: as a whole.
        proxy.most_bytes = 1_000_000
        output.write(batch)

    assert stored_rows(output_bucket) == rows_of(batch)
    assert summaries(output_bucket) == {batch.window.start_ns: False}


@pytest.mark.influxdb
def test_summaries_that_are_refused_are_a_fault_to_be_fixed(output_bucket: Bucket, make_output: MakeOutput) -> None:
    output_bucket.write(f'ecg_anonymized_windows k="five" {START_S * NANOSECONDS}'.encode())

    with pytest.raises(OutputDenied, match=r"'ecg_anonymized_windows' in bucket .* field type conflict") as denied:
        make_output(output_bucket).write(usual_batch())

    assert output_bucket.name in str(denied.value)


# --- any server -----------------------------------------------------------------------------------------------------------------


@dataclass
class Rules:
    """What a server refuses, and how it behaves then."""

    bad_sources: frozenset[str] = frozenset()
    kept_from_ns: int = 0
    integer_hours: frozenset[int] = frozenset()
    most_bytes: int = 10**9

    def refuse(self, line: bytes) -> str:
        """Return why a line is refused; nothing when it is not."""
        series, _, time_ns = line.rsplit(b" ", 2)
        if series.partition(b"=")[2].decode() in self.bad_sources:
            return "400"
        if int(time_ns) < self.kept_from_ns:
            return "retention"
        return "type" if int(time_ns) // HOUR_NS in self.integer_hours else ""


@dataclass
class RuledConnection:
    """Behaves as InfluxDB does: 400 stores nothing, 422 the rest and states a wrong number, a too large request is not read."""

    rules: Rules
    address: Address = field(default_factory=lambda: Address(url="http://127.0.0.1:1", org="testbed"))
    stored: set[bytes] = field(default_factory=set)
    summaries: list[bytes] = field(default_factory=list)
    requests: int = 0
    too_large: int = 0
    writes_at_a_time: int = 2

    def try_to_write(self, bucket: str) -> None:
        self.write(bucket, b"# probe")

    def write(self, bucket: str, lines: bytes | memoryview) -> None:
        self.requests += 1
        if len(lines) > self.rules.most_bytes:
            self.too_large += 1
            raise InfluxFault("413 Request Entity Too Large", status=413)
        text = bytes(lines)
        if b"_windows" in text:
            self.summaries.append(text)
            return
        each = [line for line in text.splitlines() if not line.startswith(b"#")]
        verdicts = [self.rules.refuse(line) for line in each]
        if "400" in verdicts:
            raise InfluxFault("400 unable to parse 'ecg_anonymized,source_id=…': missing fields", status=400)
        self.stored |= {line for line, verdict in zip(each, verdicts, strict=True) if not verdict}
        if "type" in verdicts:
            raise InfluxFault('422 partial write: field type conflict: input field "ecg" dropped=1', status=422)
        if "retention" in verdicts:
            raise InfluxFault("422 partial write: dropped 1 points outside retention policy", status=422)


HOURS = range(START_S // 3600, START_S // 3600 + 4)


@st.composite
def refusals(draw: st.DrawFn) -> tuple[Batch, Rules, int]:
    ids = [f"s{i}" for i in range(draw(st.integers(1, 4)))]
    size = draw(st.integers(1, 40))
    step_ns = draw(st.sampled_from([1, HOUR_NS // 7, HOUR_NS // 2]))
    batch = make_batch([(i // len(ids) * step_ns, ids[i % len(ids)], float(i // 2)) for i in range(size)])
    first, last = int(batch.times_ns[0]), int(batch.times_ns[-1])
    rules = Rules(
        bad_sources=frozenset(draw(st.sets(st.sampled_from(ids), max_size=2))),
        kept_from_ns=draw(st.just(0) | st.integers(first, last + 1)),
        integer_hours=frozenset(draw(st.sets(st.sampled_from(HOURS), max_size=3))),
        most_bytes=draw(st.sampled_from([10**9, 1000])),
    )
    return batch, rules, draw(st.sampled_from([5, 16, 20_000]))


@given(refusals())
def test_whatever_a_server_refuses_is_found_exactly_and_the_rest_is_stored(case: tuple[Batch, Rules, int]) -> None:
    batch, rules, lines_per_write = case
    lines = [f"ecg_anonymized,source_id={row.source_id} ecg={row.value_uv} {row.time_ns}".encode() for row in rows_of(batch)]
    reasons = [rules.refuse(line) for line in lines]
    connection = RuledConnection(rules)
    output = ruled(connection, lines_per_write)

    outcome: Exception | None = None
    try:
        output.write(batch)
    except (BatchRejected, OutputDenied) as error:
        outcome = error

    assert connection.stored == {line for line, reason in zip(lines, reasons, strict=True) if not reason}
    if not any(reasons):
        assert outcome is None
    elif set(reasons) == {"type"}:
        assert type(outcome) is OutputDenied
    else:
        assert isinstance(outcome, BatchRejected)
        assert outcome.rows == (None if all(reasons) else tuple(i for i, reason in enumerate(reasons) if reason))
    assert len(connection.summaries) == (0 if all(reasons) else 1)
    if connection.summaries:
        assert f"partial={'true' if any(reasons) else 'false'}".encode() in connection.summaries[0]


@pytest.mark.parametrize(
    ("first_s", "step_ns", "too_old", "hours", "good"),
    [
        # Between two shards of another type.
        (0, HOUR_NS // 100, 0, (0, 2), range(50, 150)),
        # Half past two, 1700 s and 100 s more: three o'clock.
        (1700, NANOSECONDS, 20, (1,), range(20, 100)),
    ],
    ids=["two shards of another type", "too old and of another type"],
)
def test_rows_between_those_that_are_refused_for_two_reasons_are_stored(
    first_s: int, step_ns: int, too_old: int, hours: tuple[int, ...], good: range
) -> None:
    batch = make_batch([(first_s * NANOSECONDS + i * step_ns, "a", float(i // 2)) for i in range(200)])
    hour = batch.window.start_ns // HOUR_NS
    rules = Rules(kept_from_ns=int(batch.times_ns[too_old]), integer_hours=frozenset(hour + one for one in hours))

    refused = refused_by(ruled(RuledConnection(rules)), batch)

    assert refused.rows == tuple(i for i in range(200) if i not in good)


def ruled(connection: RuledConnection, lines_per_write: int = 20_000) -> InfluxOutput:
    return InfluxOutput(connection, target_in("bucket", lines_per_write))  # type: ignore[arg-type]  # a double


@pytest.mark.parametrize("most_bytes", [0, 30])
def test_a_server_that_takes_not_even_a_row_is_not_asked_about_each(most_bytes: int) -> None:
    connection = RuledConnection(Rules(most_bytes=most_bytes))
    output = ruled(connection)

    refused = refused_by(output, usual_batch(rows=10_000))

    assert refused.rows is None
    assert "10000 too large for a request, even alone (413)" in str(refused)
    assert connection.requests < 100


@pytest.mark.parametrize("together", [False, True])
def test_what_a_server_refused_as_too_large_is_not_sent_again_and_again(together: bool) -> None:
    connection = RuledConnection(Rules(most_bytes=400_000))
    output = ruled(connection, lines_per_write=20_000)
    batches = [usual_batch(rows=10_000, window=window) for window in range(3)]
    output.write(batches[0])
    refused_at_first = connection.too_large

    if together:
        assert output.write_together(batches[1:])
    else:
        output.write(batches[1])

    assert connection.too_large == refused_at_first == 1
    assert len(connection.stored) == 10_000 * (3 if together else 2)


def test_a_row_that_is_too_large_alone_does_not_make_the_requests_of_others_small() -> None:
    connection = RuledConnection(Rules(most_bytes=500_000))
    output = ruled(connection)
    huge = make_batch([(i, "x" * 600_000 if i == 7 else "a", float(i // 2)) for i in range(20)])
    refused_by(output, huge)
    connection.requests = 0

    output.write(usual_batch(rows=4000))

    assert connection.requests == 2, "its rows, and its summary"


@pytest.mark.parametrize("status", [400, 422])
def test_a_server_that_refuses_everything_does_not_have_everything_set_aside(status: int) -> None:
    class Refusing(RuledConnection):
        def write(self, bucket: str, lines: bytes | memoryview) -> None:
            self.requests += 1
            raise InfluxFault(f"{status} what is this?", status=status)

    connection = Refusing(Rules())

    with pytest.raises(OutputDenied, match=rf"refuses even a comment \({status} what is this\?\).*INFLUX_OUTPUT_URL"):
        ruled(connection).write(usual_batch(rows=10_000))

    assert connection.requests < 100


def test_rows_that_are_all_of_unwritable_sources_are_not_sent_at_all() -> None:
    connection = RuledConnection(Rules())
    batch = make_batch([(0, "line\nend", 1.0), (1, "back\\", 1.0)])

    refused = refused_by(ruled(connection), batch)

    assert refused.rows is None
    assert connection.requests == 0


def test_a_server_that_goes_away_while_it_is_asked_row_by_row_gets_the_batch_again() -> None:
    class Leaving(RuledConnection):
        def write(self, bucket: str, lines: bytes | memoryview) -> None:
            if self.requests == 5:
                raise InfluxFault("no answer in time")
            super().write(bucket, lines)

    connection = Leaving(Rules(bad_sources=frozenset({"source-1"})))
    output = ruled(connection)

    with pytest.raises(OutputUnavailable, match="no answer in time"):
        output.write(usual_batch(rows=100))
    assert connection.summaries == []
    connection.requests = 6
    assert refused_by(output, usual_batch(rows=100)).rows == tuple(range(1, 100, 2))
