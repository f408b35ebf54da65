"""A small InfluxDB 2 client for tests and demos: buckets, tokens, writes and queries, over plain HTTP.

Deliberately without the client library that the service uses: a test that reads through it would share its mistakes.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from typing import Any

import requests

#: Limit for one answer, in seconds. Long, since a bulk load on a busy machine is slow.
REQUEST_TIMEOUT_S = 120


class ApiError(Exception):
    """The server refused a request. Carries its status."""

    def __init__(self, message: str, *, status: int) -> None:
        super().__init__(message)
        self.status = status


class InfluxApi:
    """One organization of a running server, accessed with one token.

    Args:
        url: Such as `http://127.0.0.1:8086`.
        org: The organization's name.
        token: Usually the administrator's.
        ca_file: The authority that signed an https server's certificate; by default those of requests.
        timeout_s: Limit for one answer, in seconds.
    """

    def __init__(
        self, url: str, *, org: str, token: str, ca_file: str | None = None, timeout_s: float = REQUEST_TIMEOUT_S
    ) -> None:
        self.url = url.rstrip("/")
        self.org = org
        self.token = token
        self._verify: str | bool = ca_file or True
        self._timeout_s = timeout_s

    def make_bucket(self, name: str, *, retention_s: int = 0, shard_group_s: int | None = None) -> str:
        """Create a bucket that keeps its data for `retention_s` (0: for ever), and return its id."""
        rule: dict[str, Any] = {"type": "expire", "everySeconds": retention_s}
        if shard_group_s is not None:
            rule["shardGroupDurationSeconds"] = shard_group_s
        bucket = {"orgID": self.org_id(), "name": name, "retentionRules": [rule]}
        return str(self.ask("POST", "/api/v2/buckets", json=bucket).json()["id"])

    def make_token(self, *, read: Sequence[str] = (), write: Sequence[str] = (), description: str = "") -> str:
        """Return a new token that can read and write the named buckets, and nothing else."""
        org_id = self.org_id()
        permissions = [
            {"action": action, "resource": {"type": "buckets", "id": self.bucket_id(name), "orgID": org_id}}
            for action, names in (("read", read), ("write", write))
            for name in names
        ]
        wanted = {"orgID": org_id, "description": description, "permissions": permissions}
        return str(self.ask("POST", "/api/v2/authorizations", json=wanted).json()["token"])

    def revoke_token(self, token: str) -> None:
        """Revoke a token, as a rotation does."""
        known = self.ask("GET", "/api/v2/authorizations").json()["authorizations"]
        (token_id,) = [entry["id"] for entry in known if entry["token"] == token]
        self.ask("DELETE", f"/api/v2/authorizations/{token_id}")

    def write_lines(self, bucket: str, lines: bytes) -> None:
        """Store line protocol whose times are nanoseconds. When it returns, all of it can be queried."""
        self.ask("POST", "/api/v2/write", params={"org": self.org, "bucket": bucket, "precision": "ns"}, data=lines)

    def query_csv(self, flux: str) -> str:
        """Return the answer to a query as CSV without annotations; an empty line ends each table."""
        question = {"query": flux, "dialect": {"annotations": [], "header": True}}
        return self.ask("POST", "/api/v2/query", params={"org": self.org}, json=question).text

    def rows(self, flux: str) -> list[dict[str, str]]:
        """Return the answer to a query as rows of text, of all tables together.

        Raises:
            ApiError: The query failed; if it failed after its first rows, the status is 200.
        """
        return list(_rows(self.query_csv(flux)))

    def count(self, bucket: str, *, start: str = "0", stop: str = "2200-01-01T00:00:00Z", measurement: str | None = None) -> int:
        """Return how many field values the bucket holds in a Flux range, counted by the server."""
        of_measurement = f'|> filter(fn: (r) => r._measurement == "{measurement}")' if measurement else ""
        total = f'from(bucket: "{bucket}") |> range(start: {start}, stop: {stop}) {of_measurement} |> count() |> group() |> sum()'
        return sum(int(row["_value"]) for row in self.rows(total))

    def bucket_id(self, name: str) -> str:
        """Return the id of a bucket that must exist."""
        (bucket,) = self.ask("GET", "/api/v2/buckets", params={"org": self.org, "name": name}).json()["buckets"]
        return str(bucket["id"])

    def put_away(self, bucket: str) -> None:
        """Make the server flush a bucket from memory to files, as it does sooner or later on its own."""
        metadata = self.ask("GET", "/api/v2/backup/metadata").content
        # A multipart answer; the last part lists the buckets.
        _, _, part = metadata[metadata.rindex(b'name="buckets"') :].partition(b"\r\n\r\n")
        buckets, _ = json.JSONDecoder().raw_decode(part.decode())
        for policy in next(one for one in buckets if one["bucketName"] == bucket)["retentionPolicies"]:
            for shard in (shard for group in policy["shardGroups"] for shard in group["shards"]):
                self.ask("GET", f"/api/v2/backup/shards/{shard['id']}")

    def org_id(self) -> str:
        """Return the organization's id."""
        (org,) = self.ask("GET", "/api/v2/orgs", params={"org": self.org}).json()["orgs"]
        return str(org["id"])

    def ask(self, method: str, path: str, **request: Any) -> requests.Response:
        """Send one request with the token, and return the answer.

        Raises:
            ApiError: The answer is not a success.
            requests.RequestException: There is no answer.
        """
        with requests.Session() as session:
            # Without the environment's proxy, which cannot reach the loopback, and .netrc, which would replace the token.
            session.trust_env = False
            headers = {"Authorization": f"Token {self.token}"} if self.token else {}
            session.verify = self._verify
            answer = session.request(method, self.url + path, headers=headers, timeout=self._timeout_s, **request)
        if not answer.ok:
            raise ApiError(f"{method} {path}: {answer.status_code} {answer.text.strip()}", status=answer.status_code)
        return answer


def _rows(answer: str) -> Iterator[dict[str, str]]:
    names: list[str] = []
    for cells in csv.reader(io.StringIO(answer, newline="")):
        if not cells:
            names = []
        elif not names:
            names = cells
        elif "error" in names:
            raise ApiError(f"the query failed: {dict(zip(names, cells, strict=True))}", status=200)
        else:
            yield {name: cell for name, cell in zip(names, cells, strict=True) if name}
