"""The outside check of CSV files sees what a privacy officer would want to see, and nothing that is not there."""

from __future__ import annotations

import gzip
import tracemalloc
from collections.abc import Sequence
from pathlib import Path

import pytest
from dotenv import dotenv_values

from scripts.verify_output import Promise, Question, SeenWindows, findings_in_files, read_env_file
from tests.scripts.verifying import SECOND_NS, run_check, write_csv

#: Five rows of one value by five sources, in one window of five seconds.
GOOD = [(f"2025-11-03T14:30:00.00000000{i}Z", f"s{i}", "10.0") for i in range(5)]
NEXT_WINDOW = [(time.replace("14:30:00", "14:30:05"), source, value) for time, source, value in GOOD]


def check(folder: Path, rows: Sequence[tuple[str, str, str]], *arguments: str, k: int = 5) -> tuple[int, str]:
    path = write_csv(folder / "released.csv", rows)
    return run_check("--k", str(k), "--batch-seconds", "5", *arguments, str(path))


def test_a_file_that_keeps_its_promise_is_said_to_and_one_row_too_few_in_any_window_is_a_violation(tmp_path: Path) -> None:
    code, said = check(tmp_path, GOOD)
    too_few, violation = check(tmp_path, GOOD[:4])

    assert code == 0
    assert "1 window, 5 rows. Smallest group: 5 rows (promised: 5)." in said
    assert "OK: every released value is shared as promised." in said
    assert too_few == 1
    assert "VIOLATION in 1 windows, the first 2025-11-03T14:30:00Z: values that fewer than 5 rows share" in violation
    assert "OK" not in violation
    assert check(tmp_path, GOOD + NEXT_WINDOW)[0] == 0
    assert check(tmp_path, GOOD + NEXT_WINDOW[:1])[0] == 1


@pytest.mark.parametrize(("k", "code"), [(5, 0), (6, 1)])
def test_sources_are_counted_when_asked_for(tmp_path: Path, k: int, code: int) -> None:
    twice = sorted([*GOOD, *((time[:-2] + f"{9 - i}Z", source, value) for i, (time, source, value) in enumerate(GOOD))])

    assert check(tmp_path, twice, "--k-unit", "source", k=k)[0] == code
    assert check(tmp_path, twice, k=10)[0] == 0


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        ([*GOOD[:4], (GOOD[4][0], "s4", "nan")], "values that are not finite"),
        ([*GOOD[:4], (GOOD[4][0], "s4", "-inf")], "values that are not finite"),
        ([*GOOD, GOOD[4]], "a source has two rows for one time"),
        ([GOOD[1], GOOD[0], *GOOD[2:]], "rows are not in order of time and id"),
        ([(GOOD[0][0], "s1", "10.0"), (GOOD[0][0], "s0", "10.0"), *GOOD[2:]], "rows are not in order of time and id"),
        ([*GOOD, *NEXT_WINDOW, *GOOD], "released twice, or not in order of time"),
    ],
)
def test_each_other_fault_is_named(tmp_path: Path, rows: list[tuple[str, str, str]], problem: str) -> None:
    code, said = check(tmp_path, rows)

    assert (code, problem in said) == (1, True), said


TEXT = "timestamp,source_id,ecg\n" + "".join(",".join(row) + "\n" for row in [*GOOD, *NEXT_WINDOW])


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbf" + TEXT.encode(),
        TEXT.replace("\n", "\r\n").encode(),
        b"\xef\xbb\xbf" + TEXT.replace("\n", "\r\n").encode(),
        gzip.compress(TEXT.encode(), mtime=0),
        gzip.compress(b"\xef\xbb\xbf" + TEXT.replace("\n", "\r\n").encode()),
        gzip.compress(TEXT[:100].encode()) + gzip.compress(TEXT[100:].encode()) + bytes(1024),
        TEXT.replace(",10.0", ',"10.0"').encode(),
    ],
    ids=["mark", "CRLF", "mark and CRLF", "gzip", "gzip of both", "gzip in parts, padded", "quotes"],
)
@pytest.mark.parametrize("name", ["released.csv", "released.csv.gz"])
def test_a_file_is_read_however_it_was_stored(content: bytes, name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(content)

    code, said = run_check("--k", "5", "--batch-seconds", "5", str(path))
    too_few, violation = run_check("--k", "6", "--batch-seconds", "5", str(path))

    assert (code, "2 windows, 10 rows." in said) == (0, True), said
    assert (too_few, "VIOLATION in 2 windows" in violation) == (1, True), violation


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (TEXT.encode("utf-16"), "line 1: the text is UTF-16, expected UTF-8"),
        (TEXT.encode("utf-16-le"), "line 1: the text is UTF-16, expected UTF-8"),
        (
            TEXT.replace(",", ";").encode(),
            "line 1: expected the header timestamp,source_id,ecg; the columns are separated by semicolons",
        ),
        (TEXT.replace(",", "\t").encode(), "the columns are separated by tabs"),
        (b"sep=;\n" + TEXT.replace(",", ";").encode(), "it is a `sep=` line of a spreadsheet"),
        (TEXT.replace("source_id", "Source_ID").encode(), "its capitals or spaces differ"),
        (TEXT[TEXT.index("2025") :].encode(), "line 1: expected the header"),
        (b"", "the file is empty"),
        (b"a,b,c\n", "expected the header"),
        (TEXT[:24].encode() + b"now,a,1\n", "line 2: expected a time, an id and a number"),
        (TEXT[:24].encode() + b"1,2\n", "line 2: expected a time, an id and a number"),
        (TEXT.replace("s3,10.0", "s3;10.0", 1).encode(), "line 5: expected a time, an id and a number"),
        (TEXT.replace("s3,10.0", "s3,10,0", 1).encode(), "line 5: expected a time, an id and a number"),
        (TEXT.replace("s3,10.0", "s3,1_0", 1).encode(), "line 5: expected a time, an id and a number"),
        (TEXT.replace("000000003Z", "0000000031Z", 1).encode(), "line 5: expected a time, an id and a number"),
        (TEXT.replace("s3,10.0", '"s3,10.0', 1).encode(), "expected a time, an id and a number"),
        (TEXT.encode().replace(b"s3", b"s\xff", 1), "is not UTF-8 text"),
        (gzip.compress(TEXT.encode(), mtime=0)[:-20], "cannot be read behind line"),
        (b"\x1f\x8bnoise that is no gzip", "cannot be read behind line 1"),
        (b"x" * 200_000, "line 1: not CSV"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_read_is_said_with_its_line_and_no_row(content: bytes, problem: str, tmp_path: Path) -> None:
    path = tmp_path / "released.csv"
    path.write_bytes(content)

    code, said = run_check("--k", "5", "--batch-seconds", "5", str(path))

    assert (code, problem in said) == (64, True), said
    assert "2025-11-03" not in said
    assert "OK" not in said


def test_a_window_may_go_on_in_the_next_file(tmp_path: Path) -> None:
    first, second = write_csv(tmp_path / "1.csv", GOOD[:2]), write_csv(tmp_path / "2.csv", GOOD[2:])

    code, said = run_check("--k", "5", "--batch-seconds", "5", str(first), str(second))

    assert (code, "1 window, 5 rows." in said) == (0, True), said


def test_an_imputed_mean_is_accepted_only_when_asked_for_and_another_lonely_value_never(tmp_path: Path) -> None:
    rows = [
        *((time, source, "20.0") for time, source, _ in GOOD),
        *((time.replace(":00.", ":01."), source, "10.0") for time, source, _ in GOOD),
        ("2025-11-03T14:30:02.000000000Z", "s0", "15.0"),
    ]

    assert check(tmp_path, rows)[0] == 1
    assert check(tmp_path, rows, "--imputed")[0] == 0
    assert check(tmp_path, [*GOOD, rows[-1]], "--imputed")[0] == 1


def test_the_table_has_a_line_for_each_window(tmp_path: Path) -> None:
    _, said = check(tmp_path, GOOD + NEXT_WINDOW[:1], "--table")

    assert "2025-11-03T14:30:00Z        5        5        1        5        0  -\n" in said
    assert "2025-11-03T14:30:05Z        1        1        1        1        0  values that fewer than 5 rows share\n" in said


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["nowhere.csv", "--k", "5", "--batch-seconds", "5"], "nowhere.csv cannot be read"),
        (["x.csv", "--k", "5"], "files do not say what was promised"),
        (["x.csv", "--k", "1", "--batch-seconds", "5"], "--k must be at least 2"),
        (["x.csv", "--k", "five"], "invalid int value: 'five'"),
        (["--env-file", "nowhere.env"], "--env-file nowhere.env cannot be read"),
        ([], "name the organization with --org"),
        (["--org", "o"], "set INFLUX_VERIFY_TOKEN or INFLUX_VERIFY_TOKEN_FILE"),
        (["--org", "o", "--url", "ftp://here"], "--url must be an address such as"),
        (["--org", "o", "--start", "yesterday"], "expected a time such as 2025-11-03T14:30:00Z, got 'yesterday'"),
    ],
)
def test_a_mistake_in_the_arguments_is_a_sentence_and_64(arguments: list[str], sentence: str) -> None:
    code, said = run_check(*arguments)

    assert (code, sentence in said) == (64, True), said


def test_what_was_promised_can_come_from_the_env_file(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "released.csv", GOOD)
    env_file = tmp_path / ".env"

    env_file.write_text("K_VALUE=5\n", encoding="utf-8")
    assert run_check(str(path), "--env-file", str(env_file))[0] == 0
    env_file.write_text("K_VALUE=6\nBATCH_SIZE_SECONDS=5\n", encoding="utf-8")
    assert run_check(str(path), "--env-file", str(env_file))[0] == 1


@pytest.mark.parametrize(
    "line",
    ["A=b", " A = b ", "A=b # c", "A='b # c'", 'A="b c"', "A=b#c", "A=$x${y}", "export A=b", "# A=b", "A=", "A==b=", "\ufeffA=b"],
)
def test_an_env_file_means_the_same_here_as_to_the_service(tmp_path: Path, line: str) -> None:
    path = tmp_path / ".env"
    path.write_text(f"{line}\nB=1\n", encoding="utf-8")

    assert read_env_file(path) == dict(dotenv_values(path, interpolate=False, encoding="utf-8-sig"))


def write_windows(path: Path, windows: int, rows: int) -> Path:
    times = (
        f"2025-11-03T{14 + w // 720:02}:{w // 12 % 60:02}:{w % 12 * 5:02}.{i:09}Z" for w in range(windows) for i in range(rows)
    )
    return write_csv(path, ((time, "s", f"{i % 4}.0") for i, time in enumerate(times)))


def test_ten_times_as_many_windows_take_no_more_memory(tmp_path: Path) -> None:
    question = Question(Promise(5, by_source=False), 5 * SECOND_NS, imputed=False)
    peaks = []
    for windows in (20, 200):
        path = write_windows(tmp_path / f"{windows}.csv", windows, 200)
        tracemalloc.start()
        assert sum(finding.rows for finding in findings_in_files([path], question)) == windows * 200
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()

    assert peaks[1] < 1.5 * peaks[0]


def test_windows_that_came_are_remembered_as_spans_and_any_overlap_is_noticed() -> None:
    seen = SeenWindows()

    assert not any(seen.add(start, start + 5) for start in (0, 5, 10, 40, 20))
    assert [seen.add(*span) for span in ((10, 15), (12, 13), (-1, 1), (38, 41), (0, 100))] == [True] * 5
    assert not any(seen.add(*span) for span in ((15, 20), (25, 40), (45, 46), (-5, 0)))
