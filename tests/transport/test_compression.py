"""Rows are compressed where a network is slow, and then arrive as they were sent; never within this machine, unless asked for."""

from __future__ import annotations

import gzip

import pytest

from tests.conftest import Bucket
from tests.servers.http_proxy import HttpProxy
from tests.servers.socket_server import Serve, http_answer
from tests.transport.answers import whole_answer
from transport.compression import Compression, gzipped
from transport.influx_connection import Address, InfluxConnection, InfluxFault

FAR = "https://influx.clinic.example:8086"

#: A megabyte in a second, and in a hundredth of one.
SLOW, QUICK = (1_000_000, 1.0), (1_000_000, 0.01)

CSV = b"#datatype,string,long,string\r\n,result,table,_value\r\n,_result,0,ecg\r\n\r\n"

LINES = b"".join(b"ecg,source_id=a ecg=%d.5 %d\n" % (value, 1_762_180_200_000_000_000 + value) for value in range(5000))


def test_a_network_is_taken_for_slow_once_five_large_transfers_in_a_row_were() -> None:
    compression = Compression("auto", FAR)
    states = []

    for transfer in (SLOW, SLOW, SLOW, SLOW, QUICK, SLOW, SLOW, SLOW, SLOW, SLOW, QUICK):
        compression.transferred(*transfer)
        states.append(compression.is_on)

    assert states == [False] * 9 + [True, True]


@pytest.mark.parametrize(
    ("asked", "url", "transfer", "is_on"),
    [
        ("auto", FAR, (1000, 1.0), False),
        ("false", FAR, SLOW, False),
        *(("auto", f"http://{host}:8086", SLOW, False) for host in ("localhost", "127.0.0.1", "[::1]", "db.localhost")),
        ("true", "http://localhost:8086", QUICK, True),
    ],
)
def test_small_transfers_a_refusal_and_this_machine_never_turn_compression_on_and_a_request_does(
    asked: str, url: str, transfer: tuple[int, float], is_on: bool
) -> None:
    compression = Compression(asked, url)

    for _ in range(100):
        compression.transferred(*transfer)

    assert compression.is_on is is_on


def test_the_same_rows_are_the_same_bytes_compressed_too() -> None:
    assert gzipped(LINES) == gzipped(LINES)
    assert gzip.decompress(gzipped(LINES)) == LINES


@pytest.mark.influxdb
def test_what_is_written_and_read_compressed_is_what_was_sent(output_bucket: Bucket) -> None:
    server = output_bucket.server
    query = f'from(bucket: "{output_bucket.name}") |> range(start: 0) |> keep(columns: ["_time", "_value"])'
    with HttpProxy(server.url) as proxy:
        packed = InfluxConnection(Address(url=proxy.url, org=server.org, gzip="true"), lambda: server.token)
        plain = InfluxConnection(Address(url=server.url, org=server.org, gzip="false"), lambda: server.token)
        direct = InfluxConnection(Address(url=server.url, org=server.org, gzip="true"), lambda: server.token)

        packed.write(output_bucket.name, LINES)

        (write,) = proxy.asked("/api/v2/write")
        assert len(write.body) < len(LINES) / 5
        assert gzip.decompress(write.body) == LINES
        assert whole_answer(plain, query).count(b"\r\n") == 5000 + 3
        assert whole_answer(direct, query) == whole_answer(plain, query)
        for connection in (packed, plain, direct):
            connection.close()


def test_a_compressed_answer_is_unpacked_and_a_cut_one_is_no_answer(serve: Serve) -> None:
    packed = gzip.compress(CSV)
    whole = http_answer("200 OK", packed, "Content-Encoding: gzip")
    cut = http_answer("200 OK", packed[:-9], "Content-Encoding: gzip")
    server = serve([whole], [cut])
    connection = InfluxConnection(Address(url=server.url, org="testbed", gzip="true"), lambda: "token")

    assert whole_answer(connection) == CSV
    with pytest.raises(InfluxFault):
        whole_answer(connection)

    assert all(b"accept-encoding: gzip" in request.lower() for request in server.requests)
    connection.close()
