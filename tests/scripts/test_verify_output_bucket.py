"""The outside check of a bucket: rows against their promise, rows against the window summaries, and every reason it cannot look."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from scripts import verify_output
from scripts.verify_output import Bucket as BucketToCheck
from scripts.verify_output import Finding, Place, Question, findings_in_bucket
from testbed.influxdb_server import InfluxServer
from tests.conftest import Bucket
from tests.integration.clinic import FIRST_MINUTE, Clinic, load_first_minute
from tests.integration.service_process import run_service
from tests.scripts.verifying import SECOND_NS, START_NS, row_lines, run_check, summary_line
from tests.servers.socket_server import Serve, http_answer

pytestmark = pytest.mark.influxdb

#: Five rows of each of two values, by two sources.
TEN = [10.0] * 5 + [20.0] * 5
NEXT_NS = START_NS + 5 * SECOND_NS


def check(bucket: Bucket, *arguments: str, token: str | None = None) -> tuple[int, str]:
    server = bucket.server
    environment = {"INFLUX_VERIFY_TOKEN": bucket.read_token if token is None else token}
    code, said = run_check("--url", server.url, "--org", server.org, "--bucket", bucket.name, *arguments, environment=environment)
    assert bucket.read_token not in said
    return code, said


def store(bucket: Bucket, *lines: str) -> None:
    bucket.write("\n".join(lines).encode())


def test_rows_that_are_as_their_summaries_say_are_passed(output_bucket: Bucket) -> None:
    store(output_bucket, *row_lines(START_NS, TEN), summary_line(START_NS), *row_lines(NEXT_NS, TEN), summary_line(NEXT_NS))

    code, said = check(output_bucket, "--table")

    assert code == 0, said
    assert "2025-11-03T14:30:05Z       10        2        2        5        0  -" in said
    assert "2 windows, 20 rows. Smallest group: 5 rows (promised: what each summary says)." in said
    assert "OK: every released value is shared as promised." in said


VIOLATIONS = [
    (row_lines(START_NS, [10.0] * 6 + [20.0] * 4), summary_line(START_NS), [], "values that fewer than 5 rows share"),
    (row_lines(START_NS, TEN), summary_line(START_NS), ["--k", "6"], "its summary promises k=5, asked was 6"),
    (row_lines(START_NS, TEN), summary_line(START_NS), ["--k-unit", "source", "--k", "2"], "asked was for sources"),
    (row_lines(START_NS, TEN), summary_line(START_NS, k=6, smallest_group=6), [], "values that fewer than 6 rows share"),
    (row_lines(START_NS, TEN), summary_line(START_NS, k_unit="source"), [], "values that fewer than 5 sources share"),
    (row_lines(START_NS, TEN), "", [], "rows without a window summary"),
    ([], summary_line(START_NS), [], "fewer rows released than its summary says"),
    (
        row_lines(START_NS, [*TEN[:-1], 10.0]),
        summary_line(START_NS, rows_released=11, rows_read=11),
        [],
        "fewer rows released than",
    ),
    (row_lines(START_NS, [*TEN, 10.0]), summary_line(START_NS), [], "more rows released than its summary says"),
    (row_lines(START_NS, TEN), summary_line(START_NS, distinct_values=3), [], "fewer distinct values than its summary says"),
    (row_lines(START_NS, TEN), summary_line(START_NS, distinct_values=1), [], "more distinct values than its summary says"),
    (row_lines(START_NS, TEN), summary_line(START_NS, distinct_sources=3), [], "fewer distinct sources than its summary says"),
    (row_lines(START_NS, TEN), summary_line(START_NS, smallest_group=6), [], "another smallest group than its summary says"),
    (row_lines(START_NS, TEN), summary_line(START_NS, rows_read=11), [], "does not account for all rows read"),
    (row_lines(START_NS, TEN), summary_line(START_NS, rows_suppressed=1), [], "another number of imputed rows"),
    (row_lines(START_NS, TEN), summary_line(START_NS, schema="9"), [], "a summary of schema 9"),
    (row_lines(START_NS, TEN), f"{summary_line(START_NS)}\n{summary_line(START_NS + 2 * SECOND_NS)}", [], "released twice"),
]


@pytest.mark.parametrize(("rows", "summary", "arguments", "problem"), VIOLATIONS, ids=[case[3] for case in VIOLATIONS])
def test_whatever_breaks_the_promise_or_the_summary_is_a_violation(
    output_bucket: Bucket, rows: list[str], summary: str, arguments: list[str], problem: str
) -> None:
    store(output_bucket, *rows, summary)

    code, said = check(output_bucket, *arguments)

    assert (code, problem in said) == (1, True), said


def test_points_that_the_server_repeats_count_once(output_bucket: Bucket) -> None:
    # Older rows come after newer ones were put into files: InfluxDB up to 2.7.12 then answers with some of the newer ones twice (26711).
    newer, older = [10.0] * 800 + [20.0] * 800, [10.0] * 500 + [20.0] * 500
    store(
        output_bucket, *row_lines(NEXT_NS, newer), summary_line(NEXT_NS, rows_read=1600, rows_released=1600, smallest_group=800)
    )
    output_bucket.server.put_away(output_bucket.name)
    store(
        output_bucket, *row_lines(START_NS, older), summary_line(START_NS, rows_read=1000, rows_released=1000, smallest_group=500)
    )

    code, said = check(output_bucket)

    assert (code, "2 windows, 2600 rows." in said) == (0, True), said
    if output_bucket.server.version == "v2.7.12":
        assert output_bucket.server.count(output_bucket.name, measurement="ecg_anonymized") == 2600 + 1000


def test_a_row_that_stands_there_again_under_another_tag_is_no_repeat(output_bucket: Bucket) -> None:
    rows = row_lines(START_NS, TEN)
    store(output_bucket, *rows, rows[0].replace("ecg_anonymized,", "ecg_anonymized,lead=I,"), summary_line(START_NS))

    code, said = check(output_bucket)

    assert (code, "a source has two rows for one time" in said) == (1, True), said


def test_a_partial_window_that_lacks_rows_is_incomplete_and_not_a_violation(output_bucket: Bucket) -> None:
    store(output_bucket, *row_lines(START_NS, TEN[:-1]), summary_line(START_NS, partial=True))

    code, said = check(output_bucket, "--table")

    assert code == 0, said
    assert "INCOMPLETE: of 1 windows the server refused rows (partial)" in said
    assert "incomplete: the server refused rows of it" in said
    store(output_bucket, *row_lines(START_NS, [*TEN, 10.0]))
    assert check(output_bucket)[0] == 1, "partial does not excuse rows that were never released"


@pytest.mark.parametrize(("suppressed", "starred", "values"), [(1, 0, [15.0]), (0, 6, [15.0] * 6)])
def test_imputed_rows_are_found_by_the_number_their_summary_gives(
    output_bucket: Bucket, suppressed: int, starred: int, values: list[float]
) -> None:
    rows = 10 + len(values)
    store(
        output_bucket,
        *row_lines(START_NS, [*TEN, *values]),
        summary_line(START_NS, rows_read=rows, rows_released=rows, rows_suppressed=suppressed, rows_starred=starred),
    )

    assert check(output_bucket)[0] == 1
    assert check(output_bucket, "--imputed")[0] == 0


def test_what_the_service_released_is_passed_and_one_changed_value_is_not(influxdb: InfluxServer, tmp_path: Path) -> None:
    clinic = Clinic(influxdb)
    load_first_minute(clinic)
    assert run_service(tmp_path, {**clinic.settings, **FIRST_MINUTE, "K_VALUE": "10"})[0] == 0
    token_file = tmp_path / "token"
    token_file.write_text(clinic.server.make_token(read=[clinic.released]) + "\n", encoding="utf-8")
    with (tmp_path / ".env").open("a", encoding="utf-8") as env_file:
        env_file.write(f"INFLUX_VERIFY_TOKEN_FILE={token_file}\n")

    code, said = run_check("--env-file", str(tmp_path / ".env"), "--table")
    assert code == 0, said
    assert "12 windows, 129600 rows." in said
    assert "(promised: 10)" in said

    # A released id with a value that no other row has.
    (time_text, source), _ = next(iter(clinic.stored().items()))
    time_ns = START_NS + int(time_text[17:19]) * SECOND_NS + int(time_text[20:29])
    clinic.server.write_lines(clinic.released, f"ecg_anonymized,source_id={source} ecg=1234.5 {time_ns}".encode())
    code, said = run_check("--env-file", str(tmp_path / ".env"))
    assert (code, "values that fewer than 10 rows share" in said) == (1, True), said


def test_windows_across_the_hour_and_hours_apart_are_found_whole(output_bucket: Bucket) -> None:
    # Seven seconds divide no hour: this window begins at 14:59:55 and ends at 15:00:02, and its last row is of 15:00:00.4.
    across_ns = (START_NS + 1800 * SECOND_NS) // (7 * SECOND_NS) * 7 * SECOND_NS
    spread = [line.rpartition(" ")[0] + f" {across_ns + i * 600 * 10**6}" for i, line in enumerate(row_lines(0, TEN))]
    assert across_ns < START_NS + 1800 * SECOND_NS < across_ns + 9 * 600 * 10**6
    later_ns = START_NS + 50 * 3600 * SECOND_NS
    store(output_bucket, *spread, summary_line(across_ns, window_seconds=7))
    store(output_bucket, *row_lines(later_ns, TEN), summary_line(later_ns))

    code, said = check(output_bucket)

    assert (code, "2 windows, 20 rows." in said) == (0, True), said


def test_a_window_that_the_stop_cuts_is_left_for_the_next_time(output_bucket: Bucket) -> None:
    store(output_bucket, *row_lines(START_NS, TEN), summary_line(START_NS), *row_lines(NEXT_NS, TEN), summary_line(NEXT_NS))

    code, said = check(output_bucket, "--stop", "2025-11-03T14:30:07Z")
    assert (code, "1 window, 10 rows." in said) == (0, True), said

    code, said = check(output_bucket, "--start", "2025-11-03T14:30:05Z")
    assert (code, "1 window, 10 rows." in said) == (0, True), said


def test_rows_of_the_last_minute_may_still_be_on_their_way(output_bucket: Bucket) -> None:
    store(output_bucket, *row_lines(START_NS, TEN), summary_line(START_NS))
    store(output_bucket, *row_lines(time.time_ns() - 5 * SECOND_NS, TEN))

    assert check(output_bucket)[0] == 0


def test_names_with_quotes_and_flux_in_them_are_asked_for_as_they_are(output_bucket: Bucket) -> None:
    odd = "a'\"${b}"
    store(
        output_bucket,
        *(line.replace("ecg=", f"{odd}=") for line in row_lines(START_NS, TEN, measurement=f"{odd}_anonymized")),
        summary_line(START_NS, measurement=f"{odd}_anonymized_windows"),
    )

    code, said = check(output_bucket, "--measurement", odd, "--field", odd)

    assert (code, "1 window, 10 rows." in said) == (0, True), said


def findings(bucket: Bucket) -> list[Finding]:
    place = Place(
        url=bucket.server.url,
        org=bucket.server.org,
        bucket=bucket.name,
        measurement="ecg",
        field="ecg",
        source_tag="source_id",
        ca_file="",
        start_ns=START_NS,
        stop_ns=START_NS + 3600 * SECOND_NS,
    )
    question = Question(None, 5 * SECOND_NS, imputed=False)
    return list(findings_in_bucket(BucketToCheck(place, bucket.read_token), question))


def test_many_rows_are_asked_for_in_parts_and_nothing_changes(output_bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    for window_ns in range(START_NS, START_NS + 300 * SECOND_NS, 5 * SECOND_NS):
        store(output_bucket, *row_lines(window_ns, TEN), summary_line(window_ns))
    whole = findings(output_bucket)
    asked: list[int] = []
    read = BucketToCheck.rows

    def counted(self: BucketToCheck, start_ns: int, end_ns: int) -> list[verify_output.Row]:
        rows = read(self, start_ns, end_ns)
        asked.append(len(rows))
        return rows

    monkeypatch.setattr(BucketToCheck, "rows", counted)
    monkeypatch.setattr(verify_output, "MOST_ROWS", 25)
    in_parts = findings(output_bucket)

    assert in_parts == whole
    assert len(whole) == 60
    assert sum(asked) == 600
    assert max(asked) < 300


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--bucket", "nowhere"], "refuses: 404"),
        (["--org", "nobody"], "--org and --bucket"),
        (["--measurement", "eeg"], "holds neither rows of eeg_anonymized, field 'ecg', nor their summaries"),
        (["--source-tag", "patient"], "have no tag 'patient'; name it with --source-tag"),
        (["--stop", "2024-01-01"], "holds neither rows of ecg_anonymized"),
    ],
)
def test_names_that_lead_nowhere_are_a_sentence_and_never_ok(output_bucket: Bucket, arguments: list[str], sentence: str) -> None:
    store(output_bucket, *row_lines(START_NS, TEN), summary_line(START_NS))

    code, said = check(output_bucket, *arguments)

    assert (code, sentence in said, "OK:" in said) == (64, True, False), said


def test_a_token_that_may_not_read_the_bucket_is_refused_with_a_sentence(output_bucket: Bucket) -> None:
    for token, sentence in (
        ("wrong", "refuses: 401"),
        (output_bucket.write_token, "Check INFLUX_VERIFY_TOKEN"),
        ("a\nb", "no token"),
    ):
        code, said = check(output_bucket, token=token)

        assert (code, sentence in said) == (64, True), said
        assert output_bucket.write_token not in said


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ('ecg_anonymized,source_id=a ecg="text"', "holds no numbers"),
        ("ecg_anonymized_windows rows_released=3i", "lacks a usable"),
    ],
)
def test_text_where_numbers_should_be_and_a_summary_of_another_make_are_refused(
    output_bucket: Bucket, line: str, sentence: str
) -> None:
    store(output_bucket, f"{line} {START_NS}")

    code, said = check(output_bucket)

    assert (code, sentence in said) == (64, True), said


TABLE = b"_time,_value\r\n2025-11-03T14:30:00Z,1\r\n\r\n"

#: An error after a good beginning, an end that comes too early, a server that is busy, none at all.
NO_ANSWERS = [
    (
        http_answer("200 OK", TABLE + b"error,reference\r\nfailed to read shard,897\r\n\r\n"),
        "broke off its answer: failed to read",
    ),
    (http_answer("200 OK", TABLE, length=999), "ended too early"),
    (http_answer("503 Busy"), "cannot answer now: 503"),
    (None, "cannot be asked ("),
]


@pytest.mark.parametrize(("answer", "sentence"), NO_ANSWERS)
def test_no_answer_or_one_that_is_not_whole_is_never_ok(serve: Serve, answer: bytes | None, sentence: str) -> None:
    url = "http://127.0.0.1:9" if answer is None else serve([answer]).url

    place = ("--url", url, "--org", "o", "--query-language", "flux")
    code, said = run_check(*place, environment={"INFLUX_VERIFY_TOKEN": "t"})

    assert (code, sentence in said, "OK:" in said) == (69, True, False), said


def test_a_redirection_is_not_followed_with_our_token(serve: Serve) -> None:
    elsewhere = serve([http_answer("200 OK")])
    here = serve([http_answer("302 Found", b"", f"Location: {elsewhere.url}/")])

    code, _ = run_check("--url", here.url, "--org", "o", environment={"INFLUX_VERIFY_TOKEN": "t"})

    assert code == 64
    assert not elsewhere.requests


def ward_line(ward: str, start_ns: int = START_NS, seconds: int = 5, **changed: Any) -> str:
    """Return the summary of ten rows of one ward, as `summary_line`; an empty ward: of rows without the tag."""
    batch_id = f"0123456789ab.aaaaaaaaaaaa.{ward or 'none'}-{start_ns}-{start_ns + seconds * SECOND_NS}"
    line = summary_line(start_ns, batch_id=batch_id, window_seconds=seconds, **changed)
    return line.replace("_windows ", f"_windows,ward={ward} ", 1) if ward else line


def wards_rows(start_ns: int = START_NS) -> list[str]:
    """Return ten rows of each of three wards, of which two have a value in common."""
    return [
        line
        for at, (names, low) in enumerate((("three", 10.0), ("four", 10.0), ("none", 30.0)))
        for line in row_lines(start_ns + at * 10**8, [low] * 5 + [low + 10] * 5, names=names)
    ]


THREE_WARDS = [ward_line("3"), ward_line("4"), ward_line("")]


@pytest.mark.parametrize(
    ("rows", "summaries", "code", "said"),
    [
        (wards_rows(), [ward_line("3", k=6, smallest_group=6), *THREE_WARDS[1:]], 0, "OK"),
        (wards_rows(), THREE_WARDS, 0, "1 windows, 30 rows. Smallest group: 5 rows"),
        # Windows of other lengths: which rows are of which window of which ward cannot be told.
        (
            [*wards_rows(), *row_lines(NEXT_NS, TEN)],
            [ward_line("3"), ward_line("3", NEXT_NS), ward_line("4", seconds=10), ward_line("")],
            0,
            "OK",
        ),
        (wards_rows()[1:], THREE_WARDS, 0, "fewer rows than its cohorts released: did two of them hold the same source and time?"),
        ([*wards_rows(), *row_lines(START_NS + 4 * 10**8, [99.0])], THREE_WARDS, 1, "more rows released than its summaries say"),
        ([*wards_rows()[:-1], row_lines(START_NS + 4 * 10**8, [99.0])[0]], THREE_WARDS, 1, "values that fewer than 5 rows share"),
        (wards_rows(), [*THREE_WARDS[:2], ward_line("", k=1)], 1, "or a k below 2"),
        (
            [*wards_rows(), *row_lines(START_NS + SECOND_NS, TEN)],
            [*THREE_WARDS, ward_line("3", START_NS + SECOND_NS)],
            1,
            "released twice",
        ),
        (
            [*wards_rows(), *row_lines(START_NS + SECOND_NS, TEN)],
            [*THREE_WARDS, summary_line(START_NS + SECOND_NS, batch_id="0123456789ab-1-2")],
            1,
            "released twice",
        ),
    ],
)  # fmt: skip
def test_the_rows_of_several_wards_in_one_window_are_checked_together(
    output_bucket: Bucket, rows: list[str], summaries: list[str], code: int, said: str
) -> None:
    store(output_bucket, *rows, *summaries)
    server = output_bucket.server
    place = Place(server.url, server.org, output_bucket.name, "ecg", "ecg", "source_id", "", 0, 2 * START_NS)

    found = list(findings_in_bucket(BucketToCheck(place, output_bucket.read_token), Question(None, 5 * SECOND_NS, imputed=False)))

    problems = [text for finding in found for text in (*finding.problems, *finding.incomplete)]
    assert bool([text for finding in found for text in finding.problems]) == bool(code), problems
    rows_found, smallest = sum(one.rows for one in found), found[0].smallest_group
    assert said in (" ".join(problems) or f"OK {len(found)} windows, {rows_found} rows. Smallest group: {smallest} rows")


LOW, HIGH = [10.0] * 5 + [20.0] * 5 + [15.0] * 2, [100.0] * 6 + [200.0] * 5 + [1600 / 11] * 3


def changed(values: list[float], at: int, value: float) -> list[float]:
    return [*values[:at], value, *values[at + 1 :]]


def test_means_that_wards_impute_are_accepted_and_any_other_value_that_few_share_is_not(output_bucket: Bucket) -> None:
    # Ward 4 has one wearer and ward 3 two, whose numbers of rows tell whose they are; or there are nine of about as many rows each.
    cases: list[tuple[list[float], list[float], int, str]] = [
        (LOW, HIGH, 1, ""),
        # A row whose value is common enough in the bucket, but not in its ward.
        (LOW, changed(HIGH, 0, 10.0), 1, "values that fewer than 5 rows share"),
        (LOW, changed(HIGH, 13, 200.0), 1, "another number of imputed rows"),
        (LOW[:10] + [16.0] * 2, HIGH, 1, "values that fewer than 5 rows share"),
        (LOW, HIGH, 5, ""),
        (changed(LOW, 0, 99.0), HIGH, 5, "values that fewer than 5 rows share"),
        # As many rows as are imputed, with what is no ward's mean.
        (LOW[:10] + [16.0] * 2, HIGH, 5, "values that fewer than 5 rows share"),
        # The ward's mean, with fewer rows than are imputed.
        ([10.0] * 5 + [115 / 6] * 6 + [15.0], HIGH, 5, "values that fewer than 5 rows share"),
        (LOW, changed(HIGH, 0, 10.0), 5, "values that fewer than 5 rows share"),
    ]
    for number, (low, high, sources, _) in enumerate(cases):
        at_ns = START_NS + number * 5 * SECOND_NS
        three, four = (
            ward_line(
                ward,
                at_ns,
                rows_read=rows,
                rows_released=rows,
                rows_suppressed=imputed,
                distinct_sources=wearers,
                smallest_group=5,
            )
            for ward, rows, imputed, wearers in (("3", 12, 2, 2 if sources == 1 else 4), ("4", 14, 3, sources))
        )
        rows = [*row_lines(at_ns, low, names="three", sources=2 if sources == 1 else 4)]
        rows += [*row_lines(at_ns + 10**8, high, names="four", sources=sources)]
        store(output_bucket, *rows, three, four)
    server = output_bucket.server
    place = Place(server.url, server.org, output_bucket.name, "ecg", "ecg", "source_id", "", 0, 2 * START_NS)
    bucket = BucketToCheck(place, output_bucket.read_token)

    found = list(findings_in_bucket(bucket, Question(None, 5 * SECOND_NS, imputed=True)))
    unasked = list(findings_in_bucket(bucket, Question(None, 5 * SECOND_NS, imputed=False)))

    for one, (_, _, sources, problem) in zip(found, cases, strict=True):
        assert (bool(one.problems), problem in " ".join(one.problems)) == (bool(problem), True), one
        assert one.is_mixed == (sources == 5), one
    assert [one.imputed_rows for one in found if not one.problems] == [5, 5]
    assert all("accept these with --imputed" in " ".join(one.problems) for one in unasked)
