"""Every way a connection can fail is an InfluxFault that says why and shows no token; only what ended properly is an answer."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from urllib3.connection import HTTPConnection

from testbed.influxdb_server import InfluxServer
from tests.conftest import Bucket
from tests.servers.socket_server import Answer, Pause, Reset, Serve, chunk, http_answer, socket_servers
from tests.transport.answers import whole_answer
from tests.transport.slow_server import MORE_THAN_BUFFERS_HOLD, slow_reader
from transport.influx_connection import Address, InfluxConnection, InfluxFault

TOKEN = "s3cret-token-0123456789=="

CSV = b"#datatype,string,long,string\r\n,result,table,_value\r\n,_result,0,ecg\r\n\r\n"

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"

#: Everything that is ever asked of a server.
QUESTIONS: dict[str, Callable[[InfluxConnection], object]] = {
    "ping": lambda connection: connection.ping(),
    "query": lambda connection: whole_answer(connection),
    "write": lambda connection: connection.write("bucket", b"ecg ecg=1.0 1\n"),
    "bucket": lambda connection: connection.bucket("bucket"),
}

Ask = Callable[[InfluxConnection], object]
Connect = Callable[..., InfluxConnection]

EVERY_QUESTION = pytest.mark.parametrize("ask", QUESTIONS.values(), ids=QUESTIONS)


@pytest.fixture
def connect() -> Iterator[Connect]:
    """What makes a connection that is closed at the end."""
    made: list[InfluxConnection] = []

    def make(
        url: str, *, token: str | Callable[[], str] = TOKEN, timeout_s: float = 10.0, org: str = "testbed", ca_file: str = ""
    ) -> InfluxConnection:
        read_token = token if callable(token) else lambda: token
        made.append(InfluxConnection(Address(url=url, org=org, timeout_s=timeout_s, ca_file=ca_file), read_token))
        return made[-1]

    yield make
    for connection in made:
        connection.close()


# --- no answer, or none that ended properly -------------------------------------------------------------------------------------

BROKEN: dict[str, Answer] = {
    "reset": [Reset()],
    "closed": [],
    "not HTTP": [b"SSH-2.0-OpenSSH_9.2\r\n"],
    "TLS alert": [b"\x15\x03\x01\x00\x02\x02\x50"],
    "cut head": [b"HTTP/1.1 20"],
    "early clean end": [http_answer("200 OK", CSV, length=len(CSV) + 1)],
    "reset mid-body": [http_answer("200 OK", CSV, length=1000), Reset()],
    "cut before the last chunk": [CHUNKED + chunk(CSV)],
    "cut inside a chunk": [CHUNKED + chunk(CSV)[:30]],
    "cut behind a chunk": [CHUNKED + chunk(CSV)[:-2]],
    "no chunk at all": [CHUNKED],
    "bad chunk": [CHUNKED + b"zz\r\n" + CSV],
    "not gzip": [http_answer("200 OK", CSV, "Content-Encoding: gzip")],
    "endless header": [b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70_000],
    "too many headers": [b"HTTP/1.1 200 OK\r\n" + b"X: x\r\n" * 200 + b"\r\n"],
}


@EVERY_QUESTION
@pytest.mark.parametrize("answer", BROKEN.values(), ids=BROKEN)
def test_an_answer_that_did_not_end_properly_is_rejected(answer: Answer, ask: Ask, connect: Connect, serve: Serve) -> None:
    with pytest.raises(InfluxFault) as fault:
        ask(connect(serve(answer).url))

    assert fault.value.status is None
    assert TOKEN not in str(fault.value)


def test_a_chunked_answer_cut_anywhere_is_rejected(connect: Connect, serve: Serve) -> None:
    whole = CHUNKED + chunk(CSV[:20]) + chunk(CSV[20:]) + chunk(b"")
    cuts = range(len(CHUNKED), len(whole) - len(chunk(b"")) + 1)
    connection = connect(serve(*([whole[:cut]] for cut in cuts), [whole]).url)

    for _ in cuts:
        with pytest.raises(InfluxFault):
            whole_answer(connection)

    assert whole_answer(connection) == CSV


@EVERY_QUESTION
def test_a_server_that_never_answers_is_given_up_in_time(ask: Ask, connect: Connect, serve: Serve) -> None:
    started_s = time.monotonic()

    with pytest.raises(InfluxFault, match="no answer in time"):
        ask(connect(serve([Pause(30)]).url, timeout_s=0.3))

    assert time.monotonic() - started_s < 20


@EVERY_QUESTION
@pytest.mark.parametrize("dripping", ["head", "body"])
def test_an_answer_that_comes_byte_by_byte_is_given_up_in_time(dripping: str, ask: Ask, connect: Connect, serve: Serve) -> None:
    whole = http_answer("200 OK", CSV)
    at_once = 0 if dripping == "head" else len(whole) - len(CSV)
    drip = [step for byte in whole[at_once:] for step in (bytes([byte]), Pause(0.2))]
    server = serve([whole[:at_once], *drip], [http_answer("200 OK", CSV)])
    connection = connect(server.url, timeout_s=0.5)
    started_s = time.monotonic()

    with pytest.raises(InfluxFault, match="no answer in time"):
        ask(connection)

    assert time.monotonic() - started_s < 9
    # What was left of that answer is not taken for the next one.
    assert whole_answer(connection) == CSV


def test_a_write_that_is_taken_byte_by_byte_is_given_up_in_time(connect: Connect) -> None:
    with slow_reader() as url:
        connection = connect(url, timeout_s=0.5)
        started_s = time.monotonic()

        with pytest.raises(InfluxFault, match="no answer in time"):
            connection.write("bucket", b"ecg ecg=1.0 1\n" * (MORE_THAN_BUFFERS_HOLD // 14))

        assert time.monotonic() - started_s < 20


def test_the_time_is_that_of_one_request_not_of_all(connect: Connect, serve: Serve) -> None:
    connection = connect(serve([Pause(0.3), http_answer("200 OK", CSV)]).url, timeout_s=1.4)

    for _ in range(5):
        assert whole_answer(connection) == CSV


# --- a token that is replaced ---------------------------------------------------------------------------------------------------


@EVERY_QUESTION
@pytest.mark.parametrize("status", ["401 Unauthorized", "403 Forbidden", "404 Not Found"])
def test_a_token_that_is_refused_is_asked_for_again(status: str, ask: Ask, connect: Connect, serve: Serve) -> None:
    tokens = ["old-token-0123456789", TOKEN]
    server = serve([http_answer(status)], [http_answer("500 Internal Server Error")])
    connection = connect(server.url, token=lambda: tokens.pop(0))

    for status_code in (int(status[:3]), 500, 500):
        with pytest.raises(InfluxFault) as fault:
            ask(connection)
        assert fault.value.status == status_code

    used = [re.findall(rb"Authorization: Token (\S+)", request) for request in server.requests]
    assert used == [[b"old-token-0123456789"], [TOKEN.encode()], [TOKEN.encode()]]


def test_a_token_that_cannot_be_read_just_now_stays_the_last_one(connect: Connect, serve: Serve) -> None:
    def read_token() -> str:
        if server.requests:
            raise FileNotFoundError("gone for a moment")
        return TOKEN

    server = serve([http_answer("401 Unauthorized")])
    connection = connect(server.url, token=read_token)

    for _ in range(2):
        with pytest.raises(InfluxFault, match="401"):
            connection.ping()

    assert TOKEN.encode() in server.requests[1]


@pytest.mark.influxdb
def test_a_token_that_was_revoked_and_replaced_is_used_from_the_next_request_on(output_bucket: Bucket, connect: Connect) -> None:
    server = output_bucket.server
    tokens = [server.make_token(write=[output_bucket.name])]
    connection = connect(server.url, token=lambda: tokens[-1])
    connection.write(output_bucket.name, b"ecg ecg=1.0 1")
    server.revoke_token(tokens[0])
    with pytest.raises(InfluxFault, match="401"):
        connection.write(output_bucket.name, b"ecg ecg=2.0 2")
    tokens.append(output_bucket.write_token)
    with pytest.raises(InfluxFault, match="401"):
        connection.write(output_bucket.name, b"ecg ecg=2.0 2")

    connection.write(output_bucket.name, b"ecg ecg=2.0 2")


# --- a server that is not there -------------------------------------------------------------------------------------------------


@EVERY_QUESTION
@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://127.0.0.1:1", "connection refused or host unreachable"),
        ("https://127.0.0.1:1", "connection refused or host unreachable"),
        ("http://no-such-host.invalid", "the host name cannot be resolved"),
    ],
)
def test_a_server_that_is_not_there_is_a_fault_that_says_so(url: str, reason: str, ask: Ask, connect: Connect) -> None:
    with pytest.raises(InfluxFault, match=reason):
        ask(connect(url))


@pytest.mark.influxdb
@EVERY_QUESTION
def test_https_to_a_server_without_is_a_fault_that_says_so(ask: Ask, connect: Connect, influxdb: InfluxServer) -> None:
    with pytest.raises(InfluxFault, match="it does not speak https at this port"):
        ask(connect(influxdb.url.replace("http:", "https:")))


@EVERY_QUESTION
def test_an_authority_file_that_is_not_there_is_a_fault(ask: Ask, connect: Connect, serve: Serve) -> None:
    server = serve([])

    with pytest.raises(InfluxFault, match="No such file"):
        ask(connect(server.url.replace("http:", "https:"), ca_file="/no/such/file.pem"))


# --- answers that refuse --------------------------------------------------------------------------------------------------------


@EVERY_QUESTION
@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (http_answer("401 Unauthorized", b'{"code":"unauthorized","message":"unauthorized access"}'), "401 unauthorized access"),
        (http_answer("500 Internal Server Error", b"<html>oops</html>", "Content-Type: text/html"), "500 Internal Server Error"),
        (http_answer("502 Bad Gateway", b""), "502 Bad Gateway"),
        (http_answer("400 Bad Request", b'{"message":null}'), "400 Bad Request"),
        (http_answer("400 Bad Request", b"[1]"), "400 Bad Request"),
        (http_answer("503 "), "503 without a reason"),
        (http_answer("302 Found", b"", "Location: http://127.0.0.1:1/"), "302 Found"),
        (http_answer("400 Bad Request", b'{"message":"a\\n\\n  b"}'), "400 a b"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_refusal_is_passed_on_with_its_status_and_its_own_words(
    answer: bytes, message: str, ask: Ask, connect: Connect, serve: Serve
) -> None:
    with pytest.raises(InfluxFault) as fault:
        ask(connect(serve([answer]).url))

    assert str(fault.value) == message
    assert fault.value.status == int(message[:3])


@EVERY_QUESTION
def test_a_token_that_a_server_or_proxy_quotes_is_not_shown(ask: Ask, connect: Connect, serve: Serve) -> None:
    padding = "x" * 270  # so that a message cut to a bearable length would end within the token
    answers = [
        http_answer("400 Bad Request", f'{{"message":"{padding} Authorization: Token {TOKEN}"}}'.encode()),
        http_answer(f"400 Token {TOKEN}"),
        f"{TOKEN}\r\n\r\n".encode(),
    ]
    connection = connect(serve(*([answer] for answer in answers)).url)

    for _ in answers:
        with pytest.raises(InfluxFault) as fault:
            ask(connection)

        assert TOKEN[:12] not in str(fault.value)


@EVERY_QUESTION
@pytest.mark.parametrize("token", ["curly “quotes”", "line\nend", "injected\r\nX-Header: x", "tök€n", "\x00"])
def test_a_token_that_cannot_be_sent_is_a_denial_that_does_not_show_it_and_is_asked_for_again(
    token: str, ask: Ask, connect: Connect, serve: Serve
) -> None:
    server = serve([http_answer("500 Internal Server Error")])
    tokens = [token, TOKEN]
    connection = connect(server.url, token=lambda: tokens.pop(0))

    with pytest.raises(InfluxFault, match="the token holds characters that no token has") as fault:
        ask(connection)
    assert fault.value.is_denial
    assert token not in str(fault.value)
    assert server.requests == []

    with pytest.raises(InfluxFault, match="500"):
        ask(connection)
    assert TOKEN.encode() in server.requests[0]


@EVERY_QUESTION
def test_a_page_in_another_encoding_is_a_fault(ask: Ask, connect: Connect, serve: Serve) -> None:
    with pytest.raises(InfluxFault):
        ask(connect(serve([http_answer("502 Bad Gateway", "<html>nicht verfügbar</html>".encode("latin-1"))]).url))


@EVERY_QUESTION
def test_a_redirect_is_not_followed(ask: Ask, connect: Connect, serve: Serve) -> None:
    elsewhere = serve([http_answer("204 No Content")])
    here = serve([http_answer("307 Temporary Redirect", b"", f"Location: {elsewhere.url}/")])

    with pytest.raises(InfluxFault, match="307") as fault:
        ask(connect(here.url))

    assert fault.value.is_denial
    assert elsewhere.requests == []


@pytest.mark.parametrize(("header", "expected_s"), [("7", 7), ("9" * 400, 600), ("soon", None), ("-1", None)])
def test_a_wait_that_is_asked_for_is_passed_on(header: str, expected_s: float | None, connect: Connect, serve: Serve) -> None:
    with pytest.raises(InfluxFault) as fault:
        whole_answer(connect(serve([http_answer("503 Busy", b"", f"Retry-After: {header}")]).url))

    assert fault.value.retry_after_s == expected_s


@pytest.mark.parametrize("status", ["200 OK", "201 Created", "202 Accepted"])
def test_a_write_is_stored_only_if_the_answer_is_influxdbs(status: str, connect: Connect, serve: Serve) -> None:
    with pytest.raises(InfluxFault, match=f"the answer to a write was {status[:3]}, not InfluxDB's 204"):
        connect(serve([http_answer(status, b"<html>Welcome</html>")]).url).write("bucket", b"ecg ecg=1.0 1\n")


# --- answers that are good ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "answer",
    [
        [http_answer("200 OK", CSV)],
        [CHUNKED + chunk(CSV) + chunk(b"")],
        [CHUNKED, chunk(CSV[:20]), Pause(0.05), chunk(CSV[20:]), Pause(0.05), chunk(b"")],
        [b"HTTP/1.1 200 OK\r\n\r\n" + CSV],
    ],
    ids=["length", "chunked", "in pieces", "until closed"],
)
def test_a_whole_answer_is_given_as_it_is(answer: Answer, connect: Connect, serve: Serve) -> None:
    assert whole_answer(connect(serve(answer).url)) == CSV


@pytest.mark.parametrize(
    "date", ["yesterday", "", "Wed, 21 Oct 2015 07:28:00 +99999999999999999999", "Wed, 32 Oct 2015 07:28:00 GMT"]
)
def test_an_invalid_date_is_ignored(date: str, connect: Connect, serve: Serve) -> None:
    connection = connect(serve([http_answer("200 OK", CSV, f"Date: {date}")]).url)

    connection.ping()

    assert whole_answer(connection) == CSV
    assert connection.clock.now_ns(time.monotonic_ns()) is None


@pytest.mark.parametrize("name", ["Date", "date", "DATE"])
def test_the_clock_learns_from_the_date_however_it_is_spelled(name: str, connect: Connect, serve: Serve) -> None:
    connection = connect(serve([http_answer("200 OK", CSV, f"{name}: Mon, 03 Nov 2025 14:30:00 GMT")]).url)

    connection.ping()

    told_ns = connection.clock.now_ns(time.monotonic_ns())
    assert told_ns is not None
    assert 0 <= 1_762_180_201_000_000_000 - told_ns <= 5_000_000_000


@settings(max_examples=60)
@given(
    st.sampled_from(
        [b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 503 Busy\r\n", b"HTTP/1.1 400 Bad\r\nContent-Length: 9\r\n\r\n", CHUNKED]
    ),
    st.binary(max_size=60) | st.text(max_size=40).map(str.encode),
    st.sampled_from(list(QUESTIONS)),
)
def test_whatever_a_server_sends_is_an_answer_or_a_fault(head: bytes, rest: bytes, question: str) -> None:
    with socket_servers() as serve:
        connection = InfluxConnection(Address(url=serve([head + rest]).url, org="testbed", timeout_s=2.0), lambda: TOKEN)
        with contextlib.closing(connection), contextlib.suppress(InfluxFault):
            QUESTIONS[question](connection)


def test_a_connection_can_be_shown_without_its_token(connect: Connect) -> None:
    assert repr(connect("http://127.0.0.1:1", org="clinic")) == (
        "InfluxConnection(Address(url='http://127.0.0.1:1', org='clinic', ca_file='', timeout_s=10.0, gzip='auto'))"
    )


@pytest.mark.influxdb
def test_one_connection_serves_many_questions(raw_bucket: Bucket, connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []
    really_connect = HTTPConnection.connect

    def connect_and_note(self: HTTPConnection) -> None:
        opened.append(self)
        really_connect(self)

    monkeypatch.setattr(HTTPConnection, "connect", connect_and_note)
    connection = connect(raw_bucket.server.url, token=raw_bucket.read_token)

    for _ in range(5):
        connection.ping()
        whole_answer(connection, f'from(bucket: "{raw_bucket.name}") |> range(start: 0)')

    assert len(opened) == 1


@pytest.mark.influxdb
def test_a_real_servers_clock_is_learned_and_never_run_ahead_of(raw_bucket: Bucket, connect: Connect) -> None:
    connection = connect(raw_bucket.server.url, token=raw_bucket.read_token)

    for _ in range(50):
        connection.ping()
        told_ns = connection.clock.now_ns(time.monotonic_ns())
        assert told_ns is not None
        assert -5_000_000_000 < told_ns - time.time_ns() <= 0
