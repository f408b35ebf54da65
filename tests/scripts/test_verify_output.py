"""The outside check sees what a privacy officer would want to see, and nothing that is not there."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent

#: Five rows of one value by five sources, in one window of five seconds.
GOOD = [(f"2025-11-03T14:30:00.00000000{i}Z", f"s{i}", "10.0") for i in range(5)]


def check(folder: Path, rows: Sequence[tuple[str, str, str]], *arguments: str, k: int = 5) -> tuple[int, str]:
    path = folder / "released.csv"
    path.write_text("timestamp,source_id,ecg\n" + "".join(",".join(row) + "\n" for row in rows))
    command = [
        sys.executable,
        str(ROOT / "scripts" / "verify_output.py"),
        "--k",
        str(k),
        "--batch-seconds",
        "5",
        *arguments,
        str(path),
    ]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", check=False)
    return done.returncode, done.stdout + done.stderr


def test_a_file_that_keeps_its_promise_is_said_to(tmp_path: Path) -> None:
    code, said = check(tmp_path, GOOD)

    assert code == 0
    assert "1 windows of 5 s, 5 rows. Smallest group: 5 rows (promised: 5)." in said
    assert "OK: every released value is shared as promised." in said


def test_a_value_shared_by_one_row_too_few_is_a_violation(tmp_path: Path) -> None:
    code, said = check(tmp_path, GOOD[:4])

    assert (code, "VIOLATION in 1 windows: 1 values are shared by fewer than 5" in said) == (1, True)


def test_each_window_is_judged_by_itself(tmp_path: Path) -> None:
    other_window = [("2025-11-03T14:30:05.000000000Z", "s0", "10.0")]

    assert check(tmp_path, GOOD + other_window)[0] == 1


@pytest.mark.parametrize(("k", "code"), [(5, 0), (6, 1)])
def test_sources_are_counted_when_asked_for(tmp_path: Path, k: int, code: int) -> None:
    twice = sorted([*GOOD, *((time[:-2] + f"{9 - i}Z", source, value) for i, (time, source, value) in enumerate(GOOD))])

    assert check(tmp_path, twice, "--k-unit", "source", k=k)[0] == code
    assert check(tmp_path, twice, k=10)[0] == 0


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        ([*GOOD[:4], (GOOD[4][0], "s4", "nan")], "values that are not finite"),
        ([*GOOD, GOOD[4]], "a source has two rows for one time"),
        ([GOOD[1], GOOD[0], *GOOD[2:]], "rows are not in order of time and id"),
    ],
)
def test_each_other_fault_is_named(tmp_path: Path, rows: list[tuple[str, str, str]], problem: str) -> None:
    code, said = check(tmp_path, rows)

    assert (code, problem in said) == (1, True), said


def test_an_imputed_mean_is_accepted_only_when_asked_for(tmp_path: Path) -> None:
    rows = [*GOOD, ("2025-11-03T14:30:01.000000000Z", "s0", "10.0")]
    rows = [
        *((time, source, "20.0") for time, source, _ in GOOD),
        *((time.replace(":00.", ":01."), source, "10.0") for time, source, _ in GOOD),
    ]
    rows.append(("2025-11-03T14:30:02.000000000Z", "s0", "15.0"))

    assert check(tmp_path, rows)[0] == 1
    assert check(tmp_path, rows, "--imputed")[0] == 0


def test_a_lonely_value_that_is_no_mean_is_never_accepted(tmp_path: Path) -> None:
    rows = [*GOOD, ("2025-11-03T14:30:02.000000000Z", "s0", "15.0")]

    assert check(tmp_path, rows, "--imputed")[0] == 1


def test_the_table_has_a_line_for_each_window(tmp_path: Path) -> None:
    _, said = check(tmp_path, GOOD, "--table")

    assert "2025-11-03T14:30:00Z        5        5        1        5        0  -" in said


@pytest.mark.parametrize("content", ["", "a,b,c\n", "timestamp,source_id,ecg\nnow,a,1\n", "timestamp,source_id,ecg\n1,2\n"])
def test_a_file_of_another_form_is_refused_with_a_sentence(tmp_path: Path, content: str) -> None:
    (tmp_path / "x.csv").write_text(content)
    command = [
        sys.executable,
        str(ROOT / "scripts" / "verify_output.py"),
        "--k",
        "5",
        "--batch-seconds",
        "5",
        str(tmp_path / "x.csv"),
    ]

    done = subprocess.run(command, capture_output=True, encoding="utf-8", check=False)

    assert (done.returncode, "expected" in done.stderr, "Traceback" in done.stderr) == (64, True, False)
