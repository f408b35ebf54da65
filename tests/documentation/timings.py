"""The times that the documentation gives, measured on this machine: `python -m tests.documentation.timings [cost | client]`."""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import pyarrow as pa
from influxdb_client import Point
from influxdb_client.client.flux_csv_parser import FluxCsvParser, FluxSerializationMode

from anonymizer.anonymize import anonymize_chunk
from anonymizer.batch import Batch
from anonymizer.samples import Samples, make_samples
from anonymizer.verify import verify
from anonymizer.windows import WindowRange
from inputs.flux_csv import TIME_TYPE, read_tables
from outputs.encoding import time_texts
from outputs.influxdb import InfluxTarget, encode_rows
from tests.core.both_ways import recipe_of, shipped_ranges
from tests.core.plain_anonymizer import PlainSettings
from tests.documentation.figures import print_asked
from tests.documentation.sample import alone, batches_of, together, windows

#: A piece of work is done this often, and the quickest counts.
REPEATS = 9

#: How an answer begins with the annotations that our reader asks for, and with those that the client's asks for.
OUR_HEAD = "#datatype,string,long,dateTime:RFC3339,double,string\r\n,result,table,_time,_value,source_id\r\n"
THEIR_HEAD = f"#group,false,false,false,false,false\r\n#default,_result,,,,\r\n{OUR_HEAD}"

_TARGET = InfluxTarget(bucket="anonymized-data", measurement="ecg", field="ecg", source_tag="source_id")

Work = Callable[[], object]


def cost() -> Iterator[str]:
    """How long anonymizing and verifying takes, default settings."""
    yield "| | rows | anonymize | verify |"
    yield "| --- | --- | --- | --- |"
    one_window = windows().part(1, 2)
    for what, samples, span in (
        ("one window of one record", alone()[0], one_window),
        ("one window of six records", together(), one_window),
        ("five minutes of six records", together(), windows()),
    ):
        rows = _inside(samples, span)
        anonymizing = partial(anonymize_chunk, rows, span, recipe_of(PlainSettings(), shipped_ranges()))
        batches = [result.batch for result in anonymizing().results if result.batch is not None]
        yield f"| {what} | {len(rows):,} | {_milliseconds(anonymizing)} | {_milliseconds(lambda: [*map(verify, batches)])} |"  # noqa: B023


def client() -> Iterator[str]:
    """How quickly the official client's own classes and ours turn the same rows into columns, and into line protocol."""
    yield "| | rows | official client | here |"
    yield "| --- | --- | --- | --- |"
    batch = batches_of(together(), PlainSettings())[0]
    contests: list[tuple[str, Work, Work]] = [
        (
            "parse an answer",
            partial(parse_with_the_client, _answer(batch, THEIR_HEAD)),
            partial(_parse_here, _answer(batch, OUR_HEAD)),
        ),
        (
            "build line protocol",
            partial(_write_with_the_client, _rows(batch), batch.source_ids),
            partial(encode_rows, batch, _TARGET),
        ),
    ]
    for what, theirs, ours in contests:
        yield f"| {what} | {len(batch):,} | {_rate(theirs, len(batch))} | {_rate(ours, len(batch))} |"


def parse_with_the_client(answer: bytes) -> list[dict[str, object]]:
    """Return every row of a Flux answer as the client's own parser reads it."""
    return [record.values for record in FluxCsvParser(io.BytesIO(answer), FluxSerializationMode.stream).generator()]


def _parse_here(answer: bytes) -> object:
    (table,) = read_tables([answer])
    return table.columns([("_time", TIME_TYPE), ("_value", pa.float64()), ("source_id", pa.dictionary(pa.int32(), pa.string()))])


def _write_with_the_client(rows: Sequence[tuple[int, int, float]], ids: Sequence[str]) -> bytes:
    points = (
        Point("ecg_anonymized").tag("source_id", ids[index]).field("ecg", value).time(time_ns) for time_ns, index, value in rows
    )
    return "\n".join(point.to_line_protocol() for point in points).encode()


def _rows(batch: Batch) -> list[tuple[int, int, float]]:
    return list(zip(batch.times_ns.tolist(), batch.source_index.tolist(), batch.values_uv.tolist(), strict=True))


def _answer(batch: Batch, head: str) -> bytes:
    """Return the rows as InfluxDB answers them."""
    times = time_texts(batch.times_ns).to_pylist()
    lines = (
        f",,0,{time},{value},{batch.source_ids[index]}\r\n" for time, (_, index, value) in zip(times, _rows(batch), strict=True)
    )
    return (head + "".join(lines) + "\r\n").encode()


def _inside(samples: Samples, span: WindowRange) -> Samples:
    inside = (samples.times_ns >= span.start_ns) & (samples.times_ns < span.end_ns)
    return make_samples(samples.times_ns[inside], samples.source_codes[inside], samples.source_ids, samples.values_uv[inside])


def _milliseconds(work: Work) -> str:
    return f"{1000 * _quickest_s(work):.1f} ms"


def _rate(work: Work, rows: int) -> str:
    return f"{rows / _quickest_s(work) / 1e6:.2f} M rows/s"


def _quickest_s(work: Work) -> float:
    taken = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        work()
        taken.append(time.perf_counter() - started)
    return min(taken)


TIMINGS: dict[str, Callable[[], Iterator[str]]] = {"cost": cost, "client": client}


if __name__ == "__main__":
    sys.exit(print_asked(sys.argv[1:], "timings", "timing", TIMINGS))
