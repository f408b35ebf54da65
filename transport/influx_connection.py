"""A connection to an InfluxDB server, and every way it can fail as one exception.

Answers are taken as raw bytes and requests given as ready-made bytes (decision 006).
"""

from __future__ import annotations

import base64
import http.client
import json
import math
import re
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from typing import Any, Literal

import urllib3

from transport.compression import Compression, gzipped, unzipped
from transport.deadline import whole_request_within
from transport.http_client import ErrorAnswer, HttpClient, as_form, as_json
from transport.http_headers import earliest_http_date, parse_retry_after
from transport.influx_faults import BucketFacts, InfluxFault, looks_like_id
from transport.influx_versions import Address, Database, InfluxDb2, Version, version_of
from transport.influxql_answers import without_quoted
from transport.server_clock import ServerClock
from transport.tls_faults import answered_to_plain_http, tls_fault

__all__ = ["Address", "BucketFacts", "InfluxConnection", "InfluxFault", "looks_like_id"]

#: Only column types are requested; units and groups are not used.
_DIALECT = {"header": True, "annotations": ["datatype"], "delimiter": ",", "commentPrefix": "#", "dateTimeFormat": "RFC3339"}

#: The most that is taken of an answer at a time.
_BLOCK_BYTES = 1 << 20

#: Unknown token, token without the right, and a bucket that this token may not see.
_ANOTHER_TOKEN_MAY_HELP = (401, 403, 404)

#: A server's message is shown up to here, and an answer understood.
_LONGEST_MESSAGE = 300
_LONGEST_BODY = 4000
_LONGEST_VERSION = 40

#: A shorter secret is taken for one only where it is a word: it may be a part of others.
_LONG_SECRET = 8


class InfluxConnection:
    """One server, one token at a time. Raises InfluxFault and nothing else; keeps no state but the server's clock.

    Args:
        address: The server.
        token: Returns what it is asked with, never shown; called again after each refusal, so that a token can be replaced while we
            run. An OSError of it means that the last one still holds.
    """

    def __init__(self, address: Address, token: Callable[[], str]) -> None:
        self.address = address
        self.clock = ServerClock()
        self._present_token = token
        self._token = token()
        self._http = HttpClient(address.url, ca_file=address.ca_file, proxy=address.proxy, timeout_s=address.timeout_s)
        self._compression = Compression(address.gzip, address.url)
        #: What the server calls its version; empty until it was asked.
        self.version_text = ""
        self._may_be_another = address.language == "flux"
        self._version: Version | None = InfluxDb2() if address.language == "flux" else None
        # Until it is known to be another version, which takes a token.
        first = version_of("1", "auto") if address.username else InfluxDb2()
        self._set_authorization(first.authorization(address, self._token))

    def __repr__(self) -> str:
        return f"InfluxConnection({self.address})"

    def close(self) -> None:
        """Close idle connections."""
        self._http.close()

    @property
    def version(self) -> Version:
        """What the server is; it is asked once."""
        if self._version is None:
            self.ping()
        assert self._version is not None
        return self._version

    @property
    def credentials(self) -> str:
        """Which settings hold the credentials, as far as the server's version is known."""
        return (self._version or InfluxDb2()).credentials(self.address)

    @property
    def writes_at_a_time(self) -> int:
        """How many requests to write are sent at a time, as far as the server's version is known."""
        return (self._version or InfluxDb2()).writes_at_a_time

    def ping(self) -> None:
        """Check that a server answers at all, and learn what it is. Updates the server clock."""
        sent_ns = time.monotonic_ns()
        with self._only_faults(), closing(self._http.request("GET", "/ping")) as response:
            # A web page may answer anything.
            response.data.decode()
        self._learn_time(response.headers, sent_ns)
        self.version_text = " ".join(response.headers.get("X-Influxdb-Version", "").split())[:_LONGEST_VERSION]
        if self.address.language != "flux":
            self._use(version_of(self.version_text, self.address.language))

    def _use(self, version: Version) -> None:
        version.check(self.address, self._token)
        self._version = version
        self._set_authorization(version.authorization(self.address, self._token))

    def _set_authorization(self, header: str) -> None:
        if header:
            self._http.headers["Authorization"] = header
        else:
            self._http.headers.pop("Authorization", None)

    @contextmanager
    def answer_to(self, flux: str, *, within_s: float = math.inf) -> Iterator[Iterator[bytes]]:
        """Give the CSV answer to a query in blocks, as they arrive. Who takes all of them without an InfluxFault has the whole answer.

        Meanwhile, this thread makes no other request.

        Args:
            flux: The query.
            within_s: How long the answer may take, if that is less than for any request.
        """
        question = {"query": flux, "dialect": _DIALECT}
        asked = self._answer(
            "POST", "/api/v2/query", [("org", self.address.org)], question=question, accept="application/csv", within_s=within_s
        )
        with self._flux_that_is_not_spoken(), asked as blocks:
            yield blocks

    @contextmanager
    def _flux_that_is_not_spoken(self) -> Iterator[None]:
        """Tell a version without Flux from a bucket that is missing: the status is the same."""
        try:
            yield
        except InfluxFault as fault:
            if self._speaks_no_flux() and (fault.status in (404, 405) or "flux" in str(fault).lower()):
                raise self._without_flux() from None
            # A server quotes queries that it refuses, and they name people.
            raise (fault if fault.status is None else fault.reworded(without_quoted(str(fault)))) from None

    def _speaks_no_flux(self) -> bool:
        return self.version_text[:2] in ("1.", "3.")

    def _without_flux(self) -> InfluxFault:
        return InfluxFault(
            f"it is an InfluxDB {self.version_text}, which does not answer Flux: set INFLUX_QUERY_LANGUAGE=auto",
            needs_setting=True,
        )

    def influxql(
        self,
        database: Database,
        query: str,
        *,
        accept: str = "application/json",
        chunk_rows: int = 0,
        within_s: float = math.inf,
    ) -> bytes:
        """Return the whole answer to one InfluxQL statement, with times as whole nanoseconds.

        Args:
            database: Which is asked, where the statement names none.
            query: The statement.
            accept: In what form it is wanted.
            chunk_rows: How many rows the server may send per chunk; 0: all.
            within_s: How long it may take, if that is less than for any request.
        """
        parameters = [("db", database.name), *([("rp", database.policy)] if database.policy else []), ("epoch", "ns")]
        if chunk_rows:
            parameters += [("chunked", "true"), ("chunk_size", str(chunk_rows))]
        try:
            # Not in the address, which may not be long enough for every source that was asked for.
            return self._fetch("POST", "/query", parameters, form=[("q", query)], accept=accept, within_s=within_s)
        except InfluxFault as fault:
            # A server quotes statements that it refuses, and they name people.
            raise (fault if fault.status is None else fault.reworded(without_quoted(str(fault)))) from None

    def get(self, path: str, parameters: list[tuple[str, str]]) -> bytes:
        """Return the whole answer of a path."""
        return self._fetch("GET", path, parameters)

    def post(self, path: str, question: dict[str, str], *, accept: str) -> bytes:
        """Return the whole answer to a question as JSON."""
        return self._fetch("POST", path, [], question=question, accept=accept)

    def delete(self, path: str, parameters: list[tuple[str, str]], question: dict[str, str]) -> None:
        """Have what a question sent as JSON selects deleted."""
        try:
            self._fetch("POST", path, parameters, question=question)
        except InfluxFault as fault:
            # A server quotes a predicate that it refuses, and it names a person.
            raise (fault if fault.status is None else fault.reworded(f"it answers {fault.status} to a deletion")) from None

    def delete_series(self, bucket: str, series: tuple[str, str, str], first_ns: int, last_ns: int) -> None:
        """Delete the points of a series (measurement, tag, its value) from one time to another, both included.

        Raises:
            InfluxFault: The credentials may not, or the server's version cannot.
        """
        self.version.delete(self, bucket, series, first_ns, last_ns)

    def _fetch(self, method: str, path: str, parameters: list[tuple[str, str]], **options: Any) -> bytes:
        """Return a whole answer; the options are those of `_answer`."""
        with self._answer(method, path, parameters, **options) as blocks:
            return b"".join(blocks)

    @contextmanager
    def _answer(
        self,
        method: str,
        path: str,
        parameters: list[tuple[str, str]],
        *,
        form: list[tuple[str, str]] | None = None,
        question: Mapping[str, object] | None = None,
        accept: str = "application/json",
        within_s: float = math.inf,
    ) -> Iterator[Iterator[bytes]]:
        sent_ns = time.monotonic_ns()
        headers = {"Accept": accept, "Accept-Encoding": self._encoding}
        body = None
        if form is not None:
            body, headers["Content-Type"] = as_form(form), "application/x-www-form-urlencoded"
        elif question is not None:
            body, headers["Content-Type"] = as_json(question), "application/json"
        # An answer read to its end has given its connection back; any other must take it along, or its rest would be the next answer.
        with (
            self._only_faults(within_s),
            closing(self._http.request(method, path, parameters, headers=headers, body=body)) as response,
        ):
            self._learn_time(response.headers, sent_ns)
            blocks = self._received(response, sent_ns)
            yield unzipped(blocks) if response.headers.get("Content-Encoding") == "gzip" else blocks

    def _received(self, response: urllib3.BaseHTTPResponse, sent_ns: int) -> Iterator[bytes]:
        size = 0
        while block := response.read(_BLOCK_BYTES, decode_content=False):
            size += len(block)
            yield block
        self._compression.transferred(size, (time.monotonic_ns() - sent_ns) / 1e9)

    def write(self, bucket: str, lines: bytes | memoryview) -> None:
        """Store line protocol with nanosecond times. Returns once the server has stored all of it."""
        status = self.version.write(self, bucket, lines)
        if status != 204:
            # Such as 200 from a web page at the server's address, or 201 after storing only a part.
            raise InfluxFault(f"the answer to a write was {status}, not InfluxDB's 204", status=status)

    def check_language(self) -> None:
        """Refuse a server that says that it is no InfluxDB 2, although INFLUX_QUERY_LANGUAGE does.

        To be called before the first write: any write to an unknown name makes a database on version 3.
        """
        if not self._may_be_another:
            return
        try:
            self.ping()
        except InfluxFault as fault:
            # A proxy may not pass `/ping` on; INFLUX_QUERY_LANGUAGE=flux then says what the server is.
            if fault.status in (None, 500, 502, 503, 504):
                raise
        if self._speaks_no_flux():
            raise self._without_flux()
        self._may_be_another = False

    def try_to_write(self, bucket: str) -> None:
        """See that a bucket can be written to, without storing anything."""
        self.check_language()
        self.version.try_to_write(self, bucket)

    def post_lines(self, path: str, parameters: dict[str, str], lines: bytes | memoryview) -> int:
        """Offer line protocol; return the status of the answer."""
        is_compressed, began_s = self._compression.is_on, time.monotonic()
        headers = {
            "Accept": "application/json",
            "Content-Type": "text/plain; charset=utf-8",
            "Content-Encoding": "gzip" if is_compressed else "identity",
        }
        with self._only_faults():
            body = gzipped(lines) if is_compressed else lines
            with closing(self._http.request("POST", path, list(parameters.items()), headers=headers, body=body)) as response:
                # A web page may answer anything.
                response.data.decode()
        self._compression.transferred(len(lines), time.monotonic() - began_s)
        return response.status

    @property
    def _encoding(self) -> str:
        return "gzip" if self._compression.is_on else "identity"

    def bucket(self, name: str) -> BucketFacts | None:
        """Return what the server says of a bucket; None when this token may not see it. There is none: a fault with status 404."""
        return self.version.bucket(self, name)

    def name_of_bucket(self, given: str) -> str | None:
        """Return the name of the bucket that a text names, which looks like an id; None when this token cannot tell.

        The server writes to the bucket with that id if there is one, else to one of that name; a query only knows names. So a name is
        believed only where the server says that there is no such id, and no name that looks like an id again.
        """
        if not self.version.has_ids():
            return given
        by_id, by_name = self._found_bucket(id=given), self._found_bucket(name=given)
        if isinstance(by_id, BucketFacts):
            is_plain = not looks_like_id(by_id.name) and not isinstance(by_name, BucketFacts)
            return by_id.name if is_plain or by_id == by_name else None
        return by_name.name if isinstance(by_name, BucketFacts) and by_id == "none" else None

    def _found_bucket(self, **wanted: str) -> BucketFacts | Literal["none", "unseen"]:
        try:
            return self.find_bucket(**wanted) or "unseen"
        except InfluxFault as fault:
            if fault.says_there_is_no_bucket:
                return "none"
            raise

    def find_bucket(self, **wanted: str) -> BucketFacts | None:
        """Return a bucket of an InfluxDB 2, by its name or its id; None when this token may not see it."""
        # The server takes an id for a name here, and only here.
        org = ("orgID" if looks_like_id(self.address.org) else "org", self.address.org)
        with self._only_faults():
            # Not as the client's objects: what a proxy answers in the server's place would make them raise anything.
            with closing(self._http.request("GET", "/api/v2/buckets", [*wanted.items(), org])) as response:
                answer = response.read(decode_content=True)
            try:
                found = json.loads(answer)["buckets"]
                return _facts_of(found[0]) if found else None
            except (ValueError, TypeError, LookupError, AttributeError):
                raise InfluxFault("the list of buckets is not as InfluxDB gives it") from None

    def _learn_time(self, headers: Any, sent_ns: int) -> None:
        date = earliest_http_date(headers.getlist("Date"))
        if date is not None:
            self.clock.observe(int(date.timestamp()), sent_ns=sent_ns, received_ns=time.monotonic_ns())
        else:
            self.clock.observe_no_date(received_ns=time.monotonic_ns())

    @contextmanager
    def _only_faults(self, within_s: float = math.inf) -> Iterator[None]:
        """Raise only InfluxFault, apart from bugs in this project; after a refusal, look for a replaced token."""
        token = self._token
        try:
            if not (token.isascii() and token.isprintable()):
                # A library's error would quote the token.
                raise InfluxFault("the token holds characters that no token has, such as a line end or a curly quote", status=401)
            with whole_request_within(min(within_s, self.address.timeout_s)):
                yield
        except Exception as error:
            fault = error if isinstance(error, InfluxFault) else self._as_fault(error, token=token)
            if self._version is not None:
                fault = self._version.refined(fault)
            if fault.status in _ANOTHER_TOKEN_MAY_HELP:
                self._renew_token()
            raise fault from None

    def _as_fault(self, error: Exception, *, token: str) -> InfluxFault:
        url = self.address.url
        if isinstance(error, ErrorAnswer) and error.status == 400:
            found = answered_to_plain_http(url, error.body)
        else:
            found = tls_fault(error, url=url, ca_setting="INFLUX_CA_FILE")
        if found is not None:
            return InfluxFault(found.text, is_unreachable_for_good=found.is_lasting)
        return _as_fault(error, secrets=self._secrets(token))

    def _secrets(self, token: str) -> tuple[str, ...]:
        """Return what no message may quote: the token, what is sent for it, and name and password of the user of InfluxDB 1."""
        pairs = [
            f"{self.address.username}:{self.address.password()}" if self.address.username else "",
            token if ":" in token else "",
        ]
        parts = [part for pair in pairs for part in (pair, *pair.split(":", 1)) if pair]
        encoded = [base64.b64encode(pair.encode(errors="surrogateescape")).decode() for pair in pairs if pair]
        return tuple(sorted(filter(None, {token, *parts, *encoded}), key=len, reverse=True))

    def _renew_token(self) -> None:
        with suppress(OSError):
            self._token = self._present_token()
            self._set_authorization((self._version or InfluxDb2()).authorization(self.address, self._token))


def _facts_of(bucket: dict[str, Any]) -> BucketFacts:
    rule = next(iter(bucket.get("retentionRules") or [{}]))
    return BucketFacts(
        name=str(bucket["name"]),
        id=str(bucket["id"]),
        shard_group_s=int(rule.get("shardGroupDurationSeconds") or 0),
        retention_s=int(rule.get("everySeconds") or 0),
    )


def _as_fault(error: Exception, *, secrets: tuple[str, ...]) -> InfluxFault:
    """Translate errors of HTTP and the libraries below it; any other error is a bug in this project and is raised unchanged."""
    if isinstance(error, ErrorAnswer):
        retry_after = parse_retry_after(error.headers.get("Retry-After"), now=datetime.now(UTC))
        message = f"{error.status} {_short(_message(error), secrets)}"
        return InfluxFault(message, status=error.status, retry_after_s=retry_after, body=_body(error)[:_LONGEST_BODY])
    if isinstance(error, urllib3.exceptions.SSLError):
        return InfluxFault(f"no secure connection: {_short(f'SSLError {error}', secrets)}")
    if isinstance(error, zlib.error):
        return InfluxFault("the answer's compressed data is damaged or was cut")
    if isinstance(error, UnicodeDecodeError):
        return InfluxFault("the answer is not UTF-8 text, so not InfluxDB's")
    if isinstance(error, urllib3.exceptions.HTTPError | http.client.HTTPException | OSError):
        return InfluxFault(_short(_reason(error), secrets))
    raise error


def _reason(error: Exception) -> str:
    """Return why there was no answer, in few words."""
    if isinstance(error, urllib3.exceptions.MaxRetryError) and error.reason is not None:
        error = error.reason
    if isinstance(error, urllib3.exceptions.ProxyError):
        return "the proxy that HTTP_PROXY, HTTPS_PROXY or ALL_PROXY names refuses the connection, or does not answer"
    if isinstance(error, urllib3.exceptions.NameResolutionError):
        return "the host name cannot be resolved"
    if isinstance(error, urllib3.exceptions.NewConnectionError):
        return "connection refused or host unreachable"
    # A request that cannot be sent in time counts as a broken connection in the client library.
    if isinstance(error, urllib3.exceptions.TimeoutError) or any(isinstance(cause, TimeoutError) for cause in error.args):
        return "no answer in time"
    return f"{type(error).__name__}: {error}"


def _message(error: ErrorAnswer) -> str:
    try:
        said = json.loads(_body(error))
        return str(said.get("message") or said.get("error") or error.reason)
    except (ValueError, AttributeError):
        return str(error.reason or "without a reason")


def _body(error: ErrorAnswer) -> str:
    return error.body.decode("utf-8", "replace")


def _short(text: str, secrets: tuple[str, ...]) -> str:
    """Return a server's message as one short line, without token and password: a proxy may quote what it was sent."""
    one_line = " ".join(text.split())
    for secret in secrets:
        # A user may be called "a".
        one_line = (
            re.sub(rf"(?<!\w){re.escape(secret)}(?!\w)", "…", one_line)
            if len(secret) < _LONG_SECRET
            else one_line.replace(secret, "…")
        )
    return one_line if len(one_line) <= _LONGEST_MESSAGE else one_line[:_LONGEST_MESSAGE] + "…"
