"""An HTTP API: one `POST` with JSON a window, in parts when it is too large. The payload's schema: `documentation/api-batch.schema.json`.

Delivery: at least once on the wire, once at an API that honours `Idempotency-Key`: a part that comes again has the same key and bytes.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from http.client import responses

import requests

from anonymizer.batch import Batch
from anonymizer.errors import BatchRejected, OutputDenied, OutputError, OutputUnavailable
from anonymizer.ports import Receipt
from outputs.encoding import SCHEMA_VERSION, joined, source_texts, summary_of, time_text, time_texts, value_texts
from transport.retry_after import parse_retry_after

#: A first guess at what an API takes in one request: about 7 MB of JSON. Halved when it says 413.
MOST_ROWS_PER_PART = 50_000

#: Answers that will be the same however often the same is sent.
_REJECTED = (400, 422)

#: Nobody needs to know more of an answer than its head; so many bytes more are read, for the connection's sake.
_LONGEST_ANSWER = 65_536

#: Answers that only a person can change.
_DENIED = (401, 403, 404, 405)

_CHECK = "check API_ENDPOINT, API_TOKEN and API_CA_FILE"


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiTarget:
    """Where batches go. The token is passed apart, so that this can be shown.

    Args:
        endpoint: The address.
        ca_file: Certificate authority file; empty: the system's.
        timeout_s: How long to wait for an answer.
    """

    endpoint: str
    ca_file: str = ""
    timeout_s: float = 30.0


@dataclass(frozen=True, slots=True)
class _Part:
    """Rows `first` … `stop - 1` of a batch, as request number `number` of `parts`."""

    first: int
    stop: int
    number: int
    parts: int


class HttpApi:
    """Posts each batch and waits for the answer.

    Args:
        target: Where to.
        token: Bearer token; empty: none is sent. Never shown.
    """

    kind = "api"

    def __init__(self, target: ApiTarget, token: str = "") -> None:
        self._target = target
        self._session = requests.Session()
        self._session.headers["Content-Type"] = "application/json"
        if token:
            self._session.headers["Authorization"] = f"Bearer {token}"
        # Proxies yes, passwords from ~/.netrc no: they would replace the token.
        self._session.auth = _no_other_auth
        # What follows a question mark may be a key.
        self._shown = target.endpoint.partition("?")[0]
        self.name = f"api:{self._shown}"

    def open(self, receipts: Mapping[str, Receipt]) -> None:
        """Do nothing: an API need not answer to anything but batches."""

    def target(self, batch: Batch) -> str:
        """Return where the batch goes, for the log."""
        return self._shown

    def intent(self, batch: Batch) -> None:
        """Return None: the idempotency keys of a batch are the same whenever it comes."""

    def write(self, batch: Batch) -> None:
        """Post the batch, part by part; when one is too large, it and the rest in smaller ones.

        Every batch begins with the largest part: only so do the same refusals lead to the same parts, and so to the same keys, when it
        comes again after a crash. Nor is a part that was taken ever cut anew: under other keys its rows would be new to the API.
        """
        most_rows, first, number = MOST_ROWS_PER_PART, 0, 1
        while first < len(batch):
            part = _part(first, number, rows=len(batch), most_rows=most_rows)
            try:
                self._post(batch, part)
            except _TooLarge:
                if part.stop - first == 1:
                    raise
                most_rows = (part.stop - first) // 2
            else:
                first, number = part.stop, number + 1

    def close(self) -> None:
        """Close idle connections."""
        self._session.close()

    def _post(self, batch: Batch, part: _Part) -> None:
        key = f"{batch.batch_id}:{part.first}-{part.stop}"
        body = encode(batch, part)
        deadline_s = time.monotonic() + self._target.timeout_s
        try:
            answer = self._session.post(
                self._target.endpoint,
                data=body,
                headers={"Idempotency-Key": key},
                timeout=self._target.timeout_s,
                allow_redirects=False,
                stream=True,
                # Given here, as what a session is given yields to REQUESTS_CA_BUNDLE.
                verify=self._target.ca_file or None,
            )
        except ValueError as error:
            raise OutputDenied(f"API at {self._shown} cannot be asked ({type(error).__name__}): {_CHECK}") from None
        except OSError as error:
            raise OutputUnavailable(f"API at {self._shown} cannot be reached ({type(error).__name__})") from None
        _read_rest(answer, deadline_s)
        if not 200 <= answer.status_code < 300:
            raise self._as_output_error(answer)

    def _as_output_error(self, answer: requests.Response) -> OutputError:
        # Not the answer's own words: they may quote what was sent.
        what = f"API at {self._shown} answered {answer.status_code} {responses.get(answer.status_code, '')}".rstrip()
        if answer.status_code == 413:
            return _TooLarge(f"{what}, even to a single row")
        if answer.status_code in _REJECTED:
            return BatchRejected(what)
        if answer.status_code in _DENIED:
            return OutputDenied(f"{what}: {_CHECK}")
        if 300 <= answer.status_code < 400:
            return OutputDenied(f"{what}, a redirect, which is not followed: set API_ENDPOINT to where it points")
        retry_after = parse_retry_after(answer.headers.get("Retry-After"), now=datetime.now(UTC))
        return OutputUnavailable(what, retry_after_s=retry_after)


class _TooLarge(BatchRejected):
    """The API wants smaller requests; final only for a single row."""


def encode(batch: Batch, part: _Part) -> bytes:
    """Return the payload of one part: JSON, described by `documentation/api-batch.schema.json`."""
    head = {
        "schema": SCHEMA_VERSION,
        "batch_id": batch.batch_id,
        "part": part.number,
        "parts": part.parts,
        "window_start": time_text(batch.window.start_ns),
        "window_end": time_text(batch.window.end_ns),
        "k": batch.promise.k,
        "k_unit": batch.promise.k_unit,
        "rows": part.stop - part.first,
        "summary": summary_of(batch),
    }
    return json.dumps(head, separators=(",", ":")).encode()[:-1] + b',"records":[' + _records(batch, part) + b"]}"


def _records(batch: Batch, part: _Part) -> bytes:
    rows = slice(part.first, part.stop)
    middles = [f'","source_id":{json.dumps(name)},"ecg":' for name in batch.source_ids]
    return joined(
        '{"timestamp":"',
        time_texts(batch.times_ns[rows]),
        source_texts(batch.source_index[rows], middles),
        value_texts(batch.values_uv[rows]),
        "},",
    )[:-1]


def _part(first: int, number: int, *, rows: int, most_rows: int) -> _Part:
    """Return the part that begins with row `first`; how many there are is what it looks like from here."""
    parts_left = -(-(rows - first) // most_rows)
    return _Part(first, min(first + most_rows, rows), number, number - 1 + parts_left)


def _read_rest(answer: requests.Response, deadline_s: float) -> None:
    """Read an answer to its end, so that the connection can be used again; let go of one that is long, slow or broken."""
    # Byte by byte: to ask for more at once is to wait for it.
    with closing(answer), suppress(requests.RequestException):
        for count, _ in enumerate(answer.iter_content(1)):
            if count > _LONGEST_ANSWER or time.monotonic() > deadline_s:
                return


def _no_other_auth(request: requests.PreparedRequest) -> requests.PreparedRequest:
    return request
