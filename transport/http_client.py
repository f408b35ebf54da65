"""HTTP requests to one server over connections that are kept open: urllib3, which does TLS and proxies, with a limit for whole requests."""

from __future__ import annotations

import json
import urllib.parse
from collections.abc import Mapping, Sequence
from typing import Any

import urllib3

from transport.deadline import keep_limits
from transport.proxies import credentials_of

#: Connections that are kept open; some servers are written to by many threads.
_MOST_CONNECTIONS = 64

_USER_AGENT = "central-ecg-anonymizer"


class ErrorAnswer(Exception):
    """An answer whose status is not a success; a redirect is none.

    Args:
        response: The answer, not yet read.
    """

    def __init__(self, response: urllib3.BaseHTTPResponse) -> None:
        super().__init__(f"status {response.status}")
        self.status = response.status
        self.reason = response.reason
        self.headers = response.headers
        self.body: bytes = response.data


class HttpClient:
    """One server. Neither retries nor follows redirects. Raises ErrorAnswer, and the errors of urllib3 and http.client.

    Args:
        url: The server.
        ca_file: Certificate authority file for https; empty: the system's.
        proxy: The proxy to use, perhaps with a password; empty: none.
        timeout_s: How long connecting, and each step after it, may take.
    """

    def __init__(self, url: str, *, ca_file: str = "", proxy: str = "", timeout_s: float) -> None:
        self._url = url.removesuffix("/")
        #: Sent with every request.
        self.headers = {"User-Agent": _USER_AGENT}
        options: dict[str, Any] = {
            "maxsize": _MOST_CONNECTIONS,
            "cert_reqs": "CERT_REQUIRED",
            "ca_certs": ca_file or None,
            "retries": False,
            "timeout": urllib3.Timeout(total=timeout_s),
        }
        self._pools: urllib3.PoolManager
        if proxy:
            address, credentials = credentials_of(proxy)
            headers = urllib3.make_headers(proxy_basic_auth=credentials) if credentials else None
            self._pools = urllib3.ProxyManager(address, proxy_headers=headers, **options)
        else:
            self._pools = urllib3.PoolManager(**options)
        keep_limits(self._pools)

    def close(self) -> None:
        """Close idle connections."""
        self._pools.clear()

    def request(
        self,
        method: str,
        path: str,
        parameters: Sequence[tuple[str, str]] = (),
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | memoryview | None = None,
    ) -> urllib3.BaseHTTPResponse:
        """Send a request; return its answer, not yet read. It must be read to its end or closed."""
        query = f"?{urllib.parse.urlencode(parameters)}" if parameters else ""
        response = self._pools.request(
            method,
            f"{self._url}{path}{query}",
            body=body,  # type: ignore[arg-type]  # any buffer is taken, and sent without a copy
            headers={**(headers or {}), **self.headers},
            preload_content=False,
        )
        if not 200 <= response.status <= 299:
            raise ErrorAnswer(response)
        return response


def as_json(question: object) -> bytes:
    """Return the body of a request in JSON."""
    return json.dumps(question).encode()


def as_form(fields: Sequence[tuple[str, str]]) -> bytes:
    """Return the body of a request in the form of a web page's."""
    return urllib.parse.urlencode(fields).encode()
