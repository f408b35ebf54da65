"""An HTTP API: one `POST` with JSON per window, in parts if it is too large (`documentation/api-batch.schema.json`).

Delivery: at least once on the wire; once at an API that honours `Idempotency-Key`, for as long as it remembers keys: a repeated part has
the same key and bytes, and a part that may have arrived is never split again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.client import responses

import requests
from requests.adapters import HTTPAdapter
from requests.utils import DEFAULT_CA_BUNDLE_PATH

from anonymizer.batch import Batch
from anonymizer.errors import BatchRejected, IntentChanged, OutputDenied, OutputError, OutputUnavailable
from anonymizer.ports import Receipt
from outputs.api_parts import MOST_BYTES_PER_PART, Part, Plan, encode, plan_for
from transport.addresses import canonical_address, shown_address
from transport.deadline import keep_limits, whole_request_within
from transport.http_headers import parse_retry_after
from transport.never_sent import was_never_sent
from transport.tls_faults import TlsFault, answered_to_plain_http, greet, tls_fault

#: The most bytes read of an answer: to find an error in it, and to free the connection for the next request.
_LONGEST_ANSWER = 65_536

#: Statuses that a retry of the same request would get again.
_REJECTED = (400, 422)

#: Statuses that only an operator can fix.
_DENIED = (401, 403, 404, 405, 407)

_ANOTHER_TOKEN_MAY_HELP = (401, 403)

#: Statuses that state that the request had no effect, besides redirects.
_NOT_PROCESSED = (*_REJECTED, *_DENIED, 413, 429, 503)

#: Values of `status` in the body of a 2xx answer that reports a failure.
_FAILURES = ("error", "fail", "failed", "failure")

_CHECK = "check API_ENDPOINT, API_TOKEN and API_CA_FILE"


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiTarget:
    """The API. The token is passed separately, so that this can be shown.

    Args:
        endpoint: Its address; the query is sent but never shown.
        ca_file: Certificate authority file; empty: the system's.
        timeout_s: Limit for a whole request.
        proxy: Address of the proxy (`transport/proxies.py`), which may contain a password; empty: none.
    """

    endpoint: str = field(repr=False)
    ca_file: str = ""
    timeout_s: float = 30.0
    proxy: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    retry_after: str | None
    body: bytes

    @property
    def is_redirect(self) -> bool:
        return 300 <= self.status < 400

    @property
    def is_success(self) -> bool:
        return 200 <= self.status < 300 and not says_error(self.body)


class HttpApi:
    """Posts each batch and waits for the answer.

    Args:
        target: The API.
        token: Returns the bearer token, which is never shown; empty: none is sent. Called again after each refusal, so that a token can be
            replaced while the service runs. If it raises OSError, the last token stays in use.
    """

    kind = "api"
    concurrency = 1

    def __init__(self, target: ApiTarget, token: Callable[[], str] = lambda: "") -> None:
        self._target = target
        self._present_token = token
        self._token = token()
        self._session = requests.Session()
        self._session.headers["Content-Type"] = "application/json"
        # `transport/proxies.py` chooses the proxy, and a password from ~/.netrc would replace the token.
        self._session.trust_env = False
        self._session.auth = _no_other_auth
        self._session.proxies = {"all": target.proxy} if target.proxy else {}
        self._others_trusted = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE") or ""
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, _TimedAdapter())
        self._most_bytes = MOST_BYTES_PER_PART
        #: By batch id: batches that were begun and are not known to be delivered, and the most recent one.
        self._plans: dict[str, Plan] = {}
        #: Batches that may have been sent before an erasure changed them: another body under the same key is never sent.
        self._taken_back: set[str] = set()
        self._shown = shown_address(target.endpoint)
        self.name = f"api:{canonical_address(self._shown)}"

    def open(self, receipts: Mapping[str, Receipt]) -> None:
        """Restore the plans of batches that may have been sent before. The API need not answer anything but batches.

        Only that it can be spoken to in https is seen at once.
        """
        self._greet()
        plans = map(Plan.from_receipt, receipts.values())
        self._plans = {plan.batch_id: plan for plan in plans}
        self._taken_back = {str(receipt["key"]) for receipt in receipts.values() if receipt.get("taken_back")}

    def target(self, batch: Batch) -> str:
        """Return where the batch goes, for the log."""
        return self._shown

    def intent(self, batch: Batch) -> Receipt:
        """Return the batch's split: after a crash, another split would have other keys, so the API would store rows twice."""
        if batch.batch_id not in self._plans:
            self._plans = {batch_id: plan for batch_id, plan in self._plans.items() if not plan.is_done}
            self._plans[batch.batch_id] = plan_for(batch, most_bytes=self._most_bytes)
        plan = self._plans[batch.batch_id]
        return {**plan.receipt(), "taken_back": True} if plan.key in self._taken_back else plan.receipt()

    def write(self, batch: Batch) -> Receipt:
        """Post the batch part by part, from the first part that the API did not acknowledge.

        A part that is too large is split again, with those after it, once that is recorded; but never one that may have been taken.
        """
        self.intent(batch)
        plan = self._plans[batch.batch_id]
        if plan.key in self._taken_back:
            raise BatchRejected(
                f"API at {self._shown} may have taken this window before an erasure changed it, and is never sent another form of it: have "
                "its operator remove the rows"
            )
        if plan.is_done:
            plan.taken, plan.is_done, plan.is_fixed = 0, False, True
        while part := plan.next_part():
            self._post(batch, plan, part)
        if plan.was_cut:
            # So that the next batch is not refused first.
            self._most_bytes = min(self._most_bytes, plan.most_bytes())
        plan.is_done = True
        return {"key": plan.key, "forget": True}

    def close(self) -> None:
        """Close idle connections."""
        self._session.close()

    def _post(self, batch: Batch, plan: Plan, part: Part) -> None:
        body = encode(batch, part)
        was_in_doubt, plan.is_in_doubt = plan.is_in_doubt, True
        try:
            answer = self._ask(body, key=_key(plan, part))
        except _NeverSent as error:
            plan.is_in_doubt = was_in_doubt
            raise error.instead from None
        if answer.status in _ANOTHER_TOKEN_MAY_HELP:
            self._renew_token()
        if answer.is_success:
            plan.is_in_doubt = False
            plan.taken += 1
            return
        if answer.is_redirect or answer.status in _NOT_PROCESSED:
            plan.is_in_doubt = was_in_doubt
        if answer.status == 400 and (fault := answered_to_plain_http(self._target.endpoint, answer.body)):
            raise self._no_way(fault)
        if answer.status == 413:
            raise self._too_large(plan, part, size_bytes=len(body))
        if answer.status in _REJECTED:
            raise self._rejected(plan, part, self._said(answer))
        raise self._not_now(answer)

    def _greet(self) -> None:
        target = self._target
        # The handshake must not go to a proxy; and the variables of requests may name a folder of certificates.
        if target.proxy or (self._others_trusted and not target.ca_file) or not target.endpoint.lower().startswith("https://"):
            return
        ca_file = target.ca_file or DEFAULT_CA_BUNDLE_PATH
        fault = greet(target.endpoint, ca_file=ca_file, ca_setting="API_CA_FILE", within_s=target.timeout_s)
        if fault is not None:
            raise self._no_way(fault)

    def _no_way(self, fault: TlsFault) -> OutputUnavailable:
        kind = OutputDenied if fault.is_lasting else OutputUnavailable
        return kind(f"API at {self._shown} cannot be reached: {fault.text}")

    def _ask(self, body: bytes, *, key: str) -> _Answer:
        headers = {"Idempotency-Key": key, **({"Authorization": f"Bearer {self._token}"} if self._token else {})}
        try:
            with whole_request_within(self._target.timeout_s):
                answer = self._session.post(
                    self._target.endpoint,
                    data=body,
                    headers=headers,
                    timeout=self._target.timeout_s,
                    allow_redirects=False,
                    stream=True,
                    verify=self._target.ca_file or self._others_trusted or True,
                )
                return _Answer(answer.status_code, answer.headers.get("Retry-After"), _beginning(answer))
        except ValueError as error:
            self._renew_token()
            raise _NeverSent(OutputDenied(f"API at {self._shown} cannot be asked ({type(error).__name__}): {_CHECK}")) from None
        except OSError as error:
            if fault := tls_fault(error, url=self._target.endpoint, ca_setting="API_CA_FILE"):
                raise _NeverSent(self._no_way(fault)) from None
            unreachable = OutputUnavailable(f"API at {self._shown} cannot be reached ({type(error).__name__})")
            raise _NeverSent(unreachable) if was_never_sent(error) else unreachable from None

    def _renew_token(self) -> None:
        with suppress(OSError):
            self._token = self._present_token()

    def _too_large(self, plan: Plan, part: Part, *, size_bytes: int) -> OutputError:
        what = f"API at {self._shown} answered 413 {responses[413]}"
        if part.stop - part.first == 1:
            return self._rejected(plan, part, f"{what}, even to a single row")
        if plan.is_fixed or plan.is_in_doubt:
            return OutputUnavailable(
                f"{what} to a part that it may have taken before: cut smaller, its rows could be there twice. Let it take requests of "
                f"{size_bytes} bytes, or answer 200 if it has Idempotency-Key {_key(plan, part)}"
            )
        plan.cut_smaller()
        return IntentChanged(what)

    def _rejected(self, plan: Plan, part: Part, what: str) -> BatchRejected:
        rows = range(part.first, plan.parts[-1].stop) if plan.taken else None
        # A later retry starts at the first part; the cause of the refusal may be fixed by then.
        plan.taken, plan.is_fixed = 0, True
        return BatchRejected(what, rows=rows)

    def _not_now(self, answer: _Answer) -> OutputUnavailable:
        what = self._said(answer)
        if answer.status in _DENIED:
            return OutputDenied(f"{what}: {_CHECK}")
        if answer.is_redirect:
            return OutputDenied(f"{what}, a redirect, which is not followed: set API_ENDPOINT to where it points")
        if 200 <= answer.status < 300:
            return OutputUnavailable(f"{what}, but the answer's body says that something went wrong: see the API's own log")
        return OutputUnavailable(what, retry_after_s=parse_retry_after(answer.retry_after, now=datetime.now(UTC)))

    def _said(self, answer: _Answer) -> str:
        # Without the answer's body, which may quote what was sent.
        return f"API at {self._shown} answered {answer.status} {responses.get(answer.status, '')}".rstrip()


class _NeverSent(Exception):
    """A request certainly did not reach the API."""

    def __init__(self, instead: OutputUnavailable) -> None:
        super().__init__()
        self.instead = instead


class _TimedAdapter(HTTPAdapter):
    """Obeys the limit of `whole_request_within`."""

    def init_poolmanager(self, *args: object, **options: object) -> None:
        super().init_poolmanager(*args, **options)  # type: ignore[arg-type]  # passed on
        keep_limits(self.poolmanager)

    def proxy_manager_for(self, proxy: str, **options: object) -> object:
        manager = super().proxy_manager_for(proxy, **options)
        if not proxy.lower().startswith("socks"):
            keep_limits(manager)
        return manager


def says_error(body: bytes) -> bool:
    """Return whether the body of a 2xx answer is a JSON object that reports an error.

    That is a non-empty `error` or `errors`, a `status` of `_FAILURES`, or `success` or `ok` with the value false.
    """
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        return False
    if not isinstance(answer, dict):
        return False
    return (
        bool(answer.get("error") or answer.get("errors"))
        or str(answer.get("status")).lower() in _FAILURES
        or answer.get("success") is False
        or answer.get("ok") is False
    )


def _key(plan: Plan, part: Part) -> str:
    return f"{plan.batch_id}:{part.first}-{part.stop}"


def _beginning(answer: requests.Response) -> bytes:
    """Read an answer to its end, so that the connection can be reused; give up on one that is long, slow or broken."""
    read = bytearray()
    # Byte by byte: a larger read would block until it is filled.
    with closing(answer), suppress(requests.RequestException):
        for byte in answer.iter_content(1):
            read += byte
            if len(read) > _LONGEST_ANSWER:
                break
    return bytes(read)


def _no_other_auth(request: requests.PreparedRequest) -> requests.PreparedRequest:
    return request
