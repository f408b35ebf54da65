"""Each verdict of the TLS library becomes a sentence that says what to do, and whether waiting may help."""

from __future__ import annotations

import http.client
import ssl

import pytest

from transport.tls_faults import answered_to_plain_http, tls_fault


def verdict(code: int, message: str = "some verdict") -> ssl.SSLCertVerificationError:
    error = ssl.SSLCertVerificationError(1, "certificate verify failed")
    error.verify_code, error.verify_message = code, message
    return error


def handshake(reason: str) -> ssl.SSLError:
    error = ssl.SSLError(1, reason)
    error.reason = reason
    return error


@pytest.mark.parametrize(
    ("error", "said", "is_lasting"),
    [
        (verdict(9), "is not valid yet: is this machine's clock right?", False),
        (verdict(10), "has expired", True),
        (verdict(18), "self-signed: let X_CA_FILE name", True),
        (verdict(19), "an authority that is not known here: let X_CA_FILE name", True),
        (verdict(20), "an authority that is not known here: let X_CA_FILE name", True),
        (verdict(62), "for another host than db.example", True),
        (verdict(23, "certificate revoked"), "cannot be trusted (certificate revoked); X_CA_FILE names whom to trust", True),
        (handshake("WRONG_VERSION_NUMBER"), "does not speak https at this port", True),
        (handshake("RECORD_LAYER_FAILURE"), "does not speak https at this port", True),
        (handshake("TLSV1_ALERT_PROTOCOL_VERSION"), "versions of TLS", True),
        (handshake("TLSV13_ALERT_CERTIFICATE_REQUIRED"), "requires a client certificate", True),
    ],
)
@pytest.mark.parametrize("depth", [0, 1, 2], ids=["itself", "as an argument", "as a cause"])
def test_what_the_library_found_is_said_in_a_sentence(error: ssl.SSLError, said: str, is_lasting: bool, depth: int) -> None:
    outer: Exception = error
    if depth == 1:
        outer = OSError(error)
    elif depth == 2:
        outer = ValueError("(0) Reason: SSLError")
        outer.__cause__ = error

    fault = tls_fault(outer, url="https://db.example:8086", ca_setting="X_CA_FILE")

    assert fault is not None
    assert said in fault.text
    assert fault.is_lasting is is_lasting


@pytest.mark.parametrize(
    "error",
    [
        handshake("UNEXPECTED_EOF_WHILE_READING"),
        ConnectionResetError(104, "reset"),
        TimeoutError("late"),
        http.client.RemoteDisconnected("gone"),
    ],
)
def test_a_connection_that_broke_may_be_tried_again(error: Exception) -> None:
    assert tls_fault(error, url="https://127.0.0.1:9", ca_setting="X_CA_FILE") is None
    assert tls_fault(error, url="http://127.0.0.1:9", ca_setting="X_CA_FILE") is None


@pytest.mark.parametrize(
    ("body", "is_understood"),
    [
        (b"Client sent an HTTP request to an HTTPS server.\n", True),
        (b"<center>The plain HTTP request was sent to HTTPS port</center>", True),
        (b"Reason: You're speaking plain HTTP to an SSL-enabled server port.", True),
        (b'{"code":"invalid","message":"unable to parse"}', False),
        (b"", False),
    ],
)
def test_servers_complaints_of_plain_http_are_understood(body: bytes, is_understood: bool) -> None:
    assert (answered_to_plain_http("http://db.example", body) is not None) is is_understood
    assert answered_to_plain_http("https://db.example", body) is None
