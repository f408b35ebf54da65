"""Queries the running service for its health, as a container's health check: `python central_anonymizer.py --health`."""

from __future__ import annotations

import http.client
import json

from service.settings.types import Secret, StatusAddress

#: Time limit for the answer.
_TIMEOUT_S = 10

#: A service that listens on every address is queried on loopback.
_OWN = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  (nothing is bound here)


def why_not_ready(address: StatusAddress, token: Secret) -> list[str]:
    """Return why data does not flow, one sentence each; empty if it does.

    Args:
        address: STATUS_ADDRESS.
        token: STATUS_TOKEN.
    """
    connection = http.client.HTTPConnection(_OWN.get(address.host, address.host), address.port, timeout=_TIMEOUT_S)
    headers = {"Authorization": f"Bearer {token.reveal()}"} if token else {}
    try:
        connection.request("GET", "/readyz", headers=headers)
        answer = connection.getresponse()
        content = answer.read()
    except (OSError, http.client.HTTPException) as error:
        return [f"the service does not answer at STATUS_ADDRESS={address} ({error})"]
    finally:
        connection.close()
    if answer.status not in (http.HTTPStatus.OK, http.HTTPStatus.SERVICE_UNAVAILABLE):
        return [f"STATUS_ADDRESS={address} answered {answer.status} {answer.reason}"]
    return [str(reason["text"]) for reason in json.loads(content)["reasons"]]
