"""The outside check of an InfluxDB 1: the same verdicts as of a bucket, and every reason it cannot look."""

from __future__ import annotations

import secrets

import pytest

from testbed.influxdb1_server import Influx1Server
from tests.scripts.verifying import SECOND_NS, START_NS, row_lines, run_check, summary_line

pytestmark = pytest.mark.influxdb

#: Five rows of each of two values, by two sources.
TEN = [10.0] * 5 + [20.0] * 5
NEXT_NS = START_NS + 5 * SECOND_NS


@pytest.fixture
def database(influxdb1: Influx1Server) -> str:
    name = f"output {secrets.token_hex(6)}"
    influxdb1.make_bucket(name)
    return name


def check(server: Influx1Server, database: str, *arguments: str, **environment: str) -> tuple[int, str]:
    given = environment or {"INFLUX_VERIFY_TOKEN": server.make_token(read=[database])}
    code, said = run_check("--url", server.url, "--bucket", database, *arguments, environment=given)
    assert not any(secret.partition(":")[2] in said for secret in given.values() if ":" in secret)
    return code, said


def store(server: Influx1Server, database: str, *lines: str) -> None:
    server.write_lines(database, "\n".join(lines).encode())


def test_rows_that_are_as_their_summaries_say_are_passed_and_others_are_not(influxdb1: Influx1Server, database: str) -> None:
    store(influxdb1, database, *row_lines(START_NS, TEN), summary_line(START_NS), *row_lines(NEXT_NS, TEN), summary_line(NEXT_NS))

    code, said = check(influxdb1, database, "--table")
    assert code == 0, said
    assert "2025-11-03T14:30:05Z       10        2        2        5        0  -" in said
    assert "2 windows, 20 rows. Smallest group: 5 rows (promised: what each summary says)." in said

    later_ns, last_ns = (START_NS + seconds * SECOND_NS for seconds in (10, 4000))
    store(influxdb1, database, *row_lines(later_ns, [10.0] * 6 + [20.0] * 4), summary_line(later_ns), *row_lines(last_ns, TEN))
    code, said = check(influxdb1, database)
    assert (code, "values that fewer than 5 rows share" in said, "rows without a window summary" in said) == (1, True, True), said


def test_what_cannot_be_checked_is_said(influxdb1: Influx1Server, database: str) -> None:
    store(influxdb1, database, *row_lines(START_NS, TEN), summary_line(START_NS))
    user, _, password = influxdb1.token.partition(":")
    ways = {"INFLUX_USERNAME": user, "INFLUX_PASSWORD": password}

    assert check(influxdb1, database, **ways)[0] == 0
    for arguments, environment, message in (
        ((), {"INFLUX_VERIFY_TOKEN": "some:wrong"}, "authorization failed"),
        ((), {"INFLUX_VERIFY_TOKEN": ""}, "refuses: 401"),
        (("--measurement", "none"), ways, "holds neither rows of none_anonymized, field 'ecg'"),
        (("--source-tag", "none"), ways, "have no tag 'none'"),
    ):
        code, said = check(influxdb1, database, *arguments, **environment)
        assert (code, message in said) == (64, True), said
