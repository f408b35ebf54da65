"""Explains why a TLS connection failed, and what to do about it.

The TLS library judges certificates; this module only words its verdict.
"""

from __future__ import annotations

import http.client
import re
import socket
import ssl
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass

#: OpenSSL's errors for an answer that is not TLS: the server speaks http.
_NO_TLS = {"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "UNKNOWN_PROTOCOL", "PACKET_LENGTH_TOO_LONG", "RECORD_LAYER_FAILURE"}

#: How https servers (Go, nginx, Apache) answer an http request.
_PLAIN_HTTP = re.compile(
    rb"HTTP request to an HTTPS server|plain HTTP request was sent to HTTPS|speaking plain HTTP to an SSL", re.I
)

#: Errors with which an https server may drop an http request.
_SILENT_ENDS = (http.client.BadStatusLine, ConnectionResetError)

#: A TLS server answers a handshake at once.
_GREETING_S = 2.0

#: OpenSSL's verdicts on certificates (X509_V_ERR_…).
_NOT_YET_VALID, _EXPIRED, _SELF_SIGNED = 9, 10, 18
_UNKNOWN_AUTHORITY = {2, 19, 20, 21, 27}
_ANOTHER_HOST = {62, 64}

_HTTP_TO_HTTPS = "it speaks https at this port and was spoken to in http: let its address begin with https://"
_HTTPS_TO_HTTP = "it does not speak https at this port: let its address begin with http://, or name its https port"


@dataclass(frozen=True, slots=True)
class TlsFault:
    """Why there is no secure connection.

    Args:
        text: The reason and the fix, to follow a colon. It quotes nothing from the certificate.
        is_lasting: Whether only an operator can fix it; False for faults that a clock which is not yet set may cause.
    """

    text: str
    is_lasting: bool = True


def tls_fault(error: BaseException, *, url: str, ca_setting: str) -> TlsFault | None:
    """Return the TLS fault behind an error; None if TLS is not the cause.

    Args:
        error: The library's error, with its causes.
        url: The server's address.
        ca_setting: The setting that names the server's certificate authority.
    """
    for cause in _causes(error):
        if isinstance(cause, ssl.SSLCertVerificationError):
            return _of_certificate(cause, url, ca_setting)
        if isinstance(cause, ssl.SSLError) and cause.reason:
            return _of_handshake(cause.reason)
        if isinstance(cause, _SILENT_ENDS) and url.lower().startswith("http://") and _speaks_tls(url):
            return TlsFault(_HTTP_TO_HTTPS)
    return None


def answered_to_plain_http(url: str, body: bytes) -> TlsFault | None:
    """Return a fault if the body of a 400 answer says that the server speaks https; None otherwise."""
    return TlsFault(_HTTP_TO_HTTPS) if url.lower().startswith("http://") and _PLAIN_HTTP.search(body) else None


def expects_https(url: str) -> TlsFault | None:
    """Return that a server with an http address speaks https; None when it does not, or does not answer."""
    return TlsFault(_HTTP_TO_HTTPS) if url.lower().startswith("http://") and _speaks_tls(url) else None


def greet(url: str, *, ca_file: str, ca_setting: str, within_s: float) -> TlsFault | None:
    """Make a TLS handshake without a request. Return its fault; None if there is none, or if the server does not answer for now."""
    host, port = _host_and_port(url)
    try:
        context = ssl.create_default_context(cafile=ca_file or None)
        with socket.create_connection((host, port), within_s) as plain, context.wrap_socket(plain, server_hostname=host):
            return None
    except OSError as error:
        return tls_fault(error, url=url, ca_setting=ca_setting) if isinstance(error, ssl.SSLError) else None


def _of_certificate(error: ssl.SSLCertVerificationError, url: str, ca_setting: str) -> TlsFault:
    code = error.verify_code
    if code == _EXPIRED:
        return TlsFault("its certificate has expired: have it renewed (or this machine's clock is wrong)")
    if code == _NOT_YET_VALID:
        return TlsFault("its certificate is not valid yet: is this machine's clock right?", is_lasting=False)
    if code == _SELF_SIGNED:
        return TlsFault(f"its certificate is self-signed: let {ca_setting} name a file with that certificate, if you trust it")
    if code in _UNKNOWN_AUTHORITY:
        return TlsFault(
            f"its certificate was signed by an authority that is not known here: let {ca_setting} name a file with that authority's "
            "certificate"
        )
    if code in _ANOTHER_HOST:
        return TlsFault(
            f"its certificate is for another host than {_host_and_port(url)[0]}: use a name in its address that the certificate holds"
        )
    return TlsFault(f"its certificate cannot be trusted ({error.verify_message}); {ca_setting} names whom to trust")


def _of_handshake(reason: str) -> TlsFault | None:
    if reason in _NO_TLS:
        return TlsFault(_HTTPS_TO_HTTP)
    if "PROTOCOL" in reason or "VERSION" in reason:
        return TlsFault(f"it knows only versions of TLS that are not safe any more, or not yet known here ({reason})")
    if "CERTIFICATE_REQUIRED" in reason:
        return TlsFault("it requires a client certificate, which the service does not have: connect another way")
    return None


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and everything that caused it: libraries keep that as `__cause__`, as an argument or as `reason`."""
    waiting, seen = [error], set()
    while waiting:
        one = waiting.pop(0)
        if id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        within = (one.__cause__, one.__context__, getattr(one, "reason", None), *one.args)
        waiting += [inner for inner in within if isinstance(inner, BaseException)]


def _speaks_tls(url: str) -> bool:
    host, port = _host_and_port(url)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    # No certificate check: nothing is sent, the handshake only shows whether the server speaks TLS.
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with socket.create_connection((host, port), _GREETING_S) as plain, context.wrap_socket(plain, server_hostname=host):
            return True
    except OSError:
        return False


def _host_and_port(url: str) -> tuple[str, int]:
    parts = urllib.parse.urlsplit(url)
    return parts.hostname or "", parts.port or (443 if parts.scheme.lower() == "https" else 80)
