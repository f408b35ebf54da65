"""InfluxDB 1, 2 and 3: what is asked of each in another way, and what its refusals mean. All else is alike.

A new version is a class here and a line in `_VERSIONS`.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal, Protocol

from transport.influx_faults import BucketFacts, InfluxFault, looks_like_id
from transport.influxql_answers import read_series

Language = Literal["auto", "flux", "influxql"]

#: In what form rows come: CSV of `/query`, or Parquet of `/api/v3/query_influxql`.
RowsFormat = Literal["csv", "parquet"]

#: A write that stores nothing and yet tells whether credentials and place are good.
_PROBE = b"# probe"

#: Rows in a piece of a long answer of versions 1 and 2; their default of 10000 makes no less work.
_CHUNK_ROWS = 50_000

#: The status of lines that will never be taken.
_REFUSED = 400

#: The default retention policy of a database.
_USUAL_POLICY = "autogen"


@dataclass(frozen=True, slots=True)
class Database:
    """Where InfluxQL finds a bucket.

    Args:
        name: The database.
        policy: Its retention policy; empty where there are none.
    """

    name: str
    policy: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where a server is, and how to talk to it; the token is passed apart, so that this can be shown.

    Args:
        url: Of the server.
        org: The organization.
        ca_file: Certificate authority file for https; empty: the system's.
        timeout_s: How long a request may take in all.
        gzip: Whether rows are compressed on their way: `true`, `false`, or `auto` (`transport/compression.py`).
        proxy: The proxy to use (`transport/proxies.py`); empty: none. It may contain a password.
        language: The language of queries; `auto`: that of its version. `flux` means that it is an InfluxDB 2.
        username: Of InfluxDB 1.
        password: Returns the user's.
        retention_policy: Of InfluxDB 1, where the bucket names none; empty: the database's default.
        token_setting: The setting that holds the token, for messages.
        org_setting: The one that holds the organization.
    """

    url: str
    org: str
    ca_file: str = ""
    timeout_s: float = 30.0
    gzip: str = "auto"
    proxy: str = field(default="", repr=False)
    language: Language = field(default="flux", repr=False)
    username: str = field(default="", repr=False)
    password: Callable[[], str] = field(default=str, repr=False)
    retention_policy: str = field(default="", repr=False)
    token_setting: str = field(default="INFLUX_TOKEN", repr=False)
    org_setting: str = field(default="INFLUX_ORG", repr=False)


class Requests(Protocol):
    """The requests that versions are asked with, as `InfluxConnection` sends them. Each raises InfluxFault."""

    address: Address

    def get(self, path: str, parameters: list[tuple[str, str]]) -> bytes:
        """Return the whole answer of a path."""

    def post(self, path: str, question: dict[str, str], *, accept: str) -> bytes:
        """Return the whole answer to a question sent as JSON."""

    def delete(self, path: str, parameters: list[tuple[str, str]], question: dict[str, str]) -> None:
        """Have what a question sent as JSON selects deleted."""

    def post_lines(self, path: str, parameters: dict[str, str], lines: bytes | memoryview) -> int:
        """Offer line protocol; return the status of the answer."""

    def write(self, bucket: str, lines: bytes | memoryview) -> None:
        """Store line protocol with nanosecond times."""

    def influxql(self, database: Database, query: str, *, accept: str = ..., chunk_rows: int = ...) -> bytes:
        """Return the whole answer to one InfluxQL statement."""

    def find_bucket(self, **wanted: str) -> BucketFacts | None:
        """Return a bucket of an InfluxDB 2, by its name or its id; None when this token may not see it."""


class Version(Protocol):
    """How to ask one version. Whatever fails is an InfluxFault."""

    #: For messages, such as `InfluxDB 2`.
    title: str

    #: What samples are read in, unless INFLUX_QUERY_LANGUAGE says otherwise.
    language: Literal["flux", "influxql"]

    #: In what form InfluxQL's rows come.
    rows_format: RowsFormat

    #: Whether long JSON answers are asked for in pieces, each of which says whether more follow.
    is_chunked: bool

    #: How many requests to write are sent at a time; more gain nothing.
    writes_at_a_time: int

    #: Whether it can delete some rows of a measurement.
    deletes_rows: bool

    #: Whether `try_to_write` tells credentials that may write from others.
    tells_writers: bool

    def authorization(self, address: Address, token: str) -> str:
        """Return the header that carries the credentials; empty: none."""

    def credentials(self, address: Address) -> str:
        """Return which settings hold the credentials that are sent."""

    def policies(self, connection: Requests, bucket: str) -> list[str]:
        """Return the retention policies of a bucket's database in which the same measurement may be held too."""

    def check(self, address: Address, token: str) -> None:
        """Raise a fault that names settings if this version needs some that are not there."""

    def write(self, connection: Requests, bucket: str, lines: bytes | memoryview) -> int:
        """Offer line protocol; return the status of the answer."""

    def try_to_write(self, connection: Requests, bucket: str) -> None:
        """See that the bucket can be written to, without storing anything."""

    def bucket(self, connection: Requests, name: str) -> BucketFacts | None:
        """Return what is known of a bucket; None when these credentials may not see it."""

    def database(self, connection: Requests, bucket: str) -> Database:
        """Return where InfluxQL finds a bucket."""

    def rows(self, connection: Requests, database: Database, query: str) -> bytes:
        """Return InfluxQL's rows, as `rows_format` says."""

    def delete(self, connection: Requests, bucket: str, series: tuple[str, str, str], first_ns: int, last_ns: int) -> None:
        """Delete the points of a series (measurement, tag, its value) from one time to another, both included.

        Raises:
            InfluxFault: The server refuses, or its version cannot.
        """

    def has_ids(self) -> bool:
        """Return whether a bucket may be named by its id."""

    def refined(self, fault: InfluxFault) -> InfluxFault:
        """Return a fault with the status that others would have given it, and without a row or query that its message quotes."""


class _InfluxQl:
    """What versions 1 and 2 have in common."""

    rows_format: RowsFormat = "csv"
    is_chunked: bool = True
    # Such a server takes nearly twice as much from two requests at a time as from one, and no more from three.
    writes_at_a_time: int = 2
    deletes_rows: bool = True
    tells_writers: bool = True

    def rows(self, connection: Requests, database: Database, query: str) -> bytes:
        """Ask for CSV in pieces: whole answers are cut by a server's `max-row-limit`."""
        return connection.influxql(database, query, accept="application/csv", chunk_rows=_CHUNK_ROWS)

    def try_to_write(self, connection: Requests, bucket: str) -> None:
        """Write a comment."""
        connection.write(bucket, _PROBE)

    def refined(self, fault: InfluxFault) -> InfluxFault:
        """Return it as it is."""
        return fault


class _OnlyTokens:
    """What versions 2 and 3 have in common."""

    def credentials(self, address: Address) -> str:
        """Return the token's."""
        return address.token_setting

    def policies(self, connection: Requests, bucket: str) -> list[str]:
        """Return none."""
        return []


class InfluxDb2(_OnlyTokens, _InfluxQl):
    """InfluxDB 2, and InfluxDB Cloud."""

    title = "InfluxDB 2"
    language: Literal["flux", "influxql"] = "flux"

    def authorization(self, address: Address, token: str) -> str:
        """Return the token."""
        return f"Token {token}"

    def check(self, address: Address, token: str) -> None:
        """Require token and organization."""
        missing = [name for name, text in (("INFLUX_TOKEN", token), ("INFLUX_ORG", address.org)) if not text]
        if missing:
            raise InfluxFault(f"it is an InfluxDB 2, which needs {' and '.join(missing)}", needs_setting=True)

    def write(self, connection: Requests, bucket: str, lines: bytes | memoryview) -> int:
        """Write by `/api/v2/write`."""
        return connection.post_lines("/api/v2/write", {"org": connection.address.org, "bucket": bucket, "precision": "ns"}, lines)

    def bucket(self, connection: Requests, name: str) -> BucketFacts | None:
        """Look it up in the list of buckets."""
        return connection.find_bucket(name=name)

    def delete(self, connection: Requests, bucket: str, series: tuple[str, str, str], first_ns: int, last_ns: int) -> None:
        """Delete by `/api/v2/delete`, which answers nothing, also where nothing matched."""
        measurement, tag, value = (_in_predicate(text) for text in series)
        connection.delete(
            "/api/v2/delete",
            [("org", connection.address.org), ("bucket", bucket)],
            {
                "start": _time_text(first_ns),
                "stop": _time_text(last_ns),
                "predicate": f"_measurement={measurement} AND {tag}={value}",
            },
        )

    def has_ids(self) -> bool:
        """Return that it may."""
        return True

    def database(self, connection: Requests, bucket: str) -> Database:
        """Return a mapping that leads to the bucket. A name alone proves nothing: it can be mapped to another bucket."""
        facts = self.bucket(connection, bucket)
        if facts is None:
            raise InfluxFault(
                "404 this token is not shown the bucket, so whether InfluxQL would find it cannot be told", status=404
            )
        for mapping in self._mappings(connection, bucketID=facts.id):
            place = Database(str(mapping["database"]), str(mapping["retention_policy"]))
            # The list of a bucket's mappings holds the one by its name even while another bucket is mapped to that name.
            those = [one for one in self._mappings(connection, db=place.name) if one["retention_policy"] == place.policy]
            if those and all(one["bucketID"] == facts.id for one in those):
                return place
        raise InfluxFault(
            f"no database mapping leads to bucket {bucket!r}, so InfluxQL would read another one or none: make one (influx v1 dbrp create) "
            "or set INFLUX_QUERY_LANGUAGE=flux",
            needs_setting=True,
        )

    def _mappings(self, connection: Requests, **wanted: str) -> list[dict[str, Any]]:
        org = ("orgID" if looks_like_id(connection.address.org) else "org", connection.address.org)
        answer = connection.get("/api/v2/dbrps", [*wanted.items(), org])
        try:
            found = json.loads(answer)["content"]
            return [
                one for one in found if all(isinstance(one[key], str) for key in ("database", "retention_policy", "bucketID"))
            ]
        except (ValueError, TypeError, LookupError):
            raise InfluxFault("the list of database mappings is not as InfluxDB 2 gives it") from None


class InfluxDb1(_InfluxQl):
    """InfluxDB 1: a bucket is a database, or `database/policy`."""

    title = "InfluxDB 1"
    language: Literal["flux", "influxql"] = "influxql"

    def authorization(self, address: Address, token: str) -> str:
        """Return user and password: those that are given as such, or as a token `user:password`."""
        credentials = f"{address.username}:{address.password()}" if address.username else token
        return f"Basic {base64.b64encode(credentials.encode(errors='surrogateescape')).decode()}" if ":" in credentials else ""

    def credentials(self, address: Address) -> str:
        """Return those of user and password where they are used."""
        return "INFLUX_USERNAME and INFLUX_PASSWORD" if address.username else f"{address.token_setting} (user:password)"

    def check(self, address: Address, token: str) -> None:
        """Require nothing: the server may run without authentication."""

    def write(self, connection: Requests, bucket: str, lines: bytes | memoryview) -> int:
        """Write by `/write`."""
        place = self.database(connection, bucket)
        policy = {"rp": place.policy} if place.policy else {}
        return connection.post_lines("/write", {"db": place.name, **policy, "precision": "ns"}, lines)

    def delete(self, connection: Requests, bucket: str, series: tuple[str, str, str], first_ns: int, last_ns: int) -> None:
        """Delete by a statement, from every retention policy of the database."""
        measurement, tag, value = series
        database = self.database(connection, bucket)
        which = f"{quoted_name(measurement)} WHERE {quoted_name(tag)} = {quoted_text(value)}"
        answer = connection.influxql(
            Database(database.name, ""), " ".join(("DELETE FROM", which, f"AND time >= {first_ns} AND time <= {last_ns}"))
        )
        if b'"error"' in answer:
            raise InfluxFault("it refuses DELETE: the user needs write permission on the database", status=403)

    def has_ids(self) -> bool:
        """Return that it may not."""
        return False

    def database(self, connection: Requests, bucket: str) -> Database:
        """Return `database/policy` divided, with INFLUX_RETENTION_POLICY where the bucket names none; empty: the default one."""
        name, slash, policy = bucket.rpartition("/")
        return Database(name, policy) if slash and name and policy else Database(bucket, connection.address.retention_policy)

    def bucket(self, connection: Requests, name: str) -> BucketFacts | None:
        """Ask for the database's retention policies."""
        place = self.database(connection, name)
        known = {str(one["name"]): one for one in self._policies(connection, place)}
        found = known.get(place.policy) if place.policy else next((one for one in known.values() if one["default"]), None)
        if found is None:
            raise InfluxFault(
                f"404 database {place.name!r} has no retention policy {place.policy or '(no default one)'}; it has: "
                f"{', '.join(map(repr, known)) or 'none'}. Check INFLUX_RETENTION_POLICY",
                status=404,
            )
        return BucketFacts(
            name=name,
            id="\0".join((place.name, str(found["name"]))),
            shard_group_s=_seconds(str(found["shardGroupDuration"])),
            retention_s=_seconds(str(found["duration"])),
            is_told_apart_by_name=True,
        )

    def policies(self, connection: Requests, bucket: str) -> list[str]:
        """Return those besides the one that is used."""
        place, used = self.database(connection, bucket), self.bucket(connection, bucket)
        names = [str(one["name"]) for one in self._policies(connection, place)]
        return [name for name in names if used is None or used.id != "\0".join((place.name, name))]

    def _policies(self, connection: Requests, place: Database) -> list[dict[str, Any]]:
        answer = connection.influxql(Database(place.name, ""), f"SHOW RETENTION POLICIES ON {quoted_name(place.name)}")
        return [one for series in read_series(answer) for one in series.rows()]

    def refined(self, fault: InfluxFault) -> InfluxFault:
        """Tell a policy that is not there from an outage: its status is 500. Of who may not do something, show no name."""
        is_no_outage = fault.status == 500 and "retention policy not found" in str(fault)
        if is_no_outage:
            return fault.reworded(f"404 {str(fault)[4:]}", status=404)
        shown = _USER_OF_1.sub("the user", str(fault))
        return fault.reworded(shown) if shown != str(fault) else fault


class InfluxDb3(_OnlyTokens):
    """InfluxDB 3: a bucket is a database; the part behind a slash belongs to its name."""

    title = "InfluxDB 3"
    language: Literal["flux", "influxql"] = "influxql"
    rows_format: RowsFormat = "parquet"
    # In pieces it does not say whether more follow.
    is_chunked: bool = False
    # It answers a write once its log is on the disk, which it writes once a second: all writes of that second are answered together
    # (decision 030). `no_sync` would not wait, and lose what it has answered when the server dies.
    writes_at_a_time: int = 64
    deletes_rows: bool = False
    tells_writers: bool = False

    def authorization(self, address: Address, token: str) -> str:
        """Return the token, if any: the server may run without authentication."""
        return f"Bearer {token}" if token else ""

    def check(self, address: Address, token: str) -> None:
        """Require nothing."""

    def write(self, connection: Requests, bucket: str, lines: bytes | memoryview) -> int:
        """Write by `/api/v2/write`; what that refuses is offered to `/api/v3/write_lp`, which says why."""
        try:
            return connection.post_lines("/api/v2/write", {"bucket": bucket, "precision": "ns"}, lines)
        except InfluxFault as fault:
            if fault.status != _REFUSED:
                raise
            return self._why_refused(connection, bucket, lines, fault)

    def _why_refused(self, connection: Requests, bucket: str, lines: bytes | memoryview, refusal: InfluxFault) -> int:
        # All of them or none, as before.
        place = {"db": bucket, "precision": "nanosecond", "accept_partial": "false"}
        try:
            return connection.post_lines("/api/v3/write_lp", place, lines)
        except InfluxFault as fault:
            raise (fault if fault.status == _REFUSED else refusal) from None

    def try_to_write(self, connection: Requests, bucket: str) -> None:
        """Look the database up: a write of nothing would make one."""
        self.bucket(connection, bucket)

    def delete(self, connection: Requests, bucket: str, series: tuple[str, str, str], first_ns: int, last_ns: int) -> None:
        """Refuse: InfluxDB 3 Core deletes tables and databases, not rows."""
        raise InfluxFault("InfluxDB 3 Core cannot delete rows, only tables and databases", needs_setting=True)

    def has_ids(self) -> bool:
        """Return that it may not."""
        return False

    def database(self, connection: Requests, bucket: str) -> Database:
        """Return the database of that name."""
        return Database(bucket, "")

    def bucket(self, connection: Requests, name: str) -> BucketFacts | None:
        """Look the database up in the list of all."""
        answer = connection.get("/api/v3/configure/database", [("format", "json")])
        try:
            known = [str(one["iox::database"]) for one in json.loads(answer)]
        except (ValueError, TypeError, LookupError):
            raise InfluxFault("the list of databases is not as InfluxDB 3 gives it") from None
        if name not in known:
            raise InfluxFault("404 it has no database of that name", status=404)
        return BucketFacts(
            name=name, id="\0".join((name, _USUAL_POLICY)), shard_group_s=0, retention_s=0, is_told_apart_by_name=True
        )

    def rows(self, connection: Requests, database: Database, query: str) -> bytes:
        """Ask for Parquet: its CSV of `/query` says no tags."""
        question = {"db": database.name, "q": query, "format": "parquet"}
        return connection.post("/api/v3/query_influxql", question, accept="application/vnd.apache.parquet")

    def refined(self, fault: InfluxFault) -> InfluxFault:
        """Show only what is known to hold no row; a question that it cannot plan is no outage, though its status is 500."""
        if fault.status is None or fault.needs_setting:
            return fault
        said = f"{fault} {fault.body}".lower()
        if re.search("file limit|parquet files", said):
            return fault.reworded("413 the range of time holds more files than the server reads for one query", status=413)
        if fault.status == 500 and re.search("plan|pars|syntax|schema|not found|column", said):
            return fault.reworded("400 it cannot answer such a query", status=400)
        meaning = next(
            (text for pattern, text in _MEANINGS_OF_3.items() if re.search(pattern, said)), "it gives no reason that is shown"
        )
        return fault.reworded(f"{fault.status} {meaning}")


#: How version 1 names a user, in answers to a query and to a write.
_USER_OF_1 = re.compile(r"(?<=error authorizing query: ).*(?= not authorized)|\".*\" user(?= is not authorized)")

#: What messages of version 3 say, which quote parts of rows, in words that do not.
_MEANINGS_OF_3 = {
    "column type|invalid type|type conflict|schema conflict": "field type conflict",
    "partial write|parse|invalid line|line protocol": "it cannot take some of the lines",
    "database": "it does not find the database",
    "auth|token|permission": "unauthorized access",
}

_VERSIONS: dict[str, type[InfluxDb1 | InfluxDb2 | InfluxDb3]] = {"1": InfluxDb1, "2": InfluxDb2, "3": InfluxDb3}


def version_of(said: str, language: Language) -> Version:
    """Return which version a server is that calls itself so (`X-Influxdb-Version`).

    Raises:
        InfluxFault: It cannot be told, or does not speak the language.
    """
    if language == "flux":
        return InfluxDb2()
    # A build of version 2 without a name calls itself so.
    major = "2" if said == "dev" else said.removeprefix("v").partition(".")[0]
    if major in _VERSIONS:
        return _VERSIONS[major]()
    shown = f"says {said!r}" if said else "says nothing"
    raise InfluxFault(
        f"it does not say which InfluxDB it is: the header X-Influxdb-Version of its /ping {shown}, and 1, 2 or 3 is expected. If it is an "
        "InfluxDB 2 or InfluxDB Cloud, set INFLUX_QUERY_LANGUAGE=flux; otherwise let the proxy before it pass that header on",
        needs_setting=True,
    )


def quoted_name(name: str) -> str:
    """Return any name as an InfluxQL identifier, so that nothing in it is taken for code.

    Raises:
        InfluxFault: InfluxQL has no way to write it.
    """
    return f'"{_escaped(name, quote=chr(34))}"'


def quoted_text(text: str) -> str:
    """Return any text as an InfluxQL string. Raises as `quoted_name` does."""
    return f"'{_escaped(text, quote=chr(39))}'"


def _in_predicate(text: str) -> str:
    """Return a text as a string of a delete predicate."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _time_text(time_ns: int) -> str:
    whole, rest = divmod(time_ns, 10**9)
    return f"{datetime.fromtimestamp(whole, UTC):%Y-%m-%dT%H:%M:%S}.{rest:09d}Z"


def _escaped(text: str, *, quote: str) -> str:
    if "\r" in text or "\0" in text:
        raise InfluxFault(
            "a name with a carriage return or a zero byte cannot be asked for in InfluxQL: on an InfluxDB 2 set "
            "INFLUX_QUERY_LANGUAGE=flux, on others choose another name",
            needs_setting=True,
        )
    return text.replace("\\", "\\\\").replace(quote, f"\\{quote}").replace("\n", "\\n")


def _seconds(duration: str) -> int:
    """Return the whole seconds of a duration such as `168h0m0s`."""
    units = {"h": 3600, "m": 60, "s": 1}
    return sum(int(number) * units[unit] for number, unit in re.findall(r"(\d+)([hms])(?![a-z])", duration))
