"""The oracle can see: each safeguard, taken out of a copy of the code, makes the tests of faults fail. Only by `make test-faults`."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.faults.conftest import Report
from tests.faults.ward import FULL
from tests.integration.service_process import ROOT

NOT_COPIED = {".git", ".venv", "state", "output", "build"}
NOT_COPIED_ANYWHERE = shutil.ignore_patterns("__pycache__", ".*_cache")


@dataclass(frozen=True)
class Mutant:
    """A safeguard taken out: what in which file becomes what, and which tests must notice."""

    path: str
    old: str
    new: str
    tests: str


MUTANTS = {
    "spool files are not synced": Mutant(
        "disk/durable_file.py",
        "            os.fsync(file.fileno())\n    except OSError:\n        with suppress(OSError):\n            path.unlink()",
        "    except OSError:\n        with suppress(OSError):\n            path.unlink()",
        "tests/faults/test_power.py",
    ),
    "a release is recorded before it is spooled": Mutant(
        "service/delivery/delivery.py",
        "        size_bytes = self._retry.until_done(lambda: spool.write(number, batches))\n",
        "        journal.record_release(releases, chunk=number, size_bytes=1, now_ns=self._clock.now_ns(), stream_to_ns=stream_to_ns)\n"
        "        journal.record_release = lambda *_, **__: None\n"
        "        size_bytes = self._retry.until_done(lambda: spool.write(number, batches))\n",
        "tests/faults/test_kills.py -k mid-spool",
    ),
    "a release is not recorded": Mutant(
        "service/state/journal.py",
        "            db.executemany(\n                _INSERT_INTERVAL,\n                (\n                    (one.window.start_ns",
        "            (lambda *_: None)(\n                _INSERT_INTERVAL,\n                (\n                    (one.window.start_ns",
        "tests/faults/test_released_once.py -k other_settings",
    ),
    "the API's key is another with each try": Mutant(
        "outputs/http_api.py",
        '{"Idempotency-Key": key,',
        '{"Idempotency-Key": key + str(time.monotonic_ns()),',
        "tests/faults/test_outputs_down.py -k answer_is_lost",
    ),
    "CSV files are not cut back": Mutant(
        "outputs/committed_file.py",
        "        file.truncate(length)\n        file.seek(length)\n",
        "        file.seek(0, os.SEEK_END)\n",
        "tests/faults/test_kills.py -k half_a_batch",
    ),
    "an output is not offered what it lacks": Mutant(
        "service/state/output_positions.py",
        "WHERE chunk > max(?, (SELECT position FROM outputs WHERE name = ?))",
        "WHERE chunk > max(?, 1 + (SELECT position FROM outputs WHERE name = ?))",
        "tests/faults/test_kills.py -k after-released",
    ),
    "the fence is not looked at": Mutant(
        "service/state/journal.py",
        "        unknown = self._known.missing(fenced.intervals)\n        if unknown:",
        "        unknown = self._known.missing(fenced.intervals)\n        if False:",
        "tests/faults/test_released_once.py -k old_backup",
    ),
    "chunks are offered before the fence knows them": Mutant(
        "service/state/output_positions.py",
        "            self._offered_to,\n        )\n        return chunk",
        "            1 << 62,\n        )\n        return chunk",
        "tests/faults/test_power.py -k slow",
    ),
    "a line of the fence is not synced": Mutant(
        "service/state/fence.py",
        "        file.flush()\n        os.fsync(file.fileno())\n    return True",
        "    return True",
        "tests/faults/test_power.py -k slow",
    ),
    "short reads are taken as they are": Mutant(
        "service/pipeline/chunks.py",
        "    for _ in range(_MOST_READS - 1):",
        "    return samples\n    for _ in range(_MOST_READS - 1):",
        "tests/faults/test_source.py -k too_little",
    ),
}


@pytest.mark.parametrize("mutant", MUTANTS.values(), ids=MUTANTS)
def test_every_safeguard_still_stands_where_it_is_taken_out(mutant: Mutant) -> None:
    assert (ROOT / mutant.path).read_text(encoding="utf-8").count(mutant.old) == 1, (
        f"{mutant.path} says it otherwise: say it anew in MUTANTS"
    )


@pytest.mark.influxdb
@pytest.mark.skipif(not FULL, reason="breaks copies of the code, which takes minutes")
@pytest.mark.parametrize("name", MUTANTS)
def test_a_safeguard_that_is_missing_is_noticed(name: str, tmp_path: Path, report: Report) -> None:
    """The tests of rows 1, 5, 9 and 23 fail when what they are about is broken."""
    mutant = MUTANTS[name]
    copy = tmp_path / "copy"
    shutil.copytree(
        ROOT,
        copy,
        ignore=lambda folder, names: NOT_COPIED_ANYWHERE(folder, names) | (NOT_COPIED if Path(folder) == ROOT else set()),
    )
    broken = copy / mutant.path
    text = broken.read_text(encoding="utf-8")
    broken.write_text(text.replace(mutant.old, mutant.new), encoding="utf-8")

    ended = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *mutant.tests.split()],
        cwd=copy,
        env={**os.environ, "FAULTS_FULL": ""},
        capture_output=True,
        encoding="utf-8",
        timeout=600,
        check=False,
    )

    assert ended.returncode == 1, f"not noticed:\n{ended.stdout[-3000:]}{ended.stderr[-2000:]}"
    (failed,) = [line for line in ended.stdout.splitlines() if line.startswith("FAILED")]
    report(f"if {name}: {failed}")
