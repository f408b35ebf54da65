"""A stand-in for an InfluxDB 3 Core: a real InfluxDB 1 keeps the rows, and answers are given the form that version 3.6.0 was seen to give.

To use a real one, name it with INFLUXDB3 (`testbed/influxdb3_server.py`).
"""

from __future__ import annotations

import io
import json
import re
import threading
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pyarrow as pa
import pyarrow.parquet as pq

from testbed.influxdb1_server import Influx1Server
from testbed.influxdb_api import ApiError
from tests.servers.quiet_http import QuietHandler, QuietServer

VERSION = "3.6.0"

#: How many files a query may read, and how much time is in each.
MOST_FILES, FILE_NS = 432, 600 * 10**9


class Influx3Double:
    """A server that looks like version 3. Its token is an administrator's, as all of them are.

    Args:
        kept_in: Where rows are.
        asks_for_token: False: as it answers when it was started without authentication.
    """

    org = ""
    token = "apiv3_administrator"

    def __init__(self, kept_in: Influx1Server, *, asks_for_token: bool = True) -> None:
        self.kept_in, self.asks_for_token = kept_in, asks_for_token
        self._server = QuietServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self.paths: list[str] = []
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        """Stop answering."""
        self._server.shutdown()
        self._server.server_close()

    def make_bucket(self, name: str) -> None:
        """Create a database."""
        self.kept_in.make_bucket(name)

    def make_token(self, **_: Any) -> str:
        """Return the administrator's token: there is no other kind."""
        return self.token

    def write_lines(self, bucket: str, lines: bytes) -> None:
        """Store line protocol."""
        self.kept_in.write_lines(bucket, lines)

    def answer(self, path: str, asked: Mapping[str, str], body: bytes) -> tuple[int, str, bytes]:
        """Return status, content type and body of an answer."""
        if path == "/ping":
            return 200, "application/json", b'{"version": "3.6.0", "revision": "0"}'
        if path == "/api/v3/configure/database":
            rows = [{"iox::database": row["name"]} for row in self.kept_in.ask("SHOW DATABASES")]
            return 200, "application/json", json.dumps(rows).encode()
        if path == "/api/v2/write":
            status, kind, content = self._written(asked["bucket"], body)
            # It does not say why.
            return (
                status,
                kind,
                content and b'{"code":"invalid","message":"write buffer error: parsing for line protocol failed"}',
            )
        if path == "/api/v3/write_lp":
            return self._written(asked["db"], body)
        if path == "/query":
            query = parse_qs(body.decode())["q"][0]
            return self._json(asked["db"], query)
        if path == "/api/v3/query_influxql":
            question = json.loads(body)
            return self._parquet(question["db"], question["q"])
        return 404, "text/plain", b"not found"

    def _written(self, bucket: str, lines: bytes) -> tuple[int, str, bytes]:
        if not self._has(bucket):
            # As the real one does, whatever the lines are.
            self.kept_in.make_bucket(bucket)
        if lines.startswith(b"#"):
            return 400, "application/json", b'{"error": "write of line protocol failed"}'
        try:
            self.kept_in.write_lines(bucket, lines)
        except ApiError:
            reason = {"error": "partial write of line protocol occurred", "data": [_refusal(lines)]}
            return 400, "application/json", json.dumps(reason).encode()
        return 204, "text/plain", b""

    def _json(self, database: str, query: str) -> tuple[int, str, bytes]:
        if not self._has(database):
            return 404, "application/json", b'{"error": "the requested database was not found"}'
        if query.startswith(("SHOW DATABASES", "SHOW RETENTION POLICIES", "SHOW SERIES")):
            return 500, "text/plain", b"not supported"
        if self._reads_too_many_files(database, query):
            return 500, "text/plain", b"Query would exceed file limit of 432 parquet files. Please specify a smaller time range"
        body = self.kept_in.raw(query, database=database)
        if "error" in (result := body["results"][0]):
            return 500, "text/plain", f"error while planning query: {result['error']} in {query}".encode()
        for series in result.get("series", ()):
            series.pop("partial", None)
        return 200, "application/json", json.dumps(body).encode()

    def _parquet(self, database: str, query: str) -> tuple[int, str, bytes]:
        if not self._has(database):
            return 404, "application/json", b'{"error": "the requested database was not found"}'
        body = self.kept_in.raw(query, database=database)
        if "error" in body["results"][0]:
            return 500, "text/plain", b"error while planning query"
        held = io.BytesIO()
        (series,) = body["results"][0].get("series") or [{"columns": ["time"], "values": [], "name": ""}]
        columns = list(zip(*series["values"], strict=True)) or [()] * len(series["columns"])
        named: dict[str, Any] = {"iox::measurement": [series["name"]] * len(series["values"])}
        for name, cells in zip(series["columns"], columns, strict=True):
            are_numbers = all(isinstance(cell, int | float) for cell in cells)
            kind = pa.timestamp("ns") if name == "time" else pa.float64() if are_numbers else pa.string()
            named[name] = pa.array([float(cell) for cell in cells] if kind == pa.float64() else list(cells), kind)
        pq.write_table(pa.table(named), held)
        return 200, "application/vnd.apache.parquet", held.getvalue()

    def _reads_too_many_files(self, database: str, query: str) -> bool:
        """Return whether rows of a query lie so far apart that 432 files of ten minutes do not hold them."""
        found = re.search(r" (FROM .*? WHERE time >= -?\d+ AND time < -?\d+)", query)
        if found is None:
            return False
        ends = [
            self.kept_in.ask(f"SELECT * {found[1]} ORDER BY time {order} LIMIT 1", database=database) for order in ("ASC", "DESC")
        ]
        return bool(ends[0]) and int(ends[1][0]["time"]) - int(ends[0][0]["time"]) > MOST_FILES * FILE_NS

    def _has(self, database: str) -> bool:
        return database in (row["name"] for row in self.kept_in.ask("SHOW DATABASES"))

    def _handler(self) -> type[QuietHandler]:
        double = self

        class Handler(QuietHandler):
            def do_GET(self) -> None:
                self._answer()

            def do_POST(self) -> None:
                self._answer()

            def do_HEAD(self) -> None:
                self.send_error(HTTPStatus.NOT_FOUND)

            def _answer(self) -> None:
                parts = urlsplit(self.path)
                double.paths.append(parts.path)
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                status, kind, content = 401, "application/json", b'{"error": "the request was not authenticated"}'
                is_good = self.headers.get("Authorization") in (f"Bearer {double.token}", f"Token {double.token}")
                if is_good or not double.asks_for_token:
                    asked = {name: values[0] for name, values in parse_qs(parts.query, keep_blank_values=True).items()}
                    status, kind, content = double.answer(parts.path, asked, body)
                self.send_response(status)
                self.send_header("X-Influxdb-Version", VERSION)
                self.send_header("Content-Type", kind)
                if status != HTTPStatus.NO_CONTENT:
                    self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

        return Handler


def _refusal(lines: bytes) -> dict[str, Any]:
    line = lines.split(b"\n", 1)[0].decode()
    reason = "invalid column type for column 'ecg', expected iox::column_type::field::integer, got iox::column_type::field::float"
    return {"original_line": line[:20], "line_number": 1, "error_message": reason}
