"""A connection to an InfluxDB 2 server over the official client, and every way it can fail as one exception.

Answers are taken as raw bytes and requests given as ready-made bytes: the client is used for authentication, TLS and connections.
"""

from __future__ import annotations

import http.client
import json
import math
import re
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

import urllib3
from influxdb_client import Dialect, InfluxDBClient, Query, QueryService, WriteService
from influxdb_client.rest import ApiException

from transport.compression import Compression, gzipped, unzipped
from transport.deadline import keep_limits, whole_request_within
from transport.http_date import earliest_http_date
from transport.proxies import credentials_of
from transport.retry_after import parse_retry_after
from transport.server_clock import ServerClock
from transport.tls_faults import answered_to_plain_http, tls_fault

#: Only column types are requested; units and groups are not used.
_DIALECT = Dialect(header=True, annotations=["datatype"], delimiter=",", date_time_format="RFC3339")

#: Unknown token, token without the right, and a bucket that this token may not see.
_ANOTHER_TOKEN_MAY_HELP = (401, 403, 404)

#: A server's message is shown up to here.
_LONGEST_MESSAGE = 300


class InfluxFault(Exception):
    """The server did not do what was asked.

    Args:
        message: What came back, in a sentence.
        status: HTTP status; None when there was no answer, or none that ended properly.
        retry_after_s: The wait that the server asked for.
        is_unreachable_for_good: Whether the server stays unreachable until an operator changes an address or a certificate.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        retry_after_s: float | None = None,
        is_unreachable_for_good: bool = False,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after_s = retry_after_s
        self.is_unreachable_for_good = is_unreachable_for_good

    @property
    def is_denial(self) -> bool:
        """Whether a token, an organization, a bucket or the address is wrong, which waiting does not fix."""
        # Below 400: a redirect, or a success that is not InfluxDB's.
        is_refused = self.status is not None and (self.status < 400 or self.status in (401, 403, 404, 405, 407))
        return is_refused or self.is_unreachable_for_good

    @property
    def says_there_is_no_bucket(self) -> bool:
        """Whether the server said so itself, which it does to every token; one that may not see a bucket is shown an empty list."""
        return self.status == 404 and "bucket" in str(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where a server is, and how to talk to it; the token is passed apart, so that this can be shown.

    Args:
        url: Of the server.
        org: The organization.
        ca_file: Certificate authority file for https; empty: the system's.
        timeout_s: How long a request may take in all.
        gzip: Whether rows are compressed on their way: `true`, `false`, or `auto` (`transport/compression.py`).
        proxy: Through which it is reached (`transport/proxies.py`); empty: none. A password may stand in it.
    """

    url: str
    org: str
    ca_file: str = ""
    timeout_s: float = 30.0
    gzip: str = "auto"
    proxy: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class BucketFacts:
    """A bucket's properties, as the server reports them.

    Args:
        name: Its name.
        id: Stays the same whatever its name and address.
        shard_group_s: How long its shard groups are; 0 when that is not told.
        retention_s: How long it keeps rows; 0: for ever.
    """

    name: str
    id: str
    shard_group_s: int
    retention_s: int


def looks_like_id(text: str) -> bool:
    """Return whether a text has the form of the ids that a server gives to buckets and organizations."""
    return re.fullmatch("[0-9a-fA-F]{16}", text) is not None


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
        proxy, proxy_credentials = credentials_of(address.proxy)
        self._client = InfluxDBClient(
            url=address.url,
            token=self._token,
            org=address.org,
            timeout=int(address.timeout_s * 1000),
            ssl_ca_cert=address.ca_file or None,
            enable_gzip=False,
            proxy=proxy or None,
            proxy_headers=urllib3.make_headers(proxy_basic_auth=proxy_credentials) if proxy_credentials else None,
        )
        keep_limits(self._client.api_client.rest_client.pool_manager)
        self._compression = Compression(address.gzip, address.url)
        self._queries = QueryService(self._client.api_client)
        self._writes = WriteService(self._client.api_client)

    def __repr__(self) -> str:
        return f"InfluxConnection({self.address})"

    def close(self) -> None:
        """Close idle connections."""
        self._client.close()

    def ping(self) -> None:
        """Check that a server answers at all, which needs no token. Updates the server clock."""
        sent_ns = time.monotonic_ns()
        with self._only_faults():
            _, status, headers = self._client.api_client.call_api(
                "/ping", "GET", _return_http_data_only=False, _preload_content=True, response_type=None
            )
        self._learn_time(headers, sent_ns)
        if status >= 300:
            raise InfluxFault(f"{self.address.url}/ping answered {status}", status=status)

    def query(self, flux: str, *, within_s: float = math.inf) -> bytes:
        """Return the whole CSV answer to a query; never a part of it.

        Args:
            flux: The query.
            within_s: How long it may take, if that is less than for any request.
        """
        sent_ns = time.monotonic_ns()
        # An answer read to its end has given its connection back; any other must take it along, or its rest would be the next answer.
        with self._only_faults(within_s), closing(self._ask(flux)) as response:
            self._learn_time(response.headers, sent_ns)
            answer: bytes = response.read(decode_content=False)
            if response.headers.get("Content-Encoding") == "gzip":
                answer = unzipped(answer)
        self._compression.transferred(len(answer), (time.monotonic_ns() - sent_ns) / 1e9)
        return answer

    def write(self, bucket: str, lines: bytes) -> None:
        """Store line protocol with nanosecond times. Returns once the server has stored all of it."""
        is_compressed, began_s = self._compression.is_on, time.monotonic()
        with self._only_faults():
            _, status, _ = self._writes.post_write_with_http_info(
                org=self.address.org,
                bucket=bucket,
                body=gzipped(lines) if is_compressed else lines,
                precision="ns",
                content_type="text/plain; charset=utf-8",
                content_encoding="gzip" if is_compressed else "identity",
            )
        self._compression.transferred(len(lines), time.monotonic() - began_s)
        if status != 204:
            # Such as 200 from a web page that stands where the server should be, or 201 from one that stored a part.
            raise InfluxFault(f"the answer to a write was {status}, not InfluxDB's 204", status=status)

    def _ask(self, flux: str) -> Any:
        # The answer is not read here: it is for the caller, as bytes.
        return self._queries.post_query(
            org=self.address.org,
            query=Query(query=flux, dialect=_DIALECT),
            accept_encoding="gzip" if self._compression.is_on else "identity",
            _preload_content=False,
        )

    def bucket(self, name: str) -> BucketFacts | None:
        """Return what the server says of a bucket; None when this token may not see it. There is none: a fault with status 404."""
        return self._find_bucket(name=name)

    def name_of_bucket(self, given: str) -> str | None:
        """Return the name of the bucket that a text names, which looks like an id; None when this token cannot tell.

        The server writes to the bucket with that id if there is one, else to one of that name; a query only knows names. So a name is
        believed only where the server says that there is no such id, and no name that looks like an id again.
        """
        by_id, by_name = self._found_bucket(id=given), self._found_bucket(name=given)
        if isinstance(by_id, BucketFacts):
            is_plain = not looks_like_id(by_id.name) and not isinstance(by_name, BucketFacts)
            return by_id.name if is_plain or by_id == by_name else None
        return by_name.name if isinstance(by_name, BucketFacts) and by_id == "none" else None

    def _found_bucket(self, **wanted: str) -> BucketFacts | Literal["none", "unseen"]:
        try:
            return self._find_bucket(**wanted) or "unseen"
        except InfluxFault as fault:
            if fault.says_there_is_no_bucket:
                return "none"
            raise

    def _find_bucket(self, **wanted: str) -> BucketFacts | None:
        # The server takes an id for a name here, and only here.
        org = ("orgID" if looks_like_id(self.address.org) else "org", self.address.org)
        with self._only_faults():
            # Not as the client's objects: what a proxy answers in the server's place would make them raise anything.
            with closing(self._get("/api/v2/buckets", [*wanted.items(), org])) as response:
                answer = response.read(decode_content=True)
            try:
                found = json.loads(answer)["buckets"]
                return _facts_of(found[0]) if found else None
            except (ValueError, TypeError, LookupError, AttributeError):
                raise InfluxFault("the list of buckets is not as InfluxDB gives it") from None

    def _get(self, path: str, parameters: list[tuple[str, str]]) -> Any:
        return self._client.api_client.call_api(
            path, "GET", query_params=parameters, _return_http_data_only=True, _preload_content=False, response_type=None
        )

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
            if fault.status in _ANOTHER_TOKEN_MAY_HELP:
                self._renew_token()
            raise fault from None

    def _as_fault(self, error: Exception, *, token: str) -> InfluxFault:
        url = self.address.url
        body = error.body if isinstance(error, ApiException) else None
        if isinstance(error, ApiException) and error.status == 400 and isinstance(body, bytes | str):
            found = answered_to_plain_http(url, body if isinstance(body, bytes) else body.encode())
        else:
            found = tls_fault(error, url=url, ca_setting="INFLUX_CA_FILE")
        return (
            _as_fault(error, token=token) if found is None else InfluxFault(found.text, is_unreachable_for_good=found.is_lasting)
        )

    def _renew_token(self) -> None:
        with suppress(OSError):
            self._token = self._present_token()
            self._client.api_client.set_default_header("Authorization", f"Token {self._token}")


def _facts_of(bucket: dict[str, Any]) -> BucketFacts:
    rule = next(iter(bucket.get("retentionRules") or [{}]))
    return BucketFacts(
        name=str(bucket["name"]),
        id=str(bucket["id"]),
        shard_group_s=int(rule.get("shardGroupDurationSeconds") or 0),
        retention_s=int(rule.get("everySeconds") or 0),
    )


def _as_fault(error: Exception, *, token: str) -> InfluxFault:
    """Translate errors of the client and its libraries; any other error is a bug in this project and is raised unchanged."""
    if isinstance(error, ApiException) and error.status:
        retry_after = parse_retry_after((error.headers or {}).get("Retry-After"), now=datetime.now(UTC))
        message = f"{error.status} {_short(_message(error), token)}"
        return InfluxFault(message, status=int(error.status), retry_after_s=retry_after)
    if isinstance(error, ApiException):
        return InfluxFault(f"no secure connection: {_short(str(error.reason), token)}")
    if isinstance(error, zlib.error):
        return InfluxFault("the answer's compressed data is damaged or was cut")
    if isinstance(error, UnicodeDecodeError):
        return InfluxFault("the answer is not UTF-8 text, so not InfluxDB's")
    if isinstance(error, urllib3.exceptions.HTTPError | http.client.HTTPException | OSError):
        return InfluxFault(_short(_reason(error), token))
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


def _message(error: ApiException) -> str:
    body = error.body.decode("utf-8", "replace") if isinstance(error.body, bytes) else str(error.body or "")
    try:
        return str(json.loads(body)["message"] or error.reason)
    except (ValueError, KeyError, TypeError):
        return str(error.reason or "without a reason")


def _short(text: str, token: str) -> str:
    """Return a server's message as one short line, without the token: a proxy may quote what it was sent."""
    one_line = " ".join(text.split())
    if token:
        one_line = one_line.replace(token, "…")
    return one_line if len(one_line) <= _LONGEST_MESSAGE else one_line[:_LONGEST_MESSAGE] + "…"
