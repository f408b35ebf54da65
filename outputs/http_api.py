"""An HTTP API: one `POST` with JSON a window, in parts when it is too large. The payload's schema: `documentation/api-batch.schema.json`.

Delivery: at least once on the wire, once at an API that honours `Idempotency-Key`: a part that comes again has the same key and bytes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import requests

from anonymizer.batch import Batch
from anonymizer.errors import BatchRejected, OutputDenied, OutputError, OutputUnavailable
from anonymizer.ports import Receipt
from outputs.encoding import SCHEMA_VERSION, joined, source_texts, summary_of, time_text, time_texts, value_texts
from transport.retry_after import parse_retry_after

#: A first guess at what an API takes in one request: about 7 MB of JSON. Halved when it says 413.
MOST_ROWS_PER_PART = 50_000

#: Answers that will be the same however often the same is sent.
_REJECTED = (400, 413, 422)

#: Answers that only a person can change.
_DENIED = (401, 403, 404, 405)


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
        self._session.verify = target.ca_file or True
        # Proxies yes, passwords from ~/.netrc no: they would replace the token.
        self._session.auth = _no_other_auth
        self._most_rows = MOST_ROWS_PER_PART
        self.name = f"api:{target.endpoint}"

    def open(self, receipts: Mapping[str, Receipt]) -> None:
        """Do nothing: an API need not answer to anything but batches."""

    def target(self, batch: Batch) -> str:
        """Return where the batch goes, for the log."""
        return self._target.endpoint

    def write(self, batch: Batch) -> None:
        """Post every part of the batch; when one is too large, post all of it again in smaller ones."""
        while True:
            try:
                for part in _parts(len(batch), self._most_rows):
                    self._post(batch, part)
            except _TooLarge as error:
                if self._most_rows == 1:
                    raise BatchRejected(str(error)) from None
                self._most_rows = max(1, min(self._most_rows, len(batch)) // 2)
            else:
                return

    def close(self) -> None:
        """Close idle connections."""
        self._session.close()

    def _post(self, batch: Batch, part: _Part) -> None:
        key = f"{batch.batch_id}:{part.first}-{part.stop}"
        try:
            answer = self._session.post(
                self._target.endpoint,
                data=encode(batch, part),
                headers={"Idempotency-Key": key},
                timeout=self._target.timeout_s,
                allow_redirects=False,
            )
        except requests.RequestException as error:
            raise OutputUnavailable(f"API at {self._target.endpoint} cannot be reached ({type(error).__name__})") from None
        if not 200 <= answer.status_code < 300:
            raise self._as_output_error(answer)

    def _as_output_error(self, answer: requests.Response) -> OutputError:
        what = f"API at {self._target.endpoint} answered {answer.status_code} {answer.reason}"
        if answer.status_code == 413:
            return _TooLarge(f"{what} even to a single row")
        if answer.status_code in _REJECTED:
            return BatchRejected(what)
        if answer.status_code in _DENIED:
            return OutputDenied(f"{what}: check API_ENDPOINT and API_TOKEN")
        if 300 <= answer.status_code < 400:
            return OutputDenied(f"{what}, a redirect, which is not followed: set API_ENDPOINT to where it points")
        retry_after = parse_retry_after(answer.headers.get("Retry-After"), now=datetime.now(UTC))
        return OutputUnavailable(what, retry_after_s=retry_after)


class _TooLarge(OutputError):
    """The API wants smaller requests."""


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


def _parts(rows: int, most: int) -> list[_Part]:
    parts = -(-rows // most)
    return [_Part(i * most, min((i + 1) * most, rows), i + 1, parts) for i in range(parts)]


def _no_other_auth(request: requests.PreparedRequest) -> requests.PreparedRequest:
    return request
