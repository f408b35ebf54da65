"""Another's checker, pyCANON, counts the same behind every window of the sample data as ours does."""

from __future__ import annotations

import csv
import json
import subprocess
from collections.abc import Sequence
from pathlib import Path

from outputs import csv_lines, csv_names
from scripts.verify_output import Promise, Question, Row, findings_in_files, read_rows
from tests.core.plain_anonymizer import PlainSettings
from tests.documentation.sample import alone, batches_of, together
from tests.scripts.pycanon_program import QUESTION, find_pycanon
from tests.scripts.verifying import SECOND_NS

WINDOW_NS = 5 * SECOND_NS


def as_pycanon_counts(rows: Sequence[Row], folder: Path) -> list[int]:
    """Return the k of each window, in order of time, as pyCANON sees it."""
    table = folder / "for_pycanon.csv"
    with table.open("w", newline="", encoding="utf-8") as file:
        lines = csv.writer(file)
        lines.writerow(["window", "ecg"])
        lines.writerows((time_ns // WINDOW_NS, value) for time_ns, _, value in rows)
    done = subprocess.run([find_pycanon(), "-c", QUESTION, str(table)], capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stderr
    return [k for _, k in sorted((int(window), k) for window, k in json.loads(done.stdout).items())]


def as_we_count(path: Path, k: int) -> list[int]:
    question = Question(Promise(k, by_source=False), WINDOW_NS, imputed=False)
    return [finding.smallest_group for finding in findings_in_files([path], question)]


def test_pycanon_finds_the_same_k_in_the_first_windows_of_the_sample_data(tmp_path: Path) -> None:
    for name, samples, k in (("six", together(), 5), ("one", alone()[3], 20)):
        path = tmp_path / f"{name}.csv"
        path.write_bytes(csv_names.HEADER + b"".join(map(csv_lines.encode, batches_of(samples, PlainSettings(k=k))[:15])))

        theirs = as_pycanon_counts(list(read_rows(path)), tmp_path)

        assert len(theirs) == 15
        assert theirs == as_we_count(path, k)
        assert min(theirs) >= k


def test_pycanon_and_we_see_the_same_broken_window(tmp_path: Path) -> None:
    path = tmp_path / "broken.csv"
    batches = batches_of(alone()[0], PlainSettings(k=5))[:3]
    lines = b"".join(map(csv_lines.encode, batches)).decode().splitlines()
    lines[2000] = f"{lines[2000].rsplit(',', 1)[0]},1234.5"
    path.write_text("\n".join([csv_names.HEADER.decode().strip(), *lines]) + "\n", encoding="utf-8")

    theirs = as_pycanon_counts(list(read_rows(path)), tmp_path)

    assert theirs == as_we_count(path, 5)
    assert [k >= 5 for k in theirs] == [True, False, True]
