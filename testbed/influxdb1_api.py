"""What tests and demos ask of an InfluxDB 1 server: databases, users, writes and queries, over plain HTTP."""

from __future__ import annotations

import json
import secrets
from collections.abc import Sequence
from typing import Any

import requests
from requests.auth import HTTPBasicAuth

from testbed.influxdb_api import REQUEST_TIMEOUT_S, ApiError


class Influx1Api:
    """A running server, seen by one user. A bucket is a database, a token is `user:password`.

    Args:
        url: Such as `http://127.0.0.1:8086`.
        token: Usually the administrator's; empty for a server without authentication.
        ca_file: The authority that signed an https server's certificate; by default those that requests brings.
        timeout_s: How long one answer may take, in seconds.
    """

    org = ""

    def __init__(self, url: str, *, token: str, ca_file: str | None = None, timeout_s: float = REQUEST_TIMEOUT_S) -> None:
        self.url = url.rstrip("/")
        self.token = token
        self._verify: str | bool = ca_file or True
        self._timeout_s = timeout_s

    @property
    def version(self) -> str:
        """What the server calls itself, such as `1.6.7~rc0`."""
        return str(requests.get(f"{self.url}/ping", timeout=REQUEST_TIMEOUT_S).headers["X-Influxdb-Version"])

    def make_bucket(self, name: str) -> None:
        """Create a database that keeps its data for ever."""
        self.ask(f"CREATE DATABASE {_name(name)}")

    def make_token(self, *, read: Sequence[str] = (), write: Sequence[str] = ()) -> str:
        """Return a new user that can read and write the named databases, and nothing else, as `user:password`."""
        user, password = f"user-{secrets.token_hex(6)}", secrets.token_hex(12)
        self.ask(f"CREATE USER {_name(user)} WITH PASSWORD '{password}'")
        for name in {*read, *write}:
            # A further grant replaces the one before.
            right = "ALL" if name in read and name in write else "READ" if name in read else "WRITE"
            self.ask(f"GRANT {right} ON {_name(name)} TO {_name(user)}")
        return f"{user}:{password}"

    def write_lines(self, bucket: str, lines: bytes, *, policy: str = "") -> None:
        """Store line protocol whose times are nanoseconds."""
        place = {"db": bucket, "precision": "ns", **({"rp": policy} if policy else {})}
        self._request("/write", params=place, data=lines)

    def ask(self, query: str, *, database: str = "") -> list[dict[str, Any]]:
        """Return the answer to an InfluxQL statement as rows, with tags among their columns."""
        body = self.raw(query, database=database)
        (result,) = body["results"]
        if "error" in result:
            raise ApiError(f"{query}: {result['error']}", status=200)
        return [
            {**one.get("tags", {}), **dict(zip(one["columns"], row, strict=True))}
            for one in result.get("series", ())
            for row in one["values"]
        ]

    def raw(self, query: str, *, database: str = "") -> dict[str, Any]:
        """Return the answer to an InfluxQL statement as it is."""
        found: dict[str, Any] = json.loads(
            self._request("/query", params={"db": database, "epoch": "ns"}, data={"q": query}).text
        )
        return found

    def _request(self, path: str, **request: Any) -> requests.Response:
        user, _, password = self.token.partition(":")
        who = HTTPBasicAuth(user.encode(), password.encode()) if self.token else None
        with requests.Session() as session:
            session.trust_env = False
            session.verify = self._verify
            answer = session.post(self.url + path, auth=who, timeout=self._timeout_s, **request)
        if not answer.ok:
            raise ApiError(f"POST {path}: {answer.status_code} {answer.text.strip()}", status=answer.status_code)
        return answer


def _name(name: str) -> str:
    return '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'
