"""A connection to an InfluxDB 2 server over the official client, and every way it can fail as one exception.

Answers are taken as raw bytes and requests given as ready-made bytes: the client is used for authentication, TLS and connections.
"""

from __future__ import annotations

import email.utils
import http.client
import json
import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import urllib3
from influxdb_client import Dialect, InfluxDBClient
from influxdb_client.client.write_api import SYNCHRONOUS
from influxdb_client.rest import ApiException

from transport.retry_after import parse_retry_after
from transport.server_clock import ServerClock

#: Only the types of the columns are asked for; units and groups are nothing to us.
_DIALECT = Dialect(header=True, annotations=["datatype"], delimiter=",", date_time_format="RFC3339")

#: How much of an answer is read at once.
_PIECE_BYTES = 1 << 20

#: A server's message is shown up to here.
_LONGEST_MESSAGE = 300


class InfluxFault(Exception):
    """The server did not do what was asked.

    Args:
        message: What came back, in a sentence.
        status: HTTP status; None when there was no answer, or none that ended properly.
        retry_after_s: How long the server asked us to wait.
    """

    def __init__(self, message: str, *, status: int | None = None, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after_s = retry_after_s

    @property
    def is_denial(self) -> bool:
        """Whether a token, an organization or a bucket is wrong, which waiting does not mend."""
        return self.status in (401, 403, 404)


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where a server is and how long to wait for it; the token is passed apart, so that this can be shown."""

    url: str
    org: str
    ca_file: str = ""
    timeout_s: float = 30.0


class InfluxConnection:
    """One server, one token. Raises InfluxFault and nothing else; keeps no state but the server's clock.

    Args:
        address: The server.
        token: What it is asked with. Never shown.
    """

    def __init__(self, address: Address, token: str) -> None:
        self.address = address
        self.clock = ServerClock()
        self._client = InfluxDBClient(
            url=address.url,
            token=token,
            org=address.org,
            timeout=int(address.timeout_s * 1000),
            ssl_ca_cert=address.ca_file or None,
            enable_gzip=False,
        )
        self._queries = self._client.query_api()
        self._writes = self._client.write_api(write_options=SYNCHRONOUS)

    def __repr__(self) -> str:
        return f"InfluxConnection({self.address})"

    def close(self) -> None:
        """Close idle connections."""
        self._client.close()

    def ping(self) -> None:
        """See that a server answers at all; this needs no token. Teaches the clock."""
        sent_ns = time.monotonic_ns()
        try:
            _, status, headers = self._client.api_client.call_api(
                "/ping", "GET", _return_http_data_only=False, _preload_content=True, response_type=None
            )
        except Exception as error:
            raise _as_fault(error) from None
        self._learn_time(headers, sent_ns)
        if status >= 300:
            raise InfluxFault(f"{self.address.url}/ping answered {status}", status=status)

    def query(self, flux: str) -> bytes:
        """Return the whole CSV answer to a query; never a part of it."""
        sent_ns = time.monotonic_ns()
        deadline = time.monotonic() + self.address.timeout_s
        try:
            response = self._queries.query_raw(flux, dialect=_DIALECT)
            try:
                self._learn_time(response.headers, sent_ns)
                return b"".join(_pieces(response, deadline))
            finally:
                response.release_conn()
        except InfluxFault:
            raise
        except Exception as error:
            raise _as_fault(error) from None

    def write(self, bucket: str, lines: bytes) -> None:
        """Store line protocol with nanosecond times. Returns once the server has stored all of it."""
        try:
            self._writes.write(bucket=bucket, org=self.address.org, record=lines)
        except Exception as error:
            raise _as_fault(error) from None

    def bucket_id(self, bucket: str) -> str | None:
        """Return the id of a bucket; None when there is none that this token may see."""
        try:
            found = self._client.buckets_api().find_buckets(name=bucket, org=self.address.org).buckets
        except Exception as error:
            raise _as_fault(error) from None
        return str(found[0].id) if found else None

    def _learn_time(self, headers: Any, sent_ns: int) -> None:
        date = email.utils.parsedate_to_datetime(headers["Date"]) if "Date" in headers else None
        if date is not None:
            self.clock.observe(int(date.timestamp()), sent_ns=sent_ns, received_ns=time.monotonic_ns())


def _pieces(response: urllib3.HTTPResponse, deadline: float) -> Iterable[bytes]:
    while piece := response.read(_PIECE_BYTES):
        yield piece
        if time.monotonic() > deadline:
            raise InfluxFault("the answer took longer than INFLUX_QUERY_TIMEOUT")


def _as_fault(error: Exception) -> InfluxFault:
    """Translate whatever the client and the libraries below it raise; what is none of theirs is our bug and goes on."""
    if isinstance(error, ApiException):
        if not error.status:
            return InfluxFault(f"no secure connection: {_short(str(error.reason))}")
        retry_after = parse_retry_after((error.headers or {}).get("Retry-After"), now=datetime.now(UTC))
        return InfluxFault(f"{error.status} {_message(error)}", status=int(error.status), retry_after_s=retry_after)
    if isinstance(error, urllib3.exceptions.HTTPError | http.client.HTTPException | OSError):
        return InfluxFault(_reason(error))
    raise error


def _reason(error: Exception) -> str:
    """Return why there was no answer, in few words."""
    if isinstance(error, urllib3.exceptions.MaxRetryError) and error.reason is not None:
        error = error.reason
    if isinstance(error, urllib3.exceptions.NameResolutionError):
        return "the host name cannot be resolved"
    if isinstance(error, urllib3.exceptions.NewConnectionError):
        return "connection refused or host unreachable"
    if isinstance(error, urllib3.exceptions.TimeoutError):
        return "no answer in time"
    return _short(f"{type(error).__name__}: {error}")


def _message(error: ApiException) -> str:
    body = error.body.decode("utf-8", "replace") if isinstance(error.body, bytes) else str(error.body or "")
    try:
        return _short(str(json.loads(body)["message"]))
    except (ValueError, KeyError, TypeError):
        return _short(str(error.reason or "without a reason"))


def _short(text: str) -> str:
    one_line = " ".join(text.split())
    return one_line if len(one_line) <= _LONGEST_MESSAGE else one_line[:_LONGEST_MESSAGE] + "…"
